"""Explains errors of the machine or the account: what happened, where, and what to do next."""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

from autograder.errors import UserError, printable

_AGAIN = "the same command then goes on from there"
_OWNER = "run this as the account that owns the course, or give this one the right"
# Error numbers that concern the machine or the account, and never our code.
_REFUSED = {
    errno.EACCES: f"it is not for this account; {_OWNER}",
    errno.EPERM: f"it is not for this account; {_OWNER}",
    errno.EROFS: "its file system is read-only; move the course, or mount it writable",
    errno.EIO: "the disk does not read or write it; look after the disk",
    errno.EMFILE: "too many files are open; raise the limit (`ulimit -n`), or take fewer --jobs",
    errno.ENFILE: "too many files are open on this machine; close some programs",
    errno.ENAMETOOLONG: "the path is too long; move the course to a shorter one",
    errno.ELOOP: "it is a circle of links; remove it",
    errno.ESTALE: "the network file system has lost it; mount it again",
    errno.EISDIR: "it is a folder where a file should be; move it away",
    errno.ENOTDIR: "there is a file where a folder should be; move it away",
}
_FULL = (errno.ENOSPC, errno.EDQUOT)
# SQLite's messages about a gradebook's file.
_DATABASE = {
    "database or disk is full": "",
    "file is not a database|malformed|disk image|encrypted": "it is damaged; restore it from a "
    "backup, or move it away: `autograder release` and `autograder grade` then make a new one, "
    "without the points given by hand",
    "readonly database|unable to open database|attempt to write": f"it is not for this account; "
    f"it and its folder must be writable: {_OWNER}",
    "database is locked|database table is locked": "it is locked by another program; try again "
    "when that is done",
    "disk I/O error": "the disk does not read or write it; look after the disk",
}
_NUMBER = re.compile(r"\[Errno (\d+)\] [^:\n]*(?:: '([^'\n]*)')?")
_SQLITE = re.compile(r"\(?sqlite3\.\w+(?:\)|:) ([^\n]*)")


def explained(said: BaseException | str) -> str:
    """One line about an error of the machine or the account; "" for any other error.

    said: an error, or a text that quotes errors as Python prints them; the last one counts.
    """
    text = str(said)
    if isinstance(said, MemoryError) or "MemoryError" in text:
        return "memory ran out; close other programs, or take fewer --jobs"
    if "No usable temporary directory" in text:
        return "no temporary folder can be written; set TMPDIR to one that can"
    if "can't start new thread" in text:
        return "this account may start no more processes; raise the limit (`ulimit -u`)"
    if isinstance(said, OSError) and said.errno:
        name = said.filename if isinstance(said.filename, str | bytes) else ""
        return _refused(said.errno, os.fsdecode(name))
    found = [*_NUMBER.finditer(text), *_SQLITE.finditer(text)]
    for match in sorted(found, key=lambda m: m.start(), reverse=True):
        numbered = match.re is _NUMBER
        line = _refused(int(match[1]), match[2] or "") if numbered else _database(match[1])
        if line:
            return line
    return ""


def _refused(number: int, name: str) -> str:
    where = printable(name)
    if number in _FULL:
        return _full(where)
    if number in _REFUSED:
        return f"{where or 'a file'} cannot be used: {_REFUSED[number]}"
    return ""


def _database(said: str) -> str:
    for pattern, why in _DATABASE.items():
        if re.search(pattern, said):
            return f"gradebook.db cannot be used: {why}" if why else _full("gradebook.db")
    return ""


def _full(name: str) -> str:
    """The message for a full disk, with the space left where this program writes."""
    places = dict.fromkeys([str(Path.cwd()), tempfile.gettempdir()])
    left = ", ".join(f"{shutil.disk_usage(p).free >> 20} MB in {printable(p)}" for p in places)
    what = f" for {name}" if name else ""
    return f"a disk is full, there is no room{what} (left: {left}); make room, and {_AGAIN}"


def settle_in() -> None:
    """Cope with an account without a home and with a terminal that cannot show every name.

    Raises UserError when file names cannot be decoded.
    """
    try:
        Path.home()
    except RuntimeError:  # no entry in passwd: Debian's name for a home that does not exist
        os.environ["HOME"] = "/nonexistent"
    if sys.getfilesystemencoding().lower() != "utf-8":
        raise UserError(
            f"names of files are read as {sys.getfilesystemencoding()} here, and some would be "
            "misread; set PYTHONUTF8=1, or a locale such as LC_ALL=C.UTF-8"
        )
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure") and stream.encoding.lower() != "utf-8":
            stream.reconfigure(errors="backslashreplace")
