"""The command line: ``autograder grade | release | audit | export | data | doctor | demo``.

Exit status 0: everything got a definite answer; 1: something could not be graded; 2: the call
or the environment is wrong; 130: interrupted.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import signal
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from autograder.course import Course, check_name
from autograder.errors import INTERRUPTED, UserError

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__
)
console = Console(highlight=False)

CourseOption = Annotated[Path, typer.Option("--course", help="The course root.")]
HERE = Path(".")


@app.command()
def grade(
    assignment: str,
    student: Annotated[
        list[str] | None, typer.Option(help="Only this student (may be repeated).")
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=1, help="Notebooks graded at the same time.")
    ] = os.cpu_count() or 1,
    force: Annotated[bool, typer.Option(help="Grade again what has not changed.")] = False,
    json_: Annotated[
        bool, typer.Option("--json", help="Print the results as JSON instead of a table.")
    ] = False,
    run_student_code_unconfined: Annotated[
        bool, typer.Option(help="Grade even where this machine can confine nothing.")
    ] = False,
    scheduler: Annotated[
        str, typer.Option(help="Address of a Dask scheduler whose workers do the work.")
    ] = "",
    course: CourseOption = HERE,
) -> None:
    """Grade submissions and record them in the gradebook."""
    from autograder.grading import Plan, grade_class, reasons
    from autograder.record.copies import report_copies
    from autograder.record.nbgrader_glue import engine_of

    plan = Plan.of(Course.at(course), assignment, student or [])
    engine = engine_of(plan.course, jobs, run_student_code_unconfined, scheduler)
    shown = Console(stderr=True, highlight=False) if json_ else console
    with plan.view().on(shown) as view:
        results = grade_class(plan, engine, view, force)
    reasons(results, report_copies(plan.course, assignment), shown)
    if json_:
        print(json.dumps([result.to_json() for result in results], ensure_ascii=False))
    failed = any(n.status == "failed" for r in results for n in r.notebooks)
    raise typer.Exit(1 if failed else 0)


@app.command()
def release(
    assignment: str,
    solutions: Annotated[
        bool, typer.Option(help="Also run and write the solutions (trains once, for real).")
    ] = True,
    course: CourseOption = HERE,
) -> None:
    """Regenerate the release and the solutions, and prove that nothing leaked."""
    from autograder.release import make_release, make_solutions, solution_run

    here = Course.at(course)
    check_name(assignment)
    make_release(here, assignment)
    console.print(f"release/{assignment} is current, and gives nothing away")
    if solutions:
        executed = solution_run(here, assignment, console)
        make_solutions(here, assignment, executed)
        console.print(f"solutions/{assignment} is current")


@app.command()
def export(
    assignment: str,
    to: Annotated[str, typer.Option(help="The gradebook that shall import it: moodle or canvas.")],
    output: Annotated[
        Path | None, typer.Option(help="The file to write; standard output unless given.")
    ] = None,
    course: CourseOption = HERE,
) -> None:
    """Write the grades as a CSV file that Moodle or Canvas imports."""
    from autograder.record import export as export_
    from autograder.record.gradebook import Gradebook

    text, remarks = export_.export(Gradebook(Course.at(course)), check_name(assignment), to)
    for remark in remarks:
        print(f"autograder: {remark}", file=sys.stderr)
    if output is None:
        sys.stdout.buffer.write(text.encode())
        return
    try:
        output.write_bytes(text.encode())
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror}") from error


@app.command()
def audit(
    assignment: str,
    notebook: Annotated[
        list[str] | None, typer.Option(help="Only this notebook (may be repeated).")
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=1, help="Notebooks graded at the same time.")
    ] = os.cpu_count() or 1,
    report: Annotated[
        Path | None, typer.Option(help="Write the whole matrix to this file, if all is well.")
    ] = None,
    json_: Annotated[
        bool, typer.Option("--json", help="Print the outcome of every trial as JSON.")
    ] = False,
    course: CourseOption = HERE,
) -> None:
    """Grade known right and known wrong solutions, and say where the checks are mistaken."""
    from autograder import audit as auditing
    from autograder.record.nbgrader_glue import engine_of

    here = Course.at(course)
    tables = auditing.Tables(here, assignment)
    chosen = notebook or list(tables.sources)
    if set(chosen) - set(tables.sources):
        raise UserError(
            f"{assignment} has no notebook {', '.join(set(chosen) - set(tables.sources))}"
        )
    shown = Console(stderr=True, highlight=False) if json_ else console
    found = auditing.audit(tables, chosen, engine_of(here, jobs), jobs, shown)
    if json_:
        print(json.dumps(found.to_json(), ensure_ascii=False))
    else:
        auditing.show(found, console)
    if report is not None and not found.misses:
        report.write_text(auditing.report(found), encoding="utf-8")
    raise typer.Exit(1 if found.misses else 0)


@app.command()
def data() -> None:
    """Fetch MNIST and verify it; check the ORENIST file."""
    from data import mnist, orenist

    console.print(f"MNIST: {mnist.fetch(say=console.print)}")
    path = Path(orenist.__file__).parent / "ORENIST.data"
    images, _ = orenist.load(path)
    console.print(f"ORENIST: {len(images)} images in {path}")


@app.command()
def doctor(course: CourseOption = HERE) -> None:
    """Say what this machine can and cannot do."""
    from autograder.engine.sandbox import LAYERS, refused
    from autograder.engine.warm import WarmInterpreter
    from autograder.kernel.isolate import LANDLOCK, NAMESPACES, landlock_abi
    from data import mnist

    table = Table(show_header=False, box=None)
    table.add_row("course", str(Course.at(course).root))
    table.add_row("python", platform.python_version())
    for package in ("tensorflow", "numpy", "nbgrader", "jupyterlab", "pytest"):
        table.add_row(package, importlib.metadata.version(package))
    try:
        table.add_row("MNIST", str(mnist.find() or "not here: run `autograder data`"))
    except mnist.MnistUnavailable as error:
        table.add_row("MNIST", str(error))
    table.add_row("Landlock", f"interface {landlock_abi()}" if landlock_abi() else "no")
    confined = False
    with console.status("trying the sandbox"), WarmInterpreter() as warm:
        warm.wait()
        for level in (NAMESPACES, LANDLOCK):
            reason = refused(warm, level)
            table.add_row(level, f"refused: {reason}" if reason else ", ".join(LAYERS[level]))
            confined = confined or not reason
        memory = "bounded by a control group" if warm.bounds_memory else "watched from outside"
        table.add_row("memory", memory)
    console.print(table)
    if not confined:
        raise UserError(
            "this machine cannot confine student code: allow user namespaces, or use a kernel "
            "with Landlock (5.13 or later) and libseccomp"
        )


@app.command()
def demo(course: CourseOption = HERE) -> None:
    """Make three submissions, grade them with nbgrader, and show scores and feedback."""
    from autograder.demo import run_demo

    run_demo(Course.at(course), console)


def main() -> None:
    """Run the command line; a user's mistake is one line on standard error."""
    signal.signal(signal.SIGINT, _interrupt)
    try:
        app()
    except (UserError, _data_error()) as error:
        print(f"autograder: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except Exception:
        traceback.print_exc()  # a fault of ours; 1 would say that a submission is to blame
        raise SystemExit(2) from None
    except _Interrupted:
        print(
            "autograder: interrupted; what was done is kept, the same command goes on from there",
            file=sys.stderr,
        )
        raise SystemExit(INTERRUPTED) from None


class _Interrupted(BaseException):
    """Ctrl-C; another name, because for KeyboardInterrupt typer would exit with 1."""


def _interrupt(number: int, frame: object) -> None:
    raise _Interrupted


def _data_error() -> type[Exception]:
    from data.mnist import MnistUnavailable

    return MnistUnavailable
