"""A course on a Hub: its folder, its part of the exchange, and its assignments in the gradebook.

Shared by demonstration and installation, which set the owners themselves.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from autograder.errors import UserError
from deploy.environment import ROOT

# Modes of a course's folder in the exchange and the folders below it.  The sticky bit of `inbound`
# prevents students from removing each other's submissions; pages in `feedback` can be read by name,
# but not listed.
EXCHANGE = {"": 0o750, "outbound": 0o755, "feedback": 0o711, "inbound": 0o1733}
# Runs `nbgrader generate_assignment --force` and `release_assignment --force` in one process.
# Without --force, generate_assignment skips an existing release and does not update the gradebook.
RELEASE = """
import sys
from functools import partial
from nbgrader.apps import NbGraderAPI, NbGraderApp
app = NbGraderApp()
app.load_config_file()
app.config.ExchangeReleaseAssignment.force = True
api = NbGraderAPI(config=app.config)
for assignment in sys.argv[1:]:
    for step in (partial(api.generate_assignment, force=True), api.release_assignment):
        outcome = step(assignment)
        if not outcome["success"]:
            sys.exit(outcome.get("error") or outcome["log"])
"""


def make_root(
    folder: Path,
    root: Path,
    name: str,
    exchange: Path,
    assignments: Collection[str],
    notebooks: Collection[str] = (),
    settings: str = "",
) -> None:
    """Make `folder` a course root with the sources of `assignments` and its configuration.

    Args:
        folder: the folder to fill.
        root: its final path.
        name: name of the course.
        exchange: root of the exchange.
        assignments: names of the assignments.
        notebooks: names of the notebooks to keep; empty for all.
        settings: further lines for `nbgrader_config.py`.

    """
    ignore = shutil.ignore_patterns("__pycache__", "mdc_session*", "checkpoint", "*.pyc")
    for assignment in assignments:
        source = folder / "source" / assignment
        shutil.copytree(ROOT / "source" / assignment, source, ignore=ignore)
        for path in source.glob("*.ipynb"):
            if notebooks and path.stem not in notebooks:
                path.unlink()
    configuration = (ROOT / "nbgrader_config.py").read_text(encoding="utf-8")
    configuration += (
        "\n# This Hub.\n"
        f"c.CourseDirectory.course_id = {name!r}\n"
        f"c.CourseDirectory.root = {str(root)!r}\n"
        f"c.Exchange.root = {str(exchange)!r}\n"
        f"{settings}\n"
    )
    (folder / "nbgrader_config.py").write_text(configuration, encoding="utf-8")


def give(top: Path, user: str) -> None:
    """Make a user the owner of a tree; links in it are not followed."""
    account = pwd.getpwnam(user)
    for path, folders, files in os.walk(top):
        for name in ("", *folders, *files):
            owned = os.path.join(path, name)
            os.chown(owned, account.pw_uid, account.pw_gid, follow_symlinks=False)


def account(user: str) -> dict[str, Any]:
    """Arguments for `subprocess` to run a command as this user."""
    entry = pwd.getpwnam(user)
    groups = os.getgrouplist(user, entry.pw_gid)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": groups}


def run(
    user: str,
    command: Collection[str],
    programs: Path,
    cwd: Path,
    variables: Mapping[str, str],
    as_user: bool = True,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Run a command of an environment.

    Args:
        user: name of the user.
        command: name of the program, and its arguments.
        programs: the environment's folder of programs.
        cwd: the working directory.
        variables: environment variables, besides PATH, LANG and USER.
        as_user: change to `user`, rather than running it under the current account.
        check: raise UserError if the command fails.

    """
    first, *others = command
    done = subprocess.run(
        [str(programs / first), *others],
        cwd=cwd,
        env={"PATH": f"{programs}:{os.defpath}", "LANG": "C.UTF-8", "USER": user, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        **(account(user) if as_user else {}),
    )
    if check and done.returncode != 0:
        line = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(f"{' '.join([first, *others[:1]])} as {user} failed: {line}")
    return done
