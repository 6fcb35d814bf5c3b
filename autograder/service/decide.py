"""Decides what to do about a student's attempts: a pure function of attempts, answers and time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from autograder.service.inbound import Attempt
from autograder.service.records import DEFERRED, GRADED, REFUSED, SUPERSEDED, Answer
from autograder.service.settings import Settings

HOUR, DAY = 3600.0, 86400.0


@dataclass(frozen=True)
class Decision:
    """One decision about an attempt.

    Attributes:
        attempt: the attempt.
        kind: what to do with it.
        when: the time from which it may be graded, in seconds since the epoch.
        reason: why it is superseded or refused, for the student.

    """

    attempt: Attempt
    kind: Literal["grade", "defer", "supersede", "refuse"]
    when: float = 0.0
    reason: str = ""


def eligible(arrived: float, slots: Iterable[float], per_hour: int, per_day: int) -> float:
    """When an attempt that arrived at `arrived` may be graded under the rate limits.

    Args:
        arrived: seconds since the epoch.
        slots: times of the student's graded attempts, as the limits count them.
        per_hour: most attempts within an hour.
        per_day: most attempts within 24 hours.

    """
    taken = sorted(slots)
    when = arrived
    while True:
        wanted = when
        for most, period in ((per_hour, HOUR), (per_day, DAY)):
            recent = [slot for slot in taken if slot > when - period]
            if len(recent) >= most:
                when = max(when, recent[-most] + period)
        if when == wanted:
            return when


def decide(
    attempts: Sequence[Attempt], answers: Sequence[Answer], settings: Settings, now: float
) -> list[Decision]:
    """Decisions about one student's attempts at one assignment; at most one is "grade".

    Attempts that need no action get no decision.

    Args:
        attempts: all complete attempts.
        answers: all answers given so far.
        settings: the limits, and which attempt counts.
        now: seconds since the epoch.

    """
    known = {answer.attempt: answer for answer in answers}
    decisions = []
    todo: list[Attempt] = []
    for attempt in sorted(attempts, key=lambda a: (a.arrived, a.name)):
        answer = known.get(attempt.name)
        if answer is not None and answer.kind in (GRADED, REFUSED, SUPERSEDED):
            continue
        if attempt.problem:
            decisions.append(Decision(attempt, "refuse", reason=attempt.problem))
        else:
            todo.append(attempt)
    slots = [answer.slot for answer in answers if answer.kind == GRADED]
    limits = settings.attempts_per_hour, settings.attempts_per_day
    while todo:
        attempt, *later = todo
        when = eligible(min(attempt.arrived, now), slots, *limits)
        if later and (settings.counts == "newest" or when > now):
            reason = "you handed in again before this attempt was graded"
            decisions.append(Decision(attempt, "supersede", reason=reason))
        elif when <= now:
            decisions.append(Decision(attempt, "grade", when))
            break  # the student's next attempt waits for the outcome
        elif not _told(known.get(attempt.name), when):
            decisions.append(Decision(attempt, "defer", when))
        todo = later
    return decisions


def _told(answer: Answer | None, when: float) -> bool:
    """Whether the student already knows when the attempt will be graded."""
    return answer is not None and answer.kind == DEFERRED and answer.until == when


def counting(answers: Iterable[Answer], counts: str) -> Answer | None:
    """The graded answer whose score is recorded: the newest, or the first of the best."""
    graded = [answer for answer in answers if answer.kind == GRADED]
    if not graded:
        return None
    if counts == "best":
        return max(graded, key=lambda answer: (answer.score, -answer.arrived))
    return max(graded, key=lambda answer: (answer.arrived, answer.attempt))
