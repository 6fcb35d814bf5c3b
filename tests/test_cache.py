"""Results are cached by content: unchanged notebooks are not graded again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest

from autograder.checks import Setup
from autograder.course import Checks
from autograder.engine import bundle, grade
from autograder.engine.arrival import laid_out
from autograder.engine.bundle import Bundle, pack
from autograder.engine.grade import Job, content_key
from autograder.engine.sandbox import Sandbox
from autograder.engine.submission import SubmittedFiles
from support.gated import ASSIGNMENT, NOTEBOOKS, GatedCourse

pytestmark = pytest.mark.course

FIRST, SECOND = NOTEBOOKS
GRADE = ("autograder", "grade", ASSIGNMENT)
STUDENTS = 2


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatedCourse]:
    """A class that was graded once; its tests leave everything graded."""
    with GatedCourse.make(tmp_path_factory.mktemp("course"), STUDENTS) as course:
        succeed(course, *GRADE)
        assert course.times_graded() == dict.fromkeys(course.all_notebooks(), 1)
        yield course


def succeed(course: GatedCourse, *command: str) -> set[tuple[int, str]]:
    """Run a command; return the notebooks that it graded, none of them twice."""
    before = course.log("end")
    done = course.run(*command)
    assert done.returncode == 0, done.stderr
    fresh = [(number, name) for number, name, _ in course.log("end")[len(before) :]]
    assert len(fresh) == len(set(fresh))
    return set(fresh)


def test_nothing_is_computed_or_recorded_again(graded: GatedCourse) -> None:
    written = {student: graded.written(student) for student in graded.students}
    assert succeed(graded, *GRADE) == set()
    assert {student: graded.written(student) for student in graded.students} == written


def test_no_kernel_is_even_started(graded: GatedCourse) -> None:
    graded.forbid_kernels()
    try:
        assert succeed(graded, *GRADE) == set()
        forced = graded.run(*GRADE, "--force")
        assert (forced.returncode, forced.stderr) == (2, "autograder: no kernel may start here\n")
    finally:
        graded.allow_kernels()


def test_nbgrader_uses_what_is_remembered(graded: GatedCourse) -> None:
    results = {student: graded.results(student) for student in graded.students}
    written = {student: graded.written(student) for student in graded.students}
    assert succeed(graded, "nbgrader", "autograde", ASSIGNMENT, "--force") == set()
    assert {student: graded.results(student) for student in graded.students} == results
    assert all(graded.written(student) != before for student, before in written.items())


def test_what_nbgrader_computes_is_remembered(graded: GatedCourse) -> None:
    graded.hand_in(0, FIRST, comment="once more")
    command = ("nbgrader", "autograde", ASSIGNMENT, "--student", "s0", "--force")
    assert succeed(graded, *command) == {(0, FIRST)}
    assert succeed(graded, *GRADE) == set()


def test_a_changed_notebook_is_the_only_one_graded_again(graded: GatedCourse) -> None:
    graded.hand_in(1, SECOND, comment="changed")
    assert succeed(graded, *GRADE) == {(1, SECOND)}


def test_equal_notebooks_are_graded_once(graded: GatedCourse) -> None:
    own = graded.root / "submitted"
    graded.hand_in(0, FIRST, comment="the same")
    before = (own / "s1" / ASSIGNMENT / f"{FIRST}.ipynb").read_bytes()
    shutil.copy(own / "s0" / ASSIGNMENT / f"{FIRST}.ipynb", own / "s1" / ASSIGNMENT)
    assert succeed(graded, *GRADE, "--force") == {(0, FIRST), (0, SECOND), (1, SECOND)}
    first, second = (graded.results(student)["notebooks"][0] for student in graded.students)
    assert first == second
    (own / "s1" / ASSIGNMENT / f"{FIRST}.ipynb").write_bytes(before)
    assert succeed(graded, *GRADE) == set()


def test_a_file_beside_the_notebooks_touches_every_notebook_of_its_student(
    graded: GatedCourse,
) -> None:
    (graded.root / "submitted" / "s1" / ASSIGNMENT / "helper.py").write_text("x = 1")
    assert succeed(graded, *GRADE) == {(1, FIRST), (1, SECOND)}


def test_a_changed_check_touches_only_its_notebook(graded: GatedCourse) -> None:
    graded.write_checks(graded.place, of_the_second="# only a comment\n")
    assert succeed(graded, *GRADE) == set()
    graded.write_checks(graded.place, of_the_second="STRICT = True\n")
    assert succeed(graded, *GRADE) == {(number, SECOND) for number in range(STUDENTS)}


def test_force_grades_everything_again(graded: GatedCourse) -> None:
    written = {student: graded.written(student) for student in graded.students}
    assert succeed(graded, *GRADE, "--force") == graded.all_notebooks()
    assert all(graded.written(student) != before for student, before in written.items())


def test_a_damaged_result_is_computed_again(graded: GatedCourse) -> None:
    results = graded.root / ".autograder" / "results"
    for path in results.rglob("*.json"):
        path.write_text(path.read_text("utf-8")[:-9], "utf-8")
    assert succeed(graded, *GRADE) == graded.all_notebooks()


# --- a result depends on everything that the kernel and the checks receive ---

SETUPS = {
    "everything": Setup(files=("*",)),
    "everything to read": Setup(files=(), read=("*",)),
    "notebooks": Setup(files=("*.ipynb", "*.txt")),
    "as usual": Setup(),
    "data": Setup(files=("data/*",), read=("weights.*", ".hidden*")),
}
HANDED_IN = (
    *(f"{name}.ipynb" for name in ("1-own", "2-other", "sub/3-deep")),
    *("timestamp.txt", "submission_secret.txt", "results.json", "notes.txt", "helper.py"),
    *("data/a.csv", "data/timestamp.txt", "weights.index", ".hidden", ".git/config"),
)


@pytest.mark.parametrize("what", SETUPS)
def test_a_file_that_is_given_away_is_in_the_key_and_no_other_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    setup = SETUPS[what]
    monkeypatch.setattr(grade, "checks_for", lambda *_: Checks("none", tmp_path, setup))
    monkeypatch.setattr(bundle, "versions", lambda _: "same")
    folder, release = tmp_path / "submission", tmp_path / "release"
    for name in HANDED_IN:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    release.mkdir()
    nbformat.write(nbformat.v4.new_notebook(), release / "1-own.ipynb")
    job = Job("any", "1-own", folder, release, tmp_path / "source", b"secret")

    in_the_key = set()
    for name in HANDED_IN:
        before = content_key(job)
        (folder / name).write_text("changed")
        if content_key(job) != before:
            in_the_key.add(name)
    files = in_the_key - {"1-own.ipynb"}
    assert len(files) < len(in_the_key)
    here = Sandbox("", "unconfined")
    with laid_out(folder, (), job.wanted, here) as laid:
        readable = SubmittedFiles(laid.folder, here, job.wanted.patterns)
        assert files == set(readable.names())
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        grade._prepare(scratch, replace(job, submission=laid.folder), setup, modules=True)
    copied = {str(path.relative_to(scratch)) for path in scratch.rglob("*") if path.is_file()}
    assert copied <= files
    sent = [path for part in packed(job) for path, _ in part.files if path.startswith("submission")]
    assert {path.partition("/")[2] for path in sent} == in_the_key
    if what == "everything":
        hidden = {".hidden"}
        assert copied == files - hidden
        assert hidden < files
        assert {"results.json", "data/timestamp.txt", "data/a.csv"} < copied
    assert not copied & {"timestamp.txt", "submission_secret.txt", "2-other.ipynb"}


def packed(job: Job) -> list[Bundle]:
    """The bundles that are sent to a cluster's worker."""
    _, own, shared = pack(job)
    return [own, *shared]
