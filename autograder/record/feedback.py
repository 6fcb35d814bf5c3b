"""The feedback page: its header, and the exporter that renders it.

The header gives the student, the time of submission, the points of all notebooks, and the first
cause of lost points in each; the notebook with its checks follows.  Points come from the gradebook,
checks from `results.json`.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from nbgrader.api import Gradebook, MissingEntry
from nbgrader.converters import GenerateFeedback
from traitlets import Bool, default

from autograder.course import Course
from autograder.engine.notebook import grade_id, label
from autograder.record.locks import OneWriter
from autograder.record.outputs import why
from autograder.record.pages import PageExporter

# Header fields of a page without any data.
NOTHING: dict[str, Any] = {
    "student": "",
    "assignment": "",
    "handed_in": "",
    "late": "",
    "due": "",
    "note": "",
    "reason": "",
    "unread": 0.0,
    "waiting": [],
    "score": 0.0,
    "max_score": 0.0,
    "notebooks": [],
    "cells": {},
}


class FeedbackExporter(PageExporter):
    """Renders `feedback.html.j2`; its header comes from `about` if the caller supplied it."""

    exclude_anchor_links = Bool(True).tag(config=True)

    @default("template_file")  # type: ignore[untyped-decorator]
    def _own_template(self) -> str:
        return "feedback.html.j2"

    def from_notebook_node(
        self, nb: Any, resources: dict[str, Any] | None = None, **kw: Any
    ) -> tuple[str, dict[str, Any]]:
        """Convert a notebook to a page."""
        resources = {} if resources is None else resources
        marks = resources.setdefault("nbgrader", {})
        page = {**NOTHING, **marks.get("page", {})}
        page["titles"] = {name: title(name) for name in map(grade_id, nb.cells) if name}
        page["causes"] = {name: cause(cell) for name, cell in page["cells"].items()}
        marks["page"] = page
        return super().from_notebook_node(nb, resources, **kw)


class SerialFeedback(OneWriter, GenerateFeedback):  # type: ignore[misc]
    """Writes feedback pages under the submission's lock, so no grading runs meanwhile."""

    def init_notebooks(self) -> None:
        """List the notebooks to convert; an existing folder's name is never taken as a pattern."""
        assignment, asked = self.coursedir.assignment_id, self.coursedir.student_id
        literal = os.path.isdir(self._format_source(assignment, asked))
        pattern = self._format_source(assignment, glob.escape(asked) if literal else asked)
        self.assignments: dict[str, list[str]] = {}
        self.notebooks: list[str] = []
        for folder in glob.glob(pattern):
            inside = os.path.join(glob.escape(folder), f"{self.coursedir.notebook_id}.ipynb")
            if found := glob.glob(inside):
                self.assignments[folder] = found
        if not self.assignments:
            super().init_notebooks()  # raises nbgrader's own error

    def init_single_notebook_resources(self, notebook_filename: str) -> dict[str, Any]:
        """Add the header of the page to nbgrader's resources."""
        resources: dict[str, Any] = super().init_single_notebook_resources(notebook_filename)
        of = resources["nbgrader"]
        course = Course.at(Path(self.coursedir.root))
        of["page"] = about(
            results(course, of["student"], of["assignment"]),
            of["notebook"],
            read_results(of["db_url"], of["student"], of["assignment"]),
        )
        return resources


def results(course: Course, student: str, assignment: str) -> dict[str, Any]:
    """A submission's `results.json`; without a readable one, a result without notebooks."""
    path = course.autograded(student, assignment) / "results.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):  # graded by stock nbgrader, or half removed
        return {"student": student, "assignment": assignment, "notebooks": []}
    return found


def read_results(db_url: str, student: str, assignment: str) -> dict[str, Any]:
    """The gradebook's record of a submission, with manual points and late penalties."""
    with Gradebook(db_url) as gradebook:
        try:
            found = gradebook.find_submission(assignment, student)
        except MissingEntry:
            return {}
        names = (found.student.first_name, found.student.last_name)
        waiting = {
            notebook.name: {
                grade.name: grade.max_score
                for grade in notebook.grades
                if grade.needs_manual_grade and grade.manual_score is None
            }
            for notebook in found.notebooks
        }
        known: dict[str, Any] = {
            "student": " ".join(filter(None, names)),
            "waiting": waiting,
            "points": {
                notebook.name: {
                    "score": notebook.score - (notebook.late_submission_penalty or 0.0),
                    "max_score": notebook.max_score,
                }
                for notebook in found.notebooks
            },
        }
        if found.timestamp is not None:
            known["handed_in"] = moment(found.timestamp)
            late = found.total_seconds_late if found.assignment.duedate is not None else 0
            if late > 0:
                known["late"], known["due"] = how_long(late), moment(found.duedate)
        return known


def about(
    result: Mapping[str, Any], notebook: str, known: Mapping[str, Any] | None = None, note: str = ""
) -> dict[str, Any]:
    """The header of one notebook's page, as plain data for the template.

    Args:
        result: the content of `results.json`.
        notebook: name of the notebook.
        known: the return value of `recorded`, if the submission is in the gradebook.
        note: a message to show before everything else.

    """
    known = known or {}
    points, waiting = known.get("points", {}), known.get("waiting", {})
    notebooks = []
    for one in result["notebooks"]:
        own = {key: sum(cell[name] for cell in one["cells"]) for key, name in _SUMS.items()}
        notebooks.append({"name": one["name"], "cause": first_cause(one)} | own)
        notebooks[-1] |= points.get(one["name"], {})
        if not notebooks[-1]["cause"] and waiting.get(one["name"]):
            notebooks[-1]["cause"] = "an answer is still to be read"
    mine = next((one for one in result["notebooks"] if one["name"] == notebook), None)
    name = known.get("student", "")
    return {
        **NOTHING,
        **{key: known[key] for key in ("handed_in", "late", "due") if key in known},
        "unread": sum(sum(cells.values()) for cells in waiting.values()),
        "waiting": list(waiting.get(notebook, ())),
        "student": f"{name} ({result['student']})" if name else result["student"],
        "assignment": result["assignment"],
        "note": note,
        "reason": why(mine["status"], mine["reason"], mine.get("found", "")) if mine else "",
        "score": sum(one["score"] for one in notebooks),
        "max_score": sum(one["max_score"] for one in notebooks),
        "notebooks": notebooks,
        "cells": {cell["cell"]: cell for cell in mine["cells"]} if mine else {},
    }


_SUMS = {"score": "points", "max_score": "max_points"}


def first_cause(notebook: Mapping[str, Any]) -> str:
    """Why a notebook lost points, in one line; empty if no check lost any."""
    if notebook["status"] != "graded":
        return why(notebook["status"], notebook["reason"], notebook.get("found", ""))
    for cell in notebook["cells"]:
        if cell["points"] < cell["max_points"]:
            return f"{title(cell['cell'])}: {cause(cell)}"
    return ""


def cause(cell: Mapping[str, Any]) -> str:
    """The hint of a grade cell's first failed check; empty if none failed."""
    return next((check["hint"] for check in cell["checks"] if not check["passed"]), "")


def title(name: str) -> str:
    """The title of a grade cell: `ofe-04-edge-filter-check` → `[OFE-04] edge filter`."""
    parts = name.removesuffix("-check").split("-")
    used = 3 if parts[0] == "fig" else 2
    if len(parts) <= used:
        return name
    return f"[{label(name)}] {' '.join(parts[used:])}"


def moment(at: datetime) -> str:
    """A gradebook time (naive UTC) as text in this machine's time zone."""
    return at.replace(tzinfo=UTC).astimezone().strftime("%d %B %Y, %H:%M %Z")


def how_long(seconds: float) -> str:
    """A duration in its two largest units: `2 days 3 hours`; at least a minute."""
    minutes = max(1, int(timedelta(seconds=seconds).total_seconds() // 60))
    units = (("day", minutes // 1440), ("hour", minutes // 60 % 24), ("minute", minutes % 60))
    shown = [(name, count) for name, count in units if count][:2]
    return " ".join(f"{count} {name}{'s' if count > 1 else ''}" for name, count in shown)
