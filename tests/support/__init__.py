"""Helpers of the tests: submissions, courses, people, and what is hostile to them."""
