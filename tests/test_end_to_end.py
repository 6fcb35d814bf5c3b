"""A class from submission to gradebook, feedback and export, with the command-line tools."""

from __future__ import annotations

import ast
import contextlib
import csv
import filecmp
import json
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from nbgrader.api import Gradebook

from autograder.engine.notebook import is_autograded
from support.submissions import (
    ASSIGNMENT,
    HALF,
    NOTEBOOKS,
    ROOT,
    CourseCopy,
    expected_points,
    max_points,
    replace_cells,
    solution_cells,
)

FILTERS, CLASSIFICATION, *_, FILTERS_OF_DIGITS = NOTEBOOKS
QUESTION = "mdr-08-background"
STUDENTS = ("complete", "half", "odd", "untouched")
# Grade cells of the first notebook that the student "odd" got wrong.
WRONG = {"fig-4-3-neighbourhood-sum-check", "fig-4-10-shapes-check"}

# Runs in a browser unless it is treated as text.
ATTACK = "<script>steal()</script><img src=x onerror=steal()>"
HOSTILE_CELL = f"""
from IPython.display import HTML, Javascript, Markdown, SVG, display
attack = {ATTACK!r}
print(attack)
display(HTML(attack), Javascript("steal()"), Markdown(attack))
display({{"image/svg+xml": f"<svg xmlns='http://www.w3.org/2000/svg'>{{attack}}</svg>"}}, raw=True)
display({{"text/latex": attack, "image/png": attack}}, raw=True)
raise ValueError(attack)
"""


@pytest.fixture(scope="module")
def course(course_copy: Callable[[], CourseCopy], solved_run: Path) -> CourseCopy:
    """A class with ungraded submissions; nbgrader knows the assignment."""
    course = course_copy()
    course.succeed("nbgrader", "generate_assignment", ASSIGNMENT, "--force")
    course.complete("complete", solved_run)
    course.half("half")
    course.untouched("untouched")
    odd = course.solved("odd", FILTERS)
    hostile = odd / f"{FILTERS}.ipynb"
    replace_cells(
        hostile,
        {
            "fig-4-3-neighbourhood-sum": "def neighbourhood_sum(patch, kernel):\n    return 117.5",
            "fig-4-10-shapes": f"def output_size(*sizes):\n    return 15\n\n{HOSTILE_CELL}",
        },
    )
    notebook = nbformat.read(hostile, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_raw_cell(ATTACK, id="mine"))
    notebook.cells.insert(0, nbformat.v4.new_markdown_cell(ATTACK, id="mine-too"))
    nbformat.write(notebook, hostile)
    replace_cells(odd / f"{FILTERS_OF_DIGITS}.ipynb", {QUESTION: ATTACK})
    (odd / f"{CLASSIFICATION}.ipynb").write_text('{"cells": [')
    return course


@pytest.fixture(scope="module")
def outcome(course: CourseCopy) -> subprocess.CompletedProcess[str]:
    """The outcome of `autograder grade` on the class."""
    return course.run("autograder", "grade", ASSIGNMENT)


@pytest.fixture(scope="module")
def graded(course: CourseCopy, outcome: subprocess.CompletedProcess[str]) -> CourseCopy:
    """The class after `autograder grade`."""
    assert outcome.returncode in (0, 1), outcome.stderr
    return course


@pytest.fixture(scope="module")
def by_nbgrader(course_copy: Callable[[], CourseCopy], graded: CourseCopy) -> CourseCopy:
    """The same class in a course with the same secret, after plain `nbgrader autograde`."""
    course = course_copy()
    course.take_secret_and_submissions(graded)
    course.succeed("nbgrader", "generate_assignment", ASSIGNMENT, "--force")
    course.succeed("nbgrader", "autograde", ASSIGNMENT)
    return course


@pytest.fixture(scope="module")
def with_feedback(by_nbgrader: CourseCopy) -> CourseCopy:
    """The class after `nbgrader generate_feedback`."""
    by_nbgrader.succeed("nbgrader", "generate_feedback", ASSIGNMENT)
    return by_nbgrader


# --- autograder grade ---


def test_results_are_written_as_promised(graded: CourseCopy) -> None:
    for student in STUDENTS:
        results = graded.results(student)
        assert list(results) == [
            "student",
            "assignment",
            "score",
            "max_score",
            "sandbox",
            "notebooks",
        ]
        assert all(isinstance(layer, str) for layer in results["sandbox"])
        assert (results["student"], results["assignment"]) == (student, ASSIGNMENT)
        assert [notebook["name"] for notebook in results["notebooks"]] == NOTEBOOKS
        for notebook in results["notebooks"]:
            assert list(notebook) == ["name", "status", "reason", "cells"]
            assert notebook["status"] in ("graded", "unchanged", "failed", "missing")
            for cell in notebook["cells"]:
                assert list(cell) == ["cell", "points", "max_points", "checks"]
                for check in cell["checks"]:
                    assert list(check) == ["id", "title", "passed", "hint"]
                    assert check["title"]
                    assert isinstance(check["passed"], bool)
                    assert bool(check["hint"]) is not check["passed"]
            most = {cell["cell"]: cell["max_points"] for cell in notebook["cells"]}
            assert most == max_points(notebook["name"])
        cells = [cell for notebook in results["notebooks"] for cell in notebook["cells"]]
        assert results["score"] == pytest.approx(sum(cell["points"] for cell in cells))
        assert results["max_score"] == sum(cell["max_points"] for cell in cells)


def test_a_complete_submission_gets_every_point(graded: CourseCopy) -> None:
    assert graded.points("complete") == {name: max_points(name) for name in NOTEBOOKS}


def test_an_untouched_submission_gets_no_point(graded: CourseCopy) -> None:
    assert graded.points("untouched") == {name: expected_points(name, []) for name in NOTEBOOKS}
    assert {n["status"] for n in graded.results("untouched")["notebooks"]} == {"unchanged"}


def test_half_a_submission_gets_the_points_of_the_cells_that_are_done(graded: CourseCopy) -> None:
    wanted = {n: expected_points(n, solution_cells(n)[:count]) for n, count in HALF.items()}
    assert graded.points("half") == wanted


def test_a_mistake_costs_only_its_own_cell(graded: CourseCopy) -> None:
    points, most = graded.points("odd")[FILTERS], max_points(FILTERS)
    assert {cell for cell in most if points[cell] < most[cell]} == WRONG


def test_what_cannot_be_read_is_said(
    graded: CourseCopy, outcome: subprocess.CompletedProcess[str]
) -> None:
    unreadable = graded.notebook("odd", CLASSIFICATION)
    assert unreadable["status"] == "failed"
    assert "not a readable notebook" in unreadable["reason"]
    assert f"odd, {CLASSIFICATION}: {unreadable['reason']}" in " ".join(outcome.stdout.split())
    assert outcome.returncode == 1


def test_a_second_run_over_what_can_be_graded_exits_with_0_and_changes_nothing(
    graded: CourseCopy,
) -> None:
    before = graded.results("half"), graded.recorded()
    graded.succeed("autograder", "grade", ASSIGNMENT, "--student", "half", "--student", "untouched")
    assert (graded.results("half"), graded.recorded()) == before


# --- nbgrader's own commands ---


def test_the_gradebook_has_the_scores_of_results_json(graded: CourseCopy) -> None:
    assert graded.recorded() == {student: graded.points(student) for student in STUDENTS}


def test_nbgrader_autograde_gives_the_same_scores(
    graded: CourseCopy, by_nbgrader: CourseCopy
) -> None:
    assert by_nbgrader.recorded() == graded.recorded()
    for student in STUDENTS:
        assert by_nbgrader.results(student) == graded.results(student)


def rows(course: CourseCopy) -> dict[str, list[tuple[str, ...]]]:
    """Every table of a gradebook; random ids are replaced by what they stand for."""
    with contextlib.closing(sqlite3.connect(course.root / "gradebook.db")) as file:
        names = [
            name for (name,) in file.execute("select name from sqlite_master where type='table'")
        ]
        tables = {name: file.execute(f"select * from {name}").fetchall() for name in names}
    stands: dict[str, str] = {}

    def told(row: tuple[object, ...], own: object = None) -> tuple[str, ...]:
        return tuple("" if v == own and own else stands.get(str(v), str(v)) for v in row)

    for _ in range(6):  # a grade's cell, its notebook, its submission, its student, its assignment
        for found in tables.values():
            for row in found:
                if re.fullmatch("[0-9a-f]{32}", str(row[0])):
                    text = repr(told(row, row[0]))
                    stands[str(row[0])] = sha256(text.encode()).hexdigest()
    return {name: sorted(map(told, found)) for name, found in tables.items()}


def written(course: CourseCopy) -> dict[str, object]:
    """Every file of the graded submissions.

    Two runs of a student's own cells may print something else, and at another time.
    """
    folder = course.root / "autograded"
    files: dict[str, object] = {}
    for path in (path for path in folder.rglob("*") if path.is_file()):
        name = str(path.relative_to(folder))
        files[name] = path.read_bytes()
        if path.suffix == ".ipynb":
            files[name] = notebook = nbformat.read(path, as_version=4)
            for cell in notebook.cells:
                cell.metadata.pop("execution", None)
                if cell.cell_type == "code" and not is_autograded(cell):
                    cell.outputs = []
    return files


def test_both_commands_write_the_same(graded: CourseCopy, by_nbgrader: CourseCopy) -> None:
    assert rows(graded)["grade"]
    assert rows(by_nbgrader) == rows(graded)
    assert written(graded)
    assert written(by_nbgrader) == written(graded)


def test_the_points_are_saved_as_nbgrader_saves_them(by_nbgrader: CourseCopy) -> None:
    by_ours = rows(by_nbgrader)
    path = by_nbgrader.root / "nbgrader_config.py"
    before = path.read_text("utf-8")
    assert "SaveGrades" in before
    path.write_text(before.replace('f"{GLUE}.SaveGrades"', 'f"{PRE}.SaveAutoGrades"'), "utf-8")
    (by_nbgrader.root / "gradebook.db").unlink()
    try:
        by_nbgrader.succeed("nbgrader", "generate_assignment", ASSIGNMENT, "--force")
        by_nbgrader.succeed("nbgrader", "autograde", ASSIGNMENT, "--force")
    finally:
        path.write_text(before, "utf-8")
    assert rows(by_nbgrader) == by_ours


FORMGRADER = f"""
import json, sys
from nbgrader.apps.api import NbGraderAPI
from nbgrader.apps.baseapp import NbGrader
from nbgrader.coursedir import CourseDirectory

app = NbGrader()
app.load_config_file()
api = NbGraderAPI(CourseDirectory(config=app.config), config=app.config)
outcomes = [api.autograde({ASSIGNMENT!r}, student) for student in sys.argv[1:]]
print(json.dumps([outcome["success"] for outcome in outcomes]))
"""


def test_formgrader_gives_the_same_scores(graded: CourseCopy, by_nbgrader: CourseCopy) -> None:
    students = ("half", "odd")
    with Gradebook(f"sqlite:///{by_nbgrader.root / 'gradebook.db'}") as gradebook:
        for student in students:
            gradebook.remove_submission(ASSIGNMENT, student)
    done = by_nbgrader.run(sys.executable, "-c", FORMGRADER, *students)
    assert json.loads(done.stdout.splitlines()[-1]) == [True, True], done.stderr
    assert by_nbgrader.recorded() == graded.recorded()


def test_the_written_question_waits_for_a_person(by_nbgrader: CourseCopy) -> None:
    with Gradebook(f"sqlite:///{by_nbgrader.root / 'gradebook.db'}") as gradebook:
        answered, untouched = (
            gradebook.find_grade(QUESTION, FILTERS_OF_DIGITS, ASSIGNMENT, student)
            for student in ("complete", "untouched")
        )
        assert answered.needs_manual_grade
        assert answered.auto_score is None
        assert not untouched.needs_manual_grade
        assert untouched.auto_score == 0


def test_nbgrader_export_has_the_same_totals(by_nbgrader: CourseCopy) -> None:
    by_nbgrader.succeed("nbgrader", "export")
    with (by_nbgrader.root / "grades.csv").open(newline="") as file:
        totals = {row["student_id"]: float(row["score"]) for row in csv.DictReader(file)}
    assert totals == {s: pytest.approx(by_nbgrader.results(s)["score"]) for s in STUDENTS}


def test_nbgrader_generate_assignment_gives_the_committed_release(course: CourseCopy) -> None:
    made, committed = course.root / "release" / ASSIGNMENT, ROOT / "release" / ASSIGNMENT
    names = sorted(path.name for path in made.iterdir())
    assert names == sorted(path.name for path in committed.iterdir() if path.is_file())
    assert filecmp.cmpfiles(made, committed, names, shallow=False) == (names, [], [])


# --- feedback pages ---


class Page(HTMLParser):
    """A page's text, and everything in it that a browser would run."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text = ""
        self.active: list[str] = []
        self._inside = ""
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        self.active += [
            f"{name}={value}"
            for name, value in attrs
            if name.startswith("on") or (value or "").lstrip().startswith(("javascript:", "data:t"))
        ]
        if tag in ("svg", "iframe", "object", "embed", "base", "form"):
            self.active.append(f"<{tag}>")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.active.append(data)
        elif self._inside != "style":
            self.text += data


def page(course: CourseCopy, student: str, name: str) -> Page:
    return Page(course.root / "feedback" / student / ASSIGNMENT / f"{name}.html")


def texts_of_the_checks() -> set[str]:
    """All strings in the modules of the hidden checks."""
    trees = (
        ast.parse(path.read_text("utf-8"))
        for path in (ROOT / "autograder" / "checks" / "ch4_cnn").glob("*.py")
    )
    constants = (
        node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)
    )
    return {constant.value for constant in constants if isinstance(constant.value, str)}


@pytest.mark.parametrize("student", STUDENTS)
def test_feedback_shows_each_check_with_a_hint_where_it_failed(
    with_feedback: CourseCopy, student: str
) -> None:
    for name in NOTEBOOKS:
        text = page(with_feedback, student, name).text
        for cell in with_feedback.notebook(student, name)["cells"]:
            for check in cell["checks"]:
                mark = "✓" if check["passed"] else "✗"
                hint = "" if check["passed"] else f"Hint: {check['hint']}"
                assert f"{mark} {check['title']}{hint}" in text


def test_feedback_says_why_a_notebook_could_not_be_graded(with_feedback: CourseCopy) -> None:
    reason = with_feedback.notebook("odd", CLASSIFICATION)["reason"]
    assert f"This notebook could not be graded: {reason}" in (
        page(with_feedback, "odd", CLASSIFICATION).text
    )


def test_feedback_gives_no_value_of_a_hidden_check(with_feedback: CourseCopy) -> None:
    # Hints about wrong values are constants in the checks, possibly after the error that stopped
    # the student's own cell.
    hints = {
        re.sub(r"^cell \[.*?\] was stopped by .*? \((.*)\)$", r"\1", check["hint"])
        for cell in with_feedback.notebook("odd", FILTERS)["cells"]
        for check in cell["checks"]
        if not check["passed"]
    }
    assert hints
    assert hints <= texts_of_the_checks()


def test_feedback_shows_no_trace_of_the_grader(with_feedback: CourseCopy) -> None:
    for student in STUDENTS:
        for name in NOTEBOOKS:
            text = page(with_feedback, student, name).text
            for trace in ("AssertionError", "autograder", "responder", "pytest", "/kit-", "<li>"):
                assert trace not in text, (student, name)


def test_feedback_runs_nothing_of_a_student(with_feedback: CourseCopy) -> None:
    for name in (FILTERS, FILTERS_OF_DIGITS):
        seen = page(with_feedback, "odd", name)
        assert "steal()" in seen.text  # the student's text is shown as text
        assert seen.active == page(with_feedback, "untouched", name).active


# --- wrong calls ---


def refused(course: CourseCopy, *arguments: str) -> str:
    """The single line that `autograder` prints when it refuses."""
    done = course.run("autograder", *arguments)
    assert done.returncode == 2
    assert not done.stdout.strip()
    (line,) = done.stderr.splitlines()
    return line


def test_an_unknown_assignment_is_refused(graded: CourseCopy) -> None:
    said = refused(graded, "grade", "ch5-rnn")
    assert said.startswith("autograder: there is no assignment ch5-rnn in ")
    assert said.endswith(f"; there is {ASSIGNMENT}")


def test_an_assignment_without_a_release_is_refused(graded: CourseCopy) -> None:
    (graded.root / "source" / "ch6").mkdir()
    (graded.root / "source" / "ch6" / "1.ipynb").write_text("{}", "utf-8")
    said = refused(graded, "grade", "ch6")
    shutil.rmtree(graded.root / "source" / "ch6")
    assert said.startswith("autograder: release/ch6 holds no notebooks")
    assert "autograder release ch6" in said


def test_an_unknown_student_is_refused(graded: CourseCopy) -> None:
    said = refused(graded, "grade", ASSIGNMENT, "--student", "zoe")
    assert said.startswith(f"autograder: zoe has handed in nothing for {ASSIGNMENT}; there is ")


def test_a_folder_that_is_no_course_is_refused(tmp_path: Path) -> None:
    said = refused(CourseCopy(tmp_path), "grade", ASSIGNMENT)
    assert said.startswith(f"autograder: {tmp_path} is no course")
    assert "--course" in said


def test_a_course_without_submissions_is_refused(course_copy: Callable[[], CourseCopy]) -> None:
    said = refused(course_copy(), "grade", ASSIGNMENT)
    assert said.startswith(f"autograder: nobody has handed in {ASSIGNMENT}")


def test_a_damaged_secret_is_refused_and_kept(course_copy: Callable[[], CourseCopy]) -> None:
    course = course_copy()
    course.untouched("student")
    secret = course.root / ".autograder" / "secret"
    secret.parent.mkdir()
    secret.write_bytes(b"short")
    assert refused(course, "grade", ASSIGNMENT).startswith(f"autograder: {secret} is damaged")
    assert secret.read_bytes() == b"short"
