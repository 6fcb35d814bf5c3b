"""The audit: its tables are valid, its verdicts right, and its report current."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Generator, Iterable
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from rich.console import Console

from autograder.audit import report, run
from autograder.audit.demands import TABLE, Demand, read_demands
from autograder.audit.outcomes import Audit, Outcome, judge
from autograder.audit.run import SAMPLE, sample
from autograder.audit.tables import Tables
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
from autograder.course import Course
from autograder.engine.grade import Graded, Job
from autograder.engine.pool import Engine
from autograder.engine.results import CellResult, CheckResult, NotebookResult, Status
from autograder.errors import UserError
from support.submissions import ASSIGNMENT, ROOT

NOTEBOOK = "1-orenist-filter"
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
    assert run.expected(tables, list(tables.checks)).never_killed == []


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
    """The expected audit of the notebooks in the report."""
    text = REPORT.read_text("utf-8")
    audited = re.findall(r"^## (\S+)$", text, re.MULTILINE)
    some = re.search(r"^every one of (.+) was tried", text, re.MULTILINE)
    parts = re.findall(r"`(\S+)`", some[1]) if some else []
    whole = audited if "every one was tried" in text else parts
    return run.expected(tables, audited, whole)


def test_the_report_is_current(recorded: Audit) -> None:
    assert REPORT.read_text(encoding="utf-8") == report.report(recorded), (
        "run the command that the report names"
    )


def test_the_readme_has_the_figures_of_the_report(recorded: Audit) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, value in report.figures(recorded):
        assert f"| {name} | {value} |" in readme


def test_every_notebook_has_been_audited(tables: Tables, recorded: Audit) -> None:
    assert list(recorded.checks) == list(tables.checks)


# -- tables ------------------------------------------------------------------------------------

EXPLAINED = """
[[survivor]]
cells = ["fig-4-3-neighbourhood-sum"]
changes = ["leave out a call: return float(np.sum(patch * kernel)) → return np.sum(patch * kernel)"]
reason = "it is a float all the same"
"""
ROW = '[[mutant]]\nname = "a"\ncells = ["ofe-04-edge-filter"]\nhint = "."\n'


@pytest.fixture
def course(tmp_path: Path) -> Course:
    """A course with the notebooks of chapter 4 and no tables."""
    for folder in ("source", "release"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    shutil.copy(ROOT / "nbgrader_config.py", tmp_path)
    (tmp_path / "tests" / "validity" / "ch4_cnn").mkdir(parents=True)
    return Course.at(tmp_path)


def write(course: Course, text: str) -> Tables:
    """The tables of a course with this one file, and the demands of the notebooks."""
    folder = course.root / "tests" / "validity" / "ch4_cnn"
    (folder / "t.toml").write_text(text, encoding="utf-8")
    shutil.copy(ROOT / "tests" / "validity" / "ch4_cnn" / TABLE, folder)
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
        ('[[survivor]]\ncells = ["ofe-04-edge-filter"]', "cells, changes and reason"),
        (f"{EXPLAINED}{EXPLAINED}", "explained twice"),
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


# -- demands of the notebooks --------------------------------------------------------------------

HALVE = Check("halve-check", "test_values", "Each pixel is the largest of its block")
SHOW = Check("show-check", "test_figure", "The picture is there")
WORDS = "**Write** `halve`, which keeps the largest"
HALVE_ROW = f'"{WORDS}" = ["test_values"]'
SHOW_ROW = '"**Write** `fig`." = ["test_figure"]'


def demands(folder: Path, halve: str = HALVE_ROW, show: str = SHOW_ROW) -> list[Demand]:
    """The demands of a notebook with two grade cells, from these rows."""
    new = nbformat.v4
    release = new.new_notebook(
        cells=[
            new.new_markdown_cell(
                "**Write** `halve`, which keeps the\nlargest of each block, and print it.",
                id="halve-text",
            ),
            new.new_code_cell('# TODO: keep the largest\nraise Exception("TODO")', id="halve"),
            _grade_cell("halve-check", 'expect_array("halved", (14, 14))'),
            new.new_markdown_cell("**Write** `fig`.", id="show-text"),
            _grade_cell("show-check", 'needs("fig")'),
        ]
    )
    path = folder / TABLE
    path.write_text(f"[halve-check]\n{halve}\n[show-check]\n{show}\n", encoding="utf-8")
    return read_demands(path, {"n": release}, {"n": [HALVE, SHOW]})


def _grade_cell(name: str, source: str) -> nbformat.NotebookNode:
    mark = {"grade": True, "grade_id": name, "solution": False}
    return nbformat.v4.new_code_cell(source, id=name, metadata={"nbgrader": mark})


def test_where_a_notebook_asks_for_something_is_found(tmp_path: Path) -> None:
    halve = (
        f'"and print it" = "read by nobody"\n{HALVE_ROW}\n'
        '"the largest" = ["test_values"]\n'
        '\'expect_array("halved", (14, 14))\' = ["test_values"]'
    )
    text = ("halve-text", WORDS)
    stub, visible = (
        ("halve", "the largest"),
        ("halve-check", 'expect_array("halved", (14, 14))'),
    )
    assert demands(tmp_path, halve) == [
        Demand("n", "halve-check", HALVE, (text, stub, visible)),
        Demand("n", "halve-check", None, (("halve-text", "and print it"),), "read by nobody"),
        Demand("n", "show-check", SHOW, (("show-text", "**Write** `fig`."),)),
    ]


@pytest.mark.parametrize(
    ("halve", "why"),
    [
        ("", "demands.toml, halve-check: no row has test_values, “Each pixel is the largest"),
        ('"and print it" = "read by nobody"', "no row has test_values"),
        (HALVE_ROW.replace("largest", "mean"), "n does not say '**Write** `halve`, which keeps"),
        (HALVE_ROW.replace("largest", "large"), "n does not say"),
        (HALVE_ROW.replace(WORDS, "**Write** `fig`."), "n does not say '**Write** `fig`.' up to"),
        (HALVE_ROW.replace(WORDS, ""), "n does not say ''"),
        (f'{HALVE_ROW}\n"and print it" = ["test_print"]', "there is no check test_print"),
        (f'{HALVE_ROW}\n"and print it" = ["test_figure"]', "there is no check test_figure"),
        (f'{HALVE_ROW}\n"and print it" = []', "name the checks that look at it, or say why none"),
        (f"{HALVE_ROW}\n[draw-check]\n{SHOW_ROW}", "there is no grade cell draw-check"),
        ("and print it", "demands.toml is not TOML"),
    ],
)
def test_a_demand_that_text_and_checks_do_not_share_is_refused(
    tmp_path: Path, halve: str, why: str
) -> None:
    with pytest.raises(UserError, match=re.escape(why)):
        demands(tmp_path, halve)


def test_every_check_of_the_chapter_looks_at_what_its_notebook_asks(tables: Tables) -> None:
    checks = [check for of in tables.checks.values() for check in of]
    assert [demand.check for demand in tables.demands if demand.check] == checks
    assert len(checks) > 150


def test_a_notebook_that_loses_its_words_is_refused(course: Course) -> None:
    path = course.release(ASSIGNMENT) / f"{NOTEBOOK}.ipynb"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("divided by **23.0**", "scaled"), encoding="utf-8")
    with pytest.raises(UserError, match=r"ofe-04-edge-filter-check: .* does not say 'All weights"):
        write(course, "")


def test_an_assignment_that_lists_no_demands_says_what_to_do(course: Course) -> None:
    write(course, "")
    (course.root / "tests" / "validity" / "ch4_cnn" / TABLE).unlink()
    with pytest.raises(UserError, match=r"has no demands\.toml, .*writing-checks\.md"):
        Tables(course, ASSIGNMENT)


# -- generated variants --------------------------------------------------------------------------

SOLUTION = "fig-4-3-neighbourhood-sum"


@pytest.fixture(scope="module")
def variants(tables: Tables) -> list[Trial]:
    return tables.variants()


def test_every_solution_cell_has_variants(tables: Tables, variants: list[Trial]) -> None:
    for kind in SAMPLE:
        counts = Counter(trial.cell for trial in variants if trial.kind == kind)
        cells = [cell for solutions in tables.sources.values() for cell in solutions]
        assert [cell for cell in cells if counts[cell] < 5] == []
        assert counts.total() >= {MUTATION: 1500, REWRITING: 500}[kind]


def test_no_two_variants_have_one_name(variants: list[Trial]) -> None:
    counts = Counter((trial.kind, trial.cell, trial.name) for trial in variants)
    assert set(counts.values()) == {1}


def test_an_own_cell_stands_beside_a_solution(variants: list[Trial]) -> None:
    of = {t.name: t.insert for t in variants if t.cell == SOLUTION and t.insert}
    assert {name: place for name, ((place, _),) in of.items()} == {
        "an own cell before": "fig-4-3-patch",
        "an own cell after": SOLUTION,
    }


def test_the_sample_is_the_same_whatever_else_is_tried(variants: list[Trial]) -> None:
    drawn = sample(variants)
    assert {trial.title for trial in sample(variants[::-1])} == {trial.title for trial in drawn}
    left = sample([trial for trial in variants if trial is not drawn[0]])
    assert len({trial.title for trial in drawn} - {trial.title for trial in left}) == 1


def test_the_sample_is_drawn_evenly_from_all_cells(variants: list[Trial]) -> None:
    for kind, count in SAMPLE.items():
        counts = Counter(trial.cell for trial in sample(variants) if trial.kind == kind)
        assert counts.total() == count
        assert len(counts) == 39
        assert max(counts.values()) - min(counts.values()) <= 1


def test_another_seed_draws_another_sample(
    variants: list[Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {trial.title for trial in sample(variants)}
    monkeypatch.setattr(run, "SAMPLE_SEED", run.SAMPLE_SEED + 1)
    assert len(before - {trial.title for trial in sample(variants)}) > len(before) / 2


def test_an_explained_mutation_may_keep_full_marks(course: Course) -> None:
    tables = write(course, EXPLAINED)
    for _ in range(2):  # reading the tables twice must work
        tables.trials()
    explained = [trial for trial in tables.variants() if trial.fate == SURVIVES]
    assert [(t.cell, t.about) for t in explained] == [(SOLUTION, "it is a float all the same")]
    assert tables.unknown(explained) == []


def test_an_explanation_of_what_is_not_there_is_reported(course: Course) -> None:
    tables = write(course, EXPLAINED.replace("float(np", "int(np"))
    found = run.expected(tables, ["2-orenist-classification"])
    assert len(found.stale) == 1
    assert found.stale[0] in found.misses
    assert found.stale[0].startswith(f"{SOLUTION}: the tables explain a mutation that there is not")


class Interrupted(Exception):
    """Simulates Ctrl-C."""


class Counting(Engine):
    """Gives every notebook no points, and is interrupted after `left` notebooks."""

    def __init__(self, course: Course, left: int) -> None:
        super().__init__(course, 1)
        self.left, self.graded = left, 0

    def _compute(
        self, todo: Iterable[tuple[Job, str]]
    ) -> Generator[tuple[Job, str, Graded | BaseException], None, None]:
        for job, key in todo:
            if self.graded == self.left:
                raise Interrupted
            self.graded += 1
            yield job, key, Graded(NotebookResult(job.notebook, "graded", "", []), "{}")


def test_all_variants_go_on_where_they_were_interrupted(
    course: Course, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = write(course, "")
    few = [trial for trial in tables.variants() if trial.notebook == NOTEBOOK][:30]
    monkeypatch.setattr(tables, "variants", lambda: few)
    first, second = Counting(course, 17), Counting(course, 100)
    quiet = Console(quiet=True)
    with pytest.raises(Interrupted):
        run.audit(tables, [NOTEBOOK], first, 1, quiet, [NOTEBOOK])
    found = run.audit(tables, [NOTEBOOK], second, 1, quiet, [NOTEBOOK])
    assert (first.graded, second.graded) == (17, 13)
    assert len(found.outcomes) == found.made[MUTATION][NOTEBOOK] == 30
    assert found.whole == [NOTEBOOK]


# -- verdicts ----------------------------------------------------------------------------------


def result(status: Status = "graded", **passed: bool) -> NotebookResult:
    """A notebook result of one grade cell with these checks."""
    checks = [
        CheckResult(name, name, ok, "" if ok else f"about {name}") for name, ok in passed.items()
    ]
    return NotebookResult("n", status, "gone", [CellResult("c-check", 2.0, checks)])


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


@pytest.mark.parametrize(
    ("fate", "passed", "misses"),
    [
        (KILLED, {"a": False}, []),
        (KILLED, {"a": True}, ["keeps full marks; no table explains that"]),
        (
            KILLED,
            {"a": True, "b": False},
            ["loses marks, but only elsewhere (c-check::b); no table explains that"],
        ),
        (SURVIVES, {"a": True}, []),
        (SURVIVES, {"a": False}, ["loses marks in its own cell; is explained as [[survivor]]"]),
        (ELSEWHERE, {"a": True, "b": False}, []),
        (ELSEWHERE, {"a": True}, ["keeps full marks; is explained as [[elsewhere]]"]),
    ],
)
def test_a_mutation_comes_to_the_end_that_is_explained(
    fate: str, passed: dict[str, bool], misses: list[str]
) -> None:
    mutation = replace(trial("a"), kind=MUTATION, fate=fate)
    assert judge(mutation, result("graded", **passed)).misses == misses


def test_a_rewriting_fails_no_check() -> None:
    rewriting = Trial(REWRITING, "r", "", "n", "c")
    assert judge(rewriting, result(a=True)).misses == []
    assert judge(rewriting, result(a=False)).misses == ["c-check::a fails (about a)"]


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
    text = report.report(Audit("x", checks, outcomes))
    assert "| It is a | ✗ | ✗ |" in text
    assert "| It is b |   | ✗ |" in text
    assert "2 of 2 (100 %)" in text


def test_the_report_counts_what_was_made_by_machine() -> None:
    checks = {"n": [Check("c-check", "a", "It is a"), Check("d-check", "b", "It is b")]}
    keys: tuple[list[str], ...] = (["c-check::a"], ["d-check::b"], [])
    outcomes = [
        Outcome(replace(trial("a"), kind=MUTATION, name=f"negate: {n}", about=f"why {n}"), key, [])
        for n, key in enumerate(keys)
    ]
    outcomes.append(Outcome(Trial(REWRITING, "annotate: x", "", "n", "c"), [], []))
    found = Audit("x", checks, outcomes, made={MUTATION: {"n": 3}, REWRITING: {"n": 2}})
    text = report.report(found)
    assert "3 mutations and 2 rewritings;\n3 and 1 of them were tried" in text
    assert "| c | 3 | 1 | 1 | 1 | 1 | 1 |" in text
    assert "| negate | 3 | 1 | 1 | 1 |" in text
    assert "| annotate | 1 | 1 |" in text
    assert "### Survivors\n\nWhy 2:\n\n- c: `negate: 2`\n" in text
    assert "### Marked down only elsewhere\n\nWhy 1:\n\n- c: `negate: 1`\n" in text
    found.made[REWRITING] = {"n": 1}
    assert "\nevery one was tried.\n" in report.report(found)
    found.checks["m"] = []
    found.made[MUTATION]["m"] = 9
    found.outcomes.append(Outcome(Trial(REWRITING, "annotate: y", "", "m", "e"), [], []))
    found.made[REWRITING]["m"] = 5
    text = report.report(found)
    assert "12 mutations and 6 rewritings;\nevery one of `n` was tried, and of the others" in text
    assert "the others 0 and 1, drawn from all cells with the seed" in text


def test_the_report_says_where_a_demand_is_made_and_what_checks_it() -> None:
    check = Check("c-check", "test_a", "It is a")
    asked = [
        Demand("n", "c-check", check, (("c-text", "let it be a"), ("c", "a | b"))),
        Demand("n", "c-check", None, (("c-text", "print it"),), "read by nobody"),
    ]
    text = report.report(Audit("x", {"n": [check]}, [], demands=asked))
    assert (
        "### Asked in c-check\n\n| demand | where it is said | check |\n|---|---|---|\n"
        "| It is a | c-text: “let it be a”<br>c: “a &#124; b” | test_a |\n"
        "|  | c-text: “print it” | none: read by nobody |\n"
    ) in text


def test_the_audit_of_a_notebook_holds_its_own_demands(tables: Tables) -> None:
    found = run.expected(tables, [NOTEBOOK])
    assert {demand.notebook for demand in found.demands} == {NOTEBOOK}
    assert "### Asked in fig-4-2-blur-check" in report.report(found)


def test_the_report_marks_nothing_that_the_tables_leave_open() -> None:
    checks = {"n": [Check("c-check", "a", "It is a"), Check("c-check", "b", "It is b")]}
    mutant = trial("a", may=frozenset({"c-check::b"}))
    of = [Audit("x", checks, [Outcome(mutant, keys, [])]) for keys in (["c-check::a"], BOTH)]
    assert report.report(of[0]) == report.report(of[1])
    assert of[1].never_killed == ["c-check::b"]
