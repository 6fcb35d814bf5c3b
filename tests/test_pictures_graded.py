"""A picture counts for the cell that asks for it, not for a later cell."""

from __future__ import annotations

from collections.abc import Callable

from autograder.course import Course
from autograder.engine.grade import Job, grade_notebook
from autograder.engine.sandbox import sandbox
from autograder.engine.warm import WarmInterpreter
from support.submissions import ASSIGNMENT, NOTEBOOKS, CourseCopy, max_points, replace_cells

FILTERS = NOTEBOOKS[0]


def test_the_figure_of_an_earlier_cell_earns_nothing(
    course_copy: Callable[[], CourseCopy], warm: WarmInterpreter
) -> None:
    copy = course_copy()
    folder = copy.solved("stale", FILTERS)
    replace_cells(folder / f"{FILTERS}.ipynb", {"ofe-10-picture": "# later"})
    root = Course.at(copy.root)
    release, source = root.release(ASSIGNMENT), root.source(ASSIGNMENT)
    place = sandbox(warm)
    graded = grade_notebook(
        Job(ASSIGNMENT, FILTERS, folder, release, source, b"any secret", sandbox=place)
    )
    points = {cell.cell: cell.points for cell in graded.result.cells}
    assert points == {**max_points(FILTERS), "ofe-10-picture-check": 0}
