"""Tests whether notebooks can run on this machine, with a kernel that does what they all do."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook

from autograder.engine.files import remove
from autograder.engine.run import KernelNotStarted, NotebookRun
from autograder.engine.sandbox import Sandbox, sandbox
from autograder.engine.values import NoValue
from autograder.engine.warm import WarmInterpreter
from autograder.errors import UserError
from autograder.kernel import isolate

# What a kernel must be able to do, each with a cell that proves it.
STEPS = {
    # The warm interpreter has imported none of these.
    "import what is installed": """
import importlib
importlib.invalidate_caches()
import latex2mathml, matplotlib_inline.backend_inline, wave
""",
    "import what students are promised": "import scipy.ndimage, tqdm",
    "run a TensorFlow session": """
import tensorflow.compat.v1 as tf
with tf.Session(graph=tf.Graph()) as session:
    total = float(session.run(tf.constant(1.0) + 2.0))
""",
    "draw a figure": """
import matplotlib.pyplot as plt
fig = plt.figure()
fig.add_subplot().plot([0, 1])
fig.canvas.draw()
plt.close(fig)
""",
}
ANSWER = "answer-check"


def trial(place: Sandbox) -> str:
    """Why notebooks cannot run in `place`; empty when they can.

    Raises WarmLost when the warm interpreter has ended.
    """
    folder = Path(tempfile.mkdtemp(prefix="kit-trial-", dir=place.folder))
    try:
        return _try(place, folder)
    except KernelNotStarted as error:
        return f"a kernel did not start ({error})"
    except NoValue as error:
        return f"a kernel did not answer ({error})"
    finally:
        remove(folder)


def _try(place: Sandbox, folder: Path) -> str:
    answer = new_code_cell("")
    answer.metadata["nbgrader"] = {"grade_id": ANSWER, "grade": True, "solution": False}
    notebook = new_notebook(cells=[*map(new_code_cell, STEPS.values()), answer])
    with NotebookRun(notebook, folder, sandbox=place, environment={}, seconds=60) as run:
        values = run.values_at(ANSWER)
        for step, cell in zip(STEPS, notebook.cells, strict=False):
            for error in _errors(cell):
                return f"a kernel cannot {step} ({error})"
        return "" if values.value("total") == 3 else "a kernel gives wrong answers"


def _errors(cell: NotebookNode) -> Iterator[str]:
    for output in cell.outputs:
        if output.output_type == "error":
            yield f"{output.ename}: {output.evalue}"


def working_sandbox(warm: WarmInterpreter, run_student_code_unconfined: bool = False) -> Sandbox:
    """The strongest confinement that this machine allows, after a trial run of a kernel in it.

    Raises UserError when there is none, or when notebooks cannot run in it, since every submission
    would then fail alike.
    """
    place = sandbox(warm, run_student_code_unconfined)
    reason = trial(place)
    if reason:
        why = explained(reason, place)
        raise UserError(f"notebooks cannot run on this machine, so nothing is graded: {why}")
    return place


def explained(reason: str, place: Sandbox) -> str:
    """Why a trial failed and what to do about it, as far as that can be determined."""
    if place.level == isolate.NAMESPACES and os.geteuid() == 0:
        for root in _python():
            closed = _closed(root)
            if closed:
                return (
                    f"the user that they run as cannot read {closed}, which was installed under a "
                    f"strict umask; `chmod -R go+rX {root}` opens it ({reason})"
                )
    return reason


def _python() -> list[str]:
    """The folders of Python and its packages, except the current directory."""
    here = {"", os.getcwd()}
    path = [folder for folder in sys.path if folder not in here and os.path.isdir(folder)]
    folders = [sys.prefix, os.path.dirname(os.__file__), *path]
    return list(dict.fromkeys(map(os.path.realpath, folders)))


def _closed(root: str) -> str:
    """The first path in `root` that only its owner can read; empty when there is none."""
    for folder, _, names in os.walk(root):
        if os.stat(folder).st_mode & 0o005 != 0o005:
            return folder
        for name in names:
            path = os.path.join(folder, name)
            if os.path.exists(path) and not os.stat(path).st_mode & 0o004:
                return path
    return ""
