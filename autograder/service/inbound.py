"""Reads submissions in the exchange: folders that students own and can still change.

nbgrader's `submit` makes a folder, fills it, adds `timestamp.txt` and `submission_secret.txt`, and
finally sets mode 0777.  The content of such a folder is not trusted: the folder's owner identifies
the student, the server's clock gives the arrival time, and only regular files are copied.
"""

from __future__ import annotations

import fnmatch
import itertools
import os
import pwd
import re
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autograder.engine.arrival import taken_for
from autograder.engine.files import read_regular
from autograder.engine.finding import ENVIRONMENT, is_archive, may_be_notebook, passed_over
from autograder.engine.submission import FILE_COUNT
from autograder.errors import CannotGrade

SECRET_FILE = "submission_secret.txt"  # noqa: S105
STAMP = "timestamp.txt"
DEPTH = 8
_CHUNK = 1 << 20
_NAME = re.compile(r"\w[\w.@-]*")


@dataclass(frozen=True)
class Attempt:
    """One folder in the exchange.

    Attributes:
        folder: its path.
        assignment: the assignment in the folder's name.
        claimed: the student in the folder's name.
        student: the account that owns the folder; empty if there is none.
        arrived: newest change time in the folder, in seconds since the epoch by the server's clock.
        complete: whether `submit` has finished.
        problem: why the attempt cannot be accepted; empty if it can.

    """

    folder: Path
    assignment: str
    claimed: str
    student: str
    arrived: float = 0.0
    complete: bool = False
    problem: str = ""

    @property
    def name(self) -> str:
        """The folder's name, which is unique."""
        return self.folder.name


class Refused(Exception):
    """The submission is too large or has nothing to grade; the message is the reason."""


@dataclass(frozen=True)
class _Entry:
    """A directory entry in a submission.

    Attributes:
        path: path below the submission.
        status: its status; links are not followed.
        directory: descriptor of the folder that contains it.
        name: its name in that folder.

    """

    path: str
    status: os.stat_result
    directory: int
    name: str


def attempts(inbound: Path) -> Iterator[Attempt]:
    """The folders in `inbound` that are named like submissions, sorted by name.

    Only names are read; owner and arrival time are not known yet.
    """
    with os.scandir(inbound) as entries:
        folders = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    for path in sorted(folders):
        folder = Path(path)
        parts = folder.name.rsplit("+", 3)  # <student>+<assignment>+<time>[+<random>]
        if len(parts) < 3:
            continue
        claimed, assignment = parts[:2]
        yield Attempt(folder, assignment, _show(claimed), student="")


def _owner(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return ""


def survey_attempt(
    attempt: Attempt,
    wanted: Collection[str],
    limit: int,
    ignore: tuple[str, ...],
    check_owner: bool,
) -> Attempt:
    """Complete an attempt from the metadata in its folder; no file is read or copied.

    A folder that is gone or unfinished is returned as not complete.

    Args:
        attempt: as `attempts` gives it.
        wanted: names of the assignment's notebooks.
        limit: maximum size in bytes.
        ignore: glob patterns of names to ignore.
        check_owner: take the folder's owner as the student, rather than the name it claims.

    """
    folder = attempt.folder
    try:
        root = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return attempt
    try:
        status = os.fstat(root)
        for name in (STAMP, SECRET_FILE):
            if not stat.S_ISREG(os.stat(name, dir_fd=root, follow_symlinks=False).st_mode):
                return attempt
    except OSError:
        return attempt
    finally:
        os.close(root)
    if stat.S_IMODE(status.st_mode) & 0o777 != 0o777:
        return attempt
    arrived, size, problem = status.st_ctime, 0, ""
    plain: dict[str, int] = {}  # path → size of the files that can be copied
    try:
        for entry in _entries(folder, ignore):
            arrived = max(arrived, entry.status.st_ctime)
            if check_owner and entry.status.st_uid != status.st_uid:
                problem = f"{_show(entry.path)} in it belongs to another account"
            if stat.S_ISREG(entry.status.st_mode):
                size += entry.status.st_size
                if entry.status.st_nlink == 1:
                    plain[entry.path] = entry.status.st_size
    except Refused as error:
        problem = str(error)
    except OSError as error:
        problem = f"it cannot be read ({os.strerror(error.errno or 0)})"
    if size > limit:
        problem = too_large(size, limit)
    if not any(may_hold_work(path) for path, bytes_ in plain.items() if bytes_):
        problem = problem or nothing_to_grade(plain, wanted)
    student = _owner(status.st_uid) if check_owner else attempt.claimed
    if not _NAME.fullmatch(student):  # nbgrader would take some names for patterns
        student, problem = "", "its owner is no account here"
    return replace(attempt, student=student, arrived=arrived, complete=True, problem=problem)


def may_hold_work(path: str) -> bool:
    """Whether a file with this path may be a notebook under any name, or an archive of some."""
    return may_be_notebook(path) or is_archive(path)


def too_large(size: int, limit: int) -> str:
    """Why a submission of `size` bytes is refused."""
    return (
        f"it is {size / (1 << 20):.1f} MB, and at most {limit / (1 << 20):.1f} MB are accepted; "
        "hand in the notebooks and the last checkpoint only"
    )


def nothing_to_grade(sizes: Mapping[str, int], wanted: Collection[str]) -> str:
    """Why a submission without any of the assignment's notebooks is refused.

    Args:
        sizes: size in bytes of each plain file, by path.
        wanted: names of the assignment's notebooks.

    """
    empty = sorted(f"{name}.ipynb" for name in wanted if f"{name}.ipynb" in sizes)
    others = sorted(path for path in sizes if path.endswith(".ipynb") and sizes[path])
    if empty:
        found = f"it holds {_list(empty)} without content (was your disk full?)"
    elif others:
        found = f"what it holds of notebooks is {_list(others)}"
    else:
        found = "it holds no notebook"
    expected = _list(sorted(f"{name}.ipynb" for name in wanted))
    return (
        f"{found}, and what is graded is {expected}; "
        "put them into the folder under these names and hand in again"
    )


def _list(paths: Sequence[str], most: int = 5) -> str:
    """The first `most` paths as part of a sentence, with the number of the others."""
    shown = [_show(path) for path in paths[:most]]
    if len(paths) > most:
        shown.append(f"{len(paths) - most} more")
    *before, last = shown
    return f"{', '.join(before)} and {last}" if before else last


def collect(
    attempt: Attempt,
    target: Path,
    wanted: Collection[str],
    limit: int,
    ignore: tuple[str, ...],
    release: Path,
) -> list[str]:
    """Copy an attempt's regular files; return the paths that were left out.

    After an exception, the caller removes `target`.

    Args:
        attempt: a complete attempt.
        target: the folder to create.
        wanted: names of the assignment's notebooks.
        limit: maximum size in bytes.
        ignore: glob patterns of names to ignore.
        release: the folder of the released notebooks.

    Raises:
        Refused: the attempt has grown beyond `limit`, or holds no wanted notebook under any name.
        OSError: there is no room.

    """
    left_out = []
    sizes: dict[str, int] = {}
    room = limit
    owner_id = os.lstat(attempt.folder).st_uid
    target.mkdir(parents=True)
    for entry in _entries(attempt.folder, ignore):
        if stat.S_ISDIR(entry.status.st_mode):
            (target / entry.path).mkdir(exist_ok=True)
            continue
        copied = _copy(entry, target / entry.path, room, owner_id)
        if copied is None:
            left_out.append(_show(entry.path))
        else:
            room -= copied
            sizes[entry.path] = copied
    whole = {path: size for path, size in sizes.items() if size}
    if not taken_for(target, release) and not any(map(is_archive, whole)):
        raise Refused(nothing_to_grade(sizes, wanted))
    return left_out


def _copy(entry: _Entry, target: Path, room: int, owner_id: int) -> int | None:
    """Copy one file of at most `room` bytes; return its size, or None if it is not a plain file."""
    if not stat.S_ISREG(entry.status.st_mode):
        return None
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        source = os.open(entry.name, flags, dir_fd=entry.directory)
    except OSError:
        return None  # not readable, or replaced since it was listed
    with os.fdopen(source, "rb") as file:
        status = os.fstat(source)
        mine = status.st_uid == entry.status.st_uid == owner_id
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1 or not mine:
            return None
        size = 0
        with target.open("xb") as copy:
            while data := file.read(_CHUNK):
                size += len(data)
                if size > room:
                    raise Refused("it has grown while it was copied; hand in again")
                copy.write(data)
        os.utime(target, ns=(status.st_mtime_ns, status.st_mtime_ns))  # the newest copy counts
    return size


def _entries(folder: Path, ignore: tuple[str, ...]) -> Iterator[_Entry]:
    """All entries below `folder` that are not ignored, each folder before its content.

    Links are not followed; each folder is opened relative to its parent's descriptor.  Raises
    Refused for too many files or too deep folders.
    """
    root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    budget = [FILE_COUNT]
    try:
        yield from _below(root, "", 0, ignore, budget)
    finally:
        os.close(root)


def _below(
    directory: int, path: str, depth: int, ignore: tuple[str, ...], budget: list[int]
) -> Iterator[_Entry]:
    if depth > DEPTH:
        raise Refused(f"its folders are nested more than {DEPTH} deep")
    with os.scandir(directory) as entries:
        inside = list(itertools.islice(entries, FILE_COUNT * 10))
    names = []
    if not (path and any(entry.name == ENVIRONMENT for entry in inside)):
        for entry in inside:
            if entry.is_dir(follow_symlinks=False) and passed_over(entry.name):
                continue
            budget[0] -= 1
            if budget[0] < 0:
                raise Refused(f"it holds more than {FILE_COUNT} files")
            if not any(fnmatch.fnmatch(entry.name, pattern) for pattern in ignore):
                names.append(entry.name)
    for name in sorted(names):
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            continue
        here = os.path.join(path, name)
        yield _Entry(here, status, directory, name)
        if stat.S_ISDIR(status.st_mode):
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                inner = os.open(name, flags, dir_fd=directory)
            except OSError:
                continue  # not readable, or replaced since it was listed
            try:
                yield from _below(inner, here, depth + 1, ignore, budget)
            finally:
                os.close(inner)


def secret(folder: Path) -> str:
    """The secret that names a student's feedback in the exchange; empty if it cannot be read."""
    try:
        return read_regular(folder, SECRET_FILE, 4096).decode("utf-8", "replace")
    except (CannotGrade, OSError):
        return ""


def notebooks(folder: Path) -> list[str]:
    """Names of the notebooks at the top of a submission; the student expects feedback on each."""
    try:
        root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        with os.scandir(root) as entries:
            names = [entry.name for _, entry in zip(range(FILE_COUNT), entries, strict=False)]
    except OSError:
        return []
    finally:
        os.close(root)
    return sorted(name.removesuffix(".ipynb") for name in names if name.endswith(".ipynb"))


def _show(path: str) -> str:
    return path.encode("utf-8", "replace").decode()[:200]
