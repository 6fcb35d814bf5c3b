"""The demands of an assignment's notebooks: their words, and the hidden checks for each demand.

The table is `demands.toml`, beside an assignment's other tables, with a part for each grade cell:

    [pool-01-halve-check]
    "each pixel is the largest of a 2×2 block" = ["test_size", "test_values"]
    "print its shape" = "what a cell prints is for its reader"

Each row quotes words of the released notebook that ask for something, followed by the checks for it
or by the reason why there is none.  A row does not name the cell that holds the words; it is looked
up.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nbformat import NotebookNode

from autograder.engine.notebook import grade_id, mark
from autograder.errors import UserError

if TYPE_CHECKING:
    from autograder.audit.trials import Check

TABLE = "demands.toml"


@dataclass(frozen=True)
class Demand:
    """Something that a notebook asks for.

    Attributes:
        notebook: the name of the notebook.
        cell: the grade cell that it counts for.
        check: the check for it, or None.
        said: the words that ask for it, each with the cell of the release that holds them.
        why: why there is no check.

    """

    notebook: str
    cell: str
    check: Check | None
    said: tuple[tuple[str, str], ...]
    why: str = ""


def read_demands(
    path: Path, releases: Mapping[str, NotebookNode], checks: Mapping[str, Sequence[Check]]
) -> list[Demand]:
    """The demands in a table, in the order of the notebooks and of their checks.

    releases: the released notebooks, by name.
    checks: their hidden checks.

    Raises UserError when there is no table, when the release does not say the words of a row up to
    the grade cell, when a check has no row, or when a row names something unknown.
    """
    try:
        parts = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"{path.parent.name} has no {path.name}, which says where the notebooks ask for what "
            "is checked; docs/writing-checks.md says how to write one"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path.name} is not TOML: {error}") from error
    found: list[Demand] = []
    for notebook, release in releases.items():
        text: dict[str, str] = {}
        for cell in release.cells:
            text[cell.id] = _collapse_spaces(cell.source)
            if mark(cell).get("grade"):
                name = str(grade_id(cell))
                own = {check.id: check for check in checks[notebook] if check.cell == name}
                found += _of_cell(notebook, name, parts.pop(name, {}), own, text)
    if parts:
        raise UserError(f"{path.name}: there is no grade cell {', '.join(parts)}")
    return found


def _of_cell(
    notebook: str,
    cell: str,
    rows: Mapping[str, list[str] | str],
    checks: Mapping[str, Check],
    text: dict[str, str],
) -> list[Demand]:
    """The demands of one grade cell: one for each check, then those without a check.

    checks: those of the cell, by name.
    text: the text of each cell up to this one, by cell.
    """
    where = f"{TABLE}, {cell}"
    said: dict[str, list[tuple[str, str]]] = {name: [] for name in checks}
    unchecked = []
    for words, by in rows.items():
        at = _place(words, text)
        if not at:
            raise UserError(f"{where}: {notebook} does not say {words!r} up to this cell")
        if not by:
            raise UserError(f"{where}, {words!r}: name the checks that look at it, or say why none")
        if isinstance(by, str):
            unchecked.append(Demand(notebook, cell, None, ((at, words),), by))
            continue
        for name in by:
            if name not in checks:
                raise UserError(f"{where}, {words!r}: there is no check {name}")
            said[name].append((at, words))
    for name, check in checks.items():
        if not said[name]:
            raise UserError(
                f"{where}: no row has {name}, “{check.title}”: quote the words that ask for it"
            )
    return [Demand(notebook, cell, checks[n], tuple(of)) for n, of in said.items()] + unchecked


def _place(words: str, text: dict[str, str]) -> str:
    """The last cell that holds these words in full; "" when none does."""
    pattern = re.compile(rf"(?<!\w){re.escape(_collapse_spaces(words))}(?!\w)")
    return next((cell for cell in reversed(text) if words and pattern.search(text[cell])), "")


def _collapse_spaces(text: str) -> str:
    """The text with single spaces between its words, since lines may break anywhere."""
    return " ".join(text.split())


def demand_tables(demands: Sequence[Demand]) -> list[str]:
    """A table for each grade cell, as lines of Markdown."""
    lines = [
        "",
        "## What is asked, where it is said, and what checks it",
        "",
        "The notebook has asked for whatever a check looks at: in its text, in the comments of the",
        "cell to write, or in the visible check. What is asked and not checked says why.",
    ]
    for cell in dict.fromkeys(demand.cell for demand in demands):
        lines += ["", f"### Asked in {cell}", ""]
        lines += ["| demand | where it is said | check |", "|---|---|---|"]
        for demand in (d for d in demands if d.cell == cell):
            check = demand.check
            said = "<br>".join(f"{at}: “{words}”" for at, words in demand.said)
            row = [check.title, said, check.id] if check else ["", said, f"none: {demand.why}"]
            lines.append(f"| {' | '.join(part.replace('|', '&#124;') for part in row)} |")
    return lines
