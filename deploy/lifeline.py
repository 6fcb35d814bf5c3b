"""Runs a command, and ends it with all its descendants when the starter has ended.

    python -m deploy.lifeline FOLDER COMMAND…

Standard input is a pipe whose other end the starter holds, so it closes however the starter ends.
This process is a subreaper: orphaned descendants become its children, so its descendants are all
processes of the command.  FOLDER is the demonstration's folder: a note in it identifies this
process, and the command runs in `FOLDER/state`.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

from deploy import processes
from deploy.accounts import LIFELINE
from deploy.processes import Process

PATIENCE = 5.0  # seconds for the Hub and its servers to end after SIGTERM
_SUBREAPER, _DEATH_SIGNAL = 36, 1  # options of prctl
_C = ctypes.CDLL(None, use_errno=True)


def main() -> int:
    """Run the command; return its exit status, which is negative after a signal."""
    folder, *command = sys.argv[1:]
    me = Process.of(os.getpid())
    _control(_SUBREAPER, 1)
    note = Path(folder) / LIFELINE
    note.touch(mode=0o600)
    note.write_text(json.dumps([me.pid, me.start]), encoding="utf-8")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # only the pipe ends this process
    child = subprocess.Popen(
        command,
        cwd=Path(folder) / "state",
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=_as_found,
    )
    while child.poll() is None and not select.select([0], [], [], 0.2)[0]:
        _bury(child.pid)
    processes.end(lambda: _left(child, me), PATIENCE)
    return child.poll() or 0


def _as_found() -> None:
    """In the child process: reset the signals, and get SIGTERM when the parent is killed."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    _control(_DEATH_SIGNAL, signal.SIGTERM)


def _left(child: subprocess.Popen[bytes], me: Process) -> list[Process]:
    child.poll()
    _bury(child.pid)
    return processes.descendants(me)


def _bury(apart_from: int) -> None:
    """Reap orphans that have ended, but not the command, whose status is still needed."""
    with contextlib.suppress(ChildProcessError):
        while True:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None or ended.si_pid == apart_from:
                return
            os.waitpid(ended.si_pid, 0)


def _control(option: int, value: int) -> None:
    if _C.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    sys.exit(main())
