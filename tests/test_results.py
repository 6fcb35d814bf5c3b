"""Points from checks: partial credit, rounding, and the content of `results.json`."""

from __future__ import annotations

import json
import math
import random

import pytest

from autograder.engine.grade import Graded
from autograder.engine.results import (
    CellResult,
    CheckResult,
    NotebookResult,
    SubmissionResult,
)
from autograder.errors import CannotGrade, GraderFault, UserError, printable_lines


def cell(max_points: float, *weights: float, name: str = "a-check") -> CellResult:
    """A cell result in which checks with a positive weight passed."""
    checks = [
        CheckResult(
            f"test_{i}", f"title {i}", weight > 0, "" if weight > 0 else "hint", abs(weight)
        )
        for i, weight in enumerate(weights)
    ]
    return CellResult(name, max_points, checks)


@pytest.mark.parametrize(
    ("result", "points"),
    [
        (cell(4, 1, 1), 4),
        (cell(4, -1, -1), 0),
        (cell(4, 1, -1), 2),
        (cell(4, 1, -2, -1), 1),
        (cell(4, -1, 2, 1), 3),
        (cell(1, 1, -1, -1), 0.33),
        (cell(1, 1, 1, -1), 0.67),
        (cell(2, 1, 1, -1), 1.33),
        (cell(5, 2, -1, -1, -1, 2), 2.86),
        (cell(0, 1, -1), 0),
        (cell(1, 0.1, -0.2), 0.33),
        (cell(0.5, 1, -1, -1, -1), 0.12),
        (cell(3), 0),
    ],
)
def test_points_are_the_passed_share_of_the_weights(result: CellResult, points: float) -> None:
    assert result.points == points


@pytest.mark.parametrize("count", range(1, 40))
@pytest.mark.parametrize("weight", [0.1, 1 / 3, 0.7, 1, 2.3])
def test_all_passed_is_exactly_everything(count: int, weight: float) -> None:
    assert cell(7, *[weight] * count).points == 7
    assert cell(7, *[-weight] * count).points == 0


def test_points_stay_within_the_cell_and_grow_with_each_check() -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(500):
        most = chance.choice([0, 0.5, 1, 3, 10, chance.randrange(100)])
        weights = [chance.choice([0.5, 1, 2, 3, chance.uniform(0.1, 9)]) for _ in range(8)]
        signs = [chance.choice([-1, 1]) for _ in weights]
        result = cell(most, *(s * w for s, w in zip(signs, weights, strict=True)))
        before = result.points
        assert math.isfinite(before)
        assert 0 <= before <= most
        assert before == round(before, 2)
        failed = next((c for c in result.checks if not c.passed), None)
        if failed is not None:
            failed.passed = True
            assert before <= result.points <= most


def test_scores_are_sums() -> None:
    notebook = NotebookResult("1-a", "graded", "", [cell(1, 1, -1, -1), cell(1, 1, 1, -1)])
    other = NotebookResult("2-b", "missing", "was not handed in", [cell(3)])
    both = SubmissionResult("ada", "ch", [notebook, other])
    assert (notebook.score, notebook.max_score) == (1.0, 2)
    assert (other.score, other.max_score) == (0, 3)
    assert (both.score, both.max_score) == (1.0, 5)
    assert SubmissionResult("ada", "ch", []).score == 0


def test_sums_show_no_binary_fractions() -> None:
    thirds = [cell(1, 1, -1, -1) for _ in range(3)]
    tenths = [cell(0.1, 1) for _ in range(3)]
    assert NotebookResult("n", "graded", "", thirds).score == 0.99
    assert str(NotebookResult("n", "graded", "", tenths).score) == "0.3"


def test_results_json_has_the_agreed_shape() -> None:
    notebook = NotebookResult("1-a", "graded", "stopped", [cell(3, 2, -1)], ["seccomp"])
    result = SubmissionResult("ada", "ch", [notebook])
    assert result.to_json() == {
        "student": "ada",
        "assignment": "ch",
        "score": 2,
        "max_score": 3,
        "sandbox": ["seccomp"],
        "notebooks": [
            {
                "name": "1-a",
                "status": "graded",
                "reason": "stopped",
                "cells": [
                    {
                        "cell": "a-check",
                        "points": 2,
                        "max_points": 3,
                        "checks": [
                            {"id": "test_0", "title": "title 0", "passed": True, "hint": ""},
                            {"id": "test_1", "title": "title 1", "passed": False, "hint": "hint"},
                        ],
                    }
                ],
            }
        ],
    }


@pytest.mark.parametrize("status", ["graded", "failed", "missing"])
def test_a_record_gives_the_same_result_back(status: str) -> None:
    result = NotebookResult("n", status, "why é", [cell(3, 0.25, -2, 1), cell(2)], ["a"])  # type: ignore[arg-type]
    again = NotebookResult.from_record(json.loads(json.dumps(result.to_record())))
    assert again == result
    assert again.score == result.score


def test_a_submission_names_the_weakest_protection_it_ran_under() -> None:
    def under(*layers: str) -> NotebookResult:
        return NotebookResult("n", "graded", sandbox=list(layers))

    result = SubmissionResult("ada", "ch", [under("a", "b", "c"), under(), under("a", "b")])
    assert result.sandbox == ["a", "b"]
    assert SubmissionResult("ada", "ch", [under()]).sandbox == []


@pytest.mark.parametrize("broken", [{}, {"name": "n"}, {"name": "n", "status": "graded"}])
def test_a_damaged_record_is_noticed(broken: dict[str, str]) -> None:
    with pytest.raises(KeyError):
        NotebookResult.from_record(broken)


def test_a_note_is_in_the_json_only_where_there_is_one() -> None:
    plain, noted = cell(2, 1), cell(3, 1)
    noted.note = "checked otherwise"
    first, second = NotebookResult("n", "graded", "", [plain, noted]).to_json()["cells"]
    assert "note" not in first
    assert second["note"] == "checked otherwise"


def test_digests_of_tensors_are_remembered_and_not_shown() -> None:
    result = NotebookResult("n", "graded", "", [cell(2, 1)], [], ["0f3a"])
    assert NotebookResult.from_record(json.loads(json.dumps(result.to_record()))) == result
    assert "0f3a" not in json.dumps(result.to_json())


HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202eevil\u2066\r\x00é 한\tend\nnext"
SHOWN = "?]0;owned??[2J?31m?evil???é 한\tend\nnext"


def test_what_is_shown_holds_no_control_characters() -> None:
    check = CheckResult("test_it", "It is right", False, HOSTILE)
    notebook = NotebookResult("nb", "graded", HOSTILE, [CellResult("a", 1, [check], HOSTILE)])
    assert (check.hint, notebook.cells[0].note, notebook.reason) == (SHOWN, SHOWN, SHOWN)
    assert Graded(notebook, "", HOSTILE).log == SHOWN
    again = NotebookResult.from_record(notebook.to_record())
    assert again.cells[0].checks[0].hint == SHOWN
    for error in (UserError, CannotGrade, GraderFault):
        assert str(error(HOSTILE)) == SHOWN


def test_lines_and_letters_of_all_languages_stay() -> None:
    text = "Ein Bär\n\n한국어\t…\n  indented\r\nnext"
    assert printable_lines(text) == text.replace("\r\n", "\n")
    assert printable_lines("") == ""
