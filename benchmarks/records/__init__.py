"""Trainings on file, and the page of claims made of them."""
