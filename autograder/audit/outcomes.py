"""Outcomes of trials, compared with what their tables expect."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from autograder.audit.demands import Demand
from autograder.audit.trials import (
    ELSEWHERE,
    EQUIVALENT,
    KILLED,
    MUTANT,
    MUTATION,
    REWRITING,
    SEED,
    SURVIVES,
    Check,
    Trial,
)
from autograder.engine.results import NotebookResult


@dataclass
class Outcome:
    """The outcome of a trial.

    Attributes:
        trial: the trial.
        failed: keys of the checks that failed.
        misses: deviations from the expected outcome, one sentence each.

    """

    trial: Trial
    failed: list[str]
    misses: list[str]

    @property
    def caught(self) -> list[str]:
        """The failed checks that are about the trial's mistake."""
        return [key for key in self.failed if key in self.trial.fails]

    @property
    def fate(self) -> str:
        """The actual fate of a mutation."""
        return KILLED if self.caught else ELSEWHERE if self.failed else SURVIVES


@dataclass
class Audit:
    """The outcomes of all trials of an assignment.

    Attributes:
        assignment: the name of the assignment.
        checks: every hidden check of the audited notebooks, in order.
        outcomes: the outcomes of the trials, in order.
        graded_with: by notebook, the digest of what graded it.
        made: the number of machine-made variants of each kind and notebook, tried or not.
        stale: lines about rows that explain mutations that do not exist.
        demands: what the notebooks ask for, and in which words.

    """

    assignment: str
    checks: dict[str, list[Check]]
    outcomes: list[Outcome]
    graded_with: dict[str, str] = field(default_factory=dict)
    made: dict[str, dict[str, int]] = field(default_factory=dict)
    stale: list[str] = field(default_factory=list)
    demands: list[Demand] = field(default_factory=list)

    def of(self, kind: str) -> list[Outcome]:
        """The outcomes of one kind of trial."""
        return [outcome for outcome in self.outcomes if outcome.trial.kind == kind]

    def rate(self, *kinds: str) -> tuple[int, int]:
        """How many trials of these kinds had the expected outcome, and how many there were."""
        all_ = [outcome for kind in kinds for outcome in self.of(kind)]
        return sum(not outcome.misses for outcome in all_), len(all_)

    @staticmethod
    def fates(outcomes: list[Outcome]) -> dict[str, int]:
        """The number of mutations with each fate."""
        found = Counter(outcome.fate for outcome in outcomes)
        return {fate: found[fate] for fate in (KILLED, ELSEWHERE, SURVIVES)}

    @property
    def whole(self) -> list[str]:
        """The notebooks of which all possible variants were tried."""
        tried = Counter((o.trial.kind, o.trial.notebook) for o in self.outcomes)
        return [
            name
            for name in self.checks
            if all(tried[kind, name] == count.get(name, 0) for kind, count in self.made.items())
        ]

    @property
    def never_killed(self) -> list[str]:
        """Checks that no mutant fails: nothing shows that they test anything."""
        killed = {key for outcome in self.of(MUTANT) for key in outcome.caught}
        return [c.key for of in self.checks.values() for c in of if c.key not in killed]

    @property
    def misses(self) -> list[str]:
        """One line for each deviation from the expected outcome."""
        lines = [f"{o.trial.title}: {miss}" for o in self.outcomes for miss in o.misses]
        return [*lines, *self.stale, *(f"{key}: no mutant fails it" for key in self.never_killed)]

    def to_json(self) -> dict[str, Any]:
        """The audit as plain data."""
        return {
            "assignment": self.assignment,
            "mutants": self.rate(MUTANT),
            "equivalents": self.rate(EQUIVALENT),
            "seeds": self.rate(SEED),
            "mutations": self.fates(self.of(MUTATION)),
            "rewritings": self.rate(REWRITING),
            "made": self.made,
            "never_killed": self.never_killed,
            "misses": self.misses,
            "trials": [
                {
                    "kind": outcome.trial.kind,
                    "name": outcome.trial.name,
                    "notebook": outcome.trial.notebook,
                    "cell": outcome.trial.cell,
                    "failed": outcome.failed,
                    "misses": outcome.misses,
                }
                for outcome in self.outcomes
            ],
        }


def judge(trial: Trial, result: NotebookResult) -> Outcome:
    """Compare a notebook's result with the outcome its trial expects."""
    checks = [(f"{cell.cell}::{check.id}", check) for cell in result.cells for check in cell.checks]
    failed = [key for key, check in checks if not check.passed]
    if result.status not in ("graded", "unchanged"):
        return Outcome(trial, failed, [f"was not graded: {result.reason}"])
    if trial.kind == MUTATION:
        return _judge_mutation(Outcome(trial, failed, []))
    misses = [f"{key} passes" for key in sorted(trial.fails - set(failed))]
    unwanted = [key for key in failed if key not in trial.fails | trial.may]
    misses += [f"{key} fails ({dict(checks)[key].hint})" for key in unwanted]
    hint = next((check.hint for _, check in checks if not check.passed), "")
    if trial.hint and not re.search(trial.hint, hint):
        misses.append(f"the first hint is {hint!r}, which does not say {trial.hint!r}")
    return Outcome(trial, failed, misses)


def _judge_mutation(outcome: Outcome) -> Outcome:
    wanted, found = outcome.trial.fate, outcome.fate
    told = {
        KILLED: "loses marks in its own cell",
        ELSEWHERE: f"loses marks, but only elsewhere ({', '.join(outcome.failed)})",
        SURVIVES: "keeps full marks",
    }
    if found != wanted:
        known = "no table explains that" if wanted == KILLED else f"is explained as [[{wanted}]]"
        outcome.misses.append(f"{told[found]}; {known}")
    return outcome
