"""A fair queue: many students' notebooks on few workers, taken in turn."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """A queue per student; workers take one item from each student in turn.

    While others wait, one student occupies at most all workers but one, so notebooks that run into
    their timeout never delay the class by more than one timeout.
    """

    def __init__(self, workers: int) -> None:
        self._most = max(1, workers - 1)
        self._waiting: dict[str, deque[T]] = {}  # in the order of their turns
        self._running: dict[str, int] = {}
        self._changed = threading.Condition()
        self._closed = False

    def put(self, student: str, items: list[T], first: bool = False) -> None:
        """Add work; a student without waiting items goes to the back, with `first` to the front."""
        with self._changed:
            if first and student not in self._waiting:
                self._waiting = {student: deque(), **self._waiting}
            self._waiting.setdefault(student, deque()).extend(items)
            self._changed.notify_all()

    def take(self) -> tuple[str, T] | None:
        """Wait for the next item; return the student and the item, or None when closed."""
        with self._changed:
            while True:
                if self._closed:
                    return None
                student = self._next()
                if student is not None:
                    break
                self._changed.wait()
            queue = self._waiting.pop(student)
            item = queue.popleft()
            if queue:
                self._waiting[student] = queue  # at the back
            self._running[student] = self._running.get(student, 0) + 1
            return student, item

    def _next(self) -> str | None:
        if len(self._waiting) == 1:
            return next(iter(self._waiting))
        free = (s for s in self._waiting if self._running.get(s, 0) < self._most)
        return next(free, None)

    def done(self, student: str) -> None:
        """Mark an item of this student as finished."""
        with self._changed:
            self._running[student] -= 1
            if not self._running[student]:
                del self._running[student]
            self._changed.notify_all()

    def waiting(self) -> int:
        """Number of items not yet taken."""
        with self._changed:
            return sum(map(len, self._waiting.values()))

    def close(self) -> None:
        """Close the queue: `take` returns None from now on."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
