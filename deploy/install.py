"""Installs a Hub of your own, or checks an installation.

    .venv/bin/python -m deploy.install /etc/course-hub.toml            install, as root
    .venv/bin/python -m deploy.install /etc/course-hub.toml --check    check, and change nothing

It runs from a clone of the repository and installs its sources, configuration and locked
environment.  A second run changes nothing; existing accounts, folders and course files are kept.
Exit status 0: all is well; 1: the checks found a fault; 2: wrong arguments or settings.
"""

from __future__ import annotations

import argparse
import contextlib
import grp
import json
import os
import pwd
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from autograder.data import mnist
from autograder.errors import UserError
from deploy import check, courses
from deploy.environment import (
    ROOT,
    grader_environment,
    share,
    share_environment,
    share_file,
    share_interpreter,
)
from deploy.site import CourseOnSite, Place, Site


def main() -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m deploy.install", description="Set up a JupyterHub that grades courses."
    )
    parser.add_argument("settings", type=Path, help="a TOML file; deploy/example.toml is one")
    parser.add_argument("--check", action="store_true", help="change nothing, say what is wrong")
    arguments = parser.parse_args()
    try:
        if os.geteuid() != 0:
            raise UserError("this needs root: accounts, owners and modes are looked at and set")
        site = Site.read(arguments.settings.absolute())
        if not arguments.check:
            install(site)
        faults = check.look(site, say)
    except (UserError, mnist.MnistUnavailable) as error:
        print(f"deploy.install: {error}", file=sys.stderr)
        return 2
    for fault in faults:
        print(f"not as it should be: {fault}", file=sys.stderr)
    if not faults:
        print(advice(site))
    return 1 if faults else 0


def say(line: str) -> None:
    """Print a line about the progress."""
    print(line, flush=True)


def advice(site: Site) -> str:
    """How to start the Hub."""
    by_hand = f"cd {site.state} && COURSE_HUB={site.description} {shlex.join(site.start)}"
    return (
        f"all is well; start the Hub with\n\n    systemctl enable --now {site.unit}\n\n"
        f"or, where there is no systemd, as root with\n\n    {by_hand}\n\n"
        f"It answers at {site.url}. After a change of the settings run this again, and restart it."
    )


def install(site: Site) -> None:
    """Install everything that is missing or out of date.

    Raises UserError if an account, folder or environment of somebody else is in the way.
    """
    if not (Path(sys.prefix) / "bin" / "jupyterhub-singleuser").exists():
        raise UserError("run this with the clone's .venv/bin/python, which `make setup` makes")
    os.umask(0o022)
    make_accounts(site)
    for place in site.places():
        bring(place)
    make_environments(site)
    replace_tree(
        site.kit / "deploy",
        lambda new: share(ROOT / "deploy", new, ["__pycache__"], link=False),
        digest_of(ROOT / "deploy"),
    )
    found = mnist.fetch(say=lambda line: None)
    for name in mnist.FILES:
        if not (site.mnist / name).exists():
            share_file(found / name, site.mnist / name)
    for course in site.courses:
        make_course(site, course)
    write(site.description, json.dumps(site.place(), indent=1) + "\n", 0o600)
    write(site.unit, site.unit_text(), 0o644)


# -- accounts and groups -----------------------------------------------------------------------


def make_accounts(site: Site) -> None:
    """Create missing accounts and groups, and add missing members."""
    for course in site.courses:
        for name in (course.grader, *course.people):
            make_account(name, Path(site.homes))
        make_group(course.group, (course.grader, *course.people))
    make_group(site.graders, [course.grader for course in site.courses])


def make_account(name: str, homes: Path) -> None:
    """Create an account with a private home and without a password, unless it exists.

    Raises UserError if the account is root, or if the home of a new account exists already.
    """
    try:
        if pwd.getpwnam(name).pw_uid == 0:
            raise UserError(f"the account {name} is root under another name")
    except KeyError:
        say(f"account {name}")
        home = homes / name
        if os.path.lexists(home):
            raise UserError(f"there is no account {name}, but {home} is there") from None
        command("useradd", "--user-group", "--create-home", "--home-dir", str(home),
                "--shell", "/bin/bash", name)  # fmt: skip
        home.chmod(0o700)


def make_group(name: str, members: list[str] | tuple[str, ...]) -> None:
    """Create a group if it is missing, and add missing members."""
    try:
        present = set(grp.getgrnam(name).gr_mem)
    except KeyError:
        say(f"group {name}")
        command("groupadd", name)
        present = set()
    for member in dict.fromkeys(members):
        if member not in present:
            command("gpasswd", "--add", member, name)


# -- environments --------------------------------------------------------------------------------


def make_environments(site: Site) -> None:
    """Make the students' environment, and the graders' on top of it."""
    students = site.students_environment
    if not (students / "bin" / "jupyterhub-singleuser").exists() and students != site.shared:
        raise UserError(f"{students} is no environment with JupyterHub in it")

    def shared(new: Path) -> None:
        say("the environment (a copy of this one, by links where that is safe)")
        python = site.folder / "python"
        shutil.rmtree(python, ignore_errors=True)
        share_environment(new, share_interpreter(python))

    locked = digest(sys.version, sys.prefix, (ROOT / "requirements.txt").read_bytes())
    replace_tree(site.shared, shared, locked, in_place=True)

    def graders(new: Path) -> None:
        say("the environment of graders")
        for entry in list(new.iterdir()):
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        python = grader_environment(new, site.shared)
        command(str(python), "-m", "compileall", "-q", str(new / "kit"))

    kit = digest(locked, digest_of(ROOT / "autograder"))
    replace_tree(site.graders_environment, graders, kit, in_place=True, keep=True)


def replace_tree(
    target: Path,
    make: Callable[[Path], object],
    stamp: str,
    in_place: bool = False,
    keep: bool = False,
) -> None:
    """Rebuild a tree that belongs to root, unless its stamp is current.

    Args:
        target: path of the tree.
        make: fills the folder that it is given.
        stamp: digest of everything that the tree depends on.
        in_place: build the tree at its final path, which its files contain; the tree is then
            missing meanwhile.
        keep: keep the folder itself, with its owner and mode.

    """
    note = target.with_name(f".{target.name}.stamp")
    if target.is_dir() and note.exists() and note.read_text("utf-8") == stamp:
        return
    note.unlink(missing_ok=True)
    new = target if in_place else target.with_name(f".{target.name}.new")
    if not keep:
        shutil.rmtree(new, ignore_errors=True)
    make(new)
    if not in_place:
        shutil.rmtree(target, ignore_errors=True)
        new.rename(target)
    note.write_text(stamp, "utf-8")


# -- courses ---------------------------------------------------------------------------------------


def make_course(site: Site, course: CourseOnSite) -> None:
    """Make a course's root and its part of the exchange, with its assignments in both."""
    root = site.root(course)
    if not root.exists():
        say(f"course {course.name}")
        # Root fills a private folder, and hands it over when it is complete.
        new = root.with_name(f".{course.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        courses.make_root(new, root, course.name, site.exchange, course.assignments)
        courses.give(new, course.grader)
        new.rename(root)
    for place in site.places_of(course):
        bring(place)
    missing = [name for name in course.assignments if not check.is_known(site, course, name)]
    if missing:
        say(f"course {course.name}: {', '.join(missing)}")
        check.as_grader(site, course, "python", "-c", courses.RELEASE, *missing)


# -- files -----------------------------------------------------------------------------------------


def bring(place: Place) -> None:
    """Create a folder, or correct its owner, group and mode.

    Raises UserError if it is not a folder, or belongs to somebody else.
    """
    owner, group = pwd.getpwnam(place.owner).pw_uid, grp.getgrnam(place.group).gr_gid
    try:
        place.path.mkdir(mode=0o700)
    except FileNotFoundError as error:
        raise UserError(f"{place.path.parent} is not there") from error
    except FileExistsError:
        if place.path.lstat().st_uid not in (0, owner):
            raise UserError(f"{place.path} is there already, and somebody else's") from None
    # Use a descriptor, so that nothing that replaces the folder meanwhile is touched.
    try:
        held = os.open(place.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        raise UserError(f"{place.path} is no folder") from error
    try:
        status = os.fstat(held)
        if status.st_uid not in (0, owner):
            raise UserError(f"{place.path} is somebody else's")
        if (status.st_uid, status.st_gid) != (owner, group):
            os.fchown(held, owner, group)
        if stat.S_IMODE(status.st_mode) != place.mode:
            os.fchmod(held, place.mode)
    finally:
        os.close(held)


def write(path: Path, text: str, mode: int) -> None:
    """Write a file atomically, unless it already has this content and mode."""
    with contextlib.suppress(FileNotFoundError):
        if path.read_text("utf-8") == text and stat.S_IMODE(path.stat().st_mode) == mode:
            return
    half = path.with_name(f".{path.name}.new")
    half.unlink(missing_ok=True)
    half.touch(mode=0o600)
    half.write_text(text, encoding="utf-8")
    half.chmod(mode)
    half.replace(path)


def digest(*parts: str | bytes) -> str:
    """A SHA-256 digest of all parts, as hexadecimal digits."""
    found = sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        found.update(len(data).to_bytes(8, "big") + data)
    return found.hexdigest()


def digest_of(folder: Path) -> str:
    """A digest of the names and contents of all files in a folder, without caches."""
    parts: list[str | bytes] = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not {"__pycache__", "mnist"} & set(path.parts):
            parts += [str(path.relative_to(folder)), path.read_bytes()]
    return digest(*parts)


def command(*words: str) -> None:
    """Run a system command.  Raises UserError if it fails."""
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        raise UserError(f"{words[0]} failed: {done.stderr.strip()}")


if __name__ == "__main__":
    sys.exit(main())
