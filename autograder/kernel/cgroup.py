"""A memory limit on a kernel and everything it starts, enforced by Linux.

This needs a control-group hierarchy in which the user may create groups: root's, or one that
systemd has delegated; containers seldom have one.  Without it, only the watcher in `usage` bounds
memory, with four looks a second.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

_PREFIX = "kit-"


@dataclass(frozen=True)
class Group:
    """One control group, which limits what its processes use together."""

    folder: Path

    def add(self, pid: int) -> None:
        """Add a process to the group; everything it starts afterwards belongs to the group too.

        Raises OSError when Linux refuses.
        """
        (self.folder / "cgroup.procs").write_text(str(pid))

    @property
    def overrun(self) -> bool:
        """Whether Linux has killed a process of the group because the limit was reached."""
        for name in ("memory.events", "memory.oom_control"):
            with contextlib.suppress(OSError):
                lines = (self.folder / name).read_text().splitlines()
                return any(
                    line.startswith("oom_kill ") and line.split()[1] != "0" for line in lines
                )
        return False

    def remove(self) -> None:
        """Remove the group, once its processes are gone."""
        with contextlib.suppress(OSError):  # otherwise the next interpreter's `sweep` does it
            self.folder.rmdir()


@dataclass(frozen=True)
class Hierarchy:
    """A folder of the control-group file system in which groups can be created.

    Attributes:
        folder: its path.
        limits: files that take the limit; the first one must exist.

    """

    folder: Path
    limits: tuple[str, ...]

    def group(self, name: str, memory: int) -> Group:
        """A new group limited to `memory` bytes, including swap.  Raises OSError."""
        group = Group(self.folder / f"{_PREFIX}{os.getpid()}-{name}")
        group.folder.mkdir()
        try:
            for position, limit in enumerate(self.limits):
                path = group.folder / limit
                if position == 0 or path.exists():
                    path.write_text("0" if limit == "memory.swap.max" else str(memory))
        except OSError:
            group.remove()
            raise
        return group

    def sweep(self) -> None:
        """Remove the groups of interpreters that were killed."""
        for path in self.folder.glob(f"{_PREFIX}*-*"):
            owner = path.name[len(_PREFIX) :].partition("-")[0]
            if not os.path.exists(f"/proc/{owner}"):
                Group(path).remove()


def hierarchy(proc: Path = Path("/proc/self")) -> Hierarchy | None:
    """The hierarchy in which this process can limit memory, found by trying; None if there is none.

    proc: the process's folder in /proc.
    """
    for folder, limits in _candidates(proc):
        found = Hierarchy(folder, limits)
        try:
            found.sweep()
            found.group("trial", 1 << 30).remove()
        except OSError:
            continue
        return found
    return None


def _candidates(proc: Path) -> list[tuple[Path, tuple[str, ...]]]:
    """Candidate folders, for versions 2 and 1 of control groups."""
    try:
        mounts = [line.split() for line in (proc / "mounts").read_text().splitlines()]
        own = [line.split(":", 2) for line in (proc / "cgroup").read_text().splitlines()]
    except OSError:
        return []
    found: list[tuple[Path, tuple[str, ...]]] = []
    for number, controllers, path in own:
        for _, point, kind, options, *_ in mounts:
            if number == "0" and kind == "cgroup2":
                # A sibling of our group: one that holds processes cannot hold limited groups.
                parent = (Path(point) / path.lstrip("/")).parent
                with contextlib.suppress(OSError):
                    if "memory" in (parent / "cgroup.subtree_control").read_text().split():
                        found.append((parent, ("memory.max", "memory.swap.max")))
            elif "memory" in controllers.split(",") and "memory" in options.split(","):
                limits = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
                found.append((Path(point) / path.lstrip("/"), limits))
    return found
