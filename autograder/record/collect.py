"""Unpacks a learning platform's download of an assignment into `submitted/`.

The platform makes the archive, but students choose the names and files in it: members are measured
while they are unpacked, links and paths that leave the archive are skipped, and nested archives are
not opened (grading opens them in the sandbox).  A roster maps the platform's names to students.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal
from zipfile import ZipFile, ZipInfo

from autograder.course import Course, check_name
from autograder.engine.files import listing, read_regular
from autograder.engine.finding import listed, passed_over, same_letters
from autograder.engine.submission import CHECKPOINT_LIMIT
from autograder.errors import CannotGrade, UserError, printable
from autograder.kernel import archive as zips
from autograder.record.gradebook import Gradebook

Platform = Literal["moodle", "canvas", "folders"]
MOST = 200_000  # files per class
TOTAL = 50 << 30  # bytes per class
ROSTER_LIMIT = 10 << 20

_MOODLE = re.compile(
    r"(?:^|/)(?P<who>[^/]+?)_(?P<number>\d+)_assignsubmission_(?P<kind>[a-z]+)_?/?(?P<path>.+)$"
)
_CANVAS = re.compile(
    r"(?:^|/)(?P<who>[^/_]+?)(?P<late>_?late)?_(?P<number>\d+)_\d+_(?P<path>[^/].*)$", re.I
)
_FOLDERS = re.compile(r"^(?P<who>[^/]+)/(?P<path>.+)$")


@dataclass(frozen=True)
class Person:
    """A student of the roster.

    Attributes:
        id: the student's id in the course.
        first_name: empty if the roster does not give it.
        last_name: empty if the roster does not give it.
        email: empty if the roster does not give it.
        lms_id: the id that the platform's gradebook uses.
        number: the platform's number for the student, as in the names of its downloads.
        known_as: further names, such as the full name as the platform writes it.

    """

    id: str
    first_name: str = ""
    last_name: str = ""
    email: str = ""
    lms_id: str = ""
    number: str = ""
    known_as: tuple[str, ...] = ()

    @property
    def names(self) -> set[str]:
        """All names of this student, normalised by `_key`."""
        first, last = self.first_name, self.last_name
        ways = {self.id, self.email, f"{first}{last}", f"{last}{first}", *self.known_as}
        return {_key(name) for name in ways if name.strip()}


@dataclass(frozen=True)
class Member:
    """A file of the class's download.

    Attributes:
        path: path below the archive or folder.
        modified: modification time in nanoseconds.
        read: returns the content; raises CannotGrade or `zips.Unreadable` if it is not accepted.

    """

    path: str
    modified: int
    read: Callable[[], bytes]


@dataclass
class Collected:
    """The outcome of a collection.

    Attributes:
        found: students whose submissions were collected.
        kept: students who already had a submission, which was not changed.
        missing: students of the roster without a submission.
        unmatched: names in the archive that match no student, or several, with the reason.
        left_out: files that were not accepted, with the reason.

    """

    found: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every file was assigned to a student and accepted."""
        return not self.unmatched and not self.left_out

    def lines(self) -> Iterator[str]:
        """The lines of the summary."""
        who = f": {listed(self.found)}" if self.found else ""
        yield f"collected submissions of {len(self.found)} students{who}"
        if self.kept:
            yield (
                f"already there, and left alone: {listed(self.kept, 20)}; "
                "remove a folder of submitted/ to have it filled again"
            )
        if self.missing:
            yield f"handed in nothing: {listed(self.missing, 50)}"
        for name in self.unmatched:
            yield f"could not be matched to anybody: {name}"
        for name in self.left_out:
            yield f"left out: {name}"


def _key(name: str) -> str:
    """A name without case, spaces and punctuation, which platforms write in different ways."""
    return "".join(c for c in same_letters(name).casefold() if c.isalnum())


# --- the roster ---

# Possible headings of each column; the first one that the file has is used.
_COLUMNS = {
    "id": (
        *("username", "user name", "sis login id", "login id", "login", "사용자명", "아이디"),
        *("id number", "sis user id", "student id", "student number", "학번"),
        *(
            "email address",
            "email",
            "e-mail",
            "이메일 주소",
            "이메일",
            "identifier",
            "식별자",
            "id",
        ),
    ),
    "first_name": ("first name", "given name", "이름"),
    "last_name": ("last name", "surname", "family name", "성"),
    "email": ("email address", "email", "e-mail", "이메일 주소", "이메일"),
    "lms_id": ("id", "id number", "sis user id", "학번"),
    "number": ("identifier", "식별자", "id"),
    "full": ("full name", "name", "student", "성명", "학생"),
}


def read_roster(path: Path) -> list[Person]:
    """The students in a platform's CSV export, or in any CSV file with such columns.

    Raises UserError if the file cannot be read, has no id column, or repeats an id.
    """
    try:
        with path.open("rb") as file:
            data = file.read(ROSTER_LIMIT + 1)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > ROSTER_LIMIT:
        raise UserError(
            f"{path} has more than {ROSTER_LIMIT >> 20} MB, too many for a roster; "
            "name the list of students that the platform exports"
        )
    text = _text(data, path)
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    rows = list(csv.reader(io.StringIO(text), delimiter=delimiter))
    head = [cell.strip().casefold() for cell in rows[0]] if rows else []
    places = {
        what: next((head.index(name) for name in names if name in head), -1)
        for what, names in _COLUMNS.items()
    }
    if places["id"] < 0:
        raise UserError(
            f"{path} has no column that tells students apart, such as Username, SIS Login ID, "
            "ID number or Email address"
        )
    people: dict[str, Person] = {}
    for row in rows[1:]:
        person = _person(row, places)
        if person is None:
            continue
        if person.id in people:
            raise UserError(f"{path} has two students with the id {person.id}")
        people[check_name(person.id)] = person
    return list(people.values())


def _text(data: bytes, path: Path) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    for encoding in ("utf-8-sig", "cp949"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise UserError(f"{path} is neither in UTF-8 nor as Korean Windows writes text")


def _person(row: list[str], places: dict[str, int]) -> Person | None:
    def cell(what: str) -> str:
        at = places[what]
        return same_letters(row[at].strip()) if 0 <= at < len(row) else ""

    first, last, full = cell("first_name"), cell("last_name"), cell("full")
    if not (first or last) and "," in full:
        last, _, first = (part.strip() for part in full.partition(","))
    elif not (first or last):
        first = full
    identity = cell("id")
    if not identity or full.casefold() == "points possible":
        return None
    digits = re.sub(r"\D", "", cell("number"))
    return Person(identity, first, last, cell("email"), cell("lms_id"), digits, (full,))


def enrol(gradebook: Gradebook, people: Iterable[Person]) -> None:
    """Enter the students in the gradebook."""
    with gradebook.database() as database:
        for person in people:
            database.update_or_create_student(
                person.id,
                first_name=person.first_name or None,
                last_name=person.last_name or None,
                email=person.email or None,
                lms_user_id=person.lms_id or None,
            )


# --- the archive ---


def collect(
    course: Course, assignment: str, source: Path, platform: Platform, people: list[Person]
) -> Collected:
    """Unpack an assignment's submissions into `submitted/`; existing ones are not changed.

    Args:
        course: the course.
        assignment: name of the assignment.
        source: a zip archive or a folder.
        platform: sets how the paths in `source` name students.
        people: the roster; if empty, students keep the platform's names.

    Raises:
        UserError: `source` cannot be read, is too large, or is no download of `platform`.

    """
    done = Collected()
    with contextlib.ExitStack() as stack:
        members = _members(source, stack, done)
        if platform == "folders":
            members = _unwrap(members, assignment, people)
        owned = _owners(members, platform, people, done)
        if members and not owned and not done.unmatched:
            raise UserError(
                f"{source} does not look like an archive of {platform}: "
                f"it holds {listed([member.path for member in members], 3)}"
            )
        left = TOTAL
        for student, files in sorted(owned.items()):
            place = course.student_folder(student) / assignment
            if course.handed_in(student, assignment)[1] or os.path.lexists(place):
                done.kept.append(student)
                continue
            left -= _fill(place, files, left, done)
            done.found.append(student)
    there = {*done.found, *done.kept, *course.students(assignment)}
    done.missing = sorted(person.id for person in people if person.id not in there)
    return done


def _members(source: Path, stack: contextlib.ExitStack, done: Collected) -> list[Member]:
    """All regular files in `source`, except those that operating systems and editors add."""
    if source.is_dir():
        found, complete = listing(source, MOST, lambda path, _: _is_made(path))
        if not complete:
            raise UserError(f"{source} holds more than {MOST} files")
        return [
            Member(one.path, one.modified, _from_folder(source, one.path))
            for one in found
            if not _is_made(one.path)
        ]
    try:
        file = stack.enter_context(source.open("rb"))
        archive, inside = zips.opened(file)
    except OSError as error:
        raise UserError(f"{source} cannot be read: {error.strerror}") from error
    except zips.Unreadable as error:
        raise UserError(f"{source}: {error}; name a zip archive or a folder") from error
    if len(archive.infolist()) > MOST:
        raise UserError(f"{source} holds more than {MOST} files")
    accepted = {id(member) for member in inside}
    for member in archive.infolist():
        if not member.is_dir() and id(member) not in accepted:
            done.left_out.append(f"{printable(zips.name_of(member), 120)}: {_why_not(member)}")
    return [
        Member(name, zips.modified(member), _from_zip(archive, member))
        for member in inside
        if not _is_made(name := zips.name_of(member))
    ]


def _why_not(member: ZipInfo) -> str:
    """Why a member is not accepted."""
    if zips.is_file(member) and zips.is_too_long(zips.name_of(member)):
        return "its name is too long; shorten it in the archive, or copy the file by hand"
    return "it is a link, or leads out of the archive"


def _is_made(path: str) -> bool:
    return any(passed_over(part) for part in path.split("/") if part)


def _from_folder(source: Path, path: str) -> Callable[[], bytes]:
    return lambda: read_regular(source, path, CHECKPOINT_LIMIT, own_links=True)


def _from_zip(archive: ZipFile, member: ZipInfo) -> Callable[[], bytes]:
    return lambda: zips.content(archive, member, CHECKPOINT_LIMIT)


def _unwrap(members: list[Member], assignment: str, people: list[Person]) -> list[Member]:
    """The members without folders around all students, which many archive programs add.

    The only folder at the top is a student's, too, if the class has one student.  It surrounds
    students if it is called like a folder of the course, if only names below are in the roster, or
    if a file of the same name lies in two folders below.
    """
    while len(tops := {member.path.partition("/")[0] for member in members}) == 1:
        (top,) = tops
        inside = [replace(one, path=one.path[len(top) + 1 :]) for one in members if one.path != top]
        below = {(path[0], path[-1]) for one in inside if len(path := one.path.split("/")) > 1}
        folders = {folder for folder, _ in below}
        if people:
            names = {top: _fitting(people, top.strip(), "")}
            names |= {folder: _fitting(people, folder.strip(), "") for folder in folders}
            around = not names.pop(top) and any(names.values())
        else:
            twice = len({name for _, name in below}) < len(below)
            around = bool(folders) and (top in ("submitted", assignment) or twice)
        if not around:
            break
        members = inside  # a file beside the students' folders is nobody's, and named as that
    return members


def _owners(
    members: list[Member], platform: Platform, people: list[Person], done: Collected
) -> dict[str, dict[str, Member]]:
    """Student → path in the submission → file; files without an owner are noted in `done`."""
    pattern = {"moodle": _MOODLE, "canvas": _CANVAS, "folders": _FOLDERS}[platform]
    matches = [(member, pattern.search(member.path)) for member in members]
    entries = {match: _Entry.of(match) for _, match in matches if match is not None}
    fitting = _students(set(entries.values()), people)
    rivals = _rivals(fitting, people)
    owned: dict[str, dict[str, Member]] = {}
    unmatched: dict[str, None] = {}
    for member, match in matches:
        where = printable(member.path, 120)
        if match is None or not entries[match].who.strip():
            unmatched[f"{where} (no name of a student)"] = None
            continue
        if match.groupdict().get("kind", "file") != "file":
            continue  # text typed into the platform's form
        entry = entries[match]
        students = fitting[entry]
        if len(students) != 1:
            said = f"could be {', '.join(students)}" if students else "not in the roster"
            unmatched[f"{entry.label} ({said})"] = None
            continue
        if others := rivals.get(entry):
            said = f"would be {students[0]}, but so would {listed(others)}"
            unmatched[f"{entry.label} ({said})"] = None
            continue
        mine = owned.setdefault(students[0], {})
        if match["path"] in mine:
            earlier = printable(mine[match["path"]].path, 120)
            done.left_out.append(f"{earlier}: another file has this name")
        mine[match["path"]] = member
    done.unmatched += unmatched
    return owned


@dataclass(frozen=True)
class _Entry:
    """Whom the platform says a file belongs to.

    Attributes:
        who: the name, as far as known letters allow.
        number: the platform's number for this person; empty if it gives none.

    """

    who: str
    number: str

    @classmethod
    def of(cls, match: re.Match[str]) -> _Entry:
        """The owner of a file, from the match of its path."""
        number = match.groupdict().get("number") or ""
        return cls(same_letters(_in_letters(match["who"])), number)

    @property
    def label(self) -> str:
        """The entry as the summary names it."""
        name = printable(self.who, 120)
        spaced = self.who != self.who.strip()  # another name differs in nothing else
        return f"{repr(self.who) if spaced else name} {self.number}".strip()

    @property
    def person(self) -> str:
        """What is the same for all entries of one person, and for nobody else."""
        return self.number or self.who


def _students(entries: Iterable[_Entry], people: list[Person]) -> dict[_Entry, list[str]]:
    """The ids of the students that each entry may be; without a roster, a name made of it."""
    if people:
        return {
            entry: [person.id for person in _fitting(people, entry.who.strip(), entry.number)]
            for entry in entries
        }
    numbers: dict[str, set[str]] = {}
    for entry in entries:
        numbers.setdefault(_key(entry.who), set()).add(entry.number)
    alone = {key for key, found in numbers.items() if len(found) == 1}
    names = {entry: entry.who.strip() for entry in entries}
    return {
        entry: [name if _key(entry.who) in alone else f"{name}_{entry.number}"] if name else []
        for entry, name in names.items()
    }


def _rivals(fitting: dict[_Entry, list[str]], people: list[Person]) -> dict[_Entry, list[str]]:
    """For each entry that may be another person than its student: the other entries like it.

    Two numbers of the platform, or two folders, are two people, even if one roster line fits both.
    Where the roster gives the number of one of them, that one is certain.
    """
    numbers = {person.id: {person.number, person.lms_id} for person in people}
    claims: dict[str, list[_Entry]] = {}
    for entry, students in fitting.items():
        if len(students) == 1:
            claims.setdefault(students[0], []).append(entry)
    rivals = {}
    for student, entries in claims.items():
        known = {e.person for e in entries if e.number and e.number in numbers.get(student, ())}
        for entry in entries:
            others = {other.label for other in entries if other.person != entry.person}
            if others and known != {entry.person}:
                rivals[entry] = sorted(others)
    return rivals


def _in_letters(name: str) -> str:
    """Decode a folder name that may be in CP949, the code page of Korean Windows."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return os.fsencode(name).decode("cp949", "replace")
    return name


def _fitting(people: list[Person], who: str, number: str) -> list[Person]:
    """The students that match the platform's number, else its name as an id, else any name."""
    by_number = [p for p in people if number and number in (p.number, p.lms_id)]
    if by_number:
        return by_number
    by_id = [p for p in people if p.id == who]
    return by_id or [p for p in people if _key(who) and _key(who) in p.names]


def _fill(place: Path, files: dict[str, Member], room: int, done: Collected) -> int:
    """Write a submission atomically; return its size in bytes.

    Args:
        place: the folder to create.
        files: the files by their path in the submission.
        room: the most bytes to write; UserError is raised beyond them.
        done: receives the files that were not accepted.

    """
    place.parent.mkdir(parents=True, exist_ok=True)
    half = Path(tempfile.mkdtemp(prefix=".collecting-", dir=place.parent))
    size = 0
    try:
        half.chmod(0o755)
        for path, member in files.items():
            where = printable(member.path, 120)
            try:
                data = member.read()
                if size + len(data) > room:
                    raise UserError(f"the class has more than {TOTAL >> 30} GB; nothing more fits")
                target = half / path
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("xb") as file:
                    file.write(data)
                os.utime(target, ns=(member.modified, member.modified))
                size += len(data)
            except (CannotGrade, zips.Unreadable) as error:
                done.left_out.append(f"{where}: {error}")
            except (FileExistsError, NotADirectoryError, FileNotFoundError):
                done.left_out.append(f"{where}: another file has this name")
        half.rename(place)
    except BaseException:
        shutil.rmtree(half, ignore_errors=True)
        raise
    return size


def chosen(platform: str) -> Platform:
    """The platform of this name; "" means one folder per student.

    Raises UserError for an unknown name.
    """
    match platform:
        case "moodle" | "canvas" | "folders":
            return platform
        case "":
            return "folders"
    raise UserError(f"--from {platform}: archives of moodle and of canvas are known")
