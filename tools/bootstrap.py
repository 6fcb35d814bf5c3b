"""Sets up the environment and starts a command in it; needs nothing but Python itself.

The environment is `.venv` in the course root, made from the hash-locked requirements.txt, and
made again when that file changes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "kit-stamp"
SERVER_CONFIGURATION = VENV / "etc" / "jupyter" / "jupyter_server_config.d"
WANTED = (3, 11)

STYLE = [["-m", "ruff", "check", "."], ["-m", "ruff", "format", "--check", "."], ["-m", "mypy"]]
# Two files at a time, in the order of their names: those with few tests take longest.
PYTEST = ["-m", "pytest", "-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]

COMMANDS = {
    "setup": ("make the environment in .venv", []),
    "demo": (
        "grade three example submissions and show their scores",
        [["-m", "autograder", "demo"]],
    ),
    "hub": (
        "show the course on a JupyterHub, until Ctrl-C",
        [["-m", "deploy"]],
    ),
    "quick": (
        "lint, check types, run the tests that start no kernel",
        [*STYLE, [*PYTEST, "-m", "not (kernel or training or course or hub or browser)"]],
    ),
    "test": (
        "lint, check types, run all tests, grade the grader of notebook 1",
        [
            *STYLE,
            PYTEST,
            # The other notebooks take an hour; that docs/validity.md was written by an audit of
            # just these checks and this engine is tested.
            ["-m", "autograder", "audit", "ch4-cnn", "--notebook", "1-orenist-filter"],
        ],
    ),
    "audit": (
        "grade the grader of every notebook",
        [["-m", "autograder", "audit", "ch4-cnn"]],
    ),
    "matrix": (
        "grade on Python 3.12 and 3.13, where these are installed (3 GB each)",
        [["tests/pythons.py"]],
    ),
    "colab": (
        "run the notebooks on a machine like Colab's, where Python 3.12 is installed (3 GB)",
        [["tests/on_colab.py"]],
    ),
    "bench": (
        "measure how fast grading is, against stock nbgrader",
        [["-m", "benchmarks"]],
    ),
    "docs": (
        "build the documentation's pages in docs/_build/html",
        # -E: a page that was read before would not repeat its warnings.
        [["-m", "sphinx", "-E", "-n", "-W", "--keep-going", "-q", "docs", "docs/_build/html"]],
    ),
    "release": (
        "regenerate release/ and solutions/ from source/",
        [["-m", "autograder", "release", "ch4-cnn"]],
    ),
    "regen": (
        "regenerate release/, solutions/ and the pages and pictures of docs/ that scripts make",
        [
            ["-m", "autograder", "release", "ch4-cnn"],
            ["docs/make_architecture.py"],
            ["docs/make_figures.py"],
        ],
    ),
}


class SetupError(Exception):
    """The environment cannot be made; one line that says why and what to do."""


def stamp() -> str:
    """What the environment depends on."""
    digest = hashlib.sha256(sys.version.encode())
    for name in ("requirements.txt", "pyproject.toml"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def ensure_environment() -> None:
    """Make `.venv` unless it is there and current.  Raises SetupError."""
    wanted = stamp()
    if PYTHON.exists() and STAMP.exists() and STAMP.read_text() == wanted:
        return
    if Path(sys.prefix).resolve() == VENV.resolve():
        raise SetupError(
            ".venv is out of date and in use by this shell; "
            "run `deactivate` and try again, and it is made anew"
        )
    print("setting up .venv (once; TensorFlow is large, this takes a few minutes)", flush=True)
    if VENV.exists():
        shutil.rmtree(VENV)
    pip = make_venv()
    run(
        [*pip, "install", "--require-hashes", "-r", "requirements.txt"],
        "installing requirements.txt failed; is a package index reachable?",
    )
    run(
        [*pip, "install", "--no-deps", "--no-build-isolation", "-e", "."],
        "installing the autograder itself failed",
    )
    # A wheel brings it along; an editable installation leaves such files out.
    shutil.copy(ROOT / "autograder" / "record" / "autograder-formgrader.json", SERVER_CONFIGURATION)
    STAMP.write_text(wanted)


def ensure_browser() -> None:
    """Install Chromium for the tests that need a browser, where that is possible."""
    if shutil.which("chromium") or os.geteuid() != 0 or not shutil.which("apt-get"):
        return  # the tests say what is missing
    print("installing Chromium for the tests (once)", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "--yes", "--no-install-recommends", "chromium"]):
        done = subprocess.run(["apt-get", "-qq", *command], env=environment, capture_output=True)
        if done.returncode != 0:
            raise SetupError(
                f"apt-get {command[0]} failed; install Debian's package chromium and try again"
            )


def make_venv() -> list[str]:
    """Make an empty `.venv`; the command line of a pip that installs into it."""
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input"]
    made = subprocess.run([sys.executable, "-m", "venv", VENV], capture_output=True, text=True)
    if made.returncode == 0:
        return [str(PYTHON), "-m", "pip", *quiet]
    # Debian splits pip off the standard library; a pip installed elsewhere can serve.
    shutil.rmtree(VENV, ignore_errors=True)
    run([sys.executable, "-m", "venv", "--without-pip", VENV], "python cannot make .venv")
    pip = shutil.which("pip3") or shutil.which("pip")
    if pip is None:
        raise SetupError("pip is missing; install it (on Debian: apt install python3-venv)")
    return [pip, "--python", str(PYTHON), *quiet]


def run(command: list[str | Path], on_failure: str) -> None:
    """Run a command in the course root.  Raises SetupError with `on_failure`."""
    if subprocess.run(command, cwd=ROOT).returncode != 0:
        raise SetupError(on_failure)


def main(arguments: list[str]) -> int:
    """Start the command named by the only argument; its exit status."""
    name = arguments[0] if len(arguments) == 1 else "help"
    if name not in COMMANDS:
        for other, (purpose, _) in COMMANDS.items():
            print(f"make {other:8} {purpose}")
        return 0 if name == "help" else 2
    if sys.version_info < WANTED:
        print("bootstrap: Python 3.11 or newer is needed; name one with PYTHON=", file=sys.stderr)
        return 2
    try:
        ensure_environment()
        if name == "test":
            ensure_browser()
    except SetupError as error:
        print(f"bootstrap: {error}", file=sys.stderr)
        return 2
    environment = {**os.environ, "PATH": f"{VENV / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    for command in COMMANDS[name][1]:
        print("·", *command[1:], flush=True)
        status = wait_for(subprocess.Popen([PYTHON, *command], cwd=ROOT, env=environment))
        if status != 0:
            return status if status > 0 else 128 - status
    return 0


def wait_for(process: subprocess.Popen[bytes]) -> int:
    """The exit status of a command, which ends in its own way when Ctrl-C reaches it as well."""
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
