"""Runs the matrix of machines on other Pythons: `make matrix`, or this file with their versions.

Each Python gets its own environment (3 GB) in `.cache/`, from the same hash-locked
requirements.txt; it is kept.  A Python that is not installed is reported and skipped.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = ("3.12", "3.13")  # besides 3.11, on which all tests run


def find(version: str) -> str | None:
    """The executable of this Python version, on the path or among pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path("~/.pyenv").expanduser())
    installed = sorted((pyenv / "versions").glob(f"{version}.*/bin/python{version}"))
    for program in [shutil.which(f"python{version}"), *map(str, reversed(installed))]:
        # A shim of pyenv's may fail because the version is not selected.
        if program and subprocess.run([program, "-c", ""], capture_output=True).returncode == 0:
            return program
    return None


def environment(name: str, program: str, requirements: Path, *, kit: bool = False) -> Path:
    """The Python of an environment for `program`, which is made unless it is current.

    With `kit`, the kit itself is installed in it.
    """
    folder = ROOT / ".cache" / name
    python, stamp = folder / "bin" / "python", folder / "kit-stamp"
    wanted = hashlib.sha256(subprocess.check_output([program, "-VV"]))
    for path in [requirements, ROOT / "pyproject.toml"] if kit else [requirements]:
        wanted.update(path.read_bytes())
    if stamp.exists() and stamp.read_text() == wanted.hexdigest():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input"]
    pip: list[str | Path] = [python, "-m", "pip", *quiet]
    commands: list[list[str | Path]] = [
        [program, "-m", "venv", folder],
        [*pip, "install", "--require-hashes", "-r", requirements],
    ]
    if kit:
        commands.append([*pip, "install", "--no-deps", "--no-build-isolation", "-e", ROOT])
    for command in commands:
        subprocess.run(command, cwd=ROOT, check=True)
    stamp.write_text(wanted.hexdigest())
    return python


def main(versions: list[str]) -> int:
    """Run the matrix; return 0 if it passed on every installed Python."""
    failed = []
    for version in versions:
        program = find(version)
        if program is None:
            print(f"Python {version} is not installed: nothing is known about it", flush=True)
            continue
        print(f"Python {version}: {program}", flush=True)
        try:
            locked = ROOT / "requirements.txt"
            python = environment(f"python-{version}", program, locked, kit=True)
        except subprocess.CalledProcessError as error:
            print(f"Python {version}: {error}", file=sys.stderr)
            failed.append(version)
            continue
        path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
        options = ["-q", "-p", "no:cacheprovider", "tests/test_matrix.py"]
        tests: list[str | Path] = [python, "-m", "pytest", *options]
        done = subprocess.run(tests, cwd=ROOT, env={**os.environ, "PATH": path})
        failed += [version] * (done.returncode != 0)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(VERSIONS)))
