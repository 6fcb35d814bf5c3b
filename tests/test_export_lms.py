"""Grades for Moodle and Canvas: their formats, odd names, and no spreadsheet formulas."""

from __future__ import annotations

import csv
import io
import subprocess
from collections.abc import Callable

import pytest
from nbgrader.api import Gradebook

from autograder.record.export import Column, Grade, Target, format_csv
from support.submissions import ASSIGNMENT, CourseCopy

POSSIBLE = 100.0
CLASS = [
    Grade("ada", "Ada", "Lovelace, Countess", "ada@uni.example", "4711", 96.25),
    Grade("daria", "Дарья", "Иванова", "daria@uni.example", "", 0.0),
    Grade("wei", "伟", "王", "wei@uni.example", "s-0815", None),
    Grade("eve", "=HYPERLINK(1)", '@SUM(A1) "x"', "+1@uni.example", "-1+1", 50.0),
]


def rows(target: Target, found: list[Grade] = CLASS) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(format_csv(target, columns(found), found))))


def columns(found: list[Grade]) -> list[Column]:
    return [Column(ASSIGNMENT, {grade.student: grade.points for grade in found}, POSSIBLE)]


def test_moodle_gets_what_it_tells_users_by_and_one_column_of_points() -> None:
    found = rows("moodle")
    assert list(found[0]) == [
        "Username",
        "ID number",
        "Email address",
        "First name",
        "Last name",
        ASSIGNMENT,
    ]
    assert [row["Username"] for row in found] == [grade.student for grade in CLASS]
    assert found[0]["Last name"] == "Lovelace, Countess"
    assert (found[1]["First name"], found[1]["Last name"]) == ("Дарья", "Иванова")


def test_moodle_reads_a_dash_as_no_grade_and_0_as_0() -> None:
    assert [row[ASSIGNMENT] for row in rows("moodle")] == ["96.25", "0", "-", "50"]


def test_canvas_gets_its_columns_and_a_row_of_possible_points() -> None:
    possible, *found = rows("canvas")
    assert list(possible) == [
        "Student",
        "ID",
        "SIS User ID",
        "SIS Login ID",
        "Section",
        ASSIGNMENT,
    ]
    assert possible["Student"].strip() == "Points Possible"
    assert possible[ASSIGNMENT] == "100"
    assert [row["SIS Login ID"] for row in found] == [grade.student for grade in CLASS]
    assert found[0]["Student"] == "Lovelace, Countess, Ada"
    assert [row[ASSIGNMENT] for row in found] == ["96.25", "0", "", "50"]


def test_canvas_would_take_the_digits_of_an_id_for_another_student() -> None:
    found = [Grade("a", "", "", "", "12", 1.0), Grade("b", "", "", "", "12b", 1.0)]
    _, number, text = rows("canvas", found)
    assert (number["ID"], number["SIS User ID"]) == ("12", "")
    assert (text["ID"], text["SIS User ID"]) == ("", "12b")


@pytest.mark.parametrize("target", ["moodle", "canvas"])
def test_no_cell_is_a_formula(target: Target) -> None:
    for row in rows(target):
        for cell in row.values():
            assert cell == "-" or not cell.startswith(tuple("=+-@\t\r")), cell
    assert any("'=HYPERLINK(1)" in cell or '\'@SUM(A1) "x"' in cell for cell in row.values())


@pytest.mark.parametrize("target", ["moodle", "canvas"])
def test_a_name_stays_on_its_line(target: Target) -> None:
    odd = [Grade("a", "one\r\ntwo", "\t=1+1", "", "", 1.0)]
    text = format_csv(target, columns(odd), odd)
    assert text.count("\r\n") == (2 if target == "moodle" else 3)
    assert "one two" in text
    assert "' =1+1" in text


@pytest.mark.parametrize("target", ["moodle", "canvas"])
def test_several_assignments_stand_under_the_names_that_the_platform_has(target: Target) -> None:
    two = [Column(name, {"ada": points}, 10.0) for name, points in (("A (1)", 7.0), ("B", None))]
    *_, row = csv.DictReader(io.StringIO(format_csv(target, two, CLASS[:1])))
    assert (row["A (1)"], row["B"]) == ("7", "-" if target == "moodle" else "")


@pytest.fixture(scope="module")
def graded(course_copy: Callable[[], CourseCopy]) -> CourseCopy:
    """A gradebook with a student with manual points and a late penalty, and an absent one."""
    course = course_copy()
    course.succeed("nbgrader", "generate_assignment", ASSIGNMENT, "--force")
    with Gradebook(f"sqlite:///{course.root / 'gradebook.db'}") as gradebook:
        gradebook.add_student("absent", first_name="No", last_name="One")
        gradebook.add_student("late", first_name="Zoë", last_name="Zuse")
        gradebook.add_student("=1+1", first_name="For", last_name="Mula")
        for student in ("late", "=1+1"):
            gradebook.add_submission(ASSIGNMENT, student)
            for one in gradebook.find_submission(ASSIGNMENT, student).notebooks:
                for grade in one.grades:
                    grade.auto_score = 0.0
                    grade.needs_manual_grade = False
        notebook = gradebook.find_submission(ASSIGNMENT, "late").notebooks[0]
        notebook.grades[0].manual_score = 2.0
        notebook.grades[1].needs_manual_grade = True
        notebook.late_submission_penalty = 0.5
        gradebook.db.commit()
    return course


def exported(course: CourseCopy, *more: str) -> tuple[dict[str, dict[str, str]], str]:
    done = course.run("autograder", "export", ASSIGNMENT, "--to", "moodle", *more)
    assert done.returncode == 0, done.stderr
    found = csv.DictReader(io.StringIO(done.stdout))
    return {row["Username"]: row for row in found}, done.stderr


def test_export_of_a_gradebook(graded: CourseCopy) -> None:
    found, said = exported(graded)
    assert {name: row[ASSIGNMENT] for name, row in found.items()} == {
        "absent": "-",
        "late": "1.5",
        "'=1+1": "0",
    }
    assert found["late"]["First name"] == "Zoë"
    assert "nobody has read yet count 0 points so far: late\n" in said
    assert "ids that look like formulas got an apostrophe: =1+1" in said


def test_a_column_is_called_as_the_platform_calls_it(graded: CourseCopy) -> None:
    found, _ = exported(graded, "--column", f"{ASSIGNMENT}=Chapter 4 (77)")
    assert found["late"]["Chapter 4 (77)"] == "1.5"


def test_export_into_a_file(graded: CourseCopy) -> None:
    found, _ = exported(graded, "--output", "grades-moodle.csv")
    assert found == {}
    assert "Zoë" in (graded.root / "grades-moodle.csv").read_text("utf-8")


def by_nbgrader(course: CourseCopy, exporter: str, *more: str) -> subprocess.CompletedProcess[str]:
    name = f"--exporter=autograder.record.export.{exporter}"
    return course.run("nbgrader", "export", name, *more)


@pytest.mark.parametrize(
    ("exporter", "target"), [("MoodleExporter", "moodle"), ("CanvasExporter", "canvas")]
)
def test_the_command_of_nbgrader_writes_the_same_file(
    graded: CourseCopy, exporter: str, target: str
) -> None:
    column = f"{ASSIGNMENT}=Chapter 4 (77)"
    graded.succeed(
        "autograder",
        "export",
        ASSIGNMENT,
        "--to",
        target,
        "--output",
        "own.csv",
        "--column",
        column,
    )
    done = by_nbgrader(graded, exporter, "--to", "same.csv", f"--{exporter}.columns={column}")
    assert done.returncode == 0, done.stderr
    assert "nobody has read yet count 0 points so far: late" in done.stderr
    assert (graded.root / "same.csv").read_bytes() == (graded.root / "own.csv").read_bytes()


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--assignment=['ch9']", "the gradebook does not know ch9"),
        ("--student=['late']", "every student is exported: take --student away"),
        ("--to=no/where", "no/where cannot be written: No such file or directory"),
    ],
)
def test_a_wrong_call_of_nbgrader_is_one_line_and_writes_nothing(
    graded: CourseCopy, option: str, said: str
) -> None:
    done = by_nbgrader(graded, "MoodleExporter", option)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == said
    assert not (graded.root / "grades.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((ASSIGNMENT, "--to", "blackboard"), "--to blackboard: there are exports to moodle"),
        ((ASSIGNMENT, "--to", "canvas", "--column", "ch4"), "say ASSIGNMENT=NAME"),
        ((ASSIGNMENT, "--to", "canvas", "--column", "ch4=x"), "ch4: that assignment is not"),
        (("ch9", "--to", "canvas"), "there is no assignment ch9 in"),
        ((ASSIGNMENT, "--to", "canvas", "--output", "no/where"), "no/where cannot be written"),
    ],
)
def test_a_wrong_call_is_one_line(
    graded: CourseCopy, arguments: tuple[str, ...], said: str
) -> None:
    done = graded.run("autograder", "export", *arguments)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]
