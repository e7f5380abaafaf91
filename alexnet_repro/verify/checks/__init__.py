"""Checks of one device: correct, and the same bits twice; run in child processes."""
