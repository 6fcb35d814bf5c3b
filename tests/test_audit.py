"""The audit: its tables are sound, its verdicts hold, and its report is current."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
from submissions import ASSIGNMENT, ROOT

from autograder import audit
from autograder.audit import EQUIVALENT, MUTANT, SEED, Audit, Check, Outcome, Tables, Trial, judge
from autograder.course import Course
from autograder.engine.results import CellResult, CheckResult, NotebookResult
from autograder.errors import UserError

REPORT = ROOT / "docs" / "validity.md"


@pytest.fixture(scope="module")
def tables() -> Tables:
    """The tables of chapter 4."""
    return Tables(Course.at(ROOT), ASSIGNMENT)


@pytest.fixture(scope="module")
def trials(tables: Tables) -> list[Trial]:
    return tables.trials()


def test_every_solution_cell_has_ten_mutants(tables: Tables, trials: list[Trial]) -> None:
    counts = Counter(trial.cell for trial in trials if trial.kind == MUTANT)
    cells = [cell for solutions in tables.sources.values() for cell in solutions]
    assert len(cells) == 39
    assert [cell for cell in cells if counts[cell] < 10] == []


def test_every_check_is_demanded_of_a_mutant(tables: Tables) -> None:
    assert audit.expected(tables, list(tables.checks)).never_killed == []


def test_every_mutant_fails_something_and_says_what_the_hint_is(trials: list[Trial]) -> None:
    mutants = [trial for trial in trials if trial.kind == MUTANT]
    assert [trial.title for trial in mutants if not trial.fails or not trial.hint] == []


def test_there_are_sixty_equivalents_and_fifty_seeds(trials: list[Trial]) -> None:
    equivalents = {(t.name, t.notebook) for t in trials if t.kind == EQUIVALENT}
    assert len(equivalents) >= 60
    seeds = Counter(trial.notebook for trial in trials if trial.kind == SEED)
    assert len(seeds) == 5
    assert min(seeds.values()) >= 50


def test_no_two_trials_hand_in_the_same(trials: list[Trial]) -> None:
    handed_in = Counter(
        (t.notebook, tuple(sorted(t.sources.items())), t.insert, t.move, t.files) for t in trials
    )
    assert [key[0] for key, count in handed_in.items() if count > 1] == []


@pytest.fixture
def recorded(tables: Tables) -> Audit:
    """What the audit of the notebooks that the report has must have found."""
    audited = re.findall(r"^## (\S+)$", REPORT.read_text("utf-8"), re.MULTILINE)
    return audit.expected(tables, audited)


def test_the_report_is_current(recorded: Audit) -> None:
    assert REPORT.read_text(encoding="utf-8") == audit.report(recorded), "run `make audit`"


def test_the_readme_has_the_figures_of_the_report(recorded: Audit) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, value in audit.figures(recorded):
        assert f"| {name} | {value} |" in readme


def test_every_notebook_has_been_audited(tables: Tables, recorded: Audit) -> None:
    assert list(recorded.checks) == list(tables.checks)


# -- tables ------------------------------------------------------------------------------------

ROW = '[[mutant]]\nname = "a"\ncells = ["ofe-04-edge-filter"]\nhint = "."\n'


@pytest.fixture
def course(tmp_path: Path) -> Course:
    """A course with the notebooks of chapter 4 and no table."""
    for folder in ("source", "release"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    shutil.copy(ROOT / "nbgrader_config.py", tmp_path)
    (tmp_path / "tests" / "validity" / "ch4_cnn").mkdir(parents=True)
    return Course.at(tmp_path)


def write(course: Course, text: str) -> Tables:
    """The tables of a course with this one file."""
    (course.root / "tests" / "validity" / "ch4_cnn" / "t.toml").write_text(text, encoding="utf-8")
    return Tables(course, ASSIGNMENT)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[[mutant]", "t.toml is not TOML"),
        ("[[wrong]]", "there is no table wrong"),
        ('[[mutant]]\ncells = ["ofe-04-edge-filter"]', "name"),
        ('[[mutant]]\nname = "a"\ncells = ["ofe-99"]', "no graded solution cell ofe-99"),
        ('[[mutant]]\nname = "a"\nnotebook = "9-none"', "no notebook 9-none"),
        (f"{ROW}colour = 3", "colour"),
        (f'{ROW}swap = [["/ 24.0", "/ 25.0"]]', "holds no '/ 24.0'"),
        (f'{ROW}fails = ["test_nothing"]', "no check test_nothing"),
        (f'{ROW}fails = ["ofe-05-graph-check::test_shape"]', "no check ofe-05-graph-check::"),
        (f"{ROW}{ROW}", "two trials are called a in ofe-04-edge-filter"),
        ('[[seeds]]\ncell = "ofe-04-edge-filter"', "cell, count and code"),
    ],
)
def test_a_table_that_names_what_is_not_there_is_refused(
    course: Course, text: str, why: str
) -> None:
    with pytest.raises(UserError, match=why.replace("[", r"\[")):
        write(course, text).trials()


def test_an_assignment_without_a_table_says_what_to_do(course: Course) -> None:
    with pytest.raises(UserError, match=r"writing-checks\.md"):
        Tables(course, ASSIGNMENT)


def test_a_row_is_tried_with_each_of_its_cells(course: Course) -> None:
    row = '[[mutant]]\nname = "a"\ncells = ["ofe-04-edge-filter", "oce-03-edge-filter"]\n'
    found = write(course, f'{row}swap = [["/ 23.0", "/ 25.0"]]\nfails = ["test_scale"]').trials()
    assert [(t.notebook[0], t.cell, sorted(t.fails)) for t in found] == [
        ("1", "ofe-04-edge-filter", ["ofe-04-edge-filter-check::test_scale"]),
        ("2", "oce-03-edge-filter", ["oce-03-edge-filter-check::test_scale"]),
    ]
    assert all("/ 25.0" in t.sources[t.cell] and "/ 23.0" not in t.sources[t.cell] for t in found)


def test_cells_left_unwritten_may_fail(course: Course) -> None:
    row = '[[mutant]]\nname = "a"\ncells = ["mdc-03-graph"]\nprepend = "1"\n'
    rest = '[[unfinished]]\ncells = ["mdc-03-graph"]\nleft = ["mdc-08-resume"]\nexcept = ["b"]\n'
    one, other = write(course, row + row.replace('"a"', '"b"') + rest).trials()
    assert "not done yet" in one.sources["mdc-08-resume"]
    assert {key.partition("::")[0] for key in one.may} == {"mdc-08-resume-check"}
    assert "mdc-08-resume" not in other.sources
    assert not other.may


# -- verdicts ----------------------------------------------------------------------------------


def result(status: str = "graded", **passed: bool) -> NotebookResult:
    """A notebook of one grade cell with these checks."""
    checks = [
        CheckResult(name, name, ok, "" if ok else f"about {name}") for name, ok in passed.items()
    ]
    return NotebookResult("n", status, "gone", [CellResult("c-check", 2.0, checks)])  # type: ignore[arg-type]


def trial(*fails: str, **more: object) -> Trial:
    """A mutant that must fail these checks."""
    keys = frozenset(f"c-check::{name}" for name in fails)
    return Trial(MUTANT, "m", "", "n", "c", fails=keys, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wanted", "found", "misses"),
    [
        (trial("a"), result(a=False, b=True), []),
        (trial("a"), result(a=True, b=True), ["c-check::a passes"]),
        (trial("a"), result(a=False, b=False), ["c-check::b fails (about b)"]),
        (trial("a", may=frozenset({"c-check::b"})), result(a=False, b=False), []),
        (trial("b", hint="about b"), result(a=True, b=False), []),
        (
            trial("b", hint="kernel"),
            result(a=True, b=False),
            ["the first hint is 'about b', which does not say 'kernel'"],
        ),
        (trial(), result("failed", a=False), ["was not graded: gone"]),
    ],
)
def test_a_verdict_names_what_is_otherwise(
    wanted: Trial, found: NotebookResult, misses: list[str]
) -> None:
    assert judge(wanted, found).misses == misses


def test_a_check_that_nothing_fails_is_a_miss() -> None:
    checks = {"n": [Check("c-check", "a", "A"), Check("c-check", "b", "B")]}
    found = Audit("x", checks, [Outcome(trial("a"), ["c-check::a"], [])])
    assert found.misses == ["c-check::b: no mutant fails it"]
    assert json.loads(json.dumps(found.to_json()))["never_killed"] == ["c-check::b"]


BOTH = ["c-check::a", "c-check::b"]


def test_the_report_shows_who_fails_what() -> None:
    checks = {"n": [Check("c-check", "a", "It is a"), Check("c-check", "b", "It is b")]}
    outcomes = [
        Outcome(trial("a"), ["c-check::a"], []),
        Outcome(trial("a", "b"), BOTH, []),
    ]
    text = audit.report(Audit("x", checks, outcomes))
    assert "| It is a | ✗ | ✗ |" in text
    assert "| It is b |   | ✗ |" in text
    assert "2 of 2 (100 %)" in text


def test_the_report_marks_nothing_that_the_tables_leave_open() -> None:
    checks = {"n": [Check("c-check", "a", "It is a"), Check("c-check", "b", "It is b")]}
    mutant = trial("a", may=frozenset({"c-check::b"}))
    of = [Audit("x", checks, [Outcome(mutant, keys, [])]) for keys in (["c-check::a"], BOTH)]
    assert audit.report(of[0]) == audit.report(of[1])
    assert of[1].never_killed == ["c-check::b"]
