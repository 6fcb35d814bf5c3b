"""Cache keys depend on what the code does: a new comment is a hit, a changed module a miss."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from autograder.engine.code import code_digest, reached
from support.submissions import ASSIGNMENT, NOTEBOOKS, ROOT

ROOTS = ("kit.grade",)
FILES = {
    "kit/__init__.py": "",
    "kit/grade.py": '''
        """Grades."""
        from kit import errors
        from kit.sub.deep import make

        def grade():
            """Say what it is worth."""
            import kit.late
            return make(errors.LIMIT, PRELOADED)

        PRELOADED = "kit.warm and more"
    ''',
    "kit/errors.py": "LIMIT = 3",
    "kit/late.py": 'open(__file__.replace("late.py", "numbers.csv"))\nNAME = "numbers.csv"',
    "kit/numbers.csv": "1,2",
    "kit/warm.py": "import kit.sub",
    "kit/sub/__init__.py": "",
    "kit/sub/deep.py": "def make(*a):\n    return a",
    "kit/unused.py": "x = 1",
}


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small importable package."""
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(dedent(text))
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "kit"]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path / "kit"


def digest() -> str:
    return code_digest(ROOTS, own=("kit",))


def test_modules_are_reached_by_imports_anywhere_and_by_their_names_in_strings(kit: Path) -> None:
    found = reached(ROOTS, own=("kit",))
    modules = "kit kit.errors kit.grade kit.late kit.sub kit.sub.deep kit.warm".split()
    assert sorted(found) == modules
    assert found["kit.sub"] == kit / "sub" / "__init__.py"


@pytest.mark.parametrize(
    ("module", "before", "after"),
    [
        ("grade.py", "def grade", "# what it is for\n\ndef grade"),
        ("grade.py", "Say what it is worth.", "Say what it is worth, and why."),
        ("grade.py", '"""Grades."""', ""),
        ("errors.py", "LIMIT = 3", "LIMIT  =  3  # points"),
        ("unused.py", "x = 1", "x = 2"),
    ],
)
def test_what_changes_nothing_that_is_done_is_the_same(
    kit: Path, module: str, before: str, after: str
) -> None:
    old = digest()
    change(kit / module, before, after)
    assert digest() == old


@pytest.mark.parametrize(
    ("module", "before", "after"),
    [
        ("grade.py", "errors.LIMIT, ", ""),
        ("errors.py", "LIMIT = 3", "LIMIT = 4"),
        ("late.py", "NAME", "OTHER"),
        ("numbers.csv", "1,2", "1,3"),
        ("warm.py", "import kit.sub", "import kit.sub, os"),
        ("sub/__init__.py", "", "x = 1"),
        ("sub/deep.py", "return a", "return a[0]"),
    ],
)
def test_what_changes_something_is_another(kit: Path, module: str, before: str, after: str) -> None:
    old = digest()
    change(kit / module, before, after)
    assert digest() != old


def test_a_new_module_counts_once_it_is_imported(kit: Path) -> None:
    old = digest()
    (kit / "more.py").write_text("x = 1")
    assert digest() == old
    change(kit / "errors.py", "LIMIT", "import kit.more\nLIMIT")
    with_it = digest()
    (kit / "more.py").write_text("x = 22")
    assert len({old, with_it, digest()}) == 3


def change(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


# Prints the cache key of a job after each of some changes to a copy of this project.
KEYS = """
import json, sys
from pathlib import Path
from autograder.engine.grade import Job, _versions, cache_key

here, assignment, notebook, changes = Path(sys.argv[1]), *sys.argv[2:4], json.loads(sys.argv[4])
release = here / "release" / assignment
job = Job(assignment, notebook, release, release, here / "source" / assignment, b"secret")
keys = {"": cache_key(job)}
for name, text in changes.items():
    path = here / name
    before = path.read_bytes()
    path.write_bytes(before + text.encode())
    _versions.cache_clear()  # as in a process that begins now
    keys[name] = cache_key(job)
    path.write_bytes(before)
_versions.cache_clear()
keys["again"] = cache_key(job)
print(json.dumps(keys))
"""


def test_a_result_is_kept_after_a_comment_and_not_after_a_change(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__", "mnist")
    for name in ("autograder", "data", "release", "source"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored, symlinks=True)
    [generator] = sorted((tmp_path / "data").glob("orenist.py"))
    name = generator.name
    checks = "autograder/checks/ch4_cnn"
    code = {
        f"data/{name}": "x = 1\n",
        "data/mnist.py": "x = 1\n",
        "autograder/errors.py": "x = 1\n",
        "autograder/course.py": "x = 1\n",
        "autograder/wire.py": "x = 1\n",
        "autograder/kernel/responder.py": "x = 1\n",
        "autograder/engine/run.py": "x = 1\n",
        f"{checks}/reference.py": "x = 1\n",
        f"{checks}/test_4_mnist_training.py": "x = 1\n",
    }
    comments = dict.fromkeys(code, "# why\n")
    elsewhere = {
        f"{checks}/test_1_orenist_filter.py": "x = 1\n",
        "autograder/cli.py": "x = 1\n",
        "autograder/record/gradebook.py": "x = 1\n",
    }
    untouched = keys_after(tmp_path, comments | elsewhere)
    assert set(untouched.values()) == {untouched[""]}
    changed = keys_after(tmp_path, code)
    assert changed["again"] == changed[""] == untouched[""]
    assert len(set(changed.values())) == 1 + len(code)


def keys_after(here: Path, changes: dict[str, str]) -> dict[str, str]:
    arguments = [str(here), ASSIGNMENT, NOTEBOOKS[3], json.dumps(changes)]
    done = subprocess.run(
        [sys.executable, "-c", KEYS, *arguments], cwd=here, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    keys: dict[str, str] = json.loads(done.stdout)
    return keys
