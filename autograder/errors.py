"""The errors that a user sees, each as one line: what happened, where, and what to do next."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher

INTERRUPTED = 130  # exit status after Ctrl-C, as in shells


class _Said(Exception):
    """An error with a printable text, whatever strange names and messages it quotes."""

    def __str__(self) -> str:
        return printable_lines(super().__str__())


class UserError(_Said):
    """The call or the environment is wrong; the command line prints it and exits with 2."""


class CannotGrade(_Said):
    """A submission, or one of its notebooks, cannot be graded; the text is the reason."""


class Passing(Exception):
    """An error that may pass by itself: a retry can succeed, for example under less load."""


class GraderFault(_Said):
    """The grader failed, perhaps under too much load; no submission is to blame."""


def printable(text: object, limit: int = 500) -> str:
    """A stranger's text (a file name, a kernel's message) as one line of printable characters.

    The result can always be shown on a terminal and written as UTF-8.
    """
    line = " ".join(str(text).split())
    return "".join(c if c.isprintable() else "?" for c in line[:limit])


def cause_of(message: str) -> str:
    """What an error's message says has happened.

    TensorFlow puts messages about a graph after the places where the operation was defined, and
    more such places after them; this leaves out both.
    """
    kept: list[str] = []
    traced = False
    for line in message.partition("Original stack trace for ")[0].splitlines():
        said = line.strip()
        if said.startswith("Detected at node "):
            traced = True
        elif said.startswith("Node: "):
            traced = False
        elif said.endswith("Original error:"):
            kept.clear()
        elif not (traced or said == "Graph execution error:" or said.startswith("[[{{node ")):
            kept.append(said)
    return "\n".join(filter(None, kept)) or message


def printable_lines(text: str) -> str:
    """A text (a log, a hint) with its lines and tabs, and otherwise only printable characters.

    Nothing in it moves a terminal's cursor, sets a title or changes the direction of writing.
    """
    if text.replace("\n", "").isprintable():
        return text
    lines = text.replace("\r\n", "\n").split("\n")
    return "\n".join(
        "".join(c if c.isprintable() or c == "\t" else "?" for c in line) for line in lines
    )


def nearest(name: str, known: Iterable[str], most: int = 5) -> str:
    """At most `most` of the known names as part of a sentence, the most similar to `name` first."""

    def unlike(other: str) -> tuple[float, str]:
        pair = SequenceMatcher(None, name.casefold(), other.casefold())
        return -pair.ratio(), other

    names = [printable(name) for name in sorted(known, key=unlike)]
    return ", ".join(names[:most]) + (" …" if len(names) > most else "")
