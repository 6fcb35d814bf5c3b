"""The tables of an assignment, and the trials that follow from them."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import io
import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode

from autograder.audit.demands import TABLE, read_demands
from autograder.audit.operators.code import Surroundings
from autograder.audit.operators.mutation import mutants
from autograder.audit.operators.rewriting import OWN_CELL, rewritings
from autograder.audit.trials import (
    ELSEWHERE,
    EQUIVALENT,
    KILLED,
    MUTANT,
    MUTATION,
    REWRITING,
    SEED,
    SURVIVES,
    Check,
    Trial,
)
from autograder.course import Course, check_name, checks_for, identifier
from autograder.engine.grade import Job, versions
from autograder.engine.notebook import grade_id, mark, solution_of, solved, written
from autograder.errors import UserError

_EDITS = {"code", "swap", "prepend", "append"}
_KEYS = {
    MUTANT: {"name", "about", "cells", "fails", "hint", "with", "files", "notebook", "may"},
    EQUIVALENT: {"name", "about", "cells", "with", "files", "notebook", "insert", "move"},
}


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
                sources[name] = self._edit(before, edit, where)
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

    def _edit(self, source: str, edit: dict[str, Any], where: str) -> str:
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
