"""The warm interpreter: imports TensorFlow once, then forks a process for each order.

Importing TensorFlow takes about nine seconds; forking a process that has done so takes a few
milliseconds.  The warm interpreter starts no thread of its own, opens no session (which would start
threads, and they do not survive a fork), and holds no secret.

Run as ``python -m autograder.kernel.warm FOLDER [MODULE…]``, it imports the given modules (by
default those that kernels need) and listens on the Unix socket `socket` in the folder; it removes
the folder with everything in it when it ends.  A client connects, sends one JSON order with file
descriptors (values connection, log file and, for a kernel, its listening sockets), and receives
``{"pid"}`` and later ``{"exit", "reason"}`` as JSON lines.  The connection is its child's lifeline:
the child and everything it started are killed when the client closes the connection, or when the
child exceeds its limits.  The server ends when its standard input does.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import selectors
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from autograder.kernel import isolate, usage
from autograder.kernel.cgroup import Group, Hierarchy, hierarchy
from autograder.kernel.child import PORTS, UNCONFINED, Limits, Order, run

ORDER_LIMIT = 1 << 16
DESCRIPTORS = 2 + len(PORTS)
LOOK_SECONDS = 0.25
_PR_SET_CHILD_SUBREAPER = 36


# Not matplotlib's inline backend, which attaches itself to the shell that exists at its import.
KERNELS = (
    "tensorflow.compat.v1",
    "numpy.random",
    "matplotlib.pyplot",
    "matplotlib.backends.backend_agg",
    "PIL.Image",
    "PIL.JpegImagePlugin",
    "PIL.PngImagePlugin",
    "ipykernel.kernelapp",
    "ipykernel.zmqshell",
    "ipykernel.debugger",
    "tornado.platform.asyncio",
    "tornado.queues",
    "IPython.core.completer",
    "IPython.core.debugger",
    "IPython.core.oinspect",
    "IPython.core.pylabtools",
    "IPython.extensions.storemagic",
    "sqlite3",
    "pyseccomp",
    "autograder.kernel.application",
    "autograder.kernel.devices",
    "autograder.kernel.responder",
    "autograder.kernel.fast_forward",
    "autograder.kernel.archive",
    "autograder.kernel.checkpoint",
    "autograder.kernel.notebook",
)


def preload(modules: Sequence[str]) -> None:
    """Import what every child needs, and let the modules prepare; none may start a thread."""
    import importlib

    for name in modules:
        module = importlib.import_module(name)
        if hasattr(module, "prepare_forks"):
            module.prepare_forks()
    # The imports stay; a child that collected garbage among them would copy every page.
    gc.collect()
    gc.freeze()


@dataclass
class Child:
    """One forked process, and the client that ordered it."""

    pid: int
    pidfd: int
    client: socket.socket
    order: Order
    log: int
    group: Group | None
    reason: str = ""


class WarmServer:
    """Accepts orders on `listener` and keeps each child's connection until the child ends."""

    def __init__(self, listener: socket.socket, hierarchy: Hierarchy | None) -> None:
        self.listener = listener
        self.hierarchy = hierarchy
        self.selector = selectors.DefaultSelector()
        self.children: dict[int, Child] = {}  # by pid
        self.baseline = usage.anonymous_memory(os.getpid())

    def serve(self, lifeline: int) -> None:
        """Serve until `lifeline` (a descriptor) reaches its end, then kill every child."""
        self.selector.register(self.listener, selectors.EVENT_READ, "accept")
        self.selector.register(lifeline, selectors.EVENT_READ, "stop")
        looked = time.monotonic()
        while True:
            for key, _ in self.selector.select(LOOK_SECONDS if self.children else None):
                match key.data:
                    case "stop" if os.read(lifeline, 1) == b"":
                        for child in list(self.children.values()):
                            self._end(child)
                        return
                    case "accept":
                        self._accept()
                    case Child() as child if child.pid in self.children:
                        self._end(child)  # it has ended, or its client is gone
            if time.monotonic() - looked >= LOOK_SECONDS:
                self._look()
                looked = time.monotonic()

    def _look(self) -> None:
        """End every child that exceeds its limits."""
        groups = usage.by_group(self.children, self.baseline) if self.children else {}
        for child in list(self.children.values()):
            used = groups.get(child.pid)
            if child.group is not None and child.group.overrun:
                self._end(child)  # `_end` sets the reason
            elif used is not None:
                child.reason = used.over(child.order.limits, child.order.writable, child.log)
                if child.reason:
                    self._end(child)

    # -- starting --------------------------------------------------------------------------

    def _accept(self) -> None:
        client, _ = self.listener.accept()
        client.settimeout(5)
        descriptors: list[int] = []
        try:
            data, descriptors, _, _ = socket.recv_fds(client, ORDER_LIMIT, DESCRIPTORS)
            fields = json.loads(data)
            order = Order(**{**fields, "limits": Limits(**fields["limits"])})
            values, log, *channels = descriptors
            self._start(client, order, values, log, channels)
        except (OSError, ValueError, TypeError, KeyError) as error:
            self._tell(client, {"error": f"{error}"})
            client.close()
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _start(
        self, client: socket.socket, order: Order, values: int, log: int, channels: list[int]
    ) -> None:
        announced, announce = os.pipe()
        go, start = os.pipe()
        # Build these once, here, for all children.
        isolate.readable()
        if order.level != UNCONFINED:
            isolate.forbidden_calls(order.level)
        first = os.fork()
        if first == 0:
            self._become_child(order, values, log, channels, announce, go)
        os.close(announce)
        os.close(go)
        try:
            with os.fdopen(announced, "rb") as pipe:
                line = pipe.readline()
            pid = int(line) if line.strip().isdigit() else 0
            try:
                group = self._bound(pid, order) if pid else None
            finally:
                if pid != first:
                    # Reap it before its child continues: the child asks to end with its parent,
                    # which is then us.
                    os.waitpid(first, 0)
            if not pid:
                raise OSError(line.decode("utf-8", "replace").strip() or "the child ended early")
            child = Child(pid, os.pidfd_open(pid), client, order, os.dup(log), group)
            self.children[pid] = child
            self.selector.register(child.pidfd, selectors.EVENT_READ, child)
            self.selector.register(client, selectors.EVENT_READ, child)
            self._tell(client, {"pid": pid})
            os.write(start, b"g")
        finally:
            os.close(start)

    def _bound(self, pid: int, order: Order) -> Group | None:
        """Let Linux limit the memory of a child that has not started yet; None where it cannot."""
        if self.hierarchy is None:
            return None
        # Memory shared with this process is free, but a page counts once the child writes to it.
        group = self.hierarchy.group(str(pid), order.limits.memory + self.baseline)
        try:
            group.add(pid)
        except OSError:
            group.remove()
            raise
        return group

    def _become_child(
        self, order: Order, values: int, log: int, channels: list[int], announce: int, go: int
    ) -> NoReturn:
        status = 1
        try:
            run(order, socket.socket(fileno=values), log, channels, announce, go)
            status = 0
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        except BaseException as error:
            with contextlib.suppress(OSError):  # the pipe is closed once the child is announced
                os.write(announce, f"{order.level}: {error}\n".encode())
            traceback.print_exc()
        finally:
            os._exit(status)

    # -- ending ----------------------------------------------------------------------------

    def _end(self, child: Child) -> None:
        """Kill a child and everything in its group, and tell its client."""
        del self.children[child.pid]
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)
        # seccomp keeps every process of a confined submission in the group.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        _, status = os.waitpid(child.pid, 0)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-child.pid, 0)[0]:  # orphans of the group, now our children
                pass
        self.selector.unregister(child.pidfd)
        self.selector.unregister(child.client)
        os.close(child.pidfd)
        os.close(child.log)
        if child.group is not None:
            if child.group.overrun and not child.reason:
                child.reason = usage.too_much_memory(child.order.limits)
            child.group.remove()
        exit_status = os.waitstatus_to_exitcode(status)
        self._tell(child.client, {"exit": exit_status, "reason": child.reason})
        child.client.close()

    def _tell(self, client: socket.socket, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # the client may be gone; its child ends next
            client.sendall(json.dumps(message).encode() + b"\n")


def main(folder: str, *modules: str) -> None:
    """Preload, listen, print ``ready``, serve, and finally remove the folder.

    modules: the modules to preload; none for those that kernels need.

    It prints ``ready, memory bounded`` if Linux limits the memory of forked processes.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the grader handles Ctrl-C
    # Adopt processes that lose their parent, so that they can be waited for.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    preload(modules or KERNELS)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    os.chdir(folder)  # a socket's path is limited to 107 bytes
    listener.bind("socket")
    listener.listen(64)
    bounded = hierarchy()
    print("ready, memory bounded" if bounded else "ready", flush=True)
    try:
        WarmServer(listener, bounded).serve(lifeline=0)
    finally:
        # Including anything left by a grader that was killed.
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
