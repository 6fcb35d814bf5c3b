"""The files of one submission, beside its notebooks; checkpoints among them are data."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import tempfile
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from secrets import token_hex

import numpy as np

from autograder import wire
from autograder.engine.files import Found, read_regular, remove, walk
from autograder.engine.sandbox import Sandbox
from autograder.engine.values import NoValue
from autograder.engine.warm import Forked
from autograder.errors import CannotGrade, GraderFault
from autograder.kernel.child import Order

FILE_COUNT = 2000
SUBMISSION_LIMIT = 2 << 30
CHECKPOINT_LIMIT = 200 << 20
READ_SECONDS = 60.0
_Version = tuple[tuple[str, int, int, int], ...]  # of files: name, inode, size, ctime
_SHARD = re.compile(r"\.(index|data-\d{5}-of-\d{5})")


def handed_in(folder: Path) -> Iterator[Found]:
    """The regular files of a submission.  Raises CannotGrade when it is absurdly large."""
    return walk(folder, FILE_COUNT, SUBMISSION_LIMIT)


class SubmittedFiles:
    """Reads the files in `folder`; tensors of checkpoints in a process in the sandbox.

    absent: what to say of a file that is not there.
    """

    def __init__(self, folder: Path, sandbox: Sandbox, absent: str = "not handed in") -> None:
        self.folder = folder
        self._sandbox = sandbox
        self._absent = absent
        self.digests: set[str] = set()  # of the tensors read so far that tell whose they are
        self._read: dict[str, tuple[_Version, dict[str, np.ndarray]]] = {}

    def names(self) -> list[str]:
        """Paths of the regular files, sorted; empty when there are absurdly many."""
        try:
            return sorted(found.path for found in walk(self.folder, FILE_COUNT))
        except CannotGrade:
            return []

    def text(self, path: str, limit: int = 1 << 16) -> str:
        """A small text file.  Raises NoValue when it is not there or no regular file."""
        try:
            return read_regular(self.folder, path, limit).decode("utf-8", "replace")
        except FileNotFoundError as error:
            raise NoValue(f"{path} was {self._absent}") from error
        except CannotGrade as error:
            raise NoValue(str(error)) from error

    def tensors(self, prefix: str) -> dict[str, np.ndarray]:
        """Every numeric tensor of the checkpoint `prefix`, by name; read-only arrays.

        Files that have not changed are read once.  Raises NoValue when files are missing, are no
        regular files, or hold no checkpoint.
        """
        version = self._version(prefix)
        if prefix not in self._read or self._read[prefix][0] != version:
            self._read[prefix] = version, self._tensors(prefix)
        return self._read[prefix][1]

    def _version(self, prefix: str) -> _Version:
        """What changes when a file of the checkpoint does; nobody can set back its ctime."""
        found = []
        for name in self.names():
            if name.startswith(prefix):
                with contextlib.suppress(FileNotFoundError):
                    status = os.lstat(self.folder / name)
                    found.append((name, status.st_ino, status.st_size, status.st_ctime_ns))
        return tuple(found)

    def _tensors(self, prefix: str) -> dict[str, np.ndarray]:
        private = Path(tempfile.mkdtemp(prefix="kit-ckpt-", dir=self._sandbox.folder))
        try:
            self._copy(prefix, private)
            tensors = read_tensors(private, "checkpoint", self._sandbox)
            self.digests |= {digest for t in tensors.values() if (digest := tell_tale(t))}
            for tensor in tensors.values():
                tensor.flags.writeable = False
            return tensors
        finally:
            remove(private)

    def _copy(self, prefix: str, private: Path) -> None:
        tails = [name[len(prefix) :] for name in self.names() if name.startswith(prefix)]
        suffixes = [tail for tail in tails if _SHARD.fullmatch(tail)]
        if ".index" not in suffixes or len(suffixes) < 2:
            raise NoValue(f"{prefix}.index and {prefix}.data-… were {self._absent}")
        for suffix in suffixes:
            try:
                data = read_regular(self.folder, prefix + suffix, CHECKPOINT_LIMIT)
            except CannotGrade as error:
                raise NoValue(str(error)) from error
            (private / f"checkpoint{suffix}").write_bytes(data)


def tell_tale(tensor: np.ndarray) -> str:
    """A digest of a tensor that nobody else arrives at by training; "" for one that may be.

    Two networks never agree in a hundred trained numbers, bit for bit; they do in zeros.
    """
    if tensor.size < 100 or (tensor == tensor.flat[0]).all():
        return ""
    described = f"{tensor.dtype.name} {tensor.shape} ".encode()
    return sha256(described + np.ascontiguousarray(tensor).tobytes()).hexdigest()[:32]


def read_tensors(folder: Path, prefix: str, sandbox: Sandbox) -> dict[str, np.ndarray]:
    """The tensors of `folder/prefix`, read by a process that runs no student code.

    Raises NoValue when the checkpoint cannot be read, GraderFault when that takes too long.
    """
    ours, theirs = socket.socketpair()
    log = os.open(os.devnull, os.O_WRONLY)
    environment = {"PATH": os.defpath, "LANG": "C.UTF-8", "TF_CPP_MIN_LOG_LEVEL": "2"}
    order = Order(
        entry="checkpoint", level=sandbox.level, scratch=str(folder), environment=environment
    )
    try:
        process = Forked(sandbox.address, order, theirs.fileno(), log)
    finally:
        theirs.close()
        os.close(log)
    identity = token_hex(8)
    question = {"id": identity, "op": "tensors", "prefix": prefix, "names": None}
    deadline = time.monotonic() + READ_SECONDS
    try:
        wire.send(ours, question, deadline)
        answer = wire.receive(ours, deadline)
    except wire.WireTimeout as error:
        raise GraderFault(f"reading a checkpoint took more than {READ_SECONDS:.0f} s") from error
    except (wire.WireError, OSError) as error:
        raise NoValue("the checkpoint could not be read: its files are damaged") from error
    finally:
        ours.close()
        process.kill()
    match answer:
        case {"id": str(echoed), "value": dict(tensors)} if echoed == identity and all(
            isinstance(tensor, np.ndarray) for tensor in tensors.values()
        ):
            return tensors
    raise NoValue("the checkpoint could not be read: its files are damaged or not a checkpoint")
