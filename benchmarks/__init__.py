"""Benchmarks of grading against stock Jupyter and stock nbgrader on the same submissions."""
