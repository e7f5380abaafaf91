"""The questions that a machine is asked: each a function from a subject to one finding."""
