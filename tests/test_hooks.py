"""The hooks of .pre-commit-config.yaml find nothing, and change nothing, in what is committed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
[REPO] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"]
# How each says what it would do, and leaves it alone.
LOOK = {"ruff-check": [], "ruff-format": ["--check"], "codespell": [], "nbstripout": ["--verify"]}
ENDINGS = {"ruff-check": (".py", ".ipynb"), "ruff-format": (".py",)}


def test_hooks_come_from_the_environment() -> None:
    assert REPO["repo"] == "local"
    assert {hook["id"] for hook in REPO["hooks"]} == set(LOOK)
    assert {hook["language"] for hook in REPO["hooks"]} == {"system"}


@pytest.mark.parametrize("hook", REPO["hooks"], ids=lambda hook: hook["id"])
def test_a_hook_finds_nothing(hook: dict[str, str]) -> None:
    known = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True)
    files = [
        name
        for name in known.split("\0")
        if (ROOT / name).is_file()
        and re.search(hook.get("files", ""), name)
        and not ("exclude" in hook and re.search(hook["exclude"], name))
        and name.endswith(ENDINGS.get(hook["id"], ""))
    ]
    assert files
    program, *options = hook["entry"].split()
    beside = Path(sys.executable).with_name(Path(program).name)
    command: list[str | Path] = [beside, *options, *LOOK[hook["id"]], *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
