"""Stands in for the package of this name that only Colab has."""
