"""Opening what a stranger handed in: only regular files, only inside the folder, only so much."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from autograder.errors import CannotGrade


@dataclass(frozen=True)
class Found:
    """A regular file in a submission: its path below the submission, and its size in bytes."""

    path: str
    size: int


def read_regular(folder: Path, path: str, limit: int) -> bytes:
    """The content of a regular file below `folder`, at most `limit` bytes.

    No component of `path` may be a link.  Raises CannotGrade for a link, hard link, FIFO,
    device, folder or larger file; FileNotFoundError when there is nothing by that name.
    """
    descriptor = _open_regular(folder, path, limit)
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise CannotGrade(f"{path} is larger than {limit >> 20} MB")
    return data


def _open_regular(folder: Path, path: str, limit: int) -> int:
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
                raise CannotGrade(f"{path} lies behind something that is no folder") from error
            os.close(directory)
            directory = inner
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(parts[-1], flags, dir_fd=directory)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise CannotGrade(f"{path} is not a regular file") from error
    finally:
        os.close(directory)
    status = os.fstat(descriptor)
    reason = None
    if not stat.S_ISREG(status.st_mode):
        reason = f"{path} is not a regular file"
    elif status.st_nlink > 1:
        reason = f"{path} is a hard link to another file"
    elif status.st_size > limit:
        reason = f"{path} is {status.st_size >> 20} MB, more than the {limit >> 20} MB allowed"
    if reason:
        os.close(descriptor)
        raise CannotGrade(reason)
    return descriptor


def walk(folder: Path, most: int, size: int | None = None) -> Iterator[Found]:
    """Regular files below `folder`, sorted, links not followed.

    What is no regular file is passed over.  Raises CannotGrade when there are more than `most`
    entries, or the files have more than `size` bytes together.
    """
    count = total = 0
    stack = [""]
    while stack:
        below = stack.pop()
        try:
            entries = sorted(os.scandir(folder / below), key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            count += 1
            if count > most:
                raise CannotGrade(f"the submission holds more than {most} files")
            path = os.path.join(below, entry.name)
            if entry.is_dir(follow_symlinks=False):
                stack.append(path)
            elif entry.is_file(follow_symlinks=False):
                found = Found(path, entry.stat(follow_symlinks=False).st_size)
                total += found.size
                if size is not None and total > size:
                    raise CannotGrade(f"the submission holds more than {size >> 30} GB")
                yield found


def remove(folder: Path) -> None:
    """Remove a folder in which student code has written, however deep, whatever its modes."""
    try:
        shutil.rmtree(folder)
    except (OSError, RecursionError):
        for command in (["chmod", "-R", "u+rwx"], ["rm", "-rf"]):
            subprocess.run([*command, "--", folder], capture_output=True)
