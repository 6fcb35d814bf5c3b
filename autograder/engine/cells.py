"""The role of a cell: for nbgrader, in the lecture, and relative to its neighbours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from nbformat import NotebookNode


def mark(cell: NotebookNode) -> dict[str, object]:
    """The cell's nbgrader metadata; empty if it is missing or not a mapping."""
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
    """Whether a person awards this cell's points."""
    return bool(mark(cell).get("grade")) and is_solution(cell)


def label(name: str) -> str:
    """The lecture's label of the cell with this `grade_id`: `ofe-04-edge-filter` → `OFE-04`.

    Labels of figures have two numbers: `fig-4-3-neighbourhood-sum` → `Fig 4-3`.
    """
    parts = name.split("-")
    return f"Fig {'-'.join(parts[1:3])}" if parts[0] == "fig" else "-".join(parts[:2]).upper()


def solution_of(release: NotebookNode) -> Iterator[tuple[str, str]]:
    """Pairs of a grade cell and the solution cell before it."""
    solution: str | None = None
    for cell in release.cells:
        name = grade_id(cell)
        if name is None:
            continue
        if is_solution(cell):
            solution = name
        elif is_autograded(cell) and solution is not None:
            yield name, solution


def unmoved(names: Iterable[str], place: Mapping[str, int]) -> set[str]:
    """The largest set of these cells that are in the release's order.

    names: in their current order.
    place: the position in the release, by `grade_id`.
    """
    rising: list[list[str]] = [[]]  # the longest rising sequence ending with each cell so far
    for name in names:
        before = [r for r in rising if not r or place[r[-1]] < place[name]]
        rising.append([*max(before, key=len), name])
    longest = max(rising, key=len)
    return set(longest)
