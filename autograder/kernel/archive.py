"""Opens a submitted zip archive, in a separate process that runs no student code.

The archive's own claims are not trusted: members are measured while they are unpacked.  Links,
folders and members whose names lead elsewhere are left out.
"""

from __future__ import annotations

import calendar
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
        and not any(part.endswith(":") for part in parts)
        and all(part not in ("", ".", "..") and len(part.encode()) < 256 for part in parts)
        and len(name.encode()) < 3000
    )


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


def opened(file: io.BufferedIOBase) -> tuple[zipfile.ZipFile, list[zipfile.ZipInfo]]:
    """An archive, and its members that are files inside it.  Raises Unreadable."""
    try:
        archive = zipfile.ZipFile(file)
        members = archive.infolist()
    except Exception as error:
        raise Unreadable("it is no zip archive, or is damaged") from error
    return archive, [m for m in members if is_file(m) and is_inside(name_of(m))]


def unpacked(data: bytes, words: list[str], spare: list[str]) -> dict[str, Any]:
    """The wanted members of an archive.

    words: a member is wanted if its name, in lower case, contains one of these.
    spare: a member whose name contains one of these comes last, and is left out if it is unreadable
        or too large.

    Returns a dict of arrays and lists:

    names: the members' paths.
    sizes, modified: int64 (members,).
    content: the contents, one after the other, as `eights`.

    Raises Unreadable.
    """
    archive, members = opened(io.BytesIO(data))
    if len(members) > MEMBERS:
        raise Unreadable(f"it holds more than {MEMBERS} files")
    found: dict[str, tuple[int, bytes]] = {}
    room = UNPACKED
    for member in sorted(members, key=lambda member: not _wanted(name_of(member), words)):
        name = name_of(member)
        wanted = _wanted(name, words)
        if not wanted and not _wanted(name, spare):
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
    *folders, last = name.casefold().split("/")
    if last.startswith(".") or any(f.startswith(".") or f == "__macosx" for f in folders):
        return False
    return any(word in last for word in words)


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """The answer to ``{"op": "archive", "data", "size", "words", "spare"}``: see `unpacked`.

    In the question, "data" is `size` bytes as `eights`.
    """
    identity = question.get("id")
    try:
        words, spare = list(question["words"]), list(question["spare"])
        data = question["data"].tobytes()[: question["size"]]
        return {"id": identity, "value": unpacked(data, words, spare)}
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
