"""What is kept and shown of a run: results.json, tables, plots, the page; records of trainings."""
