"""Makes `release/` and `solutions/` from `source/`, and proves that nothing leaked."""

from __future__ import annotations

import ast
import contextlib
import importlib.metadata
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from rich.console import Console
from rich.progress import Progress

from autograder.course import Course, checks_for
from autograder.engine.notebook import BEGIN, END, is_solution, solved
from autograder.engine.run import NotebookRun
from autograder.engine.sandbox import Sandbox
from autograder.engine.trial import working_sandbox
from autograder.engine.warm import WarmInterpreter
from autograder.errors import UserError, printable
from autograder.locks import Busy, locked
from autograder.progress import log_columns

WAITING, RUNNING, FINISHED = "waiting", "running", "finished"
_LOGGED = re.compile(r"Step: (\d+), Loss: ([\d.]+), Accuracy: ([\d.]+)")
_TELLING = 12  # shorter lines (`i = 0`) are not distinctive


def source_notebooks(course: Course, assignment: str) -> list[Path]:
    """The instructor's notebooks, sorted.  Raises UserError when there are none, or broken ones."""
    paths = sorted(course.source(course.known(assignment)).glob("*.ipynb"))
    if not paths:
        raise UserError(f"source/{assignment} holds no notebooks")
    see_that_they_are_notebooks(paths)
    return paths


def see_that_they_are_notebooks(paths: Iterable[Path]) -> None:
    """Raise UserError for a course file that is no notebook, for example after a failed merge."""
    for path in paths:
        try:
            nbformat.read(path, as_version=4)
        except OSError:
            raise
        except Exception as error:  # nbformat raises many kinds for files that are no notebooks
            why = printable(error, limit=120) or type(error).__name__
            raise UserError(f"{path} is no notebook any more ({why}); mend it") from error


def leaks(course: Course, assignment: str) -> list[str]:
    """Everything in the release that must not be there; empty when all is well.

    This searches for solution lines, the markers around them, outputs, and texts of hidden checks.
    """
    found = []
    solution_lines: set[str] = set()
    given: set[str] = set()
    for path in source_notebooks(course, assignment):
        for cell in nbformat.read(path, as_version=4).cells:
            inside, outside = _split(cell.source)
            if is_solution(cell) and not inside:  # without markers, nbgrader clears the whole cell
                inside, outside = outside, []
            solution_lines |= _telling(inside)
            given |= _telling(outside)
    hidden = _hidden_texts(assignment, [p.stem for p in source_notebooks(course, assignment)])
    for path in sorted(course.release(assignment).rglob("*")):
        if not path.is_file() or path.suffix not in (".ipynb", ".py", ".md", ".txt"):
            continue
        text = path.read_text(encoding="utf-8")
        where = path.relative_to(course.root)
        lines: set[str] = set()
        if path.suffix == ".ipynb":
            for cell in nbformat.reads(text, as_version=4).cells:
                lines |= _telling(cell.source.splitlines())
                if cell.get("outputs"):
                    found.append(f"{where}: cell {cell.id} holds outputs")
                text += cell.source
        else:
            lines |= _telling(text.splitlines())
        found += [f"{where}: solution line {line!r}" for line in lines & (solution_lines - given)]
        found += [
            f"{where}: marker {word!r}" for word in (BEGIN, END, "HIDDEN TEST") if word in text
        ]
        found += [f"{where}: hidden text {word!r}" for word in hidden if word in text]
    return found


def _split(source: str) -> tuple[list[str], list[str]]:
    """Lines inside and outside the solution regions of a cell."""
    inside: list[str] = []
    outside: list[str] = []
    current = outside
    for line in source.splitlines():
        if BEGIN in line:
            current = inside
        elif END in line:
            current = outside
        else:
            current.append(line)
    return inside, outside


def _telling(lines: list[str]) -> set[str]:
    plain = {"".join(line.split()) for line in lines}
    return {line for line in plain if len(line) >= _TELLING}


def _hidden_texts(assignment: str, notebooks: list[str]) -> set[str]:
    """Titles and hints of all hidden checks."""
    texts = set()
    folders = {checks_for(assignment, name).module.parent for name in notebooks}
    for path in (path for folder in folders for path in sorted(folder.glob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "check":
                values = [*node.args, *(keyword.value for keyword in node.keywords)]
                texts |= {v.value for v in values if isinstance(v, ast.Constant)}
    return {text for text in texts if isinstance(text, str)}


class Training:
    """The solved notebooks, run once for real and cached in the course's private folder.

    The cache key covers their code and the package versions, but not their text.
    """

    def __init__(self, course: Course, assignment: str) -> None:
        self.course, self.assignment = course, assignment
        digest = sha256()
        for path in sorted(course.source(assignment).iterdir()):
            if path.suffix == ".ipynb":
                cells = nbformat.read(path, as_version=4).cells
                content = "\0".join(c.source for c in cells if c.cell_type == "code").encode()
            elif path.is_file():
                content = path.read_bytes()
            else:
                continue
            digest.update(path.name.encode() + sha256(content).digest())
        for package in ("tensorflow", "numpy", "matplotlib"):
            digest.update(importlib.metadata.version(package).encode())
        self.folder = course.private / "solved" / assignment / digest.hexdigest()[:16]

    @property
    def done(self) -> bool:
        """Whether every notebook has been run."""
        return (self.folder / "done").is_file()

    def run(self, data: dict[str, Path], progress: Callable[[str, str], object]) -> Path:
        """Run the notebooks not run yet; returns the folder with executed notebooks and checkpoint.

        If another command is running them, wait for it.

        data: folders the notebooks may read, by the environment variable that names each.
        progress: called with (notebook, latest line printed by it).

        Raises UserError when a solution does not run.
        """
        if self.done:
            return self.folder
        self.folder.mkdir(parents=True, exist_ok=True)
        paths = source_notebooks(self.course, self.assignment)
        with self._locked(lambda: progress(paths[0].stem, WAITING)):
            if not self.done:
                self._run(paths, data, progress)
        return self.folder

    @contextlib.contextmanager
    def _locked(self, busy: Callable[[], object]) -> Iterator[None]:
        """Be the only one who runs the notebooks; calls `busy` before it waits for another."""
        lock = self.folder.with_suffix(".lock")
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locked(lock, wait=False))
            except Busy:
                busy()
                stack.enter_context(locked(lock))
            yield

    def _run(
        self, paths: list[Path], data: dict[str, Path], progress: Callable[[str, str], object]
    ) -> None:
        for path in self.course.source(self.assignment).iterdir():
            if path.is_file() and path.suffix != ".ipynb":
                shutil.copyfile(path, self.folder / path.name)
        # All are there from the start, as in a student's folder: the last cells look for them.
        for path in paths:
            if not (self.folder / path.name).exists():
                nbformat.write(solved(nbformat.read(path, as_version=4)), self.folder / path.name)
        with WarmInterpreter() as warm:
            for path in paths:
                target, ran = self.folder / path.name, self.folder / f"{path.stem}.ran"
                if not ran.exists():
                    progress(path.stem, RUNNING)
                    executed = self._execute(path, working_sandbox(warm), data, progress)
                    half = target.with_suffix(".half")
                    nbformat.write(executed, half)
                    half.replace(target)
                    ran.touch()
                progress(path.stem, FINISHED)
        (self.folder / "done").touch()

    def _execute(
        self,
        path: Path,
        place: Sandbox,
        data: dict[str, Path],
        progress: Callable[[str, str], object],
    ) -> NotebookNode:
        notebook = solved(nbformat.read(path, as_version=4))
        with NotebookRun(
            notebook,
            self.folder,
            sandbox=place,
            environment={name: str(folder) for name, folder in data.items()},
            shared=tuple(map(str, data.values())),
            seconds=3600,
            on_print=lambda line: progress(path.stem, line),
            grade_cells=True,
        ) as run:
            run.finish()
            if run.notes:
                raise UserError(f"{path.name}: {'; '.join(run.notes)}")
        for cell in notebook.cells:
            for output in cell.get("outputs", []):
                if output.output_type == "error":
                    raise UserError(f"{path.name}: cell {cell.id} raised {output.ename}")
        return notebook


def solution_run(course: Course, assignment: str, console: Console) -> Path:
    """The folder of the executed solutions; runs them if necessary, and shows the progress."""
    training = Training(course, assignment)
    if training.done:
        return training.folder
    names = [path.stem for path in source_notebooks(course, assignment)]
    setups = {name: checks_for(assignment, name).setup for name in names}
    data: dict[str, Path] = {}
    for setup in setups.values():
        data |= setup.data(console.print) if setup.data is not None else {}
    with Progress(*log_columns(), console=console) as bar:
        tasks = {name: bar.add_task(name, start=False, total=None, line="") for name in names}

        steps = {name: setup.steps for name, setup in setups.items()}

        def show(notebook: str, line: str) -> None:
            task = tasks[notebook]
            if line == WAITING:
                console.print("another command is running the notebooks; waiting for it")
            if line == RUNNING and not console.is_terminal:  # no bar is drawn there
                console.print(f"running {notebook}")
            found = _LOGGED.match(line)
            if found:
                step, loss, accuracy = int(found[1]), float(found[2]), float(found[3])
                text = f"step {step}, loss {loss:.0f}, accuracy {accuracy:.3f}"
                bar.update(task, total=max(step, steps[notebook]), completed=step, line=text)
            elif line == RUNNING:
                bar.start_task(task)
            elif line == FINISHED:
                bar.start_task(task)
                bar.update(task, total=1, completed=1, line="done")

        return training.run(data, show)


def make_release(course: Course, assignment: str) -> None:
    """Regenerate `release/<assignment>`.  Raises UserError when something leaked."""
    from autograder.record.gradebook import Gradebook

    source_notebooks(course, assignment)
    Gradebook(course).generate_release(assignment)
    found = leaks(course, assignment)
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise UserError(f"the release gives something away: {found[0]}{more}")


def make_solutions(course: Course, assignment: str, executed: Path) -> None:
    """Put the executed notebooks into `solutions/<assignment>`, without output on stderr."""
    target = course.root / "solutions" / assignment
    target.mkdir(parents=True, exist_ok=True)
    for old in target.glob("*.ipynb"):
        old.unlink()
    for path in source_notebooks(course, assignment):
        ran = {cell.id: cell for cell in nbformat.read(executed / path.name, as_version=4).cells}
        notebook = solved(nbformat.read(path, as_version=4))
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.execution_count = ran[cell.id].execution_count
                outputs = [o for o in ran[cell.id].outputs if o.get("name") != "stderr"]
                cell.outputs = outputs
        nbformat.write(notebook, target / path.name)


def solution_matches(course: Course, assignment: str) -> list[str]:
    """Names of solution notebooks whose cells differ from those that `source/` would give."""
    stale = []
    for path in source_notebooks(course, assignment):
        made = course.root / "solutions" / assignment / path.name
        wanted = solved(nbformat.read(path, as_version=4))
        if not made.is_file() or _sources(nbformat.read(made, as_version=4)) != _sources(wanted):
            stale.append(path.name)
    return stale


def _sources(notebook: NotebookNode) -> list[tuple[str, str, str]]:
    return [(cell.id, cell.cell_type, cell.source) for cell in notebook.cells]
