"""Refusals by the machine, the account or the disk give one line and exit status 2."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from autograder.course import Course
from autograder.data import mnist
from autograder.engine.pool import Engine
from autograder.machine import explained
from support.exchange import Scripted, template
from support.submissions import ASSIGNMENT, NOTEBOOKS, ROOT, CourseCopy

pytestmark = pytest.mark.course

AS_ROOT = os.geteuid() == 0
GRADE = ("autograder", "grade", ASSIGNMENT)
EXPORT = ("autograder", "export", ASSIGNMENT, "--to", "moodle")
RELEASE = ("autograder", "release", ASSIGNMENT, "--no-solutions")
SERVICE = (sys.executable, "-m", "autograder.service")


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """The single line, without a traceback, that a refusing command prints."""
    assert (done.returncode, done.stdout.strip()) == (2, ""), done.stderr
    # The service also prints this line of its log.
    (line,) = [x for x in done.stderr.splitlines() if " CRITICAL Unwritable directory" not in x]
    assert line.startswith("autograder: ")
    return line.removeprefix("autograder: ")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> CourseCopy:
    return template(tmp_path_factory.mktemp("template"))


@pytest.fixture
def course(tmp_path: Path, original: CourseCopy) -> CourseCopy:
    """A course of the first notebook, with one submission."""
    shutil.copytree(original.root, tmp_path / "course")
    course = CourseCopy(tmp_path / "course")
    course.untouched("ada")
    return course


# --- the messages ---


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(errno.EACCES, "denied", "/c/a"), "/c/a cannot be used: it is not for"),
        (PermissionError(errno.EPERM, "no"), "a file cannot be used: it is not for this account"),
        (OSError(errno.EROFS, "read-only", "/c"), "/c cannot be used: its file system is read"),
        (OSError(errno.ENOSPC, "full", "/c/b"), "a disk is full, there is no room for /c/b (left"),
        (OSError(errno.EDQUOT, "quota"), "a disk is full, there is no room (left: "),
        (OSError(errno.EMFILE, "many"), "a file cannot be used: too many files are open"),
        (OSError(errno.EIO, "io", "/c"), "/c cannot be used: the disk does not read or write it"),
        (NotADirectoryError(errno.ENOTDIR, "no", "/c/x"), "/c/x cannot be used: there is a file"),
        (OSError(errno.EACCES, "no", "/c/\x1b[2Jevil\n"), "/c/?[2Jevil cannot be used"),
        (MemoryError(), "memory ran out"),
        (FileNotFoundError(2, "No usable temporary directory found in ['/tmp']"), "no temporary"),
        (RuntimeError("can't start new thread"), "this account may start no more processes"),
        ("(sqlite3.OperationalError) database is locked\n[SQL: …]", "gradebook.db cannot be used"),
        ("sqlite3.OperationalError: attempt to write a readonly database", "gradebook.db cannot"),
        ("x\n(sqlite3.OperationalError) database or disk is full\ny", "a disk is full, there is"),
        ("first\nOSError: [Errno 28] No space left on device: '/c/d'\nlast", "a disk is full"),
        ("[Errno 13] Permission denied: '/a'\n[Errno 28] No space left: '/b'", "a disk is full"),
        # Our own faults are not explained away.
        (FileNotFoundError(errno.ENOENT, "No such file", "/c/a"), ""),
        (ValueError("28"), ""),
        (KeyError("gradebook"), ""),
        ("(sqlite3.OperationalError) no such table: grade", ""),
    ],
)
def test_an_error_of_the_machine_is_told_in_words(error: BaseException | str, said: str) -> None:
    line = explained(error)
    assert line.startswith(said) if said else line == ""
    assert "\n" not in line


# --- the gradebook ---


@pytest.mark.parametrize("how", ["noise", "cut", "folder"])
@pytest.mark.parametrize("command", [GRADE, EXPORT, RELEASE, SERVICE], ids=lambda c: c[-1])
def test_a_damaged_gradebook(course: CourseCopy, command: tuple[str, ...], how: str) -> None:
    path = course.root / "gradebook.db"
    whole = path.read_bytes()
    path.unlink()
    if how == "folder":
        path.mkdir()
    else:
        path.write_bytes(whole[:50_000] if how == "cut" else b"x" * len(whole))
    released = sorted((course.root / "release").rglob("*"))
    done = course.run(*command, JUPYTERHUB_SERVICE_URL="http://127.0.0.1:1")
    line = one_line(done)
    assert line.startswith(f"{path} cannot be used: ")
    assert ("it is a folder" if how == "folder" else "restore it from a backup") in line
    # The previous release is still there.
    assert sorted((course.root / "release").rglob("*")) == released
    if how == "cut":
        assert path.read_bytes() == whole[:50_000]


# --- the course's own notebooks ---


@pytest.mark.parametrize("text", ["<<<<<<< HEAD\n", "[]", "{}", ""])
@pytest.mark.parametrize("folder", ["source", "release"])
def test_a_notebook_of_the_course_that_is_none(course: CourseCopy, folder: str, text: str) -> None:
    path = course.root / folder / ASSIGNMENT / f"{NOTEBOOKS[0]}.ipynb"
    other = course.root / "release" / ASSIGNMENT / "ORENIST.data"
    path.write_text(text, "utf-8")
    for command in (GRADE, RELEASE) if folder == "source" else (GRADE,):
        assert one_line(course.run(*command)).startswith(f"{path} is no notebook any more (")
    assert other.exists()  # nbgrader removes a release that it fails to generate


# --- the configuration ---


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("c = get_config(\n", "nbgrader_config.py, line 1 stops with SyntaxError: "),
        ("import nothing_like_it\n", "nbgrader_config.py stops with ModuleNotFoundError: "),
        ("c = get_config()\nc.CourseDirectory.course_id = 5\n", "nbgrader_config.py: "),
    ],
)
@pytest.mark.parametrize("command", [GRADE, EXPORT, SERVICE], ids=lambda c: c[-1])
def test_a_mistake_in_the_configuration(
    course: CourseCopy, command: tuple[str, ...], text: str, said: str
) -> None:
    (course.root / "nbgrader_config.py").write_text(text, "utf-8")
    done = course.run(*command, JUPYTERHUB_SERVICE_URL="http://127.0.0.1:1")
    assert one_line(done).startswith(f"{course.root}/{said}")


# --- the account ---

# Runs the command under an unknown user id, without a home.
UNKNOWN = """
import os, pwd, sys
del os.environ["HOME"]
def nobody(uid): raise KeyError(uid)
pwd.getpwuid = nobody
from autograder.cli import main
sys.argv[:] = sys.argv[1:]
main()
"""
# Runs the command under an account that does not own the course, since root may do everything.
STRANGER = """
import os, sys
import autograder.grading, autograder.record.copies, autograder.record.export
from autograder.cli import main
os.chdir(sys.argv.pop(1))
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
sys.argv[:] = sys.argv[1:]
main()
"""


def test_an_account_without_a_home_needs_none(course: CourseCopy) -> None:
    done = course.run(sys.executable, "-c", UNKNOWN, *EXPORT)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Username,")


@pytest.fixture
def public(course: CourseCopy) -> Iterator[CourseCopy]:
    """The course in a folder that every account can enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    root = Path(shutil.move(course.root, folder / "course"))
    root.chmod(0o755)
    yield CourseCopy(root)
    shutil.rmtree(folder)


@pytest.mark.parametrize("closed", [".autograder", "", "gradebook.db"])
@pytest.mark.parametrize("command", [GRADE, EXPORT], ids=lambda c: c[1])
def test_a_course_of_somebody_else(
    public: CourseCopy, command: tuple[str, ...], closed: str
) -> None:
    Course.at(public.root).secret()
    path = public.root / closed
    mode = path.stat().st_mode
    path.chmod(0)
    try:
        done = public.run(sys.executable, "-c", STRANGER, str(public.root), *command)
    finally:
        path.chmod(mode)
    if closed == ".autograder" and command == EXPORT:
        assert done.returncode == 0  # it only reads the gradebook
        return
    line = one_line(done)
    assert "it is not for this account" in line
    assert line.startswith(f"{public.root}/")


# --- names that are not ASCII ---


def test_a_locale_that_cannot_read_names(tmp_path: Path, course: CourseCopy) -> None:
    there = CourseCopy(tmp_path / "수업")
    course.root.rename(there.root)
    there.submission("ada").parent.rename(there.root / "submitted" / "학생")
    # In the C locale, Python uses UTF-8 unless PYTHONUTF8 disables it.
    done = there.run(*EXPORT, LC_ALL="C", PYTHONUTF8="")
    assert (done.returncode, done.stderr) == (0, "")
    for command in (GRADE, EXPORT, RELEASE):
        line = one_line(there.run(*command, LC_ALL="C", PYTHONUTF8="0"))
        assert "LC_ALL=C.UTF-8" in line
    # The command works on a terminal without Hangul.
    done = there.run("autograder", "grade", "ch4", LC_ALL="C", PYTHONIOENCODING="ascii")
    assert one_line(done).startswith("there is no assignment ch4 in ")


# --- data ---


def test_without_the_data_nothing_is_graded(tmp_path: Path) -> None:
    course = CourseCopy.make(tmp_path / "course")
    course.succeed("nbgrader", "generate_assignment", ASSIGNMENT, "--force")
    course.untouched("ada")
    (tmp_path / "empty").mkdir()
    line = one_line(course.run(*GRADE, MNIST_DIR=str(tmp_path / "empty")))
    assert line.startswith(f"MNIST_DIR is {tmp_path / 'empty'}, but {next(iter(mnist.FILES))} is")
    assert not (course.root / "autograded").exists()


def test_data_that_was_not_fetched_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    course = CourseCopy.make(tmp_path / "course")
    course.untouched("ada")
    monkeypatch.delenv("MNIST_DIR", raising=False)
    monkeypatch.setattr(mnist, "CACHE", tmp_path / "nowhere")
    here = Course.at(course.root)
    with Engine(here, jobs=1) as engine:
        outcomes = engine.grade([engine.job("ada", ASSIGNMENT, NOTEBOOKS[3])])
        with pytest.raises(mnist.MnistUnavailable, match="run `autograder data`"):
            next(outcomes)
        assert engine._warm is None  # nothing was started


# --- the disk ---


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of six megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m,mode=755", "tmpfs", str(folder)]
    if not AS_ROOT or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("this machine lets nobody mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path, left: int) -> Path:
    """Write a file that leaves `left` bytes on a disk."""
    filler = folder / "filler"
    free = shutil.disk_usage(folder).free
    filler.write_bytes(b"\0" * (free - left))
    return filler


@pytest.mark.parametrize("command", [RELEASE, GRADE], ids=lambda c: c[1])
def test_a_full_disk(small_disk: Path, course: CourseCopy, command: tuple[str, ...]) -> None:
    shutil.copytree(course.root, small_disk / "course")
    there = CourseCopy(small_disk / "course")
    filler = fill(small_disk, 0)
    line = one_line(there.run(*command))
    assert "a disk is full" in line
    assert f"left: 0 MB in {there.root}" in line
    filler.unlink()
    if command == RELEASE:
        there.succeed(*command)
        kept = there.root / "release" / ASSIGNMENT / f"{NOTEBOOKS[0]}.ipynb"
        assert (
            kept.read_bytes()
            == (ROOT / "release" / ASSIGNMENT / f"{NOTEBOOKS[0]}.ipynb").read_bytes()
        )


def test_a_disk_that_is_full_while_a_submission_is_recorded(
    small_disk: Path, course: CourseCopy
) -> None:
    """Nothing is half recorded, and the same command continues once there is room."""
    from autograder.errors import UserError
    from autograder.grading import Plan, grade_class
    from autograder.record.gradebook import Gradebook

    shutil.copytree(course.root, small_disk / "course")
    here = Course.at(small_disk / "course")
    engine = Scripted(here)
    plan = Plan.of(here, ASSIGNMENT, [])
    Gradebook(here)
    filler = fill(small_disk, 24 << 10)
    with pytest.raises((UserError, OSError)) as caught:
        grade_class(plan, engine, plan.view())
    error = caught.value
    assert "a disk is full" in (str(error) if isinstance(error, UserError) else explained(error))
    filler.unlink()
    (result,) = grade_class(plan, engine, plan.view())
    assert CourseCopy(here.root).results("ada") == result.to_json()
    assert Gradebook(here).scores(ASSIGNMENT) == {"ada": result.score}
