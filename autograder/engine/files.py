"""Opens submitted files safely: only regular files, inside the folder, up to a size limit."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import secrets
import shutil
import stat
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autograder.errors import CannotGrade

# Errors of a machine short of resources; no submission can cause them.
SCARCE = (
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE),
    *(errno.ENOSPC, errno.EDQUOT),
)
LONGEST = 3000  # bytes of a path below a submission; Linux allows 4095 in all
_FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True)
class Found:
    """A regular file in a submission.

    Attributes:
        path: below the submission.
        size: in bytes.
        modified: when its content was last written, in nanoseconds.

    """

    path: str
    size: int
    modified: int = field(default=0, compare=False)


def read_regular(folder: Path, path: str, limit: int, own_links: bool = False) -> bytes:
    """The content of a regular file below `folder`, at most `limit` bytes.

    No component of `path` may be a link.  Raises CannotGrade for a link, hard link, FIFO, device,
    folder or larger file; FileNotFoundError when there is nothing by that name; OSError when this
    machine lacks the resources to read.

    own_links: accept a hard link to a file of the folder's owner if nobody else may write to that
        folder.  Then only the owner can have made it, as a backup does for example, and it reveals
        nobody else's data.
    """
    descriptor = _open_regular(folder, path, limit, own_links)
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise CannotGrade(f"{path} is larger than {limit >> 20} MB{_advice(path)}")
    return data


def start_of(folder: Path, path: str, size: int, limit: int, own_links: bool = False) -> bytes:
    """The first `size` bytes of a regular file; raises as `read_regular` does."""
    with os.fdopen(_open_regular(folder, path, limit, own_links), "rb") as file:
        return file.read(size)


def _advice(path: str) -> str:
    """How to reduce the size of a file, if there is a way."""
    return "; clear its outputs and save it again" if path.endswith(".ipynb") else ""


def _open_regular(folder: Path, path: str, limit: int, own_links: bool) -> int:
    parts = Path(path).parts
    if not parts or Path(path).is_absolute() or ".." in parts or "\0" in path:
        raise CannotGrade(f"{path!r} is not a path inside the submission")
    try:
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except NotADirectoryError as error:
        raise CannotGrade("what was handed in is not a folder") from error
    try:
        for part in parts[:-1]:
            try:
                inner = os.open(
                    part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory
                )
            except FileNotFoundError:
                raise
            except OSError as error:
                if error.errno in SCARCE:
                    raise
                raise CannotGrade(f"{path} lies behind something that is no folder") from error
            os.close(directory)
            directory = inner
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(parts[-1], flags, dir_fd=directory)
        except FileNotFoundError:
            raise
        except OSError as error:
            if error.errno in SCARCE:
                raise
            raise CannotGrade(f"{path} is not a regular file") from error
        holder = os.fstat(directory)
    finally:
        os.close(directory)
    status = os.fstat(descriptor)
    owned = holder.st_uid == status.st_uid and not holder.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    reason = None
    if not stat.S_ISREG(status.st_mode):
        reason = f"{path} is not a regular file"
    elif status.st_nlink > 1 and not (own_links and owned):
        reason = f"{path} is a hard link to another file"
    elif status.st_size > limit:
        size = f"{status.st_size >> 20} MB, more than the {limit >> 20} MB allowed"
        reason = f"{path} is {size}{_advice(path)}"
    if reason:
        os.close(descriptor)
        raise CannotGrade(reason)
    return descriptor


@contextlib.contextmanager
def _entered(folder: Path, below: str) -> Iterator[int | None]:
    """Open the folder `below` another one, without following links, for the duration of the block.

    Yields its descriptor, or None when the folder is gone or its path is too long.
    """
    directory = None
    if len(os.fsencode(below)) <= LONGEST:
        try:
            directory = _open_folder(folder, Path(below).parts)
        except OSError as error:
            if error.errno in SCARCE:
                raise
    try:
        yield directory
    finally:
        if directory is not None:
            os.close(directory)


def walk(folder: Path, most: int, size: int | None = None) -> Iterator[Found]:
    """Regular files below `folder`, in a fixed order.

    Links are not followed, even if student code swaps entries meanwhile.  Entries that are not
    regular files are skipped, as are folders so deep that their path is too long.  Raises
    CannotGrade when there are more than `most` entries or the files have more than `size` bytes in
    total.
    """
    count = total = 0
    stack = [""]
    while stack:
        below = stack.pop()
        with _entered(folder, below) as directory:
            if directory is None:
                continue
            with os.scandir(directory) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
            for entry in entries:
                count += 1
                if count > most:
                    raise CannotGrade(f"the submission holds more than {most} files")
                path = os.path.join(below, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    stack.append(path)
                elif entry.is_file(follow_symlinks=False):
                    try:
                        found = Found(path, entry.stat(follow_symlinks=False).st_size)
                    except OSError as error:  # a kernel may just have removed it
                        if error.errno in SCARCE:
                            raise
                        continue
                    total += found.size
                    if size is not None and total > size:
                        raise CannotGrade(f"the submission holds more than {size >> 30} GB")
                    yield found


def listing(
    folder: Path, most: int, leave: Callable[[str, Collection[str]], bool]
) -> tuple[list[Found], bool]:
    """Regular files below `folder`, top-level ones first, and whether the list is complete.

    Links are not followed.  Once fewer than `most` entries are left, a folder with more entries is
    skipped entirely, so that the answer does not depend on the order in which a machine lists it.

    leave: called with a folder's path and the names in it; whether to skip the folder.
    """
    found: list[Found] = []
    all_of_it = True
    waiting = deque([""])
    while waiting:
        below = waiting.popleft()
        with _entered(folder, below) as directory:
            if directory is None:
                continue
            with os.scandir(directory) as entries:
                inside = list(itertools.islice(entries, most + 1))
            if leave(below, [entry.name for entry in inside]):
                continue
            if len(inside) > most:
                all_of_it = False
                continue
            most -= len(inside)
            for entry in sorted(inside, key=lambda entry: entry.name):
                path = os.path.join(below, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(path)
                elif entry.is_file(follow_symlinks=False):
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except OSError as error:
                        if error.errno in SCARCE:
                            raise
                        continue
                    found.append(Found(path, status.st_size, status.st_mtime_ns))
    return found, all_of_it


def _open_folder(folder: Path, parts: Sequence[str]) -> int:
    """Open a folder below `folder` without following links.  Raises OSError."""
    directory = os.open(folder, os.O_RDONLY | _FOLDER)
    for part in parts:
        try:
            inner = os.open(part, os.O_RDONLY | _FOLDER, dir_fd=directory)
        finally:
            os.close(directory)
        directory = inner
    return directory


def remove(folder: Path) -> None:
    """Remove a folder that student code has written to, whatever its depth and modes.

    Links are not followed, even if entries are swapped meanwhile.
    """
    try:
        shutil.rmtree(folder)
    except (OSError, RecursionError):
        with contextlib.suppress(OSError):
            top = os.open(folder, os.O_PATH | _FOLDER)
            try:
                _clear(top)
            finally:
                os.close(top)
            os.rmdir(folder)


def _clear(top: int) -> None:
    """Empty an open folder; nested folders are moved up into it before they are removed."""
    free = (f"{secrets.token_hex(8)}-{number}" for number in itertools.count())
    waiting = _folders_left(top)
    while waiting:
        name = waiting.pop()
        inner = os.open(name, os.O_PATH | _FOLDER, dir_fd=top)
        try:
            for deeper in _folders_left(inner):
                waiting.append(next(free))
                os.rename(deeper, waiting[-1], src_dir_fd=inner, dst_dir_fd=top)
        finally:
            os.close(inner)
        os.rmdir(name, dir_fd=top)


def _folders_left(directory: int) -> list[str]:
    """Remove the files in an open folder; returns the names of its folders, now movable."""
    os.chmod(f"/proc/self/fd/{directory}", 0o700)
    folders = []
    for name in os.listdir(f"/proc/self/fd/{directory}"):
        try:
            inner = os.open(name, os.O_PATH | _FOLDER, dir_fd=directory)
        except NotADirectoryError:
            os.unlink(name, dir_fd=directory)
            continue
        try:
            os.chmod(f"/proc/self/fd/{inner}", 0o700)
        finally:
            os.close(inner)
        folders.append(name)
    return folders
