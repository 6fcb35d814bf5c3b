"""The time charged to student code does not depend on the machine's load."""

from __future__ import annotations

import contextlib
import copy
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nbformat import NotebookNode

from autograder.course import Course
from autograder.engine import clock, grade
from autograder.engine.clock import ASLEEP, BUSY, USED, Allowance, Clock
from autograder.engine.grade import Job
from autograder.engine.notebook import grade_id
from autograder.engine.run import NotebookRun
from autograder.engine.sandbox import Sandbox, sandbox
from autograder.engine.values import KernelLost
from autograder.engine.warm import WarmInterpreter
from autograder.errors import GraderFault
from autograder.kernel import isolate
from support.submissions import ASSIGNMENT, NOTEBOOKS, CourseCopy, max_points
from test_isolation import Start, starting

Run = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def run() -> Iterator[Run]:
    """Start Python code in a new process group; it ends with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(source: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", f"import os, signal, time\n{source}"],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def crowded(pid: int, others: int) -> Iterator[None]:
    """Make a process share one processor with `others` busy processes."""
    processor = min(os.sched_getaffinity(0))
    os.sched_setaffinity(pid, {processor})
    command = [sys.executable, "-c", "while True: pass"]
    crowd = [
        subprocess.Popen(  # a session each, since Linux schedules by session
            command,
            start_new_session=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {processor}),
        )
        for _ in range(others)
    ]
    try:
        yield
    finally:
        for process in crowd:
            process.kill()
            process.wait()


BURN = "while time.process_time() < {}: pass\n"
READY = "print('ready', flush=True)\n"


@pytest.mark.parametrize(
    "source",
    [
        BURN.format(0.6),
        # A child that was waited for, one that was not, and one that is still alive.
        "if os.fork() == 0:\n " + BURN.format(0.6) + " os._exit(0)\nos.wait()\n",
        "if os.fork() == 0:\n "
        + BURN.format(0.6).strip()
        + "\n print('ready', flush=True); time.sleep(99)\ntime.sleep(99)\n",
    ],
)
def test_processor_time_of_all_processes_counts(run: Run, source: str) -> None:
    process = run(source + READY + "time.sleep(99)")
    measured = Clock(process.pid)
    measured.look()
    assert 0.6 <= measured.processor + 0.05 < 6


def test_time_of_a_child_that_nobody_waits_for_stays(run: Run) -> None:
    source = (
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\nchild = os.fork()\nif child == 0:\n "
        + BURN.format(0.6).strip()
        + "\n print('ready', flush=True); time.sleep(99)\ntime.sleep(99)\n"
    )
    process = run(source)
    measured = Clock(process.pid)
    measured.look()
    before = measured.processor
    assert before > 0.5
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    while os.path.exists(f"/proc/{children[0]}"):
        time.sleep(0.01)
    measured.look()
    assert measured.processor >= before


def over(process: subprocess.Popen[str], seconds: float) -> tuple[str, Clock]:
    """Wait until an allowance is used up; return the reason and the clock."""
    measured = Clock(process.pid)
    allowed = Allowance(measured, seconds)
    while left := allowed.left():
        time.sleep(left)
    return allowed.why, measured


@pytest.mark.parametrize("work", ["while True: pass", "while True: os.urandom(10**6)"])
def test_work_uses_an_allowance_up(run: Run, work: str) -> None:
    why, measured = over(run(READY + work), 1)
    assert why == USED
    assert measured.processor >= 1
    assert measured.asleep < measured.processor


@pytest.mark.parametrize(
    "rest", ["time.sleep(99)", "os.kill(0, signal.SIGSTOP)", "while True: time.sleep(0.01)"]
)
def test_sleep_uses_it_up_too(run: Run, rest: str) -> None:
    why, measured = over(run(READY + rest), 1)
    assert why == ASLEEP
    assert measured.asleep > measured.processor


def test_what_is_not_let_run_has_used_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "PATIENCE", 3)
    monkeypatch.setattr(clock, "LOOK_SECONDS", 0.2)
    process = run(READY + "while True: pass")
    with crowded(process.pid, 9):
        why, measured = over(process, 0.5)
    assert why == BUSY
    assert measured.used < 0.5


# --- the same for a notebook ---


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start kernels; they end with the test."""
    with starting(tmp_path) as started:
        yield started


SLOW = """
import time
def work(seconds=1.5):
    end = time.process_time() + seconds
    while time.process_time() < end: pass
    return seconds
"""


def test_a_right_notebook_on_a_busy_machine_is_right(place: Sandbox, start: Start) -> None:
    run = start(place, SLOW, "a = work()", seconds=3)
    assert run.values_at("check-1").call("work", 0) == 0
    began = time.monotonic()
    with crowded(run._manager.provisioner.process.pid, 5):
        values = run.values_at("check-2")
        assert values.value("a") == 1.5
        assert values.call("work", 1.0, seconds=2) == 1.0
        run.finish()
    assert run.notes == []
    assert time.monotonic() - began > 3 + 2  # otherwise the machine was not busy


def test_a_notebook_that_is_not_let_run_is_no_mistake(
    place: Sandbox, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "PATIENCE", 1)
    run = start(place, SLOW, "a = work(60)", "b = work(60)", seconds=3)
    values = run.values_at("check-1")
    pid = run._manager.provisioner.process.pid
    with crowded(pid, 5), pytest.raises(GraderFault, match="too busy"):
        values.call("work", 60, seconds=3)
    other = start(place, SLOW, "a = work(60)", seconds=3)
    other.values_at("check-1")
    pid = other._manager.provisioner.process.pid
    with crowded(pid, 5), pytest.raises(GraderFault, match=r"run in cell WORK-2$"):
        other.values_at("check-2")


@pytest.mark.parametrize(
    "source",
    [
        "work(60)",
        "time.sleep(60)",
        "import os\nif os.fork() == 0:\n    work(60)\n    os._exit(0)\nos.wait()",
        "import os\nfor _ in range(1000):\n    if os.fork() == 0:\n        work(0.1)\n"
        "        os._exit(0)\n    os.wait()",
    ],
)
def test_what_a_cell_and_its_children_use_is_bounded(
    place: Sandbox, start: Start, source: str
) -> None:
    run = start(place, SLOW + source, "b = 2", seconds=2)
    assert run.values_at("check-2").value("b") == 2
    assert run.notes == ["stopped after 2 s in cell WORK-1"]
    assert run.clock.used < 20


@pytest.mark.parametrize("body", ["while True: pass", "time.sleep(60)"])
def test_an_answer_is_bounded_too(place: Sandbox, start: Start, body: str) -> None:
    run = start(place, f"import time\ndef f():\n    {body}")
    with pytest.raises(KernelLost, match="no answer within 1 s"):
        run.values_at("check-1").call("f", seconds=1)


def test_a_notebook_uses_as_many_threads_on_every_machine(
    warm: WarmInterpreter, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Sandbox(warm.address, isolate.NAMESPACES)
    source = """
    import numpy as np
    import tensorflow.compat.v1 as tf
    tf.disable_v2_behavior()
    big = np.ones((1000, 1000), np.float32)
    with tf.Session() as session:
        session.run(tf.matmul(big, big))
    """
    counts = []
    for threads in (2, 9):
        monkeypatch.setattr("autograder.engine.run.AT_A_TIME", threads)
        run = start(place, textwrap.dedent(source), "b = 2")
        run.values_at("check-2")
        counts.append(len(os.listdir(f"/proc/{run._manager.provisioner.process.pid}/task")))
    assert counts[1] - counts[0] == 2 * (9 - 2)  # within an operation and between operations


# --- and for its score ---


WAIT = "import threading\nthreading.Event().wait()\n"
HANGS = {
    "a cell": WAIT,
    "an answer": "from autograder.kernel import responder\n"
    f"responder.Responder.answer = lambda *_: exec({WAIT!r})",
}
FILTERS, GRAPH = NOTEBOOKS[0], "ofe-05-graph"


@pytest.mark.parametrize("often", [1, 2])
@pytest.mark.parametrize("where", HANGS)
def test_a_kernel_that_hangs_gets_one_more_try(
    warm: WarmInterpreter,
    course_copy: Callable[[], CourseCopy],
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    often: int,
) -> None:
    course = course_copy()
    folder = course.solved("ada", FILTERS)
    hung: list[NotebookRun] = []

    class Hanging(NotebookRun):
        """The first runs hang in the graph's cell, or after it."""

        def __init__(self, notebook: NotebookNode, *args: Any, **kwargs: Any) -> None:
            if len(hung) < often:
                notebook = copy.deepcopy(notebook)
                (graph,) = [cell for cell in notebook.cells if grade_id(cell) == GRAPH]
                graph.source += f"\n{HANGS[where]}"
                hung.append(self)
                kwargs["seconds"] = 3
            super().__init__(notebook, *args, **kwargs)

    monkeypatch.setattr(grade, "NotebookRun", Hanging)
    root = Course.at(course.root)
    place = Sandbox(warm.address, sandbox(warm).level)
    release, written = root.release(ASSIGNMENT), root.source(ASSIGNMENT)
    job = Job(ASSIGNMENT, FILTERS, folder, release, written, b"of the course", sandbox=place)
    graded = grade.grade_notebook(job)
    assert len(hung) == often
    assert "It hung, and was run again:" in graded.log
    if often == 1:
        points = {cell.cell: cell.points for cell in graded.result.cells}
        assert points == max_points(FILTERS)
        assert graded.result.reason == ""
    else:
        assert graded.result.reason.startswith(("stopped after 3 s", "the notebook gave no answer"))
