"""Runs one restored notebook in a forked kernel, cell by cell, as far as the checks ask."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import tempfile
import threading
import time
import typing
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, DeadKernelError
from nbformat import NotebookNode
from traitlets import Any, Int

from autograder.engine.files import remove
from autograder.engine.notebook import grade_id, is_autograded, label
from autograder.engine.provisioner import kernel_manager
from autograder.engine.sandbox import Sandbox
from autograder.engine.values import KernelLost, NoValue, Values
from autograder.errors import printable
from autograder.kernel.child import Order
from autograder.kernel.usage import anonymous_memory

OUTPUT_LIMIT = 4 << 20  # bytes of output that are kept
LOG_LIMIT = 8192  # bytes of the log's end that are kept
FLOOD_LIMIT = 64 << 20  # bytes of output at which a notebook is stopped
TAKEN_LIMIT = 2 << 30  # bytes by which a kernel may make this process grow
OUTPUTS = ("stream", "display_data", "update_display_data", "execute_result", "error")
WHOLE = 5  # a notebook and its answers may take so many times what one cell may take
START_SECONDS = 60
SERVE = "__import__('autograder.kernel.responder', fromlist=['serve']).serve()"


class _Client(NotebookClient):  # type: ignore[misc]
    """nbclient with a bound on what one notebook's messages may hold.

    printed: bytes so far; on_flood: called once they are more than `FLOOD_LIMIT`.
    """

    printed = Int(0)
    on_flood = Any(None, allow_none=True)
    on_print = Any(None, allow_none=True)
    shell_timeout_interval = Int(1)

    def process_message(
        self, msg: dict[str, typing.Any], cell: NotebookNode, cell_index: int
    ) -> typing.Any:
        self.printed += len(str(msg["content"])) + sum(len(data) for data in msg["buffers"])
        if self.printed > FLOOD_LIMIT:
            self.on_flood()  # an exception would be noticed when the cell's time is over
            return None
        if msg["msg_type"].startswith("comm_"):
            return None  # widgets: nobody would answer, and nbclient would keep their state
        if self.printed > OUTPUT_LIMIT and msg["msg_type"] in OUTPUTS:
            return None
        if self.on_print is not None and msg["msg_type"] == "stream":
            for line in str(msg["content"]["text"]).splitlines():
                self.on_print(line)
        return super().process_message(msg, cell, cell_index)


class KernelNotStarted(Exception):
    """No kernel came up; the text is the last thing it said."""


class NotebookRun:
    """A notebook and its kernel; a context manager.

    notebook: the restored notebook; code cells get their outputs as they run.
    folder: the prepared scratch folder, which becomes the kernel's working directory.
    seconds: wall time that one cell may take.
    shared: further files and folders that the kernel may read.
    grade_cells: run the visible checks in grade cells too; a grader has no use for them.
    on_print: called with each line that a cell prints.
    """

    def __init__(
        self,
        notebook: NotebookNode,
        folder: Path,
        *,
        sandbox: Sandbox,
        environment: dict[str, str],
        seconds: float,
        shared: tuple[str, ...] = (),
        grade_cells: bool = False,
        on_print: Callable[[str], object] | None = None,
    ) -> None:
        self.notebook = notebook
        self._grade_cells = grade_cells
        self.seconds = seconds
        self.stopped = ""  # why nothing more can be run
        self.notes: list[str] = []  # what happened on the way, in words for the student
        self._next = 0
        self.cells_seconds = 0.0  # that the student's cells have taken
        self._left = WHOLE * seconds  # for cells and answers
        self._serving: Values | None = None
        self._closed = threading.Event()
        self._overrun = False
        self._runtime = Path(tempfile.mkdtemp(prefix="kit-run-", dir=sandbox.folder))
        (self._runtime / "kernel").mkdir(mode=0o700)
        _make_profile(folder)
        self._ours, theirs = socket.socketpair()
        log = os.open(self._runtime / "log", os.O_WRONLY | os.O_CREAT, 0o600)
        order = Order(
            entry="kernel",
            level=sandbox.level,
            scratch=str(folder),
            runtime=str(self._runtime / "kernel"),
            environment={**_environment(folder), **environment},
            shared=shared,
        )
        self._manager = kernel_manager(sandbox.address, order, theirs.fileno(), log)
        self._client = _Client(
            notebook,
            km=self._manager,
            startup_timeout=START_SECONDS,
            allow_errors=True,
            interrupt_on_timeout=True,
            on_print=on_print,
            on_flood=self._kill,
            error_on_timeout={"ename": "TimeoutError", "evalue": "", "traceback": []},
        )
        try:
            self._client.start_new_kernel()
            self._client.start_new_kernel_client()
        except Exception as error:
            lines = self.log().strip().splitlines() or [str(error)]
            self.close()
            raise KernelNotStarted(lines[-1]) from error
        finally:
            theirs.close()
            os.close(log)
        threading.Thread(target=self._guard, daemon=True).start()

    def __enter__(self) -> NotebookRun:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def log(self) -> str:
        """The last lines that the kernel process wrote to its log, without control characters."""
        with (self._runtime / "log").open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LOG_LIMIT))
            text = file.read(LOG_LIMIT).decode("utf-8", "replace")
        return "\n".join(map(printable, text.splitlines()))

    def values_at(self, cell: str) -> Values:
        """Run every cell before the grade cell `cell`, and open the kernel for questions.

        Raises KernelLost when the kernel ended, or had to be stopped, on the way.
        """
        position = next(i for i, other in enumerate(self.notebook.cells) if grade_id(other) == cell)
        self._run_to(position)
        if self.stopped:
            raise KernelLost(self.stopped)
        if self._serving is None:
            try:
                self._serving = self._serve()
            except KernelLost as error:
                self._stop(str(error))  # or each later grade cell would wait for it again
                raise
        return self._serving

    def finish(self) -> None:
        """Run what is left of the notebook."""
        self._run_to(len(self.notebook.cells))

    def _run_to(self, position: int) -> None:
        while self._next < position and not self.stopped:
            cell = self.notebook.cells[self._next]
            if cell.cell_type == "code" and (self._grade_cells or not is_autograded(cell)):
                self._stop_serving()
                if not self.stopped:
                    self._execute(cell, self._next)
                    _mend(cell)
            self._next += 1

    def _execute(self, cell: NotebookNode, index: int) -> None:
        where = f"in cell {_name(cell, index)}"
        started = time.monotonic()
        self._client.timeout = max(1, int(min(self.seconds, self._left)))
        try:
            self._client.execute_cell(cell, index)
        except DeadKernelError:
            self._stop(f"{self._why_it_ended()} {where}")
            return
        except CellControlSignal as error:
            self._stop(f"the kernel could not go on {where} ({type(error).__name__})")
            return
        except Exception as error:  # nbclient trusts what a kernel sends; we do not
            self._stop(f"the kernel sent what is no message ({type(error).__name__}) {where}")
            return
        took = time.monotonic() - started
        self.cells_seconds += took
        self._left -= took
        if took >= self.seconds:
            self.notes.append(f"stopped after {self.seconds:.0f} s {where}")
            try:
                self._serving = self._serve(seconds=5)
            except KernelLost:
                self._stop(self.notes.pop())
        if self._left <= 0 and not self.stopped:
            self._stop(f"stopped after {WHOLE * self.seconds:.0f} s in all, {where}")

    def _why_it_ended(self) -> str:
        if self._overrun:
            return "sent more than the grader can take in, and was stopped"
        if self._client.printed > FLOOD_LIMIT:
            return f"stopped after printing {FLOOD_LIMIT >> 20} MB"
        provisioner = self._manager.provisioner
        process = provisioner.process if provisioner is not None else None
        return (process.reason if process is not None else "") or "the kernel ended"

    def _serve(self, seconds: float = 10) -> Values:
        """Let the kernel answer questions, and see that it does."""
        self._client.kc.execute(SERVE, silent=True, store_history=False, stop_on_error=False)
        values = Values(self._ours, self._left)
        try:
            values.ask("describe", seconds=seconds, names=[])
        except KernelLost:
            raise
        except NoValue as error:
            raise KernelLost(str(error)) from error
        return values

    def _stop_serving(self) -> None:
        if self._serving is None:
            return
        try:
            self._serving.ask("done", seconds=10)
        except NoValue as error:
            self._stop(str(error))
        self._left = self._serving.left
        self._serving = None

    def _stop(self, reason: str) -> None:
        self.stopped = reason
        self.notes.append(reason)
        self._kill()

    def _kill(self) -> None:
        provisioner = self._manager.provisioner
        if provisioner is not None and provisioner.process is not None:
            provisioner.process.kill()

    def _guard(self) -> None:
        """End the kernel when this process, which takes in what it sends, grows too large.

        A message may have any number of parts, and no option of ZeroMQ bounds them together.
        """
        process = self._manager.provisioner.process
        most = anonymous_memory(os.getpid()) + TAKEN_LIMIT
        while not self._closed.wait(0.2):
            if anonymous_memory(os.getpid()) > most:
                self._overrun = True
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
                return

    def close(self) -> None:
        """End the kernel and everything it started, and remove what it ran with."""
        self._closed.set()
        self._kill()
        with contextlib.suppress(Exception):  # sockets of a kernel that is gone
            if self._client.kc is not None:
                self._client.kc.stop_channels()
            asyncio.run(self._manager.cleanup_resources())
        self._ours.close()
        remove(self._runtime)


def _make_profile(folder: Path) -> None:
    """What IPython would otherwise copy there, which Landlock alone cannot allow (chmod)."""
    startup = folder / ".ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True, exist_ok=True)
    (startup / "README").touch()


def _environment(folder: Path) -> dict[str, str]:
    return {
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "MPLCONFIGDIR": str(folder / ".matplotlib"),
        "IPYTHONDIR": str(folder / ".ipython"),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "-1",
    }


def _mend(cell: NotebookNode) -> None:
    """Drop what a kernel put into a cell that no notebook may hold."""
    if type(cell.get("execution_count")) is not int:
        cell.execution_count = None
    cell.outputs = [output for output in cell.outputs if _is_valid(output)]


def _is_valid(output: NotebookNode) -> bool:
    try:
        nbformat.validate(output, ref="output", version=4, version_minor=5)
    except Exception:  # not only ValidationError: what came may be anything
        return False
    return True


def _name(cell: NotebookNode, index: int) -> str:
    """What a student calls a cell: the lecture's label, or for a cell of their own its place."""
    identity = grade_id(cell)
    return label(identity) if identity else f"number {index + 1}"
