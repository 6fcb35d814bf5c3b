"""Classes that `nbgrader_config.py` sets, so that the engine reads, releases and grades notebooks.

nbgrader's commands work as before.  `nbgrader autograde` grades a submission when it comes to it
(`autograde`), then converts each of its notebooks: `GradedExporter` exports what the engine made of
it, and `SaveGrades` saves the points.  nbgrader's process runs no student code and parses no
submitted file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import nbformat
from nbconvert.exporters import NotebookExporter
from nbformat import NotebookNode
from nbgrader import utils
from nbgrader.api import Comment, Grade, Gradebook
from nbgrader.preprocessors import ClearSolutions, NbGraderPreprocessor
from sqlalchemy.orm import joinedload

from autograder.course import Course, write_whole
from autograder.engine.grade import Graded
from autograder.engine.notebook import grade_id, is_autograded, is_solution, label
from autograder.engine.pool import Engine
from autograder.engine.results import SubmissionResult
from autograder.record.copies import note_tensors
from autograder.record.outputs import grade_cell_outputs, harmless

GRADED = "graded"  # the resource in which nbgrader hands `Graded` to these classes


class LabelledStubs(ClearSolutions):  # type: ignore[misc]
    """Replaces a solution with a line that names the unfinished cell."""

    def preprocess_cell(
        self, cell: NotebookNode, resources: dict[str, Any], index: int
    ) -> tuple[NotebookNode, dict[str, Any]]:
        """Put the cell's label into the stub, then clear the solution."""
        if is_solution(cell) and cell.cell_type == "code":
            message = f"TODO [{label(str(grade_id(cell)))}]: not done yet"
            self.code_stub = {"python": f'raise NotImplementedError("{message}")'}
        cleared: tuple[NotebookNode, dict[str, Any]] = super().preprocess_cell(
            cell, resources, index
        )
        return cleared


class GradedExporter(NotebookExporter):  # type: ignore[misc]
    """Exports the graded notebook in place of the submitted one, which only the engine reads."""

    def from_filename(
        self, filename: str, resources: dict[str, Any] | None = None, **kw: Any
    ) -> tuple[str, dict[str, Any]]:
        """Export the notebook that grading made of the submitted file `filename`."""
        assert resources is not None
        return self.from_notebook_node(  # type: ignore[no-any-return]
            fill_in(resources.pop(GRADED)), resources, **kw
        )


class SaveGrades(NbGraderPreprocessor):  # type: ignore[misc]
    """Saves the points of a graded notebook, as nbgrader's `SaveAutoGrades` does.

    That one asks the gradebook twice for each cell; this one asks twice for each notebook.
    """

    def preprocess(
        self, nb: NotebookNode, resources: dict[str, Any]
    ) -> tuple[NotebookNode, dict[str, Any]]:
        """Save each grade cell's points, and which solution cells hold no answer."""
        where = resources["nbgrader"]
        with Gradebook(where["db_url"]) as gradebook:
            found = gradebook.find_submission_notebook(
                where["notebook"], where["assignment"], where["student"]
            )
            grades, comments = (
                {
                    one.cell.name: one
                    for one in gradebook.db.query(kind)
                    .options(joinedload(kind.cell))
                    .filter(kind.notebook_id == found.id)
                }
                for kind in (Grade, Comment)
            )
            for cell in nb.cells:
                if utils.is_grade(cell):
                    grade = grades[grade_id(cell)]
                    grade.auto_score = utils.determine_grade(cell, self.log)[0]
                    by_hand = grade.manual_score is not None or grade.auto_score is None
                    grade.needs_manual_grade = by_hand  # to look at again, or for the first time
                if utils.is_solution(cell) or utils.is_task(cell):
                    checksum = cell.metadata.nbgrader.get("checksum")
                    blank = checksum == utils.compute_checksum(cell) and not utils.is_task(cell)
                    comments[grade_id(cell)].auto_comment = "No response." if blank else None
            gradebook.db.commit()
        return nb, resources


def grade_submission(engine: Engine, student: str, assignment: str) -> dict[str, Graded]:
    """Results of every notebook of a submission, by notebook name."""
    names = engine.course.notebooks(assignment)
    jobs = [engine.job(student, assignment, name) for name in names]
    found = {job.notebook: graded for job, graded in engine.grade(jobs)}
    return {name: found[name] for name in names}


def fill_in(graded: Graded) -> NotebookNode:
    """The executed notebook with sanitised outputs and the results in its grade cells."""
    notebook: NotebookNode = nbformat.reads(graded.executed, as_version=4)
    cells = {cell.cell: cell for cell in graded.result.cells}
    for cell in notebook.cells:
        if cell.cell_type == "raw":
            cell.metadata["raw_mimetype"] = "text/plain"  # else a page would include it as HTML
        if cell.cell_type != "code":
            continue
        if is_autograded(cell):
            cell.outputs = grade_cell_outputs(cells[str(grade_id(cell))], graded.result)
        else:
            cell.outputs = harmless(cell.outputs)
    return notebook


def write_results(
    course: Course, student: str, assignment: str, graded: Mapping[str, Graded]
) -> SubmissionResult:
    """Write the logs, `results.json` beside the graded notebooks, and the tensors' digests."""
    logs = course.private / "logs" / assignment / student
    for name, one in graded.items():
        write_whole(logs / f"{name}.log", one.log)
    result = SubmissionResult(student, assignment, [g.result for g in graded.values()])
    written = json.dumps(result.to_json(), indent=1, ensure_ascii=False) + "\n"
    write_whole(course.autograded(student, assignment) / "results.json", written)
    note_tensors(course, assignment, student, (d for n in result.notebooks for d in n.tensors))
    return result
