"""Opens a submitted zip archive, in a separate process that runs no student code.

The archive's own claims are not trusted: members are measured while they are unpacked.  Links and
folders are left out.  A member whose name leads elsewhere is either left out or, in a student's own
archive, keeps only the last part of its name.
"""

from __future__ import annotations

import calendar
import codecs
import io
import re
import socket
import stat
import zipfile
from typing import Any

import numpy as np

from autograder import wire

MEMBERS = 5000  # members allowed in an archive
UNPACKED = 200 << 20  # bytes unpacked in total
RATIO = 200  # unpacked to packed size of a member, beyond `UNSUSPICIOUS` bytes
UNSUSPICIOUS = 10 << 20
LONGEST_PART = 256  # bytes of a file's or folder's name, which must be shorter
LONGEST_PATH = 3000
START = 64  # bytes that tell whether a file may be a notebook
_CHUNK = 1 << 20
_UTF8 = 0x800
_LOCKED = 0x1


class Unreadable(ValueError):
    """The file is no archive, or exceeds the limits; the text says why."""


def name_of(member: zipfile.ZipInfo) -> str:
    """The member's name, decoded as UTF-8 with or without the flag, or as Korean Windows writes it.

    Without the flag, Python decodes names as cp437; this undoes it first.
    """
    if member.flag_bits & _UTF8:
        return member.orig_filename.replace("\\", "/")
    raw = member.orig_filename.encode("cp437")
    for encoding in ("utf-8", "cp949"):
        try:
            return raw.decode(encoding).replace("\\", "/")
        except UnicodeDecodeError:
            continue
    return member.orig_filename.replace("\\", "/")


def is_inside(name: str) -> bool:
    """Whether a member's name is the path of a file below the folder it is unpacked into."""
    parts = name.split("/")
    return (
        bool(parts[-1])
        and not re.search("[\0\ud800-\udfff]", name)
        and not is_too_long(name)
        and not any(part.endswith(":") for part in parts)
        and all(part not in ("", ".", "..") for part in parts)
    )


def is_too_long(name: str) -> bool:
    """Whether no file system takes a member's name, or a part of it."""
    raw = name.encode("utf-8", "surrogatepass")
    return len(raw) >= LONGEST_PATH or any(len(part) >= LONGEST_PART for part in raw.split(b"/"))


def is_file(member: zipfile.ZipInfo) -> bool:
    """Whether a member is a regular file, not a folder, link or device."""
    kind = stat.S_IFMT(member.external_attr >> 16)
    return not member.is_dir() and kind in (0, stat.S_IFREG)


def modified(member: zipfile.ZipInfo) -> int:
    """When a member was last written, in nanoseconds; archives know no time zone."""
    try:
        return calendar.timegm((*member.date_time, 0, 0, 0)) * 1_000_000_000
    except (ValueError, OverflowError):
        return 0


def content(archive: zipfile.ZipFile, member: zipfile.ZipInfo, room: int) -> bytes:
    """A member's content, of at most `room` bytes.

    Raises Unreadable for a member that is larger, locked, damaged or compressed implausibly well.
    """
    if member.flag_bits & _LOCKED:
        raise Unreadable("it is locked with a password")
    parts, size = [], 0
    try:
        with archive.open(member) as file:
            while part := file.read(_CHUNK):
                size += len(part)
                if size > max(UNSUSPICIOUS, RATIO * member.compress_size):
                    raise Unreadable("it unpacks to hundreds of times its size")
                if size > room:
                    raise Unreadable(f"it unpacks to more than {UNPACKED >> 20} MB")
                parts.append(part)
    except Unreadable:
        raise
    except Exception as error:  # zipfile and the decompressors have many kinds
        raise Unreadable("it is damaged") from error
    return b"".join(parts)


def begins_like_json(start: bytes) -> bool:
    """Whether a file with this start begins with a brace, after a mark and white space."""
    marks = codecs.BOM_UTF16_LE + codecs.BOM_UTF16_BE + codecs.BOM_UTF8
    return start.lstrip(marks + b"\0 \t\r\n").startswith(b"{")


def _may_hold_cells(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    """Whether a member begins as a notebook does, whatever its name."""
    if member.flag_bits & _LOCKED:
        return False
    try:
        with archive.open(member) as file:
            return begins_like_json(file.read(START))
    except Exception:  # zipfile and the decompressors have many kinds
        return False


def opened(file: io.BufferedIOBase) -> tuple[zipfile.ZipFile, list[zipfile.ZipInfo]]:
    """An archive, and its members that are files inside it.  Raises Unreadable."""
    try:
        archive = zipfile.ZipFile(file)
        members = archive.infolist()
    except Exception as error:
        raise Unreadable("it is no zip archive, or is damaged") from error
    return archive, [m for m in members if is_file(m) and is_inside(name_of(m))]


def _placed(name: str) -> str:
    """A member's name if it is inside, otherwise the last part of it; "" if that is no name."""
    for place in (name, name.rpartition("/")[2]):
        if is_inside(place):
            return place
    return ""


def _of_people(
    archive: zipfile.ZipFile, skipped: list[str], environment: str
) -> dict[str, zipfile.ZipInfo]:
    """The files of an archive that a person may have written, by where each belongs.

    For `skipped` and `environment` see `unpacked`.  Where two files belong at one place, the one
    that lies there by its own name is taken.
    """
    files = [(name_of(member), member) for member in archive.infolist() if is_file(member)]
    marks = (name.rpartition("/") for name, _ in files)
    environments = {folder for folder, _, last in marks if folder and last == environment}
    kept = [one for one in files if not _is_made(one[0].split("/")[:-1], skipped, environments)]
    kept.sort(key=lambda one: is_inside(one[0]))
    placed = {_placed(name): member for name, member in kept}
    placed.pop("", None)
    return placed


def _is_made(folders: list[str], skipped: list[str], environments: set[str]) -> bool:
    """Whether a tool made what lies in these folders, each inside the one before."""
    return any(
        (folder.startswith(".") and folder not in (".", ".."))
        or folder.casefold() in skipped
        or (bool(environments) and "/".join(folders[: at + 1]) in environments)
        for at, folder in enumerate(folders)
    )


def unpacked(
    data: bytes, words: list[str], spare: list[str], skipped: list[str], environment: str
) -> dict[str, Any]:
    """The wanted members of an archive.

    words: a member is wanted if its name, in lower case, contains one of these.
    spare: a member whose name contains one of these comes last, and is left out if it is unreadable
        or too large; so does one that begins as a notebook does.
    skipped: folders of these names, in lower case, and hidden ones do not count.
    environment: nor does a folder that holds a file of this name.

    Returns a dict of arrays and lists:

    names: the members' paths.
    sizes, modified: int64 (members,).
    content: the contents, one after the other, as `eights`.

    Raises Unreadable.
    """
    archive, _ = opened(io.BytesIO(data))
    members = _of_people(archive, skipped, environment)
    if len(members) > MEMBERS:
        raise Unreadable(f"it holds more than {MEMBERS} files")
    found: dict[str, tuple[int, bytes]] = {}
    room = UNPACKED
    for name, member in sorted(members.items(), key=lambda one: not _wanted(one[0], words)):
        wanted = _wanted(name, words)
        if not (wanted or _wanted(name, spare) or _may_hold_cells(archive, member)):
            continue
        try:
            text = content(archive, member, room)
        except Unreadable:
            if wanted:
                raise
            continue
        room -= len(text)
        found[name] = modified(member), text
    return {
        "names": list(found),
        "sizes": np.array([len(text) for _, text in found.values()], np.int64),
        "modified": np.array([when for when, _ in found.values()], np.int64),
        "content": eights(b"".join(text for _, text in found.values())),
    }


def eights(data: bytes) -> np.ndarray:
    """Bytes as uint64, eight to a number and zero-padded: a frame holds only so many numbers."""
    return np.frombuffer(data + bytes(-len(data) % 8), np.uint64)


def _wanted(name: str, words: list[str]) -> bool:
    last = name.casefold().rpartition("/")[2]
    return not last.startswith(".") and any(word in last for word in words)


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """The answer to ``{"op": "archive", "data", "size", …}``, with the arguments of `unpacked`.

    In the question, "data" is `size` bytes as `eights`.
    """
    identity = question.get("id")
    try:
        words, spare = list(question["words"]), list(question["spare"])
        data = question["data"].tobytes()[: question["size"]]
        skipped, environment = list(question["skipped"]), str(question["environment"])
        found = unpacked(data, words, spare, skipped, environment)
        return {"id": identity, "value": found}
    except MemoryError:
        return {"id": identity, "error": "memory", "message": "it takes too much memory"}
    except Unreadable as error:
        return {"id": identity, "error": "raised", "message": str(error)}
    except Exception as error:
        return {"id": identity, "error": "raised", "message": type(error).__name__}


def serve(connection: socket.socket) -> None:
    """Answer one question."""
    question = wire.receive(connection)
    wire.send(connection, answer(question))
