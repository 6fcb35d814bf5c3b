"""Runs a notebook's hidden checks with pytest and turns their outcomes into points.

The checks run here, in the grader's process; the student's code runs in the kernel.  pytest takes
the check classes in the order of the grade cells, and a class that requests `values` runs the
notebook as far as its cell.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from nbformat import NotebookNode

from autograder.checks import Mistake, Setup
from autograder.engine import fixtures
from autograder.engine.faults import in_words, is_graders
from autograder.engine.fixtures import CHECKING, cell_of
from autograder.engine.notebook import grade_id, is_autograded, label, solution_of
from autograder.engine.results import CellResult, CheckResult
from autograder.engine.run import NotebookRun
from autograder.engine.submission import SubmittedFiles, Unusable
from autograder.engine.values import KernelLost, NoValue, Raised, Values
from autograder.engine.warm import WarmLost
from autograder.errors import GraderFault, UserError, cause_of, printable

ERROR_LENGTH = 5000  # characters of an error searched for a pattern of `Setup.explain`
CAUSE_LENGTH = 200  # characters of it that are shown
NOT_SHOWN = "this could not be checked"
_VERDICTS = (AssertionError, NoValue, pytest.fail.Exception)  # raised by a check for a wrong answer

# Errors of code that works in Jupyter but not in unattended grading.
EXPLAIN = {
    r"StdinNotImplementedError|EOFError: EOF when reading": "nobody is there to type anything "
    "while this is graded: write the value into the cell in place of input()",
    r"Cannot load backend|ipympl|not a recognised (GUI loop|backend)|no display name": "there is "
    "no screen while this is graded: leave out the line that chooses where figures are shown, "
    "matplotlib.use or %matplotlib, and they are found all the same",
    r"^SystemExit": "quit(), exit() or sys.exit() ended the cell, and what stands behind it in the "
    "cell has not run: leave it out",
    r"No module named 'google": "google.colab is only on Colab, and a cell that imports it stops "
    "everywhere else: leave the import and what needs it out of the cell",
    r"No module named": "this package is not where notebooks are graded, and none can be installed "
    "there: use one that the first cells import, or a file that you hand in beside the notebook",
}


@dataclass
class Checking:
    """A pytest plugin that provides the fixtures and collects the outcome of each check.

    Attributes:
        run: the running notebook.
        submission: the files handed in.
        scratch_files: the files in the kernel's working directory.
        release: the release folder.
        points: the points of each grade cell.
        secret: seeds the checks' random numbers, together with `key`.
        key: the submission's content key.
        setup: the notebook's setup.
        only: the grade cells to check; None for all.
        silent: keep everything the kernel says out of the hints.
        results: the checks' results, by grade cell.
        problems: errors that checks raised, for the log.
        fault: the first error of the grader, which no student can be blamed for.

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
    fault: Exception | None = None

    @property
    def cells(self) -> list[str]:
        """The grade cells to check, in the notebook's order."""
        return [cell for cell in self.points if self.only is None or cell in self.only]

    def values_at(self, cell: str) -> Values:
        """The kernel, as it is when it reaches the grade cell `cell`.

        Raises NoValue when the notebook did not get there, GraderFault when the engine broke.
        """
        try:
            return self.run.values_at(cell)
        except (NoValue, GraderFault, WarmLost, UserError):
            raise
        except Exception as error:
            said = in_words(error) if is_graders(error) else f"{type(error).__name__}: {error}"
            raise GraderFault(said) from error

    def pytest_configure(self, config: pytest.Config) -> None:
        """Register the markers of `autograder.checks`, and let the fixtures find this object."""
        config.addinivalue_line("markers", "grade_cell(id): the grade cell of a class of checks")
        config.addinivalue_line("markers", "check(title, hint, weight): a hidden check")
        config.stash[CHECKING] = self

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Order the checks by grade cell; every item must be a check of a known cell."""
        order = {cell: position for position, cell in enumerate(self.points)}
        for item in items:
            if item.get_closest_marker("check") is None or cell_of(item) not in order:
                self.fault = UserError(
                    f"{item.nodeid} is not a check of a grade cell of this notebook"
                )
                raise self.fault
        items[:] = [item for item in items if cell_of(item) in self.cells]
        items.sort(key=lambda item: order[cell_of(item)])

    @pytest.hookimpl(hookwrapper=True)
    def pytest_make_collect_report(self) -> Any:
        """Distinguish a broken module from a machine that could not read it."""
        outcome = yield
        call = getattr(outcome.get_result(), "call", None)
        error = call.excinfo.value if call is not None and call.excinfo else None
        absent = (FileNotFoundError, PermissionError)  # the instructor must fix these
        if isinstance(error, MemoryError | OSError) and not isinstance(error, absent):
            self._is_ours(error, "the checks could not be read")

    def pytest_internalerror(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Record an error of pytest or of this object, which is no student's fault."""
        self._is_ours(excinfo.value, "pytest broke")

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
        """Record a check's outcome, once."""
        outcome = yield
        report: pytest.TestReport = outcome.get_result()
        error = call.excinfo.value if call.excinfo else None
        if _is_no_verdict(call.when, report, error):
            self._is_ours(error, item.name)
            item.session.shouldstop = "the grader failed"
            return
        failed_setup = call.when == "setup" and not report.passed
        if call.when != "call" and not failed_setup:
            return
        marker = item.get_closest_marker("check")
        assert marker is not None
        raised = ""
        if error is not None and not isinstance(error, _VERDICTS):
            raised = type(error).__name__
            self.problems.append(f"{item.name}: {raised}: {error}")
        concept = marker.kwargs["hint"]
        hint = "" if report.passed else self._hint(cell_of(item), concept, error)
        self.results.setdefault(cell_of(item), []).append(
            CheckResult(
                id=item.name,
                title=marker.kwargs["title"],
                passed=report.passed,
                hint=hint,
                weight=float(marker.kwargs["weight"]),
                raised="" if self.silent else raised,
            )
        )

    def _is_ours(self, error: BaseException | None, where: str) -> None:
        """Remember the first error that is the grader's."""
        if self.fault is not None:
            return
        if isinstance(error, GraderFault | WarmLost | UserError):
            self.fault = error
        else:
            what = in_words(error) if error is not None else "skipped"
            self.fault = GraderFault(f"{where}: {what}")
            self.fault.__cause__ = error

    def _hint(self, cell: str, concept: str, error: BaseException | None) -> str:
        """The hint that a student reads beside a failed check of the grade cell `cell`.

        concept: the check's own hint.
        error: what the check raised.
        """
        if self.silent:
            return concept
        if isinstance(error, KernelLost):
            return str(error)
        stopped = self._what_stopped(cell)
        if stopped is not None and stopped[1].startswith("NotImplementedError"):
            return stopped[1].partition(": ")[2] or "not done yet"
        if isinstance(error, Unusable):  # the same problem stopped a cell
            return str(error)
        if stopped is not None:
            name, what = stopped
            about = self._about(what) or concept
            return f"cell [{label(name)}] was stopped by {what[:CAUSE_LENGTH]} ({about})"
        if isinstance(error, Raised):
            return f"{error} ({self._about(str(error)) or concept})"
        return str(error) if isinstance(error, NoValue | Mistake) else concept

    def _about(self, what: str) -> str:
        """How an error relates to the subject or to the grading environment."""
        known = [*self.setup.explain.items(), *EXPLAIN.items()]
        return next((about for pattern, about in known if re.search(pattern, what)), "")

    def _what_stopped(self, cell: str) -> tuple[str, str] | None:
        """The solution cell before the grade cell `cell`, and the error that stopped it."""
        name = dict(solution_of(self.run.notebook)).get(cell)
        for other in self.run.notebook.cells:
            if name is not None and grade_id(other) == name:
                for output in other.get("outputs", []):
                    if output.output_type == "error":
                        what = f"{output.ename}: {cause_of(output.evalue)}"
                        return name, printable(what, ERROR_LENGTH)
        return None


def _is_no_verdict(when: str, report: pytest.TestReport, error: BaseException | None) -> bool:
    """Whether a phase of a check says nothing about the student's work."""
    if report.skipped:
        return True
    if error is None or isinstance(error, AssertionError | NoValue):
        return False
    if isinstance(error, pytest.fail.Exception):
        return when != "call"  # pytest fails like this when fixtures do not fit together
    return isinstance(error, GraderFault | WarmLost | UserError) or is_graders(error)


def run_checks(module: Path, plugin: Checking) -> tuple[list[CellResult], str]:
    """Run the checks in `module`; returns the cells' results and pytest's report for the log.

    Raises UserError when the module cannot be collected or leaves a grade cell unchecked, and
    GraderFault or WarmLost for errors that say nothing about the notebook.
    """
    report = io.StringIO()
    arguments = [
        str(module),
        f"--rootdir={module.parent}",
        "-c/dev/null",
        "--import-mode=importlib",
        "-pno:cacheprovider",
        "--disable-plugin-autoload",  # other installed plugins must not affect a score
        "-pno:unraisableexception",  # it collects garbage ten times at exit: half a second
        "-pno:threadexception",
        "-Wdefault",  # no warning becomes an error, whatever Python's settings
        "--tb=native",  # other styles search the source: 50 ms per failed check
        "-q",
    ]
    with (
        contextlib.redirect_stdout(report),
        contextlib.redirect_stderr(report),
        _no_settings_of_pytest(),
    ):
        status = pytest.main(arguments, plugins=[plugin, fixtures])
    if plugin.fault is not None:
        raise plugin.fault
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        why = _last_error(report.getvalue()) or pytest.ExitCode(status).name
        raise UserError(f"the checks in {module.name} could not be run ({why})")
    unchecked = [cell for cell in plugin.cells if cell not in plugin.results]
    if unchecked:
        raise UserError(f"{module.name} has no checks for {', '.join(unchecked)}")
    cells = [CellResult(cell, plugin.points[cell], plugin.results[cell]) for cell in plugin.cells]
    return cells, "\n".join([*plugin.problems, report.getvalue()])


@contextlib.contextmanager
def _no_settings_of_pytest() -> Iterator[None]:
    """Hide the environment's settings for pytest: options, plugins, colours."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("PYTEST_")}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _last_error(report: str) -> str:
    """The line of pytest's report that names the error it ended with."""
    errors = re.findall(r"^(?:E   |INTERNALERROR> )(.*\S)", report, re.MULTILINE)
    errors = errors or re.findall(r"^(.*\S)\n=+ short test summary", report, re.MULTILINE)
    return errors[-1].strip() if errors else ""


def points_of(release: NotebookNode) -> dict[str, float]:
    """Grade cell id → points, in the notebook's order; only automatically graded cells."""
    return {
        str(grade_id(cell)): float(cell.metadata["nbgrader"]["points"])
        for cell in release.cells
        if is_autograded(cell)
    }
