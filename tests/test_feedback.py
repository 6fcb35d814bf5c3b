"""The content of a feedback page, and its order."""

from __future__ import annotations

import os
import re
import sys
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode
from nbgrader.api import Gradebook
from traitlets.config import Config

from autograder.engine.grade import Graded
from autograder.engine.results import CellResult, CheckResult, NotebookResult, SubmissionResult
from autograder.record.feedback import (
    FeedbackExporter,
    about,
    first_cause,
    how_long,
    read_results,
    title,
)
from autograder.record.outputs import grade_cell_outputs
from autograder.record.pages import plain_page
from autograder.service.notices import outcomes

pytestmark = pytest.mark.kernel

FIRST, SECOND = "1-first", "2-second"
EVIL = '</title></li><script>steal()</script><img src=x onerror=steal()>" & 3 < 4'


def check(title: str, hint: str = "") -> CheckResult:
    return CheckResult(f"test_{title}", title, not hint, hint)


def result(reason: str = "") -> SubmissionResult:
    """Two notebooks: one check of the first failed, and the second was not handed in."""
    edge = CellResult("ofe-04-edge-filter-check", 4, [check("a"), check("b", "divide by 23")])
    graph = CellResult("ofe-05-graph-check", 2, [check("c"), check("d")])
    first = NotebookResult(FIRST, "graded", reason, [edge, graph])
    second = NotebookResult(SECOND, "missing", "", [CellResult("oce-03-edge-filter-check", 5)])
    return SubmissionResult("ada", "ch4", [first, second])


def notebook(of: NotebookResult, *texts: str) -> NotebookNode:
    """A notebook with these Markdown cells, followed by its grade cells."""
    cells = [nbformat.v4.new_markdown_cell(text) for text in texts]
    for one in of.cells:
        cell = nbformat.v4.new_code_cell("needs('x')", outputs=grade_cell_outputs(one, of))
        cell.metadata["nbgrader"] = {
            "grade": True,
            "solution": False,
            "grade_id": one.cell,
            "points": one.max_points,
            "score": one.points,
        }
        cells.append(cell)
    return nbformat.v4.new_notebook(cells=cells)


class Parsed(HTMLParser):
    """Elements of a page in their order, with attributes, and the text inside each."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1][0] != "style":
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def page_of(nb: NotebookNode, top: dict[str, Any], late_penalty: float = 0) -> tuple[str, Parsed]:
    marks = {"notebook": FIRST, "score": 4, "max_score": 6, "late_penalty": late_penalty}
    exporter = FeedbackExporter(config=Config({"HTMLExporter": {"sanitize_html": True}}))
    page, _ = exporter.from_notebook_node(nb, {"nbgrader": {**marks, "page": top}})
    return page, Parsed(page)


@pytest.fixture
def graded() -> tuple[str, Parsed]:
    whole = result()
    texts = ("# 1 · A title\n\ntext", "## Setting up\n\n| a | b |\n|---|---|\n| `c` | d |")
    return page_of(notebook(whole.notebooks[0], *texts), about(whole.to_json(), FIRST))


def test_a_reader_is_told_the_language_and_a_phone_its_width(graded: tuple[str, Parsed]) -> None:
    _, page = graded
    assert page.all("html")[0]["lang"] == page.all("body")[0]["lang"] == "en"
    widths = [m["content"] for m in page.all("meta") if m.get("name") == "viewport"]
    assert widths == ["width=device-width, initial-scale=1"]


def test_headings_are_in_order_and_without_pilcrows(graded: tuple[str, Parsed]) -> None:
    page, parsed = graded
    degrees = [int(tag[1]) for tag, _ in parsed.found if re.fullmatch("h[1-6]", tag)]
    assert degrees == [1, 2, 2, 2, 3, 4]
    assert "¶" not in page


def test_the_page_is_small_and_loads_nothing(graded: tuple[str, Parsed]) -> None:
    page, parsed = graded
    assert len(page) < 40_000
    assert not {"script", "link", "iframe", "img"} & {tag for tag, _ in parsed.found}
    assert not re.search(r"@import|url\(", page)


def test_every_link_leads_to_a_place_on_the_page(graded: tuple[str, Parsed]) -> None:
    _, parsed = graded
    places = [attributes["id"] for _, attributes in parsed.found if "id" in attributes]
    assert len(places) == len(set(places))
    links = [attributes["href"] for attributes in parsed.all("a")]
    assert len(links) == 4  # two rows, and two ways back
    assert {str(link)[1:] for link in links} <= set(places)


def test_failed_checks_come_first_and_passed_ones_are_folded(graded: tuple[str, Parsed]) -> None:
    page, parsed = graded
    cell = page[page.index('id="cell-ofe-04') : page.index('id="cell-ofe-05')]
    assert cell.index("✗ b") < cell.index("Hint: divide by 23") < cell.index("<details")
    assert cell.index("<details") < cell.index("1 of 2 checks passed") < cell.index("✓ a")
    assert not any("open" in attributes for attributes in parsed.all("details"))


def test_on_top_stands_what_all_notebooks_are_worth_and_the_first_causes(
    graded: tuple[str, Parsed],
) -> None:
    text = " ".join(graded[1].text.split())
    assert f"{FIRST}: 4 of 6 points" in text
    assert "Student ada" in text.replace("Studentada", "Student ada")
    assert "ch4: 4 of 11 points in all" in text
    assert f"{SECOND} 0 of 5 ✗ points missing This notebook was not handed in." in text
    assert "[OFE-04] edge filter 2 of 4 ✗ points missing divide by 23" in text


def test_a_reason_is_said_once_and_on_top() -> None:
    whole = result(reason="stopped after 60 s")
    _, parsed = page_of(notebook(whole.notebooks[0]), about(whole.to_json(), FIRST))
    assert parsed.text.count("Note: stopped after 60 s.") == 1


@pytest.mark.parametrize("where", ["title", "hint", "note", "reason", "student", "cell note"])
def test_all_words_are_text(where: str) -> None:
    whole = result(reason=EVIL if where == "reason" else "")
    cell = whole.notebooks[0].cells[0]
    if where == "title":
        cell.checks[1].title = cell.checks[0].title = EVIL
    if where == "hint":
        cell.checks[1].hint = EVIL
    if where == "cell note":
        cell.note = EVIL
    known = {"student": EVIL} if where == "student" else {}
    top = about(whole.to_json(), FIRST, known, EVIL if where == "note" else "")
    page, parsed = page_of(notebook(whole.notebooks[0]), top)
    assert not {"script", "img"} & {tag for tag, _ in parsed.found}
    assert "&lt;script&gt;" in page
    assert '" & 3 < 4' in parsed.text


def test_without_results_the_words_of_the_graded_notebook_are_shown() -> None:
    whole = result()
    _, parsed = page_of(
        notebook(whole.notebooks[0]), about({**whole.to_json(), "notebooks": []}, FIRST)
    )
    assert "✗ b\n    Hint: divide by 23" in parsed.text


# -- data from the gradebook -------------------------------------------------------------------

DUE = datetime(2026, 3, 1, 12, 0)


@pytest.fixture(autouse=True)
def _commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nbgrader find alembic, which creates gradebooks, beside Python."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")


def known_of(tmp_path: Path, handed_in: datetime | None, due: datetime | None) -> dict[str, Any]:
    url = f"sqlite:///{tmp_path / 'gradebook.db'}"
    with Gradebook(url) as gradebook:
        gradebook.add_assignment("ch4", duedate=due)
        gradebook.add_notebook(FIRST, "ch4")
        gradebook.add_grade_cell("a-check", FIRST, "ch4", max_score=4, cell_type="code")
        gradebook.add_grade_cell("question", FIRST, "ch4", max_score=3, cell_type="markdown")
        gradebook.add_student("ada", first_name="Ada", last_name="Example")
        gradebook.add_submission("ch4", "ada", timestamp=handed_in)
        auto = gradebook.find_grade("a-check", FIRST, "ch4", "ada")
        auto.auto_score, auto.needs_manual_grade = 3, False
        gradebook.find_submission_notebook(FIRST, "ch4", "ada").late_submission_penalty = 0.5
        gradebook.db.commit()
    return read_results(url, "ada", "ch4")


def test_a_late_submission_is_called_late(tmp_path: Path) -> None:
    known = known_of(tmp_path, datetime(2026, 3, 2, 14, 30), DUE)
    assert known["student"] == "Ada Example"
    assert known["late"] == "1 day 2 hours"
    assert known["points"] == {FIRST: {"score": 2.5, "max_score": 7.0}}
    assert known["waiting"] == {FIRST: {"question": 3.0}}
    whole = result()
    _, parsed = page_of(notebook(whole.notebooks[0]), about(whole.to_json(), FIRST, known), 0.5)
    text = " ".join(parsed.text.split())
    assert "02 March 2026" in text
    assert "late by 1 day 2 hours (due 01 March 2026" in text
    assert "0.5 points, taken off this notebook" in text
    assert "3 points, for answers that a person reads" in text


@pytest.mark.parametrize(
    ("handed_in", "due"),
    [(datetime(2026, 3, 1, 12, 0), DUE), (datetime(2026, 3, 2), None), (None, DUE), (None, None)],
)
def test_what_is_in_time_or_has_no_time_is_not_late(
    tmp_path: Path, handed_in: datetime | None, due: datetime | None
) -> None:
    known = known_of(tmp_path, handed_in, due)
    assert "late" not in known
    assert ("handed_in" in known) == (handed_in is not None)


def test_an_attempt_that_is_in_no_gradebook_has_a_page_too(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'gradebook.db'}"
    assert read_results(url, "nobody", "ch4") == {}


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (1, "1 minute"),
        (150, "2 minutes"),
        (3600, "1 hour"),
        (86400 + 60, "1 day 1 minute"),
        (2 * 86400 + 5 * 3600 + 59, "2 days 5 hours"),
    ],
)
def test_a_duration_has_two_units(seconds: float, said: str) -> None:
    assert how_long(seconds) == said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ofe-04-edge-filter-check", "[OFE-04] edge filter"),
        ("fig-4-3-neighbourhood-sum-check", "[Fig 4-3] neighbourhood sum"),
        ("mdr-08-background", "[MDR-08] background"),
        ("question", "question"),
        ("q1-check", "q1-check"),
    ],
)
def test_a_cell_is_called_by_its_label(name: str, said: str) -> None:
    assert title(name) == said


def test_the_first_cause_is_that_of_the_first_cell_without_all_points() -> None:
    first, second = result().to_json()["notebooks"]
    assert first_cause(first) == "[OFE-04] edge filter: divide by 23"
    assert first_cause(second) == "This notebook was not handed in."
    assert first_cause({**first, "cells": first["cells"][1:]}) == ""


def test_an_answer_that_nobody_has_read_is_not_called_wrong() -> None:
    whole = result()
    nb = notebook(whole.notebooks[0])
    waiting = {FIRST: {"ofe-04-edge-filter-check": 4.0}}
    page, parsed = page_of(nb, about(whole.to_json(), FIRST, {"waiting": waiting}))
    assert 'class="cell graded short"' not in page
    assert '<tr class="short">' not in page[: page.index('id="notebooks"')]
    assert parsed.text.count("(not read yet)") == 2


def test_a_page_without_layout_says_the_same_first() -> None:
    whole = result()
    nb = notebook(whole.notebooks[0])
    top = about(whole.to_json(), SECOND, note="This attempt <does not> count.")
    page = plain_page(nb, {"nbgrader": {"notebook": FIRST, "page": top}}, "takes too long")
    text = Parsed(page).text
    assert text.index("This attempt <does not> count.") < text.index("✗ b")
    assert text.index("This notebook was not handed in.") < text.index("✗ b")


def test_an_attempt_that_does_not_count_says_so_before_anything_else() -> None:
    whole = result()
    graded = {
        one.name: Graded(one, nbformat.writes(notebook(one, "# A title")))
        for one in whole.notebooks
    }
    pages = outcomes(graded, "This attempt <does not> count.", Config())
    assert set(pages) == {FIRST, SECOND}
    text = " ".join(Parsed(pages[FIRST]).text.split())
    assert text.index("This attempt <does not> count.") < text.index("Points in this notebook")
    assert "[OFE-04] edge filter 2 of 4 ✗ points missing divide by 23" in text
    assert "4 of 11" in text
