"""Environments for running the kit: installed from a wheel, below private folders, and on machines
that forbid the system calls of the sandbox.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from support.submissions import ROOT

# Without pip's settings and without PYTHONPATH.
CLEAN = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}

# Forbids some system calls, then executes a program.
_FORBIDDING = """
import errno, os, sys
import pyseccomp as seccomp
rules = seccomp.SyscallFilter(seccomp.ALLOW)
for name in sys.argv[1].split(","):
    rules.add_rule(seccomp.ERRNO(errno.EPERM), name)
    if name == "seccomp":  # its older way, PR_SET_SECCOMP
        rules.add_rule(seccomp.ERRNO(errno.EPERM), "prctl", seccomp.Arg(0, seccomp.EQ, 22))
rules.load()
os.execvp(sys.argv[2], sys.argv[2:])
"""
NAMESPACES = "unshare"  # without this call there are no namespaces, as in many containers


def forbidding(*calls: str, python: str | Path = sys.executable) -> list[str]:
    """A command prefix under which these system calls are forbidden."""
    return [str(python), "-c", _FORBIDDING, ",".join(calls)]


def linked(source: Path, target: Path) -> None:
    """Copy a tree by hard links, or by content where that fails; symbolic links are kept."""

    def link(one: str, other: str) -> None:
        try:
            os.link(one, other, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EMLINK, errno.EPERM):
                raise
            shutil.copy2(one, other, follow_symlinks=False)

    shutil.copytree(source, target, symlinks=True, copy_function=link)


def installed_from_wheel(folder: Path) -> Path:
    """Copy this environment to `folder`, install the kit in it with pip; return its Python."""
    linked(Path(sys.prefix), folder)
    python = folder / "bin" / "python"
    sources = folder / "sources"
    sources.mkdir()
    unwanted = shutil.ignore_patterns("__pycache__", "mnist", "*.egg-info")
    for name in ("autograder", "data"):
        shutil.copytree(ROOT / name, sources / name, symlinks=True, ignore=unwanted)
    shutil.copy(ROOT / "pyproject.toml", sources)
    wheels = folder / "wheels"
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input"]
    pip: list[str | Path] = [python, "-m", "pip", *quiet]
    commands: list[list[str | Path]] = [
        ["wheel", "--no-build-isolation", "--wheel-dir", wheels, sources],
        ["install", "--force-reinstall", "--no-index", "--find-links", wheels, "autograder"],
    ]
    for command in commands:
        subprocess.run([*pip, *command, "--no-deps"], check=True, env=CLEAN)
    shutil.rmtree(wheels)
    shutil.rmtree(sources)
    return python


def reachable(folder: Path, paths: Iterable[Path]) -> list[str]:
    """Shell commands that let every account reach `paths`, to be run in a new mount namespace.

    They may create folders in `folder`, which must be outside the closed ones.
    """
    below = [path for path in map(_in_root, paths) if path is not None]
    if not below:
        return []
    lines = []
    for number, path in enumerate(below):
        view = folder / f"view{number}"
        lines += [f"mkdir -p {view}", f"mount --bind {path} {view}"]
    lines += ["mount -t tmpfs -o mode=755 tmpfs /root"]
    for number, path in enumerate(below):
        lines += [f"mkdir -p {path}", f"mount --bind {folder}/view{number} {path}"]
    return lines


def _in_root(path: Path) -> Path | None:
    real = path.resolve()
    return real if real.is_relative_to("/root") else None
