"""The course's data: generated ORENIST strokes, and MNIST as it was published."""
