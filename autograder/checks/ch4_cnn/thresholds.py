"""Bounds between what a correct solution reaches and what a wrong one does.

Measured by `python -m autograder.checks.ch4_cnn.measure`; `docs/thresholds.md` has the
distributions.
"""

# Share of the initial ORENIST loss, 90·ln 3, that 200 steps leave at most.  Runs that get
# stuck, as many correct ones do, are far below it; without training it is exactly 1.
ORENIST_LOSS = 0.97

# Test accuracy of the digit network after the whole training.
MNIST_ACCURACY = 0.97

# Test accuracy after the few steps that the grader lets the training loop run.
# A loop that trains on one batch again and again stays below it.
MNIST_EARLY_ACCURACY = 0.86
