"""Files that travel between Colab's machine, where a notebook runs, and somebody's computer.

The computer is the folder that COLAB_COMPUTER names: in `course` lies what was handed out, in
`Downloads` what a notebook has given.
"""

import os
import shutil
from pathlib import Path


def upload():
    """Copy here what was chosen in a dialog, as name → content; empty when it was cancelled.

    Whoever chooses takes all of one folder: the first that has something which is not here.
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
