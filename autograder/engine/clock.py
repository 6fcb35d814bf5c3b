"""The time that student code takes, by a clock that stands still while the machine is busy.

Wall time measures the machine: what takes 10 s on an idle one takes a minute on a busy one.  What
a kernel may use is therefore counted in seconds of processor time, and in seconds asleep, in which
no thread of it wanted to run.  What it waits for a processor counts as neither; a wide backstop of
wall time ends that, and then nobody can say what the code would have done.
"""

from __future__ import annotations

import contextlib
import os
import time

_TICKS = os.sysconf("SC_CLK_TCK")
_WANTS_TO_RUN = (b"R", b"D")  # states of a thread: runs or waits for a processor, waits for a disk
LOOK_SECONDS = 1.0  # between two looks, which cost a millisecond or two
PATIENCE = 10  # times what is allowed: so much wall time passes before the machine is given up
USED, ASLEEP, BUSY = "used", "asleep", "busy"
TOO_BUSY = "this machine was too busy to let it run"


class Clock:
    """What a process group has used since it started.

    group: its number; None for a clock that counts all wall time as asleep.
    processor: seconds of processor time, those of processes that have ended included.
    asleep: seconds asleep, as far as somebody looked.
    """

    def __init__(self, group: int | None = None) -> None:
        self.processor = self.asleep = 0.0
        self._group = group
        self._own: dict[int, float] = {}  # processor time of each process that was ever seen
        self._looked = time.monotonic()

    @property
    def used(self) -> float:
        """Seconds of either kind."""
        return self.processor + self.asleep

    def look(self, counted: bool = True) -> None:
        """Count what has been used since the last look.

        counted: whether sleep counts; not where the kernel had nothing to do.
        """
        before, awake = self.processor, False
        if self._group is not None:
            awake = self._add_up(self._group)
        now = time.monotonic()
        # What was between two looks that are far apart nobody knows: this machine is busy.
        passed = min(now - self._looked, 2 * LOOK_SECONDS)
        self._looked = now
        if counted and not awake:
            self.asleep += max(0.0, passed - (self.processor - before))

    def _add_up(self, group: int) -> bool:
        """Add up processor time; whether any thread of the group wants to run."""
        awake, living, reaped = False, 0.0, 0.0
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError, IndexError, ValueError):  # it ends meanwhile
                fields = _fields(f"/proc/{name}/stat")
                if int(fields[2]) != group:
                    continue
                self._own[int(name)] = sum(map(int, fields[11:13])) / _TICKS
                living += self._own[int(name)]
                reaped += sum(map(int, fields[13:15])) / _TICKS
                awake = awake or any(
                    _fields(f"/proc/{name}/task/{task}/stat")[0] in _WANTS_TO_RUN
                    for task in os.listdir(f"/proc/{name}/task")
                )
        # The first misses children that nobody waited for, the other those that were never seen.
        self.processor = max(self.processor, living + reaped, sum(self._own.values()))
        return awake


def _fields(path: str) -> list[bytes]:
    """The fields of a `stat` file behind the command's name, which may hold anything."""
    with open(path, "rb") as file:
        return file.read().rpartition(b")")[2].split()


class Allowance:
    """What one cell, or one answer, may use by a kernel's clock.

    seconds: of processor time, and as many asleep; `PATIENCE` times as many of wall time.
    why: once it is used up: `USED`, `ASLEEP` when that was without work, `BUSY` when the backstop
        came first; "" before.
    """

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._limits: tuple[float, float] | None = None
        self._next = self._end = 0.0
        self.why = "" if seconds > 0 else USED

    def left(self) -> float:
        """Seconds after which to ask again; 0 once it is used up.  Begins with the first call."""
        now = time.monotonic()
        if not self._end:
            self._next = now + min(LOOK_SECONDS, self._seconds)
            self._end = now + PATIENCE * max(self._seconds, LOOK_SECONDS)
        if not self.why and now >= self._next:
            self._look(now)
        return 0.0 if self.why else self._next - now

    def _look(self, now: float) -> None:
        clock = self._clock
        # Most answers come before the first look; only from then on anything is counted.
        clock.look(counted=self._limits is not None)
        if self._limits is None:
            self._limits = clock.processor + self._seconds, clock.asleep + self._seconds
        work, sleep = self._limits[0] - clock.processor, self._limits[1] - clock.asleep
        left = min(work, sleep)
        if left <= 0:
            self.why = ASLEEP if work > 0 else USED
        elif now >= self._end:
            self.why = BUSY
        self._next = now + min(LOOK_SECONDS, max(left / 2, 0.05))
