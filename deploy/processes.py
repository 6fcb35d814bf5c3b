"""Processes with an unambiguous identity: pids are reused, but not together with the start time.

Signals are sent through a pidfd, after the identity has been checked again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from autograder.errors import UserError


@dataclass(frozen=True)
class Process:
    """One process of this machine.

    Attributes:
        pid: its process id.
        start: its start time in clock ticks since boot.

    """

    pid: int
    start: int

    @classmethod
    def of(cls, pid: int) -> Process:
        """The process that has this pid now.  Raises ProcessLookupError if there is none."""
        found = _status(pid)
        if found is None:
            raise ProcessLookupError(f"there is no process {pid}")
        return cls(pid, found.start)

    @property
    def is_alive(self) -> bool:
        """Whether it is still running; zombies are not."""
        found = _status(self.pid)
        return found is not None and found.start == self.start and found.state not in "ZX"

    def send(self, number: signal.Signals) -> None:
        """Send a signal to this process, never to a later one with the same pid."""
        with contextlib.suppress(ProcessLookupError):
            held = os.pidfd_open(self.pid)
            try:
                if self.is_alive:
                    signal.pidfd_send_signal(held, number)
            finally:
                os.close(held)


@dataclass(frozen=True)
class _Status:
    state: str
    parent: int
    start: int
    owner: int


def _status(pid: int) -> _Status | None:
    try:
        owner = os.stat(f"/proc/{pid}").st_uid
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return None
    return _Status(fields[0], int(fields[1]), int(fields[19]), owner)


def _all() -> Iterator[tuple[Process, _Status]]:
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (found := _status(int(entry))) is not None:
            yield Process(int(entry), found.start), found


def descendants(ancestor: Process) -> list[Process]:
    """All running descendants of a process."""
    children: dict[int, list[tuple[Process, _Status]]] = {}
    for process, status in _all():
        children.setdefault(status.parent, []).append((process, status))
    found = []
    waiting = [ancestor.pid] if ancestor.is_alive else []
    while waiting:
        for process, status in children.get(waiting.pop(), []):
            waiting.append(process.pid)
            if status.state not in "ZX":
                found.append(process)
    return found


def of_accounts(numbers: Iterable[int], since: int) -> list[Process]:
    """Running processes of these user ids that started at `since` (clock ticks) or later."""
    wanted = set(numbers)
    return [
        process
        for process, status in _all()
        if status.owner in wanted and process.start >= since and status.state not in "ZX"
    ]


def owners() -> set[int]:
    """User ids of all processes."""
    return {status.owner for _, status in _all()}


def end(running: Callable[[], list[Process]], patience: float = 0, seconds: float = 10) -> None:
    """End all processes that `running` lists, including those that start meanwhile.

    Args:
        running: lists the processes that are still running.
        patience: seconds for them to end after SIGTERM, before SIGKILL.
        seconds: seconds for them to end after SIGKILL.

    Raises:
        UserError: a process does not end in time.

    """
    begun = time.monotonic()
    asked: set[Process] = set()
    while found := running():
        passed = time.monotonic() - begun
        if passed > patience + seconds:
            raise UserError(f"processes {sorted(p.pid for p in found)} do not end")
        for process in found:
            if passed >= patience:
                process.send(signal.SIGKILL)
            elif process not in asked:
                process.send(signal.SIGTERM)
                asked.add(process)
        time.sleep(0.05)
