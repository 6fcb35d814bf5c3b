"""Measures the time that student code takes, independently of the machine's load.

Wall time depends on the load: 10 s on an idle machine become a minute on a busy one.  A kernel's
allowance therefore counts seconds of processor time and seconds asleep, in which none of its
threads wants to run.  Waiting for a processor counts as neither.  A generous limit of wall time is
the backstop; once it is reached, nobody can say what the code would have done.
"""

from __future__ import annotations

import contextlib
import os
import time

_TICKS = os.sysconf("SC_CLK_TCK")
_WANTS_TO_RUN = (b"R", b"D")  # thread states: running or runnable, waiting for a disk
LOOK_SECONDS = 1.0  # between two looks, each of which takes a millisecond or two
PATIENCE = 10  # a machine is too busy after this multiple of the allowance in wall time
USED, ASLEEP, BUSY = "used", "asleep", "busy"
TOO_BUSY = "this machine was too busy to let it run"


class Clock:
    """The time a process group has used since it started.

    group: the process group; None for a clock that counts all wall time as sleep.
    processor: seconds of processor time, including that of processes that have ended.
    asleep: seconds asleep, as far as `look` observed them.
    """

    def __init__(self, group: int | None = None) -> None:
        self.processor = self.asleep = 0.0
        self._group = group
        self._own: dict[int, float] = {}  # processor time of each process ever seen
        self._looked = time.monotonic()

    @property
    def used(self) -> float:
        """Seconds of both kinds."""
        return self.processor + self.asleep

    def look(self, counted: bool = True) -> None:
        """Count the time used since the last look.

        counted: whether sleep counts; False while the kernel has nothing to do.
        """
        before, awake = self.processor, False
        if self._group is not None:
            awake = self._add_up(self._group)
        now = time.monotonic()
        # A long gap between looks means a busy machine; what happened in it is unknown, so cap it.
        passed = min(now - self._looked, 2 * LOOK_SECONDS)
        self._looked = now
        if counted and not awake:
            self.asleep += max(0.0, passed - (self.processor - before))

    def _add_up(self, group: int) -> bool:
        """Update the processor time; returns whether any thread of the group wants to run."""
        awake, living, reaped = False, 0.0, 0.0
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError, IndexError, ValueError):  # the process may have ended
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
        # The first sum misses children nobody waited for, the second misses processes never seen.
        self.processor = max(self.processor, living + reaped, sum(self._own.values()))
        return awake


def _fields(path: str) -> list[bytes]:
    """The fields of a `stat` file after the command's name, which may hold any character."""
    with open(path, "rb") as file:
        return file.read().rpartition(b")")[2].split()


class Allowance:
    """The time that one cell or one answer may use, by a kernel's clock.

    seconds: of processor time, and again of sleep; `PATIENCE` times as many of wall time.
    why: `USED`, `ASLEEP` or `BUSY` once processor time, sleep or wall time is used up; "" before.
    """

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._limits: tuple[float, float] | None = None
        self._next = self._end = 0.0
        self.why = "" if seconds > 0 else USED

    def left(self) -> float:
        """Seconds until the next call is due; 0 once all is used up.  The first call starts it."""
        now = time.monotonic()
        if not self._end:
            self._next = now + min(LOOK_SECONDS, self._seconds)
            self._end = now + PATIENCE * max(self._seconds, LOOK_SECONDS)
        if not self.why and now >= self._next:
            self._look(now)
        return 0.0 if self.why else self._next - now

    def _look(self, now: float) -> None:
        clock = self._clock
        # Most answers come before the first look, so counting starts only there.
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
