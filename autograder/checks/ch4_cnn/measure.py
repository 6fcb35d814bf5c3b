"""Measures what correct solutions reach by chance, so that thresholds can stand on it.

    python -m autograder.checks.ch4_cnn.measure orenist 200
    python -m autograder.checks.ch4_cnn.measure early 40
    python -m autograder.checks.ch4_cnn.measure first 40
    python -m autograder.checks.ch4_cnn.measure mnist 14

runs the solution cells of `source/ch4-cnn` under so many random seeds and keeps what it
finds in `measured.json`; seeds that are there already are not run again, so it can be
interrupted.  `mnist` is the whole training of 4000 steps (a few minutes each), `early` what
the grader sees of it: its own few steps on its own few digits.  `first` is as many steps on the
first batch alone, a mistake that must not look like learning.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
import numpy as np

from autograder.checks.ch4_cnn import TRAIN_ROWS, TRAINING_STEPS
from data import mnist, orenist

BATCH = 100
RECORD = Path(__file__).with_name("measured.json")
SOURCE = Path(__file__).parents[3] / "source" / "ch4-cnn"


def solution_cells(notebook: str, *names: str) -> str:
    """The source of solution cells, one after the other."""
    cells = nbformat.read(SOURCE / f"{notebook}.ipynb", as_version=4).cells
    found = {cell.id: cell.source for cell in cells}
    return "\n\n".join(found[name] for name in names)


def build(code: str, seed: int) -> dict[str, Any]:
    """Execute solution cells in an empty graph seeded with `seed`; the names they define."""
    import tensorflow.compat.v1 as tf

    tf.disable_v2_behavior()
    tf.reset_default_graph()
    tf.set_random_seed(seed)
    names: dict[str, Any] = {"tf": tf, "np": np}
    exec(code, names)  # noqa: S102  our own solution cells
    names["sess"] = tf.Session()
    names["sess"].run(tf.global_variables_initializer())
    return names


def orenist_run(notebook: str, cells: tuple[str, ...], seed: int) -> dict[str, float]:
    """200 steps on all 90 images: the loss that is left, as a share of the initial loss."""
    images, labels = orenist.load(SOURCE / "ORENIST.data")
    names = build(solution_cells(notebook, *cells), seed)
    feed = {names["x"]: images, names["t"]: labels}
    start = names["sess"].run(names["loss"], feed)
    for _ in range(200):
        names["sess"].run(names["train_step"], feed)
    loss, accuracy = names["sess"].run([names["loss"], names["accuracy"]], feed)
    names["sess"].close()
    return {"loss": float(loss / start), "accuracy": float(accuracy)}


def digit_run(seed: int, steps: int, rows: int) -> float:
    """Test accuracy after `steps` steps of BATCH digits out of `rows` training images."""
    code = solution_cells("4-mnist-training", "mdc-03-graph", "mdc-04-layers", "mdc-05-training")
    names = build(code, seed)
    rng = np.random.default_rng(seed)
    images, labels = mnist.load("train")
    chosen = rng.choice(len(images), rows, replace=False)
    order = np.empty(0, int)
    for _ in range(steps):
        if len(order) < BATCH:
            order = rng.permutation(chosen)
        batch, order = order[:BATCH], order[BATCH:]
        feed = {names["x"]: images[batch], names["t"]: np.eye(10)[labels[batch]]}
        names["sess"].run(names["train_step"], feed)
    images, labels = mnist.load("test")
    feed = {names["x"]: images, names["t"]: np.eye(10)[labels]}
    accuracy = float(names["sess"].run(names["accuracy"], feed))
    names["sess"].close()
    return accuracy


OCE = ("oce-03-edge-filter", "oce-04-graph", "oce-05-layers", "oce-06-training")
ODE = ("ode-03-graph", "ode-04-layers", "ode-05-training")


def one(kind: str, seed: int) -> dict[str, Any]:
    """Measure one seed."""
    if kind == "mnist":
        return {"accuracy": digit_run(seed, 4000, 60_000)}
    if kind == "early":
        return {"accuracy": digit_run(seed, TRAINING_STEPS, TRAIN_ROWS)}
    if kind == "first":
        return {"accuracy": digit_run(seed, TRAINING_STEPS, BATCH)}
    return {
        "fixed": orenist_run("2-orenist-classification", OCE, seed),
        "trained": orenist_run("3-orenist-dynamic-filter", ODE, seed),
    }


def main(kind: str, count: int) -> None:
    """Measure seeds 0 … count−1 of `kind`, and keep each at once."""
    record = json.loads(RECORD.read_text())
    for seed in range(count):
        if str(seed) in record[kind]:
            continue
        started = time.monotonic()
        record[kind][str(seed)] = one(kind, seed)
        half = RECORD.with_suffix(".half")
        half.write_text(json.dumps(record, indent=1) + "\n")
        half.replace(RECORD)
        print(f"{kind} {seed}: {record[kind][str(seed)]} ({time.monotonic() - started:.0f} s)")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
