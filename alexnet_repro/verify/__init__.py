"""Verification of a machine: doctor, numerics, checks, benchmark, report; each imports only those before it."""
