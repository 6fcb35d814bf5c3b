"""Measures the resources of a process group from /proc, for the watcher of a kernel's limits."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from autograder.kernel.child import Limits

DEPTH = 20  # levels of folders to search; each one costs a descriptor
_TICKS = os.sysconf("SC_CLK_TCK")


class CannotLook(Exception):
    """A folder cannot be read, so its contents cannot be counted."""


@dataclass
class Usage:
    """The resources that the processes of one group use together.

    Attributes:
        pids: the process numbers.
        memory: bytes beyond the baseline.
        tasks: threads of all processes.
        cpu: seconds, including those of processes that have ended.

    """

    pids: list[int] = field(default_factory=list)
    memory: int = 0
    tasks: int = 0
    cpu: float = 0

    def over(self, limits: Limits, writable: list[str], log: int) -> str:
        """The limit that is exceeded, in words for the student; empty when none is.

        writable: the writable folders.
        log: descriptor of a file that counts like the files in them.
        """
        if self.memory > limits.memory:
            return too_much_memory(limits)
        if len(self.pids) > limits.processes:
            return f"started more than {limits.processes} processes"
        if self.tasks > limits.tasks:
            return f"started more than {limits.tasks} processes and threads"
        if self.cpu > limits.cpu:
            return f"used more than {limits.cpu} s of processor time"
        opened, size = 0, os.fstat(log).st_blocks * 512
        unlinked: dict[str, int] = {}
        linked: dict[tuple[int, int], int] = {}
        for pid in self.pids:
            opened += _opened(pid, unlinked)
        if opened > limits.opened:
            return f"opened more than {limits.opened} files and sockets at a time"
        size += sum(unlinked.values())
        try:
            for count, entry in enumerate(_entries(writable), start=1):
                if stat.S_ISREG(entry.st_mode) and entry.st_nlink > 1:  # a file with several names
                    linked[entry.st_dev, entry.st_ino] = entry.st_blocks * 512
                else:
                    size += entry.st_blocks * 512
                if count > limits.files:
                    return f"made more than {limits.files} files"
        except CannotLook:
            return "made a folder that cannot be looked into"
        if size + sum(linked.values()) > limits.disk:
            return f"wrote more than {limits.disk / (1 << 30):g} GB to disk"
        return ""


def too_much_memory(limits: Limits) -> str:
    """The message for an exceeded memory limit, in words for the student."""
    return f"used more than {limits.memory / (1 << 30):g} GB of memory"


def by_group(wanted: Collection[int], baseline: int) -> dict[int, Usage]:
    """Usage of the `wanted` process groups; `baseline` bytes of each process's memory are free."""
    groups: dict[int, Usage] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                # The command's name, in parentheses, may hold any character.
                fields = file.read().rpartition(b")")[2].split()
            if int(fields[2]) not in wanted:
                continue
            used = groups.setdefault(int(fields[2]), Usage())
            used.tasks += int(fields[17])
            used.cpu += sum(map(int, fields[11:15])) / _TICKS
            used.pids.append(int(name))
            used.memory += max(0, anonymous_memory(int(name)) - baseline)
        except (OSError, IndexError, ValueError):
            continue  # it has ended meanwhile
    return groups


def anonymous_memory(pid: int) -> int:
    """Bytes of a process's memory that no file backs, whether private or shared."""
    total = 0
    with open(f"/proc/{pid}/status", "rb") as file:
        for line in file:
            if line.startswith((b"RssAnon:", b"RssShmem:", b"VmSwap:")):
                total += int(line.split()[1]) << 10
    return total


def _opened(pid: int, unlinked: dict[str, int]) -> int:
    """Count a process's descriptors; adds the sizes of deleted files that it holds to `unlinked`.

    unlinked: bytes on disk by device and inode, since a file may be held several times.

    A deleted file that is mapped but no longer open is missed: reading a process's mappings means
    waiting for it, and a process that forks endlessly never releases them.
    """
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)
    except OSError:
        return 0
    for name in names:
        try:
            found = os.stat(f"{folder}/{name}")
        except OSError:
            continue
        if stat.S_ISREG(found.st_mode) and found.st_nlink == 0:
            unlinked[f"{found.st_dev}:{found.st_ino}"] = found.st_blocks * 512
    return len(names)


def _entries(folders: list[str]) -> Iterator[os.stat_result]:
    """Everything below the folders, and nothing outside even if entries are swapped meanwhile.

    Raises CannotLook for a folder that cannot be read or lies more than `DEPTH` levels deep.
    """
    for folder in folders:
        with contextlib.suppress(FileNotFoundError):
            yield from _below(_opened_folder(folder, None), 0)


def _below(directory: int, depth: int) -> Iterator[os.stat_result]:
    """Everything below an open folder, which is closed at the end."""
    try:
        if depth > DEPTH:
            raise CannotLook
        with os.scandir(directory) as entries:
            for entry in entries:
                # An entry that was removed or replaced since it was listed is counted next time.
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    yield entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        yield from _below(_opened_folder(entry.name, directory), depth + 1)
    finally:
        os.close(directory)


def _opened_folder(name: str, parent: int | None) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=parent)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise CannotLook from error
