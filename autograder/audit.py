"""Grades the grader: runs known wrong and known right solutions through the real engine.

The tables of an assignment `ch4-cnn` are the TOML files in `tests/validity/ch4_cnn/`:

- `[[mutant]]`: a wrong solution, the checks that must fail for it (all others must pass), and what
  the first of their hints must say.
- `[[equivalent]]`: a right solution written differently; every check must pass.
- `[[unfinished]]`: cells left unwritten in the mutants of some other cells, to save the time they
  take; their checks are not judged there.
- `[[seeds]]`: the complete solution after a line that sets the random seed, for a number of seeds.
- `[[survivor]]`: machine-made mutants that keep full marks, and why that is right.
- `[[elsewhere]]`: machine-made mutants that only the checks of other cells fail, and why.

`demands.toml` is of another kind: `autograder.demands` reads the notebooks' demands from it.

Besides the tables there are *mutations* and *rewritings*, wrong and right solutions that
`autograder.variants` makes of every solution cell.  The audit tries a sample of them, drawn evenly
from the cells.

An optional `files.py` beside the tables says which files are handed in with the notebooks, and
names variants of them.  docs/writing-checks.md explains how to write a table.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import fnmatch
import importlib.util
import io
import re
import shutil
import tempfile
import tomllib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

from autograder.course import Course, check_name, checks_for, identifier
from autograder.demands import TABLE, Demand, demand_tables, read_demands
from autograder.engine.grade import Job, versions
from autograder.engine.notebook import grade_id, mark, solution_of, solved, written
from autograder.engine.pool import Engine
from autograder.engine.results import NotebookResult
from autograder.errors import UserError
from autograder.variants.code import Surroundings
from autograder.variants.mutation import mutants
from autograder.variants.rewriting import OWN_CELL, rewritings

MUTANT, EQUIVALENT, SEED = "mutant", "equivalent", "seed"
MUTATION, REWRITING = "mutation", "rewriting"
SAMPLE = {MUTATION: 200, REWRITING: 100}
SAMPLE_SEED = 4
# The fate of a mutation: a check of its own cell fails, only other checks do, or none does.
KILLED, ELSEWHERE, SURVIVES = "killed", "elsewhere", "survivor"
BATCH = 12  # submissions prepared per worker at a time
_EDITS = {"code", "swap", "prepend", "append"}
_KEYS = {
    MUTANT: {"name", "about", "cells", "fails", "hint", "with", "files", "notebook", "may"},
    EQUIVALENT: {"name", "about", "cells", "with", "files", "notebook", "insert", "move"},
}


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


@dataclass
class Outcome:
    """The outcome of a trial.

    Attributes:
        trial: the trial.
        failed: keys of the checks that failed.
        misses: deviations from the expected outcome, one sentence each.

    """

    trial: Trial
    failed: list[str]
    misses: list[str]

    @property
    def caught(self) -> list[str]:
        """The failed checks that are about the trial's mistake."""
        return [key for key in self.failed if key in self.trial.fails]

    @property
    def fate(self) -> str:
        """The actual fate of a mutation."""
        return KILLED if self.caught else ELSEWHERE if self.failed else SURVIVES


@dataclass
class Audit:
    """The outcomes of all trials of an assignment.

    Attributes:
        assignment: the name of the assignment.
        checks: every hidden check of the audited notebooks, in order.
        outcomes: the outcomes of the trials, in order.
        graded_with: by notebook, the digest of what graded it.
        made: the number of machine-made variants of each kind and notebook, tried or not.
        stale: lines about rows that explain mutations that do not exist.
        demands: what the notebooks ask for, and in which words.

    """

    assignment: str
    checks: dict[str, list[Check]]
    outcomes: list[Outcome]
    graded_with: dict[str, str] = field(default_factory=dict)
    made: dict[str, dict[str, int]] = field(default_factory=dict)
    stale: list[str] = field(default_factory=list)
    demands: list[Demand] = field(default_factory=list)

    def of(self, kind: str) -> list[Outcome]:
        """The outcomes of one kind of trial."""
        return [outcome for outcome in self.outcomes if outcome.trial.kind == kind]

    def rate(self, *kinds: str) -> tuple[int, int]:
        """How many trials of these kinds had the expected outcome, and how many there were."""
        all_ = [outcome for kind in kinds for outcome in self.of(kind)]
        return sum(not outcome.misses for outcome in all_), len(all_)

    @staticmethod
    def fates(outcomes: list[Outcome]) -> dict[str, int]:
        """The number of mutations with each fate."""
        found = Counter(outcome.fate for outcome in outcomes)
        return {fate: found[fate] for fate in (KILLED, ELSEWHERE, SURVIVES)}

    @property
    def whole(self) -> list[str]:
        """The notebooks of which all possible variants were tried."""
        tried = Counter((o.trial.kind, o.trial.notebook) for o in self.outcomes)
        return [
            name
            for name in self.checks
            if all(tried[kind, name] == count.get(name, 0) for kind, count in self.made.items())
        ]

    @property
    def never_killed(self) -> list[str]:
        """Checks that no mutant fails: nothing shows that they test anything."""
        killed = {key for outcome in self.of(MUTANT) for key in outcome.caught}
        return [c.key for of in self.checks.values() for c in of if c.key not in killed]

    @property
    def misses(self) -> list[str]:
        """One line for each deviation from the expected outcome."""
        lines = [f"{o.trial.title}: {miss}" for o in self.outcomes for miss in o.misses]
        return [*lines, *self.stale, *(f"{key}: no mutant fails it" for key in self.never_killed)]

    def to_json(self) -> dict[str, Any]:
        """The audit as plain data."""
        return {
            "assignment": self.assignment,
            "mutants": self.rate(MUTANT),
            "equivalents": self.rate(EQUIVALENT),
            "seeds": self.rate(SEED),
            "mutations": self.fates(self.of(MUTATION)),
            "rewritings": self.rate(REWRITING),
            "made": self.made,
            "never_killed": self.never_killed,
            "misses": self.misses,
            "trials": [
                {
                    "kind": outcome.trial.kind,
                    "name": outcome.trial.name,
                    "notebook": outcome.trial.notebook,
                    "cell": outcome.trial.cell,
                    "failed": outcome.failed,
                    "misses": outcome.misses,
                }
                for outcome in self.outcomes
            ],
        }


# -- tables ------------------------------------------------------------------------------------


def folder_of(course: Course, assignment: str) -> Path:
    """The folder with an assignment's tables.  Raises UserError when there are none."""
    folder = course.root / "tests" / "validity" / identifier(check_name(assignment))
    if not any(folder.glob("*.toml")):
        raise UserError(
            f"{assignment} has no mutant table: {folder.relative_to(course.root)} holds no .toml; "
            "docs/writing-checks.md says how to write one"
        )
    return folder


class Tables:
    """The tables of an assignment, and the notebooks they are about."""

    def __init__(self, course: Course, assignment: str) -> None:
        self.course, self.assignment = course, assignment
        self.folder = folder_of(course, course.known(assignment))
        self.sources: dict[str, dict[str, str]] = {}  # notebook → solution cell → solution
        self.stubs: dict[str, str] = {}  # solution cell → its source in the release
        self.grade_cells: dict[str, list[str]] = {}  # solution cell → its grade cells
        self.checks: dict[str, list[Check]] = {}
        self.around: dict[str, dict[str, Surroundings]] = {}  # notebook → solution cell → …
        self.before: dict[str, str] = {}  # solution cell → the cell before it, or ""
        # (solution cell, name of a mutation) → its fate, and why
        self.explained: dict[tuple[str, str], tuple[str, str]] = {}
        releases: dict[str, NotebookNode] = {}
        for name in course.notebooks(assignment):
            source = nbformat.read(course.source(assignment) / f"{name}.ipynb", as_version=4)
            release = nbformat.read(course.release(assignment) / f"{name}.ipynb", as_version=4)
            releases[name] = release
            graded = {cell for _, cell in solution_of(release)}
            solutions = written(solved(source))
            self.sources[name] = {k: v for k, v in solutions.items() if k in graded}
            self.stubs |= written(release)
            for check, cell in solution_of(release):
                self.grade_cells.setdefault(cell, []).append(check)
            self.checks[name] = checks_of(assignment, name)
            self.around[name] = surroundings(release, self.sources[name], self._words(name))
            ids = [cell_id for cell in release.cells if (cell_id := grade_id(cell))]
            self.before |= dict(zip(ids, ["", *ids], strict=False))
        self.demands = read_demands(self.folder / TABLE, releases, self.checks)

    def _words(self, notebook: str) -> frozenset[str]:
        """The words in the modules of a notebook's hidden checks."""
        folder = checks_for(self.assignment, notebook).module.parent
        texts = [path.read_text(encoding="utf-8") for path in folder.glob("*.py")]
        return frozenset(re.findall(r"\w+", "\n".join(texts)))

    def trials(self) -> list[Trial]:
        """Every row of the tables, once for each cell it names.

        Raises UserError for a row that names something unknown.
        """
        found: list[Trial] = []
        self.explained = {}
        unfinished: list[dict[str, Any]] = []
        for path in sorted(set(self.folder.glob("*.toml")) - {self.folder / TABLE}):
            try:
                table = tomllib.loads(path.read_text(encoding="utf-8"))
            except tomllib.TOMLDecodeError as error:
                raise UserError(f"{path.name} is not TOML: {error}") from error
            for kind in (MUTANT, EQUIVALENT):
                for row in table.pop(kind, []):
                    where = f"{path.name}, {kind} {row.get('name', '?')!r}"
                    found += self._row(kind, row, where)
            unfinished += table.pop("unfinished", [])
            for row in table.pop("seeds", []):
                found += self._seeds(row, f"{path.name}, seeds of {row.get('cell')}")
            for fate in (SURVIVES, ELSEWHERE):
                for row in table.pop(fate, []):
                    self._explain(fate, row, path.name)
            if table:
                raise UserError(f"{path.name}: there is no table {', '.join(table)}")
        for row in unfinished:
            found = [self._leave(trial, row) for trial in found]
        known = set()
        for trial in found:
            if (trial.kind, trial.notebook, trial.title) in known:
                raise UserError(f"two trials are called {trial.title}")
            known.add((trial.kind, trial.notebook, trial.title))
        return found

    def variants(self) -> list[Trial]:
        """Every mutation and every rewriting of every graded solution cell.

        Call `trials` first, since it reads the explanations in the tables.
        """
        found: list[Trial] = []
        for notebook, solutions in self.sources.items():
            for cell, source in solutions.items():
                around = self.around[notebook][cell]
                own = self._keys(notebook, self.grade_cells[cell], "all", cell)
                for variant in mutants(source, around):
                    fate, why = self.explained.get((cell, variant.name), (KILLED, ""))
                    found.append(
                        Trial(
                            MUTATION,
                            variant.name,
                            why,
                            notebook,
                            cell,
                            {cell: variant.source},
                            fails=own,
                            fate=fate,
                        )
                    )
                found += [
                    Trial(REWRITING, v.name, "", notebook, cell, {cell: v.source})
                    for v in rewritings(source, around)
                ]
                for name, place in (("before", self.before[cell]), ("after", cell)):
                    insert = ((place, OWN_CELL),)
                    name = f"an own cell {name}"
                    found.append(Trial(REWRITING, name, "", notebook, cell, insert=insert))
        return found

    def unknown(self, variants: Iterable[Trial]) -> list[str]:
        """One line for each explanation of a mutation that does not exist."""
        there = {(trial.cell, trial.name) for trial in variants if trial.kind == MUTATION}
        return [
            f"{cell}: the tables explain a mutation that there is not, {name!r}"
            for cell, name in self.explained
            if (cell, name) not in there
        ]

    def _explain(self, fate: str, row: dict[str, Any], where: str) -> None:
        if set(row) != {"cells", "changes", "reason"}:
            raise UserError(f"{where}: a row of [[{fate}]] has cells, changes and reason")
        for cell in row["cells"]:
            for change in row["changes"]:
                if (cell, change) in self.explained:
                    raise UserError(f"{where}: {change!r} in {cell} is explained twice")
                self.explained[cell, change] = fate, row["reason"]

    def _row(self, kind: str, row: dict[str, Any], where: str) -> Iterator[Trial]:
        unknown = set(row) - _KEYS[kind] - _EDITS
        if unknown or "name" not in row:
            raise UserError(f"{where}: {', '.join(sorted(unknown)) or 'name'}?")
        for cell in row.get("cells", [""]):
            notebook = self._notebook_of(cell, where) if cell else str(row.get("notebook"))
            if notebook not in self.sources:
                raise UserError(f"{where}: there is no notebook {notebook}")
            edits = (
                [{"cell": cell, **{k: v for k, v in row.items() if k in _EDITS}}] if cell else []
            )
            sources: dict[str, str] = {}
            for edit in [*edits, *row.get("with", [])]:
                name = edit["cell"]
                before = sources.get(name, self._solution(notebook, name, where))
                sources[name] = self._edited(before, edit, where)
            fails = row.get("fails", [])
            own = self.grade_cells[cell] if cell else []
            yield Trial(
                kind,
                row["name"],
                row.get("about", ""),
                notebook,
                cell,
                sources,
                tuple((after, code) for after, code in row.get("insert", [])),
                tuple((moved, after) for moved, after in row.get("move", [])),
                row.get("files", ""),
                self._keys(notebook, own, fails, where),
                self._may(notebook, own, row.get("may", []), where),
                row.get("hint", ""),
            )

    def _leave(self, trial: Trial, row: dict[str, Any]) -> Trial:
        """The trial with the cells that a row of `[[unfinished]]` leaves as released."""
        if trial.kind != MUTANT or trial.cell not in row["cells"] or trial.name in row["except"]:
            return trial
        left = tuple(row["left"])
        own = {check for cell in left for check in self.grade_cells[cell]}
        keys = {check.key for check in self.checks[trial.notebook] if check.cell in own}
        return replace(
            trial,
            sources={**trial.sources, **{cell: self.stubs[cell] for cell in left}},
            may=trial.may | keys,
            left=left,
        )

    def _edited(self, source: str, edit: dict[str, Any], where: str) -> str:
        """A solution after the edit of a row."""
        if edit.get("code") == "stub":
            source = self.stubs[edit["cell"]]
        elif "code" in edit:
            source = edit["code"]
        for old, new in edit.get("swap", []):
            if old not in source:
                raise UserError(f"{where}: the solution of {edit['cell']} holds no {old!r}")
            source = source.replace(old, new)
        parts = [edit.get("prepend", ""), source, edit.get("append", "")]
        return "\n".join(part.rstrip("\n") for part in parts if part)

    def _seeds(self, row: dict[str, Any], where: str) -> Iterator[Trial]:
        if set(row) != {"cell", "count", "code"}:
            raise UserError(f"{where}: a row has cell, count and code")
        notebook = self._notebook_of(row["cell"], where)
        solution = self._solution(notebook, row["cell"], where)
        for seed in range(row["count"]):
            source = f"{row['code'].format(seed=seed)}\n{solution}"
            yield Trial(SEED, f"seed {seed}", "", notebook, "", {row["cell"]: source})

    def _notebook_of(self, cell: str, where: str) -> str:
        for name, solutions in self.sources.items():
            if cell in solutions:
                return name
        raise UserError(f"{where}: there is no graded solution cell {cell}")

    def _solution(self, notebook: str, cell: str, where: str) -> str:
        if cell not in self.sources[notebook]:
            raise UserError(f"{where}: {notebook} has no graded solution cell {cell}")
        return self.sources[notebook][cell]

    def _keys(self, notebook: str, own: list[str], names: Any, where: str) -> frozenset[str]:
        """Keys of checks: `test_x` is one of the row's own cell, `cell::test_x` any."""
        mine = [check for check in self.checks[notebook] if check.cell in own]
        if names == "all":
            return frozenset(check.key for check in mine)
        keys = set()
        for name in names:
            of = self.checks[notebook] if "::" in name else mine
            found = [check.key for check in of if name in (check.key, check.id)]
            if len(found) != 1:
                raise UserError(f"{where}: there is no check {name}, or more than one")
            keys.add(found[0])
        return frozenset(keys)

    def _may(self, notebook: str, own: list[str], names: list[str], where: str) -> frozenset[str]:
        """Like `_keys`, but skips checks of the other notebooks that a row is about."""
        others = {c.key for name, found in self.checks.items() if name != notebook for c in found}
        return self._keys(notebook, own, [name for name in names if name not in others], where)

    def graded_with(self, notebooks: list[str]) -> dict[str, str]:
        """By notebook, the digest of its checks, the engine, the packages, and its own code."""
        found = {}
        for name in notebooks:
            folders = (self.course.release(self.assignment), self.course.source(self.assignment))
            job = Job(self.assignment, name, self.course.root, *folders, b"")
            digest = sha256(versions(job).encode())
            for folder in folders:
                notebook = nbformat.read(folder / f"{name}.ipynb", as_version=4)
                for cell in notebook.cells:  # no grade depends on plain text cells
                    if cell.cell_type == "code" or mark(cell):
                        kept = (cell.cell_type, cell.source, sorted(mark(cell).items()))
                        digest.update(repr(kept).encode())
                for path in sorted(folder.iterdir()):
                    if path.is_file() and path.suffix != ".ipynb":
                        digest.update(path.name.encode() + path.read_bytes())
            found[name] = digest.hexdigest()[:16]
        return found

    def files(self) -> ModuleType | None:
        """The module `files.py` beside the tables, if there is one."""
        path = self.folder / "files.py"
        if not path.is_file():
            return None
        spec = importlib.util.spec_from_file_location(f"validity_{self.folder.name}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


def surroundings(
    release: NotebookNode, solutions: Iterable[str], words: frozenset[str]
) -> dict[str, Surroundings]:
    """The surroundings of each of the cells `solutions` of a notebook.

    words: words that count as used elsewhere, besides those of the notebook's cells.
    """
    modules: dict[str, str] = {}
    for cell in release.cells:
        if cell.cell_type == "code":
            with contextlib.suppress(SyntaxError):
                for node in ast.walk(ast.parse(cell.source)):
                    if isinstance(node, ast.Import):
                        modules |= {a.asname: a.name for a in node.names if a.asname}
                        modules |= {a.name: a.name for a in node.names if "." not in a.name}
    said = {cell.id: frozenset(re.findall(r"\w+", cell.source)) for cell in release.cells}
    return {
        name: Surroundings(modules, words.union(*said.values()))
        for cell in release.cells
        if (name := grade_id(cell)) and name in solutions
    }


def sample(variants: list[Trial]) -> list[Trial]:
    """As many variants of each kind as `SAMPLE` says, evenly from all cells; always the same ones.

    The sample of a cell hardly changes when other variants are added.
    """

    def lot(trial: Trial) -> bytes:
        return sha256(f"{SAMPLE_SEED}\0{trial.cell}\0{trial.name}".encode()).digest()

    drawn: set[int] = set()
    for kind, count in SAMPLE.items():
        places: Counter[str] = Counter()
        turns = []
        for trial in sorted((t for t in variants if t.kind == kind), key=lot):
            places[trial.cell] += 1
            turns.append((places[trial.cell], lot(trial), id(trial)))
        drawn |= {number for _, _, number in sorted(turns)[:count]}
    return [trial for trial in variants if id(trial) in drawn]


class _Collected:
    """A pytest plugin that collects the checks of a module."""

    def __init__(self) -> None:
        self.checks: list[Check] = []

    def pytest_configure(self, config: pytest.Config) -> None:
        config.addinivalue_line("markers", "grade_cell(id): the grade cell of a class of checks")
        config.addinivalue_line("markers", "check(title, hint, weight): a hidden check")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            cell, check = (item.get_closest_marker(name) for name in ("grade_cell", "check"))
            if cell is not None and check is not None:
                self.checks.append(Check(cell.args[0], item.name, check.kwargs["title"]))


def checks_of(assignment: str, notebook: str) -> list[Check]:
    """The hidden checks of a notebook, in the order of their module."""
    module = checks_for(assignment, notebook).module
    plugin = _Collected()
    arguments = [
        str(module),
        "--collect-only",
        f"--rootdir={module.parent}",
        "-c/dev/null",
        "--import-mode=importlib",
        "-pno:cacheprovider",
        "-q",
    ]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        pytest.main(arguments, plugins=[plugin])
    return plugin.checks


# -- submissions -------------------------------------------------------------------------------


class Desk:
    """Prepares the submissions of one notebook's trials, a few at a time."""

    def __init__(self, tables: Tables, notebook: str, files: Path | None, folder: Path) -> None:
        self.tables, self.notebook, self.files = tables, notebook, files
        self.variants: Mapping[str, Callable[[Path], None]] = getattr(
            tables.files(), "VARIANTS", {}
        )
        self.folder = folder
        course, assignment = tables.course, tables.assignment
        self.release = course.release(assignment)
        source = course.source(assignment) / f"{notebook}.ipynb"
        self.solved = solved(nbformat.read(source, as_version=4))

    def lay(self, trial: Trial, place: int) -> Path:
        """Put a trial's submission at place number `place`; returns its folder."""
        target = self.folder / (f"variant-{place}" if trial.files else f"{place}")
        if trial.files and target.exists():
            shutil.rmtree(target)
        if not target.exists():
            target.mkdir()
            self._put_files(target)
        if trial.files:
            if trial.files not in self.variants:
                raise UserError(f"{trial.title}: files.py knows no variant {trial.files!r}")
            self.variants[trial.files](target)
        nbformat.write(self._notebook(trial), target / f"{self.notebook}.ipynb")
        return target

    def _put_files(self, target: Path) -> None:
        for path in self.release.iterdir():
            if path.is_file() and path.suffix != ".ipynb":
                shutil.copyfile(path, target / path.name)
        setup = checks_for(self.tables.assignment, self.notebook).setup
        for path in self.files.iterdir() if self.files is not None else ():
            wanted = any(fnmatch.fnmatch(path.name, p) for p in (*setup.files, *setup.read))
            if wanted and path.suffix not in (".ipynb", ".py"):
                shutil.copyfile(path, target / path.name)

    def _notebook(self, trial: Trial) -> NotebookNode:
        notebook = copy.deepcopy(self.solved)
        for cell in notebook.cells:
            cell.source = trial.sources.get(str(grade_id(cell)), cell.source)

        def place_of(name: str) -> int:
            for index, cell in enumerate(notebook.cells):
                if grade_id(cell) == name:
                    return index
            raise UserError(f"{trial.title}: {self.notebook} has no cell {name}")

        for after, code in trial.insert:
            own = nbformat.v4.new_code_cell(code, id=f"own-{len(notebook.cells)}")
            notebook.cells.insert(place_of(after) + 1 if after else 0, own)
        for moved, after in trial.move:
            cell = notebook.cells.pop(place_of(moved))
            notebook.cells.insert(place_of(after) + 1, cell)
        return notebook


# -- the audit ---------------------------------------------------------------------------------


def audit(
    tables: Tables,
    notebooks: list[str],
    engine: Engine,
    jobs: int,
    console: Console,
    whole: Collection[str] = (),
) -> Audit:
    """Grade every trial of `notebooks` and judge its outcome; shows a progress bar on `console`.

    whole: notebooks of which all variants are tried rather than a sample.
    """
    trials, made, stale = _chosen(tables, notebooks, whole)
    module = tables.files()
    files = module.files(tables.course, console) if module is not None else None
    outcomes: list[Outcome] = []
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        for notebook in notebooks:
            mine = [trial for trial in trials if trial.notebook == notebook]
            task = bar.add_task(notebook, total=len(mine))
            with tempfile.TemporaryDirectory(prefix="kit-audit-") as folder:
                desk = Desk(tables, notebook, files, Path(folder))
                size = BATCH * jobs
                for start in range(0, len(mine), size):
                    for outcome in _batch(desk, mine[start : start + size], engine):
                        outcomes.append(outcome)
                        bar.advance(task)
    order = {id(trial): number for number, trial in enumerate(trials)}
    outcomes.sort(key=lambda outcome: order[id(outcome.trial)])
    return _summed_up(tables, notebooks, outcomes, made, stale)


def _chosen(
    tables: Tables, notebooks: list[str], whole: Collection[str]
) -> tuple[list[Trial], dict[str, dict[str, int]], list[str]]:
    """The trials of some notebooks, their numbers of variants, and explanations of no variant."""
    trials, variants = tables.trials(), tables.variants()
    drawn = {id(trial) for trial in sample(variants)}
    trials += [t for t in variants if t.notebook in whole or id(t) in drawn]
    mine = Counter((trial.kind, trial.notebook) for trial in variants)
    made = {kind: {name: mine[kind, name] for name in notebooks} for kind in SAMPLE}
    chosen = [trial for trial in trials if trial.notebook in notebooks]
    return chosen, made, tables.unknown(variants)


def _summed_up(
    tables: Tables,
    notebooks: list[str],
    outcomes: list[Outcome],
    made: dict[str, dict[str, int]],
    stale: list[str],
) -> Audit:
    """The audit of some notebooks, including what the tables say about them."""
    checks = {name: tables.checks[name] for name in notebooks}
    demands = [demand for demand in tables.demands if demand.notebook in notebooks]
    graded_with = tables.graded_with(notebooks)
    return Audit(tables.assignment, checks, outcomes, graded_with, made, stale, demands)


def _batch(desk: Desk, trials: list[Trial], engine: Engine) -> Iterator[Outcome]:
    tables = desk.tables
    work: dict[Job, Trial] = {}
    for place, trial in enumerate(trials):
        job = Job(
            tables.assignment,
            desk.notebook,
            desk.lay(trial, place),
            desk.release,
            tables.course.source(tables.assignment),
            tables.course.secret(),
        )
        work[job] = trial
    for job, graded in engine.grade(work):
        yield judge(work[job], graded.result)


def judge(trial: Trial, result: NotebookResult) -> Outcome:
    """Compare a notebook's result with the outcome its trial expects."""
    checks = [(f"{cell.cell}::{check.id}", check) for cell in result.cells for check in cell.checks]
    failed = [key for key, check in checks if not check.passed]
    if result.status not in ("graded", "unchanged"):
        return Outcome(trial, failed, [f"was not graded: {result.reason}"])
    if trial.kind == MUTATION:
        return _judge_mutation(Outcome(trial, failed, []))
    misses = [f"{key} passes" for key in sorted(trial.fails - set(failed))]
    unwanted = [key for key in failed if key not in trial.fails | trial.may]
    misses += [f"{key} fails ({dict(checks)[key].hint})" for key in unwanted]
    hint = next((check.hint for _, check in checks if not check.passed), "")
    if trial.hint and not re.search(trial.hint, hint):
        misses.append(f"the first hint is {hint!r}, which does not say {trial.hint!r}")
    return Outcome(trial, failed, misses)


def _judge_mutation(outcome: Outcome) -> Outcome:
    wanted, found = outcome.trial.fate, outcome.fate
    told = {
        KILLED: "loses marks in its own cell",
        ELSEWHERE: f"loses marks, but only elsewhere ({', '.join(outcome.failed)})",
        SURVIVES: "keeps full marks",
    }
    if found != wanted:
        known = "no table explains that" if wanted == KILLED else f"is explained as [[{wanted}]]"
        outcome.misses.append(f"{told[found]}; {known}")
    return outcome


# -- the report --------------------------------------------------------------------------------


def expected(tables: Tables, notebooks: list[str], whole: Collection[str] = ()) -> Audit:
    """The audit of these notebooks in which every trial has its expected outcome."""
    outcomes = []
    trials, made, stale = _chosen(tables, notebooks, whole)
    for trial in trials:
        order = [check.key for check in tables.checks[trial.notebook]]
        wrong = [key for key in order if (key in trial.fails) == (trial.fate == KILLED)]
        failed = wrong if trial.fate != SURVIVES else []
        if trial.kind != MUTATION:
            failed = sorted(trial.fails, key=order.index)
        outcomes.append(Outcome(trial, failed, []))
    return _summed_up(tables, notebooks, outcomes, made, stale)


def percent(rate: tuple[int, int]) -> str:
    """A rate in words: `412 of 412 (100 %)`."""
    good, all_ = rate
    return f"{good} of {all_} ({100 * good / all_:.4g} %)" if all_ else "none"


def percent_of(fates: Mapping[str, int], fate: str) -> str:
    """The share of mutations with one fate, in words."""
    return percent((fates[fate], sum(fates.values())))


def figures(audit: Audit) -> list[tuple[str, str]]:
    """The figures that sum up an audit."""
    checks = sum(map(len, audit.checks.values()))
    mutations = audit.of(MUTATION)
    fates = audit.fates(mutations)
    return [
        (
            "Wrong solutions thought of by hand, caught by just the checks that concern them",
            percent(audit.rate(MUTANT)),
        ),
        (
            "Wrong solutions made by machine, marked down in their own cell",
            percent((fates[KILLED], len(mutations))),
        ),
        (
            "Wrong solutions made by machine, marked down only in another cell",
            percent_of(fates, ELSEWHERE),
        ),
        ("Wrong solutions made by machine, full marks", percent_of(fates, SURVIVES)),
        (
            "Right solutions written differently by hand, full marks",
            percent(audit.rate(EQUIVALENT)),
        ),
        ("Right solutions rewritten by machine, full marks", percent(audit.rate(REWRITING))),
        ("The solution under random seeds, full marks", percent(audit.rate(SEED))),
        (
            "Right work that keeps its marks, together",
            percent(audit.rate(EQUIVALENT, REWRITING, SEED)),
        ),
        (
            "Checks that at least one wrong solution fails",
            percent((checks - len(audit.never_killed), checks)),
        ),
    ]


def report(audit: Audit) -> str:
    """The whole matrix, as Markdown."""
    some = len(audit.whole) < len(audit.checks)
    all_of = "".join(f" --all-of {name}" for name in audit.whole) if some else ""
    lines = [
        f"# How right the grades of {audit.assignment} are",
        "",
        f"Made by `autograder audit {audit.assignment}{all_of} --report docs/validity.md`;",
        "edit the tables in `tests/validity/`, not this.",
        "",
        "A *mutant* is a solution with one mistake. It must fail just the checks that are about",
        "this mistake: everything else in the notebook is right and keeps its points. An",
        "*equivalent* is a right solution written differently, and a *seed* is the solution with",
        "other random numbers; both must get full marks. ✗ marks a check that must fail and does;",
        "what the tables leave open is not marked. *Graded with* is the digest of the checks, the",
        "engine, the packages beneath and the notebook: when one changes, this is out of date.",
        "Wrong and right solutions made by machine are counted [at the end](#made-by-machine).",
        "",
        "| | |",
        "|---|--:|",
        *(f"| {name} | {value} |" for name, value in figures(audit)),
    ]
    for notebook, checks in audit.checks.items():
        lines += ["", f"## {notebook}", ""]
        outcomes = [o for o in audit.of(MUTANT) if o.trial.notebook == notebook]
        for cell in dict.fromkeys(o.trial.cell for o in outcomes):
            lines += _matrix(cell, [o for o in outcomes if o.trial.cell == cell], checks)
        seeds = sum(o.trial.notebook == notebook for o in audit.of(SEED))
        others = [o.trial for o in audit.of(EQUIVALENT) if o.trial.notebook == notebook]
        lines += [f"**Equivalents**, {len(others)}, and {seeds} seeds:", ""]
        lines += [f"- {t.title}{f': {t.about}' if t.about else ''}" for t in others]
        if notebook in audit.graded_with:
            lines += ["", f"Graded with `{audit.graded_with[notebook]}`."]
    lines += demand_tables(audit.demands)
    lines += _made_by_machine(audit)
    return "\n".join(lines) + "\n"


def _made_by_machine(audit: Audit) -> list[str]:
    """The fates of mutations and rewritings by cell and by operator, and the explained ones."""
    mutations, rewritten = audit.of(MUTATION), audit.of(REWRITING)
    counts = [f"{sum(audit.made.get(kind, {}).values())} {kind}s" for kind in (MUTATION, REWRITING)]
    drawn = f"drawn from all cells with the seed {SAMPLE_SEED}"
    if len(audit.whole) == len(audit.checks):
        tried = "every one was tried"
    elif audit.whole:
        rest = [o for o in [*mutations, *rewritten] if o.trial.notebook not in audit.whole]
        kinds = Counter(o.trial.kind for o in rest)
        tried = (
            f"every one of {', '.join(f'`{name}`' for name in audit.whole)} was tried, and of the "
            f"others {kinds[MUTATION]} and {kinds[REWRITING]}, {drawn}"
        )
    else:
        tried = f"{len(mutations)} and {len(rewritten)} of them were tried, {drawn}"
    lines = [
        "",
        "## Made by machine",
        "",
        f"The solution cells have {' and '.join(counts)};",
        f"{tried}.",
        "A mutation must fail a check of its own cell; a rewriting none at all.",
        "",
        "| cell | mutations | fail in it | only elsewhere | nowhere | rewritings | full marks |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    cells = dict.fromkeys(o.trial.cell for o in [*mutations, *rewritten])
    for cell in cells:
        of = [o for o in mutations if o.trial.cell == cell]
        right = [o for o in rewritten if o.trial.cell == cell]
        row = [len(of), *audit.fates(of).values(), len(right), sum(not o.misses for o in right)]
        lines.append(f"| {cell} | {' | '.join(map(str, row))} |")
    lines += ["", "| operator | tried | fail | only elsewhere | nowhere |", "|---|--:|--:|--:|--:|"]
    for operator in dict.fromkeys(_operator(o) for o in mutations):
        of = [o for o in mutations if _operator(o) == operator]
        row = [len(of), *audit.fates(of).values()]
        lines.append(f"| {operator} | {' | '.join(map(str, row))} |")
    lines += ["", "| rewriting | tried | full marks |", "|---|--:|--:|"]
    for operator in dict.fromkeys(_operator(o) for o in rewritten):
        of = [o for o in rewritten if _operator(o) == operator]
        lines.append(f"| {operator} | {len(of)} | {sum(not o.misses for o in of)} |")
    for fate, heading in ((SURVIVES, "Survivors"), (ELSEWHERE, "Marked down only elsewhere")):
        explained = [o.trial for o in mutations if o.fate == fate]
        lines += ["", f"### {heading}"]
        for why in dict.fromkeys(trial.about for trial in explained):
            lines += ["", f"{why[:1].upper()}{why[1:]}:", ""]
            lines += [f"- {t.cell}: `{t.name}`" for t in explained if t.about == why]
        lines += [] if explained else ["", "None."]
    return lines


def _operator(outcome: Outcome) -> str:
    return outcome.trial.name.partition(":")[0]


def _matrix(cell: str, outcomes: list[Outcome], checks: list[Check]) -> list[str]:
    """Checks × mutants of one cell, then the names of the mutants."""
    rows = [c for c in checks if any(c.key in outcome.caught for outcome in outcomes)]
    numbers = range(1, len(outcomes) + 1)
    lines = [
        f"### {cell or 'Files handed in'}",
        "",
        f"| check | {' | '.join(map(str, numbers))} |",
        f"|---|{'---|' * len(outcomes)}",
    ]
    for check in rows:
        marks = ("✗" if check.key in outcome.caught else " " for outcome in outcomes)
        lines.append(f"| {check.title} | {' | '.join(marks)} |")
    lines.append("")
    for number, outcome in zip(numbers, outcomes, strict=True):
        about = outcome.trial.about
        lines.append(f"{number}. {outcome.trial.name}{f': {about}' if about else ''}")
    return [*lines, ""]


def show(audit: Audit, console: Console) -> None:
    """Print the matrix, the figures and every miss."""
    for notebook, checks in audit.checks.items():
        outcomes = [o for o in audit.of(MUTANT) if o.trial.notebook == notebook]
        for cell in dict.fromkeys(o.trial.cell for o in outcomes):
            of = [o for o in outcomes if o.trial.cell == cell]
            console.print(f"{cell or notebook}: {len(of)} mutants", style="bold")
            for check in checks:
                marks = "".join("✗" if check.key in o.failed else "·" for o in of)
                if "✗" in marks:
                    console.print(f"  {marks}  {check.title}", soft_wrap=True)
    for name, value in figures(audit):
        console.print(f"{name}: {value}", soft_wrap=True)
    for miss in audit.misses:
        console.print(f"✗ {miss}", soft_wrap=True, markup=False)
