"""The layout of a course, and the checks that belong to an assignment."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import secrets
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from autograder.checks import Setup
from autograder.engine.finding import ADDED, CLUTTER, alike, named, passed_over, same_letters
from autograder.errors import UserError, nearest, printable

LONGEST_NAME = 200  # bytes of a student's name, to which file names add something


@dataclass(frozen=True)
class Course:
    """A course root: the folder with `source/`, `release/` and `nbgrader_config.py`."""

    root: Path

    @classmethod
    def at(cls, folder: Path) -> Course:
        """The course in `folder`.  Raises UserError when there is none."""
        root = folder.resolve()
        if not (root / "nbgrader_config.py").is_file():
            raise UserError(
                f"{root} is no course: nbgrader_config.py is not there; "
                "change to the course root or name it with --course"
            )
        return cls(root)

    def source(self, assignment: str) -> Path:
        """The folder of the instructor's notebooks."""
        return self.root / "source" / assignment

    def release(self, assignment: str) -> Path:
        """The generated folder that students get."""
        return self.root / "release" / assignment

    def submitted(self, student: str, assignment: str) -> Path:
        """The folder of a student's submission."""
        return self.root / "submitted" / student / assignment

    def autograded(self, student: str, assignment: str) -> Path:
        """The folder for the graded notebooks and `results.json`."""
        return self.root / "autograded" / student / assignment

    @property
    def private(self) -> Path:
        """The kit's own files in this course, secret and result cache; only for the grader."""
        folder = self.root / ".autograder"
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def secret(self) -> bytes:
        """The 32 bytes from which the checks draw their inputs; created on first use.

        All threads and processes get the same bytes, since the file appears once and complete.
        Raises UserError when it is damaged.
        """
        path = self.private / "secret"
        if not path.exists():
            with tempfile.NamedTemporaryFile(dir=self.private, prefix=".secret-") as file:
                file.write(secrets.token_bytes(32))
                file.flush()
                with contextlib.suppress(FileExistsError):  # another was first; use its secret
                    os.link(file.name, path)
        value = path.read_bytes()
        if len(value) != 32:
            raise UserError(f"{path} is damaged; delete it to draw a new secret")
        return value

    def assignments(self) -> list[str]:
        """Names of the assignments that have notebooks in `source/` or `release/`, sorted."""
        folders = [p for kind in ("source", "release") for p in (self.root / kind).glob("[!.]*")]
        return sorted({path.name for path in folders if any(path.glob("*.ipynb"))})

    def known(self, assignment: str) -> str:
        """`assignment`, if the course has it; otherwise raises UserError with the names it has."""
        names = self.assignments()
        if check_name(assignment) not in names:
            there = f"; there is {nearest(assignment, names)}" if names else ", nor any other"
            raise UserError(f"there is no assignment {assignment} in {self.root}{there}")
        return assignment

    def notebooks(self, assignment: str) -> list[str]:
        """Names of the assignment's notebooks, sorted.

        Raises UserError when there is no such assignment, or it has no release.
        """
        self.known(assignment)
        names = sorted(path.stem for path in self.release(assignment).glob("*.ipynb"))
        if not names:
            raise UserError(
                f"release/{assignment} holds no notebooks; "
                f"run `autograder release {assignment}` first"
            )
        return names

    def students(self, assignment: str) -> list[str]:
        """The students who handed in anything for the assignment, sorted.

        Their names are those of their folders, normalised to the form in which names are compared;
        a name that cannot be an id (see `odd_name`) is not changed.
        """
        folder = self.root / "submitted"
        if not folder.is_dir():
            return []
        names = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
        known = set(names)
        found = set()
        for name in names:
            if not self._handed_in(folder / name, assignment):
                continue
            same = same_letters(name)
            found.add(name if same in known else same)
        return sorted(found)

    def strays(self) -> list[str]:
        """Names of the files that lie in `submitted/` itself, in no student's folder, sorted.

        Hidden files, read-me files and those that operating systems add are no work.
        """
        try:
            names = [e.name for e in os.scandir(self.root / "submitted") if not e.is_dir()]
        except OSError:
            return []
        return sorted(
            name
            for name in names
            if not name.casefold().startswith((".", "readme")) and name.casefold() not in CLUTTER
        )

    def odd_name(self, student: str) -> str:
        """Why nothing can be recorded for a student of this name, and what to do; "" if it can."""
        try:
            student.encode()
        except UnicodeEncodeError:
            raw = os.fsencode(student)
            with contextlib.suppress(UnicodeDecodeError):
                read = printable(raw.decode("cp949"))
                return (
                    f"the name of the folder is not in UTF-8; as Korean Windows writes names it is "
                    f"{read}: rename the folder"
                )
            return "the name of the folder is in no known letters: rename the folder"
        if len(os.fsencode(student)) > LONGEST_NAME:
            return f"the name of the folder is longer than {LONGEST_NAME} bytes: rename it"
        if student != student.strip():  # nbgrader strips ids, and would then find no folder
            return f"the name of the folder, {student!r}, begins or ends with a space: rename it"
        if not student.isprintable():
            return "the name of the folder holds a line break or control character: rename it"
        if student != same_letters(student):
            return (
                "two folders have this name, with letters put together in two ways (NFC and NFD): "
                f"move what is in this one to the other, {same_letters(student)!a}"
            )
        return ""

    def student_folder(self, student: str) -> Path:
        """A student's folder, whichever Unicode form its name has."""
        top = self.root / "submitted"
        if not os.path.lexists(top / student) and top.is_dir():
            for name in os.listdir(top):
                if same_letters(name) == student:
                    return top / name
        return top / student

    def handed_in(self, student: str, assignment: str) -> tuple[Path, tuple[str, ...]]:
        """A student's submission: a folder, and the names in it that belong to the submission.

        No names mean that everything belongs to it: the folder is then the assignment's own.  If
        there is no such folder, or a similarly named one lies beside it, the submission is
        everything in the student's folder except the folders of other assignments and files that
        belong to those.
        """
        own = self.student_folder(student)
        names = self._handed_in(own, assignment)
        if names == [assignment] or not names:
            return own / assignment, ()
        return own, tuple(names)

    def _handed_in(self, own: Path, assignment: str) -> list[str]:
        """The names in a student's folder that belong to the assignment, sorted."""
        try:
            names = sorted(os.listdir(own))
        except OSError:
            return []
        names = [name for name in names if not passed_over(name) and name not in ADDED]
        close = [name for name in names if name == assignment or alike(name, assignment)]
        others = self.assignments()
        free = [name for name in names if not any(alike(name, other) for other in others)]
        if any(os.path.islink(own / n) or not _is_bare(own / n) for n in close):
            own_names = [path.stem for path in self.release(assignment).glob("*.ipynb")]
            return sorted([*close, *(name for name in free if named(name, own_names))])
        if close and not free:
            return close
        if free and len(others) > 1 and not self._belongs(own, free, assignment):
            return close
        return sorted([*close, *free])

    def _belongs(self, own: Path, names: list[str], assignment: str) -> bool:
        """Whether files outside all assignment folders belong to this assignment.

        They do if they include one of its notebooks by name, or no notebook of any assignment.
        """
        seen = list(names)
        for name in names:
            with contextlib.suppress(OSError):
                seen += os.listdir(own / name)
        mine = [path.stem for path in self.release(assignment).glob("*.ipynb")]
        every = [path.stem for path in (self.root / "release").glob("*/*.ipynb")]
        return any(named(name, mine) for name in seen) or not any(
            named(name, every) for name in seen
        )


def _is_bare(folder: Path) -> bool:
    """Whether a folder holds nothing of the student's own."""
    try:
        return set(os.listdir(folder)) <= set(ADDED)
    except OSError:
        return False


def write_whole(path: Path, text: str) -> None:
    """Write a file such that an interruption leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}-{os.getpid()}-{threading.get_ident()}")
    try:
        half.write_text(text, encoding="utf-8")
        half.replace(path)
    except OSError as error:
        error.filename = str(path)  # a write sets no file name
        raise
    finally:
        half.unlink(missing_ok=True)


def check_name(name: str) -> str:
    """`name`, if it can name an assignment or a student; otherwise raises UserError."""
    if not name or name.startswith(".") or "/" in name or "\0" in name:
        raise UserError(f"{name!r} is no name of an assignment or student")
    return name


def identifier(name: str) -> str:
    """The name of an assignment or notebook as a Python identifier."""
    return re.sub(r"\W", "_", name)


@dataclass(frozen=True)
class Checks:
    """The hidden checks of one notebook: the pytest module and the kernel's setup."""

    package: str
    module: Path
    setup: Setup

    @property
    def name(self) -> str:
        """The dotted name of the module."""
        return f"{self.package}.{self.module.stem}"

    @property
    def conftest(self) -> str:
        """The dotted name of the `conftest` that pytest would read beside the module."""
        return f"{self.package}.conftest"


def checks_for(assignment: str, notebook: str) -> Checks:
    """The checks of a notebook.  Raises UserError when there are none."""
    package = f"autograder.checks.{identifier(assignment)}"
    try:
        found = importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise UserError(f"{assignment} has no hidden checks: there is no {package}") from error
    assert found.__file__ is not None
    module = Path(found.__file__).parent / f"test_{identifier(notebook)}.py"
    if not module.is_file():
        raise UserError(f"{notebook} has no hidden checks: there is no {module.name}")
    return Checks(package, module, found.NOTEBOOKS.get(notebook, Setup()))
