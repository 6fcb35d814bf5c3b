"""What a process does between the fork from the warm interpreter and its own work."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import socket
import sys
import tempfile
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from autograder.kernel import isolate

GB = 1 << 30
UNCONFINED = "unconfined"
PORTS = {"shell": 1, "iopub": 2}  # the channels a client uses


@dataclass(frozen=True)
class Limits:
    """The resources that one kernel and everything it starts may use together.

    Attributes:
        memory: bytes beyond those of the warm interpreter.
        disk: bytes in the writable folders.
        files: entries in the writable folders.
        processes: running at a time.
        tasks: threads of all processes.
        opened: file descriptors of all processes.
        cpu: seconds of processor time.

    """

    memory: int = 6 * GB  # an accuracy over all 60 000 training digits takes 5
    disk: int = GB
    files: int = 5000
    processes: int = 64  # each takes time to end
    tasks: int = 400
    opened: int = 8000  # a forked kernel has 60 to 70, so `processes` is reached first
    cpu: int = 1200


@dataclass(frozen=True)
class Order:
    """What to run, and where: everything a child knows of the outside world.

    Attributes:
        entry: ``kernel``, ``archive``, ``checkpoint``, ``notebook``, ``page`` or ``probe``.
        level: the confinement: ``namespaces``, ``landlock`` or ``unconfined``.
        scratch: the folder that becomes the working directory.
        signing_key: signs the messages between a kernel and its client.
        environment: the whole environment; nothing is inherited.
        shared: further files and folders that the process may read.
        private: files that it must not be able to read; a probe tries to.
        training_steps: the steps that a kernel computes before it skips the others; None for all.
        limits: the resources it may use.

    """

    entry: str
    level: str
    scratch: str
    signing_key: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    shared: tuple[str, ...] = ()
    private: tuple[str, ...] = ()
    training_steps: int | None = None
    limits: Limits = field(default_factory=Limits)

    @property
    def writable(self) -> list[str]:
        """The folders in which the process may write."""
        return [self.scratch]


def run(
    order: Order,
    values: socket.socket,
    log: int,
    channels: list[int],
    announce: int,
    go: int,
) -> None:
    """Become the process that `order` asks for; called in the child.

    channels: for a kernel, the listening sockets of `PORTS`, in that order.
    announce: receives the process number as the parent sees it.
    go: delivers the byte that lets the process continue.

    Raises OSError when a requested protection is not available.
    """
    os.setsid()
    for handled in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(handled, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    null = os.open(os.devnull, os.O_RDONLY)
    for descriptor, standard in ((null, 0), (log, 1), (log, 2)):
        os.dup2(descriptor, standard)
    _close_all_but({0, 1, 2, values.fileno(), *channels, announce, go})
    own_tree = order.level == isolate.NAMESPACES
    view = isolate.readable()  # as seen outside the namespaces
    number = os.getpid()
    if own_tree:
        isolate.enter_namespaces()
        child = os.fork()
        if child:
            os.write(announce, f"{child}\n".encode())
            os._exit(0)  # the kernel goes on as process 1 of the new namespaces
    else:
        os.write(announce, f"{number}\n".encode())
    os.close(announce)
    if not os.read(go, 1):
        raise OSError("the warm interpreter could not take charge of the process")
    os.close(go)
    if own_tree:
        os.setsid()
        isolate.enter_file_tree([*view.whole, *order.shared], order.writable)
    if order.level != UNCONFINED:
        isolate.limit_capabilities()
    if own_tree:
        isolate.become_nobody(order.writable, number)
    if order.level != UNCONFINED:
        isolate.drop_capabilities()
    isolate.end_with_parent()
    os.environ.clear()
    os.environ.update(order.environment)
    os.umask(0o077)
    os.chdir(order.scratch)
    _limit(order)
    if order.level != UNCONFINED:
        devices = [f"/dev/{name}" for name in isolate.DEVICES]
        proc = ["/proc"] if own_tree else _proc()
        isolate.restrict_files(
            [*view.whole, *order.shared, *proc], view.parts, [*order.writable, *devices]
        )
        isolate.restrict_calls(order.level)
    # Not earlier, since this makes the student's modules importable, as beside any notebook.
    sys.path.insert(0, "")
    # Forget the parent's temporary folder and random state.
    tempfile.tempdir = None
    random.seed()
    np.random.seed()
    _ENTRIES[order.entry](order, values, channels)


def _proc() -> list[str]:
    """The readable parts of a /proc that also shows other processes."""
    # A Landlock rule applies to the present entry, which stays valid as long as it is open.
    os.open("/proc/self", os.O_PATH | os.O_CLOEXEC)
    own = f"/proc/{os.getpid()}"  # a process started later has no rule
    return [own, *filter(os.path.exists, (f"/proc/{name}" for name in isolate.PROC))]


def _limit(order: Order) -> None:
    """Set the limits that Linux enforces itself: per process, and a little above the watcher's.

    The watcher normally ends a kernel, since it can say why; these limits catch what happens
    between two of its looks.
    """
    with open("/proc/self/statm") as statm:
        mapped = int(statm.read().split()[0]) * resource.getpagesize()
    limits = {
        resource.RLIMIT_AS: mapped + 2 * order.limits.memory,
        resource.RLIMIT_CORE: 1,  # unlike 0, it also stops dumps to a program
        resource.RLIMIT_CPU: order.limits.cpu + 10,
        resource.RLIMIT_FSIZE: order.limits.disk + (64 << 20),
        resource.RLIMIT_NOFILE: 512,
        resource.RLIMIT_MEMLOCK: 1 << 20,
    }
    if order.level == isolate.NAMESPACES:  # otherwise it would count the grader's processes
        limits[resource.RLIMIT_NPROC] = order.limits.tasks + 100
    for limit, value in limits.items():
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))
    # If memory runs out all the same, Linux should kill this process first.
    with open("/proc/self/oom_score_adj", "w") as adjustment:
        adjustment.write("500")


def _close_all_but(keep: set[int]) -> None:
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in keep:
            with contextlib.suppress(OSError):  # the listing's own descriptor
                os.close(int(name))


def _run_kernel(order: Order, values: socket.socket, channels: list[int]) -> None:
    from autograder.kernel import fast_forward, responder
    from autograder.kernel.application import Application

    responder.connection = values
    fast_forward.install(order.training_steps)
    Application.launch_instance(
        ["--HistoryManager.hist_file=:memory:"],
        listeners=dict(zip(PORTS.values(), channels, strict=True)),
        signing_key=order.signing_key,
    )


def _serve(order: Order, values: socket.socket, channels: list[int]) -> None:
    """Let the module with the entry's name answer questions; it was imported before the fork."""
    sys.modules[f"autograder.kernel.{order.entry}"].serve(values)


def _run_probe(order: Order, values: socket.socket, channels: list[int]) -> None:
    for path in order.private:
        with contextlib.suppress(OSError), open(path, "rb"):
            print(f"student code could read {path}", flush=True)
            return
    values.sendall(b"confined")


_ENTRIES: dict[str, Any] = {
    "kernel": _run_kernel,
    "archive": _serve,
    "checkpoint": _serve,
    "notebook": _serve,
    "page": _serve,
    "probe": _run_probe,
}
