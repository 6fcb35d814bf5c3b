"""`make hub`, as a person starts and stops it; no other Hub of the kit runs meanwhile."""

from __future__ import annotations

import os
import pwd
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from people import assert_gone, until
from submissions import ROOT

from hub.__main__ import COURSE

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="people on the Hub are Unix accounts, which only root can make"
)


def test_make_hub_says_how_to_log_in_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with (tmp_path / "output").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "autograder/bootstrap.py", "hub"],
            cwd=ROOT,
            stdout=output,
            start_new_session=True,
        )
    said = ""
    try:
        said = until(lambda: ready(process, tmp_path / "output"), "the demonstration is up")
        url = re.search(r"JupyterHub: (http://127\.0\.0\.1:\d+)$", said, re.M)
        assert url is not None
        with urllib.request.urlopen(f"{url[1]}/hub/login") as page:
            assert page.status == 200
        for student in COURSE.students:
            assert re.search(rf"^  {student} +\S{{12}} +student$", said, re.M)
        homes = {pwd.getpwnam(student).pw_dir for student in COURSE.students}
        assert all(Path(home).is_dir() for home in homes)
        uids = {pwd.getpwnam(name).pw_uid for name in (*COURSE.students, COURSE.grader)}
    finally:
        os.killpg(process.pid, signal.SIGINT)  # Ctrl-C, which reaches them all
        assert process.wait(60) == 0
    assert not any(Path(home).exists() for home in homes)
    assert_gone([*COURSE.students, *COURSE.instructors, COURSE.grader], uids)


def ready(process: subprocess.Popen, output: Path) -> str:
    """What was said, once all is."""
    assert process.poll() is None
    said = output.read_text()
    return said if "Ctrl-C" in said else ""
