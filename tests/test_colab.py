"""On Colab, a notebook uploads the files that it needs and downloads those that others need."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_output

from autograder.engine.grade import Job, grade_notebook
from autograder.engine.notebook import grade_id, solved
from autograder.engine.sandbox import sandbox
from autograder.engine.warm import WarmInterpreter
from on_colab import FAST_MOTION, TRAINING, errors, quicken
from support.submissions import ASSIGNMENT, NOTEBOOKS, ROOT, max_points, source

RELEASE, SOURCE = ROOT / "release" / ASSIGNMENT, ROOT / "source" / ASSIGNMENT
COURSE = sorted(path.name for path in RELEASE.iterdir() if path.suffix in (".py", ".data"))
CHECKPOINT = ["checkpoint", "mdc_session-4000.data-00000-of-00001", "mdc_session-4000.index"]


def code(name: str) -> list[NotebookNode]:
    return [cell for cell in source(name).cells if cell.cell_type == "code"]


def at(name: str, cell: str) -> str:
    found: str = next(c.source for c in code(name) if grade_id(c) == cell)
    return found


def test_all_notebooks_begin_with_the_same_cell() -> None:
    first = [code(name)[0] for name in NOTEBOOKS]
    assert len({cell.source for cell in first}) == 1
    assert all(str(grade_id(cell)).endswith("-01-colab") for cell in first)
    assert not any(cell.metadata.nbgrader.grade for cell in first)


def test_all_notebooks_end_with_a_summary_that_is_worth_nothing() -> None:
    for name in NOTEBOOKS:
        last = source(name).cells[-1]
        assert last.source.endswith("\nbefore_you_hand_in()")
        assert not last.metadata.nbgrader.grade


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_says_that_its_machine_is_its_own(name: str) -> None:
    text = " ".join("\n".join(cell.source for cell in source(name).cells).split())
    assert "**On Google Colab** each notebook has a machine of its own" in text


# -- in the cells --------------------------------------------------------------------------------

FIRST = code(NOTEBOOKS[0])[0].source
BRING, TAKE = at(NOTEBOOKS[4], "mdr-01-checkpoint"), at(NOTEBOOKS[3], "mdc-08-colab")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Colab's machine, an empty folder, next to a computer with the released files."""
    (tmp_path / "machine").mkdir()
    for name in ("course", "Downloads"):
        (tmp_path / "computer" / name).mkdir(parents=True)
    for name in COURSE:
        shutil.copy(RELEASE / name, tmp_path / "computer" / "course")
    return tmp_path / "machine"


def computer(machine: Path, folder: str) -> Path:
    return machine.parent / "computer" / folder


def run(machine: Path, *cells: str, on_colab: bool = True) -> str:
    """Run these cells; return their output."""
    environment = {**os.environ, "COLAB_COMPUTER": str(machine.parent / "computer")}
    if on_colab:
        environment["PYTHONPATH"] = str(ROOT / "tests" / "colab")
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(cells)],
        cwd=machine,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_first_cell_brings_what_lies_beside_the_notebooks(machine: Path) -> None:
    shutil.copy(RELEASE / "quiet.py", machine)
    said = run(machine, FIRST, FIRST)
    assert said == f"Please choose these, all at once: {', '.join(wanted(without='quiet.py'))}\n"
    assert names(machine) == COURSE


def wanted(without: str) -> list[str]:
    """The files in the order in which the notebook asks for them."""
    order = ["input_data.py", "pictures.py", "quiet.py", "visible_checks.py", "ORENIST.data"]
    assert sorted(order) == COURSE
    return [name for name in order if name != without]


def test_a_question_is_asked_again_until_it_is_answered_or_cancelled(machine: Path) -> None:
    course, later = computer(machine, "course"), computer(machine, "Downloads")
    (course / "quiet.py").unlink()
    shutil.copy(RELEASE / "quiet.py", later)
    assert run(machine, FIRST).endswith("Please choose these, all at once: quiet.py\n")
    assert names(machine) == COURSE
    for name in COURSE:
        (machine / name).unlink()
    (later / "quiet.py").unlink()
    assert run(machine, FIRST).endswith("Please choose these, all at once: quiet.py\n")
    assert names(machine) == names(course)


def test_the_checkpoint_travels_from_one_machine_to_the_next(machine: Path) -> None:
    for name in CHECKPOINT:
        (machine / name).write_text(name)
    run(machine, FIRST, TAKE)
    assert names(computer(machine, "Downloads")) == CHECKPOINT
    for path in machine.iterdir():
        path.unlink()
    said = run(machine, FIRST, BRING)
    assert said.endswith(
        "Please choose these, all at once: checkpoint, mdc_session-4000.index, "
        "mdc_session-4000.data-00000-of-00001\n"
    )
    assert names(machine) == sorted([*COURSE, *CHECKPOINT])


def test_a_training_that_did_not_end_downloads_what_there_is(machine: Path) -> None:
    (machine / "checkpoint").write_text("1300")
    run(machine, FIRST, TAKE)
    assert names(computer(machine, "Downloads")) == ["checkpoint"]


def test_elsewhere_the_cells_do_nothing(machine: Path) -> None:
    for name in CHECKPOINT[1:]:
        (machine / name).write_text(name)
    assert run(machine, FIRST, BRING, TAKE, on_colab=False) == ""
    assert names(machine) == CHECKPOINT[1:]
    assert names(computer(machine, "Downloads")) == []


# -- the job that runs them all ------------------------------------------------------------------


def test_the_job_computes_the_first_steps_of_the_loop_as_it_stands() -> None:
    notebook = solved(source(NOTEBOOKS[3]))
    before = [cell.source for cell in notebook.cells]
    quicken(notebook)
    added = [grade_id(cell) for cell in notebook.cells].index(TRAINING) - 1
    assert notebook.cells.pop(added).source == FAST_MOTION
    assert [cell.source for cell in notebook.cells] == before

    computed: list[object] = []
    sess = SimpleNamespace(run=lambda fetches, *rest, **more: computed.append(fetches))
    names = {"sess": sess, "train_step": object()}
    exec(FAST_MOTION, names)
    for _ in range(150):
        sess.run(names["train_step"], feed_dict={})
    sess.run(["loss"], {})
    assert computed == [names["train_step"]] * 100 + [["loss"]]


def test_the_job_names_cells_that_ended_with_another_error_than_not_done_yet() -> None:
    notebook = source(NOTEBOOKS[4])
    for cell, kind in zip(code(NOTEBOOKS[4]), ("NameError", "NotDoneYet"), strict=False):
        cell.outputs = [new_output("error", ename=kind, evalue="why", traceback=[])]
        notebook.cells.append(cell)
    assert errors(notebook, {"NotDoneYet"}) == ["cell mdr-01-colab: NameError: why"]


# -- where they are graded -----------------------------------------------------------------------

OLDER = """# [OFE-01] on Colab only: bring the files that belong beside this notebook
from pathlib import Path

try:
    from google.colab import files
except ImportError:
    files = None  # not on Colab: they are here already

for name in ["pictures.py", "quiet.py", "visible_checks.py"]:
    if files and not Path(name).exists():
        print(f"Please choose {name}")
        files.upload()"""
SINCE_THEN = {"mdc-01-colab", "mdc-08-colab", "mdr-01-colab", "mdr-01-checkpoint"}


@pytest.mark.parametrize("name", [NOTEBOOKS[i] for i in (0, 3, 4)])
def test_a_notebook_with_the_older_first_cell_gets_full_marks(
    name: str, warm: WarmInterpreter, solved_run: Path, tmp_path: Path
) -> None:
    """In older releases, the last two notebooks had no such cell, and none had a summary."""
    shutil.copytree(RELEASE, tmp_path, dirs_exist_ok=True)
    for file in CHECKPOINT:
        shutil.copy(solved_run / file, tmp_path)
    notebook = solved(source(name))
    notebook.cells = [
        cell
        for cell in notebook.cells
        if grade_id(cell) not in SINCE_THEN and not str(grade_id(cell)).endswith("-hand-in")
    ]
    assert len(notebook.cells) < len(source(name).cells)
    for cell in notebook.cells:
        if grade_id(cell) == "ofe-01-colab":
            cell.source = OLDER
    nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    place = sandbox(warm)
    job = Job(ASSIGNMENT, name, tmp_path, RELEASE, SOURCE, b"any secret", sandbox=place)
    result = grade_notebook(job).result
    assert {cell.cell: cell.points for cell in result.cells} == max_points(name)
