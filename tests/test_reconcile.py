"""The service between exchange and gradebook loses nothing, repeats nothing and trusts nobody."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from nbconvert.filters.markdown_mistune import MarkdownWithMath
from nbgrader.utils import parse_utc

from autograder.engine.grade import Graded, Job
from autograder.engine.pool import Engine
from autograder.errors import UserError
from autograder.kernel.page import AS_WRITTEN
from autograder.record.gradebook import Gradebook
from autograder.service import notices
from autograder.service.decide import decide, eligible
from autograder.service.fair_queue import FairQueue
from autograder.service.inbound import Attempt, survey_attempt
from autograder.service.reconcile import Reconciler
from autograder.service.records import Answer, Records, only_service
from autograder.service.settings import Settings
from autograder.service.view import PageState
from support.exchange import (
    ACCOUNTS,
    FILTERS,
    ROOT_USER,
    SELF,
    Attempted,
    Classroom,
    Clock,
    Scripted,
    settle,
    template,
    wait_for_work,
)
from support.submissions import ASSIGNMENT, CourseCopy, expected_points, max_points, solution_cells

FULL = sum(max_points(FILTERS).values())
as_root = pytest.mark.skipif(
    not ROOT_USER, reason="only root can hand in under another account's name"
)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> CourseCopy:
    return template(tmp_path_factory.mktemp("template"))


@pytest.fixture
def classroom(tmp_path: Path, original: CourseCopy) -> Classroom:
    return Classroom.make(tmp_path, original)


@pytest.fixture
def clock() -> Clock:
    return Clock(time.time() + 5)  # a little later than current submissions


# --- decisions, a pure function ---

SETTINGS = Settings("c", Path("inbound"), Path("feedback"))


def attempt(arrived: float, problem: str = "") -> Attempt:
    folder = Path(f"ada+{ASSIGNMENT}+{arrived}+x")
    return Attempt(folder, ASSIGNMENT, "ada", "ada", arrived, complete=True, problem=problem)


def graded(arrived: float, slot: float | None = None, score: float = 0.0) -> Answer:
    slot = arrived if slot is None else slot
    return Answer(
        attempt(arrived).name, "ada", ASSIGNMENT, "graded", arrived, slot=slot, score=score
    )


def decisions(
    arrivals: list[float], answers: list[Answer], now: float, counts: str = "newest"
) -> list[tuple[str, float, float]]:
    found = decide([attempt(t) for t in arrivals], answers, replace(SETTINGS, counts=counts), now)
    return [(d.kind, d.attempt.arrived, d.when) for d in found]


def test_within_the_limits_an_attempt_is_graded_when_it_arrives() -> None:
    assert eligible(1000.0, [], 3, 10) == 1000.0
    assert eligible(1000.0, [10.0, 20.0], 3, 10) == 1000.0


def test_beyond_the_hourly_limit_an_attempt_waits_for_the_first_place_to_be_free() -> None:
    assert eligible(1000.0, [10.0, 20.0, 30.0], 3, 10) == 3610.0
    assert eligible(3610.0, [10.0, 20.0, 30.0], 3, 10) == 3610.0


def test_beyond_the_daily_limit_an_attempt_waits_for_the_next_day() -> None:
    slots = [4000.0 * i for i in range(10)]
    assert eligible(40_000.0, slots, 3, 10) == 86_400.0


def test_no_hour_and_no_day_ever_holds_more_gradings_than_allowed() -> None:
    slots: list[float] = []
    for arrived in range(0, 400_000, 613):  # a student who submits every ten minutes
        when = eligible(float(arrived), slots, 3, 10)
        if when == arrived:
            slots.append(when)
    for most, period in ((3, 3600), (10, 86_400)):
        windows = [sum(start <= slot < start + period for slot in slots) for start in slots]
        assert max(windows) == most
    assert len(slots) > 40


def test_of_several_attempts_the_newest_is_graded_and_the_others_are_answered() -> None:
    assert decisions([1.0, 2.0, 3.0], [], 10.0) == [
        ("supersede", 1.0, 0.0),
        ("supersede", 2.0, 0.0),
        ("grade", 3.0, 3.0),
    ]


def test_when_the_best_counts_every_attempt_is_graded_in_turn() -> None:
    assert decisions([1.0, 2.0], [], 10.0, "best") == [("grade", 1.0, 1.0)]
    assert decisions([1.0, 2.0], [graded(1.0)], 10.0, "best") == [("grade", 2.0, 2.0)]


@pytest.mark.parametrize("counts", ["newest", "best"])
def test_a_deferred_attempt_gives_way_to_a_newer_one(counts: str) -> None:
    answers = [graded(1.0), graded(2.0), graded(3.0)]
    arrivals = [1.0, 2.0, 3.0, 4.0]
    assert decisions(arrivals, answers, 10.0, counts) == [("defer", 4.0, 3601.0)]
    assert decisions([*arrivals, 5.0], answers, 10.0, counts) == [
        ("supersede", 4.0, 0.0),
        ("defer", 5.0, 3601.0),
    ]
    told = [*answers, replace(graded(5.0), kind="deferred", until=3601.0)]
    superseded = replace(graded(4.0), kind="superseded")
    assert decisions([*arrivals, 5.0], [*told, superseded], 20.0, counts) == []
    assert decisions([*arrivals, 5.0], [*told, superseded], 3601.0, counts) == [
        ("grade", 5.0, 3601.0)
    ]


def test_what_is_refused_takes_no_place_and_hides_no_earlier_attempt() -> None:
    found = decide([attempt(1.0), attempt(2.0, "too large")], [], SETTINGS, 10.0)
    assert [(d.kind, d.attempt.arrived, d.reason) for d in found] == [
        ("refuse", 2.0, "too large"),
        ("grade", 1.0, ""),
    ]


def test_an_attempt_from_the_future_is_graded_now() -> None:
    assert decisions([500.0], [], 10.0) == [("grade", 500.0, 10.0)]


# --- turns ---


def taken(turns: FairQueue[int], count: int) -> list[tuple[str, int]]:
    """The next items, each of which is done before the next is taken."""
    found = []
    for _ in range(count):
        turn = turns.take()
        assert turn is not None
        found.append(turn)
        turns.done(turn[0])
    return found


def test_students_take_turns() -> None:
    turns: FairQueue[int] = FairQueue(workers=1)
    turns.put("ada", [1, 2])
    turns.put("bob", [3, 4])
    assert taken(turns, 4) == [("ada", 1), ("bob", 3), ("ada", 2), ("bob", 4)]


def test_while_others_wait_a_student_leaves_one_worker_to_them() -> None:
    turns: FairQueue[int] = FairQueue(workers=2)
    turns.put("ada", [1, 2, 3])
    turns.put("bob", [4, 5, 6])
    assert turns.take() == ("ada", 1)  # an endless loop, which keeps its worker
    assert taken(turns, 3) == [("bob", 4), ("bob", 5), ("bob", 6)]
    assert turns.take() == ("ada", 2)  # nobody else waits


def test_who_has_waited_before_comes_first() -> None:
    turns: FairQueue[int] = FairQueue(workers=1)
    turns.put("ada", [1])
    turns.put("bob", [2, 3], first=True)
    turns.put("cleo", [4])
    turns.put("ada", [5], first=True)  # already waiting, so she keeps her place
    assert taken(turns, 5) == [("bob", 2), ("ada", 1), ("cleo", 4), ("bob", 3), ("ada", 5)]


# --- from Submit to feedback ---


def test_from_submit_to_the_assignment_list(classroom: Classroom, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    classroom.work(right=True).rename(home / ASSIGNMENT)
    done = classroom.submit(home)
    assert done.returncode == 0, done.stderr
    with classroom.reconciler() as reconciler:
        settle(reconciler)
    assert classroom.submissions() == {SELF: FULL}
    listed = classroom.nbgrader(home, "list", "--cached").stderr
    assert "feedback ready to be fetched" in listed
    fetched = classroom.nbgrader(home, "fetch_feedback", ASSIGNMENT)
    assert fetched.returncode == 0, fetched.stderr
    (page,) = home.rglob("*.html")
    assert page.stem == FILTERS
    assert "✓ It is right" in page.read_text("utf-8")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every account can reach, unlike pytest's."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@as_root
def test_a_submission_of_another_account_by_nbgrader_itself(
    original: CourseCopy, open_folder: Path
) -> None:
    student = ACCOUNTS[0]
    home = open_folder / "home"
    home.mkdir()
    classroom = Classroom.make(open_folder, original)
    classroom.work().rename(home / ASSIGNMENT)
    subprocess.run(["chown", "-R", student, home], check=True)
    prefix = (
        *("setpriv", f"--reuid={student}", "--clear-groups"),
        # Python may be in a home that only root can enter.
        *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
    )
    done = classroom.submit(home, *prefix)
    assert done.returncode == 0, done.stderr
    with classroom.reconciler() as reconciler:
        settle(reconciler)
    assert classroom.submissions() == {student: 0.0}


def test_an_unfinished_submission_is_waited_for(classroom: Classroom) -> None:
    handed_in = classroom.hand_in(finished=False)
    secret = handed_in.folder / "submission_secret.txt"
    with classroom.reconciler() as reconciler:
        settle(reconciler)
        assert reconciler.health.unfinished == 1
        handed_in.folder.chmod(0o777)
        text = secret.read_text()
        secret.unlink()
        settle(reconciler)
        assert reconciler.health.unfinished == 1
        assert not classroom.copy.submission(SELF).exists()
        secret.write_text(text)
        settle(reconciler)
    assert handed_in.graded
    assert classroom.submissions() == {SELF: 0.0}


def test_an_oversized_submission_is_refused_before_it_is_copied(
    classroom: Classroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    classroom.configure(max_submission_bytes=1 << 20)
    folder = classroom.work()
    (folder / "mdc_session-4000.data-00000-of-00001").write_bytes(bytes(1 << 20))
    handed_in = classroom.hand_in(folder=folder)
    copied: list[object] = []
    monkeypatch.setattr("autograder.service.inbound.collect", lambda *args: copied.append(args))
    with classroom.reconciler() as reconciler:
        settle(reconciler)
    assert copied == []
    assert "at most 1.0 MB are accepted" in handed_in.page()
    assert not classroom.copy.submission(SELF).exists()
    assert classroom.submissions() == {}


def test_a_submission_that_grows_while_it_is_copied_is_refused(
    classroom: Classroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    classroom.configure(max_submission_bytes=1 << 20)
    handed_in = classroom.hand_in()

    def surveyed_before(attempt: Attempt, *args: Any) -> Attempt:
        found = survey_attempt(attempt, *args)
        (handed_in.folder / "grown.py").write_bytes(bytes(1 << 20))
        return found

    monkeypatch.setattr("autograder.service.inbound.survey_attempt", surveyed_before)
    with classroom.reconciler() as reconciler:
        settle(reconciler)
    assert "it has grown while it was copied" in handed_in.page()
    assert not classroom.copy.submission(SELF).exists()


NOTEBOOK = f"{FILTERS}.ipynb"


def emptied(folder: Path) -> None:
    (folder / NOTEBOOK).unlink()


def strange(folder: Path) -> None:
    (folder / NOTEBOOK).unlink()
    nbformat.write(nbformat.v4.new_notebook(), folder / "Untitled.ipynb")


def renamed(folder: Path) -> None:
    (folder / NOTEBOOK).rename(folder / "Untitled.ipynb")


def moved_down(folder: Path) -> None:
    (folder / "inner").mkdir()
    (folder / NOTEBOOK).rename(folder / "inner" / NOTEBOOK)


def truncated(folder: Path) -> None:
    os.truncate(folder / NOTEBOOK, 0)


def linked(folder: Path) -> None:
    (folder / NOTEBOOK).unlink()
    (folder / NOTEBOOK).symlink_to("/etc/hostname")


NO_NOTEBOOK: dict[Callable[[Path], None], str] = {
    emptied: "it holds no notebook, and what is graded is",
    strange: "what it holds of notebooks is Untitled.ipynb, and",
    truncated: f"it holds {NOTEBOOK} without content",
    linked: "it holds no notebook, and what is graded is",
}


@pytest.mark.parametrize("arrive", [renamed, moved_down], ids=lambda arrive: arrive.__name__)
def test_a_notebook_under_another_name_is_graded_and_its_page_is_where_the_student_looks(
    classroom: Classroom, arrive: Callable[[Path], None]
) -> None:
    folder = classroom.work(right=True)
    for path in folder.glob("*.ipynb"):
        if path.name != NOTEBOOK:
            path.unlink()
    arrive(folder)
    (folder / ".venv").mkdir()
    for number in range(2500):
        (folder / ".venv" / str(number)).touch()
    handed_in = classroom.hand_in(folder=folder)
    with classroom.reconciler() as reconciler:
        settle(reconciler)
        (answer,) = reconciler.records.answers(ASSIGNMENT, SELF)
    assert (answer.kind, answer.score) == ("graded", answer.max_score)
    assert not (classroom.copy.submission(SELF) / ".venv").exists()
    if arrive is renamed:
        assert "It is right" in handed_in.page("Untitled")


@pytest.mark.parametrize("spoil", NO_NOTEBOOK, ids=lambda spoil: spoil.__name__)
def test_what_holds_no_notebook_of_the_assignment_does_not_count(
    classroom: Classroom, spoil: Callable[[Path], None]
) -> None:
    classroom.configure(attempts_per_hour=2)
    with classroom.reconciler() as reconciler:
        assert_graded(classroom, reconciler, right=True)
        folder = classroom.work(right=True)
        spoil(folder)
        refused = classroom.hand_in(folder=folder)
        settle(reconciler)
        _, answer = reconciler.records.answers(ASSIGNMENT, SELF)
        assert answer.kind == "refused"
        assert answer.reason.startswith(NO_NOTEBOOK[spoil])
        assert answer.reason.endswith("under these names and hand in again")
        for path in refused.folder.glob("*.ipynb"):
            assert answer.reason in refused.page(path.stem)
        assert classroom.submissions() == {SELF: FULL}
        # This hour's second slot is still free.
        assert_graded(classroom, reconciler)
    assert classroom.submissions() == {SELF: 0.0}


def test_what_holds_no_notebook_takes_nothing_from_the_attempt_before(
    classroom: Classroom,
) -> None:
    first = classroom.hand_in(right=True)
    folder = classroom.work()
    emptied(folder)
    classroom.hand_in(folder=folder)
    with classroom.reconciler() as reconciler:
        settle(reconciler)
        kinds = {answer.kind for answer in reconciler.records.answers(ASSIGNMENT, SELF)}
    assert kinds == {"graded", "refused"}
    assert first.graded
    assert classroom.submissions() == {SELF: FULL}


def test_notebooks_that_go_while_they_are_copied_refuse_the_submission(
    classroom: Classroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed_in = classroom.hand_in()

    def surveyed_before(attempt: Attempt, *args: Any) -> Attempt:
        found = survey_attempt(attempt, *args)
        (handed_in.folder / NOTEBOOK).unlink(missing_ok=True)
        return found

    monkeypatch.setattr("autograder.service.inbound.survey_attempt", surveyed_before)
    with classroom.reconciler() as reconciler:
        settle(reconciler)
        (answer,) = reconciler.records.answers(ASSIGNMENT, SELF)
    assert (answer.kind, answer.reason[:20]) == ("refused", "it holds no notebook")
    assert not classroom.copy.submission(SELF).exists()


def test_what_nbgrader_leaves_behind_counts_for_nothing(classroom: Classroom) -> None:
    folder = classroom.work()
    (folder / "mdc_session-3900.index").write_bytes(b"x")
    (folder / "mdc_session-4000.meta").write_bytes(b"x")
    (folder / "mdc_session-4000.index").write_bytes(b"x")
    classroom.hand_in(folder=folder)
    with classroom.reconciler() as reconciler:
        settle(reconciler)
    collected = {path.name for path in classroom.copy.submission(SELF).iterdir()}
    assert {name for name in collected if name.startswith("mdc")} == {"mdc_session-4000.index"}


def test_links_and_devices_are_never_followed(classroom: Classroom, tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir()
    (private / "solution.txt").write_text("the answer")
    folder = classroom.work()
    (folder / "file").symlink_to(private / "solution.txt")
    (folder / "folder").symlink_to(private)
    (folder / "hard").hardlink_to(private / "solution.txt")
    handed_in = classroom.hand_in(folder=folder)
    (handed_in.folder / "hard").unlink()
    (handed_in.folder / "hard").hardlink_to(private / "solution.txt")
    os.mkfifo(handed_in.folder / "pipe")
    (handed_in.folder / f"{FILTERS}.ipynb").chmod(0o644)
    with classroom.reconciler() as reconciler:
        settle(reconciler)
        (answer,) = reconciler.records.answers(ASSIGNMENT, SELF)
    assert answer.kind == "graded"
    assert answer.notes == "left out: file, folder, hard, pipe"
    collected = classroom.copy.submission(SELF)
    assert not [n for n in ("file", "folder", "hard", "pipe") if os.path.lexists(collected / n)]


@as_root
def test_the_owner_decides_whose_submission_it_is(classroom: Classroom) -> None:
    thief, victim = ACCOUNTS[:2]
    honest = classroom.hand_in(victim, right=True)
    forged = classroom.hand_in(thief, claimed=victim)
    with classroom.reconciler() as reconciler:
        settle(reconciler)
        (answer,) = reconciler.records.answers(ASSIGNMENT, thief)
    assert classroom.submissions() == {victim: FULL, thief: 0.0}
    assert honest.graded
    assert forged.graded
    assert answer.notes == f"handed in under the name {victim}"


@as_root
def test_a_file_of_somebody_else_in_it_refuses_a_submission(classroom: Classroom) -> None:
    student, other = ACCOUNTS[:2]
    handed_in = classroom.hand_in(student)
    path = handed_in.folder / "planted.py"
    path.write_text("x = 1")
    shutil.chown(path, other)
    with classroom.reconciler() as reconciler:
        settle(reconciler)
    assert "planted.py in it belongs to another account" in handed_in.page()
    assert classroom.submissions() == {}


@as_root
def test_a_submission_of_no_account_is_refused(classroom: Classroom) -> None:
    handed_in = classroom.hand_in(ACCOUNTS[0])
    for path in (handed_in.folder, *handed_in.folder.iterdir()):
        os.chown(path, 54_321, 54_321)
    with classroom.reconciler() as reconciler:
        settle(reconciler)
    assert "its owner is no account here" in handed_in.page()
    assert classroom.submissions() == {}


def test_where_all_students_share_an_account_the_name_counts(classroom: Classroom) -> None:
    with (classroom.copy.root / "nbgrader_config.py").open("a") as file:
        print("c.ExchangeCollect.check_owner = False", file=file)
    named, pattern = classroom.hand_in(claimed="ada"), classroom.hand_in(claimed="*")
    with classroom.reconciler() as reconciler:
        settle(reconciler)
    assert named.graded
    assert "its owner is no account here" in pattern.page()
    assert classroom.submissions() == {"ada": 0.0}


def test_a_folder_whose_name_is_no_text_harms_no_page(classroom: Classroom) -> None:
    handed_in = classroom.hand_in()
    name = os.fsencode(handed_in.folder.name).replace(SELF.encode(), b"\xff\xfe", 1)
    handed_in.folder.rename(os.path.join(handed_in.folder.parent, os.fsdecode(name)))
    with classroom.reconciler() as reconciler:
        settle(reconciler)
        (shown,) = PageState(reconciler).state()["assignments"][0]["rows"]
    assert shown["status"] == "graded"
    assert shown["notes"] == "handed in under the name ??"
    json.dumps(shown, ensure_ascii=False).encode()


def test_lateness_is_told_by_the_servers_clock(classroom: Classroom) -> None:
    handed_in = classroom.hand_in()
    (handed_in.folder / "timestamp.txt").write_text("2001-01-01 00:00:00.0 UTC")
    for path in (*handed_in.folder.iterdir(), handed_in.folder):
        os.utime(path, (1e9, 1e9))  # times that a student can set
    # A file changed in place after submission, which does not change the folder's own times.
    changed = handed_in.folder / f"{FILTERS}.ipynb"
    deadline = time.monotonic() + 10
    while os.lstat(changed).st_ctime <= os.lstat(handed_in.folder).st_ctime:
        assert time.monotonic() < deadline
        os.utime(changed, (1e9, 1e9))
    newest = os.lstat(changed).st_ctime
    with classroom.reconciler() as reconciler:
        settle(reconciler)
        (answer,) = reconciler.records.answers(ASSIGNMENT, SELF)
    assert answer.arrived == newest
    with Gradebook(classroom.course).database() as database:
        recorded = database.find_submission(ASSIGNMENT, SELF).timestamp
    written = (classroom.copy.submission(SELF) / "timestamp.txt").read_text()
    assert parse_utc(written.strip()) == recorded
    assert abs(recorded.timestamp() - time.mktime(time.gmtime(answer.arrived))) < 2


def test_a_notebook_that_is_not_part_of_the_assignment_does_not_hide_the_feedback(
    classroom: Classroom, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    classroom.work().rename(home / ASSIGNMENT)
    nbformat.write(nbformat.v4.new_notebook(), home / ASSIGNMENT / "Untitled.ipynb")
    assert classroom.submit(home).returncode == 0
    with classroom.reconciler() as reconciler:
        settle(reconciler)
    # The list requires a page for every notebook.
    assert "feedback ready" in classroom.nbgrader(home, "list", "--cached").stderr


# --- several attempts ---


def test_over_the_limit_a_student_reads_when_the_next_one_is_graded(
    classroom: Classroom, clock: Clock
) -> None:
    classroom.configure(attempts_per_hour=2)
    with classroom.reconciler(clock) as reconciler:
        for _ in range(2):
            assert_graded(classroom, reconciler)
        first = reconciler.records.answers(ASSIGNMENT, SELF)[0]
        third = classroom.hand_in(right=True)
        settle(reconciler)
        assert not third.graded
        assert "At most 2 attempts are graded within an hour" in third.page()
        until = time.localtime(first.arrived + 3600 + 59)
        assert time.strftime("%d %B %Y, %H:%M", until) in third.page()
        assert classroom.submissions() == {SELF: 0.0}
        graded = []
        for seconds in (3599, 3601):
            clock.now = first.arrived + seconds
            settle(reconciler)
            graded.append(third.graded)
        assert graded == [False, True]
        assert classroom.submissions() == {SELF: FULL}


def test_who_hands_in_late_reads_it_in_every_notice(classroom: Classroom, clock: Clock) -> None:
    classroom.configure(attempts_per_hour=1, counts="best")
    with classroom.reconciler(clock) as reconciler:
        assert_graded(classroom, reconciler, right=True)
        due = reconciler.records.answers(ASSIGNMENT, SELF)[0].arrived - 2 * 3600
        with Gradebook(classroom.course).database() as database:
            database.update_or_create_assignment(
                ASSIGNMENT, duedate=datetime.fromtimestamp(due, UTC).replace(tzinfo=None)
            )
        told = f"It was handed in 2 hours late; it was due on {notices.moment(due)}."
        deferred = classroom.hand_in()
        settle(reconciler)
        assert "At most 1 attempts" in deferred.page()
        assert told in deferred.page()
        clock.now += 3700
        settle(reconciler)
        # It is worse than the first attempt, so it does not count.
        assert "This attempt does not count" in deferred.page()
        assert told in deferred.page()
        refused = classroom.work()
        (refused / "large").write_bytes(b"")
        os.truncate(refused / "large", 200 << 20)
        page = classroom.hand_in(folder=refused)
        settle(reconciler)
        assert "was not accepted" in page.page()
        assert told in page.page()


def assert_graded(classroom: Classroom, reconciler: Reconciler, right: bool = False) -> Attempted:
    handed_in = classroom.hand_in(right=right)
    settle(reconciler)
    assert handed_in.graded
    return handed_in


def test_an_attempt_that_was_overtaken_is_answered(classroom: Classroom) -> None:
    first, second = classroom.hand_in(), classroom.hand_in(right=True)
    with classroom.reconciler() as reconciler:
        settle(reconciler)
    assert "you handed in again before this attempt was graded" in first.page()
    assert second.graded
    assert classroom.submissions() == {SELF: FULL}


@pytest.mark.parametrize(("counts", "score"), [("newest", 0.0), ("best", FULL)])
def test_which_attempt_counts(classroom: Classroom, counts: str, score: float) -> None:
    classroom.configure(counts=counts)
    with classroom.reconciler() as reconciler:
        assert_graded(classroom, reconciler, right=True)
        worse = assert_graded(classroom, reconciler)
    assert classroom.submissions() == {SELF: score}
    assert ("This attempt does not count" in worse.page()) is (counts == "best")
    assert "✗ It is right" in worse.page()


# --- failures at any moment ---


def test_a_restart_repeats_nothing(classroom: Classroom) -> None:
    handed_in = classroom.hand_in()
    with classroom.reconciler() as reconciler:
        settle(reconciler)
    before = {path: path.stat().st_mtime_ns for path in classroom.pages()}
    engine = Scripted(classroom.course)
    with classroom.reconciler(engine=engine) as reconciler:
        settle(reconciler)
    assert engine.graded == []
    assert {path: path.stat().st_mtime_ns for path in classroom.pages()} == before
    assert handed_in.graded


STEPS = {
    "copying": ("autograder.service.inbound.collect", OSError("no space left on device")),
    "collecting": ("autograder.service.reconcile.Reconciler._install", OSError("disk is gone")),
    "recording": (
        "autograder.record.gradebook.Gradebook.record",
        PermissionError("somebody else's file"),
    ),
    "feedback": ("autograder.record.gradebook.Gradebook.generate_feedback", UserError("broken")),
    "releasing": (
        "autograder.record.gradebook.Gradebook.release_feedback",
        sqlite3.OperationalError("database is locked"),
    ),
    "answering": ("autograder.service.records.replace_file", OSError("no space left on device")),
}


@pytest.mark.parametrize("step", STEPS)
def test_an_interruption_at_any_step_loses_nothing(
    classroom: Classroom, clock: Clock, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    handed_in = classroom.hand_in(right=True)
    where, error = STEPS[step]

    def fail(*_: object, **__: object) -> None:
        raise error

    with classroom.reconciler(clock) as reconciler:
        with monkeypatch.context() as patch:
            patch.setattr(where, fail)
            settle(reconciler)
        assert reconciler.records.answers(ASSIGNMENT, SELF) == []
        assert str(error) in reconciler.health.last_error
        settle(reconciler)  # too early for a retry
        assert reconciler.records.answers(ASSIGNMENT, SELF) == []
        clock.now += 3
        settle(reconciler)
        assert [a.kind for a in reconciler.records.answers(ASSIGNMENT, SELF)] == ["graded"]
        assert not list((classroom.course.private / "hub" / "incoming").iterdir())
    assert classroom.submissions() == {SELF: FULL}
    assert classroom.rows() == 1
    assert handed_in.graded


def test_a_locked_database_is_waited_for(classroom: Classroom, clock: Clock) -> None:
    handed_in = classroom.hand_in(right=True)
    with classroom.reconciler(clock) as reconciler:
        with closing(sqlite3.connect(classroom.copy.root / "gradebook.db")) as other:
            other.execute("begin exclusive")
            settle(reconciler)
            assert "locked" in reconciler.health.last_error
            assert not handed_in.graded
            other.rollback()
        clock.now += 3
        settle(reconciler)
    assert classroom.submissions() == {SELF: FULL}
    assert classroom.rows() == 1
    assert handed_in.graded


FULL_DISK = """
import os, subprocess, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from support.exchange import Classroom, Clock, settle
from support.submissions import CourseCopy
import time

small = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", small], check=True)
classroom = Classroom.make(small, CourseCopy(Path(sys.argv[2])))
work = classroom.work(right=True)
(work / "figure.bin").write_bytes(b"x" * 300_000)
handed_in = classroom.hand_in(folder=work)
clock = Clock(time.time() + 5)
filler = small / "filler"
with classroom.reconciler(clock) as reconciler:
    for leave in (0, 100_000, 400_000, 600_000, 800_000, 1_000_000):
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError:
                pass
        os.truncate(filler, max(0, filler.stat().st_size - leave))
        settle(reconciler)
        graded = bool(reconciler.records.answers({assignment!r}, {student!r}))
        print(leave, graded, reconciler.health.last_error, flush=True)
        filler.unlink()
        clock.now += 100
        if graded:
            break
    settle(reconciler)
    print([a.kind for a in reconciler.records.answers({assignment!r}, {student!r})])
print(classroom.submissions(), classroom.rows(), handed_in.graded)
"""


@as_root
def test_a_full_disk_is_waited_for(original: CourseCopy, tmp_path: Path) -> None:
    if subprocess.run(["unshare", "--mount", "true"]).returncode:
        pytest.skip("no mount namespace can be made here")
    (tmp_path / "small").mkdir()
    script = FULL_DISK.format(tests=str(Path(__file__).parent), assignment=ASSIGNMENT, student=SELF)
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", script, tmp_path / "small", original.root],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("0 False"), done.stdout
    assert any(word in lines[0] for word in ("No space", "full")), lines[0]
    assert lines[-2:] == ["['graded']", f"{{{SELF!r}: {float(FULL)}}} 1 True"]


def test_a_damaged_answer_is_given_again(classroom: Classroom) -> None:
    handed_in = classroom.hand_in()
    with classroom.reconciler() as reconciler:
        settle(reconciler)
    (path,) = (classroom.course.private / "hub" / "answers").glob("*/*.json")
    path.write_bytes(b"")  # a power cut on a file system with weak guarantees
    with classroom.reconciler() as reconciler:
        settle(reconciler)
        assert len(reconciler.records.answers(ASSIGNMENT, SELF)) == 1
    assert handed_in.graded
    assert classroom.rows() == 1


FORMGRADER = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from support.exchange import Scripted
from autograder.course import Course
from autograder.record.gradebook import Gradebook
from autograder.record.nbgrader_glue import grade_submission

course = Course.at(Path(sys.argv[1]))
engine = Scripted(course)
gradebook = Gradebook(course)
print("ready", flush=True)
for _ in range({times}):
    found = grade_submission(engine, {student!r}, {assignment!r})
    gradebook.record({assignment!r}, {student!r}, found)
    gradebook.generate_feedback({assignment!r}, {student!r})
print("done", flush=True)
"""


def test_grading_in_formgrader_meanwhile_harms_neither(classroom: Classroom) -> None:
    times = 4
    classroom.configure(attempts_per_hour=50, attempts_per_day=50)
    script = FORMGRADER.format(
        tests=str(Path(__file__).parent), times=times, assignment=ASSIGNMENT, student=SELF
    )
    with classroom.reconciler() as reconciler:
        assert_graded(classroom, reconciler)
        with subprocess.Popen(
            [sys.executable, "-c", script, classroom.copy.root],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as formgrader:
            assert formgrader.stdout is not None
            assert formgrader.stdout.readline() == "ready\n"
            count = 0
            while formgrader.poll() is None or count < 3:
                reconciler.records.request("regrade", ASSIGNMENT, SELF)
                deadline = time.monotonic() + 60
                while reconciler.records.requests() and time.monotonic() < deadline:
                    reconciler.look()
                    wait_for_work(reconciler, 30)
                    time.sleep(0.05)
                assert not reconciler.records.requests()
                count += 1
            said, errors = formgrader.communicate()
        assert said == "done\n", errors
        assert reconciler.health.last_error == ""
    assert count >= 3
    assert classroom.submissions() == {SELF: 0.0}
    graded = classroom.copy.root / "autograded" / SELF / ASSIGNMENT
    assert (graded / f"{FILTERS}.ipynb").exists()
    assert (graded / "results.json").exists()


# --- fairness ---


@as_root
def test_a_student_whose_notebooks_never_end_keeps_nobody_waiting(classroom: Classroom) -> None:
    endless, quick = ACCOUNTS[:2]
    known, release = threading.Event(), threading.Event()

    def before(job: Job) -> None:
        known.wait(120)
        if job.submission in slow:
            release.wait(180)

    slow: set[Path] = set()
    engine = Scripted(classroom.course, before)
    with classroom.reconciler(engine=engine) as reconciler:
        classroom.hand_in(endless)
        reconciler.look()
        active, _ = reconciler.under_way()
        slow.add(active[ASSIGNMENT, endless].folder)
        known.set()
        handed_in = classroom.hand_in(quick)
        deadline = time.monotonic() + 120
        while not handed_in.graded and time.monotonic() < deadline:
            reconciler.look()
            time.sleep(0.05)
        assert handed_in.graded
        assert (ASSIGNMENT, endless) in reconciler.under_way()[0]
        release.set()
        wait_for_work(reconciler, 30)
    assert set(classroom.submissions()) == {endless, quick}


# --- the instructor's actions ---


def test_nothing_is_graded_while_paused_and_nothing_is_lost(classroom: Classroom) -> None:
    with classroom.reconciler() as reconciler:
        reconciler.records.pause(True)
        handed_in = classroom.hand_in()
        settle(reconciler)
        assert not handed_in.graded
    with classroom.reconciler() as reconciler:  # the pause survives a restart
        settle(reconciler)
        assert not handed_in.graded
        reconciler.records.pause(False)
        settle(reconciler)
        assert handed_in.graded


def test_a_regrade_computes_again_and_keeps_the_attempts(classroom: Classroom) -> None:
    engine = Scripted(classroom.course)
    with classroom.reconciler(engine=engine) as reconciler:
        assert_graded(classroom, reconciler, right=True)
        engine.graded.clear()
        reconciler.records.request("regrade", ASSIGNMENT, SELF)
        settle(reconciler)
        assert (classroom.copy.submission(SELF), FILTERS) in engine.graded
        assert len(reconciler.records.answers(ASSIGNMENT, SELF)) == 1
    assert classroom.submissions() == {SELF: FULL}


def test_points_given_by_hand_reach_the_student(classroom: Classroom) -> None:
    with classroom.reconciler() as reconciler:
        handed_in = assert_graded(classroom, reconciler)
        assert f"0 of {FULL:g} points" in " ".join(handed_in.page().split())
        cell = next(iter(max_points(FILTERS)))
        with Gradebook(classroom.course).database() as database:
            grade = database.find_grade(cell, FILTERS, ASSIGNMENT, SELF)
            grade.manual_score = 1.0
            database.db.commit()
        reconciler.records.request("release", ASSIGNMENT, SELF)
        settle(reconciler)
        assert f"1 of {FULL:g} points" in " ".join(handed_in.page().split())


# --- several courses, one service each ---


def test_courses_do_not_see_each_other(
    classroom: Classroom, tmp_path: Path, original: CourseCopy
) -> None:
    other = Classroom.make(tmp_path, original, "art-history")
    mine, theirs = classroom.hand_in(right=True), other.hand_in()
    with classroom.reconciler() as reconciler:
        settle(reconciler)
    assert (mine.graded, theirs.graded) == (True, False)
    assert not other.pages()
    assert not (other.copy.root / "submitted").exists()
    with other.reconciler() as reconciler:
        settle(reconciler)
    assert theirs.graded
    assert classroom.submissions() == {SELF: FULL}
    assert other.submissions() == {SELF: 0.0}


def test_an_assignment_of_nobody_is_only_counted(classroom: Classroom) -> None:
    handed_in = classroom.hand_in()
    strange = handed_in.folder.with_name(handed_in.folder.name.replace(ASSIGNMENT, "..+ch9"))
    handed_in.folder.rename(strange)
    with classroom.reconciler() as reconciler:
        settle(reconciler)
        assert reconciler.health.strange == 1
    assert not (classroom.copy.root / "submitted").exists()


def test_a_course_has_one_service(classroom: Classroom) -> None:
    with (
        only_service(classroom.course),
        pytest.raises(UserError, match="another autograder service"),
        only_service(classroom.course),
    ):
        pass
    with only_service(classroom.course):
        pass


def test_a_missing_exchange_is_one_line(classroom: Classroom) -> None:
    shutil.rmtree(classroom.inbound)
    gradebook = Gradebook(classroom.course)
    with pytest.raises(UserError, match="inbound is not there: release an assignment"):
        Settings.of(classroom.course, gradebook.config)


# --- the engine ---


def test_what_changed_while_it_was_graded_is_not_remembered(
    classroom: Classroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(classroom.course, 1)
    folder = classroom.work()
    job = replace(engine.job("ada", ASSIGNMENT, FILTERS), submission=folder)
    (_, answer), *_ = Scripted(classroom.course).grade([job])
    changes = iter(["x = 1", ""])

    def compute(todo: list[tuple[Job, str]]) -> Iterator[tuple[Job, str, Graded]]:
        if text := next(changes):
            (folder / "late.py").write_text(text)
        for one, key in todo:
            yield one, key, answer

    monkeypatch.setattr(engine, "_compute", compute)
    assert len(list(engine.grade([job]))) == 1
    assert not list((classroom.course.private / "results").glob("*/*.json"))
    assert len(list(engine.grade([job]))) == 1
    assert len(list((classroom.course.private / "results").glob("*/*.json"))) == 1


# --- the service as a process, with the real engine ---


class Service:
    """A process of `python -m autograder.service` for a course."""

    def __init__(self, classroom: Classroom) -> None:
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/services/it/"
        self.log = classroom.copy.root.parent / "service.log"
        environment = {
            "JUPYTERHUB_API_TOKEN": "x",
            "JUPYTERHUB_API_URL": "http://127.0.0.1:9/hub/api",
            "JUPYTERHUB_SERVICE_PREFIX": "/services/it/",
            "JUPYTERHUB_SERVICE_URL": f"http://127.0.0.1:{port}",
            "JUPYTERHUB_SERVICE_NAME": "it",
            "JUPYTERHUB_BASE_URL": "/",
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "autograder.service"],
                cwd=classroom.copy.root,
                env={**os.environ, **environment},
                stdout=log,
                stderr=log,
            )

    def until(self, reached: Callable[[], bool], seconds: float = 300) -> None:
        """Wait until a condition holds."""
        deadline = time.monotonic() + seconds
        while not reached():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def grading(self) -> bool:
        """Whether a kernel, a child of the warm interpreter, is running."""
        children = psutil.Process(self.process.pid).children()
        warm = [p for p in children if "autograder.kernel.warm" in p.cmdline()]
        return any(p.children() for p in warm)

    def healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}health", timeout=5) as answer:
                return bool(json.load(answer)["status"] == "ok")
        except OSError:
            return False


def gone(processes: list[psutil.Process], seconds: float = 60) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return not [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def test_killed_while_it_grades_the_service_goes_on_after_a_restart(classroom: Classroom) -> None:
    students = ACCOUNTS[:3] if ROOT_USER else [SELF]
    solved = classroom.copy.solved("x", FILTERS)
    handed_in = [
        classroom.hand_in(student, folder=solved if number == 0 else None)
        for number, student in enumerate(students)
    ]
    shutil.rmtree(classroom.copy.root / "submitted")
    staging = classroom.copy.root / ".autograder" / "hub" / "incoming"
    service = Service(classroom)
    try:
        service.until(lambda: any(staging.glob("*")) if staging.exists() else False)
        service.until(service.grading)
        processes = psutil.Process(service.process.pid).children(recursive=True)
        service.process.send_signal(signal.SIGKILL)
        service.process.wait()
        assert not all(one.graded for one in handed_in)
        assert gone(processes)  # no worker, warm interpreter or kernel outlives it
        scratch = Path((staging.parent / "scratch").read_text())
        assert scratch.exists()
        service = Service(classroom)
        service.until(service.healthy)
        service.until(lambda: all(one.graded for one in handed_in))
        assert not scratch.exists()  # its temporary files are removed
        answers = classroom.course.private / "hub" / "answers" / ASSIGNMENT
        service.until(lambda: len(list(answers.glob("*.json"))) == len(students))
        processes = psutil.Process(service.process.pid).children(recursive=True)
    finally:
        service.process.terminate()
        service.process.wait(20)
    assert gone(processes)
    wanted = dict.fromkeys(students, 0.0)
    wanted[students[0]] = sum(expected_points(FILTERS, solution_cells(FILTERS)).values())
    assert classroom.submissions() == wanted
    assert classroom.rows() == len(students)
    assert len(classroom.pages()) == len(students)
    assert {Records(classroom.course).answers(ASSIGNMENT, s)[0].kind for s in students} == {
        "graded"
    }


def test_a_service_without_a_hub_is_one_line(classroom: Classroom) -> None:
    done = classroom.copy.run(sys.executable, "-m", "autograder.service", JUPYTERHUB_SERVICE_URL="")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("autograder: JUPYTERHUB_SERVICE_URL names no address to listen on")


def test_a_costly_text_is_laid_out_outside_the_service(
    classroom: Classroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the service's process, it would block all other work, including the page."""

    def never(*_: object) -> str:
        raise AssertionError

    for name in ("render", "__call__"):
        monkeypatch.setattr(MarkdownWithMath, name, never)
    classroom.configure(counts="best")
    work = classroom.work(right=True)
    path = work / f"{FILTERS}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_markdown_cell("[" * 2_000_000))
    nbformat.write(notebook, path)
    with classroom.reconciler() as reconciler:
        counts = classroom.hand_in(folder=work)
        settle(reconciler)
        shutil.copytree(classroom.work(), work, dirs_exist_ok=True)  # worth less, not counted
        notebook.cells = notebook.cells[:-1]
        nbformat.write(notebook, path)
        aside = classroom.hand_in(folder=work)
        settle(reconciler)
    assert classroom.submissions()[SELF] == FULL
    for attempted in (counts, aside):
        assert attempted.graded
        assert AS_WRITTEN in attempted.page()
