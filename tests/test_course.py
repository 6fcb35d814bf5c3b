"""A course has one secret, whoever asks for it first."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from autograder.course import Course
from autograder.errors import UserError


@pytest.fixture
def course(tmp_path: Path) -> Course:
    (tmp_path / "nbgrader_config.py").touch()
    return Course.at(tmp_path)


def test_two_who_ask_at_once_get_the_same_secret(
    course: Course, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another asks while the first is drawing, and is done before it."""
    draw, of_the_other = secrets.token_bytes, []

    def interrupted(size: int) -> bytes:
        monkeypatch.setattr(secrets, "token_bytes", draw)
        of_the_other.append(course.secret())
        return draw(size)

    monkeypatch.setattr(secrets, "token_bytes", interrupted)
    assert [course.secret()] == of_the_other
    assert course.secret() == of_the_other[0]
    assert [path.name for path in course.private.iterdir()] == ["secret"]


def test_only_the_grader_reads_the_secret(course: Course) -> None:
    course.secret()
    assert (course.private / "secret").stat().st_mode & 0o777 == 0o600


def test_a_damaged_secret_is_told(course: Course) -> None:
    (course.private / "secret").write_bytes(b"short")
    with pytest.raises(UserError, match=r"secret is damaged; delete it to draw a new secret"):
        course.secret()
