"""Reading a checkpoint gives its tensors, a sentence about its files, or a grader's fault."""

from __future__ import annotations

import os
import shutil
import signal
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autograder.engine import bundle, errand
from autograder.engine.bundle import grade_remote, pack
from autograder.engine.grade import Graded, Job, cache_key, grade_notebook
from autograder.engine.sandbox import Sandbox, sandbox
from autograder.engine.submission import SubmittedFiles, Unusable, beside, read_tensors
from autograder.engine.values import NoValue
from autograder.engine.warm import WarmInterpreter
from autograder.errors import GraderFault
from support.submissions import ASSIGNMENT, NOTEBOOKS, PREFIX, CourseCopy

INDEX, DATA = f"{PREFIX}.index", f"{PREFIX}.data-00000-of-00001"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 39295564\n"


def reader(status: int | None, reason: str = "", said: bytes = b"") -> type:
    """A stand-in for a process with this output, exit status and reason."""

    class Reader:
        def __init__(self, address: str, order: Any, values: int, log: int) -> None:
            self.reason = ""
            if said:
                os.write(values, said)

        def poll(self, seconds: float = 0) -> int | None:
            self.reason = reason
            return status

        def kill(self) -> None:
            pass

    return Reader


@pytest.mark.parametrize(
    ("ended", "error", "said"),
    [
        (reader(1), NoValue, "its files are damaged"),
        (reader(-signal.SIGSEGV), NoValue, "its files are damaged"),
        (reader(-signal.SIGKILL), GraderFault, "ended from outside"),
        (
            reader(-signal.SIGKILL, "used more than 60 s of processor time"),
            NoValue,
            "could not be read: that used more than 60 s of processor time",
        ),
        (reader(None, said=b"x" * 100), NoValue, "its files are damaged"),
    ],
)
def test_whose_fault_it_is_that_a_checkpoint_was_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: type, error: type, said: str
) -> None:
    monkeypatch.setattr(errand, "Forked", ended)
    place: Any = SimpleNamespace(address="", level="unconfined")
    with pytest.raises(error, match=said):
        read_tensors(tmp_path, "checkpoint", place)


@pytest.fixture(scope="module")
def place(warm: WarmInterpreter) -> Sandbox:
    return sandbox(warm)


# Changes to files (None: missing; a number: only that many bytes), and the expected sentence.
CANNOT_BE_USED: dict[str, tuple[dict[str, bytes | int | None], str]] = {
    "data alone": ({INDEX: None}, f"{INDEX} was not handed in, and {DATA} cannot be read without"),
    "index alone": ({DATA: None}, f"{DATA} was not handed in, and {INDEX} cannot be read without"),
    "data empty": ({DATA: 0}, f"{DATA} is empty: copy it again"),
    "index empty": ({INDEX: 0}, f"{INDEX} is empty: copy it again"),
    "data cut": ({DATA: 40}, f"{DATA} is cut off: 40 bytes are there of the 96 that {INDEX} lists"),
    "index cut": ({INDEX: 100}, f"{INDEX} is cut off, or damaged: copy it again"),
    "data a pointer": ({DATA: POINTER}, f"{DATA} is only a pointer of Git LFS .* git lfs pull"),
    "index a pointer": ({INDEX: POINTER}, f"{INDEX} is only a pointer of Git LFS .* git lfs pull"),
    "data of others": ({DATA: bytes(96)}, "its files are damaged"),
}


@pytest.mark.parametrize("case", CANNOT_BE_USED)
def test_what_was_handed_in_and_cannot_be_used_is_named(
    saved: Path, place: Sandbox, tmp_path: Path, case: str
) -> None:
    folder = tmp_path / "submission"
    shutil.copytree(saved, folder)
    assert SubmittedFiles(folder, place).tensors(PREFIX).keys() == {"weights"}
    changes, said = CANNOT_BE_USED[case]
    for name, what in changes.items():
        whole = (folder / name).read_bytes()
        (folder / name).unlink()
        if what is not None:
            (folder / name).write_bytes(whole[:what] if isinstance(what, int) else what)
    with pytest.raises(Unusable, match=said):
        SubmittedFiles(folder, place).tensors(PREFIX)
    with pytest.raises(NoValue) as written:  # must not replace the error that stopped a cell
        SubmittedFiles(folder, place, handed_in=False).tensors(PREFIX)
    assert not isinstance(written.value, Unusable)


def test_another_format_is_named_where_the_files_are_not(place: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(Unusable, match=rf"model.keras, in another format.*Saver.*{DATA}"):
        SubmittedFiles(tmp_path, place, instead=["model.keras"]).tensors(PREFIX)
    with pytest.raises(NoValue, match="were not handed in") as absent:
        SubmittedFiles(tmp_path, place).tensors(PREFIX)
    assert not isinstance(absent.value, Unusable)  # perhaps nothing was ever saved


# --- the student's view ---

FILTERS = NOTEBOOKS[4]  # restores the checkpoint


def solution(course: CourseCopy, place: Sandbox) -> Job:
    """A job for the solution of that notebook, without a checkpoint."""
    folder = course.solved("ada", FILTERS)
    release, own = (course.root / name / ASSIGNMENT for name in ("release", "source"))
    return Job(ASSIGNMENT, FILTERS, folder, release, own, b"secret", sandbox=place)


def hints(graded: Graded) -> list[str]:
    """The hints of all failed checks, in the order of the grade cells."""
    return [check.hint for cell in graded.result.cells for check in cell.checks if check.hint]


def test_a_student_reads_what_is_wrong_with_a_file_not_what_it_stopped(
    place: Sandbox, course_copy: Callable[[], CourseCopy]
) -> None:
    job = solution(course_copy(), place)
    archive = job.submission / "ckpt.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr(f"ckpt/{INDEX}", POINTER)
        packed.writestr(f"ckpt/{DATA}", POINTER)
    for hint in hints(grade_notebook(job)):  # of the values, and of what they read
        assert hint.startswith(f"{DATA} is only a pointer of Git LFS")


def test_another_format_is_named_on_another_machine_too(
    place: Sandbox, course_copy: Callable[[], CourseCopy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "_sandbox_of_worker", lambda: place)
    job = solution(course_copy(), place)
    without = cache_key(job)
    (job.submission / "model.keras").write_bytes(b"PK")
    assert cache_key(job) != without
    remote, own, shared = pack(replace(job, sandbox=None))
    assert (
        f"in place of {INDEX} there is model.keras" in hints(grade_remote(remote, own, *shared))[0]
    )


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/content/drive/My Drive/ch4/mdc_session-4000", "mdc_session-4000"),
        ("/mdc_session-4000", "mdc_session-4000"),
        (r"C:\\Users\\kim\\mdc_session-4000", "mdc_session-4000"),
        (r"C:/Users/kim\\mdc_session-4000", "mdc_session-4000"),
        (r"\\\\server\\kim\\mdc_session-4000", "mdc_session-4000"),
        (r"/home/\352\271\200/\352\271\200-4000", r"\352\271\200-4000"),
        ("mdc_session-4000", "mdc_session-4000"),
        ("./mdc_session-4000", "./mdc_session-4000"),
        ("saved/mdc_session-4000", "saved/mdc_session-4000"),
    ],
)
def test_the_index_of_checkpoints_names_what_lies_beside_it(path: str, name: str) -> None:
    lines = 'model_checkpoint_path: "{0}"\nall_model_checkpoint_paths: "{0}"\nother: "/a/b"\n'
    assert beside(lines.format(path).encode()) == lines.format(name).encode()


def test_an_index_of_anything_takes_little_time() -> None:
    for piece in (b"\n", b" ", b'model_checkpoint_path: "/', b"\\", b"/"):
        started = time.process_time()
        beside(piece * 300_000)
        assert time.process_time() - started < 5
