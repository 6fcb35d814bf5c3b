"""How fast grading is, against stock Jupyter and stock nbgrader on the same submissions."""
