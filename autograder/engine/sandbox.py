"""Determines, by trying it, how kernels can be confined on this machine."""

from __future__ import annotations

import shutil
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path

from autograder.engine.warm import Forked, WarmInterpreter, WarmLost, connect
from autograder.errors import GraderFault, UserError
from autograder.kernel import isolate
from autograder.kernel.child import UNCONFINED, Order

LAYERS = {
    isolate.NAMESPACES: [
        "user, mount, pid, network, ipc and host-name namespaces",
        "Landlock",
        "seccomp",
        "resource limits",
        "no_new_privs",
    ],
    isolate.LANDLOCK: ["Landlock", "seccomp", "resource limits", "no_new_privs"],
    UNCONFINED: ["resource limits"],
}
CONTROL_GROUP = "a control group for memory"  # in addition to any of these


@dataclass(frozen=True)
class Sandbox:
    """A running warm interpreter, and how it confines the processes it forks.

    Attributes:
        address: of the warm interpreter.
        level: how it confines.
        bounds_memory: whether a control group bounds the memory of each process.

    """

    address: str
    level: str
    bounds_memory: bool = False

    @property
    def layers(self) -> list[str]:
        """The protections in force, as `results.json` records them."""
        return [*LAYERS[self.level], *([CONTROL_GROUP] if self.bounds_memory else [])]

    @property
    def folder(self) -> Path:
        """The parent folder of all runs' folders; it is removed when the warm interpreter ends."""
        return Path(self.address).parent

    def see_that_it_lives(self) -> None:
        """Raise WarmLost when the warm interpreter has ended."""
        try:
            connect(self.address).close()
        except OSError as error:
            raise WarmLost(self.address) from error


def refused(warm: WarmInterpreter, level: str, private: tuple[str, ...] = ()) -> str:
    """Why this machine cannot confine a process to `level`; empty when it can.

    private: files that such a process must not be able to read.
    """
    folder = tempfile.mkdtemp(prefix="kit-probe-")
    ours, theirs = socket.socketpair()
    log = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
    try:
        order = Order(entry="probe", level=level, scratch=folder, private=private)
        process = Forked(warm.address, order, theirs.fileno(), log.fileno())
        theirs.close()
        ours.settimeout(30)
        confined = ours.recv(16) == b"confined"
        process.kill()
        log.seek(0)
        lines = log.read(1 << 16).decode("utf-8", "replace").strip().splitlines()
        return "" if confined else (lines or ["no reason given"])[-1]
    except (UserError, GraderFault, WarmLost, OSError) as error:
        return str(error)
    finally:
        ours.close()
        theirs.close()
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


def sandbox(warm: WarmInterpreter, run_student_code_unconfined: bool = False) -> Sandbox:
    """The strongest confinement that this machine allows.

    Raises UserError when it allows neither namespaces nor Landlock with seccomp, unless the
    instructor has said that student code may run unconfined.
    """
    warm.wait()
    if run_student_code_unconfined:
        return Sandbox(warm.address, UNCONFINED, warm.bounds_memory)
    reasons = []
    for level in (isolate.NAMESPACES, isolate.LANDLOCK):
        reason = refused(warm, level)
        if not reason:
            return Sandbox(warm.address, level, warm.bounds_memory)
        reasons.append(reason)
    raise UserError(
        "this machine cannot confine student code, so nothing is graded; "
        f"`autograder doctor` says more ({'; '.join(reasons)})"
    )
