"""The choice of trials, and their way through the engine."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Collection, Iterator
from hashlib import sha256
from pathlib import Path

from rich.console import Console

from autograder.audit.outcomes import Audit, Outcome, judge
from autograder.audit.submissions import SubmissionWriter
from autograder.audit.tables import Tables
from autograder.audit.trials import (
    KILLED,
    MUTATION,
    REWRITING,
    SURVIVES,
    Trial,
)
from autograder.engine.grade import Job
from autograder.engine.pool import Engine
from autograder.progress import ProgressBar

SAMPLE = {MUTATION: 200, REWRITING: 100}
SAMPLE_SEED = 4
BATCH = 12  # submissions prepared per worker at a time


def sample(variants: list[Trial]) -> list[Trial]:
    """As many variants of each kind as `SAMPLE` says, evenly from all cells; always the same ones.

    The sample of a cell hardly changes when other variants are added.
    """

    def lot(trial: Trial) -> bytes:
        return sha256(f"{SAMPLE_SEED}\0{trial.cell}\0{trial.name}".encode()).digest()

    drawn: set[int] = set()
    for kind, count in SAMPLE.items():
        places: Counter[str] = Counter()
        turns = []
        for trial in sorted((t for t in variants if t.kind == kind), key=lot):
            places[trial.cell] += 1
            turns.append((places[trial.cell], lot(trial), id(trial)))
        drawn |= {number for _, _, number in sorted(turns)[:count]}
    return [trial for trial in variants if id(trial) in drawn]


def audit(
    tables: Tables,
    notebooks: list[str],
    engine: Engine,
    jobs: int,
    console: Console,
    whole: Collection[str] = (),
) -> Audit:
    """Grade every trial of `notebooks` and judge its outcome; shows the progress on `console`.

    whole: notebooks of which all variants are tried rather than a sample.
    """
    trials, made, stale = _choose(tables, notebooks, whole)
    module = tables.files()
    files = module.files(tables.course, console) if module is not None else None
    outcomes: list[Outcome] = []
    for notebook in notebooks:
        mine = [trial for trial in trials if trial.notebook == notebook]
        with (
            ProgressBar(console, notebook, len(mine)) as bar,
            tempfile.TemporaryDirectory(prefix="kit-audit-") as folder,
        ):
            writer = SubmissionWriter(tables, notebook, files, Path(folder))
            size = BATCH * jobs
            for start in range(0, len(mine), size):
                for outcome in _batch(writer, mine[start : start + size], engine):
                    outcomes.append(outcome)
                    bar.advance()
    order = {id(trial): number for number, trial in enumerate(trials)}
    outcomes.sort(key=lambda outcome: order[id(outcome.trial)])
    return _summed_up(tables, notebooks, outcomes, made, stale)


def _choose(
    tables: Tables, notebooks: list[str], whole: Collection[str]
) -> tuple[list[Trial], dict[str, dict[str, int]], list[str]]:
    """The trials of some notebooks, their numbers of variants, and explanations of no variant."""
    trials, variants = tables.trials(), tables.variants()
    drawn = {id(trial) for trial in sample(variants)}
    trials += [t for t in variants if t.notebook in whole or id(t) in drawn]
    mine = Counter((trial.kind, trial.notebook) for trial in variants)
    made = {kind: {name: mine[kind, name] for name in notebooks} for kind in SAMPLE}
    chosen = [trial for trial in trials if trial.notebook in notebooks]
    return chosen, made, tables.unknown(variants)


def _summed_up(
    tables: Tables,
    notebooks: list[str],
    outcomes: list[Outcome],
    made: dict[str, dict[str, int]],
    stale: list[str],
) -> Audit:
    """The audit of some notebooks, including what the tables say about them."""
    checks = {name: tables.checks[name] for name in notebooks}
    demands = [demand for demand in tables.demands if demand.notebook in notebooks]
    graded_with = tables.graded_with(notebooks)
    return Audit(tables.assignment, checks, outcomes, graded_with, made, stale, demands)


def _batch(writer: SubmissionWriter, trials: list[Trial], engine: Engine) -> Iterator[Outcome]:
    tables = writer.tables
    work: dict[Job, Trial] = {}
    for place, trial in enumerate(trials):
        job = Job(
            tables.assignment,
            writer.notebook,
            writer.write(trial, place),
            writer.release,
            tables.course.source(tables.assignment),
            tables.course.secret(),
        )
        work[job] = trial
    for job, graded in engine.grade(work):
        yield judge(work[job], graded.result)


def expected(tables: Tables, notebooks: list[str], whole: Collection[str] = ()) -> Audit:
    """The audit of these notebooks in which every trial has its expected outcome."""
    outcomes = []
    trials, made, stale = _choose(tables, notebooks, whole)
    for trial in trials:
        order = [check.key for check in tables.checks[trial.notebook]]
        wrong = [key for key in order if (key in trial.fails) == (trial.fate == KILLED)]
        failed = wrong if trial.fate != SURVIVES else []
        if trial.kind != MUTATION:
            failed = sorted(trial.fails, key=order.index)
        outcomes.append(Outcome(trial, failed, []))
    return _summed_up(tables, notebooks, outcomes, made, stale)
