"""Opening submitted files: only regular files inside the folder are read."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autograder.engine.files import Found, read_regular, remove, walk
from autograder.errors import CannotGrade
from autograder.kernel import usage
from autograder.service import inbound

LIMIT = 1 << 20


@pytest.fixture(autouse=True)
def _never_hangs() -> Iterator[None]:
    def late(*_: Any) -> None:
        raise TimeoutError("a file was waited for")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder beside the submission, with a secret."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_text("secret")
    return folder


@pytest.fixture
def submission(tmp_path: Path) -> Path:
    folder = tmp_path / "submission"
    (folder / "inner").mkdir(parents=True)
    (folder / "file").write_bytes(b"top")
    (folder / "inner" / "file").write_bytes(b"inner")
    return folder


# -- read_regular ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "content"),
    [("file", b"top"), ("inner/file", b"inner"), ("./file", b"top"), ("inner//file", b"inner")],
)
def test_regular_files_are_read(submission: Path, path: str, content: bytes) -> None:
    assert read_regular(submission, path, LIMIT) == content


def test_an_empty_file_is_read(submission: Path) -> None:
    (submission / "empty").touch()
    assert read_regular(submission, "empty", LIMIT) == b""


@pytest.mark.parametrize("path", ["none", "inner/none", "none/file", "inner/none/file"])
def test_a_missing_file_is_not_found(submission: Path, path: str) -> None:
    with pytest.raises(FileNotFoundError):
        read_regular(submission, path, LIMIT)


@pytest.mark.parametrize(
    "path",
    ["..", "../outside/secret", "inner/../file", "inner/../../outside/secret", "", ".", "/",
     "/etc/passwd"],
)  # fmt: skip
def test_paths_that_lead_out_are_refused(submission: Path, outside: Path, path: str) -> None:
    with pytest.raises(CannotGrade, match="not a path inside the submission"):
        read_regular(submission, path, LIMIT)


def test_an_absolute_path_is_refused_even_when_it_leads_in(submission: Path) -> None:
    with pytest.raises(CannotGrade, match="not a path inside"):
        read_regular(submission, str(submission / "file"), LIMIT)


def test_names_that_no_file_can_have_are_refused(submission: Path) -> None:
    for path in ("a\0b", "a" * 5000, "a" * 5000 + "/file", "inner/" * 3000 + "file"):
        with pytest.raises((CannotGrade, FileNotFoundError)):
            read_regular(submission, path, LIMIT)


@pytest.mark.parametrize("to", ["../outside/secret", "file", "nowhere", "link"])
def test_a_link_is_refused_wherever_it_leads(submission: Path, outside: Path, to: str) -> None:
    (submission / "link").symlink_to(to)
    (submission / "inner" / "link").symlink_to(outside / "secret")
    for path in ("link", "inner/link"):
        with pytest.raises(CannotGrade, match="not a regular file"):
            read_regular(submission, path, LIMIT)


@pytest.mark.parametrize("path", ["linked/secret", "inner/linked/secret", "inner/linked/deep/x"])
def test_a_linked_folder_on_the_way_is_refused(submission: Path, outside: Path, path: str) -> None:
    (outside / "deep").mkdir()
    (outside / "deep" / "x").write_text("secret")
    (submission / "linked").symlink_to(outside)
    (submission / "inner" / "linked").symlink_to(outside)
    with pytest.raises(CannotGrade, match="no folder"):
        read_regular(submission, path, LIMIT)


def test_a_link_to_a_folder_inside_is_refused_too(submission: Path) -> None:
    (submission / "again").symlink_to("inner")
    with pytest.raises(CannotGrade):
        read_regular(submission, "again/file", LIMIT)


def test_a_file_is_no_folder(submission: Path) -> None:
    with pytest.raises(CannotGrade, match="no folder"):
        read_regular(submission, "file/x", LIMIT)


def test_a_hard_link_is_refused_under_both_names(submission: Path, outside: Path) -> None:
    os.link(outside / "secret", submission / "hard")
    with pytest.raises(CannotGrade, match="hard link"):
        read_regular(submission, "hard", LIMIT)
    (outside / "secret").unlink()
    assert read_regular(submission, "hard", LIMIT) == b"secret"


def test_a_fifo_is_refused_without_waiting(submission: Path) -> None:
    os.mkfifo(submission / "fifo")
    os.mkfifo(submission / "inner" / "fifo")
    for path in ("fifo", "inner/fifo"):
        with pytest.raises(CannotGrade, match="not a regular file"):
            read_regular(submission, path, LIMIT)
    with pytest.raises(CannotGrade, match="no folder"):
        read_regular(submission, "fifo/file", LIMIT)


def test_a_folder_is_refused(submission: Path) -> None:
    with pytest.raises(CannotGrade, match="not a regular file"):
        read_regular(submission, "inner", LIMIT)


def test_a_socket_is_refused(submission: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(submission)  # socket paths must be short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        with pytest.raises(CannotGrade, match="not a regular file"):
            read_regular(submission, "socket", LIMIT)


def test_a_device_is_refused() -> None:
    # Creating devices needs privileges, so use the machine's own.
    for name in ("zero", "null", "urandom"):
        with pytest.raises(CannotGrade, match="not a regular file"):
            read_regular(Path("/dev"), name, LIMIT)


def test_the_limit_counts_bytes(submission: Path) -> None:
    (submission / "large").write_bytes(bytes(LIMIT))
    assert len(read_regular(submission, "large", LIMIT)) == LIMIT
    (submission / "large").write_bytes(bytes(LIMIT + 1))
    with pytest.raises(CannotGrade, match="1 MB"):
        read_regular(submission, "large", LIMIT)


def test_a_sparse_file_of_a_terabyte_is_refused_unread(submission: Path) -> None:
    with (submission / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(CannotGrade, match="more than the 1 MB"):
        read_regular(submission, "sparse", LIMIT)


def test_a_file_that_grows_while_it_is_read_is_refused() -> None:
    # Files in /proc have size 0 but are not empty.
    assert os.stat("/proc/self/status").st_size == 0
    with pytest.raises(CannotGrade, match="larger than"):
        read_regular(Path(f"/proc/{os.getpid()}"), "status", 10)


def test_a_large_notebook_comes_with_advice(submission: Path) -> None:
    (submission / "large.ipynb").write_bytes(b"{" * (LIMIT + 1))
    with pytest.raises(CannotGrade, match="clear its outputs and save it again"):
        read_regular(submission, "large.ipynb", LIMIT)


def test_no_descriptor_stays_open(submission: Path, outside: Path) -> None:
    (submission / "link").symlink_to(outside)
    os.mkfifo(submission / "fifo")
    os.link(outside / "secret", submission / "hard")
    (submission / "large").write_bytes(bytes(100))
    before = len(os.listdir("/proc/self/fd"))
    paths = ["file", "inner/file", "inner", "link/secret", "link", "fifo", "hard", "large"]
    for path in [*paths, "none", "inner/none", "file/x"]:
        for _ in range(3):
            with contextlib.suppress(CannotGrade, FileNotFoundError):
                read_regular(submission, path, 10)
    assert len(os.listdir("/proc/self/fd")) == before


# -- walk --------------------------------------------------------------------------------------


@contextlib.contextmanager
def no_more_descriptors() -> Iterator[None]:
    """Prevent this process from opening files."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("path", ["file", "inner/deep"])
def test_what_the_machine_lacks_is_no_fault_of_a_file(submission: Path, path: str) -> None:
    (submission / "inner").mkdir(exist_ok=True)
    (submission / path).write_text("content")
    with no_more_descriptors(), pytest.raises(OSError, match="Too many open files"):
        read_regular(submission, path, LIMIT)
    with no_more_descriptors(), pytest.raises(OSError, match="Too many open files"):
        list(walk(submission, 10))


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO])
@pytest.mark.parametrize("failing", ["file", "inner"])
def test_it_is_none_wherever_it_is_met(
    submission: Path, monkeypatch: pytest.MonkeyPatch, number: int, failing: str
) -> None:
    (submission / "inner").mkdir(exist_ok=True)
    (submission / "inner" / "file").write_text("content")
    whole = os.open

    def scarce(path: Any, *args: Any, **kwargs: Any) -> int:
        if path == failing:
            raise OSError(number, os.strerror(number))
        return whole(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", scarce)
    with pytest.raises(OSError, match=os.strerror(number)) as raised:
        read_regular(submission, "inner/file", LIMIT)
    assert raised.value.errno == number


def test_walk_finds_regular_files_with_their_sizes(submission: Path) -> None:
    found = sorted(walk(submission, 10), key=lambda f: f.path)
    assert found == [Found("file", 3), Found("inner/file", 5)]


def test_walk_passes_over_everything_else(submission: Path, outside: Path) -> None:
    (submission / "link").symlink_to(outside / "secret")
    (submission / "folder").symlink_to(outside)
    (submission / "loop").symlink_to(".")
    (submission / "dangling").symlink_to("nowhere")
    os.mkfifo(submission / "fifo")
    assert sorted(f.path for f in walk(submission, 100)) == ["file", "inner/file"]


def test_walk_takes_names_that_are_no_text(submission: Path) -> None:
    os.close(os.open(os.fsencode(submission) + b"/\xff\xfe", os.O_CREAT | os.O_WRONLY))
    assert "\udcff\udcfe" in {f.path for f in walk(submission, 10)}


def test_walk_has_the_same_order_each_time(submission: Path) -> None:
    for name in "zyxab":
        (submission / name).touch()
        (submission / "inner" / name).touch()
    names = [f.path for f in walk(submission, 100)]
    assert names == [f.path for f in walk(submission, 100)]
    assert [n for n in names if "/" not in n] == ["a", "b", "file", "x", "y", "z"]


def test_walk_stops_at_its_limit(submission: Path) -> None:
    assert len(list(walk(submission, 3))) == 2  # two files and a folder
    with pytest.raises(CannotGrade, match="more than 2 files"):
        list(walk(submission, 2))


@pytest.mark.parametrize("kind", ["folders", "links"])
def test_folders_and_links_count_too(submission: Path, kind: str) -> None:
    for number in range(20):
        if kind == "folders":
            (submission / f"d{number}").mkdir()
        else:
            (submission / f"l{number}").symlink_to("nowhere")
    with pytest.raises(CannotGrade, match="more than 10 files"):
        list(walk(submission, 10))


def test_walk_goes_as_deep_as_there_are_folders(submission: Path) -> None:
    deepest = submission
    for _ in range(300):
        deepest = deepest / "d"
        deepest.mkdir()
    (deepest / "file").touch()
    assert len(list(walk(submission, 1000))) == 3
    with pytest.raises(CannotGrade):
        list(walk(submission, 100))


def test_walk_of_nothing_is_empty(tmp_path: Path) -> None:
    assert list(walk(tmp_path / "none", 10)) == []


def test_walk_follows_no_link_that_takes_a_folders_place(submission: Path, outside: Path) -> None:
    """A running kernel can replace a folder after it was listed."""
    (submission / "early").touch()
    looking = walk(submission, 100)
    seen = [next(looking).path]
    assert "/" not in seen[0]  # the folder `inner` is listed, but not yet read
    (submission / "inner").rename(outside / "inner")
    (submission / "inner").symlink_to(outside)
    seen += [found.path for found in looking]
    assert not [path for path in seen if path.startswith("inner")]


@pytest.mark.parametrize("quick", [True, False])
def test_remove_takes_what_is_deep_or_closed_and_follows_nothing(
    tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch, quick: bool
) -> None:
    """Whether the fast removal gets part of the way or fails at once."""
    if not quick:

        def fails(folder: Path) -> None:
            raise PermissionError

        monkeypatch.setattr(shutil, "rmtree", fails)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    deep = os.open(scratch, os.O_RDONLY)
    for level in range(1100):  # too deep for the fast removal
        if level % 100 == 0:
            os.symlink(outside, "link", dir_fd=deep)
            os.symlink(outside / "secret", "file", dir_fd=deep)
            os.mkfifo("pipe", dir_fd=deep)
        os.mkdir("folder", dir_fd=deep)
        inner = os.open("folder", os.O_RDONLY, dir_fd=deep)
        os.fchmod(deep, 0)
        os.close(deep)
        deep = inner
    os.close(deep)
    (scratch.parent / "beside").touch()
    before = [(path, path.stat().st_mode) for path in (outside, outside / "secret")]
    remove(scratch)
    assert not os.path.lexists(scratch)
    assert [(path, path.stat().st_mode) for path in (outside, outside / "secret")] == before
    assert (scratch.parent / "beside").exists()


def test_a_look_at_what_a_kernel_uses_follows_no_link(submission: Path, outside: Path) -> None:
    looking = usage._entries([str(submission)])
    names = {name: (submission / name).lstat().st_ino for name in os.listdir(submission)}
    for status in looking:
        if status.st_ino == names["inner"]:
            (submission / "inner").rename(submission.parent / "aside")
            (submission / "inner").symlink_to(outside)
        assert status.st_ino in names.values()


def test_a_link_in_a_submissions_place_tells_nothing(tmp_path: Path, outside: Path) -> None:
    """Students own their folders in the exchange, and can replace one with a link at any time."""
    for name in (inbound.STAMP, inbound.SECRET_FILE, "exam.ipynb"):
        (outside / name).touch()
    folder = tmp_path / "student+work+2026-01-01 00:00:00 UTC"
    folder.symlink_to(outside)
    attempt = inbound.Attempt(folder, "work", "student", "")
    seen = inbound.survey_attempt(attempt, ["exam"], 1 << 20, (), check_owner=False)
    assert seen == attempt
    assert inbound.notebooks(folder) == []
    assert inbound.secret(folder) == ""
