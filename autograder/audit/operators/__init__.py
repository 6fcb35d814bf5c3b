"""Generates variants of a source: wrong ones (`mutation`) and right ones (`rewriting`)."""
