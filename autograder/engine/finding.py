"""Decides which submitted file serves as which, before anything counts as missing.

Browsers, file managers, learning platforms and people rename files, put them into folders and copy
them.  From a listing alone, this module decides which files serve as the notebook and its
checkpoint, and says so in sentences for the student and the instructor.
"""

from __future__ import annotations

import fnmatch
import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from autograder.errors import printable

ADDED = ("timestamp.txt", "submission_secret.txt")  # added by nbgrader; not the student's work
# Folders that editors, tools and operating systems make; hidden ones are skipped too.
MADE = frozenset({"__macosx", "__pycache__", "node_modules", "site-packages", "$recycle.bin"})
# Files that operating systems, and this kit, put among the student's.
CLUTTER = frozenset({"thumbs.db", "desktop.ini", "icon\r", "results.json"})
_PACKED = (".zip", ".rar", ".7z", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".alz", ".egg")
KERAS = (".keras", ".h5", ".hdf5")  # suffixes of Keras model files
_PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".svg", ".heic", ".pdf")
ENVIRONMENT = "pyvenv.cfg"  # marks a virtual environment, whatever its name
# Text that copying and downloading add to a name.
_COPY = re.compile(
    r"^(?:copy(?: \d+)? of|사본 ?-|복사본)[ _-]*"
    r"|[ _]*[(\[（]\d+[)\]）]"
    r"|(?:[ _]*-[ _]*|[ _]+)(?:copy|사본|복사본)[ _]?\d*(?=\.|$)"
    r"|의 사본(?=\.|$)"
)
_WRAPPED = re.compile(r"(?<=.)\.(?:txt|json|bin|download)$")


@dataclass(frozen=True)
class Candidate:
    """A submitted file that may be a notebook, as a search of its bytes describes it.

    Attributes:
        path: below the submission.
        modified: in nanoseconds.
        of: the released notebook whose cells it holds; None if that is unknown.
        whole: whether the file is complete.
        changed: whether any answer in it differs from the release.
        digest: of its content.

    """

    path: str
    modified: int
    of: str | None
    whole: bool
    changed: bool
    digest: bytes


@dataclass(frozen=True)
class Finding:
    """What was found for one notebook.

    Attributes:
        files: where each file belongs → where it lies, including the notebook if it was found.
        said: what was done to find them, one sentence each.
        complete: whether no wanted file can still lie elsewhere, for example in an archive.
        rest: if the notebook was not found, other submitted files that may be it.
        instead: if files that belong to the notebook were not found, Keras model files.

    """

    files: Mapping[str, str]
    said: tuple[str, ...] = ()
    complete: bool = True
    rest: tuple[str, ...] = ()
    instead: tuple[str, ...] = ()


def passed_over(name: str) -> bool:
    """Whether to skip a folder of this name, since no person wrote what is in it."""
    return name.startswith(".") or name.casefold() in MADE


def plain(name: str) -> str:
    """A file name without what copying, downloading and operating systems add to it."""
    found = unicodedata.normalize("NFC", name).casefold().strip()
    before = ""
    while found != before:
        before = found
        found = _WRAPPED.sub("", _COPY.sub("", found)).strip()
    return re.sub(r"[\s_-]+", "-", found)


def _ways(name: str) -> tuple[str, str]:
    """The plain name, with and without the revision number that Canvas appends to the stem."""
    found = plain(name)
    return found, re.sub(r"-\d+(?=\.|$)", "", found, count=1)


def alike(one: str, other: str) -> bool:
    """Whether two names differ only in what `plain` removes."""
    return plain(one) == plain(other)


def same_letters(name: str) -> str:
    """The name in NFC, the form in which names are compared; macOS writes NFD."""
    return unicodedata.normalize("NFC", name)


def named(path: str, names: Iterable[str]) -> str | None:
    """The released notebook that a file is by its name; None when it is none of `names`."""
    name = os.path.basename(path)
    if name.startswith("."):
        return None
    return next((own for own in names if plain(f"{own}.ipynb") in _ways(name)), None)


def may_be_notebook(path: str) -> bool:
    """Whether a file's name allows it to be a notebook."""
    name = os.path.basename(path)
    return not name.startswith(".") and (
        plain(name).endswith(".ipynb") or name.casefold().endswith(".json")
    )


def may_hold_cells(path: str, patterns: Iterable[str]) -> bool:
    """Whether a file may be a notebook although its name does not say so."""
    name = os.path.basename(path)
    other = (".py", *_PACKED, *KERAS, *_PICTURES)
    return not (
        name.startswith(".")
        or may_be_notebook(path)
        or plain(name).endswith(other)
        or is_needed(name, patterns)
    )


def is_archive(path: str) -> bool:
    """Whether a file is a zip archive by its name."""
    name = os.path.basename(path)
    return not name.startswith(".") and plain(name).endswith(".zip")


def is_needed(path: str, patterns: Iterable[str]) -> bool:
    """Whether a grading may depend on a file at that path, other than the notebook."""
    if path in ADDED or path.endswith(".ipynb"):
        return False
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def listed(paths: Sequence[str], most: int = 5) -> str:
    """Paths as part of a sentence, at most `most` of them by name."""
    shown = [printable(path, 120) for path in paths[:most]]
    if len(paths) > most:
        shown.append(f"{len(paths) - most} more")
    *before, last = shown
    return f"{', '.join(before)} and {last}" if before else last


def find(
    notebook: str,
    names: Collection[str],
    patterns: Collection[str],
    sizes: Mapping[str, int],
    modified: Mapping[str, int],
    candidates: Collection[Candidate],
    given: Collection[str],
) -> Finding:
    """Find the files that serve as `notebook` and that match `patterns`.

    names: all notebooks of the assignment.
    sizes: the size of every file in bytes, by path.
    modified: the modification time of every file, by path.
    candidates: the files that may be notebooks.
    given: names of the release's other files.
    """
    target = f"{notebook}.ipynb"
    mine = [c for c in candidates if serves(c, names) == notebook]
    files: dict[str, str] = {}
    said: list[str] = []
    base = ""
    if mine:
        chosen, how = _choice(mine, target)
        files[target] = chosen.path
        base = os.path.dirname(chosen.path)
        said += how
    prefix = f"{base}/" if base else ""
    for path in sizes:
        below = path.removeprefix(prefix)
        if path.startswith(prefix) and _in_place(below, patterns):
            files[below] = path
    lacking = [p for p in patterns if _can_be_renamed(p) and not _filled(p, files, sizes)]
    renamed = _renamed(lacking, sizes, modified)
    said += [
        f"{printable(path)} was taken for {printable(where)}"
        for where, path in renamed.items()
        if files.get(where) != path
    ]
    files |= renamed
    filled = all(_filled(p, files, sizes) for p in lacking)
    complete = bool(mine) and chosen.changed and filled
    rest = () if mine else _rest(notebook, names, patterns, sizes, candidates, given)
    if not complete:
        said += _closed(sizes, {*ADDED, *given})
    instead = () if filled else tuple(sorted(path for path in sizes if _in_keras(path)))
    return Finding(files, tuple(said), complete, rest, instead)


def _closed(paths: Iterable[str], known: Collection[str]) -> list[str]:
    """A remark on archives that are not opened, if there are any."""
    names = ((path, os.path.basename(path)) for path in paths)
    closed = sorted(
        path
        for path, name in names
        if plain(name).endswith(_PACKED)
        and not is_archive(path)
        and not name.startswith(".")
        and name not in known
    )
    if not closed:
        return []
    what = "is an archive" if len(closed) == 1 else "are archives"
    said = f"{listed(closed)} {what} of a kind that is not opened here"
    return [f"{said}: hand in a .zip, or the files themselves"]


def serves(candidate: Candidate, names: Collection[str]) -> str | None:
    """The notebook that a file is: by its cells or, failing that, by its name."""
    return candidate.of or named(candidate.path, names)


def _choice(mine: list[Candidate], target: str) -> tuple[Candidate, list[str]]:
    """The candidate to use as `target`, and the remarks about that choice."""

    def order(one: Candidate) -> tuple[bool, bool, int, bool, int, str]:
        path = one.path
        return (
            not one.whole,
            not one.changed,
            -one.modified,
            path != target,
            path.count("/"),
            path,
        )

    ranked = sorted(mine, key=order)
    first = ranked[0]
    # Of identical copies, take the one in the right place.
    alike_ = [one for one in ranked if one.digest == first.digest]
    chosen = min(alike_, key=lambda one: (one.path != target, one.path.count("/"), one.path))
    others = {one.digest: one for one in ranked if one.digest != chosen.digest}
    if others:
        rivals = [one for one in others.values() if one.whole and one.changed]
        if not chosen.whole:
            why = "the newest"
        elif not chosen.changed:
            why = "the newest, none has changes against the release"
        elif rivals:
            why = "the newest that has changes against the release"
        else:
            why = "the only whole one that has changes against the release"
        every = sorted({chosen.path, *(one.path for one in others.values())})
        return chosen, [f"of {listed(every)}, {printable(chosen.path)} was taken: {why}"]
    if chosen.path == target:
        return chosen, []
    by_cells = "" if named(chosen.path, [target.removesuffix(".ipynb")]) else ", by its cells"
    return chosen, [f"{printable(chosen.path)} was taken for {target}{by_cells}"]


def _can_be_renamed(pattern: str) -> bool:
    """Whether a pattern fixes enough of a name to recognise a renamed file."""
    return "/" not in pattern and pattern[0] not in "*?["


def _in_keras(path: str) -> bool:
    """Whether a file has a suffix of Keras' formats."""
    return plain(os.path.basename(path)).endswith(KERAS)


def _packed(path: str, pattern: str) -> bool:
    """Whether a file is an archive although the pattern does not ask for one."""
    return is_archive(path) and not pattern.endswith(".zip")


def _in_place(path: str, patterns: Collection[str]) -> bool:
    """Whether a file is needed where it lies.

    A copy or an archive does not count for a pattern that means the original file.
    """
    own = re.sub(r"[\s_-]+", "-", same_letters(path).casefold())
    copied = own != plain(path) or "/" in path
    strict = [p for p in patterns if not _can_be_renamed(p) or not (copied or _packed(path, p))]
    return is_needed(path, strict)


def _filled(pattern: str, files: Mapping[str, str], sizes: Mapping[str, int]) -> bool:
    return any(fnmatch.fnmatchcase(where, pattern) and sizes[path] for where, path in files.items())


def _renamed(
    patterns: Sequence[str], sizes: Mapping[str, int], modified: Mapping[str, int]
) -> dict[str, str]:
    """Files that match `patterns` under other names or in folders: where each belongs → lies.

    Non-empty files are preferred, then those in the folder that holds most of the files, then the
    newest.
    """
    found: dict[str, list[str]] = {}
    for pattern in patterns:
        head = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
        for path in sizes:
            ways = fnmatch.filter(_ways(os.path.basename(path)), plain(pattern))
            if ways and not _packed(path, pattern):
                name = ways[0]
                where = head + name[len(plain(head)) :] if head != pattern else pattern
                found.setdefault(where, []).append(path)
    together: dict[str, int] = {}
    for folder in {os.path.dirname(path) for paths in found.values() for path in paths}:
        together[folder] = sum(
            any(os.path.dirname(path) == folder and sizes[path] for path in paths)
            for paths in found.values()
        )

    def order(path: str) -> tuple[bool, int, int, int, str]:
        beside = together[os.path.dirname(path)]
        return not sizes[path], -beside, -modified[path], path.count("/"), path

    return {where: min(paths, key=order) for where, paths in sorted(found.items())}


def _rest(
    notebook: str,
    names: Collection[str],
    patterns: Collection[str],
    sizes: Mapping[str, int],
    candidates: Collection[Candidate],
    given: Collection[str],
) -> tuple[str, ...]:
    """Submitted files that may be the notebook that was not found.

    These are all files, as long as nothing was found that belongs to the assignment; otherwise only
    those that can hold a notebook.  A module does not count as found: it may be the notebook,
    exported.
    """
    served = {c.path: serves(c, names) for c in candidates}
    found = any(served.values()) or any(
        is_needed(path, patterns) and not path.endswith(".py") for path in sizes
    )
    known = {*ADDED, *given}
    rest = []
    for path, size in sizes.items():
        name = os.path.basename(path)
        if name in known or name.casefold() in CLUTTER or name.startswith(".") or not size:
            continue
        if served.get(path):
            if named(path, names) == notebook:  # its name, but another's cells
                rest.append(path)
            continue
        lone = plain(name).endswith(".ipynb") or plain(name).endswith(_PACKED)
        if lone or not found:
            rest.append(path)
    return tuple(sorted(rest, key=lambda path: (path.count("/"), path)))
