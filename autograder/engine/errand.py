"""Asks one question of a separate process in the sandbox, where a stranger's file is parsed."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import time
from pathlib import Path
from secrets import token_hex
from typing import Any

from autograder import wire
from autograder.engine.files import remove
from autograder.engine.sandbox import Sandbox
from autograder.engine.warm import END_SECONDS, Forked
from autograder.errors import GraderFault
from autograder.kernel.child import Limits, Order


class Overrun(Exception):
    """The process ended without an answer.

    The text names the limit it exceeded, in words like "used …"; it is empty when the process ended
    by itself.
    """


def ask(
    sandbox: Sandbox,
    entry: str,
    question: dict[str, Any],
    *,
    limits: Limits,
    seconds: float,
    shared: tuple[str, ...] = (),
    scratch: Path | None = None,
) -> dict[str, Any]:
    """The answer of a new process for this `entry`: with "value", or with "error" and "message".

    limits: of the process.
    seconds: wall time, in case the machine is busy.
    shared: further folders that the process may read.
    scratch: its working directory, whose ownership it takes; an empty folder unless given.

    The caller must validate the values in the answer.

    Raises Overrun, or GraderFault when this machine is to blame: time ran out although no limit was
    reached, or someone else killed the process.
    """
    made = None if scratch else Path(tempfile.mkdtemp(prefix="kit-read-", dir=sandbox.folder))
    place = str(scratch or made)
    ours, theirs = socket.socketpair()
    log = os.open(os.devnull, os.O_WRONLY)
    environment = {"PATH": os.defpath, "LANG": "C.UTF-8", "HOME": place}
    order = Order(
        entry=entry,
        level=sandbox.level,
        scratch=place,
        environment=environment,
        shared=shared,
        limits=limits,
    )
    try:
        process = Forked(sandbox.address, order, theirs.fileno(), log)
    except BaseException:
        ours.close()
        if made:
            remove(made)
        raise
    finally:
        theirs.close()
        os.close(log)
    identity = token_hex(8)
    deadline = time.monotonic() + seconds
    try:
        wire.send(ours, {"id": identity, **question}, deadline)
        answer = wire.receive(ours, deadline)
    except wire.WireTimeout as error:
        raise GraderFault(f"nothing was answered within {seconds:.0f} s") from error
    except (wire.WireError, OSError) as error:
        status = process.poll(END_SECONDS)
        if status == -signal.SIGKILL and not process.reason:
            raise GraderFault("the process was ended from outside") from error
        raise Overrun(process.reason) from error
    finally:
        ours.close()
        process.kill()
        if made:
            remove(made)
    match answer:
        case {"id": str(echoed), "error": str(), "message": str()} if echoed == identity:
            return dict(answer)
        case {"id": str(echoed), "value": dict()} if echoed == identity:
            return dict(answer)
    raise Overrun("")
