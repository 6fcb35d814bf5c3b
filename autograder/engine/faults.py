"""Decides whether an error is the grader's, which never costs a point, or perhaps the student's.

A check compares numbers, texts and shapes from a student's work.  A strange value may make it raise
ValueError, IndexError and the like; then the check has failed.  No value can fill a disk, exhaust
memory, remove a package or undefine a name, so such errors say nothing about the work.
"""

from __future__ import annotations

import errno
import os
from concurrent.futures import BrokenExecutor, CancelledError

from autograder.errors import GraderFault, Passing

# Errors that no value can cause in the process of the checks.
_NEVER_BY_A_VALUE = (OSError, MemoryError, ImportError, NameError, Warning)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_SCARCE = (*_NO_ROOM, errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ETIMEDOUT)
_PASSING = (Passing, MemoryError, BrokenExecutor, CancelledError)
FULL = "its disk is full: make room where its temporary files go"
NO_ROOM = "No space left on device"  # Linux's message for a write to a full disk


def is_graders(error: BaseException) -> bool:
    """Whether an error raised by a check or over a strange message can only be the grader's."""
    if type(error).__module__.partition(".")[0] == "_pytest":  # a missing fixture
        return True
    return isinstance(error, _NEVER_BY_A_VALUE) or not isinstance(error, Exception)


def in_words(error: BaseException) -> str:
    """What happened, in words without paths, since students read the result too."""
    if isinstance(error, GraderFault):
        return str(error)
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return FULL
    if isinstance(error, OSError) and error.errno is not None:
        return f"{type(error).__name__}: {os.strerror(error.errno)}"
    return type(error).__name__


def advice(error: BaseException) -> str:
    """What to do about an error that ended a grading."""
    if may_pass(error):
        return "grade it again"
    return "to grade it again will not help before that is mended; the log says where it is"


def may_pass(error: BaseException) -> bool:
    """Whether a retry can succeed with the same kit on the same machine."""
    if isinstance(error, GraderFault):  # raised by itself, or because of another error
        cause = error.__cause__
        return cause is None or not is_graders(cause) or may_pass(cause)
    if isinstance(error, OSError):
        return error.errno in _SCARCE
    return isinstance(error, _PASSING)
