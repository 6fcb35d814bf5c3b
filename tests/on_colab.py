"""Runs the released and the solved notebooks on a machine like Colab's: `make colab`.

Python, the packages (colab/requirements.txt) and `google.colab` (colab/google) are like Colab's,
and each notebook starts in an empty folder.  The environment (3 GB) is made once, in `.cache/`.
Without Python 3.12 the command says so and tests nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from autograder.data import mnist
from autograder.engine.notebook import grade_id, solved
from pythons import environment, find
from support.submissions import ASSIGNMENT, NOTEBOOKS, ROOT

VERSION = "3.12"
COLAB = ROOT / "tests" / "colab"
CHECKPOINT = {"checkpoint", "mdc_session-4000.index", "mdc_session-4000.data-00000-of-00001"}
UNFINISHED = {"NotImplementedError", "NotDoneYet"}  # errors that cells of the release may raise
TRAINING = "mdc-07-train"
# Runs before the training, so that only its first hundred steps are computed.
FAST_MOTION = """
def _in_fast_motion(run):
    steps = 0

    def quick(fetches, *rest, **more):
        nonlocal steps
        steps += fetches is train_step
        return None if fetches is train_step and steps > 100 else run(fetches, *rest, **more)

    return quick


sess.run = _in_fast_motion(sess.run)
"""


def run(notebook: NotebookNode, machine: Path) -> None:
    """Execute a notebook in a new folder `machine`; its cells get their outputs."""
    machine.mkdir(parents=True)
    NotebookClient(
        notebook,
        kernel_name="colab",
        resources={"metadata": {"path": str(machine)}},
        timeout=1800,
        allow_errors=True,
    ).execute()


def errors(notebook: NotebookNode, allowed: set[str]) -> list[str]:
    """The errors of an executed notebook, except those named in `allowed`, one line each."""
    return [
        f"cell {grade_id(cell) or cell.id}: {output.ename}: {output.evalue}"
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "error" and output.ename not in allowed
    ]


def wrong(folder: Path, computer: Path) -> list[str]:
    """All errors in the notebooks, in the order in which a student runs them.

    The machines are folders below `folder`; `computer` is the student's.
    """
    found = []
    (computer / "course").mkdir(parents=True)
    (computer / "Downloads").mkdir()
    for path in (ROOT / "release" / ASSIGNMENT).iterdir():
        if path.is_file() and path.suffix != ".ipynb":
            shutil.copy(path, computer / "course")
    for kind, allowed in (("release", UNFINISHED), ("source", set())):
        for name in NOTEBOOKS:
            path = ROOT / kind / ASSIGNMENT / f"{name}.ipynb"
            notebook = solved(nbformat.read(path, as_version=4))
            if kind == "source":
                quicken(notebook)
            run(notebook, folder / kind / name)
            mine = errors(notebook, allowed)
            said = "; ".join(mine) or "is right"
            print(f"{path.relative_to(ROOT)}: {said}", flush=True)
            found += mine
    downloaded = {path.name for path in (computer / "Downloads").iterdir()}
    if downloaded != CHECKPOINT:
        print(f"downloaded: {sorted(downloaded)}, expected {sorted(CHECKPOINT)}", flush=True)
        found.append("downloads")
    return found


def quicken(notebook: NotebookNode) -> None:
    """Insert FAST_MOTION before the training, if there is one."""
    for at, cell in enumerate(notebook.cells):
        if grade_id(cell) == TRAINING:
            notebook.cells.insert(at, nbformat.v4.new_code_cell(FAST_MOTION))
            return


def kernel(python: Path, computer: Path) -> str:
    """The kernel specification of `python` with a simulated Colab."""
    command = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    variables = {
        "COLAB_COMPUTER": str(computer),
        "MNIST_DIR": str(mnist.fetch()),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # otherwise the debugger warns in every kernel
        "PYTHONPATH": str(COLAB),
    }
    return json.dumps({"argv": command, "display_name": "Colab", "env": variables})


def main() -> int:
    """Test all notebooks; return 0 if they are right, or if there is no Python for them."""
    program = find(VERSION)
    if program is None:
        print(f"Python {VERSION} is not installed: nothing is known about Colab")
        return 0
    try:
        python = environment("colab", program, COLAB / "requirements.txt")
    except subprocess.CalledProcessError as error:
        print(f"the environment like Colab's cannot be made: {error}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="kit-colab-") as name:
        folder = Path(name)
        specification = folder / "jupyter" / "kernels" / "colab" / "kernel.json"
        specification.parent.mkdir(parents=True)
        specification.write_text(kernel(python, folder / "computer"), "utf-8")
        os.environ["JUPYTER_PATH"] = str(folder / "jupyter")
        return 1 if wrong(folder / "machines", folder / "computer") else 0


if __name__ == "__main__":
    sys.exit(main())
