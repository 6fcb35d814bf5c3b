"""Things outside the sandbox that a kernel must not see, change or contact."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.submissions import ROOT


@dataclass(frozen=True)
class Outside:
    """The grader's files, sockets and process, which a kernel must not reach."""

    folder: Path
    tcp: socket.socket
    udp: socket.socket
    abstract: socket.socket
    file: socket.socket
    victim: subprocess.Popen[bytes]

    SECRET = "a canary that sings to nobody"

    @property
    def names(self) -> dict[str, Any]:
        """The names of these things in an attack's code."""
        return {
            "OUTSIDE": str(self.folder),
            "SECRET_FILE": str(self.folder / "secret.txt"),
            "TCP": self.tcp.getsockname(),
            "UDP": self.udp.getsockname(),
            "ABSTRACT": self.abstract.getsockname().decode("latin-1"),
            "SOCKET": str(self.folder / "socket"),
            "VICTIM": self.victim.pid,
            "GRADER": os.getpid(),
            "PACKAGE": str(ROOT / "autograder"),
            "COURSE": str(ROOT),
            "HOME": str(Path.home()),
        }

    def given_to(self, source: str) -> str:
        """`source` with assignments of these names before it."""
        return "\n".join([*(f"{name} = {value!r}" for name, value in self.names.items()), source])

    def look(self) -> tuple[Any, ...]:
        """A snapshot of everything that an attack could change."""
        status = (self.folder / "secret.txt").stat()
        return (
            sorted(path.name for path in self.folder.iterdir()),
            (self.folder / "secret.txt").read_text(),
            (status.st_mode, status.st_uid, status.st_mtime_ns, status.st_nlink),
            self.victim.poll(),
            os.sched_getaffinity(self.victim.pid),
            os.getpriority(os.PRIO_PROCESS, self.victim.pid),
            subprocess.check_output(["prlimit", "--raw", "--pid", str(self.victim.pid)]),
        )

    def heard(self) -> list[str]:
        """The sockets that have received something since the last call."""
        names = []
        for name in ("tcp", "abstract", "file"):
            with contextlib.suppress(BlockingIOError):
                getattr(self, name).accept()[0].close()
                names.append(name)
        with contextlib.suppress(BlockingIOError):
            self.udp.recv(100)
            names.append("udp")
        return names


@contextlib.contextmanager
def standing(folder: Path) -> Iterator[Outside]:
    """Set these things up in `folder` until the block ends."""
    folder.chmod(0o755)
    (folder / "secret.txt").write_text(Outside.SECRET)
    sockets = {
        "tcp": socket.socket(socket.AF_INET, socket.SOCK_STREAM),
        "udp": socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        "abstract": socket.socket(socket.AF_UNIX, socket.SOCK_STREAM),
        "file": socket.socket(socket.AF_UNIX, socket.SOCK_STREAM),
    }
    sockets["tcp"].bind(("127.0.0.1", 0))
    sockets["udp"].bind(("127.0.0.1", 0))
    sockets["abstract"].bind(f"\0kit-{os.getpid()}")
    sockets["file"].bind(str(folder / "socket"))
    for name, each in sockets.items():
        each.setblocking(False)
        if name != "udp":
            each.listen(8)
    victim = subprocess.Popen(["sleep", "3600"])
    try:
        yield Outside(folder, victim=victim, **sockets)
    finally:
        victim.kill()
        victim.wait()
        for each in sockets.values():
            each.close()
