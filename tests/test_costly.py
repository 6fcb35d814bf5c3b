"""Files that are expensive to read or render, submitted beside honest work, at every level.

Each of them once held up the grader, nbgrader's converters or the service for minutes, or took
gigabytes.  Nothing is timed here: without a bound, the command would run into its own limit.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest

from autograder.engine.grade import Graded
from autograder.engine.notebook import grade_id, is_autograded
from autograder.engine.results import CellResult, NotebookResult
from autograder.kernel import isolate
from autograder.kernel.notebook import CELL_LIMIT
from autograder.kernel.page import AS_WRITTEN
from support.environments import NAMESPACES, forbidding
from support.hostile import FILTERS, FULL
from support.submissions import ASSIGNMENT, CourseCopy

HONEST = ("a-first", "z-last")


def with_cell(source: str, kind: str = "markdown") -> Callable[[Any], str]:
    def costly(work: Any) -> str:
        work["cells"].insert(0, {"cell_type": kind, "metadata": {}, "source": source})
        if kind == "code":
            work["cells"][0] |= {"outputs": [], "execution_count": None}
        return json.dumps(work)

    return costly


def wide(work: Any) -> str:
    return json.dumps(work | {"metadata": {}}).replace(
        '"metadata": {}', '"metadata": {"a": [' + "{}," * 6_000_000 + "{}]}", 1
    )


def many_cells(work: Any) -> str:
    more = [{"cell_type": "raw", "metadata": {}, "source": ""}] * 200_000
    return json.dumps(work | {"cells": more + work["cells"]}, separators=(",", ":"))


def deep(work: Any) -> str:
    nested = '{"a":' * 300_000 + "{}" + "}" * 300_000
    return json.dumps(work | {"metadata": {}}).replace('"metadata": {}', f'"metadata": {nested}', 1)


@dataclass(frozen=True)
class Costly:
    """A change to a solved notebook; why it cannot be read, or whether its page is plain."""

    change: Callable[[Any], str]
    reason: str = ""
    plain: bool = False


COSTLY = {
    "brackets": Costly(with_cell("[" * 2_000_000), plain=True),
    "parentheses": Costly(with_cell("\\\\(" * 130_000), plain=True),
    "formulas": Costly(with_cell("$x$ " * 100_000), plain=True),
    "quotations": Costly(with_cell("> " * 200_000)),
    "quoted-code": Costly(with_cell('"""\n' + "'''\\" * 100_000 + '\n"""', "code")),
    "wide": Costly(wide),
    "deep": Costly(deep, "nested too deep"),
    "many-cells": Costly(many_cells, f"it has more than {CELL_LIMIT} cells"),
}


@dataclass
class Class:
    """A graded class with its feedback, and the outcomes of the commands."""

    course: CourseCopy
    graded: subprocess.CompletedProcess[str]
    feedback: subprocess.CompletedProcess[str]

    def page(self, student: str) -> str:
        path = self.course.root / "feedback" / student / ASSIGNMENT / f"{FILTERS}.html"
        return path.read_text("utf-8")


@pytest.fixture(scope="module", params=[isolate.NAMESPACES, isolate.LANDLOCK])
def graded(request: pytest.FixtureRequest, course_copy: Callable[[], CourseCopy]) -> Class:
    course = course_copy()
    course.keep_first_notebook()
    for student in (*HONEST, *COSTLY):
        folder = course.solved(student, FILTERS)
        if student in COSTLY:
            path = folder / f"{FILTERS}.ipynb"
            path.write_text(COSTLY[student].change(json.loads(path.read_text("utf-8"))), "utf-8")
    before = forbidding(NAMESPACES) if request.param == isolate.LANDLOCK else []
    made = Class(
        course,
        course.run(*before, "autograder", "grade", ASSIGNMENT, "--jobs", "2"),
        course.run(*before, "nbgrader", "generate_feedback", ASSIGNMENT),
    )
    layers = course.results("a-first")["sandbox"]
    if request.param == isolate.NAMESPACES and "namespaces" not in " ".join(layers):
        pytest.skip("this machine forbids namespaces")
    assert ("namespaces" in " ".join(layers)) == (request.param == isolate.NAMESPACES)
    return made


def test_everybody_gets_an_answer_and_a_page(graded: Class) -> None:
    assert graded.graded.returncode == 1, graded.graded.stderr  # some cannot be read
    assert graded.feedback.returncode == 0, graded.feedback.stderr
    assert set(graded.course.recorded()) == {*HONEST, *COSTLY}
    for student in (*HONEST, *COSTLY):
        assert graded.course.recorded()[student] == graded.course.points(student)
        assert graded.page(student).rstrip().endswith("</html>")


@pytest.mark.parametrize("student", HONEST)
def test_honest_work_keeps_its_score_and_its_page(graded: Class, student: str) -> None:
    assert graded.course.notebook(student, FILTERS)["status"] == "graded"
    assert sum(graded.course.points(student)[FILTERS].values()) == FULL
    assert "plain text" not in graded.page(student)
    assert "<math" in graded.page(student)


@pytest.mark.parametrize("student", COSTLY)
def test_what_is_costly_gets_a_definite_answer(graded: Class, student: str) -> None:
    costly, notebook = COSTLY[student], graded.course.notebook(student, FILTERS)
    points = sum(graded.course.points(student)[FILTERS].values())
    if costly.reason:
        assert notebook["status"] == "failed"
        assert costly.reason in notebook["reason"]
        assert points == 0
    else:
        assert notebook["status"] == "graded"
        assert points == FULL
    page = graded.page(student)
    assert "<math" in page  # the course's own text is rendered
    assert (AS_WRITTEN in page) >= costly.plain


def test_what_is_shown_as_plain_text_is_there(graded: Class) -> None:
    page = graded.page("brackets")
    assert f"<pre>{'[' * 1000}" in page
    assert "… (the rest is left out)" in page


def test_nbgrader_converts_no_submitted_file(
    graded: Class, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever file is there, nbgrader exports what grading made of it."""
    from autograder.record.nbgrader_glue import GRADED, GradedExporter

    root = graded.course.root
    monkeypatch.chdir(root)
    path = root / "submitted" / "z-last" / ASSIGNMENT / f"{FILTERS}.ipynb"
    released = nbformat.read(root / "release" / ASSIGNMENT / path.name, as_version=4)
    points = [
        CellResult(str(grade_id(cell)), 1.0) for cell in released.cells if is_autograded(cell)
    ]
    result = NotebookResult(FILTERS, "graded", cells=points)
    resources = {GRADED: Graded(result, nbformat.writes(released))}
    before = path.read_bytes()
    path.write_bytes(b"[" * 100_000)
    try:
        text, _ = GradedExporter().from_filename(str(path), resources)
    finally:
        path.write_bytes(before)
    sources = [cell.source for cell in nbformat.reads(text, as_version=4).cells]
    assert sources == [cell.source for cell in released.cells]
