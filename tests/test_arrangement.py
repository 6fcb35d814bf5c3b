"""However a student rearranges a notebook, it never earns more than the solved cells are worth.

The first tests use a made-up course whose cells need no kernel, in very many arrangements; the rest
use notebooks of the chapter, in a few.
"""

from __future__ import annotations

import copy
import os
import random
import shutil
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode

from autograder.checks import Setup
from autograder.engine.grade import Graded, Job, _Grading, grade_notebook
from autograder.engine.notebook import (
    grade_id,
    in_order,
    is_autograded,
    is_solution,
    restore,
    runs_alike,
    solved,
)
from autograder.engine.results import CellResult, CheckResult
from autograder.engine.sandbox import Sandbox, sandbox
from autograder.engine.warm import WarmInterpreter
from support.submissions import (
    ASSIGNMENT,
    NOTEBOOKS,
    ROOT,
    expected_points,
    max_points,
    solution_cells,
    source,
)

SEED = int(os.environ.get("ARRANGEMENT_SEED", random.SystemRandom().randrange(2**32)))
CASES = 300


# -- ways to arrange cells ---------------------------------------------------------------------


def mark(cell: NotebookNode) -> dict[str, Any]:
    found: dict[str, Any] = cell.metadata.get("nbgrader", {})
    return found


def move(rng: random.Random, cells: list[NotebookNode]) -> None:
    cells.insert(rng.randrange(len(cells)), cells.pop(rng.randrange(len(cells))))


def shuffle(rng: random.Random, cells: list[NotebookNode]) -> None:
    rng.shuffle(cells)


def gather_checks(rng: random.Random, cells: list[NotebookNode]) -> None:
    cells.sort(key=lambda cell: is_autograded(cell))


def shift_checks(rng: random.Random, cells: list[NotebookNode]) -> None:
    """Move grade cells behind later solution cells, so that they seem to belong to them."""
    checks = [cell for cell in cells if is_autograded(cell) and rng.random() < 0.6]
    for check in checks:
        further = [
            other
            for other in cells[cells.index(check) :]
            if is_solution(other) and rng.random() < 0.7
        ]
        if further:
            cells.remove(check)
            cells.insert(cells.index(further[0]) + 1, check)


def duplicate(rng: random.Random, cells: list[NotebookNode]) -> None:
    cells.insert(rng.randrange(len(cells) + 1), copy.deepcopy(rng.choice(cells)))


def delete(rng: random.Random, cells: list[NotebookNode]) -> None:
    if len(cells) > 1:
        del cells[rng.randrange(len(cells))]


def retype(rng: random.Random, cells: list[NotebookNode]) -> None:
    cell = rng.choice(cells)
    cell.cell_type = rng.choice(["code", "markdown", "raw"])
    for key, value in (("outputs", []), ("execution_count", None)):
        cell.pop(key, None)
        if cell.cell_type == "code":
            cell[key] = value


def lose_id(rng: random.Random, cells: list[NotebookNode]) -> None:
    rng.choice(cells).metadata.pop("nbgrader", None)


def exchange_ids(rng: random.Random, cells: list[NotebookNode]) -> None:
    one, other = rng.choice(cells), rng.choice(cells)
    one.metadata, other.metadata = other.metadata, one.metadata


def reflag(rng: random.Random, cells: list[NotebookNode]) -> None:
    mark(rng.choice(cells)).update(grade=True, solution=True, locked=False, points=100)


def lose_marks(rng: random.Random, cells: list[NotebookNode]) -> None:
    """Drop nbgrader's metadata like a converter, which may also drop ids and comments."""
    ids, comments = rng.random() < 0.5, rng.random() < 0.3
    for cell in cells:
        cell.metadata.pop("nbgrader", None)
        if ids:
            cell.id = f"{rng.randrange(2**32):08x}"
        if comments:
            drop_comment(cell)


def drop_comment(cell: NotebookNode) -> None:
    if cell.source.startswith("# ["):
        cell.source = cell.source.partition("\n")[2]


def rename_as_in_another_release(rng: random.Random, cells: list[NotebookNode]) -> None:
    for cell in cells:
        if mark(cell):
            mark(cell)["grade_id"] = f"{mark(cell)['grade_id']}-{rng.randrange(3)}"
            cell.id = f"{rng.randrange(2**32):08x}"


def answer_elsewhere(rng: random.Random, cells: list[NotebookNode]) -> None:
    """Move answers to a new cell below the stub or below the check, or into the check."""
    how = rng.randrange(3)
    for cell in [cell for cell in cells if is_solution(cell)]:
        if "stub" in cell.source:
            continue
        at = cells.index(cell)
        check = next((i for i in range(at, len(cells)) if is_autograded(cells[i])), None)
        if check is None:
            continue
        answer = nbformat.v4.new_code_cell(cell.source.partition("]\n")[2] or cell.source)
        cell.source = next(line for line in cell.source.split("\n")) * ("# [" in cell.source)
        cell.source += "\nstub" if cell.source else "stub"
        if how == 2:
            cells[check].source = f"{answer.source}\n{cells[check].source}"
        else:
            cells.insert((at if how == 0 else check) + 1, answer)


def exchange_texts(rng: random.Random, cells: list[NotebookNode]) -> None:
    one, other = rng.choice(cells), rng.choice(cells)
    one.source, other.source = other.source, one.source


def exchange_labels(rng: random.Random, cells: list[NotebookNode]) -> None:
    """Swap the first lines of two cells, so that either may be taken for the other."""
    one, other = rng.choice(cells), rng.choice(cells)
    if one.source.startswith("# [") and other.source.startswith("# ["):
        (mine, _, my_text), (its, _, its_text) = (c.source.partition("\n") for c in (one, other))
        one.source, other.source = f"{its}\n{my_text}", f"{mine}\n{its_text}"


def merge(rng: random.Random, cells: list[NotebookNode]) -> None:
    """Join some cells to one of them, which keeps its metadata, or to a new one at the end."""
    size = rng.choice([2, 3, 5, len(cells)])
    start = rng.randrange(len(cells))
    some = (
        cells[start : start + size]
        if rng.random() < 0.5
        else rng.sample(cells, min(size, len(cells)))
    )
    text = "\n".join(cell.source for cell in some)
    if rng.random() < 0.3:
        cells.append(nbformat.v4.new_code_cell(text))
    else:
        some[0].source = text
        cells[:] = [cell for cell in cells if cell is some[0] or cell not in some]


REORDER = (move, shuffle, gather_checks, shift_checks)
# After these, code may run in another cell's place and show its picture too early.
ELSEWHERE = (
    *(duplicate, lose_id, exchange_ids, lose_marks, rename_as_in_another_release),
    *(answer_elsewhere, exchange_texts, exchange_labels, merge),
)
ARRANGE = (*REORDER, *ELSEWHERE, delete, retype, reflag)
# Changes by honest students and their tools, which keep the order of cells.
HONEST = (lose_marks, rename_as_in_another_release, answer_elsewhere)


def arranged(
    rng: random.Random, notebook: NotebookNode, ways: Collection[Callable[..., None]], most: int = 8
) -> tuple[NotebookNode, list[str]]:
    """The notebook rearranged in up to `most` of these ways, and the names of those ways."""
    other = copy.deepcopy(notebook)
    chosen = [rng.choice([*ways]) for _ in range(rng.randint(1, most))]
    for way in chosen:
        way(rng, other.cells)
    return other, [way.__name__ for way in chosen]


# -- a course without kernels ------------------------------------------------------------------


@dataclass
class World:
    """A made-up course of tasks c0, c1, ….

    A line `do n` does task n if the tasks that it needs are done, and otherwise stops its cell; the
    course's own cells have `show n` instead.  `stub` stops its cell; all other lines do nothing.
    Two thirds of a task's points check that it is done, one third that a picture of its kind is
    there.

    Attributes:
        needs: the tasks that each task needs.
        kinds: the kind of each task's picture.
        points: the points of each task.
        labels: whether cells begin with a label.
        runs: number of runs so far.

    """

    needs: list[set[int]]
    kinds: list[int]
    points: list[int]
    labels: bool = True
    runs: int = 0

    @classmethod
    def drawn(cls, rng: random.Random) -> World:
        """A random number of tasks, each of which needs some of the earlier ones."""
        size = rng.randint(2, 7)
        needs = [{m for m in range(n) if rng.random() < 0.4} for n in range(size)]
        kinds = [rng.randrange(size) for _ in range(size)]
        points = [rng.randint(1, 5) for _ in range(size)]
        return cls(needs, kinds, points, labels=rng.random() < 0.7)

    def notebook(self, sources: list[str]) -> NotebookNode:
        """The tasks with these sources, each between a given cell and its grade cell."""
        cells = []
        for number, text in enumerate(sources):
            for name, content, marks in (
                (f"given-{number}", "nothing", {"locked": True}),
                (f"c-{number}", text, {"solution": True}),
                (
                    f"c-{number}-check",
                    f"look_at(made_{number})",
                    {"grade": True, "points": self.points[number]},
                ),
            ):
                cell = nbformat.v4.new_code_cell(content, id=name)
                cell.metadata["nbgrader"] = {"grade_id": name, **marks}
                cells.append(cell)
        return nbformat.v4.new_notebook(cells=cells)

    def release(self) -> NotebookNode:
        return self.notebook([f"{self.label(n)}stub" for n in range(len(self.needs))])

    def label(self, number: int) -> str:
        """The first line of a cell."""
        return f"# [C-{number}] task number {number}\n" if self.labels else ""

    def course(self) -> NotebookNode:
        return self.notebook([f"show {n}" for n in range(len(self.needs))])

    def handed_in(self, done: Collection[int], rng: random.Random) -> NotebookNode:
        """A notebook with these tasks done; others have the stub, a comment, or both."""
        others = ["stub", "# mine\nstub", "# mine"]
        return self.notebook(
            [
                self.label(n) + (f"do {n}\nmade_{n} = 1" if n in done else rng.choice(others))
                for n in range(len(self.needs))
            ]
        )

    def run(self, notebook: NotebookNode, only: Collection[str] | None) -> list[CellResult]:
        """Run the notebook; return the results of its grade cells."""
        self.runs += 1
        done: set[int] = set()
        pictures: set[int] = set()
        cells = []
        for cell in notebook.cells:
            name = grade_id(cell) or ""
            if cell.cell_type == "code" and is_autograded(cell):
                number = int(name[2:].removesuffix("-check"))
                if only is None or name in only:
                    right = CheckResult("right", "", number in done, "", 2)
                    shown = CheckResult("shown", "", self.kinds[number] in pictures, "")
                    cells.append(CellResult(name, float(self.points[number]), [right, shown]))
            elif cell.cell_type == "code":
                for line in cell.source.splitlines():
                    word, _, number = line.partition(" ")
                    if word == "stub" or (
                        word in ("do", "show") and self.needs[int(number)] - done
                    ):
                        break
                    if word in ("do", "show"):
                        done.add(int(number))
                        pictures.add(self.kinds[int(number)])
        return cells


class Grading(_Grading):
    """Grades without a kernel."""

    world: World

    def _run(
        self, notebook: NotebookNode, only: Collection[str] | None = None, modules: bool = True
    ) -> Any:
        return self.world.run(notebook, only), SimpleNamespace(stopped=""), ""


@pytest.fixture
def grade(tmp_path: Path) -> Callable[[World, NotebookNode], dict[str, CellResult]]:
    """Grade a notebook of a world as the engine does."""

    def graded(world: World, submitted: NotebookNode) -> dict[str, CellResult]:
        release = world.release()
        nbformat.write(world.course(), tmp_path / "tasks.ipynb")
        job = Job("", "tasks", tmp_path, tmp_path, tmp_path, b"")
        checks: Any = SimpleNamespace(setup=Setup())
        grading = Grading(job, checks, release, None)  # type: ignore[arg-type]
        grading.world = world
        cells, _, _ = grading.first(restore(submitted, release))
        return {cell.cell: cell for cell in cells}

    return graded


def deserved(world: World, done: Collection[int], elsewhere: bool) -> dict[str, float]:
    """The most points that each grade cell may give if these tasks are done.

    elsewhere: whether code may have moved to another place and shown its picture there.
    """
    most = {}
    for number, points in enumerate(world.points):
        shown = any(
            world.kinds[n] == world.kinds[number] and (n <= number or elsewhere) for n in done
        )
        share = 1.0 if number in done else shown / 3
        most[f"c-{number}-check"] = round(points * share, 2)
    return most


def cases(ways: Collection[Callable[..., None]]) -> Iterator[Case]:
    for number in range(CASES):
        rng = random.Random(f"{SEED} {number}")
        world = World.drawn(rng)
        done = {n for n in range(len(world.needs)) if rng.random() < rng.choice([0, 0.5, 0.9])}
        plain = world.handed_in(done, rng)
        other, how = arranged(rng, plain, ways)
        yield Case(world, done, plain, other, how, f"seed {SEED}, case {number}: {how}")


@dataclass
class Case:
    world: World
    done: set[int]
    plain: NotebookNode
    other: NotebookNode
    how: list[str]
    name: str


Grade = Callable[[World, NotebookNode], dict[str, CellResult]]


def test_no_arrangement_earns_more_than_what_was_solved(grade: Grade) -> None:
    for case in cases(ARRANGE):
        elsewhere = bool({way.__name__ for way in ELSEWHERE} & {*case.how})
        most = deserved(case.world, case.done, elsewhere)
        for name, cell in grade(case.world, case.other).items():
            assert cell.points <= most[name], f"{case.name}, {name} of {case.done}"


def test_another_order_of_the_same_cells_earns_the_same(grade: Grade) -> None:
    for case in cases(REORDER):
        plain, other = (grade(case.world, book) for book in (case.plain, case.other))
        assert {name: cell.points for name, cell in plain.items()} == {
            name: cell.points for name, cell in other.items()
        }, case.name


def test_lost_marks_and_answers_in_other_cells_cost_nothing(grade: Grade) -> None:
    for number in range(CASES):
        rng = random.Random(f"{SEED} {number}")
        world = World.drawn(rng)
        done = {n for n in range(len(world.needs)) if rng.random() < rng.choice([0.5, 0.9, 1])}
        plain = world.handed_in(done, rng)
        other = copy.deepcopy(plain)
        way = rng.choice(HONEST)
        way(rng, other.cells)
        found, wanted = (grade(world, book) for book in (other, plain))
        assert {name: cell.points for name, cell in found.items()} == {
            name: cell.points for name, cell in wanted.items()
        }, f"seed {SEED}, case {number}: {way.__name__}"


def test_merged_cells_cost_nothing(grade: Grade) -> None:
    for number in range(CASES):
        rng = random.Random(f"{SEED} {number}")
        world = World.drawn(rng)
        world.labels = True
        done = {n for n in range(len(world.needs)) if rng.random() < rng.choice([0.5, 0.9, 1])}
        plain = world.handed_in(done, rng)
        other = copy.deepcopy(plain)
        first = rng.randrange(
            1, len(other.cells)
        )  # a solution cell, so that its part stays with it
        while not is_solution(other.cells[first]):
            first -= 1
        some = other.cells[first : first + rng.randint(2, len(other.cells))]
        some[0].source = "\n".join(cell.source for cell in some)
        other.cells = [cell for cell in other.cells if cell is some[0] or cell not in some]
        found, wanted = (grade(world, book) for book in (other, plain))
        assert {name: cell.points for name, cell in found.items()} == {
            name: cell.points for name, cell in wanted.items()
        }, f"seed {SEED}, case {number}: {len(some)} from {first}"


def test_the_arrangements_are_such_as_mattered(grade: Grade) -> None:
    """Most arrangements run other code or another order, and many need a repair."""
    all_cases = [*cases(ARRANGE)]
    others, repairs = 0, 0
    for case in all_cases:
        restored = restore(case.other, case.world.release())
        others += not runs_alike(restored, in_order(restored, case.world.release()))
        case.world.runs = 0
        notes = [cell.note for cell in grade(case.world, case.other).values()]
        repairs += any("course's own" in note for note in notes)
    assert others > CASES / 2
    assert repairs > CASES / 10


# -- with kernels ------------------------------------------------------------------------------

FILTERS, CLASSES, DYNAMIC = NOTEBOOKS[:3]
RELEASE, SOURCE = ROOT / "release" / ASSIGNMENT, ROOT / "source" / ASSIGNMENT
# The cells that are done.  If two cells share a demand, such as `filter_vals`, the earlier one is
# done, too, because a copy of the later one's code before it would rightly meet the demand.
DONE: dict[str, dict[str, int | str]] = {
    "nothing": {FILTERS: 0, CLASSES: 0, DYNAMIC: 0},
    "the first cells": {FILTERS: 7, CLASSES: 3, DYNAMIC: 2},
    "all but one": {FILTERS: "ofe-05-graph", CLASSES: "oce-05-layers", DYNAMIC: "ode-03-graph"},
}


@pytest.fixture(scope="module")
def place(warm: WarmInterpreter) -> Sandbox:
    return sandbox(warm)


def done_in(name: str, how: str) -> list[str]:
    """The solution cells of a notebook that are done."""
    which = DONE[how][name]
    cells = solution_cells(name)
    return [c for c in cells if c != which] if isinstance(which, str) else cells[:which]


def handed_in(name: str, done: Collection[str]) -> NotebookNode:
    """A notebook with these cells done; the others have a comment in place of the stub."""
    notebook = nbformat.read(RELEASE / f"{name}.ipynb", as_version=4)
    course = {grade_id(cell): cell.source for cell in solved(source(name)).cells}
    for cell in notebook.cells:
        if is_solution(cell):
            written = course[grade_id(cell)] if grade_id(cell) in done else "# I do not know"
            cell.source = written
    return notebook


def grade_for_real(name: str, submitted: NotebookNode, folder: Path, place: Sandbox) -> Graded:
    shutil.copytree(RELEASE, folder, dirs_exist_ok=True)
    # Not with `nbformat.write`, which would replace duplicate cell ids.
    (folder / f"{name}.ipynb").write_text(nbformat.v4.writes_json(submitted), "utf-8")
    job = Job(ASSIGNMENT, name, folder, RELEASE, SOURCE, b"any secret", sandbox=place)
    graded = grade_notebook(job)
    assert graded.result.status == "graded", graded.result.reason
    return graded


def points(graded: Graded) -> dict[str, float]:
    return {cell.cell: cell.points for cell in graded.result.cells}


def cell_of(notebook: NotebookNode, name: str) -> NotebookNode:
    return next(cell for cell in notebook.cells if grade_id(cell) == name)


def put_behind(notebook: NotebookNode, name: str, before: str) -> None:
    """Move the cell `name` directly behind the cell `before`."""
    cell = cell_of(notebook, name)
    notebook.cells.remove(cell)
    notebook.cells.insert(notebook.cells.index(cell_of(notebook, before)) + 1, cell)


@pytest.mark.parametrize("how", DONE)
@pytest.mark.parametrize("name", NOTEBOOKS[:3])
def test_no_arrangement_of_a_real_notebook_earns_more(
    name: str, how: str, tmp_path: Path, place: Sandbox
) -> None:
    done = done_in(name, how)
    submitted, chosen = arranged(
        random.Random(f"{SEED} {name} {how}"), handed_in(name, done), ARRANGE
    )
    found = points(grade_for_real(name, submitted, tmp_path, place))
    wanted = expected_points(name, done)
    more = {cell: found[cell] for cell in found if found[cell] > wanted[cell]}
    assert not more, f"seed {SEED}: {chosen}"


@pytest.mark.parametrize("name", NOTEBOOKS[:3])
def test_another_order_of_a_complete_notebook_costs_nothing(
    name: str, tmp_path: Path, place: Sandbox
) -> None:
    submitted = handed_in(name, solution_cells(name))
    random.Random(f"{SEED} {name}").shuffle(submitted.cells)
    found = points(grade_for_real(name, submitted, tmp_path, place))
    assert found == max_points(name), f"seed {SEED}"


def test_checks_behind_other_cells_earn_nothing(tmp_path: Path, place: Sandbox) -> None:
    """A commented last cell stands before the expensive checks, the others before a cheap one."""
    submitted = nbformat.read(RELEASE / f"{FILTERS}.ipynb", as_version=4)
    dear = {
        "fig-4-3-neighbourhood-sum": "fig-4-2-blur",
        "fig-4-4-convolve": "fig-4-4-kernels",
        "ofe-04-edge-filter": "ofe-07-values",
        "ofe-05-graph": "ofe-08-picture",
        "fig-4-10-shapes": "ofe-09-values",
    }
    order = [*dear.values()]
    for name, cheap in dear.items():
        order += [name, f"{cheap}-check"]
    order += ["ofe-10-picture", "ofe-10-picture-check", *(f"{name}-check" for name in dear)]
    moved = [cell_of(submitted, name) for name in order]
    submitted.cells = [cell for cell in submitted.cells if cell not in moved] + moved
    cell_of(submitted, "ofe-10-picture").source += "\n# nothing"
    assert not any(points(grade_for_real(FILTERS, submitted, tmp_path, place)).values())


def test_the_course_does_not_solve_a_cell_whose_check_stands_elsewhere(
    tmp_path: Path, place: Sandbox
) -> None:
    done = done_in(FILTERS, "all but one")
    submitted = handed_in(FILTERS, done)
    blur = cell_of(submitted, "fig-4-2-blur")
    blur.source = blur.source.replace("0.12", "0.13")
    put_behind(submitted, "fig-4-2-blur-check", "ofe-05-graph")
    put_behind(submitted, "ofe-05-graph-check", "ofe-07-values")
    found = points(grade_for_real(FILTERS, submitted, tmp_path, place))
    assert found == {**expected_points(FILTERS, done), "fig-4-2-blur-check": 0.33}


def test_a_later_cell_does_no_earlier_one_s_work(tmp_path: Path, place: Sandbox) -> None:
    done = [cell for cell in solution_cells(FILTERS) if cell != "ofe-07-values"]
    submitted = handed_in(FILTERS, done)
    put_behind(submitted, "ofe-09-values", "ofe-06-look")  # it also makes filter_vals
    found = points(grade_for_real(FILTERS, submitted, tmp_path, place))
    assert found == expected_points(FILTERS, done)


def test_a_cell_that_needs_a_cell_which_was_moved_up_is_right(
    tmp_path: Path, place: Sandbox
) -> None:
    submitted = handed_in(FILTERS, solution_cells(FILTERS))
    put_behind(submitted, "fig-4-10-shapes", "fig-4-2-blur-check")
    graph = cell_of(submitted, "ofe-05-graph")
    graph.source = "assert output_size(28, 2, 2, 'SAME') == 14\n" + graph.source
    graded = grade_for_real(FILTERS, submitted, tmp_path, place)
    assert points(graded) == max_points(FILTERS)
    notes = {cell.cell: cell.note for cell in graded.result.cells}
    assert notes["ofe-05-graph-check"] == "checked in your own order of cells"
    assert (
        notes["ofe-07-values-check"] == "checked with the course's own [OFE-05] in place of yours"
    )


def test_a_merged_notebook_earns_everything_and_says_what_did_not_run(
    tmp_path: Path, place: Sandbox
) -> None:
    submitted = handed_in(FILTERS, solution_cells(FILTERS))
    first, *others = (cell_of(submitted, name) for name in solution_cells(FILTERS))
    first.source = "\n\n".join(cell.source for cell in (first, *others))
    submitted.cells = [cell for cell in submitted.cells if cell not in others]
    cell_of(submitted, "ofe-01-import").source += "\nimport decimal"
    graded = grade_for_real(FILTERS, submitted, tmp_path, place)
    assert points(graded) == max_points(FILTERS)
    assert "OFE-10 were found in the cell of Fig 4-2" in graded.result.reason
    assert "added to the locked cell of OFE-01 was not run" in graded.result.reason


def test_the_notebook_is_shown_in_the_student_s_order(tmp_path: Path, place: Sandbox) -> None:
    submitted = handed_in(FILTERS, solution_cells(FILTERS))
    put_behind(submitted, "fig-4-10-shapes", "ofe-01-import")
    submitted.cells.append(nbformat.v4.new_code_cell("print('done', output_size)"))
    graded = grade_for_real(FILTERS, submitted, tmp_path, place)
    shown = nbformat.reads(graded.executed, as_version=4)
    names = [name for cell in shown.cells if (name := grade_id(cell))]
    assert names.index("fig-4-10-shapes") == names.index("ofe-01-import") + 1
    assert shown.cells[-1].outputs[0].text.startswith("done <function output_size")
    assert cell_of(shown, "ofe-02-data").outputs
