"""A complete Hub for as long as a `with` block: users, courses, services, and nothing left after.

As root every person is a Unix account, as on a real Hub.  Without root there is one account, so
there is one person, who is student and instructor at once, and nothing is protected from them:
that shows how things look, not that they are safe.
"""

from __future__ import annotations

import contextlib
import getpass
import grp
import json
import os
import pwd
import secrets
import shutil
import signal
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

from autograder.errors import UserError
from data import mnist
from hub import accounts
from hub.environment import (
    ROOT,
    grader_environment,
    share,
    share_environment,
    share_file,
    share_interpreter,
)

ASSIGNMENT = "ch4-cnn"
START_SECONDS = 120
# `nbgrader generate_assignment` and `release_assignment`, in one process.
RELEASE = """
import sys
from nbgrader.apps import NbGraderAPI, NbGraderApp
app = NbGraderApp()
app.load_config_file()
api = NbGraderAPI(config=app.config)
for step in (api.generate_assignment, api.release_assignment):
    outcome = step(sys.argv[1])
    if not outcome["success"]:
        sys.exit(outcome.get("error") or outcome["log"])
"""


@dataclass(frozen=True)
class Members:
    """A course on the Hub: its name, and the user names of the people in it."""

    name: str
    grader: str
    instructors: tuple[str, ...]
    students: tuple[str, ...]
    notebooks: tuple[str, ...] = ()  # of the release; none means all of them
    settings: str = ""  # lines for the course's nbgrader_config.py


@dataclass
class Demonstration:
    """The Hub and everything it needs, in one temporary folder; a context manager."""

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

    # -- where things are ----------------------------------------------------------------------

    @property
    def exchange(self) -> Path:
        """Where nbgrader hands assignments out and submissions in."""
        return self.folder / "exchange"

    @property
    def log(self) -> Path:
        """What the Hub, its services and its servers print."""
        return self.folder / "state" / "hub.log"

    def home(self, user: str) -> Path:
        """A user's home."""
        return self.folder / "homes" / user

    def root(self, course: str) -> Path:
        """A course's root, which only its grader account can enter."""
        return self.folder / "courses" / course / "root"

    def service_url(self, service: str) -> str:
        """Address of a service, by its name on the Hub."""
        return f"{self.url}/services/{service}"

    # -- life ------------------------------------------------------------------------------------

    def __enter__(self) -> Demonstration:
        if self.as_root:
            accounts.remove_stale()
        self.folder = Path(tempfile.mkdtemp(prefix=accounts.PREFIX))
        try:
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
        """End every process, and remove accounts and files."""
        if self._hub is not None:
            self._end_hub(self._hub)
        if self.as_root:
            accounts.remove(self.accounts)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end_hub(self, hub: subprocess.Popen[bytes]) -> None:
        # Left to itself, a Hub gives each service half a minute.  Here nothing of theirs is kept.
        children = _descendants(hub.pid)
        hub.send_signal(signal.SIGTERM)
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            hub.wait(5)
        # Whatever its parent left behind still has our folder in its environment.
        while pids := {*children, hub.pid, *_naming(self.folder)} & _running():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            hub.poll()
            time.sleep(0.05)
        hub.wait()

    # -- setting up --------------------------------------------------------------------------------

    def _set_up(self) -> None:
        self.folder.chmod(0o755)
        state = self.folder / "state"
        state.mkdir(mode=0o700)
        share(ROOT / "hub" / "jupyter", self.folder / "jupyter")
        digits = self.folder / "mnist"
        digits.mkdir()
        found = mnist.fetch(say=lambda line: None)
        for name in mnist.FILES:
            share_file(found / name, digits / name)
        self.exchange.mkdir()
        # Everybody makes folders here, as nbgrader wants it; nobody renames another's.
        self.exchange.chmod(0o1777)
        if self.as_root:
            interpreter = share_interpreter(self.folder / "python")
            share_environment(self.folder / "env", interpreter)
            accounts.create(self.accounts, self._groups(), self.folder)
        (self.folder / "courses").mkdir()
        for course in self.courses:
            self._make_course(course)

    def _groups(self) -> dict[str, list[str]]:
        """A Unix group per course: who is in none has no business in its part of the exchange."""
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
        for part in ("source", "release"):
            ignore = shutil.ignore_patterns("__pycache__", "mdc_session*", "checkpoint")
            shutil.copytree(ROOT / part, root / part, ignore=ignore)
        for part in ("source", "release"):
            for path in (root / part / ASSIGNMENT).glob("*.ipynb"):
                if course.notebooks and path.stem not in course.notebooks:
                    path.unlink()
        configuration = (ROOT / "nbgrader_config.py").read_text(encoding="utf-8")
        configuration += (
            "\n# This Hub.\n"
            f"c.CourseDirectory.course_id = {course.name!r}\n"
            f"c.CourseDirectory.root = {str(root)!r}\n"
            f"c.Exchange.root = {str(self.exchange)!r}\n"
            f"{course.settings}\n"
        )
        (root / "nbgrader_config.py").write_text(configuration, encoding="utf-8")
        # Made here, with the sticky bit, so that no student can remove another's submission.
        place = self.exchange / course.name
        for name, mode in (("", 0o750), ("outbound", 0o755), ("feedback", 0o711)):
            (place / name).mkdir(exist_ok=True)
            (place / name).chmod(mode)
        (place / "inbound").mkdir()
        (place / "inbound").chmod(0o1733)
        if self.as_root:
            grader_environment(folder / "env", self.folder / "env")
            folder.chmod(0o700)
            for top in (folder, place):
                _give(top, course.grader)
            os.chown(place, -1, grp.getgrnam(f"{accounts.GROUP_PREFIX}{course.name}").gr_gid)
        self.run(course.grader, "python", "-c", RELEASE, ASSIGNMENT, course=course.name)

    def run(
        self, user: str, *command: str, course: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as this user, at home or (as the grader) in the course's root.

        Raises UserError when it fails and `check` is set.
        """
        programs = self._programs(course)
        home = self.home(user) if self.as_root else Path.home()
        folders = [self.folder / "jupyter" / "everyone"]
        environment = {
            "HOME": str(home),
            "PATH": f"{programs}:{os.defpath}",
            "LANG": "C.UTF-8",
            "USER": user,
            "MNIST_DIR": str(self.folder / "mnist"),
            "NBGRADER_EXCHANGE": str(self.exchange),
            "JUPYTER_CONFIG_PATH": ":".join(map(str, folders)),
        }
        done = subprocess.run(
            [str(programs / command[0]), *command[1:]],
            cwd=self.root(course) if course else home,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            **(_account(user) if self.as_root else {}),
        )
        if check and done.returncode != 0:
            line = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise UserError(f"{' '.join(command[:2])} as {user} failed: {line}")
        return done

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
            "passwords": self.passwords,
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
        with self.log.open("wb") as log:
            self._hub = subprocess.Popen(
                [sys.executable, "-m", "jupyterhub", "-f", str(ROOT / "hub/jupyterhub_config.py")],
                cwd=self.folder / "state",
                env={**_clean_environment(), "COURSE_HUB": str(description)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us, who then end the Hub
            )
        # Asked directly: a proxy that does not know them yet would make error pages meanwhile.
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


def _account(user: str) -> dict[str, Any]:
    """Arguments that let `subprocess` run something as this user."""
    entry = pwd.getpwnam(user)
    groups = os.getgrouplist(user, entry.pw_gid)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": groups}


def _clean_environment() -> dict[str, str]:
    """What the Hub needs of our environment; nothing that would tell servers about us."""
    return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(Path.home())}


def _give(top: Path, user: str) -> None:
    """Make a user the owner of a tree; of a link in it, not of what it leads to."""
    account = pwd.getpwnam(user)
    for path, folders, files in os.walk(top):
        for name in ("", *folders, *files):
            owned = os.path.join(path, name)
            os.chown(owned, account.pw_uid, account.pw_gid, follow_symlinks=False)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _running() -> set[int]:
    """Every process that has not ended."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if (entry / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX":
                    found.add(int(entry.name))
    return found


def _naming(folder: Path) -> set[int]:
    """Processes with `folder` in their environment, among those that we may look at."""
    found = set()
    for pid in _running() - {os.getpid()}:
        with contextlib.suppress(OSError):
            if os.fsencode(folder) in Path(f"/proc/{pid}/environ").read_bytes():
                found.add(pid)
    return found


def _descendants(pid: int) -> list[int]:
    """Every process below `pid`, children of children included."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                children.setdefault(int(parent), []).append(int(entry.name))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found
