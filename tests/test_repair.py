"""Later cells are judged with earlier mistakes repaired, and only when that can change anything."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

import nbformat
import pytest
from nbformat import NotebookNode
from submissions import ASSIGNMENT, NOTEBOOKS, CourseCopy, max_points, replace_cells

from autograder.course import Course as CourseRoot
from autograder.engine.grade import Graded, Job, grade_notebook
from autograder.engine.repair import repaired
from autograder.engine.results import CellResult, CheckResult
from autograder.engine.sandbox import sandbox
from autograder.engine.warm import WarmInterpreter

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
    """What a chain is worth in which every cell needs all before it to be right."""
    cells = []
    for number in range(len(sources)):
        passed = all(source == RIGHT for source in sources[: number + 1])
        check = CheckResult("test_it", "It is right", passed, "" if passed else "think")
        cells.append(CellResult(f"c{number}-check", 2.0, [check]))
    return cells


class Course:
    """Grades a chain of cells, and notes what was run again."""

    def __init__(self, *sources: str) -> None:
        self.sources = list(sources)
        self.runs: list[tuple[list[str], list[str]]] = []

    def again(self, other: Mapping[str, str], cells: list[str]) -> list[CellResult]:
        self.runs.append((sorted(other), cells))
        sources = [other.get(f"c{n}", source) for n, source in enumerate(self.sources)]
        return [result for result in results(sources) if result.cell in cells]

    def grade(self, seconds_left: int = 99) -> list[float]:
        self.cells = repaired(
            results(self.sources),
            notebook(*self.sources),
            notebook(*[STUB] * len(self.sources)),
            {f"c{n}": RIGHT for n in range(len(self.sources))},
            self.again,
            lambda: len(self.runs) < seconds_left,
        )
        return [cell.points for cell in self.cells]


@pytest.mark.parametrize(
    ("sources", "points", "runs"),
    [
        ([RIGHT, RIGHT, RIGHT], [2, 2, 2], 0),
        ([RIGHT, RIGHT, WRONG], [2, 2, 0], 0),  # nothing stands behind it
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


def test_no_run_starts_when_time_is_up() -> None:
    course = Course(WRONG, RIGHT, WRONG, RIGHT)
    assert course.grade(seconds_left=1) == [0, 2, 0, 0]
    assert len(course.runs) == 1


# -- with kernels ------------------------------------------------------------------------------

FILTERS, GRAPH, SPYING = NOTEBOOKS[0], "ofe-05-graph", "ofe-07-values"
# Tells whatever it finds of the course's own graph, in every way that a cell has.
SPY = """
seen = "\\n".join(In)
wanted = "x_image, W" + "_conv, strides"
found = seen[seen.index(wanted):][:150] if wanted in seen else "nothing to be seen"
print(found)
open("found.txt", "w").write(found)
if "sess" in globals():
    filter_vals = sess.run(W_conv)
raise ValueError(found)
"""


@pytest.fixture(scope="module")
def spied(course_copy: Callable[[], CourseCopy], warm: WarmInterpreter) -> Graded:
    """A right notebook, but for its graph and for a spy behind it."""
    copy = course_copy()
    folder = copy.solved("spy", FILTERS)
    replace_cells(folder / f"{FILTERS}.ipynb", {GRAPH: "pass", SPYING: SPY})
    root = CourseRoot.at(copy.root)
    release, source = root.release(ASSIGNMENT), root.source(ASSIGNMENT)
    place = sandbox(warm)
    job = Job(ASSIGNMENT, FILTERS, folder, release, source, b"any secret", sandbox=place)
    return grade_notebook(job)


def test_what_stands_behind_a_broken_cell_keeps_its_points(spied: Graded) -> None:
    wanted = {**max_points(FILTERS), f"{GRAPH}-check": 0, f"{SPYING}-check": 0.33}
    assert {cell.cell: cell.points for cell in spied.result.cells} == wanted
    notes = {cell.cell: cell.note for cell in spied.result.cells if cell.note}
    assert notes["ofe-08-picture-check"] == (
        "checked with the course's own [OFE-05] and [OFE-07] in place of yours"
    )
    assert f"{GRAPH}-check" not in notes


def test_nothing_of_the_solution_is_shown(spied: Graded) -> None:
    shown = "\n".join([json.dumps(spied.result.to_record()), spied.executed, spied.log])
    assert "nothing to be seen" in shown  # the spy has spoken, in the first run
    assert "x_image, W_conv, strides" not in shown
