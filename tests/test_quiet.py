"""The notebooks' first cell silences TensorFlow's lines about the machine, but not errors."""

from __future__ import annotations

import os
import subprocess
import sys

import nbformat
import pytest

from support.submissions import ASSIGNMENT, NOTEBOOKS, ROOT

SOURCE = ROOT / "source" / ASSIGNMENT


def stderr_of(code: str) -> str:
    """The standard error of a fresh Python beside the notebooks."""
    environment = {name: v for name, v in os.environ.items() if not name.startswith("TF_")}
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=SOURCE,
        env=environment,
        capture_output=True,
        text=True,
    )
    return ran.stderr


def import_cell(name: str) -> str:
    cells = nbformat.read(SOURCE / f"{name}.ipynb", as_version=4).cells
    (source,) = (c.source for c in cells if "import tensorflow" in c.source)
    return str(source)


def test_the_first_cell_writes_nothing() -> None:
    assert stderr_of(import_cell(NOTEBOOKS[0])) == ""


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_notebook_imports_it_so(name: str) -> None:
    assert "\nwith quiet():\n    import tensorflow.compat.v1 as tf\n" in import_cell(name)


WRITES = """
import os
from quiet import quiet
with quiet():
    os.write(2, {lines!r})
    {then}
"""
LOGGED = (
    b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n"
    b"I0000 00:00:1795885913.782748   11943 port.cc:153] oneDNN custom operations are on.\n"
    b"2026-01-31 12:00:00.123456: I tensorflow/core/util/port.cc:153] oneDNN custom operations\n"
    b"2026-01-31 12:00:00.1: E external/cuda_fft.cc:485] Unable to register cuFFT factory: twice\n"
)
TROUBLE = (
    b"A module that was compiled using NumPy 1.x cannot be run in NumPy 2\n"
    b"E0000 00:00:1795885913.782748   11943 file.cc:1] the disk is full\n"
    b"F0000 00:00:1795885913.782748   11943 file.cc:1] this processor is too old\n"
)


def test_what_is_logged_is_left_out_and_trouble_is_shown() -> None:
    said = stderr_of(WRITES.format(lines=LOGGED + TROUBLE + LOGGED, then="pass"))
    assert said == TROUBLE.decode()


def test_when_the_import_fails_everything_is_shown() -> None:
    said = stderr_of(WRITES.format(lines=LOGGED, then="raise ImportError('no such library')"))
    assert said.startswith(LOGGED.decode())
    assert said.endswith("ImportError: no such library\n")


def test_what_comes_behind_is_shown_at_once() -> None:
    code = WRITES.format(lines=b"", then="pass") + "os.write(2, b'I0000 00:00:1 later\\n')"
    assert stderr_of(code) == "I0000 00:00:1 later\n"
