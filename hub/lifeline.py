"""Runs a command, and ends it with everything below it when whoever started this has gone.

    python -m hub.lifeline FOLDER COMMAND…

Standard input is a pipe whose other end the starter holds: however the starter ends, the pipe
does too.  Whatever loses its parent below here becomes a child of this process, so that its
descendants are all that the command has left.  FOLDER is the demonstration's: a note there says
which process this is, and the command runs in `state` below it.
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

from hub import processes
from hub.accounts import LIFELINE
from hub.processes import Process

PATIENCE = 5.0  # seconds in which the Hub and its servers may end by themselves
_SUBREAPER, _DEATH_SIGNAL = 36, 1  # of prctl
_C = ctypes.CDLL(None, use_errno=True)


def main() -> int:
    """Run the command; its exit status, or 0 when the starter has gone."""
    folder, *command = sys.argv[1:]
    me = Process.of(os.getpid())
    _control(_SUBREAPER, 1)
    note = Path(folder) / LIFELINE
    note.touch(mode=0o600)
    note.write_text(json.dumps([me.pid, me.start]), encoding="utf-8")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the starter's to bear; the pipe says when
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
    """In the command's process: it hears signals again, and ends when this process is killed."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    _control(_DEATH_SIGNAL, signal.SIGTERM)


def _left(child: subprocess.Popen[bytes], me: Process) -> list[Process]:
    child.poll()
    _bury(child.pid)
    return processes.descendants(me)


def _bury(apart_from: int) -> None:
    """Take leave of orphans that have ended, but not of the command, whose status is wanted."""
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
