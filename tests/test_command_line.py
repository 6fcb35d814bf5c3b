"""The command line: help is complete, and errors are one line."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import nbformat
import pytest
import typer
from typer.core import TyperGroup

from autograder import cli
from autograder.errors import nearest
from support.submissions import ASSIGNMENT, NOTEBOOKS, ROOT

_group = typer.main.get_command(cli.app)
assert isinstance(_group, TyperGroup)
KNOWN = _group.commands
COMMANDS = sorted(KNOWN)


def run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run the command on a terminal of 80 columns."""
    return subprocess.run(
        ["autograder", *arguments],
        cwd=cwd,
        env={**os.environ, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=120,
    )


# --- help ---


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_is_whole_at_80_columns(command: str) -> None:
    done = run(*filter(None, [command]), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 80
    # No text is truncated; dots after a bracket mean "one or more".
    assert not re.search(r"…|[^]}]\.\.\.$", done.stdout, re.M)
    assert "``" not in done.stdout  # no raw reStructuredText
    assert ":class:" not in done.stdout
    shown = KNOWN[command].params if command else []
    for option in (name for p in shown for name in p.opts if name.startswith("--")):
        assert re.search(rf"(?<!\S){option}\b", done.stdout)
    for name in [] if command else COMMANDS:
        assert re.search(rf"^  {name} +\w.*\.$", done.stdout, re.M)


# --- wrong calls ---

WRONG = {
    (): ("Missing command", "autograder --help"),
    ("grad", ASSIGNMENT): ("Did you mean 'grade'?", "autograder --help"),
    ("--bad",): ("No such option: --bad", "autograder --help"),
    ("grade",): ("Missing argument 'ASSIGNMENT'", "autograder grade --help"),
    ("grade", ASSIGNMENT, "more"): ("(more)", "autograder grade --help"),
    ("grade", ASSIGNMENT, "--job", "3"): ("--jobs", "autograder grade --help"),
    ("grade", ASSIGNMENT, "--jobs", "0"): ("'--jobs'", "autograder grade --help"),
    ("grade", ASSIGNMENT, "--jobs", "many"): ("'--jobs'", "autograder grade --help"),
    ("grade", ASSIGNMENT, "--jobs", "9" * 20): ("'--jobs'", "autograder grade --help"),
    ("grade", ASSIGNMENT, "--job\n\x1b[2J"): ("No such option", "autograder grade --help"),
    ("export", ASSIGNMENT): ("Missing option '--to'", "autograder export --help"),
    ("export", ASSIGNMENT, "--to"): ("'--to'", "autograder --help"),
    ("release",): ("Missing argument 'ASSIGNMENT'", "autograder release --help"),
    ("audit",): ("Missing argument 'ASSIGNMENT'", "autograder audit --help"),
    ("data", "more"): ("(more)", "autograder data --help"),
    ("doctor", "--course"): ("'--course'", "autograder --help"),
    ("demo", "more"): ("(more)", "autograder demo --help"),
}


@pytest.mark.parametrize("call", WRONG, ids=" ".join)
def test_a_wrong_call_is_one_line_that_says_where_to_look(call: tuple[str, ...]) -> None:
    done = run(*call)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    what, where = WRONG[call]
    assert line.startswith("autograder: ")
    assert what in line
    assert line.endswith(f"; see `{where}`")


# --- misspelled names ---


@pytest.mark.parametrize("command", ["grade", "release", "audit"])
def test_a_name_of_several_lines_is_answered_in_one(command: str) -> None:
    done = run(command, "ch4\ncnn\x1b[2J")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "ch4 cnn" in line
    assert line.isprintable()


@pytest.mark.parametrize(
    "call",
    [
        ("grade", "ch4-cn"),
        ("release", "ch4-cn"),
        ("export", "ch4-cn", "--to", "moodle"),
        ("audit", "ch4-cn"),
    ],
    ids=lambda call: call[0],
)
def test_a_misspelled_assignment_names_those_that_exist(
    call: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "nbgrader_config.py").write_text("c = get_config()\n", "utf-8")
    for name in ("intro", ASSIGNMENT, "ch5-rnn"):
        folder = tmp_path / ("source" if name == "intro" else "release") / name
        folder.mkdir(parents=True)
        (folder / "1.ipynb").write_text("{}", "utf-8")
    (tmp_path / "release" / "empty").mkdir()
    done = run(*call, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"autograder: there is no assignment ch4-cn in {tmp_path}; "
        f"there is {ASSIGNMENT}, ch5-rnn, intro\n"
    )


def test_a_misspelled_notebook_or_student_names_those_that_exist(tmp_path: Path) -> None:
    done = run("audit", ASSIGNMENT, "--notebook", "mnist-training")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert f"has no notebook mnist-training; it has {NOTEBOOKS[3]}, " in line
    (tmp_path / "nbgrader_config.py").write_text("c = get_config()\n", "utf-8")
    (tmp_path / "release" / ASSIGNMENT).mkdir(parents=True)
    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "release" / ASSIGNMENT / "1.ipynb")
    for name in ("bob", "ada"):
        (tmp_path / "submitted" / name / ASSIGNMENT).mkdir(parents=True)
    done = run("grade", ASSIGNMENT, "--student", "ade", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        2,
        f"autograder: ade has handed in nothing for {ASSIGNMENT}; there is work of ada, bob\n",
    )


def test_of_many_names_the_nearest_are_told() -> None:
    names = [f"homework-{i}" for i in range(9)]
    assert nearest("Homework-7", names, most=2) == "homework-7, homework-0 …"
