"""Scripts that make or explain references."""
