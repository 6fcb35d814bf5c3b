"""What several tests need: a warm interpreter, the solutions run for real, course roots."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from outside import Outside, standing
from submissions import ASSIGNMENT, ROOT, CourseCopy

from autograder.course import Course
from autograder.engine.warm import WarmInterpreter
from autograder.release import Training
from data import mnist


@pytest.fixture(scope="session")
def warm() -> Iterator[WarmInterpreter]:
    """A warm interpreter that is ready for orders."""
    with WarmInterpreter() as interpreter:
        yield interpreter.wait()


@pytest.fixture(scope="session")
def solved_run() -> Path:
    """The folder of the executed solutions, with the checkpoint of 4000 steps.

    They are run once, for real, and kept until a source changes.
    """
    data = {"MNIST_DIR": mnist.fetch()}
    return Training(Course.at(ROOT), ASSIGNMENT).run(data, lambda notebook, line: None)


@pytest.fixture(scope="session")
def course_copy(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], CourseCopy]:
    """Makes a course root in a folder of its own."""
    return lambda: CourseCopy.make(tmp_path_factory.mktemp("course"))


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    """What stands outside of the sandbox: files, sockets, a process."""
    with standing(tmp_path_factory.mktemp("outside")) as there:
        yield there
