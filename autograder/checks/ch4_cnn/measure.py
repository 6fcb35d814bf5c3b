"""Measures how correct solutions vary with the random seed, as a basis for the thresholds.

    python -m autograder.checks.ch4_cnn.measure orenist 200
    python -m autograder.checks.ch4_cnn.measure early 40
    python -m autograder.checks.ch4_cnn.measure first 40
    python -m autograder.checks.ch4_cnn.measure mnist 14
    python -m autograder.checks.ch4_cnn.measure samples 400

runs the solution cells of `source/ch4-cnn` with that many random seeds and stores the results in
`measured.json`.  Seeds that are already there are skipped, so it can be interrupted.  `mnist` is
the whole training of 4000 steps (a few minutes each); `early` is the few steps that the grader
computes; `first` is as many steps on the first batch alone, a mistake that must not pass as
learning.

`samples` draws the same inputs as the checks of layers, losses and accuracies, and measures the
error of wrong functions on them, and that of right functions with other rounding.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
import numpy as np

from autograder.checks.ch4_cnn import TRAIN_ROWS, TRAINING_STEPS, reference
from autograder.checks.ch4_cnn.adapter import TOLERANCE
from autograder.checks.ch4_cnn.common import (
    TrainingChecks,
    faint_and_bright,
    pooled_by,
    some_labels,
)
from autograder.data import mnist, orenist

BATCH = 100
RECORD = Path(__file__).with_name("measured.json")
SOURCE = Path(__file__).parents[3] / "source" / "ch4-cnn"


def solution_cells(notebook: str, *names: str) -> str:
    """The concatenated source of solution cells."""
    cells = nbformat.read(SOURCE / f"{notebook}.ipynb", as_version=4).cells
    found = {cell.id: cell.source for cell in cells}
    return "\n\n".join(found[name] for name in names)


def build(code: str, seed: int) -> dict[str, Any]:
    """Execute solution cells in an empty graph with this seed; return the names they define."""
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
    """Train 200 steps on all 90 images; return the loss relative to its start, and accuracy."""
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


def distances(seed: int) -> dict[str, float]:
    """Errors of functions on the samples of this seed, in units of the checks' tolerance.

    A "right …" function must stay below 1, all others above.
    """
    rng = np.random.default_rng(seed)
    checks = TrainingChecks
    images, _ = checks.images(rng)
    weights = checks.some_weights(rng)
    bright = faint_and_bright(images[:6]).reshape(-1, 28, 28, 1)
    found: dict[str, float] = {}
    for filters, kernel in (
        ("given filters", reference.edge_kernels()),
        ("filters at their start", np.clip(rng.normal(0, 0.1, (5, 5, 1, 2)), -0.2, 0.2)),
    ):
        raw = reference.convolve(bright, kernel)
        maps = np.abs(raw)
        kept = reference.cut_off(maps)
        network = {"W_conv": kernel, **weights}
        made = layers(network, images)
        single = layers({k: v.astype(np.float32) for k, v in network.items()}, images)
        pairs = {
            "no abs": (raw, maps),
            "relu for abs": (np.maximum(raw, 0), maps),
            "nothing cut off": (maps, kept),
            "cut, not shifted": (np.where(maps >= 0.2, maps, 0), kept),
            "average pooling": (pooled_by(kept, np.mean), reference.max_pool(kept)),
            "first pixel": (kept[:, ::2, ::2], reference.max_pool(kept)),
            "pooled too early": (reference.max_pool(maps), reference.max_pool(kept)),
            "no activation": (made["response"], made["hidden"]),
            "relu for tanh": (np.maximum(made["response"], 0), made["hidden"]),
            "sigmoid for tanh": (1 / (1 + np.exp(-made["response"])), made["hidden"]),
            "no b2": (np.tanh(made["response"] - weights["b2"]), made["hidden"]),
            "b2 outside": (
                np.tanh(made["response"] - weights["b2"]) + weights["b2"],
                made["hidden"],
            ),
            "no b0": (reference.softmax(made["logits"] - weights["b0"]), made["p"]),
            "softmax twice": (reference.softmax(made["p"]), made["p"]),
            "softmax over the images": (reference.softmax(made["logits"].T).T, made["p"]),
            "right layers": (single["hidden"], made["hidden"]),
            "right probabilities": (single["p"], made["p"]),
        }
        found |= {f"{name}, {filters}": distance(*pair) for name, pair in pairs.items()}
        noise = checks.noise(rng)
        network |= checks.balanced(weights, layers(network, noise)["hidden"])
        judged = shares(layers(network, noise)["p"], rng)
        found |= {f"{name}, {filters}": how_far for name, how_far in judged.items()}
    return found


def layers(weights: dict[str, Any], images: Any) -> dict[str, Any]:
    """The stroke network's layers after the pooling, for images (n, 784)."""
    maps = np.abs(reference.convolve(images.reshape(-1, 28, 28, 1), weights["W_conv"]))
    flat = reference.max_pool(reference.cut_off(maps)).reshape(len(images), -1)
    response = flat @ weights["w2"] + weights["b2"]
    hidden = np.tanh(response)
    logits = hidden @ weights["w0"] + weights["b0"]
    return {
        "response": response,
        "hidden": hidden,
        "logits": logits,
        "p": reference.softmax(logits),
    }


def distance(answer: Any, wanted: Any) -> float:
    """Largest difference between arrays of one shape, in units of `adapter.same`'s tolerance."""
    return float((np.abs(answer - wanted) / (TOLERANCE * (1 + np.abs(wanted)))).max())


def shares(p: Any, rng: np.random.Generator) -> dict[str, float]:
    """Errors of wrong accuracies and losses on `some_labels` of p (n, classes)."""
    n = len(p)
    most, least = p.argmax(axis=1), p.argmin(axis=1)
    second = np.argsort(-p, axis=1)[:, 1]
    found: dict[str, float] = {}
    for labels in some_labels(p, rng):
        right = labels.argmax(axis=1)
        share = reference.accuracy(p, labels)
        loss = reference.cross_entropy(p, labels)
        wrong = {
            "argmax along the images": ((p.argmax(axis=0) == labels.argmax(axis=0)).mean(), share),
            "argmin": ((least == right).mean(), share),
            "share of the wrong": ((most != right).mean(), share),
            "rounded p": ((np.round(p) == labels).mean(), share),
            "among the first two": (((most == right) | (second == right)).mean(), share),
            "summed over all classes": (-np.log(p).sum(), loss),
            "mean for sum": (loss / n, loss),
            "squared error": (((p - labels) ** 2).sum(), loss),
        }
        for k in range(p.shape[1]):
            wrong[f"class {k} for all"] = (labels[:, k].mean(), share)
        for name, pair in wrong.items():
            found[name] = max(found.get(name, 0.0), distance(*map(np.asarray, pair)))
    return found


def summed_up(count: int) -> dict[str, dict[str, float]]:
    """Statistics of the decimal logarithms of `distances` over `count` seeds, by function."""
    measured: dict[str, list[float]] = {}
    for seed in range(count):
        for name, how_far in distances(seed).items():
            measured.setdefault(name, []).append(float(np.log10(max(how_far, 1e-9))))
    return {
        name: {
            "seeds": count,
            "least": round(min(logs), 3),
            "mean": round(float(np.mean(logs)), 3),
            "most": round(max(logs), 3),
            "deviation": round(float(np.std(logs, ddof=1)), 3),
        }
        for name, logs in measured.items()
    }


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
    """Measure seeds 0 … count−1 of `kind`, and store each result at once."""
    record = json.loads(RECORD.read_text())
    if kind == "samples":
        record[kind] = summed_up(count)
        RECORD.write_text(json.dumps(record, indent=1) + "\n")
        return
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
