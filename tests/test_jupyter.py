"""Everything that Jupyter and Colab allow in a cell works in grading, or says why it cannot."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook

from autograder.engine.grade import Graded, Job, grade_notebook
from autograder.engine.notebook import grade_id, solved
from autograder.engine.run import NotebookRun
from autograder.engine.sandbox import Sandbox
from autograder.kernel import isolate
from support.submissions import ASSIGNMENT, NOTEBOOKS, ROOT, max_points, source

FILTERS = NOTEBOOKS[0]
RELEASE, SOURCE = ROOT / "release" / ASSIGNMENT, ROOT / "source" / ASSIGNMENT
Run = Callable[..., tuple[list[str], NotebookRun]]


@pytest.fixture
def run(place: Sandbox, tmp_path: Path) -> Run:
    """Run cells; return what each prints or raises, and the run."""

    def go(*sources: str) -> tuple[list[str], NotebookRun]:
        notebook = new_notebook(cells=[new_code_cell(each) for each in sources])
        with NotebookRun(notebook, tmp_path, sandbox=place, environment={}, seconds=30) as done:
            done.finish()
        return [said(cell) for cell in notebook.cells], done

    return go


def said(cell: NotebookNode) -> str:
    parts = [o.get("text", "") or f"{o.get('ename')}: {o.get('evalue')}" for o in cell.outputs]
    return "".join(parts)


def test_shell_lines_run_without_a_terminal_and_the_cell_goes_on(run: Run) -> None:
    told, done = run(
        "name = 'of a file'\n!echo > '{name}'\n!ls\nx = 1\nprint(x)",
        "found = !echo one; echo two\nprint(found)",
        "!exit 3\nprint(_exit_code)",
        "%%bash\necho three",
        "!no-such-command\nprint('goes on')",
        '!read line; echo "[$line]"',
    )
    assert told[0] == "of a file\n1\n"
    assert told[1:4] == ["['one', 'two']\n", "3\n", "three\n"]
    assert told[4].endswith("not found\ngoes on\n")
    assert told[5] == "[]\n"
    assert done.notes == []


@pytest.mark.parametrize(
    "line",
    [
        *("!pip install -q numpy no-such-thing==2", "%pip install numpy no-such-thing"),
        *(
            "!python -m pip install --upgrade no-such-thing numpy",
            "!sudo pip3 install no-such-thing",
        ),
        "%conda install -y no-such-thing",
    ],
)
def test_an_installer_says_in_one_line_what_is_here(run: Run, line: str) -> None:
    told, _ = run(f"{line}\nprint('goes on')", "print('here')")
    assert told[0].count("\n") == 2
    first, second = told[0].splitlines()
    assert ": there is no network where notebooks are graded; here are " in first
    assert "numpy 2." in first or "numpy 1." in first
    assert "tensorflow 2." in first
    assert first.endswith("; not here: no-such-thing")
    assert (second, told[1]) == ("goes on", "here\n")


def test_what_is_here_counts_as_installed(run: Run) -> None:
    told, _ = run("!pip install -U 'numpy>=1' matplotlib\nprint(_exit_code)")
    assert told[0].endswith("\n0\n")
    assert "not here" not in told[0]


@pytest.mark.parametrize("end", ["quit()", "exit()", "import sys; sys.exit()"])
def test_ending_a_notebook_ends_the_cell(run: Run, end: str) -> None:
    told, done = run("x = 1", f"{end}\nx = 2", "print(x)", "print('last')")
    assert told[1].startswith("SystemExit")
    assert told[2:] == ["1\n", "last\n"]
    assert done.notes == [
        "quit(), exit() or sys.exit() ended a cell early, in cell number 2",
    ]


def test_a_kernel_is_not_shut_down_from_inside(run: Run) -> None:
    told, _ = run("get_ipython().kernel.do_shutdown(True)", "import time\ntime.sleep(1)\nprint(3)")
    assert told[1] == "3\n"


@pytest.mark.parametrize("gui", ["widget", "notebook", "qt", "tk", "ipympl"])
def test_figures_are_drawn_whatever_window_was_asked_for(run: Run, gui: str) -> None:
    told, _ = run(
        f"%matplotlib {gui}\nimport matplotlib.pyplot as plt\nfig = plt.figure()\nprint(fig.axes)"
    )
    assert told[0].startswith(f"There is no screen here: %matplotlib {gui} draws as %matplotlib in")
    assert "[]\n" in told[0]


@pytest.mark.parametrize(
    "session",
    [
        "tf.Session()",
        "tf.InteractiveSession()",
        "tf.Session(config=tf.ConfigProto(log_device_placement=False))",
    ],
)
def test_what_names_a_gpu_runs_without_one(run: Run, session: str) -> None:
    told, _ = run(
        "import tensorflow.compat.v1 as tf\ntf.disable_v2_behavior()\n"
        "with tf.device('/GPU:0'):\n    x = tf.Variable(2.0) * tf.constant(3.0)\n"
        f"sess = {session}\nsess.run(tf.global_variables_initializer())\nprint(sess.run(x))"
    )
    assert "6.0\n" in told[0]


# -- in a notebook of the chapter ----------------------------------------------------------------


@pytest.fixture
def grade(place: Sandbox, tmp_path: Path) -> Callable[[Callable[[NotebookNode], None]], Graded]:
    """Grade the solved first notebook after a change."""

    def graded(change: Callable[[NotebookNode], None]) -> Graded:
        if place.level == isolate.LANDLOCK:
            pytest.skip("once is enough")
        shutil.copytree(RELEASE, tmp_path, dirs_exist_ok=True)
        notebook = solved(source(FILTERS))
        change(notebook)
        nbformat.write(notebook, tmp_path / f"{FILTERS}.ipynb")
        job = Job(ASSIGNMENT, FILTERS, tmp_path, RELEASE, SOURCE, b"any secret", sandbox=place)
        return grade_notebook(job)

    return graded


Grade = Callable[[Callable[[NotebookNode], None]], Graded]


def points(graded: Graded) -> dict[str, float]:
    return {cell.cell: cell.points for cell in graded.result.cells}


def hint(graded: Graded, cell: str) -> str:
    found = next(each for each in graded.result.cells if each.cell == f"{cell}-check")
    return next(check.hint for check in found.checks if not check.passed)


def at(notebook: NotebookNode, name: str) -> NotebookNode:
    return next(cell for cell in notebook.cells if grade_id(cell) == name)


def test_a_notebook_from_colab_gets_full_marks(grade: Grade) -> None:
    def change(notebook: NotebookNode) -> None:
        notebook.cells[0:0] = [
            new_code_cell("from google.colab import drive\ndrive.mount('/content/drive')"),
            new_code_cell("%cd /content/drive/MyDrive/ch4-cnn\n!pip install -q tqdm"),
            new_code_cell("!nvidia-smi\n%matplotlib inline\nquit()"),
        ]
        graph = at(notebook, "ofe-05-graph")
        lines = "\n".join(f"    {line}" for line in graph.source.splitlines())
        graph.source = f"!ls\nwith tf.device('/GPU:0'):\n{lines}"
        for cell in notebook.cells:
            cell.metadata = NotebookNode()

    graded = grade(change)
    assert points(graded) == max_points(FILTERS)
    assert "in cell number 3" in graded.result.reason


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("n = input('how many? ')", "nobody is there to type anything while this is graded"),
        ("import getpass; getpass.getpass()", "nobody is there to type anything"),
        ("import matplotlib; matplotlib.use('TkAgg')", "there is no screen while this is graded"),
        ("import no_such_thing", "this package is not where notebooks are graded"),
        ("from google.colab import drive", "google.colab is only on Colab"),
        ("quit()", "quit(), exit() or sys.exit() ended the cell"),
    ],
)
def test_what_cannot_be_is_said_with_the_error_first(grade: Grade, line: str, cause: str) -> None:
    def change(notebook: NotebookNode) -> None:
        cell = at(notebook, "ofe-05-graph")
        cell.source = f"{line}\n{cell.source}"

    graded = grade(change)
    said = hint(graded, "ofe-05-graph")
    assert said.startswith("cell [OFE-05] was stopped by ")
    assert f"({cause}" in said  # and not the check's own hint
    wanted = max_points(FILTERS)
    assert points(graded) == {**wanted, "ofe-05-graph-check": 0.0}


def test_an_index_of_another_machine_names_the_files_beside_it(
    place: Sandbox, tmp_path: Path
) -> None:
    """A notebook can restore the checkpoint that `tf.train.latest_checkpoint` finds."""
    name = NOTEBOOKS[4]
    shutil.copytree(RELEASE, tmp_path, dirs_exist_ok=True)
    for suffix in ("index", "data-00000-of-00001"):
        (tmp_path / f"mdc_session-4000.{suffix}").write_bytes(b"not read here")
    there = "/content/drive/MyDrive/ch4-cnn/mdc_session-4000"
    lines = f'model_checkpoint_path: "{there}"\nall_model_checkpoint_paths: "{there}"\n'
    (tmp_path / "checkpoint").write_text(lines)
    notebook = nbformat.read(RELEASE / f"{name}.ipynb", as_version=4)
    notebook.cells.append(new_code_cell("print('found', tf.train.latest_checkpoint('.'))"))
    nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    job = Job(ASSIGNMENT, name, tmp_path, RELEASE, SOURCE, b"any secret", sandbox=place)
    shown = nbformat.reads(grade_notebook(job).executed, as_version=4)
    assert said(shown.cells[-1]) == "found ./mdc_session-4000\n"


@pytest.mark.parametrize("cells", [[], ["print('of another course')"], ["total = 1", "total += 1"]])
def test_a_notebook_without_any_cell_of_the_release_is_not_it(
    place: Sandbox, tmp_path: Path, cells: list[str]
) -> None:
    book = new_notebook(cells=[new_code_cell(source) for source in cells])
    nbformat.write(book, tmp_path / f"{FILTERS}.ipynb")
    job = Job(ASSIGNMENT, FILTERS, tmp_path, RELEASE, SOURCE, b"any secret", sandbox=place)
    graded = grade_notebook(job)
    assert (graded.result.status, graded.result.score) == ("not found", 0)
    assert graded.result.reason == f"{FILTERS}.ipynb holds none of this notebook's cells"


def test_the_release_handed_in_is_unchanged(place: Sandbox, tmp_path: Path) -> None:
    shutil.copytree(RELEASE, tmp_path, dirs_exist_ok=True)
    job = Job(ASSIGNMENT, FILTERS, tmp_path, RELEASE, SOURCE, b"any secret", sandbox=place)
    graded = grade_notebook(job)
    assert (graded.result.status, graded.result.score) == ("unchanged", 0)
    assert graded.result.reason == (
        "it is the notebook as it was handed out, with nothing written in it"
    )
    notebook = nbformat.read(tmp_path / f"{FILTERS}.ipynb", as_version=4)
    notebook.cells.append(new_code_cell("print(images.shape)"))
    nbformat.write(notebook, tmp_path / f"{FILTERS}.ipynb")
    assert grade_notebook(job).result.status == "graded"
