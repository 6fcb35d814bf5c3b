"""pytest's fixtures: what a hidden check can request by name.

They are functions, not methods, because pytest deprecates class-scoped fixtures that are methods.
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from autograder.engine.submission import SubmittedFiles
from autograder.engine.values import Values

if TYPE_CHECKING:
    from autograder.engine.checking import Checking

CHECKING: pytest.StashKey[Checking] = pytest.StashKey()


def seeded(secret: bytes, *parts: str) -> np.random.Generator:
    """A generator that depends only on the course secret and `parts`."""
    digest = hmac.new(secret, "\0".join(parts).encode(), hashlib.sha256).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


def cell_of(item: pytest.Item | pytest.Collector) -> str:
    """The grade cell that a check or a class of checks is bound to; "" if there is none."""
    marker = item.get_closest_marker("grade_cell")
    return str(marker.args[0]) if marker else ""


def _checking(request: pytest.FixtureRequest) -> Checking:
    return request.config.stash[CHECKING]


def _drawn_for(request: pytest.FixtureRequest, *parts: str) -> np.random.Generator:
    checking = _checking(request)
    return seeded(checking.secret, checking.key, *parts)


@pytest.fixture(scope="class")
def values(request: pytest.FixtureRequest) -> Values:
    """The kernel, as it is when it reaches this class's grade cell."""
    return _checking(request).values_at(cell_of(request.node))


@pytest.fixture(scope="class")
def submission(request: pytest.FixtureRequest) -> SubmittedFiles:
    """The files handed in with the notebook."""
    return _checking(request).submission


@pytest.fixture(scope="class")
def scratch(request: pytest.FixtureRequest, values: Values) -> SubmittedFiles:
    """The files in the kernel's working directory, as they are at this class's cell."""
    return _checking(request).scratch_files


@pytest.fixture(scope="class")
def given(request: pytest.FixtureRequest) -> Path:
    """The release's folder, with the files that students get."""
    return _checking(request).release


@pytest.fixture(scope="class")
def prepared_rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """A generator that repeats the random numbers `Setup.prepare` received."""
    return _drawn_for(request, "prepare")


@pytest.fixture(scope="class")
def shared_rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers for this submission, shared by all checks of a class."""
    return _drawn_for(request, request.node.nodeid.rpartition("/")[2])


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers for this submission and this check."""
    return _drawn_for(request, request.node.nodeid.rpartition("/")[2])
