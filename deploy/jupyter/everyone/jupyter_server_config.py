"""Jupyter server configuration for everyone on the Hub: readable refusals from nbgrader.

nbgrader answers a refusal with a traceback, which JupyterLab shows to the student.  Here the answer
is the error message only; the traceback remains in the server's log.
"""

import functools
import textwrap

from nbgrader.server_extensions.assignment_list.handlers import AssignmentList

REFUSAL = "ExchangeError: "  # raised when the student has to do something
WIDTH = 90  # columns; the dialog does not wrap lines


def in_words(action):
    """Wrap `action`, a method of AssignmentList, so that refusals hold only the message."""

    @functools.wraps(action)
    def answer(self, *args, **kwargs):
        answered = action(self, *args, **kwargs)
        if not answered["success"]:
            last = answered["value"].rstrip().rpartition("\n")[2]
            reason = last.partition(REFUSAL)[2]
            answered["value"] = textwrap.fill(reason, WIDTH) or answered["value"]
        return answered

    return answer


for name in ("fetch_assignment", "fetch_feedback", "submit_assignment"):
    setattr(AssignmentList, name, in_words(getattr(AssignmentList, name)))
