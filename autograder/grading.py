"""Grades a class: computes in parallel, records one by one, and shows the progress."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from autograder.course import Course, check_name, write_whole
from autograder.engine.finding import is_archive, listed, same_letters
from autograder.engine.grade import Graded, cache_key, cannot_grade
from autograder.engine.pool import Engine, one_run
from autograder.engine.results import NotebookResult, SubmissionResult
from autograder.errors import UserError, nearest, printable
from autograder.progress import count_columns
from autograder.record.autograde import handed_in_at, time_in, unfinished
from autograder.record.gradebook import Gradebook
from autograder.release import see_that_they_are_notebooks


class View:
    """The view of a running grading: a growing table with a progress bar below."""

    def __init__(self, notebooks: list[str], total: int) -> None:
        self.table = score_table(notebooks)
        self.progress = Progress(*count_columns(), disable=True)  # shown by `on`
        self._lines: Console | None = None
        self._task = self.progress.add_task("grading", total=total)

    @contextlib.contextmanager
    def on(self, console: Console) -> Iterator[View]:
        """Show the view on `console` until the block ends; the finished table stays.

        Without a terminal, each student is printed as one line, and the table comes last.
        """
        if console.is_terminal:
            with Live(Group(self.table, self.progress), console=console):
                yield self
            return
        self._lines = console
        yield self
        console.print(self.table)

    def advance(self) -> None:
        """Count one more computed notebook."""
        self.progress.advance(self._task)

    def add(self, result: SubmissionResult) -> None:
        """Add one more recorded student."""
        total = f"{result.score:g}/{result.max_score:g}"
        self.table.add_row(escape(result.student), *map(_cell, result.notebooks), total)
        if self._lines is not None:
            task = self.progress.tasks[0]
            left = f", {task.time_remaining:.0f} s left" if task.time_remaining else ""
            done = f"{task.completed:.0f} of {task.total:.0f} notebooks{left}"
            self._lines.print(f"{done}: {result.student} {total}", soft_wrap=True)


@dataclass(frozen=True)
class Plan:
    """What to grade: every notebook of the assignment, for each of the students."""

    course: Course
    assignment: str
    students: list[str]
    notebooks: list[str]

    @classmethod
    def of(cls, course: Course, assignment: str, students: list[str]) -> Plan:
        """A plan for `students` or, if there are none, for everyone who handed in anything.

        Raises UserError when the assignment, or one of the students, has nothing to grade.
        """
        notebooks = course.notebooks(check_name(assignment))
        course.secret()  # raises for a damaged one before anything is shown
        folders = course.release(assignment), course.source(assignment)
        own = [folder / f"{name}.ipynb" for folder in folders for name in notebooks]
        see_that_they_are_notebooks(path for path in own if path.exists())
        present = course.students(assignment)
        students = [same_letters(s) if same_letters(s) in present else s for s in students]
        for student in students:
            if check_name(student) not in present:
                who = f"; there is work of {nearest(student, present)}" if present else ""
                raise UserError(f"{student} has handed in nothing for {assignment}{who}")
        chosen = list(dict.fromkeys(students)) or present
        if not chosen:
            raise UserError(_nobody(course, assignment))
        return cls(course, assignment, chosen, notebooks)

    def view(self) -> View:
        """A view for this plan."""
        return View(self.notebooks, len(self.students) * len(self.notebooks))


def grade_class(
    plan: Plan, engine: Engine, view: View, force: bool = False
) -> list[SubmissionResult]:
    """Grade the students of `plan` and record them in the gradebook.

    Work that has not changed since it was recorded is neither graded nor recorded again, unless
    `force` is set.  An interrupted run keeps everything computed and recorded so far.
    """
    course, assignment = plan.course, plan.assignment
    results: dict[str, SubmissionResult] = {}
    for student in plan.students:
        if why := course.odd_name(student):
            results[student] = _refused(plan, engine, student, why)
            view.add(results[student])
    recordable = [student for student in plan.students if student not in results]
    work = {
        engine.job(student, assignment, name): student
        for student in recordable
        for name in plan.notebooks
    }
    gradebook = Gradebook(course)
    recorded = set(gradebook.scores(assignment))
    # What a student's record depends on besides the results themselves.
    states = {student: sha256() for student in recordable}
    for job, student in work.items():
        states[student].update(cache_key(job).encode())
    waiting: dict[str, dict[str, Graded]] = {student: {} for student in recordable}
    with one_run(), contextlib.closing(engine.grade(work, force)) as outcomes:
        for job, graded in outcomes:
            student = work[job]
            waiting[student][job.notebook] = graded
            view.advance()
            if len(waiting[student]) < len(plan.notebooks):
                continue
            mine = waiting.pop(student)
            found = [mine[name].result for name in plan.notebooks]
            results[student] = SubmissionResult(student, assignment, found)
            wanted = {"state": states[student].hexdigest(), "results": results[student].to_json()}
            if force or student not in recorded or not _is_recorded(plan, student, wanted):
                gradebook.record(assignment, student, {name: mine[name] for name in plan.notebooks})
                write_whole(_mark(plan, student), json.dumps(wanted))
            view.add(results[student])
    return [results[student] for student in plan.students]


def _refused(plan: Plan, engine: Engine, student: str, why: str) -> SubmissionResult:
    """The result of a student for whom nothing can be recorded."""
    jobs = [engine.job(student, plan.assignment, name) for name in plan.notebooks]
    notebooks = [cannot_grade(job, why).result for job in jobs]
    return SubmissionResult(printable(student), plan.assignment, notebooks)


def _mark(plan: Plan, student: str) -> Path:
    """The file that holds what was recorded for a student, and what it depended on."""
    return plan.course.private / "recorded" / plan.assignment / f"{student}.json"


def _is_recorded(plan: Plan, student: str, wanted: Mapping[str, object]) -> bool:
    written = plan.course.autograded(student, plan.assignment) / "results.json"
    try:
        return bool(
            not unfinished(plan.course, plan.assignment, student).exists()
            and json.loads(_mark(plan, student).read_text(encoding="utf-8")) == wanted
            and json.loads(written.read_text(encoding="utf-8")) == wanted["results"]
        )
    except (OSError, ValueError):
        return False


def score_table(notebooks: list[str]) -> Table:
    """An empty table of scores, by student and notebook."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("student", overflow="fold", min_width=10)
    for name in notebooks:
        # Break at hyphens, so that five notebooks fit into 80 columns.
        table.add_column(name.replace("-", "-\n"), justify="right", no_wrap=True)
    table.add_column("score", justify="right", no_wrap=True)
    return table


def _cell(notebook: NotebookResult) -> str:
    if notebook.status != "graded":
        return notebook.status
    said = notebook.reason or notebook.found
    return f"{notebook.score:g}/{notebook.max_score:g}{'*' if said else ''}"


def reasons(results: list[SubmissionResult], remarks: list[str], console: Console) -> None:
    """Print why notebooks were not graded, or only partly, and what a person should look into.

    This includes how notebooks were found, which checks broke at a student's value, and `remarks`.
    """
    for result in results:
        whole = {notebook.reason for notebook in result.notebooks if notebook.status != "graded"}
        alone = whole if len(whole) == 1 and len(result.notebooks) > 1 else set()
        if alone and all(notebook.reason in alone for notebook in result.notebooks):
            ways = {notebook.found for notebook in result.notebooks}
            shared = ways if len(ways) == 1 else set()
            for said in filter(None, [*shared, *whole]):
                console.print(f"{result.student}: {said}", markup=False)
            continue
        for notebook in result.notebooks:
            for said in filter(None, [notebook.found, notebook.reason, *notebook.raised]):
                console.print(f"{result.student}, {notebook.name}: {said}", markup=False)
    for line in remarks:
        console.print(line, markup=False, soft_wrap=True)


def astray(course: Course, assignment: str) -> list[str]:
    """A line for each file that lies in `submitted/` itself, where it is nobody's work."""
    lines = []
    for name in course.strays():
        place = f"move it to submitted/STUDENT/{assignment}/"
        if is_archive(name):
            place += f", or unpack a class's archive with `autograder collect {assignment}`"
        where = printable(f"submitted/{name}")
        lines.append(f"{where} is in no student's folder, so it is not graded: {place}")
    return lines


def _nobody(course: Course, assignment: str) -> str:
    """That there is nothing to grade; if files lie where they are nobody's, which ones."""
    said = f"nobody has handed in {assignment}: submitted/ holds "
    paths = [f"submitted/{name}" for name in course.strays()]
    if not paths:
        return f"{said}nothing for it"
    return (
        f"{said}no student's folder for it, only {listed(paths)}; move files to "
        f"submitted/STUDENT/{assignment}/, or unpack a class's archive with "
        f"`autograder collect {assignment}`"
    )


def untimed(plan: Plan) -> list[str]:
    """A line for each submission that may be late although its timestamp does not say so."""
    lines = []
    for student in plan.students:
        said = time_in(handed_in_at(plan.course, student, plan.assignment))[1]
        if said:
            lines.append(f"{printable(student)}: {said}")
    return lines
