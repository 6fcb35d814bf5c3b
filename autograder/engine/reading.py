"""Reads a submitted notebook: the sandbox parses it, and this module validates the answer."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from nbformat import NotebookNode

from autograder.engine.errand import Overrun, ask
from autograder.engine.files import read_regular
from autograder.engine.sandbox import Sandbox
from autograder.errors import CannotGrade, GraderFault, printable
from autograder.kernel.child import GB, Limits
from autograder.kernel.notebook import ABSENT, CELL_LIMIT, KINDS, MESSAGE_LIMIT, TEXT_LIMIT

SIZE_LIMIT = 64 << 20  # mostly saved pictures, which go no further
LIMITS = Limits(memory=GB, disk=1 << 20, files=10, processes=2, cpu=20)
SECONDS = 120.0  # wall time, in case the machine is busy; the limit that matters is `cpu`


def read_submitted(folder: Path, name: str, sandbox: Sandbox) -> NotebookNode:
    """The submitted notebook `<folder>/<name>.ipynb`: type, source, `grade_id` and id of its cells.

    Raises FileNotFoundError when it does not exist, CannotGrade when it cannot be read, GraderFault
    when this machine could not read it in time.
    """
    data = read_regular(folder, f"{name}.ipynb", SIZE_LIMIT)
    question = {"op": "notebook", "data": np.frombuffer(data, np.uint8)}
    try:
        answer = ask(sandbox, "notebook", question, limits=LIMITS, seconds=SECONDS)
    except Overrun as error:
        why = str(error) or "ended what reads it"
        raise CannotGrade(f"{name}.ipynb could not be read: it {why}") from error
    except GraderFault as error:
        raise GraderFault(f"{name}.ipynb could not be read: {error}") from error
    return notebook_of(answer, name)


def notebook_of(answer: dict[str, Any], name: str) -> NotebookNode:
    """The notebook in an answer of `kernel.notebook`, whose values are untrusted.

    Raises CannotGrade when they do not describe a notebook, or the answer is an error.
    """
    match answer:
        case {"error": "memory"}:
            raise CannotGrade(f"{name}.ipynb could not be read: it takes too much memory")
        case {"error": str(), "message": str(message)}:
            said = printable(message, MESSAGE_LIMIT)
            raise CannotGrade(f"{name}.ipynb is not a readable notebook ({said})")
        case {"value": {"kinds": kinds, "lengths": lengths, "text": text}}:
            try:
                return _put_together(kinds, lengths, text)
            except (TypeError, ValueError, AttributeError):
                pass
    raise CannotGrade(f"{name}.ipynb could not be read: what was found makes no notebook")


def _put_together(kinds: np.ndarray, lengths: np.ndarray, text: np.ndarray) -> NotebookNode:
    """Build the notebook from the arrays that `kernel.notebook.parsed` returns.

    Raises ValueError (UnicodeDecodeError is one) for arrays that do not describe a notebook.
    """
    described = [(kinds, "uint8", 1), (lengths, "int64", 2), (text, "uint8", 1)]
    if not all((array.dtype.name, array.ndim) == (kind, n) for array, kind, n in described):
        raise ValueError("other arrays")
    if lengths.shape != (len(kinds), 3) or len(kinds) > CELL_LIMIT or len(text) > TEXT_LIMIT:
        raise ValueError("too many cells, or too few lengths")
    if ((lengths < ABSENT) | (lengths > TEXT_LIMIT)).any() or (lengths[:, :1] < 0).any():
        raise ValueError("impossible lengths")
    ends = list(accumulate(np.maximum(lengths, 0).ravel().tolist()))
    if (ends[-1] if ends else 0) != len(text) or (kinds >= len(KINDS)).any():
        raise ValueError("lengths that do not add up")
    data = text.tobytes()
    parts = [
        None if length == ABSENT else data[end - length : end].decode("utf-8")
        for length, end in zip(lengths.ravel().tolist(), ends, strict=True)
    ]
    cells = []
    for at, kind in enumerate(kinds.tolist()):
        source, grade_id, identity = parts[3 * at : 3 * at + 3]
        marks = {} if grade_id is None else {"nbgrader": NotebookNode(grade_id=grade_id)}
        cell = NotebookNode(cell_type=KINDS[kind], metadata=NotebookNode(marks), source=source)
        if identity is not None:
            cell["id"] = identity
        cells.append(cell)
    return NotebookNode(nbformat=4, nbformat_minor=5, metadata=NotebookNode(), cells=cells)
