"""Bounds that separate correct solutions from wrong ones.

Measured by `python -m autograder.checks.ch4_cnn.measure`; `docs/thresholds.md` has the
distributions.
"""

# Largest share of the initial ORENIST loss, 90·ln 3, that may remain after 200 steps.  Many correct
# runs get stuck, but far below it; without training the share is exactly 1.
ORENIST_LOSS = 0.97

# Least test accuracy of the digit network after the whole training.
MNIST_ACCURACY = 0.97

# Least test accuracy after the few training steps that the grader computes.  A loop that repeats
# one batch stays below it.
MNIST_EARLY_ACCURACY = 0.86
