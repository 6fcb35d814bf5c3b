"""`make bench` or `python -m benchmarks`: run all measurements and write the results.

Finished measurements are cached, so an interrupted run resumes where it stopped.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from autograder.checks.ch4_cnn import TRAINING_STEPS
from autograder.course import Course, write_whole
from autograder.engine.grade import versions
from autograder.engine.pool import Engine
from autograder.errors import UserError
from autograder.release import solution_run
from benchmarks import measure, report
from benchmarks.courses import ASSIGNMENT

HERE = Path(__file__).parent
console = Console(highlight=False)


def main(
    submissions: Annotated[int, typer.Option(min=1, help="Size of the class.")] = 8,
    large: Annotated[int, typer.Option(min=1, help="Size of the class to compare it with.")] = 64,
    stock: Annotated[
        int, typer.Option(min=1, help="How many of the submissions stock nbgrader grades.")
    ] = 1,
    jobs: Annotated[int, typer.Option(min=1, help="Notebooks graded at the same time.")] = 2,
    fresh: Annotated[bool, typer.Option(help="Measure again what has been measured.")] = False,
) -> None:
    """Measure, print, and write benchmarks/results.json and results.md."""
    course = Course.at(HERE.parent)
    executed = solution_run(course, ASSIGNMENT, console)
    work = course.private / "benchmarks"
    if fresh:
        shutil.rmtree(work, ignore_errors=True)
    course_in = (work / "course", course, executed)
    # The two sides of a comparison run one after the other.
    plan: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
        "kernel start": (measure.kernel_start, (3,)),
        "small class": (measure.our_class, (*course_in, submissions, jobs)),
        "stock, cut short": (measure.stock_class, (*course_in, stock, TRAINING_STEPS)),
        "stock, whole": (measure.stock_class, (*course_in, stock, 0)),
        "overhead": (measure.overhead, (*course_in, 3)),
        "large class": (measure.our_class, (*course_in, large, jobs)),
    }
    found = {}
    for number, (name, (function, arguments)) in enumerate(plan.items(), start=1):
        kept = work / f"{name}-{_key(course, arguments)}.json"
        began = time.monotonic()
        if kept.is_file():
            found[name] = json.loads(kept.read_text("utf-8"))
        else:
            with console.status(f"{number} of {len(plan)}: {name}"):
                found[name] = function(*arguments)
            write_whole(kept, json.dumps(found[name]))
            shutil.rmtree(work / "course", ignore_errors=True)
        console.print(f"{number} of {len(plan)}: {name}, {time.monotonic() - began:.0f} s")
    console.print(report.write(HERE, found), soft_wrap=True)


def _key(course: Course, arguments: tuple[Any, ...]) -> str:
    """The cache key of a measurement: a digest of the code and of its integer arguments."""
    engine = Engine(course, 1)
    jobs = [engine.job("", ASSIGNMENT, name) for name in course.notebooks(ASSIGNMENT)]
    parts = [*map(versions, jobs), repr([a for a in arguments if isinstance(a, int)])]
    for folder in ("record", "."):
        parts += [
            p.read_text("utf-8") for p in sorted((HERE.parent / "autograder" / folder).glob("*.py"))
        ]
    parts += [path.read_text("utf-8") for path in sorted(HERE.glob("*.py"))]
    return sha256("\0".join(parts).encode()).hexdigest()[:16]


if __name__ == "__main__":
    try:
        typer.run(main)
    except UserError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        raise SystemExit(2) from None
