"""Later cells are graded with earlier mistakes repaired, if that can change the result."""

from __future__ import annotations

import json
import os
import socket
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import nbformat
import pytest
from nbformat import NotebookNode

from autograder.course import Course as CourseRoot
from autograder.engine.grade import Graded, Job, grade_notebook
from autograder.engine.repair import repaired
from autograder.engine.results import CellResult, CheckResult
from autograder.engine.sandbox import Sandbox
from support.submissions import ASSIGNMENT, NOTEBOOKS, CourseCopy, max_points, replace_cells

STUB, RIGHT, WRONG = "stub", "right", "wrong"


def notebook(*sources: str) -> NotebookNode:
    """Solution cells `c0`, `c1`, … with these sources, each before its grade cell."""
    cells = []
    for number, source in enumerate(sources):
        solution = nbformat.v4.new_code_cell(source)
        solution.metadata["nbgrader"] = {"grade_id": f"c{number}", "solution": True}
        check = nbformat.v4.new_code_cell("")
        check.metadata["nbgrader"] = {"grade_id": f"c{number}-check", "grade": True, "points": 2}
        cells += [solution, check]
    return nbformat.v4.new_notebook(cells=cells)


def results(sources: list[str]) -> list[CellResult]:
    """The results of a chain in which every cell needs all earlier ones to be right."""
    cells = []
    for number in range(len(sources)):
        passed = all(source == RIGHT for source in sources[: number + 1])
        check = CheckResult("test_it", "It is right", passed, "" if passed else "think")
        cells.append(CellResult(f"c{number}-check", 2.0, [check]))
    return cells


class Course:
    """Grades a chain of cells, and records its runs."""

    def __init__(self, *sources: str) -> None:
        self.sources = list(sources)
        self.runs: list[tuple[list[str], list[str]]] = []

    def again(self, other: Mapping[str, str], cells: list[str]) -> list[CellResult]:
        self.runs.append((sorted(other), cells))
        sources = [other.get(f"c{n}", source) for n, source in enumerate(self.sources)]
        return [result for result in results(sources) if result.cell in cells]

    def too_early(self, cells: list[str]) -> list[CellResult]:
        return [result for result in results([STUB] * len(self.sources)) if result.cell in cells]

    def grade(self, seconds_left: int = 99) -> list[float]:
        self.cells = repaired(
            results(self.sources),
            notebook(*self.sources),
            notebook(*[STUB] * len(self.sources)),
            {f"c{n}": RIGHT for n in range(len(self.sources))},
            self.again,
            self.too_early,
            lambda: len(self.runs) < seconds_left,
        )
        return [cell.points for cell in self.cells]


@pytest.mark.parametrize(
    ("sources", "points", "runs"),
    [
        ([RIGHT, RIGHT, RIGHT], [2, 2, 2], 0),
        ([RIGHT, RIGHT, WRONG], [2, 2, 0], 0),  # no cell follows it
        ([STUB, STUB, STUB], [0, 0, 0], 0),
        ([RIGHT, WRONG, STUB], [2, 0, 0], 0),
        ([WRONG, RIGHT, RIGHT], [0, 2, 2], 1),
        ([STUB, RIGHT, RIGHT], [0, 2, 2], 1),
        ([WRONG, RIGHT, WRONG, RIGHT], [0, 2, 0, 2], 2),
        ([RIGHT, WRONG, WRONG, RIGHT], [2, 0, 0, 2], 2),
        ([WRONG, STUB, RIGHT, WRONG], [0, 0, 2, 0], 1),
        ([WRONG, WRONG, WRONG], [0, 0, 0], 2),
    ],
)
def test_a_mistake_costs_once(sources: list[str], points: list[float], runs: int) -> None:
    course = Course(*sources)
    assert course.grade() == points
    assert len(course.runs) == runs


def test_only_what_stands_before_a_doubtful_cell_is_replaced_and_only_it_is_asked() -> None:
    course = Course(WRONG, RIGHT, WRONG)
    course.grade()
    assert course.runs == [(["c0"], ["c1-check", "c2-check"])]


def test_a_repaired_cell_says_so_and_the_broken_one_does_not() -> None:
    course = Course(STUB, WRONG, RIGHT)
    course.grade()
    assert [cell.note for cell in course.cells] == [
        "",
        "",
        "checked with the course's own [C0] and [C1] in place of yours",
    ]


def test_a_cell_keeps_the_better_of_its_results() -> None:
    course = Course(WRONG, WRONG)
    course.again = lambda other, cells: [CellResult(cell, 2.0, []) for cell in cells]  # type: ignore[method-assign]
    course.grade()
    assert course.cells[1].checks[0].hint == "think"


@pytest.mark.parametrize("own", [False, True])
def test_what_is_there_before_a_cell_runs_is_counted_only_beside_its_own(own: bool) -> None:
    course = Course(WRONG, WRONG)
    there, right = CheckResult("there", "", True, ""), CheckResult("right", "", own, "")
    course.again = lambda other, cells: [CellResult("c1-check", 2.0, [there, right])]  # type: ignore[method-assign]
    early = [there, CheckResult("right", "", False, "")]
    course.too_early = lambda cells: [CellResult("c1-check", 2.0, early)]  # type: ignore[method-assign]
    assert course.grade() == [0, 2 if own else 0]


def test_a_check_that_was_moved_still_judges_the_same_cell() -> None:
    submitted, release = notebook(WRONG, RIGHT), notebook(STUB, STUB)
    submitted.cells = [submitted.cells[at] for at in (0, 2, 3, 1)]
    course = Course(WRONG, RIGHT)
    repaired(
        results([WRONG, RIGHT]),
        submitted,
        release,
        {"c0": RIGHT, "c1": RIGHT},
        course.again,
        course.too_early,
        lambda: True,
    )
    assert course.runs == [(["c0"], ["c1-check"])]


def test_no_run_starts_when_time_is_up() -> None:
    course = Course(WRONG, RIGHT, WRONG, RIGHT)
    assert course.grade(seconds_left=1) == [0, 2, 0, 0]
    assert len(course.runs) == 1


# -- with kernels ------------------------------------------------------------------------------

FILTERS, GRAPH, SPYING = NOTEBOOKS[0], "ofe-05-graph", "ofe-07-values"
# Leaks anything it finds of the course's own graph, in every way open to a cell.
SPY = """
import os, socket, stat, sys
seen = "\\n".join(In)
wanted = "x_image, W" + "_conv, strides"
found = seen[seen.index(wanted):][:150] if wanted in seen else "nothing to be seen"
print(found)
print(found, file=sys.__stderr__)
os.write(1, found.encode())
open("found.txt", "w").write(found)
os.makedirs(found.replace("/", " "))
sockets = []
for number in range(3, 512):
    try:
        if stat.S_ISSOCK(os.fstat(number).st_mode):
            sockets.append(socket.socket(fileno=os.dup(number)))
    except OSError:
        pass
sockets = [one for one in sockets if one.getsockname()]
for name in {one.getsockname() for one in sockets}:
    for act in (lambda: os.unlink(name), lambda: os.symlink(DOOR, name)):
        try: act()
        except (OSError, TypeError): pass
if "sess" in globals():
    filter_vals = sess.run(W_conv)
raise ValueError(found)
"""
# Leaks again in the last cell before a check, and closes all connections.
LAST = """
get_ipython().kernel.session.send(get_ipython().kernel.iopub_socket, "stream",
    {"name": "stdout", "text": found}, parent=get_ipython().kernel.get_parent("shell"))
class Told(str): pass
fig = Told(found)
conv_vals = pool_vals = found
for one in sockets:
    if not one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        one.shutdown(socket.SHUT_RDWR)
import time
time.sleep(60)
"""


@dataclass
class Spied:
    """A graded notebook, and the socket to which it tried to lead the grader."""

    graded: Graded
    door: socket.socket


def grade_with_spies(
    copy: CourseCopy, place: Sandbox, door: socket.socket, cells: Mapping[str, str]
) -> Spied:
    folder = copy.solved("spy", FILTERS)
    replace_cells(folder / f"{FILTERS}.ipynb", cells)
    root = CourseRoot.at(copy.root)
    release, source = root.release(ASSIGNMENT), root.source(ASSIGNMENT)
    job = Job(ASSIGNMENT, FILTERS, folder, release, source, b"any secret", sandbox=place)
    return Spied(grade_notebook(job), door)


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[socket.socket]:
    """A socket that only the grader can reach."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path_factory.mktemp("private") / "door"))
        os.chmod(listener.getsockname(), 0o600)
        listener.listen(8)
        listener.setblocking(False)
        yield listener


@pytest.fixture(scope="module")
def spied(course_copy: Callable[[], CourseCopy], place: Sandbox, door: socket.socket) -> Spied:
    """A right notebook, except for a missing graph and a spy after it."""
    spy = f"DOOR = {door.getsockname()!r}\n{SPY}"
    return grade_with_spies(course_copy(), place, door, {GRAPH: "pass", SPYING: spy})


@pytest.fixture(scope="module")
def hung_up(course_copy: Callable[[], CourseCopy], place: Sandbox, door: socket.socket) -> Spied:
    """The same with a later cell that closes its connections if the spy has found something."""
    spy = f"DOOR = {door.getsockname()!r}\n{SPY}"
    last = f"if 'nothing' not in found:\n{textwrap.indent(LAST, '    ')}"
    cells = {GRAPH: "pass", SPYING: spy, "ofe-08-picture": last}
    return grade_with_spies(course_copy(), place, door, cells)


def test_what_stands_behind_a_broken_cell_keeps_its_points(spied: Spied) -> None:
    wanted = {**max_points(FILTERS), f"{GRAPH}-check": 0, f"{SPYING}-check": 0.33}
    assert {cell.cell: cell.points for cell in spied.graded.result.cells} == wanted
    notes = {cell.cell: cell.note for cell in spied.graded.result.cells if cell.note}
    assert notes["ofe-08-picture-check"] == (
        "checked with the course's own [OFE-05] and [OFE-07] in place of yours"
    )
    assert f"{GRAPH}-check" not in notes


def test_nothing_of_the_solution_is_shown_or_carried_out(spied: Spied, hung_up: Spied) -> None:
    for told in (spied, hung_up):
        graded = told.graded
        shown = "\n".join([json.dumps(graded.result.to_record()), graded.executed, graded.log])
        assert "nothing to be seen" in shown  # the spy's output in the first run
        assert "x_image, W_conv, strides" not in shown
        assert "lost its connection" not in shown  # that happened in the repaired run
        with pytest.raises(BlockingIOError):
            told.door.accept()


def test_only_which_checks_passed_leaves_a_repaired_run(spied: Spied, hung_up: Spied) -> None:
    """Hints of failed checks in that run are the course's own words."""
    for told in (spied, hung_up):
        repaired_cells = [cell for cell in told.graded.result.cells if cell.note]
        assert repaired_cells
        for cell in repaired_cells:
            assert cell.note.startswith("checked with the course's own [OFE-05]")
            assert not [check for check in cell.checks if check.raised]
            assert not [c.hint for c in cell.checks if "found" in c.hint or "raised" in c.hint]
