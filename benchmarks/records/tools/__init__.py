"""From records to the page of claims."""
