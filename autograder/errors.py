"""The errors a user sees, each as one line: what happened, where, and what to do next."""

from __future__ import annotations

INTERRUPTED = 130  # exit status after Ctrl-C, as shells have it


class UserError(Exception):
    """The call or the environment is wrong; the command line prints it and exits with 2."""


class CannotGrade(Exception):
    """A submission, or one notebook of it, cannot be graded; the text is the reason."""


class GraderFault(Exception):
    """The grader could not do its part, under too much load perhaps; no submission is to blame."""


def printable(text: object, limit: int = 500) -> str:
    """A stranger's text (a file's name, what a kernel says) as one line of printable characters.

    Whatever it holds, it can be shown on a terminal and written as UTF-8.
    """
    line = " ".join(str(text).split())
    return "".join(c if c.isprintable() else "?" for c in line[:limit])
