"""Long commands say how far they are, on terminals and in logs."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from autograder.locks import Busy, locked
from autograder.progress import ProgressBar


@pytest.mark.parametrize(
    ("total", "said"),
    [
        (0, []),
        (3, [1, 2, 3]),
        (25, [3, 6, 9, 12, 15, 18, 21, 24]),
        (200, [20, 40, 60, 80, 100, 120, 140, 160, 180, 200]),
    ],
)
def test_a_log_gets_a_line_for_each_tenth(total: int, said: list[int]) -> None:
    log = io.StringIO()
    with ProgressBar(Console(file=log, width=80), "1-orenist-filter", total) as bar:
        for _ in range(total):
            bar.advance()
    lines = [line.partition(",")[0] for line in log.getvalue().splitlines() if " of " in line]
    assert lines == [f"1-orenist-filter: {count} of {total}" for count in said]


def test_a_terminal_gets_a_bar_and_no_lines() -> None:
    shown = io.StringIO()
    with ProgressBar(Console(file=shown, force_terminal=True, width=80), "grading", 20) as bar:
        for _ in range(20):
            bar.advance()
    assert "grading: " not in shown.getvalue()
    assert "20/20" in shown.getvalue()


HOLD = """
import sys, time
from pathlib import Path
from autograder.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_lock_has_one_holder_and_is_free_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "lock"
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(Busy), locked(path, wait=False):
                pass
        finally:
            holder.kill()
    with locked(path, wait=False):
        assert path.stat().st_mode & 0o777 == 0o600
