"""Variants of a source made by machine: wrong ones (mutation), right ones (rewriting)."""
