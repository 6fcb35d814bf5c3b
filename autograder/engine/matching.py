"""Finds the release's cells in a submitted notebook, even where nbgrader's metadata is lost.

A cell has several marks: nbgrader's `grade_id`, nbformat's id, its full text, the label in its
first comment, lines of the stub, and its place between its neighbours.  The first mark that decides
wins; an ambiguous cell is left unmatched.  An untouched cell gives way to one in which its answer
was typed.  A cell into which others were merged is split before the first lines of those others.
Nobody gains an advantage: however a cell is recognised, it runs at the release's place, and a
student could have set that `grade_id` by hand.
"""

from __future__ import annotations

import copy
import io
import re
import tokenize
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field

from nbformat import NotebookNode

from autograder.engine.cells import (
    grade_id,
    is_autograded,
    is_solution,
    label,
    solution_of,
    unmoved,
)

MARK = "nbgrader's mark"
TELLING = 12  # characters that make a line distinctive
_FIRST = re.compile(r"#+\s*\[\s*([A-Za-z]+)[\s-]*(\d[\d-]*)\s*\]")
_WORD = re.compile(r"[^\W\d]\w*")
# Names a line binds: a function or class, a target of assignment, a loop variable.
_BINDS = re.compile(
    r"[ \t]*(?:(?:async +)?(?:def|class) +([^\W\d]\w*)|for +([\w ,()]+?) +in "
    r"|([\w ,()*]+)(?::[^=]*)?=(?!=))"
)
_IMPORTS = re.compile(r"[ \t]*(?:from +[\w. ]+ )?import +([\w., ]+)")
LONG = 200  # characters of a line that are searched for names
MERGED = 400_000  # characters of cells that are searched for merged ones
MOST = 1000  # characters of a line in a cell whose tokens are looked at
LOCKED = 20_000  # characters of a locked cell that is compared with the release
_GOES_ON = {"else", "elif", "except", "finally"}  # they continue the statement before them
_SPACE = {
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT),
    tokenize.ENDMARKER,
}


@dataclass(frozen=True)
class Match:
    """Where a cell of the release was found.

    Attributes:
        at: its position among the submitted cells; None if it was found inside another cell.
        by: the mark that identified it.
        source: its submitted source.

    """

    at: int | None
    by: str
    source: str


@dataclass
class Recognised:
    """The release's cells that were found.

    Attributes:
        cells: the matches, by `grade_id`.
        passed_over: positions of untouched cells whose answer was found elsewhere.
        remarks: for the student and the instructor.
        submitted: the submitted cells, merged ones split; all positions count in this list.

    """

    cells: dict[str, Match] = field(default_factory=dict)
    passed_over: set[int] = field(default_factory=set)
    remarks: list[str] = field(default_factory=list)
    submitted: list[NotebookNode] = field(default_factory=list)


@dataclass(frozen=True)
class _Piece:
    """A part of a merged cell that begins with the first line of another cell of the release.

    Attributes:
        name: that cell.
        where: the cell in which it was found, in words.

    """

    name: str
    where: str


def recognise(submitted: NotebookNode, release: NotebookNode) -> Recognised:
    """Find the cells of `release` among those of `submitted`.

    The time is proportional to the text of both, and to the product of their numbers of cells.
    """
    search = _searched(submitted.cells, release, {})
    cells, pieces = _Merged(search).split()
    if pieces:
        search = _searched(cells, release, pieces)
    return Recognised(search.found, search.passed_over, search.remarks(), cells)


def _searched(
    cells: list[NotebookNode], release: NotebookNode, pieces: Mapping[int, _Piece]
) -> _Search:
    search = _Search(cells, release, pieces)
    search.by_marks()
    search.by_key("the cell's id", lambda cell: cell.get("id"))
    search.by_key("the text", lambda cell: _bare(cell.source) or None)
    search.by_key("the first comment", lambda cell: _first_comment(cell.source))
    search.in_pieces()
    search.by_lines()
    search.by_label()
    search.by_place()
    search.in_grade_cells()
    search.in_locked_cells()
    return search


class _Search:
    """The cells found so far, and the cells still to be matched.

    pieces: parts of merged cells, by position; each can only be the cell that it names.
    """

    def __init__(
        self,
        submitted: list[NotebookNode],
        release: NotebookNode,
        pieces: Mapping[int, _Piece],
    ) -> None:
        self.submitted = list(submitted)
        self.pieces = pieces
        self.known = {name: cell for cell in release.cells if (name := grade_id(cell))}
        self.place = {name: at for at, name in enumerate(self.known)}
        self.owner = dict(solution_of(release))  # grade cell → solution cell
        self.texts = {_bare(cell.source) for cell in release.cells}
        self.found: dict[str, Match] = {}
        self.taken: set[int] = set(pieces)
        self.passed_over: set[int] = set()
        self.doubts: list[str] = []
        self.looked_at: set[str] = set()  # grade cells with a remark of their own

    # -- state ----------------------------------------------------------------------------

    def is_open(self, name: str) -> bool:
        """Whether a cell is still to be found, or was found only as it was handed out."""
        if name not in self.found:
            return True
        return is_solution(self.known[name]) and self._untouched(name, self.found[name].source)

    def loose(self) -> Iterator[tuple[int, NotebookNode]]:
        """The submitted cells not matched so far."""
        return ((at, c) for at, c in enumerate(self.submitted) if at not in self.taken)

    def _untouched(self, name: str, source: str) -> bool:
        return _bare(source) == _bare(self.known[name].source)

    def _take(self, name: str, at: int, by: str) -> None:
        """Match a submitted cell to a cell of the release that is still open.

        An earlier, untouched match gives way.
        """
        cell = self.submitted[at]
        if not self.is_open(name) or cell.cell_type != self.known[name].cell_type:
            return
        before = self.found.get(name)
        if before is not None:
            if self._untouched(name, cell.source) or not cell.source.strip():
                return
            assert before.at is not None
            self.passed_over.add(before.at)
        self.found[name] = Match(at, by, cell.source)
        self.taken.add(at)

    # -- marks ----------------------------------------------------------------------------

    def by_marks(self) -> None:
        """By `grade_id`; of several cells the first that was edited, or else the first."""
        for at, cell in enumerate(self.submitted):
            name = grade_id(cell)
            if name in self.known and name not in self.found:
                self.found[name] = Match(at, MARK, cell.source)
                self.taken.add(at)
        for at, cell in self.loose():
            name = grade_id(cell)
            if name in self.known and is_solution(self.known[name]):
                self._take(name, at, MARK)

    def by_key(self, by: str, key: Callable[[NotebookNode], Hashable]) -> None:
        """By a key that only one cell of the release has."""
        owners: defaultdict[Hashable, list[str]] = defaultdict(list)
        for name, cell in self.known.items():
            owners[key(cell)].append(name)
        owners.pop(None, None)
        for at, cell in self.loose():
            names = owners.get(key(cell), [])
            if len(names) == 1:
                self._take(names[0], at, by)

    def in_pieces(self) -> None:
        """In parts of merged cells; copies of what the release has anyway are dropped."""
        for at, piece in self.pieces.items():
            name, source = piece.name, self.submitted[at].source
            if is_solution(self.known[name]):
                self._take(name, at, piece.where)
                drop = self._untouched(name, source)
            else:
                self.found.setdefault(name, Match(at, piece.where, source))
                drop = True
            if drop and (name not in self.found or self.found[name].at != at):
                self.passed_over.add(at)

    def by_lines(self) -> None:
        """By lines that only one cell of the release has: half of them, or two."""
        lines = {name: _telling_lines(cell.source) for name, cell in self.known.items()}
        count = Counter(line for own in lines.values() for line in own)
        owner = {line: name for name, own in lines.items() for line in own if count[line] == 1}
        telling = Counter(owner.values())
        pairs = []
        for at, cell in self.loose():
            kept = Counter(owner[line] for line in _telling_lines(cell.source) if line in owner)
            best = kept.most_common(2)
            if not best or (len(best) > 1 and best[0][1] == best[1][1]):
                continue
            name, number = best[0]
            if number >= 2 or 2 * number >= telling[name]:
                pairs.append((-number, at, name))
        for _, at, name in sorted(pairs):
            self._take(name, at, "lines of it")

    def by_label(self) -> None:
        """By the label alone, in the first comment or in another release's `grade_id`."""
        owners: defaultdict[str | None, list[str]] = defaultdict(list)
        for name in self.known:
            if name not in self.owner:
                owners[label(name)].append(name)
        checks = {_first_comment(self.known[check].source) for check in self.owner}
        for at, cell in self.loose():
            if _first_comment(cell.source) in checks - {None}:
                continue
            for named, by in (
                (_label(cell.source), "the first comment"),
                (_label_of(grade_id(cell)), "another release's mark"),
            ):
                solutions = [n for n in owners[named] if is_solution(self.known[n])]
                if len(solutions) == 1 and all(
                    n in self.found or n in solutions for n in owners[named]
                ):
                    self._take(solutions[0], at, by)
                    break

    def by_place(self) -> None:
        """By the place between neighbours and the names that are bound there.

        This aligns the open cells with the loose ones: each pair has a weight, pairs do not cross,
        and the sum of the weights is as large as possible.
        """
        wanted = [name for name in self.known if self.is_open(name)]
        pairs: dict[int, list[tuple[int, int]]] = {}
        loose = [(at, cell) for at, cell in self.loose() if cell.source.strip()]
        made = {at: _made(cell.source) for at, cell in loose if cell.cell_type == "code"}
        anchors = self._anchors()
        for row, name in enumerate(wanted if loose else ()):
            for at, weight in self._candidates(name, self._gap(name, anchors), loose, made):
                pairs.setdefault(row, []).append((at, weight))
        for row, at in _aligned(pairs):
            self._take(wanted[row], at, "the place")

    def _candidates(
        self,
        name: str,
        gap: tuple[int, int, int],
        loose: list[tuple[int, NotebookNode]],
        made: Mapping[int, set[str]],
    ) -> Iterator[tuple[int, int]]:
        """Loose cells that may be this one: their positions, each with a weight."""
        low, high, near = gap
        kind, text = self.known[name].cell_type, _bare(self.known[name].source)
        within = [(at, c) for at, c in loose if low < at < high and c.cell_type == kind]
        if not is_solution(self.known[name]):
            yield from ((at, 3) for at, cell in within if _bare(cell.source) == text)
            return
        words = self._words(name)
        own = [(at, c) for at, c in within if _bare(c.source) not in self.texts]
        between = [at for at, _ in own if at < near]
        for at, _ in own:
            shared = len(made.get(at, set()) & words)
            if shared:
                yield at, 3 + min(shared, 5)
            elif between == [at] and self.found and (name not in self.found or kind == "markdown"):
                yield at, 1  # the only cell at that place, among others of the release
        yield from ((at, 2) for at, cell in within if _bare(cell.source) == text)

    def _gap(self, name: str, anchors: Mapping[str, int]) -> tuple[int, int, int]:
        """The positions between which a cell may stand, and that of the cell it once preceded."""
        after, here = -1, len(self.submitted)
        near, place = here, self.place[name]
        for other, at in anchors.items():
            if self.place[other] < place:
                after = max(after, at)
            elif self.owner.get(other) == name:
                near = min(near, at)
            elif other != name:
                here = min(here, at)
        return after, here, min(near, here)

    def _anchors(self) -> dict[str, int]:
        """Positions of cells that were found, are final, and stand in the release's order."""
        at = {
            name: match.at
            for name, match in self.found.items()
            if match.at is not None and not self.is_open(name)
        }
        still = unmoved(sorted(at, key=lambda name: at[name]), self.place)
        return {name: place for name, place in at.items() if name in still}

    def _words(self, name: str) -> set[str]:
        """The identifiers in a solution cell and its checks."""
        checks = [check for check, solution in self.owner.items() if solution == name]
        texts = [self.known[each].source for each in (name, *checks)]
        return {word for text in texts for word in _WORD.findall(text)}

    def in_grade_cells(self) -> None:
        """Find answers that were typed into the grade cell while the solution cell has none."""
        for check, name in self.owner.items():
            match = self.found.get(check)
            if match is None or match.at is None:
                continue
            whole, given = match.source.strip(), self.known[check].source.strip()
            lines = _telling_lines(given)
            if given in whole:
                typed = whole.replace(given, "", 1).strip("\n")
            elif self._is_no_check(whole, given):
                typed = whole
            else:
                kept = [ln for ln in whole.splitlines() if " ".join(ln.split()) not in lines]
                typed = "\n".join(kept)
                if not self.is_open(name):
                    continue  # it may be another release's grade cell
            if not _made(typed) & self._words(name):
                continue
            self.looked_at.add(check)
            if self.is_open(name) and (given in whole or typed == whole):
                before = self.found.get(name)
                self.found[name] = Match(before.at if before else None, "the grade cell", typed)
            else:
                self.doubts.append(
                    f"what was typed into the grade cell of {label(name)} does not count; "
                    "write it into the cell above"
                )

    def in_locked_cells(self) -> None:
        """Name the locked cells to which a student has added code, which does not run.

        If a statement of the release is missing anywhere, the cells may be another release's.  Then
        an addition is only what binds a name that the student's code uses and nothing else binds.
        """
        more: dict[str, list[str]] = {}
        lacking = False
        for name, match in self.found.items():
            given = self.known[name]
            if is_solution(given) or given.cell_type != "code" or name in self.looked_at:
                continue
            if not self._untouched(name, match.source):
                found, wanted = (Counter(_statements(t)) for t in (match.source, given.source))
                lacking = lacking or bool(wanted - found)
                more[name] = list(found - wanted)
        if lacking and any(more.values()):
            unbound = self._unbound()
            more = {name: [t for t in own if _bound(t) & unbound] for name, own in more.items()}
        where = [label(name) for name in self.known if more.get(name)]
        if where:
            cells = ", ".join(dict.fromkeys(where))
            self.doubts.append(
                f"what was added to the locked cell of {cells} was not run; write code of your own "
                "in a cell of your own or in the answer's cell"
            )

    def _unbound(self) -> set[str]:
        """The names in the student's code that neither this code nor the release binds."""
        answers = [match.source for name, match in self.found.items() if self._is_answer(name)]
        own = [cell.source for _, cell in self.loose() if cell.cell_type == "code"]
        given = [cell.source for cell in self.known.values() if cell.cell_type == "code"]
        used = {word for text in [*answers, *own] for word in _WORD.findall(text)}
        return used - {name for text in [*answers, *own, *given] for name in _bound(text)}

    def _is_answer(self, name: str) -> bool:
        return is_solution(self.known[name]) and self.known[name].cell_type == "code"

    @staticmethod
    def _is_no_check(text: str, check: str) -> bool:
        """Whether a text has no more in common with a check than it may by chance."""
        if _first_comment(text) == _first_comment(check) is not None:
            return False
        lines = _telling_lines(text)
        return 4 * len(lines & _telling_lines(check)) <= len(lines)

    def remarks(self) -> list[str]:
        """How cells were recognised, and which text does not count."""
        by: dict[str, list[str]] = {}
        pieces: dict[str, list[str]] = {}
        for name, match in sorted(self.found.items(), key=lambda item: self.place[item[0]]):
            written = is_solution(self.known[name]) and not self._untouched(name, match.source)
            if written and match.by != MARK:
                groups = pieces if match.at in self.pieces else by
                groups.setdefault(match.by, []).append(label(name))
        typed = by.pop("the grade cell", [])
        parts = [f"{', '.join(names)} by {what}" for what, names in by.items()]
        said = [f"recognised without {MARK}: {'; '.join(parts)}"] if parts else []
        if typed:
            said.append(
                f"what was typed into the grade cell of {', '.join(typed)} was taken for the answer"
            )
        for where, names in pieces.items():
            one = len(names) == 1
            answers = f"the answer{'' if one else 's'} to {', '.join(dict.fromkeys(names))}"
            said.append(f"{answers} {'was' if one else 'were'} found in {where}")
        return said + list(dict.fromkeys(self.doubts))


class _Merged:
    """Splits cells into which a student has merged others.

    A part begins at the first line of another cell of the release, if that line is a comment that
    stands between two statements.  It is split off if that other cell was not handed in or not
    written, or if it is a copy of what the release has anyway.
    """

    def __init__(self, search: _Search) -> None:
        self.search = search
        self.left = MERGED
        self.owners: defaultdict[str, list[str]] = defaultdict(list)
        for name, cell in search.known.items():
            line = _first_line(cell.source)
            if cell.cell_type == "code" and line.startswith("#"):
                self.owners[_plain(line)].append(name)
        self.at = {match.at: name for name, match in search.found.items()}

    def split(self) -> tuple[list[NotebookNode], dict[int, _Piece]]:
        """The submitted cells, merged ones split, and which of them are pieces, by position."""
        cells: list[NotebookNode] = []
        pieces: dict[int, _Piece] = {}
        for at, cell in enumerate(self.search.submitted):
            own = self._own(at)
            parts = self._parts(at, cell, own)
            if len(parts) < 2:
                cells.append(cell)
                continue
            where = f"the cell of {label(own)}" if own else "a cell with several parts"
            for number, (name, source) in enumerate(parts):
                if name is not None and (number or name != own):
                    pieces[len(cells)] = _Piece(name, where)
                cells.append(_part(cell, source, len(cells) in pieces))
        return cells, pieces

    def _own(self, at: int) -> str | None:
        """The cell that this one is by a mark of the cell as a whole or of its beginning."""
        name = self.at.get(at)
        if name is None:
            return None
        sure = (MARK, "the cell's id", "the text", "the first comment")
        return name if self.search.found[name].by in sure else None

    def _parts(self, at: int, cell: NotebookNode, own: str | None) -> list[tuple[str | None, str]]:
        """The cell's parts, each with the name of its cell; none if it stays whole."""
        if cell.cell_type != "code" or not self._may_be_merged(cell.source):
            return []
        segments = self._segments(cell.source, own)
        times = Counter(name for name, _ in segments if name and is_solution(self._known(name)))
        if any(number > 1 for number in times.values()):
            return []
        parts: list[tuple[str | None, str]] = [(own, "")]
        for name, text in segments:
            if name and name != own and self._is_wanted(name, text, at):
                parts.append((name, text))
                continue
            here = 0 if name and name == own else len(parts) - 1
            while here and not is_solution(self._known(parts[here][0] or "")):
                here -= 1
            whose, before = parts[here]
            parts[here] = (whose, f"{before}\n{text}" if before else text)
        if own is None and not parts[0][1].strip():
            del parts[0]
        others = [name for name, _ in parts if name and name not in (own, self.at.get(at))]
        return parts if any(self._is_lost(name) for name in others) else []

    def _known(self, name: str) -> NotebookNode:
        return self.search.known[name]

    def _may_be_merged(self, source: str) -> bool:
        """Whether a further line is another cell's first; long cells are not looked into."""
        if len(source) > self.left:
            return False
        further = source.strip().split("\n")[1:]
        if not any(line.startswith("#") and _plain(line) in self.owners for line in further):
            return False
        self.left -= len(source)
        return True

    def _segments(self, source: str, own: str | None) -> list[tuple[str | None, str]]:
        """The text before the first line of a cell, and from each such line to the next.

        What follows the text of a locked cell is a segment without a name.
        """
        lines = source.split("\n")
        starts = [at for at in _between_statements(source) if _plain(lines[at]) in self.owners]
        ends = [*starts[1:], len(lines)]
        texts = ["\n".join(lines[at:end]) for at, end in zip(starts, ends, strict=True)]
        head = "\n".join(lines[: starts[0]]) if starts else source
        names: list[str | None] = []
        for at, text in zip(starts, texts, strict=True):
            names.append(self._name(_plain(lines[at]), text, own, names))
        if names and own not in (None, names[0]) and not head.strip() and own not in names[1:]:
            names[0] = None  # the cell's mark counts for more than its first line
        segments: list[tuple[str | None, str]] = [(None, head)]
        for name, text in zip(names, texts, strict=True):
            given = _bare(self._known(name).source) if name else ""
            if name and not is_solution(self._known(name)) and _bare(text).startswith(given + "\n"):
                rest = _bare(text).removeprefix(given).strip("\n")
                segments += [(name, given), (None, rest)]
            else:
                segments.append((name, text.rstrip()))
        return segments

    def _name(self, line: str, text: str, own: str | None, before: list[str | None]) -> str | None:
        """The cell whose first line this is; of several locked ones, the one with this text."""
        names = self.owners[line]
        if own in names or len(names) == 1:
            return own if own in names else names[0]
        if any(is_solution(self._known(name)) for name in names):
            return None
        given = [name for name in names if _bare(text).startswith(_bare(self._known(name).source))]
        return next((name for name in [*given, *names] if name not in before), names[0])

    def _is_wanted(self, name: str, text: str, at: int) -> bool:
        """Whether a segment becomes a piece of its own."""
        if is_solution(self._known(name)):
            return self.search.is_open(name) or at in self._places(name)
        missing = name not in self.search.found or at in self._places(name)
        return _bare(text) == _bare(self._known(name).source) or (
            missing and is_autograded(self._known(name))
        )

    def _is_lost(self, name: str) -> bool:
        """Whether a cell was not handed in, or an answer not written, in a cell of its own.

        A copy of a given cell alone splits no cell: the student may want it to run there.
        """
        if is_solution(self._known(name)):
            return True
        return name not in self.search.found

    def _places(self, name: str) -> set[int | None]:
        """Where a cell was found; an answer in a grade cell was found at the grade cell's place."""
        found, owner = self.search.found, self.search.owner
        if found[name].at is not None:
            return {found[name].at}
        return {found[check].at for check in owner if owner[check] == name and check in found}


def _part(cell: NotebookNode, source: str, is_piece: bool) -> NotebookNode:
    """A part of a merged cell; a piece has no marks."""
    if is_piece:
        return NotebookNode(cell_type="code", metadata=NotebookNode(), source=source)
    part = copy.copy(cell)
    part.source = source
    return part


def _between_statements(source: str) -> list[int]:
    """The positions of the lines at column 0 that are comments between two statements.

    If the cell leaves a bracket open, comments within it count, too.
    """
    if not _is_tame(source):
        return []
    free: list[int] = []
    waiting: list[int] = []  # until the next statement shows whether they stand before it
    inside: list[int] = []
    depth, starts, decorated = 0, True, False
    try:
        for kind, text, (row, column), _, _ in tokenize.generate_tokens(
            io.StringIO(source).readline
        ):
            if kind == tokenize.COMMENT and column == 0 and (depth or starts):
                (inside if depth else waiting).append(row - 1)
            elif kind == tokenize.NEWLINE:
                starts = True
            elif kind not in _SPACE:
                if starts:
                    free += (
                        waiting if column == 0 and text not in _GOES_ON and not decorated else []
                    )
                    waiting, starts, decorated = [], False, text == "@"
                if kind == tokenize.OP:
                    depth = max(0, depth + (text in "([{") - (text in ")]}"))
    except (tokenize.TokenError, SyntaxError):
        free += inside
    return sorted(free + waiting)


def _is_tame(source: str) -> bool:
    """Whether its tokens take little time; a line's may grow with the square of its length."""
    return all(len(line) <= MOST for line in source.split("\n"))


def _statements(source: str) -> list[str]:
    """The statements of a cell, one a line, without comments, white space and magic commands."""
    found: list[list[str]] = [[]]
    if len(source) > LOCKED or not _is_tame(source):
        return []
    try:
        for kind, text, *_ in tokenize.generate_tokens(io.StringIO(source).readline):
            if kind == tokenize.NEWLINE:
                found.append([])
            elif kind not in _SPACE and text.strip():
                found[-1].append(text)
    except (tokenize.TokenError, SyntaxError):
        pass  # what was read so far is enough
    return [" ".join(words) for words in found if words and words[0] not in ("%", "!")]


def _bound(source: str) -> set[str]:
    """The names that a text binds, those that it imports among them."""
    names = _made(source)
    for line in source.splitlines():
        if found := _IMPORTS.match(line[:LONG]):
            parts = (part.split() for part in found[1].split(","))
            names |= {words[-1] if "as" in words else words[0] for words in parts if words}
    return names


def _aligned(pairs: Mapping[int, list[tuple[int, int]]]) -> list[tuple[int, int]]:
    """The heaviest set of pairs (row, column) that do not cross; of equals the one further down.

    pairs: row → (column, weight > 0).
    """
    columns = sorted({column for found in pairs.values() for column, _ in found})
    index = {column: number for number, column in enumerate(columns, start=1)}
    tables = [[0] * (len(columns) + 1)]
    rows = sorted(pairs)
    for row in rows:
        weights = {index[column]: weight for column, weight in pairs[row]}
        before, now = tables[-1], [0]
        for number in range(1, len(columns) + 1):
            best = max(before[number], now[-1])
            if number in weights:
                best = max(best, before[number - 1] + weights[number])
            now.append(best)
        tables.append(now)
    found, number = [], len(columns)
    for depth in range(len(rows), 0, -1):
        weights = {index[column]: weight for column, weight in pairs[rows[depth - 1]]}
        while number and tables[depth][number] != tables[depth - 1][number]:
            if number in weights and (
                tables[depth][number] == tables[depth - 1][number - 1] + weights[number]
            ):
                found.append((rows[depth - 1], columns[number - 1]))
                number -= 1
                break
            number -= 1
    return found[::-1]


def _bare(source: str) -> str:
    """The text without whitespace that editors change by themselves."""
    return "\n".join(line.rstrip() for line in source.strip().splitlines())


def _plain(line: str) -> str:
    return " ".join(line.split())


def _first_line(source: str) -> str:
    return source.strip().partition("\n")[0][:200].strip()


def _first_comment(source: str) -> str | None:
    """The first line, normalised, if it is a comment with a label."""
    line = _first_line(source)
    if not _FIRST.match(line):
        return None
    return "".join(line.lstrip("#").split()).casefold()


def _label(source: str) -> str | None:
    """The label in the first comment, as `label` writes it."""
    match = _FIRST.match(_first_line(source))
    return _label_of(f"{match[1]}-{match[2]}-") if match else None


def _label_of(name: str | None) -> str | None:
    """The label of a cell with this `grade_id`; None for a grade cell."""
    if name is None or not re.match(r"[A-Za-z]+-\d", name) or name.endswith("-check"):
        return None
    return label(name.lower())


def _telling_lines(source: str) -> set[str]:
    lines = {" ".join(line.split()) for line in source.splitlines()}
    return {line for line in lines if len(line) >= TELLING}


def _made(source: str) -> set[str]:
    """The names that a cell binds, as far as its lines tell."""
    found = filter(None, (_BINDS.match(line[:LONG]) for line in source.splitlines()))
    texts = (text for match in found for text in match.groups() if text)
    return {word for text in texts for word in _WORD.findall(text)}
