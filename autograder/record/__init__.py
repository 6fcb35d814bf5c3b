"""The record zone writes results to nbgrader's gradebook and notebooks, one writer at a time."""
