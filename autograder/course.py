"""Where things lie in a course, and which checks belong to an assignment."""

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
from autograder.errors import UserError


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
        """The instructor's notebooks."""
        return self.root / "source" / assignment

    def release(self, assignment: str) -> Path:
        """What students get; generated."""
        return self.root / "release" / assignment

    def submitted(self, student: str, assignment: str) -> Path:
        """What a student handed in."""
        return self.root / "submitted" / student / assignment

    def autograded(self, student: str, assignment: str) -> Path:
        """Where the graded notebooks and `results.json` go."""
        return self.root / "autograded" / student / assignment

    @property
    def private(self) -> Path:
        """The kit's own files in this course: secret and result cache; only for the grader."""
        folder = self.root / ".autograder"
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def secret(self) -> bytes:
        """The 32 bytes from which the checks draw their inputs; made on first use.

        Whoever asks, in whatever thread or process, gets the same: the file appears whole, once.
        Raises UserError when it is damaged.
        """
        path = self.private / "secret"
        if not path.exists():
            with tempfile.NamedTemporaryFile(dir=self.private, prefix=".secret-") as file:
                file.write(secrets.token_bytes(32))
                file.flush()
                with contextlib.suppress(FileExistsError):  # another was first: theirs it is
                    os.link(file.name, path)
        value = path.read_bytes()
        if len(value) != 32:
            raise UserError(f"{path} is damaged; delete it to draw a new secret")
        return value

    def notebooks(self, assignment: str) -> list[str]:
        """Names of the assignment's notebooks, sorted.

        Raises UserError when the assignment has no release.
        """
        check_name(assignment)
        names = sorted(path.stem for path in self.release(assignment).glob("*.ipynb"))
        if not names:
            raise UserError(
                f"release/{assignment} holds no notebooks; "
                f"run `autograder release {assignment}` first"
            )
        return names

    def students(self, assignment: str) -> list[str]:
        """Who handed in a folder for the assignment, sorted."""
        folder = self.root / "submitted"
        if not folder.is_dir():
            return []
        return sorted(
            entry.name
            for entry in folder.iterdir()
            if not entry.name.startswith(".") and os.path.lexists(entry / assignment)
        )


def write_whole(path: Path, text: str) -> None:
    """Write a file such that an interruption leaves the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}-{os.getpid()}-{threading.get_ident()}")
    try:
        half.write_text(text, encoding="utf-8")
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)


def check_name(name: str) -> str:
    """`name` of an assignment or student, if it can be one.  Raises UserError otherwise."""
    if not name or name.startswith(".") or "/" in name or "\0" in name:
        raise UserError(f"{name!r} is no name of an assignment or student")
    return name


def identifier(name: str) -> str:
    """`name` of an assignment or notebook, as a Python module is called after it."""
    return re.sub(r"\W", "_", name)


@dataclass(frozen=True)
class Checks:
    """The hidden checks of one notebook: the pytest module and the kernel's surroundings."""

    module: Path
    setup: Setup


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
    return Checks(module, found.NOTEBOOKS.get(notebook, Setup()))
