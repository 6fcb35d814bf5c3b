"""A trial of the grader: one notebook to grade, and its expected outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MUTANT, EQUIVALENT, SEED = "mutant", "equivalent", "seed"
MUTATION, REWRITING = "mutation", "rewriting"
# The fate of a mutation: a check of its own cell fails, only other checks do, or none does.
KILLED, ELSEWHERE, SURVIVES = "killed", "elsewhere", "survivor"


@dataclass(frozen=True)
class Check:
    """A hidden check: its grade cell, its name and its title."""

    cell: str
    id: str
    title: str

    @property
    def key(self) -> str:
        """The check's name in tables and reports."""
        return f"{self.cell}::{self.id}"


@dataclass(frozen=True)
class Trial:
    """One notebook to grade, and its expected outcome.

    Attributes:
        kind: mutant, equivalent, seed, mutation or rewriting.
        name: of the variant.
        about: the explanation that reports show.
        notebook: the name of the notebook.
        cell: the solution cell it is about; "" if there is none.
        sources: replacements for the solution in some cells.
        insert: added cells, as (cell before it, source).
        move: moved cells, as (cell, cell before it).
        files: the variant of the files handed in with it; "" for the files as they are.
        fails: keys of the checks that must fail; one of them is enough for a mutation.
        may: keys of the checks that may fail.
        hint: a pattern (`re`) that the first failed check's hint must match.
        left: solution cells that are as released; their checks may fail.
        fate: the expected fate of a mutation.

    """

    kind: str
    name: str
    about: str
    notebook: str
    cell: str
    sources: Mapping[str, str] = field(default_factory=dict)
    insert: tuple[tuple[str, str], ...] = ()
    move: tuple[tuple[str, str], ...] = ()
    files: str = ""
    fails: frozenset[str] = frozenset()
    may: frozenset[str] = frozenset()
    hint: str = ""
    left: tuple[str, ...] = ()
    fate: str = KILLED

    @property
    def title(self) -> str:
        """The trial's name in reports."""
        return f"{self.name} in {self.cell}" if self.cell else self.name
