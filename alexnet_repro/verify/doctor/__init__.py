"""Diagnosis of a machine: drivers, libraries, devices, settings; each finding has a fix to type."""
