"""The rows about pictures in the audit's tables hold, for figures drawn in this process.

Solution cells for pictures need only arrays, so the tests need neither a kernel nor TensorFlow.
"""

from __future__ import annotations

import functools
import importlib
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest

from autograder import wire
from autograder.audit.outcomes import judge
from autograder.audit.tables import Tables
from autograder.audit.trials import SEED, Trial
from autograder.checks.ch4_cnn import reference
from autograder.course import Course, checks_for
from autograder.data import orenist
from autograder.engine.checking import Checking, points_of, run_checks
from autograder.engine.notebook import grade_id
from autograder.engine.results import CellResult, NotebookResult
from autograder.engine.values import NoValue, Values
from autograder.kernel import figures
from support.submissions import ASSIGNMENT, ROOT

RELEASE = ROOT / "release" / ASSIGNMENT
SOURCE = ROOT / "source" / ASSIGNMENT
# Cell → the previous picture's cell, which leaves its `fig`.  Notebook 5's pictures need restored
# values and are left to the audit.
CELLS = {
    "ofe-08-picture": "",
    "ofe-10-picture": "ofe-08-picture",
    "oce-09-scatter": "",
    "ode-09-picture": "",
    "ode-10-picture": "ode-09-picture",
}


@functools.cache
def tables() -> Tables:
    return Tables(Course.at(ROOT), ASSIGNMENT)


@functools.cache
def rows() -> dict[str, Trial]:
    """The tables' rows about a single picture that need no session."""
    return {
        f"{trial.kind}: {trial.title}": trial
        for trial in tables().trials()
        if trial.cell in CELLS
        and set(trial.sources) == {trial.cell}
        and not trial.insert
        and trial.kind != SEED
        and not needs_a_session(trial.sources[trial.cell])
    }


def needs_a_session(source: str) -> bool:
    """Whether a cell needs more from TensorFlow than `hidden2` for some images."""
    rest = source.replace("sess.run(hidden2,", "")
    return any(word in rest for word in ("sess", ".eval(", "tf."))


# -- a notebook without TensorFlow --------------------------------------------------------------


class Session:
    """A stand-in for the student's session that only knows the tensor `hidden2`."""

    def run(self, tensor: Any, feed_dict: dict[str, Any] | None = None) -> np.ndarray:
        return np.asarray(tensor(np.asarray((feed_dict or {})["x"])))


def points(images: np.ndarray) -> np.ndarray:
    """(z1, z2) of images (n, 784)."""
    return np.tanh(images @ np.random.default_rng(3).normal(0, 0.1, (784, 2))).astype(np.float32)


def namespace(notebook: str) -> dict[str, Any]:
    """The names that the cells before the first picture define."""
    sys.path.insert(0, str(SOURCE))
    pictures = importlib.import_module("pictures")
    rng = np.random.default_rng(4)
    names: dict[str, Any] = {
        "np": np, "plt": plt, "grid": pictures.grid, "digit_bars": pictures.digit_bars,
        "sess": Session(), "x": "x", "hidden2": points,
    }  # fmt: skip
    images, labels = orenist.load(RELEASE / "ORENIST.data")
    kernel = reference.edge_kernels()
    if notebook.startswith("3"):
        kernel = rng.normal(size=(5, 5, 1, 2))
    maps = reference.convolve(images[:9].reshape(9, 28, 28, 1), kernel)
    maps = np.maximum(np.abs(maps) - 0.2, 0)
    names |= {"images": images, "labels": labels}
    pooled = reference.max_pool(maps)
    return names | {"filter_vals": kernel, "conv_vals": maps, "pool_vals": pooled}


# A log as if [OCE-08] had trained the session.
TRAINED = {
    "steps": 200,
    "sizes": np.array([[90, 200]]),
    "batches": 1,
    "first": [],
    "saves": [],
    "evaluated": np.zeros((0, 2), int),
    "alongside": np.zeros((0, 2), int),
}


class Local(Values):
    """Queries to a namespace in this process; only figures go over the wire."""

    def __init__(self, names: dict[str, Any]) -> None:
        self.names = names

    def ask(self, op: str, seconds: float = 0, **arguments: Any) -> Any:
        if op == "run":
            images = arguments["feed"]["x"]
            return [self.names[name](images) for name in arguments["fetch"]]
        if op == "training_log":
            return TRAINED
        name = arguments["name"]
        if name not in self.names:
            raise NoValue(f"{name} is not there: not done yet, or under another name")
        return self.names[name] if op == "value" else over_the_wire(self.names[name])


def over_the_wire(figure: Any) -> Any:
    """A kernel's description of a figure."""
    one, other = socket.socketpair()
    with one, other:
        for end in (one, other):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 << 20)
        thread = threading.Thread(target=wire.send, args=(one, figures.told(figure)))
        thread.start()
        answer = wire.receive(other)
        thread.join()
    return answer


def graded(cell: str, source: str, folder: Path) -> list[CellResult]:
    """The results of one picture cell with this source."""
    notebook = tables()._notebook_of(cell, cell)
    names = namespace(notebook)
    release = nbformat.read(RELEASE / f"{notebook}.ipynb", as_version=4)
    if CELLS[cell]:
        exec(tables().sources[notebook][CELLS[cell]], names)
    try:
        exec(source, names)
    except Exception as error:
        stopped = nbformat.v4.new_output(
            "error", ename=type(error).__name__, evalue=str(error), traceback=[]
        )
        next(c for c in release.cells if grade_id(c) == cell)["outputs"] = [stopped]
    kernel = Local(names)
    plugin = Checking(
        SimpleNamespace(notebook=release, values_at=lambda cell: kernel),  # type: ignore[arg-type]
        None,  # type: ignore[arg-type]
        None,  # type: ignore[arg-type]
        RELEASE,
        points_of(release),
        b"secret",
        "key",
        only=tables().grade_cells[cell],
    )
    cells, _ = run_checks(checks_for(ASSIGNMENT, notebook).module, plugin)
    return cells


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.mark.parametrize("row", rows())
def test_a_row_about_a_picture_holds(row: str, tmp_path: Path) -> None:
    trial = rows()[row]
    cells = graded(trial.cell, trial.sources[trial.cell], tmp_path)
    result = NotebookResult(trial.notebook, "graded", cells=cells)
    assert judge(trial, result).misses == []


@pytest.mark.parametrize("cell", CELLS)
def test_the_solution_has_full_marks(cell: str, tmp_path: Path) -> None:
    source = tables().sources[tables()._notebook_of(cell, cell)][cell]
    (result,) = graded(cell, source, tmp_path)
    assert [check.hint for check in result.checks if not check.passed] == []
