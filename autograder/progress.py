"""The progress of long commands."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)


def count_columns() -> tuple[ProgressColumn, ...]:
    """Columns for work whose parts are counted: `grading ━━━ 12/60 0:01:30`."""
    return (*_begin(), MofNCompleteColumn(), TimeRemainingColumn())


def log_columns() -> tuple[ProgressColumn, ...]:
    """Columns for work that prints lines; the last one is the task's field `line`."""
    return (*_begin(), TimeRemainingColumn(), TextColumn("{task.fields[line]}"))


def _begin() -> tuple[ProgressColumn, ...]:
    return SpinnerColumn(), TextColumn("{task.description}"), BarColumn()


class ProgressBar:
    """A progress bar; where the output is no terminal, a line whenever a tenth is done."""

    def __init__(self, console: Console, what: str, total: int) -> None:
        self._console = console
        self._progress = Progress(*count_columns(), console=console)
        self._task = self._progress.add_task(what, total=total)
        self._said = 0

    def __enter__(self) -> ProgressBar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def advance(self) -> None:
        """Count one more part."""
        self._progress.advance(self._task)
        task = self._progress.tasks[0]
        assert task.total is not None
        if not self._console.is_terminal and task.completed >= self._said + task.total / 10:
            self._said = int(task.completed)
            left = f", {task.time_remaining:.0f} s left" if task.time_remaining else ""
            line = f"{task.description}: {task.completed:.0f} of {task.total:.0f}{left}"
            self._console.print(line, soft_wrap=True)
