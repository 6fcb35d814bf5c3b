"""Restores a submitted notebook to the shape of its release, keeping only what is the student's.

The student's are: the source of solution cells, cells of their own, and the order.  Everything
else (grade cells, given code, text, points, flags, tags, kernelspec) comes from the release.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from autograder.engine.files import read_regular
from autograder.errors import CannotGrade

SIZE_LIMIT = 20 << 20
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"


def mark(cell: NotebookNode) -> dict[str, object]:
    """The cell's nbgrader metadata; empty for a cell that has none, or not a mapping."""
    found = cell.metadata.get("nbgrader")
    return found if isinstance(found, dict) else {}


def grade_id(cell: NotebookNode) -> str | None:
    """The cell's `grade_id`, or None."""
    found = mark(cell).get("grade_id")
    return found if isinstance(found, str) else None


def is_solution(cell: NotebookNode) -> bool:
    """Whether the student writes this cell."""
    return bool(mark(cell).get("solution"))


def is_autograded(cell: NotebookNode) -> bool:
    """Whether this is a grade cell whose points the hidden checks decide."""
    return bool(mark(cell).get("grade")) and not is_solution(cell)


def is_manual(cell: NotebookNode) -> bool:
    """Whether a person gives this cell's points."""
    return bool(mark(cell).get("grade")) and is_solution(cell)


def label(name: str) -> str:
    """The lecture's label of the cell with this `grade_id`: `ofe-04-edge-filter` → `OFE-04`.

    Labels of figures have two numbers: `fig-4-3-neighbourhood-sum` → `Fig 4-3`.
    """
    parts = name.split("-")
    return f"Fig {'-'.join(parts[1:3])}" if parts[0] == "fig" else "-".join(parts[:2]).upper()


def solved(notebook: NotebookNode) -> NotebookNode:
    """The source notebook as a student would hand it in: solutions in place, no markers."""
    solution: NotebookNode = nbformat.from_dict(notebook)
    for cell in solution.cells:
        cell.source = "\n".join(
            line for line in cell.source.split("\n") if BEGIN not in line and END not in line
        )
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return solution


def written(notebook: NotebookNode) -> dict[str, str]:
    """What stands in each cell that the student writes and the checks grade, by `grade_id`."""
    return {
        str(grade_id(cell)): cell.source
        for cell in notebook.cells
        if is_solution(cell) and not is_manual(cell)
    }


def read_submitted(folder: Path, name: str) -> NotebookNode:
    """The submitted notebook `<folder>/<name>.ipynb`, upgraded to nbformat 4.

    Raises FileNotFoundError when it is not there, CannotGrade when it cannot be read.
    """
    data = read_regular(folder, f"{name}.ipynb", SIZE_LIMIT)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nbformat mends cell ids, which do not count here
            notebook = nbformat.reads(data.decode("utf-8"), as_version=4)
        for cell in notebook.cells:
            if not isinstance(cell.metadata, dict):
                raise ValueError("a cell without metadata")
            for text in (cell.source, cell.cell_type):
                text.encode("utf-8")  # what is no text, or half a character, cannot be kept
    except RecursionError as error:
        raise CannotGrade(f"{name}.ipynb is not a notebook: nested too deep") from error
    except Exception as error:  # nbformat raises many kinds for malformed content
        detail = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise CannotGrade(f"{name}.ipynb is not a readable notebook ({detail})") from error
    return notebook


def restore(submitted: NotebookNode, release: NotebookNode) -> NotebookNode:
    """A notebook with every cell of `release` and the student's work from `submitted`.

    Of a cell whose id occurs twice the first is the cell, the others are the student's own.
    A grade cell moved before its solution cell goes back behind it; a cell that was deleted
    comes back behind its neighbour of the release.
    """
    known = {grade_id(cell): cell for cell in release.cells if grade_id(cell)}
    texts = {cell.source for cell in release.cells if cell.cell_type == "markdown"}
    cells: list[NotebookNode] = []
    seen: set[str] = set()
    for cell in submitted.cells:
        name = grade_id(cell)
        if name is not None and name in known and name not in seen:
            seen.add(name)
            cells.append(_official(known[name], cell))
        else:
            cells.append(_own(cell, texts))
    before: str | None = None
    for cell in release.cells:
        name = grade_id(cell)
        if name is None:
            continue
        if name not in seen:
            at = 0 if before is None else _index(cells, before) + 1
            cells.insert(at, copy.deepcopy(cell))
        before = name
    for name, solution in solution_of(release):
        here, there = _index(cells, name), _index(cells, solution)
        if here < there:
            cells.insert(there, cells.pop(here))
    restored = copy.deepcopy(release)
    restored.cells = cells
    _renumber(restored)
    return restored


def _official(official: NotebookNode, submitted: NotebookNode) -> NotebookNode:
    cell = copy.deepcopy(official)
    if is_solution(official):
        cell.source = submitted.source
        if cell.cell_type == "markdown":
            cell.source = _defused(cell.source)
    return cell


def _defused(text: str) -> str:
    """Markdown that looks the same and holds no HTML, image or link.

    A space of no width keeps a page from reading what follows as more than text; templates
    differ in what they sanitize.
    """
    return re.sub(r"<(?=[A-Za-z/!?])|!(?=\[)|\](?=[(:\[])", lambda m: f"{m[0]}\u200b", text)


def _own(cell: NotebookNode, texts: set[str]) -> NotebookNode:
    make = {
        "code": nbformat.v4.new_code_cell,
        "markdown": nbformat.v4.new_markdown_cell,
    }.get(cell.cell_type, nbformat.v4.new_raw_cell)
    own: NotebookNode = make(source=cell.source)
    if own.cell_type == "markdown" and own.source not in texts:
        own.source = _defused(own.source)
    return own


def solution_of(release: NotebookNode) -> Iterator[tuple[str, str]]:
    """Pairs (grade cell, the solution cell before it)."""
    solution: str | None = None
    for cell in release.cells:
        name = grade_id(cell)
        if name is None:
            continue
        if is_solution(cell):
            solution = name
        elif is_autograded(cell) and solution is not None:
            yield name, solution


def _index(cells: list[NotebookNode], name: str) -> int:
    return next(i for i, cell in enumerate(cells) if grade_id(cell) == name)


def _renumber(notebook: NotebookNode) -> None:
    """Give every cell an id that is unique, keeping the release's."""
    used = {cell.id for cell in notebook.cells if grade_id(cell)}
    counter = 0
    for cell in notebook.cells:
        if grade_id(cell) is None:
            counter += 1
            while f"own-{counter}" in used:
                counter += 1
            cell["id"] = f"own-{counter}"
