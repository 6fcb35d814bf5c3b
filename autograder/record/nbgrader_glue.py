"""Classes that `nbgrader_config.py` sets, so that the engine reads, releases and grades notebooks.

nbgrader's commands work as before.  `nbgrader autograde` converts a submission in two passes: the
first replaces it with the release (`SubmissionExporter`); the second replaces that with the
executed notebook and its results (`RecordResults`), and nbgrader saves the points.  nbgrader's
process runs no student code and parses no submitted file.
"""

from __future__ import annotations

import atexit
import json
import os
from pathlib import Path
from typing import Any

import nbformat
from nbconvert.exporters import NotebookExporter
from nbformat import NotebookNode
from nbgrader.preprocessors import ClearSolutions, NbGraderPreprocessor
from traitlets import Bool

from autograder.course import Course, write_whole
from autograder.engine.grade import Graded
from autograder.engine.notebook import grade_id, is_autograded, is_solution, label
from autograder.engine.pool import Engine
from autograder.engine.results import SubmissionResult
from autograder.record.copies import note_tensors, report_copies
from autograder.record.outputs import grade_cell_outputs, harmless

_engines: dict[Path, Engine] = {}


def engine_of(
    course: Course,
    jobs: int = os.cpu_count() or 1,
    run_student_code_unconfined: bool = False,
    scheduler: str = "",
) -> Engine:
    """The engine of this process for a course; its workers end with the process."""
    if course.root not in _engines:
        engine = Engine(course, jobs, run_student_code_unconfined, scheduler)
        _engines[course.root] = engine
        atexit.register(engine.close)
    return _engines[course.root]


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


class SubmissionExporter(NotebookExporter):  # type: ignore[misc]
    """Exports the release in place of a submitted notebook, which only the engine reads.

    nbgrader converts the result a second time, and `RecordResults` puts the graded notebook there.
    """

    def from_filename(
        self, filename: str, resources: dict[str, Any] | None = None, **kw: Any
    ) -> tuple[str, dict[str, Any]]:
        """Convert a notebook; for a submitted one, its release."""
        course = Course.at(Path.cwd())
        path = Path(filename)
        # submitted/<student>/<assignment>/<notebook>; students may make links below submitted/
        if path.absolute().parents[2].resolve() == (course.root / "submitted").resolve():
            assert resources is not None
            filename = str(course.release(resources["nbgrader"]["assignment"]) / path.name)
        return super().from_filename(filename, resources, **kw)  # type: ignore[no-any-return]


class RecordResults(NbGraderPreprocessor):  # type: ignore[misc]
    """Fills a notebook with the results of its grading, and writes `results.json`."""

    run_student_code_unconfined = Bool(
        False, help="Grade where this machine can confine student code in no way."
    ).tag(config=True)

    def preprocess(
        self, nb: NotebookNode, resources: dict[str, Any]
    ) -> tuple[NotebookNode, dict[str, Any]]:
        """Replace the notebook with the executed one and its results in the grade cells."""
        where = resources["nbgrader"]
        course = Course.at(Path.cwd())
        engine = engine_of(course, run_student_code_unconfined=self.run_student_code_unconfined)
        graded = grade_submission(engine, where["student"], where["assignment"])
        write_results(course, where["student"], where["assignment"], graded)
        for line in report_copies(course, where["assignment"]):
            self.log.warning("%s: %s", where["assignment"], line)
        return filled(graded[where["notebook"]]), resources


def grade_submission(engine: Engine, student: str, assignment: str) -> dict[str, Graded]:
    """Results of every notebook of a submission, by notebook name."""
    names = engine.course.notebooks(assignment)
    jobs = [engine.job(student, assignment, name) for name in names]
    found = {job.notebook: graded for job, graded in engine.grade(jobs)}
    return {name: found[name] for name in names}


def filled(graded: Graded) -> NotebookNode:
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
    course: Course, student: str, assignment: str, graded: dict[str, Graded]
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
