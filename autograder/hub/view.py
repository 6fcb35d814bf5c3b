"""What the page shows, as plain data: derived from the reconciler and from `results.json`."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from autograder.hub.decide import counting
from autograder.hub.pages import moment
from autograder.hub.reconcile import Key, Reconciler, Trouble, Work
from autograder.hub.records import DEFERRED, GRADED, REFUSED, SUPERSEDED, Answer
from autograder.record.copies import identical_checkpoints

BINS = 10
_WORDS = {REFUSED: "not accepted", SUPERSEDED: "not graded", DEFERRED: "graded later"}


@dataclass(frozen=True)
class Row:
    """One student's line: what became of the newest attempt, and the score that is recorded.

    status: a word; detail: why, or how far; arrived: when the newest attempt came, in seconds;
    failed: notebooks that could not be graded, with the reason; troubled: a person should look.
    """

    student: str
    status: str
    detail: str
    arrived: float | None
    attempts: int
    score: float | None
    max_score: float | None
    failed: list[tuple[str, str]]
    notes: str
    troubled: bool


class View:
    """Looks at a reconciler; what has not changed on disk is read once."""

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
            "queue": reconciler.queue_length,
            "under_way": len(active),
            "jobs": settings.jobs,
            "limits": {"hour": settings.attempts_per_hour, "day": settings.attempts_per_day},
            "counts": settings.counts,
            "wishes": len(reconciler.records.wishes()),
        }
        return {
            "course": settings.course_id,
            "health": health,
            "assignments": [
                self._assignment(name, active, trouble) for name in reconciler.assignments()
            ],
        }

    def students(self, assignment: str) -> list[str]:
        """Everybody who handed something in, by whatever way, sorted."""
        reconciler = self._reconciler
        seen = {*reconciler.attempts, *reconciler.records.students()}
        known = {student for name, student in seen if name == assignment}
        return sorted(known.union(reconciler.course.students(assignment)))

    def _assignment(
        self, name: str, active: dict[Key, Work], trouble: dict[Key, Trouble]
    ) -> dict[str, Any]:
        students = self.students(name)
        results = {s: found for s in students if (found := self._results(s, name)) is not None}
        rows = [self._row((name, s), results.get(s), active, trouble) for s in students]
        copies = identical_checkpoints(self._reconciler.course, name)
        return {
            "name": name,
            "rows": [asdict(row) for row in rows],
            "distribution": _distribution(list(results.values())),
            "checks": _checks(list(results.values())),
            "identical": [sorted(group) for group in copies],
        }

    def _row(
        self,
        key: Key,
        results: dict[str, Any] | None,
        active: dict[Key, Work],
        trouble: dict[Key, Trouble],
    ) -> Row:
        reconciler = self._reconciler
        attempts = reconciler.attempts.get(key, [])
        answers = reconciler.records.answers(*key)
        newest = answers[-1] if answers else None
        arrived = max([a.arrived for a in attempts] + [a.arrived for a in answers], default=None)
        status, detail = _status(key, attempts_open(attempts, answers), newest, active, trouble)
        if not status:
            status = "graded" if results is not None else "collected"
        failed = [
            (notebook["name"], notebook["reason"])
            for notebook in (results or {}).get("notebooks", [])
            if notebook["status"] == "failed"
        ]
        shown = counting(answers, reconciler.settings.counts) or newest
        return Row(
            student=key[1],
            status=status,
            detail=detail,
            arrived=arrived,
            attempts=len({a.name for a in attempts} | {a.attempt for a in answers}),
            score=None if results is None else results["score"],
            max_score=None if results is None else results["max_score"],
            failed=failed,
            notes=shown.notes if shown is not None else "",
            troubled=bool(failed) or status in ("failed", "not accepted"),
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
    """Whether an attempt waits for its first answer."""
    answered = {answer.attempt for answer in answers}
    return any(attempt.name not in answered for attempt in attempts)


def _status(
    key: Key,
    waiting: bool,
    newest: Answer | None,
    active: dict[Key, Work],
    trouble: dict[Key, Trouble],
) -> tuple[str, str]:
    """What became of the newest attempt: a word, and a detail; empty when none is known."""
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
    detail = f"on {moment(newest.until)}" if newest.kind == DEFERRED else newest.reason
    return _WORDS[newest.kind], detail


def _distribution(results: list[dict[str, Any]]) -> list[int]:
    """How many scores lie in each tenth of the possible points."""
    counts = [0] * BINS
    for result in results:
        share = result["score"] / result["max_score"] if result["max_score"] else 0.0
        counts[min(BINS - 1, max(0, int(share * BINS)))] += 1
    return counts


def _checks(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Checks that somebody failed, the one that most failed first."""
    total: Counter[tuple[str, str, str]] = Counter()
    failed: Counter[tuple[str, str, str]] = Counter()
    titles: dict[tuple[str, str, str], str] = {}
    hints: dict[tuple[str, str, str], Counter[str]] = {}
    for result in results:
        for notebook in result["notebooks"]:
            for cell in notebook["cells"]:
                for check in cell["checks"]:
                    key = notebook["name"], cell["cell"], check["id"]
                    titles[key] = check["title"]
                    total[key] += 1
                    if not check["passed"]:
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
    return sorted(shown, key=lambda c: (-c["share"], c["notebook"], c["cell"], c["title"]))
