"""The report of an audit: its figures, and a matrix of checks and mutants."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from rich.console import Console

from autograder.audit.demands import demand_tables
from autograder.audit.outcomes import Audit, Outcome
from autograder.audit.run import SAMPLE_SEED
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
)


def percent(rate: tuple[int, int]) -> str:
    """A rate in words: `412 of 412 (100 %)`."""
    good, all_ = rate
    return f"{good} of {all_} ({100 * good / all_:.4g} %)" if all_ else "none"


def percent_of(fates: Mapping[str, int], fate: str) -> str:
    """The share of mutations with one fate, in words."""
    return percent((fates[fate], sum(fates.values())))


def figures(audit: Audit) -> list[tuple[str, str]]:
    """The figures that sum up an audit."""
    checks = sum(map(len, audit.checks.values()))
    mutations = audit.of(MUTATION)
    fates = audit.fates(mutations)
    return [
        (
            "Wrong solutions thought of by hand, caught by just the checks that concern them",
            percent(audit.rate(MUTANT)),
        ),
        (
            "Wrong solutions made by machine, marked down in their own cell",
            percent((fates[KILLED], len(mutations))),
        ),
        (
            "Wrong solutions made by machine, marked down only in another cell",
            percent_of(fates, ELSEWHERE),
        ),
        ("Wrong solutions made by machine, full marks", percent_of(fates, SURVIVES)),
        (
            "Right solutions written differently by hand, full marks",
            percent(audit.rate(EQUIVALENT)),
        ),
        ("Right solutions rewritten by machine, full marks", percent(audit.rate(REWRITING))),
        ("The solution under random seeds, full marks", percent(audit.rate(SEED))),
        (
            "Right work that keeps its marks, together",
            percent(audit.rate(EQUIVALENT, REWRITING, SEED)),
        ),
        (
            "Checks that at least one wrong solution fails",
            percent((checks - len(audit.never_killed), checks)),
        ),
    ]


def report(audit: Audit) -> str:
    """The whole matrix, as Markdown."""
    some = len(audit.whole) < len(audit.checks)
    all_of = "".join(f" --all-of {name}" for name in audit.whole) if some else ""
    lines = [
        f"# How right the grades of {audit.assignment} are",
        "",
        f"Made by `autograder audit {audit.assignment}{all_of} --report docs/validity.md`;",
        "edit the tables in `tests/validity/`, not this.",
        "",
        "A *mutant* is a solution with one mistake. It must fail just the checks that are about",
        "this mistake: everything else in the notebook is right and keeps its points. An",
        "*equivalent* is a right solution written differently, and a *seed* is the solution with",
        "other random numbers; both must get full marks. ✗ marks a check that must fail and does;",
        "what the tables leave open is not marked. *Graded with* is the digest of the checks, the",
        "engine, the packages beneath and the notebook: when one changes, this is out of date.",
        "Wrong and right solutions made by machine are counted [at the end](#made-by-machine).",
        "",
        "| | |",
        "|---|--:|",
        *(f"| {name} | {value} |" for name, value in figures(audit)),
    ]
    for notebook, checks in audit.checks.items():
        lines += ["", f"## {notebook}", ""]
        outcomes = [o for o in audit.of(MUTANT) if o.trial.notebook == notebook]
        for cell in dict.fromkeys(o.trial.cell for o in outcomes):
            lines += _matrix(cell, [o for o in outcomes if o.trial.cell == cell], checks)
        seeds = sum(o.trial.notebook == notebook for o in audit.of(SEED))
        others = [o.trial for o in audit.of(EQUIVALENT) if o.trial.notebook == notebook]
        lines += [f"**Equivalents**, {len(others)}, and {seeds} seeds:", ""]
        lines += [f"- {t.title}{f': {t.about}' if t.about else ''}" for t in others]
        if notebook in audit.graded_with:
            lines += ["", f"Graded with `{audit.graded_with[notebook]}`."]
    lines += demand_tables(audit.demands)
    lines += _made_by_machine(audit)
    return "\n".join(lines) + "\n"


def _made_by_machine(audit: Audit) -> list[str]:
    """The fates of mutations and rewritings by cell and by operator, and the explained ones."""
    mutations, rewritten = audit.of(MUTATION), audit.of(REWRITING)
    counts = [f"{sum(audit.made.get(kind, {}).values())} {kind}s" for kind in (MUTATION, REWRITING)]
    drawn = f"drawn from all cells with the seed {SAMPLE_SEED}"
    if len(audit.whole) == len(audit.checks):
        tried = "every one was tried"
    elif audit.whole:
        rest = [o for o in [*mutations, *rewritten] if o.trial.notebook not in audit.whole]
        kinds = Counter(o.trial.kind for o in rest)
        tried = (
            f"every one of {', '.join(f'`{name}`' for name in audit.whole)} was tried, and of the "
            f"others {kinds[MUTATION]} and {kinds[REWRITING]}, {drawn}"
        )
    else:
        tried = f"{len(mutations)} and {len(rewritten)} of them were tried, {drawn}"
    lines = [
        "",
        "## Made by machine",
        "",
        f"The solution cells have {' and '.join(counts)};",
        f"{tried}.",
        "A mutation must fail a check of its own cell; a rewriting none at all.",
        "",
        "| cell | mutations | fail in it | only elsewhere | nowhere | rewritings | full marks |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    cells = dict.fromkeys(o.trial.cell for o in [*mutations, *rewritten])
    for cell in cells:
        of = [o for o in mutations if o.trial.cell == cell]
        right = [o for o in rewritten if o.trial.cell == cell]
        row = [len(of), *audit.fates(of).values(), len(right), sum(not o.misses for o in right)]
        lines.append(f"| {cell} | {' | '.join(map(str, row))} |")
    lines += ["", "| operator | tried | fail | only elsewhere | nowhere |", "|---|--:|--:|--:|--:|"]
    for operator in dict.fromkeys(_operator(o) for o in mutations):
        of = [o for o in mutations if _operator(o) == operator]
        row = [len(of), *audit.fates(of).values()]
        lines.append(f"| {operator} | {' | '.join(map(str, row))} |")
    lines += ["", "| rewriting | tried | full marks |", "|---|--:|--:|"]
    for operator in dict.fromkeys(_operator(o) for o in rewritten):
        of = [o for o in rewritten if _operator(o) == operator]
        lines.append(f"| {operator} | {len(of)} | {sum(not o.misses for o in of)} |")
    for fate, heading in ((SURVIVES, "Survivors"), (ELSEWHERE, "Marked down only elsewhere")):
        explained = [o.trial for o in mutations if o.fate == fate]
        lines += ["", f"### {heading}"]
        for why in dict.fromkeys(trial.about for trial in explained):
            lines += ["", f"{why[:1].upper()}{why[1:]}:", ""]
            lines += [f"- {t.cell}: `{t.name}`" for t in explained if t.about == why]
        lines += [] if explained else ["", "None."]
    return lines


def _operator(outcome: Outcome) -> str:
    return outcome.trial.name.partition(":")[0]


def _matrix(cell: str, outcomes: list[Outcome], checks: list[Check]) -> list[str]:
    """Checks × mutants of one cell, then the names of the mutants."""
    rows = [c for c in checks if any(c.key in outcome.caught for outcome in outcomes)]
    numbers = range(1, len(outcomes) + 1)
    lines = [
        f"### {cell or 'Files handed in'}",
        "",
        f"| check | {' | '.join(map(str, numbers))} |",
        f"|---|{'---|' * len(outcomes)}",
    ]
    for check in rows:
        marks = ("✗" if check.key in outcome.caught else " " for outcome in outcomes)
        lines.append(f"| {check.title} | {' | '.join(marks)} |")
    lines.append("")
    for number, outcome in zip(numbers, outcomes, strict=True):
        about = outcome.trial.about
        lines.append(f"{number}. {outcome.trial.name}{f': {about}' if about else ''}")
    return [*lines, ""]


def show(audit: Audit, console: Console) -> None:
    """Print the matrix, the figures and every miss."""
    for notebook, checks in audit.checks.items():
        outcomes = [o for o in audit.of(MUTANT) if o.trial.notebook == notebook]
        for cell in dict.fromkeys(o.trial.cell for o in outcomes):
            of = [o for o in outcomes if o.trial.cell == cell]
            console.print(f"{cell or notebook}: {len(of)} mutants", style="bold")
            for check in checks:
                marks = "".join("✗" if check.key in o.failed else "·" for o in of)
                if "✗" in marks:
                    console.print(f"  {marks}  {check.title}", soft_wrap=True)
    for name, value in figures(audit):
        console.print(f"{name}: {value}", soft_wrap=True)
    for miss in audit.misses:
        console.print(f"✗ {miss}", soft_wrap=True, markup=False)
