"""Timing, and whether it is as fast as it should be: timer, roofline, noise, references, scaling."""
