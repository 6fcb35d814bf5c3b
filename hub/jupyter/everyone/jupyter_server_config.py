"""Everyone's server on the Hub: JupyterLab says in words why nbgrader refused something.

nbgrader answers its own refusals with a traceback, which JupyterLab shows to the student.  The
traceback stays in the server's log.
"""

import functools
import textwrap

from nbgrader.server_extensions.assignment_list.handlers import AssignmentList

REFUSAL = "ExchangeError: "  # what nbgrader raises when it is the student who has to do something
WIDTH = 90  # columns; the dialog breaks no lines


def in_words(action):
    """`action`, a method of AssignmentList, with nothing but the message in its refusals."""

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
