"""A submission as it arrived, and a copy of it with every file where it belongs.

This module looks at what lies in a folder; `finding` decides what it is.  The grader parses no
submitted file: it lists files and searches their bytes for bytes of the release.  Archives are
unpacked in the sandbox.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

import nbformat
import numpy as np
from nbformat import NotebookNode

from autograder.engine import finding
from autograder.engine.errand import Overrun, ask
from autograder.engine.files import Found, listing, read_regular, start_of
from autograder.engine.finding import Candidate, Finding
from autograder.engine.notebook import grade_id, is_solution
from autograder.engine.reading import SIZE_LIMIT
from autograder.engine.sandbox import Sandbox
from autograder.engine.submission import CHECKPOINT_LIMIT
from autograder.errors import CannotGrade, GraderFault, printable
from autograder.kernel.archive import START, begins_like_json, eights, is_inside
from autograder.kernel.child import GB, Limits

MOST = 20_000  # files and folders to look at
NOTEBOOKS = 40  # candidates for the notebook, each read byte by byte
STARTS = 500  # files of any other name whose first bytes are read
WANTED_LIMIT = 2 << 30  # bytes of all wanted files together
ARCHIVES = 8  # archives to unpack per level of nesting
LEVELS = 2  # a learning platform's archive holds the student's archive
SPARE = (".zip", *finding.KERAS)  # kept from an archive besides the wanted files
LIMITS = Limits(memory=2 * GB, disk=1 << 20, files=10, processes=2, cpu=60)
SECONDS = 300.0  # wall time; the limit that matters is `cpu`
_LINE = 30  # characters that make a line of text distinctive


@dataclass(frozen=True)
class Release:
    """The assignment as it was handed out, and the notebook to find.

    Attributes:
        folder: the release folder.
        notebook: the name of the notebook to find.
        patterns: glob patterns of the other files that grading may depend on.

    """

    folder: Path
    notebook: str
    patterns: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """The names of all its notebooks."""
        return sorted(path.stem for path in self.folder.glob("*.ipynb"))

    @property
    def given(self) -> set[str]:
        """The names of its other files."""
        return {path.name for path in self.folder.iterdir() if path.suffix != ".ipynb"}


@dataclass(frozen=True)
class Arrived:
    """The contents of a submission.

    Attributes:
        folder: the submission folder.
        files: the regular files in it, by path.
        said: remarks for the student and the instructor.
        room: the folder its archives were unpacked into, each under its own path; None if none was.
        inside: the unpacked files, by path.

    """

    folder: Path
    files: dict[str, Found]
    said: tuple[str, ...] = ()
    room: Path | None = None
    inside: dict[str, Found] = field(default_factory=dict)

    @property
    def all(self) -> dict[str, Found]:
        """The files of the folder and the unpacked files."""
        return self.files | self.inside

    def read(self, path: str, limit: int, own_links: bool = False) -> bytes:
        """The content of one file; raises as `read_regular` does."""
        if path in self.inside:
            assert self.room is not None
            return read_regular(self.room, path, limit)
        return read_regular(self.folder, path, limit, own_links)


def survey(folder: Path, only: Collection[str] = ()) -> Arrived:
    """The files in `folder`, or in its entries named in `only`, except those that tools made.

    Raises CannotGrade when `folder` is not a folder.
    """
    if os.path.lexists(folder) and (folder.is_symlink() or not folder.is_dir()):
        raise CannotGrade("what was handed in is not a folder")

    def leave(path: str, inside: Collection[str]) -> bool:
        name = os.path.basename(path)
        return bool(path) and (
            finding.passed_over(name)
            or finding.ENVIRONMENT in inside
            or (bool(only) and path.partition("/")[0] not in only)
        )

    found, complete = listing(folder, MOST, leave)
    files = {
        one.path: one
        for one in found
        if not os.path.basename(one.path).startswith("._")
        and (not only or one.path.partition("/")[0] in only)
    }
    said = () if complete else (f"more than {MOST} files were handed in, not all were looked at",)
    return Arrived(folder, files, said)


def look(arrived: Arrived, release: Release) -> Finding:
    """Find the release's notebook in a submission, and the files that belong to it.

    Raises CannotGrade when the wanted files are absurdly large.
    """
    files = arrived.all
    candidates = _candidates(arrived, release)
    found = finding.find(
        release.notebook,
        release.names,
        release.patterns,
        {path: one.size for path, one in files.items()},
        {path: one.modified for path, one in files.items()},
        candidates,
        release.given,
    )
    if sum(files[path].size for path in found.files.values()) > WANTED_LIMIT:
        raise CannotGrade(f"the submission holds more than {WANTED_LIMIT >> 30} GB")
    return replace(found, said=(*arrived.said, *found.said))


def taken_for(folder: Path, release: Path) -> dict[str, str]:
    """Map each notebook to the submitted file that serves as it, with archives left closed."""
    arrived = survey(folder)
    names = sorted(path.stem for path in release.glob("*.ipynb"))
    found = {name: look(arrived, Release(release, name, ())).files for name in names}
    return {name: files[own] for name, files in found.items() if (own := f"{name}.ipynb") in files}


def archives(arrived: Arrived) -> list[str]:
    """Paths of the archives to unpack next, top-level ones first.

    These are the submission's own archives or, once those are unpacked, the archives inside them.
    """
    files = arrived.files if arrived.room is None else arrived.inside
    paths = [path for path in files if finding.is_archive(path)]
    return sorted(paths, key=lambda path: (path.count("/"), path))[:ARCHIVES]


def needs_archives(arrived: Arrived, found: Finding) -> bool:
    """Whether a wanted file may still lie in an archive."""
    return not found.complete and bool(archives(arrived))


def content(arrived: Arrived, where: str, path: str, limit: int) -> bytes:
    """The content of the file that belongs at `where`; raises as `read_regular` does.

    A hard link is accepted if it is the folder owner's, but never for a module: student code sees
    what it imports.
    """
    return arrived.read(path, limit, own_links=not where.endswith(".py"))


@dataclass(frozen=True)
class Laid:
    """A submission with every file where it belongs.

    Attributes:
        folder: a private copy.
        found: what was found, and where.
        unread: why a file could not be read, by where it belongs.

    """

    folder: Path
    found: Finding
    unread: Mapping[str, str]


@contextlib.contextmanager
def laid_out(
    folder: Path, only: Collection[str], release: Release, sandbox: Sandbox
) -> Iterator[Laid]:
    """Find every wanted file, searching archives too, and copy it to where it belongs.

    Raises CannotGrade when the files are too large.
    """
    place = Path(tempfile.mkdtemp(prefix="kit-laid-", dir=sandbox.folder))
    try:
        arrived = survey(folder, only)
        found = look(arrived, release)
        for _ in range(LEVELS):
            if needs_archives(arrived, found):
                arrived = _unpack(arrived, place / "unpacked", release, sandbox)
                found = look(arrived, release)
        target = place / "files"
        target.mkdir()
        unread = {}
        for where, path in found.files.items():
            limit = SIZE_LIMIT if where.endswith(".ipynb") else CHECKPOINT_LIMIT
            try:
                data = content(arrived, where, path, limit)
            except FileNotFoundError:
                continue
            except CannotGrade as error:
                unread[where] = str(error)
                continue
            (target / where).parent.mkdir(parents=True, exist_ok=True)
            (target / where).write_bytes(data)
        yield Laid(target, found, unread)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _unpack(arrived: Arrived, room: Path, release: Release, sandbox: Sandbox) -> Arrived:
    """Add what the archives hold.  Raises GraderFault when this machine could not unpack them."""
    words = [".ipynb", ".json", *map(_word, release.patterns)]
    inside = dict(arrived.inside)
    opened: set[str] = set()
    said = list(arrived.said)
    left = WANTED_LIMIT - sum(one.size for one in inside.values())
    for path in archives(arrived):
        try:
            data = arrived.read(path, CHECKPOINT_LIMIT, own_links=True)
            members = _members(data, words, sandbox)
        except (CannotGrade, FileNotFoundError) as error:
            said.append(f"{printable(path)} could not be unpacked: {printable(error)}")
            continue
        said.append(f"{printable(path)} was unpacked")
        if path in arrived.inside:
            (room / path).unlink()  # its contents go into a folder of the same name
        for name, when, text in members:
            left -= len(text)
            own = f"{path}/{name}"
            if left < 0 or any(finding.passed_over(part) for part in name.split("/")[:-1]):
                continue
            with contextlib.suppress(OSError):  # a file already has the folder's name
                (room / own).parent.mkdir(parents=True, exist_ok=True)
                (room / own).write_bytes(text)
                inside[own] = Found(own, len(text), when)
                opened.add(path)
    files = {path: one for path, one in arrived.files.items() if path not in opened}
    inside = {path: one for path, one in inside.items() if path not in opened}
    return Arrived(arrived.folder, files, tuple(said), room, inside)


def _word(pattern: str) -> str:
    """A part of every name the pattern matches, as far as copying leaves the name alone."""
    texts = [text for text in re.split(r"[*?\[\]/]", pattern) if text]
    return re.split(r"[\s_-]", texts[0])[0].casefold() if texts else ""


def _members(data: bytes, words: list[str], sandbox: Sandbox) -> Iterator[tuple[str, int, bytes]]:
    """Name, time and content of each wanted member of an archive.

    Raises CannotGrade with the reason, phrased with "it" as the subject, or GraderFault.
    """
    question = {
        "op": "archive",
        "data": eights(data),
        "size": len(data),
        "words": words,
        "spare": list(SPARE),
        "skipped": sorted(finding.MADE),
        "environment": finding.ENVIRONMENT,
    }
    try:
        answer = ask(sandbox, "archive", question, limits=LIMITS, seconds=SECONDS)
    except Overrun as error:
        raise CannotGrade(f"it {error}" if str(error) else "it is damaged") from error
    except GraderFault as error:
        raise GraderFault(f"an archive could not be unpacked: {error}") from error
    match answer:
        case {"error": str(), "message": str(message)}:
            raise CannotGrade(printable(message, 120))
        case {
            "value": {
                "names": list(names),
                "sizes": np.ndarray() as sizes,
                "modified": np.ndarray() as times,
                "content": np.ndarray() as joined,
            }
        } if _fit(names, sizes, times, joined):
            ends = np.cumsum(sizes).tolist()
            whole = joined.tobytes()
            return iter(
                [
                    (name, when, whole[end - size : end])
                    for name, size, when, end in zip(
                        names, sizes.tolist(), times.tolist(), ends, strict=True
                    )
                ]
            )
    raise CannotGrade("it is damaged")


def _fit(names: list[object], sizes: np.ndarray, times: np.ndarray, joined: np.ndarray) -> bool:
    """Whether an answer describes members whose names are paths inside a folder."""
    return (
        all(isinstance(name, str) and is_inside(name) for name in names)
        and sizes.dtype == times.dtype == np.int64
        and joined.dtype == np.uint64
        and sizes.shape == times.shape == (len(names),)
        and joined.ndim == 1
        and bool((sizes >= 0).all())
        and 0 <= 8 * len(joined) - int(sizes.sum()) < 8
    )


# --- identifying a notebook by its bytes ---


@dataclass(frozen=True)
class _Marks:
    """Marks that identify the file of a released notebook, as they stand in its JSON.

    Attributes:
        ids: each `grade_id` that only this notebook has.
        lines: lines of text that only this notebook has.
        answers: patterns of the solution cells as they were handed out.

    """

    ids: frozenset[bytes]
    lines: frozenset[bytes]
    answers: tuple[re.Pattern[bytes], ...]


def _candidates(arrived: Arrived, release: Release) -> list[Candidate]:
    """The files that may be notebooks: by their names or, if none is the one, by their cells."""
    names = release.names

    def order(path: str) -> tuple[bool, bool, int, str]:
        name = finding.named(path, names)
        return name != release.notebook, name is None, path.count("/"), path

    files = sorted(arrived.all, key=order)
    paths = [path for path in files if finding.may_be_notebook(path)][:NOTEBOOKS]
    found = [one for path in paths if (one := _candidate(arrived, release, path))]
    if any(one.whole and finding.serves(one, names) == release.notebook for one in found):
        return found
    others = [path for path in files if finding.may_hold_cells(path, release.patterns)]
    for path in [path for path in others[:STARTS] if _may_begin(arrived, path)][:NOTEBOOKS]:
        one = _candidate(arrived, release, path)
        if one is not None and one.of is not None:
            found.append(one)
    return found


def _candidate(arrived: Arrived, release: Release, path: str) -> Candidate | None:
    """What a file is by its content; None if it is no notebook."""
    one = arrived.all[path]
    root = _root(arrived, path)
    version = (one.size, one.modified, _changed(root / path))
    try:
        of, whole, changed, digest = _told(
            root, path, path in arrived.files, version, _released(release.folder)
        )
    except FileNotFoundError:
        return None
    except CannotGrade:  # too large, or linked: its name may still identify it
        of, whole, changed, digest = None, False, False, os.fsencode(path)
    known = of is not None or finding.named(path, release.names) is not None
    if not known and not path.endswith(".ipynb"):
        return None  # some other JSON
    return Candidate(path, one.modified, of, whole, changed, digest)


def _root(arrived: Arrived, path: str) -> Path:
    root = arrived.folder if path in arrived.files else arrived.room
    assert root is not None
    return root


def _may_begin(arrived: Arrived, path: str) -> bool:
    """Whether a file begins as a notebook does."""
    if arrived.all[path].size > SIZE_LIMIT:
        return False
    root, own_links = _root(arrived, path), path in arrived.files
    try:
        start = start_of(root, path, START, SIZE_LIMIT, own_links)
    except (CannotGrade, FileNotFoundError):
        return False
    return begins_like_json(start)


def _changed(path: Path) -> tuple[int, int]:
    try:
        status = os.lstat(path)
    except OSError:
        return 0, 0
    return status.st_ino, status.st_ctime_ns


@functools.lru_cache(maxsize=2048)
def _told(
    root: Path,
    path: str,
    own_links: bool,
    version: object,
    released: tuple[tuple[str, _Marks], ...],
) -> tuple[str | None, bool, bool, bytes]:
    """The fields of a `Candidate` that depend on the file's content."""
    data = read_regular(root, path, SIZE_LIMIT, own_links)
    digest = sha256(data).digest()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        data = data.decode("utf-16", "replace").encode()
    whole = data.rstrip(b"\0 \t\r\n").endswith(b"}")
    shares = {name: _share(marks, data) for name, marks in released}
    of = max(shares, key=shares.__getitem__, default=None)
    if of is None or shares[of] < 0.5:
        return None, whole, whole, digest
    answers = dict(released)[of].answers
    return of, whole, not all(answer.search(data) for answer in answers), digest


def _share(marks: _Marks, data: bytes) -> float:
    """The share of a notebook's cell ids found in a file or, if none is, of its lines of text."""
    for words in (marks.ids, marks.lines):
        there = sum(word in data for word in words)
        if there:
            return there / len(words)
    return 0.0


def _released(folder: Path) -> tuple[tuple[str, _Marks], ...]:
    paths = sorted(folder.glob("*.ipynb"))
    return _marks_of(tuple((path, path.stat().st_mtime_ns) for path in paths))


@functools.lru_cache(maxsize=64)
def _marks_of(paths: tuple[tuple[Path, int], ...]) -> tuple[tuple[str, _Marks], ...]:
    books = {path.stem: nbformat.read(path, as_version=4) for path, _ in paths}
    ids = {
        name: {f'"{identity}"'.encode() for cell in book.cells if (identity := grade_id(cell))}
        for name, book in books.items()
    }
    lines = {name: _lines(book) for name, book in books.items()}
    return tuple(
        (
            name,
            _Marks(
                _own(name, ids),
                _own(name, lines),
                tuple(_verbatim(cell.source) for cell in book.cells if is_solution(cell)),
            ),
        )
        for name, book in books.items()
    )


def _own(name: str, words: Mapping[str, set[bytes]]) -> frozenset[bytes]:
    """The words that only this notebook has."""
    others = (its for other, its in words.items() if other != name)
    return frozenset(words[name].difference(*others))


def _lines(book: NotebookNode) -> set[bytes]:
    """Distinctive lines of cells that read the same in the notebook's JSON."""
    lines = [line.strip() for cell in book.cells for line in cell.source.splitlines()]
    return {
        line.encode()
        for line in lines
        if len(line) >= _LINE and line.isascii() and not set(line) & set('"\\')
    }


def _verbatim(source: str) -> re.Pattern[bytes]:
    """A pattern that matches a cell's unchanged source in a notebook file."""
    ways = []
    for plain_ascii in (False, True):
        lines = [json.dumps(line, ensure_ascii=plain_ascii) for line in source.splitlines(True)]
        joined = json.dumps(source, ensure_ascii=plain_ascii)
        ways += [r"\[\s*" + r",\s*".join(map(re.escape, lines)) + r"\s*\]", re.escape(joined)]
    return re.compile("|".join(dict.fromkeys(ways)).encode())
