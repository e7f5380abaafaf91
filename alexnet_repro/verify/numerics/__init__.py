"""The expected side: the network in float64 NumPy, rounding-error bounds, bitwise replay."""
