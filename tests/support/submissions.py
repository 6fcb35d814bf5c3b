"""Course roots for the end-to-end tests, and the submissions in them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
from nbformat import NotebookNode
from nbgrader.api import Gradebook

from autograder.engine.files import read_regular
from autograder.engine.notebook import grade_id, is_autograded, is_solution, solved
from autograder.engine.reading import SIZE_LIMIT, notebook_of
from autograder.kernel.notebook import answer

ROOT = Path(__file__).parents[2]
ASSIGNMENT = "ch4-cnn"
NOTEBOOKS = sorted(path.stem for path in (ROOT / "source" / ASSIGNMENT).glob("*.ipynb"))
PREFIX = "mdc_session-4000"  # of the submitted checkpoint
# Number of solution cells that the student "half" has written in each notebook.
HALF = dict(zip(NOTEBOOKS, (7, 3, 2, 4, 3), strict=True))


def source(name: str) -> NotebookNode:
    """An instructor's notebook."""
    return nbformat.read(ROOT / "source" / ASSIGNMENT / f"{name}.ipynb", as_version=4)


def solution_cells(name: str) -> list[str]:
    """The ids of a notebook's solution cells, in order."""
    return [str(grade_id(cell)) for cell in source(name).cells if is_solution(cell)]


def expected_points(name: str, done: Collection[str]) -> dict[str, float]:
    """Points per grade cell if exactly the solution cells in `done` are right."""
    points: dict[str, float] = {}
    before = None
    for cell in source(name).cells:
        if is_solution(cell):
            before = grade_id(cell)
        elif is_autograded(cell):
            points[str(grade_id(cell))] = cell.metadata.nbgrader.points * (before in done)
    return points


def max_points(name: str) -> dict[str, float]:
    """Points per grade cell of a perfect notebook."""
    return expected_points(name, solution_cells(name))


@dataclass(frozen=True)
class CourseCopy:
    """A separate course root with source, release and configuration, and nothing graded yet."""

    root: Path

    @classmethod
    def make(cls, root: Path) -> CourseCopy:
        """A fresh course in `root`."""
        for folder in ("source", "release"):
            shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__*"))
        shutil.copy(ROOT / "nbgrader_config.py", root)
        return cls(root)

    def keep_first_notebook(self) -> None:
        """Remove the other notebooks, and update the gradebook."""
        for name in NOTEBOOKS[1:]:
            for folder in ("source", "release"):
                (self.root / folder / ASSIGNMENT / f"{name}.ipynb").unlink()
        self.succeed("nbgrader", "generate_assignment", ASSIGNMENT, "--force")

    def take_secret_and_submissions(self, other: CourseCopy) -> None:
        """Copy another course's secret and submissions, with nothing graded yet."""
        (self.root / ".autograder").mkdir(mode=0o700)
        shutil.copy(other.root / ".autograder" / "secret", self.root / ".autograder")
        shutil.copytree(other.root / "submitted", self.root / "submitted")

    # --- handing in ---

    def submission(self, student: str) -> Path:
        """The folder of a student's submission."""
        return self.root / "submitted" / student / ASSIGNMENT

    def untouched(self, student: str) -> Path:
        """Hand in the release as it is."""
        return self._submit(student, {})

    def complete(self, student: str, executed: Path) -> Path:
        """Hand in all solutions, and the checkpoint in `executed`."""
        folder = self.solved(student, *NOTEBOOKS)
        for path in (executed / "checkpoint", *executed.glob("mdc_session-4000.*")):
            shutil.copy(path, folder)
        return folder

    def half(self, student: str) -> Path:
        """Hand in the first solution cells of each notebook, and no checkpoint."""
        return self._submit(student, {n: solution_cells(n)[:count] for n, count in HALF.items()})

    def solved(self, student: str, *names: str) -> Path:
        """Hand in these notebooks solved, the others as released, and no checkpoint."""
        return self._submit(student, {name: solution_cells(name) for name in names})

    def _submit(self, student: str, done: Mapping[str, Collection[str]]) -> Path:
        folder = self.submission(student)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.root / "release" / ASSIGNMENT, folder)
        for name, cells in done.items():
            written = {grade_id(cell): cell.source for cell in solved(source(name)).cells}
            replace_cells(folder / f"{name}.ipynb", {cell: written[cell] for cell in cells})
        return folder

    # --- grading ---

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the course root, with additional environment variables."""
        return subprocess.run(
            command,
            cwd=self.root,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=900,
        )

    def succeed(self, *command: str, **environment: str) -> None:
        """Run a command in the course root, and assert that it exits with 0."""
        done = self.run(*command, **environment)
        assert done.returncode == 0, done.stderr

    def results(self, student: str) -> dict[str, Any]:
        """A student's results.json."""
        path = self.root / "autograded" / student / ASSIGNMENT / "results.json"
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return found

    def notebook(self, student: str, name: str) -> dict[str, Any]:
        """One notebook's entry in a student's results.json."""
        return next(n for n in self.results(student)["notebooks"] if n["name"] == name)

    def points(self, student: str) -> dict[str, dict[str, float]]:
        """Notebook → grade cell → points, from a student's results.json."""
        return {
            notebook["name"]: {cell["cell"]: cell["points"] for cell in notebook["cells"]}
            for notebook in self.results(student)["notebooks"]
        }

    def recorded(self) -> dict[str, dict[str, dict[str, float]]]:
        """Student → notebook → grade cell → automatic score, from the gradebook."""
        with Gradebook(f"sqlite:///{self.root / 'gradebook.db'}") as gradebook:
            return {
                submission.student.id: {
                    notebook.name: {
                        grade.name: grade.auto_score
                        for grade in notebook.grades
                        if grade.cell.cell_type == "code"
                    }
                    for notebook in submission.notebooks
                }
                for submission in gradebook.find_assignment(ASSIGNMENT).submissions
            }


def read_here(folder: Path, name: str) -> NotebookNode:
    """A submitted notebook as the engine reads it, but parsed in this process."""
    data = np.frombuffer(read_regular(folder, f"{name}.ipynb", SIZE_LIMIT), np.uint8)
    return notebook_of(answer({"op": "notebook", "data": data}), name)


def replace_cells(path: Path, sources: Mapping[str, str]) -> None:
    """Replace the source of the cells with these ids in the notebook at `path`."""
    notebook = nbformat.read(path, as_version=4)
    cells = {grade_id(cell): cell for cell in notebook.cells}
    for name, text in sources.items():
        cells[name].source = text
    nbformat.write(notebook, path)
