"""The machine under test: which devices it has, and how they compute."""
