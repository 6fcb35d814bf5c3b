"""The command line: ``autograder collect|grade|release|audit|export|data|doctor|demo``.

Exit status 0: everything got a definite answer; 1: something could not be graded, or somebody's
work was not found; 2: the call or the environment is wrong; 130: interrupted.
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
from autograder.errors import INTERRUPTED, UserError, nearest, printable
from autograder.machine import explained, settle_in

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # frames and columns of fixed width would truncate long options
    help="""Grade the notebooks of a course, and all that belongs to it.

    \b
    Exit status:
      0    everything got a definite answer
      1    something could not be graded, or somebody's work was not found
      2    the call or the environment is wrong; one line says what
      130  interrupted
    """,
)
console = Console(highlight=False)

AssignmentArgument = Annotated[
    str, typer.Argument(metavar="ASSIGNMENT", help="Its name, as in source/ and release/.")
]
CourseOption = Annotated[Path, typer.Option("--course", metavar="DIR", help="The course root.")]
JobsOption = Annotated[
    int,
    typer.Option("--jobs", metavar="N", min=1, max=1024, help="Notebooks graded at the same time."),
]
SchedulerOption = Annotated[
    str,
    typer.Option(metavar="ADDRESS", help="Address of a Dask scheduler whose workers do the work."),
]
HERE = Path(".")
PROCESSORS = os.cpu_count() or 1
# The base class of typer's errors about a wrong call: click's own, or typer's copy of it.
WrongCall: type[Exception] = next(
    kind
    for kind in typer.BadParameter.__mro__
    if kind.__name__ == "ClickException" and issubclass(kind, Exception)
)


@app.command()
def grade(
    assignment: AssignmentArgument,
    student: Annotated[
        list[str] | None,
        typer.Option("--student", metavar="ID", help="Only this student (may be repeated)."),
    ] = None,
    jobs: JobsOption = PROCESSORS,
    force: Annotated[
        bool, typer.Option("--force", help="Grade again what has not changed.")
    ] = False,
    json_: Annotated[
        bool, typer.Option("--json", help="Print the results as JSON instead of a table.")
    ] = False,
    run_student_code_unconfined: Annotated[
        bool,
        typer.Option(
            "--run-student-code-unconfined",
            help="Do not confine student code, on a machine that can confine nothing.",
        ),
    ] = False,
    scheduler: SchedulerOption = "",
    course: CourseOption = HERE,
) -> None:
    """Grade submissions and record them in the gradebook."""
    from autograder.engine.pool import Engine
    from autograder.grading import Plan, astray, grade_class, reasons, untimed
    from autograder.record.copies import report_copies

    plan = Plan.of(Course.at(course), assignment, student or [])
    shown = Console(stderr=True, highlight=False) if json_ else console
    engine = Engine(plan.course, jobs, run_student_code_unconfined, scheduler)
    with engine, plan.view().on(shown) as view:
        results = grade_class(plan, engine, view, force)
    strays = [] if student else astray(plan.course, assignment)
    copies = report_copies(plan.course, assignment)
    reasons(results, [*untimed(plan), *copies, *strays], shown)
    if json_:
        print(json.dumps([result.to_json() for result in results], ensure_ascii=False))
    failed = any(n.status in ("failed", "not found") for r in results for n in r.notebooks)
    raise typer.Exit(1 if failed or strays else 0)


@app.command()
def release(
    assignment: AssignmentArgument,
    solutions: Annotated[
        bool,
        typer.Option(help="Also run and write the solutions, or not (trains once, for real)."),
    ] = True,
    course: CourseOption = HERE,
) -> None:
    """Regenerate release and solutions, and prove that nothing leaked."""
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
def collect(
    assignment: AssignmentArgument,
    archive: Annotated[
        Path, typer.Argument(metavar="ARCHIVE", help="The platform's zip archive, or a folder.")
    ],
    from_: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="moodle|canvas",
            help="Whose archive it is; unless given, it holds a folder for each student.",
        ),
    ] = "",
    roster: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The platform's list of students, as CSV."),
    ] = None,
    course: CourseOption = HERE,
) -> None:
    """Fill submitted/ from the archive of a learning platform."""
    from autograder.record import collect as collecting
    from autograder.record.gradebook import Gradebook

    here = Course.at(course)
    here.known(assignment)
    platform = collecting.chosen(from_)
    people = collecting.read_roster(roster) if roster is not None else []
    if people:
        collecting.enrol(Gradebook(here), people)
    done = collecting.collect(here, assignment, archive, platform, people)
    for line in done.lines():
        console.print(line, markup=False, soft_wrap=True)
    raise typer.Exit(0 if done.complete else 1)


@app.command()
def export(
    assignments: Annotated[
        list[str],
        typer.Argument(metavar="ASSIGNMENT", help="Names, as in source/ and release/."),
    ],
    to: Annotated[
        str,
        typer.Option(metavar="moodle|canvas", help="The gradebook that shall import it."),
    ],
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The file to write; standard output unless given."),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ASSIGNMENT=NAME",
            help="What the platform calls an assignment's column (may be repeated).",
        ),
    ] = None,
    course: CourseOption = HERE,
) -> None:
    """Write the grades as a CSV file that Moodle or Canvas imports."""
    from autograder.record import export as export_
    from autograder.record.gradebook import Gradebook

    names = {}
    for one in column or []:
        assignment, equals, name = one.partition("=")
        if not equals or not name.strip():
            raise UserError(f"--column {one}: say ASSIGNMENT=NAME")
        names[assignment] = name.strip()
    wanted = [check_name(name) for name in assignments]
    text, remarks = export_.export(Gradebook(Course.at(course)), wanted, to, names)
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
    assignment: AssignmentArgument,
    notebook: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this notebook (may be repeated)."),
    ] = None,
    jobs: JobsOption = PROCESSORS,
    all_: Annotated[
        bool,
        typer.Option("--all", help="Try every machine-made variant, not a sample; takes hours."),
    ] = False,
    all_of: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="The same of one notebook (may be repeated)."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the whole matrix to this file, if all is well."),
    ] = None,
    json_: Annotated[
        bool, typer.Option("--json", help="Print the outcome of every trial as JSON.")
    ] = False,
    scheduler: SchedulerOption = "",
    course: CourseOption = HERE,
) -> None:
    """Grade known right and known wrong work, to judge the checks."""
    from autograder.audit import report as reporting
    from autograder.audit import run
    from autograder.audit.tables import Tables
    from autograder.engine.pool import Engine

    here = Course.at(course)
    tables = Tables(here, assignment)
    chosen = notebook or list(tables.sources)
    for name in [*chosen, *(all_of or [])]:
        if name not in tables.sources:
            raise UserError(
                f"{assignment} has no notebook {name}; it has {nearest(name, tables.sources)}"
            )
    shown = Console(stderr=True, highlight=False) if json_ else console
    whole = chosen if all_ else all_of or []
    with Engine(here, jobs, scheduler=scheduler) as engine:
        found = run.audit(tables, chosen, engine, jobs, shown, whole)
    if json_:
        print(json.dumps(found.to_json(), ensure_ascii=False))
    else:
        reporting.show(found, console)
    if report is not None and not found.misses:
        report.write_text(reporting.report(found), encoding="utf-8")
    raise typer.Exit(1 if found.misses else 0)


@app.command()
def data() -> None:
    """Fetch MNIST and verify it; check the ORENIST file."""
    from autograder.data import mnist, orenist

    console.print(f"MNIST: {mnist.fetch(say=console.print)}")
    try:
        images, _ = orenist.load(orenist.DATA_FILE)
    except (OSError, ValueError) as error:
        raise UserError(f"ORENIST cannot be read, install the kit again: {error}") from error
    console.print(f"ORENIST: {len(images)} images in {orenist.DATA_FILE}")


@app.command()
def doctor(course: CourseOption = HERE) -> None:
    """Say what this machine can and cannot do."""
    from autograder.data import mnist
    from autograder.engine.sandbox import LAYERS, Sandbox, refused
    from autograder.engine.trial import STEPS, explained, trial
    from autograder.engine.warm import WarmInterpreter
    from autograder.kernel.isolate import LANDLOCK, NAMESPACES, landlock_abi

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
    confined, fault = False, ""
    with console.status("trying the sandbox"), WarmInterpreter() as warm:
        warm.wait()
        for level in (NAMESPACES, LANDLOCK):
            reason = refused(warm, level)
            table.add_row(level, f"refused: {reason}" if reason else ", ".join(LAYERS[level]))
            if not reason and not confined:  # grading would use this level
                confined, place = True, Sandbox(warm.address, level)
                fault = trial(place)
                table.add_row("notebooks", fault or f"run ({', '.join(STEPS)})")
                fault = fault and explained(fault, place)
        memory = "bounded by a control group" if warm.bounds_memory else "watched from outside"
        table.add_row("memory", memory)
    console.print(table)
    if not confined:
        raise UserError(
            "this machine cannot confine student code: allow user namespaces, or use a kernel "
            "with Landlock (5.13 or later) and libseccomp"
        )
    if fault:
        raise UserError(f"notebooks cannot run on this machine: {fault}")


@app.command()
def demo(course: CourseOption = HERE) -> None:
    """Grade three example submissions; show scores and feedback."""
    from autograder.demo import run_demo

    run_demo(Course.at(course), console)


def main() -> None:
    """Run the command line; a user's mistake yields one line on standard error."""
    signal.signal(signal.SIGINT, _interrupt)
    if os.path.expanduser("~") == "~":  # Jupyter looks for settings in a home, so there must be one
        os.environ["HOME"] = "/nonexistent"
    try:
        settle_in()
        status = app(standalone_mode=False)
        raise SystemExit(status or 0)
    except WrongCall as error:
        raise SystemExit(_wrong_call(error)) from None
    except UserError as error:
        _say(error)
        raise SystemExit(2) from None
    except Exception as error:
        if said := explained(error):
            _say(said)
        else:
            traceback.print_exc()  # our fault; 1 would blame a submission
        raise SystemExit(2) from None
    except _Interrupted:
        _say("interrupted; what was done is kept, the same command goes on from there")
        raise SystemExit(INTERRUPTED) from None


def _wrong_call(error: Exception) -> int:
    """Say in one line what is wrong with a call; returns its exit status."""
    context = getattr(error, "ctx", None)
    where = context.command_path if context is not None else "autograder"
    said: str = error.format_message()  # type: ignore[attr-defined]
    _say(f"{printable(said).removesuffix('.')}; see `{where} --help`")
    return 2


def _say(what: object) -> None:
    """Print one line on standard error, safely even if it quotes strange names."""
    print(f"autograder: {printable(what, limit=4000)}", file=sys.stderr)


class _Interrupted(BaseException):
    """Ctrl-C; not a KeyboardInterrupt, for which typer would exit with 1."""


def _interrupt(number: int, frame: object) -> None:
    raise _Interrupted
