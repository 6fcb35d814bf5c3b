"""Which file of a submission serves as which: looked for before anything counts as missing.

Browsers, file managers, learning platforms and people rename what they touch, put it into folders
and make copies of it.  This module decides, from a listing alone, what is taken for a notebook or
for a file of a checkpoint, and says so in sentences for the student and the instructor.
"""

from __future__ import annotations

import fnmatch
import os
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from autograder.errors import printable

ADDED = ("timestamp.txt", "submission_secret.txt")  # by nbgrader; they say nothing of the work
# Folders that editors, tools and systems make; hidden ones are passed over, too.
MADE = frozenset({"__macosx", "__pycache__", "node_modules", "site-packages", "$recycle.bin"})
_CLUTTER = frozenset({"thumbs.db", "desktop.ini", "icon\r", "results.json"})
_PACKED = (".zip", ".rar", ".7z", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".alz", ".egg")
KERAS = (".keras", ".h5", ".hdf5")  # endings of the files that it saves a network in
ENVIRONMENT = "pyvenv.cfg"  # lies in every virtual environment, whatever that is called
# What copying and downloading add to a name.
_COPY = re.compile(
    r"^(?:copy(?: \d+)? of|사본 ?-|복사본)[ _-]*"
    r"|[ _]*[(\[（]\d+[)\]）]"
    r"|(?:[ _]*-[ _]*|[ _]+)(?:copy|사본|복사본)[ _]?\d*(?=\.|$)"
    r"|의 사본(?=\.|$)"
)
_WRAPPED = re.compile(r"(?<=.)\.(?:txt|json|bin|download)$")


@dataclass(frozen=True)
class Candidate:
    """A file in a submission that may be a notebook, as a look at its bytes has it.

    path: below the submission; modified: nanoseconds; of: the released notebook whose cells are
    in it, or None where that cannot be told; whole: whether the file has its end; changed:
    whether any answer in it differs from the release; digest: of its content.
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

    files: where each file belongs → where it lies, the notebook itself among them if there is one;
    said: what was done to find them, a sentence each; complete: whether nothing that could be
    elsewhere, in an archive for example, is wanted; rest: what else was handed in where the
    notebook was not found, and is not accounted for; instead: networks as Keras saves them, where
    files that belong to the notebook were not found.
    """

    files: Mapping[str, str]
    said: tuple[str, ...] = ()
    complete: bool = True
    rest: tuple[str, ...] = ()
    instead: tuple[str, ...] = ()


def passed_over(name: str) -> bool:
    """Whether a folder of that name holds nothing that a person wrote."""
    return name.startswith(".") or name.casefold() in MADE


def plain(name: str) -> str:
    """The name of a file without what copies, downloads and systems make of it."""
    found = unicodedata.normalize("NFC", name).casefold().strip()
    before = ""
    while found != before:
        before = found
        found = _WRAPPED.sub("", _COPY.sub("", found)).strip()
    return re.sub(r"[\s_-]+", "-", found)


def _ways(name: str) -> tuple[str, str]:
    """The name as it is and without the number of a revision, which Canvas puts behind its stem."""
    found = plain(name)
    return found, re.sub(r"-\d+(?=\.|$)", "", found, count=1)


def alike(one: str, other: str) -> bool:
    """Whether two names are the same but for what `plain` takes away."""
    return plain(one) == plain(other)


def same_letters(name: str) -> str:
    """The name in the one form that names are compared in: Macs write letters in another."""
    return unicodedata.normalize("NFC", name)


def named(path: str, names: Iterable[str]) -> str | None:
    """The released notebook that a file is, by its name; None when it is none of `names`."""
    name = os.path.basename(path)
    if name.startswith("."):
        return None
    return next((own for own in names if plain(f"{own}.ipynb") in _ways(name)), None)


def may_be_notebook(path: str) -> bool:
    """Whether a file's name allows for a notebook in it."""
    name = os.path.basename(path)
    return not name.startswith(".") and (
        plain(name).endswith(".ipynb") or name.casefold().endswith(".json")
    )


def is_archive(path: str) -> bool:
    """Whether a file is a zip archive, by its name."""
    name = os.path.basename(path)
    return not name.startswith(".") and plain(name).endswith(".zip")


def is_needed(path: str, patterns: Iterable[str]) -> bool:
    """Whether a file at that path is one that a grading may depend on, beside the notebook."""
    if path in ADDED or path.endswith(".ipynb"):
        return False
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def listed(paths: Sequence[str], most: int = 5) -> str:
    """Paths as part of a sentence, the first ones by name."""
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
    """What serves as `notebook` and as the files that match `patterns`.

    names: of all notebooks of the assignment; sizes, modified: bytes and time of every file, by
    path; candidates: those that may be notebooks; given: names of the release's other files.
    """
    target = f"{notebook}.ipynb"
    mine = [c for c in candidates if _serves(c, names) == notebook]
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
    instead = () if filled else tuple(sorted(path for path in sizes if _in_keras(path)))
    return Finding(files, tuple(said), complete, rest, instead)


def _serves(candidate: Candidate, names: Collection[str]) -> str | None:
    """The notebook that a file is: the one whose cells it holds, or else the one it is called."""
    return candidate.of or named(candidate.path, names)


def _choice(mine: list[Candidate], target: str) -> tuple[Candidate, list[str]]:
    """The candidate that is taken for `target`, and what is to be said about it."""

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
    # Where the same stands at several places, it is the one in the right place that is taken.
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
    """Whether a pattern says enough of a name to know the file under another."""
    return "/" not in pattern and pattern[0] not in "*?["


def _in_keras(path: str) -> bool:
    """Whether a file has an ending of Keras' formats."""
    return plain(os.path.basename(path)).endswith(KERAS)


def _packed(path: str, pattern: str) -> bool:
    """Whether a file is an archive where none is meant, whatever it is called."""
    return is_archive(path) and not pattern.endswith(".zip")


def _in_place(path: str, patterns: Collection[str]) -> bool:
    """Whether a file is needed where it lies; a copy may match a pattern that means the file."""
    own = re.sub(r"[\s_-]+", "-", same_letters(path).casefold())
    copied = own != plain(path) or "/" in path
    strict = [p for p in patterns if not _can_be_renamed(p) or not (copied or _packed(path, p))]
    return is_needed(path, strict)


def _filled(pattern: str, files: Mapping[str, str], sizes: Mapping[str, int]) -> bool:
    return any(fnmatch.fnmatchcase(where, pattern) and sizes[path] for where, path in files.items())


def _renamed(
    patterns: Sequence[str], sizes: Mapping[str, int], modified: Mapping[str, int]
) -> dict[str, str]:
    """Where files belong that match `patterns` under other names or in folders → where they lie.

    Of several the one is taken in whose folder most of them lie, and of these the newest; an
    empty one where there is no other.
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
    """What was handed in and may be the notebook that was not found.

    That is everything, as long as nothing was found that belongs to the assignment; else only
    what may hold a notebook.  A module may be the notebook itself, exported.
    """
    served = {c.path: _serves(c, names) for c in candidates}
    found = any(served.values()) or any(
        is_needed(path, patterns) and not path.endswith(".py") for path in sizes
    )
    known = {*ADDED, *given}
    rest = []
    for path, size in sizes.items():
        name = os.path.basename(path)
        if name in known or name.casefold() in _CLUTTER or name.startswith(".") or not size:
            continue
        if served.get(path):
            if named(path, names) == notebook:  # called so, but another's cells are in it
                rest.append(path)
            continue
        lone = plain(name).endswith(".ipynb") or plain(name).endswith(_PACKED)
        if lone or not found:
            rest.append(path)
    return tuple(sorted(rest, key=lambda path: (path.count("/"), path)))
