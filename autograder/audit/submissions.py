"""The folders that trials hand in."""

from __future__ import annotations

import copy
import fnmatch
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from autograder.audit.tables import Tables
from autograder.audit.trials import Trial
from autograder.course import checks_for
from autograder.engine.notebook import grade_id, solved
from autograder.errors import UserError


class SubmissionWriter:
    """Writes the submissions of one notebook's trials, a few at a time."""

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

    def write(self, trial: Trial, place: int) -> Path:
        """Write a trial's submission to folder number `place`, and return that folder."""
        target = self.folder / (f"variant-{place}" if trial.files else f"{place}")
        if trial.files and target.exists():
            shutil.rmtree(target)
        if not target.exists():
            target.mkdir()
            self._write_files(target)
        if trial.files:
            if trial.files not in self.variants:
                raise UserError(f"{trial.title}: files.py knows no variant {trial.files!r}")
            self.variants[trial.files](target)
        nbformat.write(self._notebook(trial), target / f"{self.notebook}.ipynb")
        return target

    def _write_files(self, target: Path) -> None:
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
