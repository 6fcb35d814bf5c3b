"""Grades are the same at every level of confinement, installation, account and folder.

Each row is a machine. On each of them, the complete, the half-done and the untouched submission get
exactly their points, cell by cell, and `autograder doctor` reports no fault.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from itertools import combinations, product
from pathlib import Path

import pytest

from autograder.data import mnist
from autograder.engine.sandbox import CONTROL_GROUP, LAYERS
from autograder.kernel import isolate
from support.environments import NAMESPACES, forbidding, installed_from_wheel, reachable
from support.submissions import (
    ASSIGNMENT,
    HALF,
    NOTEBOOKS,
    ROOT,
    CourseCopy,
    expected_points,
    max_points,
    solution_cells,
)

pytestmark = pytest.mark.course

AS_ROOT = os.geteuid() == 0
QUICK = (NOTEBOOKS[0], NOTEBOOKS[3])  # filters by hand, and a trained network

CHOICES = {
    "level": (isolate.NAMESPACES, isolate.LANDLOCK),
    "kit": ("checkout", "wheel"),
    "who": ("root", "account", "nobody known"),
    "umask": ("022", "077"),
    "place": ("roomy", "tight"),
    "tmpdir": ("short", "long"),
}


@dataclass(frozen=True)
class Row:
    """A machine, as far as this one can simulate it.

    Attributes:
        level: the strongest confinement that it allows.
        kit: how the kit was installed.
        who: the account; "nobody known" is a user id without an account and without HOME.
        umask: the umask, in octal digits.
        place: `tight` is a read-only root file system, a temporary folder of 300 MB and 64 MB of
            shared memory.
        tmpdir: the path of the temporary folder; `long` has 90 characters.

    """

    level: str
    kit: str
    who: str
    umask: str
    place: str
    tmpdir: str

    def __str__(self) -> str:
        return "-".join(astuple(self)).replace(" ", "_")


ROWS = [
    Row(isolate.NAMESPACES, "checkout", "root", "077", "roomy", "long"),
    Row(isolate.LANDLOCK, "wheel", "root", "022", "roomy", "short"),
    Row(isolate.NAMESPACES, "wheel", "account", "022", "roomy", "long"),
    Row(isolate.LANDLOCK, "checkout", "account", "077", "tight", "short"),
    Row(isolate.NAMESPACES, "wheel", "nobody known", "077", "roomy", "short"),
    Row(isolate.LANDLOCK, "checkout", "nobody known", "022", "tight", "long"),
    Row(isolate.NAMESPACES, "wheel", "root", "022", "tight", "long"),
]
WHOLE = ROWS[-1]  # all five notebooks are graded there


def test_the_rows_cover_every_pair_of_circumstances() -> None:
    """Such faults come from one circumstance or from a combination of two."""
    covered = {
        pair for row in ROWS for pair in combinations(zip(CHOICES, astuple(row), strict=True), 2)
    }
    wanted = {
        ((one, a), (other, b))
        for one, other in combinations(CHOICES, 2)
        for a, b in product(CHOICES[one], CHOICES[other])
    }
    assert wanted - covered == set()


# --- machines ---

WHO = {"root": (0, "/root"), "account": (65534, "/nonexistent"), "nobody known": (424242, "")}


@dataclass(frozen=True)
class Machine:
    """Runs commands in the circumstances of a row, in a mount namespace."""

    row: Row
    python: Path
    course: CourseCopy
    folder: Path
    mnist: str

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `autograder` with these arguments in the course root."""
        row, course = self.row, self.course.root
        temporary = self.folder / "t"
        if row.tmpdir == "long":
            temporary = self.folder / "t".ljust(89 - len(str(self.folder)), "t")
            assert len(str(temporary)) == 90
        temporary.mkdir(mode=0o777, exist_ok=True)
        temporary.chmod(0o777)
        number, home = WHO[row.who]
        lines = ["set -e"]
        if number:
            lines += reachable(self.folder, [Path(sys.prefix), ROOT, Path(sys.base_prefix)])
        if row.place == "tight":
            lines += [
                f"mount --bind {course} {course}",
                f"mount -t tmpfs -o size=300m,mode=777 tmpfs {temporary}",
                "mount -t tmpfs -o size=64m,mode=1777 tmpfs /dev/shm",
                "mount -o remount,ro,bind /",
            ]
        command = ["env", "-i", f"PATH={os.defpath}", f"TMPDIR={temporary}"]
        command += [f"MNIST_DIR={self.mnist}", "COLUMNS=400", *([f"HOME={home}"] if home else [])]
        if number:
            command[:0] = [f"setpriv --reuid {number} --regid {number} --clear-groups"]
        if row.level == isolate.LANDLOCK:
            command += map(shlex.quote, forbidding(NAMESPACES, python=self.python))
        command += [str(self.python), "-m", "autograder", *arguments]
        lines += [f"cd {course}", f"umask {row.umask}", f"exec {' '.join(command)}"]
        return subprocess.run(
            ["unshare", "--mount", "sh", "-c", "\n".join(lines)],
            capture_output=True,
            text=True,
            timeout=900,
        )


@pytest.fixture(scope="module")
def room() -> Iterator[Path]:
    """A folder that every account can reach, removed in the end because of its size."""
    folder = Path(tempfile.mkdtemp(prefix="kit-matrix-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def wheel(room: Path) -> Path:
    """The Python of an environment with the kit installed from a wheel."""
    return installed_from_wheel(room / "environment")


@pytest.fixture(scope="module")
def handed_in(room: Path, solved_run: Path) -> CourseCopy:
    """A course with three ungraded submissions."""
    course = CourseCopy.make(room / "course")
    course.succeed("nbgrader", "generate_assignment", ASSIGNMENT, "--force")
    course.complete("complete", solved_run)
    course.half("half")
    course.untouched("untouched")
    return course


@pytest.fixture(params=ROWS, ids=str)
def machine(
    request: pytest.FixtureRequest, room: Path, handed_in: CourseCopy, solved_run: Path
) -> Machine:
    """A row's machine, with its own course."""
    row: Row = request.param
    if not AS_ROOT:
        pytest.skip("only root can mount file systems and become somebody else")
    for program in ("unshare", "setpriv", "mount"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not there")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("this machine allows no mount namespaces")
    if row.level == isolate.NAMESPACES and row.who != "root" and not _users_may_have_namespaces():
        pytest.skip("this machine allows users no namespaces")
    folder = room / f"row-{ROWS.index(row)}"
    folder.mkdir()
    folder.chmod(0o755)
    course = CourseCopy(folder / "course")
    shutil.copytree(handed_in.root, course.root)
    if row != WHOLE:
        for name in set(NOTEBOOKS) - set(QUICK):
            for path in course.root.rglob(f"{name}.ipynb"):
                path.unlink()
    number, _ = WHO[row.who]
    for path in [course.root, *course.root.rglob("*")]:
        os.chown(path, number, number)
    python = Path(sys.prefix, "bin", "python")
    if row.kit == "wheel":
        python = request.getfixturevalue("wheel")
    return Machine(row, python, course, folder, os.environ.get("MNIST_DIR") or str(mnist.fetch()))


def _users_may_have_namespaces() -> bool:
    tried = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    tried += ["unshare", "--user", "--map-current-user", "true"]
    return subprocess.run(tried, capture_output=True).returncode == 0


def test_a_wheel_brings_one_package(wheel: Path) -> None:
    (record,) = wheel.parents[1].glob("lib/python*/site-packages/autograder-*.dist-info/RECORD")
    paths = [line.partition(",")[0] for line in record.read_text().splitlines()]
    tops = {path.partition("/")[0] for path in paths if not path.startswith("../")}
    assert tops == {"autograder", record.parent.name}
    assert "autograder/data/ORENIST.data" in paths


def test_everyone_gets_what_they_deserve(machine: Machine) -> None:
    ready = machine.run("doctor")
    assert ready.returncode == 0, ready.stderr
    done = machine.run("grade", ASSIGNMENT, "--json")
    assert done.returncode == 0, done.stderr
    results = {result["student"]: result for result in json.loads(done.stdout)}
    layers = {tuple(result["sandbox"]) for result in results.values()}
    for each in layers:
        assert [layer for layer in each if layer != CONTROL_GROUP] == LAYERS[machine.row.level]
    names = NOTEBOOKS if machine.row == WHOLE else QUICK
    deserved = {
        "complete": {name: max_points(name) for name in names},
        "half": {name: expected_points(name, solution_cells(name)[: HALF[name]]) for name in names},
        "untouched": {name: expected_points(name, []) for name in names},
    }
    got = {
        student: {
            notebook["name"]: {cell["cell"]: cell["points"] for cell in notebook["cells"]}
            for notebook in result["notebooks"]
        }
        for student, result in results.items()
    }
    assert got == deserved
