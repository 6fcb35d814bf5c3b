"""The files of one submission other than its notebooks, with checkpoints read as data."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np

from autograder.engine.clock import PATIENCE
from autograder.engine.errand import Overrun, ask
from autograder.engine.files import read_regular, remove, walk
from autograder.engine.finding import is_needed, listed
from autograder.engine.sandbox import Sandbox
from autograder.engine.values import NoValue
from autograder.errors import CannotGrade, GraderFault
from autograder.kernel.child import Limits

FILE_COUNT = 2000
SUBMISSION_LIMIT = 2 << 30
CHECKPOINT_LIMIT = 200 << 20
READ_SECONDS = 60  # processor time; the largest checkpoint takes one or two
TELLING = 8  # distinctive numbers that identify a tensor
_Version = tuple[tuple[str, int, int, int], ...]  # of files: name, inode, size, ctime
_ELSEWHERE = re.compile(
    rb'^([ \t]*(?:all_model_checkpoint_paths|model_checkpoint_path)[ \t]*:[ \t]*")'
    rb'(?:/|\\\\|[A-Za-z]:(?:/|\\\\))(?:[^"\n]*(?:/|\\\\))?((?:[^"/\\\n]|\\[^\\\n])+)(?=")',
    re.MULTILINE,
)
_SHARD = re.compile(r"\.(index|data-\d{5}-of-\d{5})")
_POINTER = b"version https://git-lfs"  # how Git LFS's placeholder for a file begins
_COPY = "copy it again, whole, from where the notebook has written it, and hand that in"


class Unusable(NoValue):
    """The files handed in as a checkpoint cannot be used, whatever the notebook does with them."""


def needed(folder: Path, patterns: Iterable[str]) -> list[str]:
    """Paths of submitted files, other than notebooks, that a grading may depend on.

    They match one of the `patterns`; other notebooks and nbgrader's own files never do.  A kernel
    and the checks get no other files, so these are the files to send to workers and to derive cache
    keys from.  Raises CannotGrade when the submission is absurdly large.
    """
    files = walk(folder, FILE_COUNT, SUBMISSION_LIMIT)
    return [found.path for found in files if is_needed(found.path, patterns)]


class SubmittedFiles:
    """Reads the files in `folder`; a process in the sandbox reads the tensors of checkpoints.

    patterns: the files that count (see `needed`).
    unread: why files that were handed in could not be read.
    instead: Keras model files that were handed in instead of a checkpoint.
    handed_in: whether the files were handed in, rather than written by a notebook.
    """

    def __init__(
        self,
        folder: Path,
        sandbox: Sandbox,
        patterns: tuple[str, ...] = ("*",),
        unread: Mapping[str, str] | None = None,
        instead: Sequence[str] = (),
        *,
        handed_in: bool = True,
    ) -> None:
        self.folder = folder
        self._sandbox = sandbox
        self._patterns = patterns
        self._unread = unread or {}
        self._instead = instead
        self._handed_in = handed_in
        self._absent = "not handed in" if handed_in else "not written"
        self.digests: set[str] = set()  # of the distinctive tensors read so far
        self._read: dict[str, tuple[_Version, dict[str, np.ndarray]]] = {}

    def names(self) -> list[str]:
        """Paths of the regular files, sorted; empty when there are absurdly many."""
        try:
            return sorted(needed(self.folder, self._patterns))
        except CannotGrade:
            return []

    def text(self, path: str, limit: int = 1 << 16) -> str:
        """A small text file.  Raises NoValue when it is missing or not a regular file."""
        if path in self._unread:
            raise NoValue(self._unread[path])
        if not is_needed(path, self._patterns):
            raise NoValue(f"{path} was {self._absent}")
        try:
            return read_regular(self.folder, path, limit).decode("utf-8", "replace")
        except FileNotFoundError as error:
            raise NoValue(f"{path} was {self._absent}") from error
        except CannotGrade as error:
            raise NoValue(str(error)) from error

    def tensors(self, prefix: str) -> dict[str, np.ndarray]:
        """Every numeric tensor of the checkpoint `prefix`, by name; read-only arrays.

        Files are read again only after they change.  Raises NoValue when files are missing, are not
        regular files or hold no checkpoint; it is Unusable when something was handed in for them.
        """
        version = self._version(prefix)
        if prefix not in self._read or self._read[prefix][0] != version:
            self._read[prefix] = version, self._tensors(prefix)
        return self._read[prefix][1]

    def _version(self, prefix: str) -> _Version:
        """A value that changes with the checkpoint's files; nobody can reset a file's ctime."""
        found = []
        for name in self.names():
            if name.startswith(prefix):
                with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                    status = os.lstat(self.folder / name)
                    found.append((name, status.st_ino, status.st_size, status.st_ctime_ns))
        return tuple(found)

    def _tensors(self, prefix: str) -> dict[str, np.ndarray]:
        private = Path(tempfile.mkdtemp(prefix="kit-ckpt-", dir=self._sandbox.folder))
        try:
            name = os.path.basename(prefix)
            self._copy(prefix, private / name)
            tensors = read_tensors(private, name, self._sandbox)
            self.digests |= tell_tales(tensors)
            for tensor in tensors.values():
                tensor.flags.writeable = False
            return tensors
        except Unusable as error:
            if self._handed_in:
                raise
            raise NoValue(str(error)) from error
        finally:
            remove(private)

    def _copy(self, prefix: str, private: Path) -> None:
        """Copy the files of a checkpoint to the prefix `private`."""
        for name, why in self._unread.items():
            if _SHARD.fullmatch(name.removeprefix(prefix)):
                raise Unusable(why)
        tails = [name[len(prefix) :] for name in self.names() if name.startswith(prefix)]
        suffixes = [tail for tail in tails if _SHARD.fullmatch(tail)]
        index, data = f"{prefix}.index", f"{prefix}.data-00000-of-00001"
        if not suffixes and self._instead:
            raise Unusable(
                f"in place of {index} there is {listed(self._instead)}, in another format: the "
                "notebook saves with tf.train.Saver; hand in the three files that it writes, "
                f"checkpoint, {index} and {data}"
            )
        if not suffixes:
            raise NoValue(f"{index} and {prefix}.data-… were {self._absent}")
        if ".index" not in suffixes or len(suffixes) < 2:
            missing = data if ".index" in suffixes else index
            there = prefix + suffixes[0]
            raise Unusable(
                f"{missing} was {self._absent}, and {there} cannot be read without it: hand in both"
            )
        for suffix in suffixes:
            name = prefix + suffix
            try:
                content = read_regular(self.folder, name, CHECKPOINT_LIMIT)
            except CannotGrade as error:
                raise Unusable(str(error)) from error
            if not content:
                raise Unusable(f"{name} is empty: {_COPY}")
            if content.startswith(_POINTER):
                raise Unusable(
                    f"{name} is only a pointer of Git LFS to the file of that name: run "
                    "git lfs pull, and hand in the file that lies there then"
                )
            Path(f"{private}{suffix}").write_bytes(content)


def beside(index: bytes) -> bytes:
    """TensorFlow's `checkpoint` file, with bare names in place of another machine's paths.

    This applies to absolute paths, including Windows paths, whose separators are doubled in that
    file; relative paths stay as they are.
    """
    return _ELSEWHERE.sub(rb"\1\2", index)


def tell_tales(tensors: Mapping[str, np.ndarray]) -> set[str]:
    """Digests by which two checkpoints show that they are one file or share a part.

    There is one for each distinctive tensor or, for a network whose tensors are too small for that,
    one for all tensors together.
    """
    found = {digest for tensor in tensors.values() if (digest := tell_tale(tensor))}
    if found or sum(map(_telling, tensors.values())) < TELLING:
        return found
    return {_digest(*(tensors[name] for name in sorted(tensors)))}


def tell_tale(tensor: np.ndarray) -> str:
    """The digest of a tensor that no other training arrives at; "" if another one might."""
    return _digest(tensor) if _telling(tensor) >= TELLING else ""


def _telling(tensor: np.ndarray) -> int:
    """How many distinct numbers in a tensor nobody writes by hand; counts no further than needed.

    Repeated numbers and those with at most three decimals may be a counter, a constant or a filter
    of the course's own.  Two trainings never agree bit for bit in `TELLING` other numbers.
    """
    if tensor.dtype.kind != "f":
        return 0
    numbers = tensor.reshape(-1)
    for part in (numbers[:: max(1, numbers.size // 1000)], numbers):
        distinct = np.unique(part[np.isfinite(part)])
        count = int(np.count_nonzero(np.round(distinct, 3) != distinct))
        if count >= TELLING:
            break
    return count


def _digest(*tensors: np.ndarray) -> str:
    digest = sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype.name} {tensor.shape} ".encode())
        digest.update(np.ascontiguousarray(tensor).tobytes())
    return digest.hexdigest()[:32]


def read_tensors(folder: Path, prefix: str, sandbox: Sandbox) -> dict[str, np.ndarray]:
    """The tensors of `folder/prefix`, read by a process that runs no student code.

    Raises Unusable when the checkpoint cannot be read within the limits, GraderFault when this
    machine prevented it.
    """
    sizes = {path.name: path.stat().st_size for path in folder.glob(f"{prefix}.data-*")}
    question = {"op": "tensors", "prefix": prefix, "names": None}
    try:
        answer = ask(
            *(sandbox, "checkpoint", question),
            limits=Limits(cpu=READ_SECONDS),
            seconds=PATIENCE * READ_SECONDS,
            scratch=folder,
        )
    except Overrun as error:
        why = f"that {error}" if str(error) else "its files are damaged"
        raise Unusable(f"the checkpoint could not be read: {why}") from error
    except GraderFault as error:
        raise GraderFault(f"the checkpoint could not be read: {error}") from error
    match answer:
        case {"value": dict(tensors)} if all(
            isinstance(tensor, np.ndarray) for tensor in tensors.values()
        ):
            return tensors
        case {"needs": None}:
            raise Unusable(f"{prefix}.index is cut off, or damaged: {_COPY}")
        case {"needs": int(needs)} if len(sizes) == 1 and needs <= CHECKPOINT_LIMIT:
            ((name, size),) = sizes.items()
            if size < needs:
                raise Unusable(
                    f"{name} is cut off: {size:,} bytes are there of the {needs:,} that "
                    f"{prefix}.index lists; {_COPY}"
                )
    raise Unusable("the checkpoint could not be read: its files are damaged or not a checkpoint")
