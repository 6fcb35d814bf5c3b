"""Whose fault an error is: the grader's, which never costs a point, or perhaps the student's.

A check compares numbers, texts and shapes that a student's work has made.  A strange one makes it
raise ValueError, IndexError and the like, and it has failed.  No value makes a disk full, memory
scarce, a package disappear or a name unknown: what is raised then says nothing about the work.
"""

from __future__ import annotations

import errno
import os
from concurrent.futures import BrokenExecutor, CancelledError

from autograder.errors import GraderFault, Passing

# What no value can cause in the process of the checks.
_NEVER_BY_A_VALUE = (OSError, MemoryError, ImportError, NameError, Warning)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_SCARCE = (*_NO_ROOM, errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ETIMEDOUT)
_PASSING = (Passing, MemoryError, BrokenExecutor, CancelledError)
FULL = "its disk is full: make room where its temporary files go"
NO_ROOM = "No space left on device"  # how Linux says it to whoever writes to a full disk


def is_graders(error: BaseException) -> bool:
    """Whether an error that a check or a strange message raised can only be the grader's."""
    if type(error).__module__.partition(".")[0] == "_pytest":  # a fixture that is not there
        return True
    return isinstance(error, _NEVER_BY_A_VALUE) or not isinstance(error, Exception)


def in_words(error: BaseException) -> str:
    """What happened, for whoever reads the result: students too, so that no path is in it."""
    if isinstance(error, GraderFault):
        return str(error)
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return FULL
    if isinstance(error, OSError) and error.errno is not None:
        return f"{type(error).__name__}: {os.strerror(error.errno)}"
    return type(error).__name__


def advice(error: BaseException) -> str:
    """What to do after an error at which a grading ended."""
    if may_pass(error):
        return "grade it again"
    return "to grade it again will not help before that is mended; the log says where it is"


def may_pass(error: BaseException) -> bool:
    """Whether the same grading can go well another time, with the same kit and machine."""
    if isinstance(error, GraderFault):  # of its own, or for what another has raised
        cause = error.__cause__
        return cause is None or not is_graders(cause) or may_pass(cause)
    if isinstance(error, OSError):
        return error.errno in _SCARCE
    return isinstance(error, _PASSING)
