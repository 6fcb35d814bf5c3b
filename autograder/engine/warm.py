"""The trusted end of the warm interpreter: starts it, orders processes from it, and ends them."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from autograder.errors import GraderFault, Passing, UserError
from autograder.kernel.child import Order

START_SECONDS = 180
END_SECONDS = 120  # ending very many processes takes time, and other requests wait for it


class WarmLost(Passing):
    """The warm interpreter ended, and every kernel with it; the text names its address."""


class WarmInterpreter:
    """A running warm interpreter; a context manager.

    modules: modules to import for the processes it forks; none for those that kernels need.

    Another process on this machine needs only `address` (a socket path) to order kernels from it.
    The interpreter ends with the process that started it and removes its folder with everything
    that runs made in it.
    """

    def __init__(self, *modules: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="kit-warm-"))
        self.address = str(self._folder / "socket")
        self._log = self._folder / "log"
        environment = {
            "PATH": os.defpath,
            "LANG": "C.UTF-8",
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",
            "MPLCONFIGDIR": str(self._folder / "matplotlib"),
            "HOME": str(self._folder),
            "IPYTHONDIR": str(self._folder / "ipython"),
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "TF_ENABLE_ONEDNN_OPTS": "1",  # otherwise TensorFlow decides by the processor
            "CUDA_VISIBLE_DEVICES": "-1",
            "OPENBLAS_NUM_THREADS": "2",  # read when NumPy is imported, for all kernels
        }
        program = [sys.executable, "-P", "-s", "-m", "autograder.kernel.warm"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*program, str(self._folder), *modules],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                cwd=self._folder,
                start_new_session=True,
            )
        self._ready = False
        self.bounds_memory = False  # whether Linux itself does; known after `wait`

    def wait(self) -> WarmInterpreter:
        """Block until kernels can be ordered.  Raises UserError when it does not come up."""
        if self._ready:
            return self
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], START_SECONDS)
        said = self._process.stdout.readline() if readable else b""
        if not said.startswith(b"ready"):
            tail = self._log.read_text(errors="replace").strip().splitlines()[-1:]
            self.close()
            raise UserError(f"the warm interpreter did not start: {' '.join(tail) or 'no reason'}")
        self._ready = True
        self.bounds_memory = b"memory bounded" in said
        return self

    @property
    def ended(self) -> bool:
        """Whether the interpreter has ended, for example killed for lack of memory."""
        return self._process.poll() is not None

    def close(self) -> None:
        """End the interpreter and every process it has forked."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> WarmInterpreter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def connect(address: str) -> socket.socket:
    """Connect to a warm interpreter.  Raises OSError.

    Linux limits a socket's path to 107 bytes, and a temporary folder's may be longer, so the path
    goes through an open descriptor of the folder.
    """
    path, name = os.path.split(address)
    folder = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(f"/proc/self/fd/{folder}/{name}")
    except OSError:
        connection.close()
        raise
    finally:
        os.close(folder)
    return connection


class Forked:
    """One process ordered from the warm interpreter at `address`.

    It lives until it ends by itself, `kill` is called, or the process that ordered it is gone.

    values: descriptor of the values connection.
    log: descriptor of the log file.
    channels: descriptors of the sockets that a kernel listens on (see `PORTS`).
    """

    def __init__(
        self, address: str, order: Order, values: int, log: int, channels: Sequence[int] = ()
    ) -> None:
        self._buffer = b""
        self.pid = 0
        self.exit_status: int | None = None
        self.reason = ""  # the limit it exceeded, in words for the student
        try:
            self._connection = connect(address)
            message = json.dumps(asdict(order)).encode()
            socket.send_fds(self._connection, [message], [values, log, *channels])
            started = self._message(time.monotonic() + END_SECONDS)
        except OSError as error:
            raise WarmLost(address) from error
        if started is None or "pid" not in started:
            why = (started or {}).get("error", "no answer")
            raise GraderFault(f"the warm interpreter could not start a process ({why})")
        self.pid = int(started["pid"])

    def _message(self, deadline: float) -> dict[str, Any] | None:
        while b"\n" not in self._buffer:
            self._connection.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                data = self._connection.recv(4096)
            except TimeoutError:
                return None
            if not data:  # the warm interpreter is gone and cannot end the group
                if self.pid:
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.killpg(self.pid, signal.SIGKILL)
                return {"exit": -signal.SIGKILL}
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def poll(self, seconds: float = 0) -> int | None:
        """The exit status, or None while the process runs; waits at most `seconds`."""
        if self.exit_status is None:
            message = self._message(time.monotonic() + seconds)
            if message is not None:
                self.exit_status = int(message["exit"])
                self.reason = message.get("reason", "")
        return self.exit_status

    def signal(self, number: int) -> None:
        """Send a signal to the process, if it still runs."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End the process and everything in its group, and wait until it is gone."""
        if self.exit_status is None:
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_WR)
            if self.poll(END_SECONDS) is None:
                raise UserError(f"process {self.pid} could not be ended; end it by hand")
        self._connection.close()
