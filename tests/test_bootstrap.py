"""The commands of `make` before anything is installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tools import bootstrap


def test_an_outdated_environment_is_not_removed_from_inside(tmp_path: Path) -> None:
    """For example, a shell that activated it before requirements.txt changed."""
    script = tmp_path / "tools" / "bootstrap.py"
    script.parent.mkdir()
    shutil.copyfile(bootstrap.__file__, script)
    for name in ("requirements.txt", "pyproject.toml"):
        (tmp_path / name).write_text("changed", encoding="utf-8")
    venv = tmp_path / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    (venv / "kit-stamp").write_text("older", encoding="utf-8")

    command: list[str | Path] = [venv / "bin" / "python", script, "setup"]
    done = subprocess.run(command, capture_output=True, text=True)

    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "bootstrap: .venv is out of date and in use by this shell; "
        "run `deactivate` and try again, and it is made anew"
    ]
    assert (venv / "bin" / "python").exists()
