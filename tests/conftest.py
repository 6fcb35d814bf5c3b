"""Shared fixtures: a warm interpreter, the executed solutions, course roots."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from autograder.course import Course
from autograder.data import mnist
from autograder.engine.run import NotebookRun
from autograder.engine.sandbox import Sandbox, refused, sandbox
from autograder.engine.warm import WarmInterpreter
from autograder.kernel import isolate
from autograder.release import Training
from support.outside import Outside, standing
from support.submissions import ASSIGNMENT, PREFIX, ROOT, CourseCopy

# Marks by what a test asks for; `make quick` leaves out whatever has one of them.
MARKS = {
    "kernel": {"warm"},
    "training": {"solved_run"},
    "course": {"course_copy", "original"},
    "hub": {"hub", "installed"},
    "browser": {"browser", "chromium"},
}

SAVE = f"""
import numpy as np, tensorflow.compat.v1 as tf
tf.disable_v2_behavior()
weights = tf.Variable(np.arange(12.0).reshape(3, 4), name="weights")
with tf.Session() as sess:
    sess.run(tf.global_variables_initializer())
    tf.train.Saver().save(sess, "./{PREFIX.rpartition("-")[0]}", global_step=4000)
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test by the fixtures that it uses, directly or through others."""
    for item in items:
        used = set(getattr(item, "fixturenames", ()))
        for mark, fixtures in MARKS.items():
            if used & fixtures:
                item.add_marker(mark)


@pytest.fixture(autouse=True)
def _no_unmarked_kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a test that starts a warm interpreter and is not marked for it."""
    if any(request.node.get_closest_marker(mark) for mark in MARKS):
        return

    def start(*_: object) -> None:
        pytest.fail("it starts a kernel: mark it with pytest.mark.kernel")

    monkeypatch.setattr(WarmInterpreter, "__init__", start)


@pytest.fixture(scope="session")
def warm() -> Iterator[WarmInterpreter]:
    """A warm interpreter that is ready to fork."""
    with WarmInterpreter() as interpreter:
        yield interpreter.wait()


@pytest.fixture(scope="module", params=[isolate.NAMESPACES, isolate.LANDLOCK])
def place(request: pytest.FixtureRequest, warm: WarmInterpreter) -> Sandbox:
    """A sandbox for each level of confinement that this machine supports."""
    if reason := refused(warm, request.param):
        pytest.skip(f"this machine refuses {request.param}: {reason}")
    return Sandbox(warm.address, request.param, warm.bounds_memory)


@pytest.fixture(scope="session")
def solved_run() -> Path:
    """The folder of the executed solutions, with the checkpoint of 4000 steps.

    They are run once, in full, and cached until a source changes.
    """
    data = {"MNIST_DIR": mnist.fetch()}
    return Training(Course.at(ROOT), ASSIGNMENT).run(data, lambda notebook, line: None)


@pytest.fixture(scope="session")
def saved(warm: WarmInterpreter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small checkpoint written by a Saver."""
    folder = tmp_path_factory.mktemp("saved")
    notebook = new_notebook(cells=[new_code_cell(SAVE)])
    with NotebookRun(notebook, folder, sandbox=sandbox(warm), environment={}, seconds=60) as run:
        run.finish()
    shutil.rmtree(folder / ".ipython")
    return folder


@pytest.fixture(scope="session")
def course_copy(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], CourseCopy]:
    """Makes a course root in a new folder."""
    return lambda: CourseCopy.make(tmp_path_factory.mktemp("course"))


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    """Things outside the sandbox: files, sockets, a process."""
    with standing(tmp_path_factory.mktemp("outside")) as there:
        yield there
