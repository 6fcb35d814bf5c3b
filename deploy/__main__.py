"""`make hub`: runs a demonstration on this machine until it is stopped."""

from __future__ import annotations

import os
import signal
import sys
import threading

from autograder.data.mnist import MnistUnavailable
from autograder.errors import UserError
from deploy.demo import Demonstration, Members

COURSE = Members(
    name="deep-learning",
    grader="grader-deep-learning",
    instructors=("ida",),
    students=("ada", "ben", "chen"),
)


def main() -> int:
    """Start the demonstration, print how to log in, and wait for a signal."""
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    os.umask(0o022)  # users must be able to enter their folders
    print("setting up a JupyterHub (about half a minute)", flush=True)
    try:
        with Demonstration([COURSE]) as hub:
            print(welcome(hub), flush=True)
            stopped.wait()
            print("stopping", flush=True)
    except (UserError, MnistUnavailable) as error:
        print(f"hub: {error}", file=sys.stderr)
        return 2
    return 0


def welcome(hub: Demonstration) -> str:
    """The addresses and passwords, with instructions."""
    lines = [f"\nJupyterHub: {hub.url}\n"]
    for course in hub.courses:
        for name in hub.people:
            students, instructors = name in course.students, name in course.instructors
            roles = [r for r, has in (("student", students), ("instructor", instructors)) if has]
            lines.append(f"  {name:10} {hub.passwords[name]:14} {' and '.join(roles)}")
        lines += [
            "",
            "As a student: Nbgrader → Assignment List: fetch, solve, submit, read the feedback.",
            f"As the instructor: {hub.service_url(course.name)}-autograder/ shows the class,",
            f"{hub.service_url(course.name)}/ is formgrader.",
        ]
    if not hub.as_root:
        lines += ["", "This does not run as root: one account for all, and nothing is protected."]
    return "\n".join([*lines, "", "Ctrl-C stops everything and removes it."])


if __name__ == "__main__":
    sys.exit(main())
