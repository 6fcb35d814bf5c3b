"""Transfers files between Colab's machine, where a notebook runs, and the user's computer.

The computer is the folder named by COLAB_COMPUTER; its `course` holds the released files, its
`Downloads` the files that notebooks have downloaded.
"""

import os
import shutil
from pathlib import Path


def upload():
    """Copy files from the computer; return name → content, empty if the dialog was cancelled.

    The user chooses all files of the first folder that has one which is not here.
    """
    for folder in ("course", "Downloads"):
        chosen = [
            path for path in sorted(_computer(folder).iterdir()) if not Path(path.name).exists()
        ]
        if chosen:
            return {path.name: Path(shutil.copy(path, path.name)).read_bytes() for path in chosen}
    return {}


def download(filename):
    """Copy a file to the computer.  Raises FileNotFoundError, as Colab does."""
    shutil.copy(filename, _computer("Downloads"))


def _computer(folder):
    return Path(os.environ["COLAB_COMPUTER"], folder)
