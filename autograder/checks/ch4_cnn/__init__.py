"""Hidden checks for "feature extraction with convolution filters"."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from autograder.checks import Setup
from autograder.data import mnist

# Steps of the 4000-step training loop that are computed in grading: enough to show learning.
TRAINING_STEPS = 40
TRAIN_ROWS, TEST_ROWS = 60_000, 10_000
OTHER_RUN = ".other-run-2"  # for checkpoints that test `resume`; has a dash and a number itself
_DIGITS = ".mnist"


def probe_rows(rng: np.random.Generator) -> np.ndarray:
    """Indices (10 000,) of the test digits in the order that a submission's kernel sees.

    The kernel has all of them, because students write this number, but not in the files' order.
    """
    return rng.permutation(TEST_ROWS)


_CHECKPOINT = (
    "checkpoint",
    "mdc_session-4000.index",
    "mdc_session-4000.data-*",
)


def _whole_mnist(say: Callable[[str], None]) -> dict[str, Path]:
    return {"MNIST_DIR": mnist.fetch(say=say)}


def _training_digits() -> dict[str, Path]:
    return {f"{_DIGITS}/{path.name}": path for path in mnist.files("train")}


def _write_test_digits(folder: Path, rng: np.random.Generator) -> None:
    mnist.write_rows(folder / _DIGITS, "test", probe_rows(rng))
    (folder / OTHER_RUN).mkdir()


# Explanations of errors, by a regular expression for the message.
EXPLAIN = {
    r"module 'tensorflow' has no attribute": "tf must stay tensorflow.compat.v1, as the first cell "
    "imports it: the session style of the lecture is not in TensorFlow 2's own module",
    r"No module named 'tensorflow\.(examples|contrib)": "TensorFlow 2 has no such module any more: "
    "input_data beside the notebook reads the digits",
    r"UnicodeDecodeError": "the data are bytes, and the book's file was written by Python 2: "
    "open it with 'rb', and give pickle.load encoding='latin1'",
    r"No variables to save": "a Saver knows the variables that exist when it is made: build the "
    "graph first, then the Saver",
    r"Key \S+ not found in checkpoint": "the graph's variables have other names than the saved "
    "ones: build the same graph, once, in the same order (tf.reset_default_graph)",
    r"not a valid checkpoint|TensorSliceReader|not found in checkpoint files|an sstable|"
    r"Read less bytes|Checksum does not match|data-\d{5}-of-\d{5}; No such file": "the index and "
    "the data file of mdc_session-4000 must lie whole beside the notebook, and saver.restore needs "
    "the path './mdc_session-4000', no ending",
    r"Cannot cast ufunc": "an array of whole numbers holds no decimals: make a new array for the "
    "result",
    r"float64|must be of the same type|incompatible with the graph": "TensorFlow does not mix "
    "types: everything here is tf.float32",
    r"read-only": "the function changes an array that it was given, which others still need: "
    "work on a copy",
}

NOTEBOOKS = {
    "1-orenist-filter": Setup(explain=EXPLAIN),
    "2-orenist-classification": Setup(explain=EXPLAIN),
    "3-orenist-dynamic-filter": Setup(explain=EXPLAIN),
    "4-mnist-training": Setup(
        read=_CHECKPOINT,
        environment={"MNIST_DIR": _DIGITS},
        shared=_training_digits,
        prepare=_write_test_digits,
        explain=EXPLAIN,
        seconds=240,
        steps=4000,
        training_steps=TRAINING_STEPS,
        needs=mnist.needed,
        data=_whole_mnist,
    ),
    "5-mnist-filters": Setup(
        files=("*.py", *_CHECKPOINT),
        environment={"MNIST_DIR": _DIGITS},
        shared=_training_digits,
        prepare=_write_test_digits,
        explain=EXPLAIN,
        needs=mnist.needed,
        data=_whole_mnist,
    ),
}
