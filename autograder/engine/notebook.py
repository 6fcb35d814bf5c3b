"""Restores a submitted notebook to the shape of its release, keeping only the student's work.

The student's work is the source of solution cells, cells of their own, and the order in which all
cells are shown.  Everything else (grade cells, given code, text, points, flags, tags, kernelspec)
comes from the release, and so does the order in which a notebook is run and checked.
"""

from __future__ import annotations

import copy
import re

import nbformat
from nbformat import NotebookNode

from autograder.engine.cells import grade_id as grade_id
from autograder.engine.cells import is_autograded as is_autograded
from autograder.engine.cells import is_manual as is_manual
from autograder.engine.cells import is_solution as is_solution
from autograder.engine.cells import label as label
from autograder.engine.cells import mark as mark
from autograder.engine.cells import solution_of as solution_of
from autograder.engine.cells import unmoved
from autograder.engine.matching import Recognised, recognise

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"


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
    """The source of each cell that the student writes and the checks grade, by `grade_id`."""
    return {
        str(grade_id(cell)): cell.source
        for cell in notebook.cells
        if is_solution(cell) and not is_manual(cell)
    }


def restore(
    submitted: NotebookNode, release: NotebookNode, found: Recognised | None = None
) -> NotebookNode:
    """A notebook with every cell of `release` and the student's work from `submitted`.

    found: maps the release's cells to the submitted ones, as `recognise` returns it.

    Its parts replace a cell into which others were merged.  Editors that split a cell give both
    halves its `grade_id`: a further cell with the id of a found one is the student's own, and
    `piece_of` in its metadata names the other.  A grade cell that was moved before its solution
    cell goes back behind it; a deleted cell comes back behind its neighbour in the release.
    """
    found = found or recognise(submitted, release)
    known = {name: cell for cell in release.cells if (name := grade_id(cell))}
    texts = {cell.source for cell in release.cells if cell.cell_type == "markdown"}
    at = {match.at: name for name, match in found.cells.items() if match.at is not None}
    cells: list[NotebookNode] = []
    for position, cell in enumerate(found.submitted):
        if position in found.passed_over:
            continue
        if position in at:
            name = at[position]
            cells.append(_official(known[name], found.cells[name].source))
        else:
            own = _own(cell, texts)
            if (piece := grade_id(cell)) in known:
                own.metadata["piece_of"] = piece
            cells.append(own)
    seen = set(at.values())
    before: str | None = None
    for cell in release.cells:
        name = grade_id(cell)
        if name is None:
            continue
        if name not in seen:
            source = found.cells[name].source if name in found.cells else cell.source
            here = 0 if before is None else _index(cells, before) + 1
            cells.insert(here, _official(cell, source))
        before = name
    for name, solution in solution_of(release):
        here, there = _index(cells, name), _index(cells, solution)
        if here < there:
            cells.insert(there, cells.pop(here))
    restored = copy.deepcopy(release)
    restored.cells = cells
    _renumber(restored)
    return restored


def changed(restored: NotebookNode, release: NotebookNode) -> bool:
    """Whether a restored notebook holds any work of the student's: an answer or a cell."""
    official = {name: cell.source for cell in release.cells if (name := grade_id(cell))}
    texts = {cell.source.strip() for cell in release.cells} | {""}
    return any(
        cell.source.strip() != official[name].strip()
        if (name := grade_id(cell))
        else cell.source.strip() not in texts
        for cell in restored.cells
    )


def in_order(restored: NotebookNode, release: NotebookNode) -> NotebookNode:
    """A notebook of the same cells, with the release's cells in the release's order.

    restored: as `restore` returns it.

    A cell of the student's own stays behind the last cell before it that was not moved, because a
    moved cell's place does not tell where the student's cell belongs.  A piece of a split cell
    never comes before that cell.
    """
    place = {name: at for at, cell in enumerate(release.cells) if (name := grade_id(cell))}
    still = unmoved(filter(None, map(grade_id, restored.cells)), place)
    behind: dict[str | None, list[NotebookNode]] = {None: [], **{name: [] for name in place}}
    last: str | None = None
    for cell in restored.cells:
        name = grade_id(cell)
        if name is None:
            whole = cell.metadata.get("piece_of")
            late = whole is not None and (last is None or place[whole] > place[last])
            behind[whole if late else last].append(cell)
        elif name in still:
            last = name
    official = {name: cell for cell in restored.cells if (name := grade_id(cell))}
    ordered: NotebookNode = copy.copy(restored)
    ordered.cells = behind[None] + [
        cell for name in place for cell in (official[name], *behind[name])
    ]
    return ordered


def checked_too_early(notebook: NotebookNode) -> NotebookNode:
    """A copy with each grade cell before the solution cell it judges."""
    other: NotebookNode = nbformat.from_dict(notebook)
    for name, solution in solution_of(notebook):
        check = other.cells.pop(_index(other.cells, name))
        other.cells.insert(_index(other.cells, solution), check)
    return other


def runs_alike(one: NotebookNode, other: NotebookNode) -> bool:
    """Whether two arrangements of the same cells run the same code cells in the same order."""
    orders = [[cell.id for cell in book.cells if cell.cell_type == "code"] for book in (one, other)]
    return orders[0] == orders[1]


def _official(official: NotebookNode, source: str) -> NotebookNode:
    cell = copy.deepcopy(official)
    if is_solution(official):
        cell.source = source
        if cell.cell_type == "markdown":
            cell.source = _defused(cell.source)
    return cell


# The start of HTML, an image or a link, or of a bare address that pages would turn into a link.
_LIVE = re.compile(
    r"<(?=[A-Za-z/!?])|!(?=\[)|\](?=[(:\[])|:(?=//)|(?<=[wW]{3})\.|(?<=[\w.+-])@(?=\w)"
)


def _defused(text: str) -> str:
    """Markdown that looks the same but holds no HTML, image or link.

    It also breaks bare addresses of sites and mail, which some pages turn into links.  A zero-width
    space makes a page read the rest as plain text; templates differ in what they sanitize.
    """
    return _LIVE.sub(lambda m: f"{m[0]}\u200b", text)


def _own(cell: NotebookNode, texts: set[str]) -> NotebookNode:
    kind = cell.cell_type if cell.cell_type in ("code", "markdown") else "raw"
    own = NotebookNode(cell_type=kind, metadata=NotebookNode(), source=cell.source)
    if kind == "code":
        own |= {"outputs": [], "execution_count": None}
    elif kind == "markdown" and own.source not in texts:
        own.source = _defused(own.source)
    return own


def _index(cells: list[NotebookNode], name: str) -> int:
    return next(i for i, cell in enumerate(cells) if grade_id(cell) == name)


def _renumber(notebook: NotebookNode) -> None:
    """Give every cell a unique id, keeping the release's ids."""
    used = {cell.id for cell in notebook.cells if grade_id(cell)}
    counter = 0
    for cell in notebook.cells:
        if grade_id(cell) is None:
            counter += 1
            while f"own-{counter}" in used:
                counter += 1
            cell["id"] = f"own-{counter}"
