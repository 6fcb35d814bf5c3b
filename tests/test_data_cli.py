"""`autograder data` and `autograder doctor`: what they print, and when they refuse."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from autograder.data import mnist
from support.submissions import ROOT

pytestmark = pytest.mark.course


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the course root; its output lines are not wrapped."""
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "400", **environment},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def digits() -> Path:
    """The folder with the four files of MNIST."""
    return mnist.fetch()


def test_data_says_where_both_data_sets_are(digits: Path) -> None:
    done = run("autograder", "data", MNIST_DIR=str(digits))
    assert (done.returncode, done.stderr) == (0, "")
    *_, digits_line, strokes_line = done.stdout.splitlines()
    assert digits_line == f"MNIST: {digits}"
    assert strokes_line == f"ORENIST: 90 images in {ROOT / 'data' / 'ORENIST.data'}"


def test_data_refuses_a_folder_without_the_files(tmp_path: Path) -> None:
    done = run("autograder", "data", MNIST_DIR=str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"autograder: MNIST_DIR is {tmp_path}, but train-images-idx3-ubyte")


def test_doctor_says_what_this_machine_can_do(digits: Path) -> None:
    done = run("autograder", "doctor", MNIST_DIR=str(digits))
    rows = dict(line.strip().split(maxsplit=1) for line in done.stdout.splitlines())
    assert rows["course"] == str(ROOT)
    assert rows["python"] == platform.python_version()
    for package in ("tensorflow", "numpy", "nbgrader", "jupyterlab", "pytest"):
        assert rows[package] == importlib.metadata.version(package)
    assert rows["MNIST"] == str(digits)
    layers = [rows["namespaces"], rows["landlock"]]
    confined = [row for row in layers if not row.startswith("refused: ")]
    assert all("seccomp" in row for row in confined)
    if confined:
        assert (done.returncode, done.stderr) == (0, "")
    else:
        assert done.returncode == 2
        assert done.stderr.startswith("autograder: this machine cannot confine student code")


def test_doctor_says_what_is_wrong_with_the_data(tmp_path: Path) -> None:
    said = run("autograder", "doctor", MNIST_DIR=str(tmp_path)).stdout
    assert f"MNIST_DIR is {tmp_path}, but train-images-idx3-ubyte is missing" in said


def test_doctor_refuses_a_folder_that_is_no_course(tmp_path: Path) -> None:
    done = run("autograder", "doctor", "--course", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith(f"autograder: {tmp_path} is no course")


def test_an_installed_kit_keeps_digits_where_its_user_may_write(tmp_path: Path) -> None:
    """A wheel's folder may be read-only, and the next installation replaces it."""
    kit = tmp_path / "kit"
    unwanted = shutil.ignore_patterns("mnist", "__pycache__")
    shutil.copytree(ROOT / "autograder", kit / "autograder", ignore=unwanted)
    code = "from autograder.data import mnist; print(mnist.__file__, mnist.CACHE)"
    wanted = {
        "HOME": f"{tmp_path}/.cache/autograder/mnist",
        "XDG_CACHE_HOME": f"{tmp_path}/autograder/mnist",
    }
    for name, place in wanted.items():
        environment = {"PYTHONPATH": str(kit), "HOME": str(tmp_path / "no"), name: str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-P", "-c", code], env=environment, capture_output=True, text=True
        )
        assert done.stdout.split() == [str(kit / "autograder/data/mnist.py"), place], done.stderr


def test_data_says_in_one_line_that_there_is_no_place_for_it(tmp_path: Path) -> None:
    kit = tmp_path / "kit"
    unwanted = shutil.ignore_patterns("mnist", "__pycache__", "ORENIST.data")
    shutil.copytree(ROOT / "autograder", kit / "autograder", ignore=unwanted)
    (tmp_path / "home").touch()  # a file, in which not even root can create a folder
    environment = {"PYTHONPATH": str(kit), "HOME": str(tmp_path / "home"), "MNIST_DIR": ""}
    done = run("python", "-P", "-m", "autograder", "data", **environment)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"autograder: MNIST cannot be kept in {tmp_path}/home/.cache/autograder")
    assert "set MNIST_DIR" in line
    environment["MNIST_DIR"] = str(mnist.fetch())
    done = run("python", "-P", "-m", "autograder", "data", **environment)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("autograder: ORENIST cannot be read, install the kit again: ")
