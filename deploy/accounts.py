"""Unix accounts for the lifetime of a demonstration, with proof of ownership.

Each account and group carries the mark of the run that created it, in the account's comment or in
place of the group's password.  Only marked accounts and groups are ever removed, by their own run
or, after its process has ended, by a later one.
"""

from __future__ import annotations

import contextlib
import grp
import json
import os
import pwd
import re
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from autograder.errors import UserError
from deploy import processes
from deploy.processes import Process

PREFIX = "course-hub-"  # of a demonstration's folder
OWNER, LIFELINE = "owner.json", "lifeline.json"  # files in that folder
GROUP_PREFIX = "course-"
NUMBERS = range(1000, 60_000)  # user ids of people; all others belong to the system
STOPPING_SECONDS = 60.0
_GROUP_PASSWORDS = Path("/etc/gshadow")
_MARK = re.compile(r"course-hub (\d+) (\d+) ([0-9a-f]{16})(?: (\d+))?")


@dataclass(frozen=True)
class Run:
    """One demonstration.

    Attributes:
        process: the process that runs it.
        token: a random unique word.

    """

    process: Process
    token: str

    @classmethod
    def begin(cls, folder: Path) -> Run:
        """A new run of the current process, recorded in its `folder`."""
        run = cls(Process.of(os.getpid()), secrets.token_hex(8))
        note = folder / OWNER
        note.touch(mode=0o600)
        note.write_text(json.dumps([run.process.pid, run.process.start, run.token]), "utf-8")
        return run

    @property
    def mark(self) -> str:
        """The mark of the run's groups; its accounts add their user id."""
        return f"course-hub {self.process.pid} {self.process.start} {self.token}"


def create(
    run: Run, names: Iterable[str], groups: Mapping[str, Iterable[str]], folder: Path
) -> None:
    """Create the run's accounts, with private homes below `folder`/homes, and its groups.

    Args:
        run: the run.
        names: names of the accounts.
        groups: members by group.
        folder: the run's folder.

    Raises:
        UserError: an account or a group exists already; it belongs to somebody and is not changed.

    """
    homes = folder / "homes"
    homes.mkdir()
    homes.chmod(0o755)
    for name in names:
        with contextlib.suppress(KeyError):
            pwd.getpwnam(name)
            raise UserError(
                f"this machine has an account {name!r} already, and the demonstration makes its "
                "own; end the other demonstration, or rename the account"
            )
        number = _free_number()
        _run("useradd", "--no-create-home", "--user-group", "--shell", "/bin/bash",
             "--uid", str(number), "--home-dir", str(homes / name),
             "--comment", f"{run.mark} {number}", name)  # fmt: skip
        home = homes / name
        home.mkdir(mode=0o700)
        shutil.chown(home, name, name)
    for group, members in groups.items():
        _run("groupadd", "--password", f"!{run.mark}", group)
        _run("gpasswd", "--members", ",".join(members), group)


def _free_number() -> int:
    """A user id that no account, group or process uses."""
    taken = {entry.pw_uid for entry in pwd.getpwall()} | {entry.gr_gid for entry in grp.getgrall()}
    number = max((taken | processes.owners()) & set(NUMBERS), default=NUMBERS[0] - 1) + 1
    if number not in NUMBERS:
        raise UserError(f"no user id below {NUMBERS.stop} is free for the demonstration")
    return number


def remove(run: Run, folder: Path) -> None:
    """End all processes of this run's accounts, and delete the accounts and groups.

    Args:
        run: the run.
        folder: the run's folder, which contains the accounts' homes.

    """
    mine = dict(_marked(run, folder))
    processes.end(lambda: processes.of_accounts(mine.values(), run.process.start))
    for name, number in list(_marked(run, folder)):
        if mine.get(name) == number:
            _delete("userdel", name, lambda: [name for name, _ in _marked(run, folder)])
    for group in _marked_groups(run):
        _delete("groupdel", group, lambda: _marked_groups(run))


def _delete(command: str, name: str, left: Callable[[], list[str]]) -> None:
    try:
        _run(command, name)
    except UserError:
        if name in left():  # otherwise another run has removed it at the same time
            raise


def _marked(run: Run, folder: Path) -> Iterator[tuple[str, int]]:
    """(name, user id) of the accounts that this run created and that are unchanged."""
    everybody = pwd.getpwall()
    numbers = [entry.pw_uid for entry in everybody]
    for entry in everybody:
        if (
            entry.pw_gecos == f"{run.mark} {entry.pw_uid}"
            and Path(entry.pw_dir) == folder / "homes" / entry.pw_name
            and numbers.count(entry.pw_uid) == 1
        ):
            yield entry.pw_name, entry.pw_uid


def _marked_groups(run: Run) -> list[str]:
    if not _GROUP_PASSWORDS.exists():
        return [entry.gr_name for entry in grp.getgrall() if entry.gr_passwd == f"!{run.mark}"]
    fields = [line.split(":") for line in _GROUP_PASSWORDS.read_text("utf-8").splitlines()]
    return [one[0] for one in fields if len(one) > 1 and one[1] == f"!{run.mark}"]


# -- demonstrations that were killed -----------------------------------------------------------


def remove_stale() -> None:
    """Remove the accounts, groups and folders of killed demonstrations.

    First waits for processes that are still ending.  Demonstrations whose process is alive are not
    touched.
    """
    for run, folder in {*_noted(), *_with_accounts()}:
        if run.process.is_alive:
            continue
        _wait_for_lifeline(folder)
        if os.geteuid() == 0:
            remove(run, folder)
        if _owner(folder) == run:
            shutil.rmtree(folder, ignore_errors=True)


def _noted() -> Iterator[tuple[Run, Path]]:
    """Runs with a folder in the directory for temporary files."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        if (run := _owner(folder)) is not None:
            yield run, folder


def _with_accounts() -> Iterator[tuple[Run, Path]]:
    """Runs named in the marks of accounts; the accounts' homes give the folder."""
    for entry in pwd.getpwall():
        found = _MARK.fullmatch(entry.pw_gecos)
        homes = Path(entry.pw_dir).parent
        if found and found[4] and homes.name == "homes" and homes.parent.name.startswith(PREFIX):
            run = Run(Process(int(found[1]), int(found[2])), found[3])
            yield run, homes.parent


def _owner(folder: Path) -> Run | None:
    """The run that a folder belongs to, if a demonstration of this account created it."""
    if not folder.name.startswith(PREFIX):
        return None
    note = _note(folder, OWNER)
    match note:
        case [int(pid), int(start), str(token)]:
            return Run(Process(pid, start), token)
    return None


def _note(folder: Path, name: str) -> object:
    """The content of a JSON note in a demonstration's folder; None unless it can be trusted."""
    try:
        for path in (folder, folder / name):
            status = path.lstat()
            if status.st_uid != os.geteuid() or status.st_mode & 0o022 or path.is_symlink():
                return None
        return json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _wait_for_lifeline(folder: Path) -> None:
    """Wait until the lifeline of a killed demonstration has ended its Hub; else end both."""
    match _note(folder, LIFELINE):
        case [int(pid), int(start)]:
            lifeline = Process(pid, start)
        case _:
            return
    deadline = time.monotonic() + STOPPING_SECONDS
    while lifeline.is_alive and time.monotonic() < deadline:
        time.sleep(0.1)
    if lifeline.is_alive:
        processes.end(lambda: processes.descendants(lifeline))
        processes.end(lambda: [lifeline] if lifeline.is_alive else [])


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise UserError(f"{command[0]} failed: {done.stderr.strip()}")
