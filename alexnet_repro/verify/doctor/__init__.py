"""Diagnosis of a machine: drivers, libraries, devices, settings; each finding says what to type."""
