"""The settings of an installation, and the paths that follow from them.

An administrator writes the settings in one TOML file; deploy/example.toml explains each line.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from autograder.errors import UserError
from deploy.courses import EXCHANGE
from deploy.environment import ROOT

_ACCOUNT = re.compile(r"[a-z_][a-z0-9_.-]{0,31}")
_COURSE = re.compile(r"[a-z][a-z0-9-]{0,24}")  # used in addresses and in the names of groups
_PAM = "jupyterhub.auth.PAMAuthenticator"


@dataclass(frozen=True)
class Place:
    """A folder of the installation, with the required owner, group and mode."""

    path: Path
    owner: str
    group: str
    mode: int


@dataclass(frozen=True)
class CourseOnSite:
    """A course, with the account names of its people and the names of its assignments."""

    name: str
    grader: str
    instructors: tuple[str, ...]
    students: tuple[str, ...]
    assignments: tuple[str, ...]

    @property
    def group(self) -> str:
        """Name of the Unix group of all people in the course."""
        return f"course-{self.name}"

    @property
    def people(self) -> tuple[str, ...]:
        """Instructors and students, without duplicates."""
        return tuple(dict.fromkeys((*self.instructors, *self.students)))


@dataclass(frozen=True)
class Site:
    """An installation; everything is below `folder`, which belongs to root.

    Attributes:
        folder: the folder of the installation.
        courses: the courses on the Hub.
        url: address at which the Hub answers.
        first_port: first of the further ports on 127.0.0.1: two for the Hub, two for each course.
        homes: folder for the homes of new accounts.
        graders: name of the Unix group of all grader accounts.
        environment: the students' own environment; empty to use the shared one.
        authenticator: JupyterHub's authenticator class.
        spawner: JupyterHub's spawner class.
        extra: a file in JupyterHub's configuration language, read last; empty for none.
        source: the TOML file.

    """

    folder: Path
    courses: tuple[CourseOnSite, ...]
    url: str = "http://127.0.0.1:8000"
    first_port: int = 8081
    homes: str = "/home"
    graders: str = "course-graders"
    environment: str = ""
    authenticator: str = _PAM
    spawner: str = "jupyterhub.spawner.LocalProcessSpawner"
    extra: str = ""
    source: Path = field(default=Path(), compare=False)

    @classmethod
    def read(cls, path: Path) -> Site:
        """Read a TOML file.  Raises UserError if it is not valid."""
        try:
            said = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{path} is no TOML: {error}") from error
        try:
            return cls._of(said, path)
        except ValueError as error:
            raise UserError(f"{path}: {error}") from error

    @classmethod
    def _of(cls, said: dict[str, Any], source: Path) -> Site:
        tables = said.pop("courses", None)
        if not isinstance(tables, dict) or not tables:
            raise ValueError("there is no table [courses.<name>]")
        known = {one.name: one.type for one in fields(cls)} | {"folder": "str"}
        for key, value in said.items():
            if key not in known or key == "source":
                raise ValueError(f"{key} is not known here")
            if type(value).__name__ != known[key]:
                raise ValueError(f"{key} is not of type {known[key]}")
        folder = Path(said.pop("folder", ""))
        if not folder.is_absolute() or folder == Path("/"):
            raise ValueError("folder is not an absolute path")
        courses = tuple(_course(name, table) for name, table in tables.items())
        graders = [course.grader for course in courses]
        everybody = {name for course in courses for name in course.people}
        for grader in graders:
            if graders.count(grader) > 1:
                raise ValueError(
                    f"{grader} is the grader of two courses, which would see each other"
                )
            if grader in everybody:
                raise ValueError(f"{grader} is a grader, and so can be nobody else")
        return cls(folder=folder, courses=courses, source=source, **said)

    # -- where things are ----------------------------------------------------------------------

    @property
    def shared(self) -> Path:
        """The locked environment without the kit; the Hub and the graders' environment use it."""
        return self.folder / "env"

    @property
    def students_environment(self) -> Path:
        """The environment of students."""
        return Path(self.environment) if self.environment else self.shared

    @property
    def graders_environment(self) -> Path:
        """The environment of all courses' graders; it has the kit, so others cannot enter it."""
        return self.folder / "grader"

    @property
    def kit(self) -> Path:
        """The folder from which the Hub imports its configuration."""
        return self.folder / "kit"

    @property
    def exchange(self) -> Path:
        """Root of nbgrader's exchange."""
        return self.folder / "exchange"

    @property
    def mnist(self) -> Path:
        """The MNIST files, readable for everybody."""
        return self.folder / "mnist"

    @property
    def state(self) -> Path:
        """The Hub's state, for root only."""
        return self.folder / "state"

    @property
    def description(self) -> Path:
        """The JSON file that the Hub's configuration reads."""
        return self.state / "place.json"

    @property
    def unit(self) -> Path:
        """The systemd unit."""
        return self.folder / "course-hub.service"

    def root(self, course: CourseOnSite) -> Path:
        """A course's root, which only its grader can enter."""
        return self.folder / "courses" / course.name

    def places(self) -> Iterator[Place]:
        """The Hub's folders with required owners and modes, parents first."""
        yield Place(self.folder, "root", "root", 0o755)
        for name in ("kit", "mnist", "courses"):
            yield Place(self.folder / name, "root", "root", 0o755)
        yield Place(self.graders_environment, "root", self.graders, 0o750)
        yield Place(self.state, "root", "root", 0o700)
        yield Place(self.exchange, "root", "root", 0o1777)  # nbgrader requires it to be writable

    def places_of(self, course: CourseOnSite) -> Iterator[Place]:
        """A course's folders with required owners and modes, parents first."""
        yield Place(self.root(course), course.grader, course.group, 0o700)
        for name, mode in EXCHANGE.items():
            path = self.exchange / course.name / name
            yield Place(path, course.grader, course.group, mode)

    def place(self) -> dict[str, Any]:
        """The content of `description`."""
        here = "http://127.0.0.1"
        ports = iter(range(self.first_port, 65_536))
        return {
            "url": self.url,
            "hub_url": f"{here}:{next(ports)}",
            "proxy_url": f"{here}:{next(ports)}",
            "state": str(self.state),
            "exchange": str(self.exchange),
            "mnist": str(self.mnist),
            "jupyter": str(self.kit / "deploy" / "jupyter"),
            "environment": str(self.students_environment),
            "accounts": True,
            "spawner": self.spawner,
            "homes": "",
            "authenticator": self.authenticator,
            "passwords": {},
            "extra": self.extra,
            "courses": {
                course.name: {
                    "grader": course.grader,
                    "instructors": list(course.instructors),
                    "students": list(course.students),
                    "root": str(self.root(course)),
                    "environment": str(self.graders_environment),
                    "formgrader_url": f"{here}:{next(ports)}",
                    "autograder_url": f"{here}:{next(ports)}",
                }
                for course in self.courses
            },
        }

    @property
    def start(self) -> list[str]:
        """The command that starts the Hub; run it as root, with COURSE_HUB naming `description`."""
        python = str(self.shared / "bin" / "python")
        return [python, "-m", "jupyterhub", "-f", str(self.kit / "deploy" / "jupyterhub_config.py")]

    def unit_text(self) -> str:
        """The content of the systemd unit."""
        return _UNIT.format(
            description=self.description,
            state=self.state,
            programs=self.shared / "bin",
            start=" ".join(self.start),
        )


_UNIT = """\
[Unit]
Description=JupyterHub with courses that grade themselves
After=network-online.target
Wants=network-online.target

[Service]
Environment=COURSE_HUB={description}
Environment=PATH={programs}:/usr/local/bin:/usr/bin:/bin
Environment=LANG=C.UTF-8
WorkingDirectory={state}
ExecStart={start}
UMask=0022
Restart=on-failure
# The Hub gives each of its services half a minute.
TimeoutStopSec=180
KillMode=mixed

[Install]
WantedBy=multi-user.target
"""


def _course(name: str, table: object) -> CourseOnSite:
    if not _COURSE.fullmatch(name):
        raise ValueError(
            f"{name!r} is no name of a course: letters, digits and hyphens, at most 25"
        )
    if not isinstance(table, dict):
        raise ValueError(f"courses.{name} is no table")
    wanted = {"grader", "instructors", "students", "assignments"}
    for key in wanted ^ set(table):
        raise ValueError(
            f"courses.{name}.{key} is {'missing' if key in wanted else 'not known here'}"
        )
    lists = {}
    for key in sorted(wanted - {"grader"}):
        value = table[key]
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise ValueError(f"courses.{name}.{key} is no list of names")
        lists[key] = tuple(value)
    course = CourseOnSite(name, str(table["grader"]), **lists)
    for account in (course.grader, *course.people):
        if not _ACCOUNT.fullmatch(account) or account == "root":
            raise ValueError(f"courses.{name}: {account!r} is no name of a person's account")
    for both in set(course.instructors) & set(course.students):
        raise ValueError(f"courses.{name}: {both} is instructor and student")
    for assignment in course.assignments:
        if not any((ROOT / "source" / assignment).glob("*.ipynb")) or "/" in assignment:
            raise ValueError(f"courses.{name}: source/{assignment} holds no notebooks")
    return course
