"""The same checkpoint from several students is reported, whatever the order of grading."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import numpy as np
import pytest

from autograder.course import Course
from autograder.engine.grade import Graded
from autograder.engine.results import NotebookResult
from autograder.engine.submission import tell_tale, tell_tales
from autograder.record.copies import identical_checkpoints, note_tensors, report_copies
from autograder.record.nbgrader_glue import write_results

ASSIGNMENT = "ch4-cnn"


@pytest.fixture
def course(tmp_path: Path) -> Course:
    """A class of five; the tests store the digests of their tensors."""
    (tmp_path / "nbgrader_config.py").touch()
    for student in "abcde":
        (tmp_path / "submitted" / student / ASSIGNMENT).mkdir(parents=True)
    return Course.at(tmp_path)


HELD = {"a": ["1", "2"], "b": ["3"], "c": ["2", "9"], "d": ["4", "9"], "e": []}


def test_all_who_share_a_tensor_are_named_in_whatever_order_they_are_graded(course: Course) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    for order in random.Random(seed).sample(list(itertools.permutations(HELD)), 10):
        for student in order:
            note_tensors(course, ASSIGNMENT, student, HELD[student])
        assert identical_checkpoints(course, ASSIGNMENT) == [{"a", "c", "d"}]


def test_groups_without_anything_in_common_stay_apart(course: Course) -> None:
    for student, held in {"a": "1", "b": "2", "c": "1", "d": "2", "e": "3"}.items():
        note_tensors(course, ASSIGNMENT, student, [held])
    assert identical_checkpoints(course, ASSIGNMENT) == [{"a", "c"}, {"b", "d"}]


def test_the_report_is_there_while_there_is_something_to_report(course: Course) -> None:
    path = course.root / "autograded" / f"identical-checkpoints-{ASSIGNMENT}.json"
    assert report_copies(course, ASSIGNMENT) == []
    assert not path.exists()
    note_tensors(course, ASSIGNMENT, "e", ["7"])
    note_tensors(course, ASSIGNMENT, "b", ["7"])
    assert report_copies(course, ASSIGNMENT) == ["the same checkpoint, bit for bit: b, e"]
    assert json.loads(path.read_text()) == [["b", "e"]]
    note_tensors(course, ASSIGNMENT, "b", ["8"])  # submits again, with their own work
    assert report_copies(course, ASSIGNMENT) == []
    assert not path.exists()


def test_who_has_withdrawn_the_submission_is_not_named(course: Course) -> None:
    note_tensors(course, ASSIGNMENT, "a", ["1"])
    note_tensors(course, ASSIGNMENT, "gone", ["1"])
    assert identical_checkpoints(course, ASSIGNMENT) == []


def test_another_assignment_is_another_matter(course: Course) -> None:
    note_tensors(course, ASSIGNMENT, "a", ["1"])
    note_tensors(course, "ch5", "b", ["1"])
    assert identical_checkpoints(course, ASSIGNMENT) == []


def test_only_what_training_makes_tells_whose_it_is() -> None:
    rng = np.random.default_rng(0)
    trained = rng.normal(size=(20, 20)).astype(np.float32)
    assert tell_tale(trained)
    assert tell_tale(trained) == tell_tale(trained.copy(order="F"))
    other = trained.copy()
    other[3, 4] = np.nextafter(other[3, 4], np.float32(9))
    assert tell_tale(other) != tell_tale(trained)
    assert tell_tale(trained.reshape(-1)) != tell_tale(trained)
    assert tell_tale(np.zeros((50, 50), np.float32)) == ""
    assert tell_tale(np.array(0.5, np.float32)) == ""
    assert tell_tale(np.arange(400)) == ""  # a counter, an index
    assert tell_tale(np.linspace(0, 1, 101, dtype=np.float32)) == ""  # written by hand
    kernel = np.array([1 / 9, 2 / 9, 1 / 7], np.float32)
    assert tell_tale(np.tile(kernel, 100)) == ""  # a filter, repeated
    behind = np.zeros(50_000, np.float32)
    behind[1:13] = trained[0, :12]
    assert tell_tale(behind)  # a few among many


def test_a_small_network_is_told_by_all_its_tensors_together() -> None:
    rng = np.random.default_rng(0)
    small: dict[str, np.ndarray] = {
        "W": rng.normal(size=(2, 3)).astype(np.float32),
        "b": rng.normal(size=3).astype(np.float32),
        "step": np.array(200, np.int64),
    }
    (whole,) = tell_tales(small)
    assert tell_tale(small["W"]) == tell_tale(small["b"]) == ""
    assert tell_tales(dict(reversed(small.items()))) == {whole}
    assert tell_tales({**small, "b": -small["b"]}) not in ({whole}, set())
    assert tell_tales({**small, "W": np.zeros((2, 3), np.float32)}) == set()
    assert tell_tales({}) == set()
    eight = {**small, "c": rng.normal(size=8).astype(np.float32)}
    assert tell_tales(eight) == {tell_tale(eight["c"])}  # recognised in any other checkpoint, too


def test_what_grading_reads_of_a_checkpoint_is_noted_with_the_results(course: Course) -> None:
    for student, tensors in {"a": ["1"], "b": ["2"], "c": ["1", "3"]}.items():
        result = NotebookResult("4-mnist-training", "graded", tensors=tensors)
        write_results(course, student, ASSIGNMENT, {result.name: Graded(result, "{}")})
    assert identical_checkpoints(course, ASSIGNMENT) == [{"a", "c"}]
    for student in "abc":  # no student's results name another student
        text = (course.autograded(student, ASSIGNMENT) / "results.json").read_text()
        assert "identical" not in text
        assert "tensors" not in text
