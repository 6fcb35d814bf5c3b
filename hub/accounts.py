"""Unix accounts that live as long as a demonstration, and everything that runs under them.

An account's comment names the demonstration it belongs to, so that one that was killed is
cleaned up by the next.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from autograder.errors import UserError

MARK = "course-hub"
PREFIX = "course-hub-"  # of the folders of demonstrations
GROUP_PREFIX = "course-"


def create(names: Iterable[str], groups: Mapping[str, Iterable[str]], folder: Path) -> None:
    """Make an account for each name, with a private home below `folder`/homes, and the groups.

    groups: members by group.  Raises UserError when an account or a group is there already: it
    is somebody's.
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
        comment = f"{MARK} {os.getpid()} {folder}"
        _run("useradd", "--no-create-home", "--user-group", "--shell", "/bin/bash",
             "--home-dir", str(homes / name), "--comment", comment, name)  # fmt: skip
        home = homes / name
        home.mkdir(mode=0o700)
        shutil.chown(home, name, name)
    for group, members in groups.items():
        _run("groupadd", group)
        _run("gpasswd", "--members", ",".join(members), group)


def remove(names: Iterable[str]) -> None:
    """End everything that runs under these accounts, and delete them and groups of them alone."""
    names = set(names)
    groups = [g.gr_name for g in grp.getgrall() if _is_theirs(g, names)]
    present = [name for name in names if _uid(name) is not None]
    end_processes({uid for name in present if (uid := _uid(name)) is not None})
    for name in present:
        _run("userdel", name)
    for group in groups:
        _run("groupdel", group)


def _is_theirs(group: grp.struct_group, names: set[str]) -> bool:
    members = set(group.gr_mem)
    return group.gr_name.startswith(GROUP_PREFIX) and bool(members) and members <= names


def remove_stale() -> None:
    """Remove the accounts and folders of demonstrations that were killed."""
    stale: dict[Path, list[str]] = {}
    for entry in pwd.getpwall():
        mark, _, rest = entry.pw_gecos.partition(" ")
        pid, _, folder = rest.partition(" ")
        if mark == MARK and pid.isdigit() and not Path(f"/proc/{pid}").exists():
            stale.setdefault(Path(folder), []).append(entry.pw_name)
    for place, names in stale.items():
        remove(names)
        if place.name.startswith(PREFIX) and not place.is_symlink():
            shutil.rmtree(place, ignore_errors=True)


def end_processes(uids: set[int], seconds: float = 10) -> None:
    """Kill every process of these users.  Raises UserError when one does not end in time."""
    deadline = time.monotonic() + seconds
    while running := _processes(uids):
        if time.monotonic() > deadline:
            raise UserError(f"processes {running} do not end")
        for pid in running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _processes(uids: set[int]) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and entry.stat().st_uid in uids:
                status = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if status not in "ZX":
                    found.append(int(entry.name))
    return found


def _uid(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise UserError(f"{command[0]} failed: {done.stderr.strip()}")
