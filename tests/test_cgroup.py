"""Control groups: Linux bounds the memory of a kernel and all its child processes."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from autograder.engine.sandbox import CONTROL_GROUP, Sandbox
from autograder.engine.warm import Forked, WarmInterpreter
from autograder.kernel.cgroup import Hierarchy, hierarchy
from autograder.kernel.child import UNCONFINED, Limits, Order

MB = 1 << 20
# Waits for a line, then allocates 200 MB in pieces, in a child process.
HOG = """
import subprocess, sys
input()
take = "hog = [bytes(1 << 20).replace(b'0', b'1') + bytearray(1 << 20) for _ in range(200)]"
raise SystemExit(subprocess.run([sys.executable, "-c", take]).returncode)
"""


@pytest.fixture(scope="module")
def own() -> Hierarchy:
    found = hierarchy()
    if found is None:
        pytest.skip("this user may make no control groups on this machine")
    return found


@pytest.fixture
def warm_group(warm: WarmInterpreter, own: Hierarchy, tmp_path: Path) -> Iterator[Path]:
    """The cgroup folder of a process forked by the warm interpreter."""
    ours, theirs = socket.socketpair()
    order = Order(entry="checkpoint", level=UNCONFINED, scratch=str(tmp_path), limits=Limits())
    log = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    forked = Forked(warm.address, order, theirs.fileno(), log)
    try:
        yield own.folder / f"kit-{warm._process.pid}-{forked.pid}"
    finally:
        forked.kill()
        ours.close()
        theirs.close()
        os.close(log)


def hog_in(own: Hierarchy, memory: int) -> tuple[int, bool]:
    """Exit status of a process that allocates 200 MB, and whether its group ran out of memory."""
    group = own.group("test", memory)
    hog = subprocess.Popen([sys.executable, "-c", HOG], stdin=subprocess.PIPE, text=True)
    try:
        group.add(hog.pid)
        hog.communicate("go\n", timeout=120)
        return hog.returncode, group.overrun
    finally:
        hog.kill()
        hog.wait()
        group.remove()
        assert not group.folder.exists()


def test_what_a_process_starts_is_ended_at_the_bound(own: Hierarchy) -> None:
    status, overrun = hog_in(own, 100 * MB)
    assert overrun
    assert status != 0


def test_below_the_bound_nothing_happens(own: Hierarchy) -> None:
    assert hog_in(own, 2000 * MB) == (0, False)


def test_a_kernel_is_put_into_a_group_that_goes_with_it(
    warm: WarmInterpreter, warm_group: Path, own: Hierarchy
) -> None:
    pid = int(warm_group.name.rpartition("-")[2])
    assert str(pid) in (warm_group / "cgroup.procs").read_text().split()
    bound = int((warm_group / own.limits[0]).read_text())
    assert Limits().memory <= bound < 2 * Limits().memory
    ended = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    select.select([ended], [], [], 30)
    os.close(ended)
    with pytest.raises(FileNotFoundError):
        _until_gone(warm_group)


def _until_gone(folder: Path) -> None:
    """Read the group's processes until its folder has been removed."""
    for _ in range(10_000):
        (folder / "cgroup.procs").read_text()
        select.select([], [], [], 0.005)


def test_the_group_is_a_layer_that_is_named(warm: WarmInterpreter, own: Hierarchy) -> None:
    assert warm.bounds_memory
    assert CONTROL_GROUP in Sandbox("", UNCONFINED, bounds_memory=True).layers
    assert CONTROL_GROUP not in Sandbox("", UNCONFINED).layers


def test_what_a_killed_interpreter_left_is_removed(own: Hierarchy) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = own.folder / f"kit-{ended.pid}-1"
    left.mkdir()
    mine = own.group("kept", 100 * MB)
    try:
        own.sweep()
        assert not left.exists()
        assert mine.folder.exists()
    finally:
        mine.remove()


# --- where groups can be made, on simulated machines ---


def machine(folder: Path, mounts: str, cgroup: str) -> Path:
    """A simulated process folder in /proc."""
    (folder / "mounts").write_text(mounts)
    (folder / "cgroup").write_text(cgroup)
    return folder


def version_2(folder: Path, controllers: str) -> Path:
    """A machine with cgroup version 2 whose user slice delegates these controllers."""
    slice_ = folder / "sys" / "user.slice"
    (slice_ / "session.scope").mkdir(parents=True)
    (slice_ / "cgroup.subtree_control").write_text(controllers)
    return machine(
        folder, f"cgroup2 {folder}/sys cgroup2 rw 0 0\n", "0::/user.slice/session.scope\n"
    )


def test_version_2_makes_groups_beside_the_own_one(tmp_path: Path) -> None:
    proc = version_2(tmp_path, "cpu memory pids\n")
    found = hierarchy(proc)
    assert found is not None
    assert found.folder == tmp_path / "sys" / "user.slice"
    group = found.group("one", 5 * MB)
    assert (group.folder / "memory.max").read_text() == str(5 * MB)
    assert not group.overrun
    (group.folder / "memory.events").write_text("low 0\noom 3\noom_kill 0\n")
    assert not group.overrun
    (group.folder / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
    assert group.overrun


@pytest.mark.parametrize("controllers", ["", "cpu pids\n"])
def test_version_2_without_memory_has_no_groups(tmp_path: Path, controllers: str) -> None:
    assert hierarchy(version_2(tmp_path, controllers)) is None


def test_a_machine_without_control_groups_has_none(tmp_path: Path) -> None:
    assert hierarchy(machine(tmp_path, "proc /proc proc rw 0 0\n", "")) is None
    assert hierarchy(tmp_path / "nothing") is None


def test_a_hierarchy_that_is_read_only_is_none(tmp_path: Path) -> None:
    # Nobody can create a folder in /proc.
    own = "4:memory:/fs\n"
    assert hierarchy(machine(tmp_path, "cgroup /proc/sys cgroup rw,memory 0 0\n", own)) is None
