"""Runs one restored notebook in a forked kernel, cell by cell, as far as the checks need."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import select
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
from nbclient.exceptions import CellControlSignal, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from traitlets import Any, Int

from autograder.engine.clock import ASLEEP, BUSY, TOO_BUSY, Allowance, Clock
from autograder.engine.faults import FULL, NO_ROOM, in_words, is_graders
from autograder.engine.files import remove
from autograder.engine.notebook import grade_id, is_autograded, label
from autograder.engine.provisioner import Listeners, kernel_manager
from autograder.engine.sandbox import Sandbox
from autograder.engine.values import KernelLost, NoValue, Values
from autograder.errors import GraderFault, Passing, printable
from autograder.kernel.child import Order
from autograder.kernel.usage import anonymous_memory

OUTPUT_LIMIT = 4 << 20  # bytes of output to keep
LOG_LIMIT = 8192  # bytes of the log's end to keep
# Threads per computation, whatever the number of processors: the processor time and the order of
# additions are the same everywhere, and other notebooks get processors too.
AT_A_TIME = 2
THREADS = (
    *("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"),
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
)
LITTLE_ROOM = 1 << 20  # bytes of free disk below which a cell may have met a full disk
FLOOD_LIMIT = 64 << 20  # bytes of output at which a notebook is stopped
TAKEN_LIMIT = 2 << 30  # bytes by which a kernel may make this process grow
OUTPUTS = ("stream", "display_data", "update_display_data", "execute_result", "error")
WHOLE = 5  # a notebook with its answers may take this multiple of one cell's time
START_SECONDS = 60
GRACE_SECONDS = 5  # for a cell to heed an interrupt
SERVE = "__import__('autograder.kernel.responder', fromlist=['serve']).serve()"


class _Client(NotebookClient):  # type: ignore[misc]
    """nbclient with a limit on the total size of one notebook's messages.

    printed: bytes so far.
    on_flood: called once they are more than `FLOOD_LIMIT`.
    on_print: called with each line that a cell prints.
    allowed: the `Allowance` of the running cell.
    grace: what the cell may use until it heeds an interrupt.
    """

    printed = Int(0)
    on_flood = Any(None, allow_none=True)
    on_print = Any(None, allow_none=True)
    allowed = Any(None, allow_none=True)
    grace = Any(None, allow_none=True)
    shell_timeout_interval = Int(1)

    async def _async_handle_timeout(
        self, timeout: int, cell: NotebookNode | None = None
    ) -> dict[str, typing.Any] | None:
        """Wait while a cell may run, then interrupt it, then give it up; called every second.

        It interrupts repeatedly, since Python ignores interrupts in some places.
        """
        if self.allowed.left() > 0:
            await asyncio.sleep(0.05)  # a strange message makes nbclient call without a pause
            return None
        if self.grace.left() > 0:
            with contextlib.suppress(RuntimeError):  # it has ended
                await self.km.interrupt_kernel()
            await asyncio.sleep(0.05)
            return None
        self.iopub_timeout, self.raise_on_iopub_timeout = 1, False
        return {"content": {"ename": "TimeoutError", "evalue": "", "status": "error"}}

    def process_message(
        self, msg: dict[str, typing.Any], cell: NotebookNode, cell_index: int
    ) -> typing.Any:
        self.printed += len(str(msg["content"])) + sum(len(data) for data in msg["buffers"])
        if self.printed > FLOOD_LIMIT:
            self.on_flood()  # an exception would surface only when the cell's time is up
            return None
        if msg["msg_type"].startswith("comm_"):
            return None  # widgets: nobody would answer, and nbclient would keep their state
        if self.printed > OUTPUT_LIMIT and msg["msg_type"] in OUTPUTS:
            return None
        if self.on_print is not None and msg["msg_type"] == "stream":
            for line in str(msg["content"]["text"]).splitlines():
                self.on_print(line)
        return super().process_message(msg, cell, cell_index)


class KernelNotStarted(Passing):
    """No kernel came up; the text is the last line of its log, or the error."""


class NotebookRun:
    """A notebook and its kernel; a context manager.

    notebook: the restored notebook; its code cells get their outputs as they run.
    folder: the prepared scratch folder, which becomes the kernel's working directory.
    seconds: the time one cell may take, by the kernel's clock (see `Allowance`).
    shared: further files and folders that the kernel may read.
    grade_cells: also run the visible checks in grade cells, which a grader has no use for.
    on_print: called with each line that a cell prints.
    training_steps: the number each session computes (see `Setup`); None for all.
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
        training_steps: int | None = None,
    ) -> None:
        self.notebook = notebook
        self._grade_cells = grade_cells
        self.seconds = seconds
        self.stopped = ""  # why nothing more can be run
        self._hung = False
        self.notes: list[str] = []  # what happened on the way, in words for the student
        self._next = 0
        self.cells_seconds = 0.0  # wall time of the student's cells
        self._whole = WHOLE * seconds  # for all cells and answers together
        self._no_room = False  # whether the kernel said that the disk is full
        self._full = False  # whether it really was
        self._serving: Values | None = None
        self._closed = threading.Event()
        self._stopped_for = ""  # the guard's reason
        self._watch: threading.Thread | None = None
        _make_profile(folder)
        self._ours, theirs = socket.socketpair()
        self._place = sandbox.folder
        private = Path(tempfile.mkdtemp(prefix="kit-run-", dir=self._place))
        log = os.open(private / "log", os.O_WRONLY | os.O_CREAT, 0o600)
        self._log = (private / "log").open("rb", buffering=0)
        order = Order(
            entry="kernel",
            level=sandbox.level,
            scratch=str(folder),
            environment={**_environment(folder), **environment},
            shared=shared,
            training_steps=training_steps,
        )
        self._may_write = order.limits.disk
        self._listeners = Listeners(private)
        self._manager = kernel_manager(
            sandbox.address, order, self._listeners, theirs.fileno(), log
        )
        self._client = _Client(
            notebook,
            km=self._manager,
            startup_timeout=START_SECONDS,
            allow_errors=True,
            on_print=on_print,
            on_flood=self._kill,
        )
        try:
            self._client.start_new_kernel()
            self._client.start_new_kernel_client()
        except Exception as error:
            lines = self.log().strip().splitlines() or [str(error)]
            full = _room(self._place) < LITTLE_ROOM
            self.close()
            if full:
                raise GraderFault(FULL) from error
            raise KernelNotStarted(lines[-1]) from error
        finally:
            theirs.close()
            os.close(log)
            remove(private)  # open files stay open, and nobody can connect any more
        self._process = self._manager.provisioner.process
        self.clock = Clock(self._process.pid)
        self._killed_before = _killed_for_memory()
        self._watch = threading.Thread(target=self._guard, daemon=True)
        self._watch.start()

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
        self._log.seek(max(0, os.fstat(self._log.fileno()).st_size - LOG_LIMIT))
        text = self._log.read(LOG_LIMIT).decode("utf-8", "replace")
        return "\n".join(map(printable, text.splitlines()))

    def values_at(self, cell: str) -> Values:
        """Run every cell before the grade cell `cell`, and open the kernel for questions.

        Raises KernelLost when the kernel ended or had to be stopped on the way, and GraderFault
        when this machine lacked the time or the disk space for it.
        """
        position = next(i for i, other in enumerate(self.notebook.cells) if grade_id(other) == cell)
        self._run_to(position)
        self.see_that_the_machine_did_its_part()
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
        """Run the rest of the notebook.  Raises GraderFault as `values_at` does."""
        self._run_to(len(self.notebook.cells))

    @property
    def hung(self) -> bool:
        """Whether a cell or an answer slept until its time was up."""
        return self._hung or (self._serving is not None and self._serving.hung)

    def see_that_the_machine_did_its_part(self) -> None:
        """Raise GraderFault when the kernel lacked disk space or memory that it was entitled to.

        A kernel may falsely say that the disk is full.  It is not believed as long as it has all
        the space that it may use.
        """
        room = _room(self._place)
        told = self._no_room or (self._serving is not None and self._serving.no_room)
        if self._full or room < LITTLE_ROOM or (told and room < self._may_write):
            raise GraderFault(FULL)
        lost = self._serving is not None and self._serving.lost
        ended = self._process.poll(5 if lost else 0) if not self.stopped else None
        if (
            ended == -signal.SIGKILL
            and not self._process.reason
            and not self._stopped_for
            and _killed_for_memory() > self._killed_before
        ):
            raise GraderFault("this machine ran out of memory")

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
        self.clock.look(counted=False)
        allowed = Allowance(self.clock, min(self.seconds, self._whole - self.clock.used))
        self._client.allowed, self._client.grace = allowed, Allowance(self.clock, GRACE_SECONDS)
        self._client.timeout = 1
        # The rest of a cell's output arrives at once unless the machine is busy.
        self._client.iopub_timeout, self._client.raise_on_iopub_timeout = 60, True
        try:
            self._client.execute_cell(cell, index)
        except DeadKernelError:
            self.see_that_the_machine_did_its_part()
            self._stop(f"{self._why_it_ended()} {where}")
            return
        except CellTimeoutError:
            self._stop(f"the kernel did not say when it was done {where}")
            return
        except CellControlSignal as error:
            self._stop(f"the kernel could not go on {where} ({type(error).__name__})")
            return
        except Exception as error:  # nbclient trusts what a kernel sends; we do not
            if is_graders(error):
                raise GraderFault(f"a cell could not be run: {in_words(error)}") from error
            self._stop(f"the kernel sent what is no message ({type(error).__name__}) {where}")
            return
        self.cells_seconds += time.monotonic() - started
        self.clock.look(counted=False)
        self._no_room = self._no_room or _says_no_room(cell)
        if _ended_itself(cell):
            self.notes.append(f"quit(), exit() or sys.exit() ended a cell early, {where}")
        if allowed.why == BUSY:
            raise GraderFault(f"{TOO_BUSY} {where}")
        self._hung = self._hung or allowed.why == ASLEEP
        if allowed.why:
            self.notes.append(f"stopped after {self.seconds:.0f} s {where}")
            try:
                if self._client.grace.why:
                    raise KernelLost("it heeds no interrupt")
                self._serving = self._serve()
            except KernelLost:
                self._stop(self.notes.pop())
        if self.clock.used >= self._whole and not self.stopped:
            self._stop(f"stopped after {self._whole:.0f} s in all, {where}")

    def _why_it_ended(self) -> str:
        if self._stopped_for:
            return self._stopped_for
        if self._client.printed > FLOOD_LIMIT:
            return f"stopped after printing {FLOOD_LIMIT >> 20} MB"
        provisioner = self._manager.provisioner
        process = provisioner.process if provisioner is not None else None
        return (process.reason if process is not None else "") or "the kernel ended"

    def _serve(self) -> Values:
        """Make the kernel answer questions, and verify that it does."""
        self._client.kc.execute(SERVE, silent=True, store_history=False, stop_on_error=False)
        values = Values(self._ours, self.clock, self._whole)
        try:
            values.ask("describe", seconds=10, names=[])
        except KernelLost:
            self._hung = self._hung or values.hung
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
        self._no_room = self._no_room or self._serving.no_room
        self._hung = self._hung or self._serving.hung
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
        """End the kernel when its connection is lost or it floods this process.

        A message may have any number of parts, and no ZeroMQ option limits their total size.
        """
        try:
            process = os.pidfd_open(self._manager.provisioner.process.pid)
        except ProcessLookupError:
            return  # it has ended
        ended, silent_since = select.poll(), math.inf
        ended.register(process, select.POLLIN)
        most = anonymous_memory(os.getpid()) + TAKEN_LIMIT
        while not self._closed.wait(0.2) and not ended.poll(0):
            self._full = self._full or _room(self._place) < LITTLE_ROOM
            if silent_since == math.inf and self._client.kc.lost():
                silent_since = time.monotonic()
            if anonymous_memory(os.getpid()) > most:
                self._stopped_for = "sent more than the grader can take in, and was stopped"
            elif time.monotonic() - silent_since > 1:  # time to end by itself
                self._stopped_for = "lost its connection to the grader, and was stopped"
            else:
                continue
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, signal.SIGKILL)
            break
        os.close(process)

    def close(self) -> None:
        """End the kernel and everything it started, and close its connections and its log."""
        self._closed.set()
        if self._watch is not None:
            self._watch.join()
        self._kill()
        with contextlib.suppress(Exception):  # the kernel may be gone
            if self._client.kc is not None:
                self._client.kc.stop_channels()
            asyncio.run(self._manager.cleanup_resources())
        self._listeners.close()
        self._ours.close()
        self._log.close()


def _room(folder: Path) -> int:
    """Bytes that can still be written to the disk of `folder`; 0 when no file can be created."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize if found.f_favail or not found.f_files else 0


def _killed_for_memory() -> int:
    """The number of processes that Linux has killed since boot because memory ran out."""
    with contextlib.suppress(OSError), open("/proc/vmstat") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("oom_kill "))
    return 0


def _ended_itself(cell: NotebookNode) -> bool:
    errors = [o for o in cell.get("outputs", []) if o.get("output_type") == "error"]
    return any(error.get("ename") == "SystemExit" for error in errors)


def _says_no_room(cell: NotebookNode) -> bool:
    errors = [o for o in cell.get("outputs", []) if o.get("output_type") == "error"]
    return any(NO_ROOM in f"{error.get('evalue')}" for error in errors)


def _make_profile(folder: Path) -> None:
    """Create what IPython would otherwise copy, with a chmod that the Landlock level forbids."""
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
        "TF_ENABLE_ONEDNN_OPTS": "1",
        "CUDA_VISIBLE_DEVICES": "-1",
        "PIP_NO_INDEX": "1",  # without it, pip would wait for a network
        **dict.fromkeys(THREADS, str(AT_A_TIME)),
    }


def _mend(cell: NotebookNode) -> None:
    """Drop everything from a cell that a kernel put there and a notebook must not hold."""
    if type(cell.get("execution_count")) is not int:
        cell.execution_count = None
    cell.outputs = [_lean(output) for output in cell.outputs if _is_valid(output)]


def _lean(output: NotebookNode) -> NotebookNode:
    """The output without JSON data and metadata, which every reader loads and no page shows."""
    if "data" in output:
        texts = {kind: text for kind, text in output.data.items() if isinstance(text, str)}
        output.data, output.metadata = NotebookNode(texts), NotebookNode()
    return output


def _is_valid(output: NotebookNode) -> bool:
    try:
        nbformat.validate(output, ref="output", version=4, version_minor=5)
    except Exception:  # not only ValidationError: an output may be anything
        return False
    return True


def _name(cell: NotebookNode, index: int) -> str:
    """A student's name for a cell: the lecture's label, or the position of a cell of their own."""
    identity = grade_id(cell)
    return label(identity) if identity else f"number {index + 1}"
