"""A course whose hidden checks log their runs and can be held at a gate.

Each notebook holds a number.  Its check appends a line to a log when it starts and another when it
ends, so a test can count how often it was graded.  While a gate for the number exists, the check
waits between the two, so a test can interfere during grading.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook
from nbgrader.api import Gradebook

from support.submissions import ROOT

ASSIGNMENT = "gated"
NOTEBOOKS = ("1-first", "2-second")
PATIENCE = 120.0  # seconds, for operations that take a few on an idle machine

FORBIDDEN = "no-kernels"
SITE = """
import os
import autograder.checks
autograder.checks.__path__.append({checks!r})
if os.path.exists({forbidden!r}):
    from autograder.engine import warm
    from autograder.errors import UserError

    def refuse(self):
        raise UserError("no kernel may start here")

    warm.WarmInterpreter.__init__ = refuse
"""
SURROUNDINGS = """
from autograder.checks import Setup
NOTEBOOKS = {name: Setup() for name in ("1-first", "2-second")}
"""
CHECKS = """
import os, time
from pathlib import Path
from autograder.checks import check, grade_cell

def note(line):
    with open(os.environ["GATED_LOG"], "a") as log:
        log.write(f"{line}\\n")

@grade_cell("double-check")
class TestDouble:
    @check("double is twice the number", hint="twice the number")
    def test_double(self, values, given):
        name = f"{int(values.value('number'))} NAME"
        note(f"start {name} {os.getpid()}")
        gate = Path(os.environ["GATED_LOG"]).with_name(f"gate {name}")
        ends = Path(os.environ["GATED_LOG"]).with_name(f"ends its worker {name}")
        deadline = time.monotonic() + 300
        while gate.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        if ends.exists():
            os._exit(1)
        breaks = ends.with_name(f"breaks {name}")
        left = int(breaks.read_text()) if breaks.exists() else 0
        if left:
            breaks.write_text(str(left - 1))
            raise MemoryError
        assert values.value("double") == 2 * values.value("number")
        note(f"end {name} {os.getpid()}")
"""


def _notebook() -> NotebookNode:
    """The instructor's notebook: a solution cell and a grade cell worth two points."""
    mark = {"schema_version": 3, "locked": False, "task": False}
    solution = {**mark, "grade_id": "double", "grade": False, "solution": True}
    grade = {"grade_id": "double-check", "grade": True, "solution": False, "points": 2}
    return new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        cells=[
            new_code_cell("number = 0", id="double", metadata={"nbgrader": solution}),
            new_code_cell("", id="double-check", metadata={"nbgrader": {**mark, **grade}}),
        ],
    )


@dataclass(frozen=True)
class GatedCourse:
    """The course, with one student per number.

    Attributes:
        root: the course root.
        place: the folder for log, gates, checks, and the commands' temporary files.
        students: names; `students[n]` submitted the number n.

    """

    root: Path
    place: Path
    students: list[str]

    @classmethod
    @contextmanager
    def make(cls, root: Path, count: int) -> Iterator[GatedCourse]:
        """A course known to nbgrader with `count` submissions; its processes end with the block."""
        # A short path, for sockets; private, so that all files in it belong to the course.
        place = Path(tempfile.mkdtemp(prefix="gated-"))
        course = cls(root, place, [f"s{n}" for n in range(count)])
        shutil.copy(ROOT / "nbgrader_config.py", root)
        (place / "log").touch()
        (place / "tmp").mkdir()
        course.write_checks(place)
        for name in NOTEBOOKS:
            source = root / "source" / ASSIGNMENT
            source.mkdir(parents=True, exist_ok=True)
            nbformat.write(_notebook(), source / f"{name}.ipynb")
        done = course.run("nbgrader", "generate_assignment", ASSIGNMENT)
        assert done.returncode == 0, done.stderr
        for number in range(count):
            for name in NOTEBOOKS:
                course.hand_in(number, name)
        try:
            yield course
        finally:
            for pid in course.processes():
                os.kill(pid, signal.SIGKILL)
            shutil.rmtree(place, ignore_errors=True)

    def hand_in(self, number: int, name: str, comment: str = "") -> None:
        """Write a student's notebook."""
        folder = self.root / "submitted" / self.students[number] / ASSIGNMENT
        folder.mkdir(parents=True, exist_ok=True)
        notebook = nbformat.read(self.root / "release" / ASSIGNMENT / f"{name}.ipynb", 4)
        notebook.cells[0].source = f"number = {number}\ndouble = {2 * number}\n# {comment}"
        nbformat.write(notebook, folder / f"{name}.ipynb")

    @staticmethod
    def write_checks(folder: Path, of_the_second: str = "") -> None:
        """Write the hidden checks below `folder`, which must be on Python's path.

        `of_the_second` is appended to the module of the second notebook.
        """
        checks = folder / "checks" / ASSIGNMENT
        checks.mkdir(parents=True, exist_ok=True)
        (checks / "__init__.py").write_text(SURROUNDINGS)
        for name, added in zip(NOTEBOOKS, ("", of_the_second), strict=True):
            module = checks / f"test_{name.replace('-', '_')}.py"
            module.write_text(CHECKS.replace("NAME", name) + added)
        (folder / "sitecustomize.py").write_text(
            SITE.format(checks=str(folder / "checks"), forbidden=str(folder / FORBIDDEN))
        )

    def forbid_kernels(self) -> None:
        """Make every command fail that needs a warm interpreter."""
        (self.place / FORBIDDEN).touch()

    def allow_kernels(self) -> None:
        """Undo `forbid_kernels`."""
        (self.place / FORBIDDEN).unlink()

    # --- gates and the log ---

    def _sign(self, kind: str, number: int, name: str) -> Path:
        return self.place / f"{kind} {number} {name}"

    def shut(self, number: int, name: str = NOTEBOOKS[0]) -> None:
        """Hold the check of this notebook until its gate is opened."""
        self._sign("gate", number, name).touch()

    def open_gate(self, number: int, name: str = NOTEBOOKS[0]) -> None:
        """Release the check of this notebook."""
        self._sign("gate", number, name).unlink()

    def open_gates(self) -> None:
        """Release all checks."""
        for gate in self.place.glob("gate *"):
            gate.unlink()

    def let_it_end_its_worker(self, number: int, name: str = NOTEBOOKS[0]) -> None:
        """Make the check of this notebook end its worker process every time, after its gate."""
        self._sign("ends its worker", number, name).touch()

    def let_the_grader_fail(self, number: int, name: str, times: int) -> None:
        """Make the check of this notebook raise a grader's fault this many times."""
        self._sign("breaks", number, name).write_text(str(times))

    def log(self, event: str) -> list[tuple[int, str, int]]:
        """(number, notebook, pid) of all log entries for this event."""
        lines = (line.split() for line in (self.place / "log").read_text().splitlines())
        return [(int(n), name, int(pid)) for what, n, name, pid in lines if what == event]

    def times_graded(self) -> Counter[tuple[int, str]]:
        """How often the grading of each notebook was completed."""
        return Counter((number, name) for number, name, _ in self.log("end"))

    def all_notebooks(self) -> set[tuple[int, str]]:
        """(number, name) of every notebook of every student."""
        return {(n, name) for n in range(len(self.students)) for name in NOTEBOOKS}

    def wait_for_start(self, number: int, name: str = NOTEBOOKS[0]) -> int:
        """Wait until this notebook is being graded; return the pid of the worker."""
        wanted = (number, name)
        poll(lambda: wanted in [entry[:2] for entry in self.log("start")], f"start of {wanted}")
        return next(pid for *entry, pid in reversed(self.log("start")) if tuple(entry) == wanted)

    # --- commands and their processes ---

    def environment(self) -> dict[str, str]:
        """The environment variables of all commands."""
        return {
            **os.environ,
            "PYTHONPATH": str(self.place),
            "TMPDIR": str(self.place / "tmp"),
            "GATED_LOG": str(self.place / "log"),
        }

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a command in the course root, as the leader of a process group."""
        return subprocess.Popen(
            command,
            cwd=self.root,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=_heed_interrupts,
        )

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the course root to its end."""
        process = self.start(*command)
        out, err = process.communicate(timeout=4 * PATIENCE)
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def processes(self, *words: str) -> list[int]:
        """Processes of this course's commands and warm interpreters.

        Their command lines contain all of `words`.
        """
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                line = (entry / "cmdline").read_bytes().decode("utf-8", "replace")
                around = line + (entry / "environ").read_bytes().decode("utf-8", "replace")
                zombie = (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
            except OSError:
                continue  # it has ended meanwhile
            if str(self.place) in around and not zombie and all(word in line for word in words):
                found.append(int(entry.name))
        return found

    def warm_interpreter_and_kernels(self) -> list[int]:
        """The warm interpreter of the running command, then the processes it has forked."""
        family = self.processes("autograder.kernel.warm")
        return sorted(family, key=lambda pid: _parent(pid) in family)

    def nothing_is_left(self) -> None:
        """Assert that no process and no temporary file of any command is left."""
        poll(lambda: not self.processes(), lambda: f"end of {self.processes()}")
        poll(lambda: not self.temporary(), lambda: f"end of {self.temporary()}")

    def temporary(self) -> list[str]:
        """Names in the temporary folder of the commands."""
        return [path.name for path in (self.place / "tmp").iterdir()]

    # --- results ---

    def results(self, student: str) -> dict[str, Any]:
        """A student's results.json."""
        path = self.root / "autograded" / student / ASSIGNMENT / "results.json"
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return found

    def written(self, student: str) -> tuple[int, int] | None:
        """Inode and modification time of a student's results.json; None without one."""
        path = self.root / "autograded" / student / ASSIGNMENT / "results.json"
        return (path.stat().st_ino, path.stat().st_mtime_ns) if path.exists() else None

    def recorded(self) -> dict[str, list[float]]:
        """Student → scores of all grades in the gradebook."""
        with Gradebook(f"sqlite:///{self.root / 'gradebook.db'}") as gradebook:
            submissions = gradebook.find_assignment(ASSIGNMENT).submissions
            students = [submission.student.id for submission in submissions]
            assert len(students) == len(set(students))
            return {
                submission.student.id: [
                    grade.auto_score
                    for notebook in submission.notebooks
                    for grade in notebook.grades
                ]
                for submission in submissions
            }

    def remembered(self) -> int:
        """Number of results in the cache."""
        return len(list((self.root / ".autograder" / "results").rglob("*.json")))

    def no_file_is_half_written(self) -> None:
        """Assert that every file of the course is complete."""
        for path in filter(Path.is_file, self.root.rglob("*")):
            assert not path.name.startswith(".")  # the name of a file until it is complete
            if path.suffix == ".ipynb":
                nbformat.validate(nbformat.read(path, 4))
            elif path.suffix == ".json":
                json.loads(path.read_text("utf-8"))


def poll(holds: Callable[[], bool], what: str | Callable[[], str]) -> None:
    """Wait until a condition holds; fail after PATIENCE seconds."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain for {what if isinstance(what, str) else what()}")
        time.sleep(0.02)


def _heed_interrupts() -> None:
    """Restore SIGINT, which a shell ignores in background commands and their children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
