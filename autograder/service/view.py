"""The page's content as plain data, derived from the reconciler and from `results.json`."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from autograder.record.copies import identical_checkpoints
from autograder.service.decide import counting
from autograder.service.reconcile import Reconciler
from autograder.service.records import DEFERRED, GRADED, REFUSED, SUPERSEDED, Answer
from autograder.service.roster import Register, how_late
from autograder.service.work import Key, Trouble, Work

BINS = 10
STARTING = 120.0  # seconds allowed for starting the sandbox
_WORDS = {REFUSED: "not accepted", SUPERSEDED: "not graded", DEFERRED: "graded later"}


# The hint of a check on an unchanged cell, in the words of `LabelledStubs` and the check engine.
_NOT_DONE = re.compile(r"(TODO \[[^\]]*\]: )?not done yet")


@dataclass(frozen=True)
class Row:
    """One student's row: the outcome of the newest attempt, and the recorded score.

    Attributes:
        student: the student's id.
        name: name from the roster; empty if unknown.
        status: one word.
        detail: the reason for the status, or the progress.
        until: when a deferred attempt will be graded, in seconds since the epoch.
        arrived: when the newest attempt arrived, in seconds since the epoch.
        late: by how much it was late, in words; empty if it was in time.
        attempts: number of attempts.
        score: recorded points; None if nothing is recorded.
        max_score: maximum points; None if nothing is recorded.
        checks: number of checks that are passed, wrong and undone.
        failed: notebooks that could not be graded, with the reason.
        blank: whether all submitted notebooks are unchanged from the release.
        raised: checks that raised an error.
        notes: remarks for the instructor.
        troubled: whether the instructor should look at the submission.

    """

    student: str
    name: str
    status: str
    detail: str
    until: float | None
    arrived: float | None
    late: str
    attempts: int
    score: float | None
    max_score: float | None
    checks: dict[str, int]
    failed: list[tuple[str, str]]
    blank: bool
    raised: list[str]
    notes: str
    troubled: bool


class PageState:
    """Describes a reconciler's state; files that have not changed are read only once."""

    def __init__(self, reconciler: Reconciler) -> None:
        self._reconciler = reconciler
        self._read: dict[Path, tuple[int, dict[str, Any]]] = {}

    def state(self) -> dict[str, Any]:
        """Everything on the page; times are seconds since the epoch."""
        reconciler, settings = self._reconciler, self._reconciler.settings
        health = asdict(reconciler.health)
        active, trouble = reconciler.under_way()
        health |= {
            "paused": reconciler.records.paused,
            "asleep": health["started"] < health["last_look"] - STARTING and not health["sandbox"],
            "queue": reconciler.queue_length,
            "under_way": len(active),
            "jobs": settings.jobs,
            "limits": {"hour": settings.attempts_per_hour, "day": settings.attempts_per_day},
            "counts": settings.counts,
            "requests": len(reconciler.records.requests()),
        }
        register = reconciler.roster.register()
        return {
            "course": settings.course_id,
            "health": health,
            "assignments": [
                self._assignment(name, register, active, trouble)
                for name in reconciler.assignments()
            ],
        }

    def submission(self, assignment: str, student: str) -> dict[str, Any]:
        """One student's recorded submission, notebook by notebook.

        Raises KeyError if there is no such student or assignment.
        """
        reconciler = self._reconciler
        if assignment not in reconciler.assignments() or student not in self.students(assignment):
            raise KeyError(student)
        register = reconciler.roster.register()
        results = self._results(student, assignment) or {"notebooks": []}
        row = self._row((assignment, student), results, register, *reconciler.under_way())
        graded = {one["name"]: one for one in results["notebooks"]}
        return {
            "assignment": assignment,
            "row": asdict(row),
            "due": _due(register, assignment, student),
            "notebooks": [
                {
                    "name": name,
                    "status": graded[name]["status"] if name in graded else "not graded",
                    "reason": graded[name]["reason"] if name in graded else "",
                    "points": sum(cell["points"] for cell in cells),
                    "max_points": sum(cell["max_points"] for cell in cells),
                    "checks": _tally(cells),
                    "feedback": self.feedback(assignment, student, name).is_file(),
                    "log": self.log(assignment, student, name).is_file(),
                }
                for name in reconciler.course.notebooks(assignment)
                for cells in [graded.get(name, {}).get("cells", [])]
            ],
        }

    def feedback(self, assignment: str, student: str, notebook: str) -> Path:
        """Path of a notebook's feedback page, which may not exist."""
        return self._reconciler.course.root / "feedback" / student / assignment / f"{notebook}.html"

    def log(self, assignment: str, student: str, notebook: str) -> Path:
        """Path of the log of a notebook's grading, which may not exist."""
        logs = self._reconciler.course.private / "logs"
        return logs / assignment / student / f"{notebook}.log"

    def students(self, assignment: str) -> list[str]:
        """All students with a submission or an attempt, sorted."""
        reconciler = self._reconciler
        seen = {*reconciler.attempts, *reconciler.records.students()}
        known = {student for name, student in seen if name == assignment}
        return sorted(known.union(reconciler.course.students(assignment)))

    def _assignment(
        self,
        name: str,
        register: Register,
        active: dict[Key, Work],
        trouble: dict[Key, Trouble],
    ) -> dict[str, Any]:
        students = self.students(name)
        results = {s: found for s in students if (found := self._results(s, name)) is not None}
        rows = [self._row((name, s), results.get(s), register, active, trouble) for s in students]
        missing = sorted(set(register.names) - set(students))
        copies = identical_checkpoints(self._reconciler.course, name)
        return {
            "name": name,
            "due": register.due.get(name),
            "rows": [asdict(row) for row in rows],
            "missing": [{"student": s, "name": register.names[s]} for s in missing],
            "distribution": _distribution(list(results.values())),
            "checks": _checks(list(results.values())),
            "undone": _undone(list(results.values())),
            "identical": [sorted(group) for group in copies],
        }

    def _row(
        self,
        key: Key,
        results: dict[str, Any] | None,
        register: Register,
        active: dict[Key, Work],
        trouble: dict[Key, Trouble],
    ) -> Row:
        reconciler = self._reconciler
        attempts = reconciler.attempts.get(key, [])
        answers = reconciler.records.answers(*key)
        newest = answers[-1] if answers else None
        arrived = max([a.arrived for a in attempts] + [a.arrived for a in answers], default=None)
        if arrived is None:
            arrived = register.handed_in.get(key)
        status, detail = _status(key, attempts_open(attempts, answers), newest, active, trouble)
        if not status:
            status = "graded" if results is not None else "collected"
        failed = [
            (notebook["name"], notebook["reason"])
            for notebook in (results or {}).get("notebooks", [])
            if notebook["status"] in ("failed", "not found")
        ]
        kinds = {notebook["status"] for notebook in (results or {}).get("notebooks", [])}
        blank = "unchanged" in kinds and kinds <= {"unchanged", "missing"}
        cells = [
            cell for notebook in (results or {}).get("notebooks", []) for cell in notebook["cells"]
        ]
        raised = [
            f"{check['title']} ({cell['cell']}): {check['raised']}"
            for cell in cells
            for check in cell["checks"]
            if check.get("raised")
        ]
        deferred = newest is not None and newest.kind == DEFERRED and status == _WORDS[DEFERRED]
        shown = counting(answers, reconciler.settings.counts) or newest
        return Row(
            student=key[1],
            name=register.names.get(key[1], ""),
            status=status,
            detail=detail,
            until=newest.until if newest is not None and deferred else None,
            arrived=arrived,
            late=how_late(register.late(*key, arrived)),
            attempts=len({a.name for a in attempts} | {a.attempt for a in answers}),
            score=(results or {}).get("score"),
            max_score=(results or {}).get("max_score"),
            checks=_tally(cells),
            failed=failed,
            blank=blank,
            raised=raised,
            notes=shown.notes if shown is not None else "",
            troubled=bool(failed or raised or blank) or status in ("failed", "not accepted"),
        )

    def _results(self, student: str, assignment: str) -> dict[str, Any] | None:
        if not student:
            return None
        path = self._reconciler.course.autograded(student, assignment) / "results.json"
        try:
            version = path.stat().st_mtime_ns
            known = self._read.get(path)
            if known is None or known[0] != version:
                known = version, json.loads(path.read_text("utf-8"))
                self._read[path] = known
            return known[1]
        except (OSError, ValueError):
            return None


def attempts_open(attempts: list[Any], answers: list[Answer]) -> bool:
    """Whether an attempt has no answer yet."""
    answered = {answer.attempt for answer in answers}
    return any(attempt.name not in answered for attempt in attempts)


def _status(
    key: Key,
    waiting: bool,
    newest: Answer | None,
    active: dict[Key, Work],
    trouble: dict[Key, Trouble],
) -> tuple[str, str]:
    """The status of the newest attempt and a detail; both empty if there is no attempt."""
    if key in active:
        work = active[key]
        done = f"{len(work.graded)} of {len(work.notebooks)} notebooks" if work.notebooks else ""
        return work.stage, done
    if key in trouble:
        return "failed", f"{trouble[key].reason} (it is tried again)"
    if waiting:
        return "waiting", ""
    if newest is None:
        return "", ""
    if newest.kind == GRADED:
        return "graded", ""
    return _WORDS[newest.kind], newest.reason


def _distribution(results: list[dict[str, Any]]) -> list[int]:
    """Histogram of the scores over tenths of the maximum points."""
    counts = [0] * BINS
    for result in results:
        share = result["score"] / result["max_score"] if result["max_score"] else 0.0
        counts[min(BINS - 1, max(0, int(share * BINS)))] += 1
    return counts


def _outcome(check: dict[str, Any]) -> str:
    """Whether a check is "passed", "wrong" or "undone"."""
    if check["passed"]:
        return "passed"
    return "undone" if _NOT_DONE.fullmatch(check["hint"]) else "wrong"


def _tally(cells: list[dict[str, Any]]) -> dict[str, int]:
    """Number of passed, wrong and undone checks in these cells."""
    counted = Counter(_outcome(check) for cell in cells for check in cell["checks"])
    return {outcome: counted[outcome] for outcome in ("passed", "wrong", "undone")}


def _due(register: Register, assignment: str, student: str) -> float | None:
    return register.due_for(assignment, student) if assignment in register.due else None


def _undone(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Grade cells that some students have left undone, in the order of the notebooks."""
    found: dict[tuple[str, str], list[int]] = {}
    for result in results:
        for notebook in result["notebooks"]:
            for cell in notebook["cells"]:
                outcomes = {_outcome(check) for check in cell["checks"]}
                counts = found.setdefault((notebook["name"], cell["cell"]), [0, 0])
                counts[0] += outcomes == {"undone"}
                counts[1] += 1
    return [
        {"notebook": key[0], "cell": key[1], "students": counts[0], "of": counts[1]}
        for key, counts in found.items()
        if counts[0]
    ]


def _checks(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Checks that some students got wrong, the most frequent first.

    Students who left a cell undone are not counted for its checks.
    """
    total: Counter[tuple[str, str, str]] = Counter()
    failed: Counter[tuple[str, str, str]] = Counter()
    titles: dict[tuple[str, str, str], str] = {}
    hints: dict[tuple[str, str, str], Counter[str]] = {}
    for result in results:
        for notebook in result["notebooks"]:
            for cell in notebook["cells"]:
                for check in cell["checks"]:
                    key = notebook["name"], cell["cell"], check["id"]
                    outcome = _outcome(check)
                    titles[key] = check["title"]
                    total[key] += outcome != "undone"
                    if outcome == "wrong":
                        failed[key] += 1
                        hints.setdefault(key, Counter())[check["hint"]] += 1
    shown = [
        {
            "notebook": key[0],
            "cell": key[1],
            "title": titles[key],
            "hint": hints[key].most_common(1)[0][0],
            "failed": count,
            "of": total[key],
            "share": count / total[key],
        }
        for key, count in failed.items()
    ]
    return sorted(
        shown, key=lambda c: (-c["failed"], -c["share"], c["notebook"], c["cell"], c["title"])
    )
