"""The course's data: the generated ORENIST strokes, and MNIST as published."""
