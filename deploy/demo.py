"""A complete Hub for the duration of a `with` block: users, courses and services.

As root, every person is a Unix account, as on a real Hub.  Without root there is a single account,
so one person is both student and instructor and nothing is protected from them: this shows the
look of the Hub, not its safety.
"""

from __future__ import annotations

import contextlib
import getpass
import grp
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from autograder.data import mnist
from autograder.errors import UserError
from deploy import accounts
from deploy.courses import EXCHANGE, RELEASE, give, make_root, run
from deploy.environment import (
    ROOT,
    grader_environment,
    share,
    share_environment,
    share_file,
    share_interpreter,
)

ASSIGNMENT = "ch4-cnn"
START_SECONDS = 120


@dataclass(frozen=True)
class Members:
    """A course on the Hub.

    Attributes:
        name: name of the course.
        grader: user name of the grader account.
        instructors: user names of the instructors.
        students: user names of the students.
        notebooks: names of the notebooks to release; empty for all.
        settings: further lines for the course's `nbgrader_config.py`.

    """

    name: str
    grader: str
    instructors: tuple[str, ...]
    students: tuple[str, ...]
    notebooks: tuple[str, ...] = ()
    settings: str = ""


@dataclass
class Demonstration:
    """A Hub with everything it needs in one temporary folder; a context manager.

    Attributes:
        courses: the courses on the Hub; without root only the first one, with a single person.
        folder: the temporary folder.
        url: address of the Hub.
        passwords: password by user name.

    """

    courses: Sequence[Members]
    folder: Path = field(init=False)
    url: str = field(init=False)
    passwords: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.as_root = os.geteuid() == 0
        if not self.as_root:
            me = getpass.getuser()
            self.courses = [Members(c.name, me, (me,), (me,)) for c in self.courses[:1]]
        people = [name for c in self.courses for name in (*c.instructors, *c.students)]
        self.people = list(dict.fromkeys(people))
        self.accounts = list(dict.fromkeys([*self.people, *(c.grader for c in self.courses)]))
        self.passwords = {name: secrets.token_urlsafe(9) for name in self.people}
        self._hub: subprocess.Popen[bytes] | None = None
        self._run: accounts.Run | None = None

    # -- where things are ----------------------------------------------------------------------

    @property
    def exchange(self) -> Path:
        """Root of nbgrader's exchange."""
        return self.folder / "exchange"

    @property
    def log(self) -> Path:
        """The log of the Hub, its services and its servers."""
        return self.folder / "state" / "hub.log"

    def home(self, user: str) -> Path:
        """Home of a user."""
        return self.folder / "homes" / user

    def root(self, course: str) -> Path:
        """A course's root, which only its grader account can enter."""
        return self.folder / "courses" / course / "root"

    def service_url(self, service: str) -> str:
        """Address of a service with this name on the Hub."""
        return f"{self.url}/services/{service}"

    # -- life ------------------------------------------------------------------------------------

    def __enter__(self) -> Demonstration:
        accounts.remove_stale()
        self.folder = Path(tempfile.mkdtemp(prefix=accounts.PREFIX))
        try:
            self._run = accounts.Run.begin(self.folder)
            self._set_up()
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all processes of this run, and remove its accounts and files."""
        try:
            if self._hub is not None:
                assert self._hub.stdin is not None
                self._hub.stdin.close()  # the lifeline then ends the Hub and all its processes
                self._hub.wait()
            if self.as_root and self._run is not None:
                accounts.remove(self._run, self.folder)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    # -- setting up --------------------------------------------------------------------------------

    def _set_up(self) -> None:
        self.folder.chmod(0o755)
        state = self.folder / "state"
        state.mkdir(mode=0o700)
        share(ROOT / "deploy" / "jupyter", self.folder / "jupyter")
        digits = self.folder / "mnist"
        digits.mkdir()
        found = mnist.fetch(say=lambda line: None)
        for name in mnist.FILES:
            share_file(found / name, digits / name)
        self.exchange.mkdir()
        # Writable for everybody, as nbgrader requires; the sticky bit protects others' folders.
        self.exchange.chmod(0o1777)
        if self.as_root:
            interpreter = share_interpreter(self.folder / "python")
            share_environment(self.folder / "env", interpreter)
            assert self._run is not None
            accounts.create(self._run, self.accounts, self._groups(), self.folder)
        (self.folder / "courses").mkdir()
        for course in self.courses:
            self._make_course(course)

    def _groups(self) -> dict[str, list[str]]:
        """The members of each course's Unix group, which protects its part of the exchange."""
        return {
            f"{accounts.GROUP_PREFIX}{course.name}": [
                course.grader,
                *course.instructors,
                *course.students,
            ]
            for course in self.courses
        }

    def _make_course(self, course: Members) -> None:
        folder = self.root(course.name).parent
        folder.mkdir()
        root = self.root(course.name)
        make_root(
            root, root, course.name, self.exchange, [ASSIGNMENT], course.notebooks, course.settings
        )
        place = self.exchange / course.name
        for name, mode in EXCHANGE.items():
            (place / name).mkdir()
            (place / name).chmod(mode)
        if self.as_root:
            grader_environment(folder / "env", self.folder / "env")
            folder.chmod(0o700)
            for top in (folder, place):
                give(top, course.grader)
            os.chown(place, -1, grp.getgrnam(f"{accounts.GROUP_PREFIX}{course.name}").gr_gid)
        self.run(course.grader, "python", "-c", RELEASE, ASSIGNMENT, course=course.name)

    def run(
        self, user: str, *command: str, course: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as this user, at home or, given a `course`, in the course's root.

        Raises UserError if it fails and `check` is set.
        """
        home = self.home(user) if self.as_root else Path.home()
        return run(
            user,
            command,
            self._programs(course),
            self.root(course) if course else home,
            {
                "HOME": str(home),
                "MNIST_DIR": str(self.folder / "mnist"),
                "NBGRADER_EXCHANGE": str(self.exchange),
                "JUPYTER_CONFIG_PATH": str(self.folder / "jupyter" / "everyone"),
            },
            as_user=self.as_root,
            check=check,
        )

    def _programs(self, course: str = "") -> Path:
        if not self.as_root:
            return Path(sys.executable).parent
        return (self.root(course).parent if course else self.folder) / "env" / "bin"

    # -- the Hub -----------------------------------------------------------------------------------

    def _start(self) -> None:
        ports = iter(_free_ports(3 + 2 * len(self.courses)))
        here = "http://127.0.0.1"
        self.url = f"{here}:{next(ports)}"
        place: dict[str, Any] = {
            "url": self.url,
            "hub_url": f"{here}:{next(ports)}",
            "proxy_url": f"{here}:{next(ports)}",
            "state": str(self.folder / "state"),
            "exchange": str(self.exchange),
            "mnist": str(self.folder / "mnist"),
            "jupyter": str(self.folder / "jupyter"),
            "environment": str(self._programs().parent),
            "accounts": self.as_root,
            "spawner": "jupyterhub.spawner.LocalProcessSpawner" if self.as_root else "simple",
            "homes": "" if self.as_root else str(self.folder / "homes"),
            "authenticator": "deploy.passwords.PasswordFile",
            "passwords": self.passwords,
            "extra": "",
            "courses": {
                course.name: {
                    "grader": course.grader,
                    "instructors": list(course.instructors),
                    "students": list(course.students),
                    "root": str(self.root(course.name)),
                    "environment": str(self._programs(course.name).parent),
                    "formgrader_url": f"{here}:{next(ports)}",
                    "autograder_url": f"{here}:{next(ports)}",
                }
                for course in self.courses
            },
        }
        description = self.folder / "state" / "place.json"
        description.touch(mode=0o600)
        description.write_text(json.dumps(place, indent=1), encoding="utf-8")
        hub = [sys.executable, "-m", "jupyterhub", "-f", str(ROOT / "deploy/jupyterhub_config.py")]
        lifeline = [sys.executable, "-m", "deploy.lifeline", str(self.folder)]
        with self.log.open("wb") as log:
            self._hub = subprocess.Popen(
                [*lifeline, *hub],
                cwd=ROOT,
                env={**_clean_environment(), "COURSE_HUB": str(description)},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches only this process, which ends the Hub
            )
        # Ask the services directly; until the proxy knows them, it answers with error pages.
        for name, course in place["courses"].items():
            service = f"/services/{name}-autograder/health"
            self._wait_for(f"{course['autograder_url']}{service}")
        self._wait_for(f"{self.url}/hub/health")

    def _wait_for(self, url: str) -> None:
        assert self._hub is not None
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._hub.poll() is not None:
                break
            with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):  # noqa: S310
                return
            time.sleep(0.3)
        tail = [line for line in self.log.read_text(errors="replace").splitlines() if line][-3:]
        raise UserError(f"{url} does not answer; the log ends in: {' | '.join(tail)}")


def _clean_environment() -> dict[str, str]:
    """The environment variables that the Hub needs; servers must not see any others."""
    return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(Path.home())}


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
