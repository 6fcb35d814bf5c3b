"""The record zone: results go into nbgrader's gradebook and notebooks, one writer at a time."""
