"""Runs a notebook's hidden checks with pytest, and turns the outcome into points.

The checks run here, in the grader's process; the student's code runs in the kernel.  pytest
walks through the check classes in the order of the grade cells; asking for `values` runs the
notebook as far as that cell.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import io
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nbformat import NotebookNode

from autograder.checks import Setup
from autograder.engine.notebook import grade_id, is_autograded, label, solution_of
from autograder.engine.results import CellResult, CheckResult
from autograder.engine.run import NotebookRun
from autograder.engine.submission import SubmittedFiles
from autograder.engine.values import KernelLost, NoValue, Raised, Values
from autograder.engine.warm import WarmLost
from autograder.errors import GraderFault, UserError, printable

ERROR_LENGTH = 5000  # TensorFlow tells the cause after two sentences and a trace
NOT_SHOWN = "this could not be checked"


def seeded(secret: bytes, *parts: str) -> np.random.Generator:
    """A generator that depends on the course secret and `parts`, and on nothing else."""
    digest = hmac.new(secret, "\0".join(parts).encode(), hashlib.sha256).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


@dataclass
class Checking:
    """A pytest plugin: provides the fixtures, collects the outcome of each check.

    points: grade cell id → its points.
    secret, key: what the checks' random numbers depend on (course, submission).
    setup: the notebook's.
    only: the grade cells to check; None for all.
    silent: nothing that the kernel says goes into a hint.
    """

    run: NotebookRun
    submission: SubmittedFiles
    scratch_files: SubmittedFiles
    release: Path
    points: dict[str, float]
    secret: bytes
    key: str
    setup: Setup = field(default_factory=Setup)
    only: Collection[str] | None = None
    silent: bool = False
    results: dict[str, list[CheckResult]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    fault: Exception | None = None  # of the engine, for which no student can be blamed

    @property
    def cells(self) -> list[str]:
        """The grade cells to check, in the order of the notebook."""
        return [cell for cell in self.points if self.only is None or cell in self.only]

    @pytest.fixture(scope="class")
    def values(self, request: pytest.FixtureRequest) -> Values:
        """The kernel, as it is when it reaches this class's grade cell."""
        try:
            return self.run.values_at(_cell(request.node))
        except NoValue:
            raise
        except Exception as error:
            self.fault = error
            raise

    @pytest.fixture(scope="class", name="submission")
    def _submission(self) -> SubmittedFiles:
        """The files handed in with the notebook."""
        return self.submission

    @pytest.fixture(scope="class")
    def scratch(self, values: Values) -> SubmittedFiles:
        """The files in the kernel's working directory, as they are at this class's cell."""
        return self.scratch_files

    @pytest.fixture(scope="class")
    def given(self) -> Path:
        """The release's folder, with the files that students get."""
        return self.release

    @pytest.fixture(scope="class")
    def prepared_rng(self) -> np.random.Generator:
        """The random numbers that `Setup.prepare` was given."""
        return seeded(self.secret, self.key, "prepare")

    @pytest.fixture(scope="class")
    def shared_rng(self, request: pytest.FixtureRequest) -> np.random.Generator:
        """Random numbers for this submission and all checks of a class."""
        return seeded(self.secret, self.key, request.node.nodeid.rpartition("/")[2])

    @pytest.fixture
    def rng(self, request: pytest.FixtureRequest) -> np.random.Generator:
        """Random numbers for this submission and this check."""
        return seeded(self.secret, self.key, request.node.nodeid.rpartition("/")[2])

    def pytest_configure(self, config: pytest.Config) -> None:
        """Declare the marks of `autograder.checks`."""
        config.addinivalue_line("markers", "grade_cell(id): the grade cell of a class of checks")
        config.addinivalue_line("markers", "check(title, hint, weight): a hidden check")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Order the checks by grade cell; every item must be a check of a known cell."""
        order = {cell: position for position, cell in enumerate(self.points)}
        for item in items:
            if item.get_closest_marker("check") is None or _cell(item) not in order:
                raise UserError(f"{item.nodeid} is not a check of a grade cell of this notebook")
        items[:] = [item for item in items if _cell(item) in self.cells]
        items.sort(key=lambda item: order[_cell(item)])

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
        """Record a check's outcome, once."""
        outcome = yield
        report: pytest.TestReport = outcome.get_result()
        failed_setup = call.when == "setup" and not report.passed
        if call.when != "call" and not failed_setup:
            return
        marker = item.get_closest_marker("check")
        assert marker is not None
        error = call.excinfo.value if call.excinfo else None
        if isinstance(error, GraderFault | WarmLost | UserError):
            self.fault = error
        elif error is not None and not isinstance(error, AssertionError | NoValue):
            self.problems.append(f"{item.name}: {type(error).__name__}: {error}")
        concept = marker.kwargs["hint"]
        hint = "" if report.passed else self._hint(_cell(item), concept, error)
        self.results.setdefault(_cell(item), []).append(
            CheckResult(
                id=item.name,
                title=marker.kwargs["title"],
                passed=report.passed,
                hint=hint,
                weight=float(marker.kwargs["weight"]),
            )
        )

    def _hint(self, cell: str, concept: str, error: BaseException | None) -> str:
        """What a student reads beside a failed check of the grade cell `cell`.

        concept: what the check itself would have them think about.
        error: what the check raised.
        """
        if self.silent:
            return concept
        if isinstance(error, KernelLost):
            return str(error)
        stopped = self._what_stopped(cell)
        if stopped is not None:
            name, what = stopped
            if what.startswith("NotImplementedError"):
                return what.partition(": ")[2] or "not done yet"
            for pattern, about in self.setup.explain.items():
                if re.search(pattern, what):
                    concept = about
                    break
            return f"{concept} (cell [{label(name)}] was stopped by {what[:200]})"
        if isinstance(error, Raised):
            return f"{concept} ({error})"
        return str(error) if isinstance(error, NoValue) else concept

    def _what_stopped(self, cell: str) -> tuple[str, str] | None:
        """The solution cell before the grade cell `cell`, and the error that it ended with."""
        name = dict(solution_of(self.run.notebook)).get(cell)
        for other in self.run.notebook.cells:
            if name is not None and grade_id(other) == name:
                for output in other.get("outputs", []):
                    if output.output_type == "error" and output.ename not in self.setup.ends:
                        return name, printable(f"{output.ename}: {output.evalue}", ERROR_LENGTH)
        return None


def _cell(item: pytest.Item | pytest.Collector) -> str:
    marker = item.get_closest_marker("grade_cell")
    return str(marker.args[0]) if marker else ""


def run_checks(module: Path, plugin: Checking) -> tuple[list[CellResult], str]:
    """Run the checks in `module`; the cells' results, and pytest's own report for the log.

    Raises UserError when the module cannot be collected, or leaves a grade cell unchecked, and
    what the engine raised when the notebook could not be run.
    """
    report = io.StringIO()
    arguments = [
        str(module),
        f"--rootdir={module.parent}",
        "-c/dev/null",
        "--import-mode=importlib",
        "-pno:cacheprovider",
        "--disable-plugin-autoload",  # whatever else is installed has no part in a score
        "-pno:unraisableexception",  # collects garbage ten times at its end: half a second
        "-pno:threadexception",
        "--tb=native",  # the others look for each statement in its file: 50 ms a failed check
        "-q",
    ]
    with contextlib.redirect_stdout(report), contextlib.redirect_stderr(report):
        status = pytest.main(arguments, plugins=[plugin])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        why = _last_error(report.getvalue()) or pytest.ExitCode(status).name
        raise UserError(f"the checks in {module.name} could not be run ({why})")
    if plugin.fault is not None:
        raise plugin.fault
    unchecked = [cell for cell in plugin.cells if cell not in plugin.results]
    if unchecked:
        raise UserError(f"{module.name} has no checks for {', '.join(unchecked)}")
    cells = [CellResult(cell, plugin.points[cell], plugin.results[cell]) for cell in plugin.cells]
    return cells, "\n".join([*plugin.problems, report.getvalue()])


def _last_error(report: str) -> str:
    """The line of pytest's report that names the error it ended with."""
    errors = re.findall(r"^(?:E   |INTERNALERROR> )(.*\S)", report, re.MULTILINE)
    errors = errors or re.findall(r"^(.*\S)\n=+ short test summary", report, re.MULTILINE)
    return errors[-1].strip() if errors else ""


def points_of(release: NotebookNode) -> dict[str, float]:
    """Grade cell id → points, in the order of the notebook; only automatically graded cells."""
    return {
        str(grade_id(cell)): float(cell.metadata["nbgrader"]["points"])
        for cell in release.cells
        if is_autograded(cell)
    }
