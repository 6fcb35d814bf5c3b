"""A course has a single secret, even under races, and no notebook can read the course root."""

from __future__ import annotations

import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from autograder.course import Course
from autograder.engine import pool
from autograder.engine.pool import Engine
from autograder.errors import UserError

pytestmark = pytest.mark.kernel


@pytest.fixture
def course(tmp_path: Path) -> Course:
    (tmp_path / "nbgrader_config.py").touch()
    return Course.at(tmp_path)


def test_two_who_ask_at_once_get_the_same_secret(
    course: Course, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second process asks while the first draws a secret, and finishes before it."""
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


@pytest.fixture
def among_pythons_folders() -> Iterator[Path]:
    """A folder within Python's own, which every kernel may read."""
    folder = Path(tempfile.mkdtemp(prefix="kit-course-", dir=sys.prefix))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_a_course_that_kernels_could_read_is_not_graded(among_pythons_folders: Path) -> None:
    config = among_pythons_folders / "nbgrader_config.py"
    config.touch()
    with (
        Engine(Course.at(among_pythons_folders), jobs=1) as engine,
        pytest.raises(UserError, match=rf"student code could read {config}\); move the course"),
    ):
        engine.ready()


def test_a_course_elsewhere_is(course: Course) -> None:
    with Engine(course, jobs=1) as engine:
        assert "Landlock" in engine.ready()


def test_a_course_whose_protection_could_not_be_tried_out_is_not_told_to_move(
    course: Course, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "refused", lambda warm, level, private: "the probe timed out")
    said = r"not be tried out, .*\(the probe timed out\); run the command again$"
    with Engine(course, jobs=1) as engine, pytest.raises(UserError, match=said):
        engine.ready()
