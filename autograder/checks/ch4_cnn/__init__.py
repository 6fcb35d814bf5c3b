"""Hidden checks for "feature extraction with convolution filters"."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from autograder.checks import Setup
from data import mnist

# The training loop asks for 100 images a step and saves every 100 steps: after so many one file,
# and only one, must be there, and they are enough to see that it learns.
TRAINING_STEPS = 100
TRAIN_ROWS = 3000


def probe_rows(rng: np.random.Generator, test_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Which MNIST images a submission's kernel sees: (TRAIN_ROWS,) and (test_rows,) indices."""
    train = rng.choice(60_000, TRAIN_ROWS, replace=False)
    return train, rng.choice(10_000, test_rows, replace=False)


_CHECKPOINT = ("checkpoint", "mdc_session-4000.index", "mdc_session-4000.data-*")


def _whole_mnist(say: Callable[[str], None]) -> dict[str, Path]:
    return {"MNIST_DIR": mnist.fetch(say=say)}


def _digits(test_rows: int) -> Setup:
    def prepare(folder: Path, rng: np.random.Generator) -> None:
        train, test = probe_rows(rng, test_rows)
        mnist.write_subset(folder / ".mnist", train, test)

    return Setup(
        read=_CHECKPOINT,
        environment={"MNIST_DIR": ".mnist", "TRAINING_STEP_LIMIT": str(TRAINING_STEPS)},
        prepare=prepare,
        explain=EXPLAIN,
        ends=("TrainingStopped",),
        seconds=120,
        steps=4000,
        data=_whole_mnist,
    )


# What an error has to do with the subject.
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
    r"not a valid checkpoint|TensorSliceReader|not found in checkpoint files|not an sstable": "the "
    "index and the data file of mdc_session-4000 must lie beside the notebook, and saver.restore "
    "needs the path './mdc_session-4000', no ending",
    r"float64|must be of the same type|incompatible with the graph": "TensorFlow does not mix "
    "types: everything here is tf.float32",
}

TEST_ROWS = {"4-mnist-training": 500, "5-mnist-filters": 2000}

NOTEBOOKS = {
    "1-orenist-filter": Setup(explain=EXPLAIN),
    "2-orenist-classification": Setup(explain=EXPLAIN),
    "3-orenist-dynamic-filter": Setup(explain=EXPLAIN),
    "4-mnist-training": _digits(TEST_ROWS["4-mnist-training"]),
    "5-mnist-filters": Setup(
        files=("*.py", *_CHECKPOINT),
        environment={"MNIST_DIR": ".mnist"},
        prepare=_digits(TEST_ROWS["5-mnist-filters"]).prepare,
        explain=EXPLAIN,
        data=_whole_mnist,
    ),
}
