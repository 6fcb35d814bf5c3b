"""The measurements; each returns seconds, bytes and counts as plain data."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import nbformat
import psutil
from jupyter_client.manager import start_new_kernel
from nbgrader.api import Gradebook as Database

from autograder.course import Course
from autograder.data import mnist
from autograder.engine.pool import Engine
from autograder.engine.run import NotebookRun
from autograder.engine.sandbox import sandbox
from autograder.engine.warm import WarmInterpreter
from autograder.errors import UserError
from autograder.record.gradebook import Gradebook
from benchmarks.courses import ASSIGNMENT, make, run, students

FIRST_CELL = """
import tensorflow.compat.v1 as tf
with tf.Graph().as_default(), tf.Session() as session:
    assert session.run(tf.constant(20) + 22) == 42
"""
Measured = dict[str, Any]


def kernel_start(times: int) -> Measured:
    """Seconds from requesting a kernel to the end of its first cell, which uses TensorFlow."""
    began = time.perf_counter()
    with WarmInterpreter() as warm:
        place = sandbox(warm)
        warming = time.perf_counter() - began
        ours, stock = [], []
        for _ in range(times):  # alternate, so that other load affects both alike
            ours.append(_first_cell_of_ours(place))
            stock.append(_first_cell_of_stock())
    return {
        "ours": ours,
        "stock": stock,
        "warm interpreter": warming,
        "ratio": statistics.median(stock) / statistics.median(ours),
    }


def _first_cell_of_ours(place: Any) -> float:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(FIRST_CELL)])
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        began = time.perf_counter()
        with NotebookRun(
            notebook, Path(folder), sandbox=place, environment={}, seconds=60
        ) as running:
            running.finish()
            took = time.perf_counter() - began
            assert not running.notes
    assert notebook.cells[0].execution_count == 1
    assert not any(output.output_type == "error" for output in notebook.cells[0].outputs)
    return took


def _first_cell_of_stock() -> float:
    began = time.perf_counter()
    manager, client = start_new_kernel(kernel_name="python3", env=_quiet())
    try:
        reply = client.execute_interactive(FIRST_CELL, timeout=300, output_hook=lambda _: None)
        took = time.perf_counter() - began
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert reply["content"]["status"] == "ok"
    return took


def _quiet() -> dict[str, str]:
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}


def stock_class(root: Path, ours: Course, executed: Path, sample: int, steps: int) -> Measured:
    """Measure stock `nbgrader autograde` on `sample` submissions.

    Args:
        root: root of the course to make.
        ours: the course to copy.
        executed: the folder of the executed solutions.
        sample: number of submissions.
        steps: training steps after which their loops end; 0 for the whole training.

    """
    make(root, ours, executed, sample, stock=True, steps=steps)
    began = time.perf_counter()
    run(
        root,
        "nbgrader",
        "autograde",
        ASSIGNMENT,
        **_quiet(),
        MNIST_DIR=str(mnist.find()),
    )
    took = time.perf_counter() - began
    with Database(f"sqlite:///{root / 'gradebook.db'}") as database:
        scores = [(s.score, s.max_score) for s in database.find_assignment(ASSIGNMENT).submissions]
    assert len(scores) == sample
    if not steps and any(score < most - 3 for score, most in scores):  # 3 are graded by hand
        raise UserError(f"stock nbgrader did not run the notebooks as it should: {scores}")
    return {"submissions": sample, "seconds": took, "per submission": took / sample}


def our_class(root: Path, ours: Course, executed: Path, count: int, jobs: int) -> Measured:
    """Measure `autograder grade` on a class: seconds, and peak memory by kind of process."""
    make(root, ours, executed, count, stock=False)
    command = [sys.executable, "-m", "autograder", "grade", ASSIGNMENT, "--jobs", str(jobs)]
    began = time.perf_counter()
    with subprocess.Popen(
        [*command, "--json", "--course", str(root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        memory = MemoryWatch(process.pid)
        memory.start()
        out, _ = process.communicate()
        took = time.perf_counter() - began
        memory.join()
    results = json.loads(out)
    assert len(results) == count
    if any(result["score"] < result["max_score"] for result in results):
        raise UserError("a correct submission lost points: measure on a machine that is not busy")
    return {
        "submissions": count,
        "jobs": jobs,
        "seconds": took,
        "per submission": took / count,
        "peak memory": memory.peak,
    }


class MemoryWatch(threading.Thread):
    """Samples the memory of a command's processes five times a second.

    Attributes:
        peak: largest anonymous memory in bytes of a single process, by kind.

    """

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._command = psutil.Process(pid)
        self.peak: dict[str, int] = {}

    def run(self) -> None:
        """Sample until the command ends."""
        while self._command.is_running() and self._command.status() != psutil.STATUS_ZOMBIE:
            try:
                family = [self._command, *self._command.children(recursive=True)]
            except psutil.Error:
                return
            for process in family:
                try:
                    kind, used = self._kind(process), _anonymous(process.pid)
                except (psutil.Error, OSError):
                    continue
                self.peak[kind] = max(self.peak.get(kind, 0), used)
            time.sleep(0.2)

    def _kind(self, process: psutil.Process) -> str:
        line = " ".join(process.cmdline())
        if process.pid == self._command.pid:
            return "command"
        if "autograder.kernel.warm" in line:
            return "warm interpreter" if process.ppid() == self._command.pid else "kernel"
        return "worker" if "spawn_main" in line else "other"


def _anonymous(pid: int) -> int:
    """Anonymous memory of a process in bytes, including pages shared with its parent by a fork."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    return 0


def overhead(root: Path, ours: Course, executed: Path, count: int) -> Measured:
    """Measure our seconds per submission beyond the student's cells, one notebook at a time.

    The first of `count` submissions is ignored, because it includes imports and data verification.
    """
    course = make(root, ours, executed, count, stock=False)
    submissions: list[dict[str, float]] = []
    gradebook = Gradebook(course)
    with Engine(course, jobs=1) as engine:
        for student in students(count):
            jobs = [engine.job(student, ASSIGNMENT, name) for name in course.notebooks(ASSIGNMENT)]
            began = time.perf_counter()
            graded = {job.notebook: one for job, one in engine.grade(jobs)}
            computed = time.perf_counter()
            gradebook.record(ASSIGNMENT, student, graded)
            recorded = time.perf_counter()
            cells = sum(one.cells_seconds for one in graded.values())
            submissions.append(
                {
                    "cells": cells,
                    "grading beyond the cells": computed - began - cells,
                    "recording": recorded - computed,
                }
            )
    usual = {
        part: statistics.median(spent[part] for spent in submissions[1:]) for part in submissions[0]
    }
    return {
        "submissions": submissions,
        **usual,
        "overhead": usual["grading beyond the cells"] + usual["recording"],
    }
