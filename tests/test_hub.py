"""A class on a real JupyterHub, with real accounts and browsers and the running service."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from autograder.engine.notebook import grade_id, solved
from deploy import accounts, processes
from deploy.__main__ import COURSE
from deploy.accounts import LIFELINE
from deploy.demo import ASSIGNMENT, Demonstration, Members
from deploy.processes import Process
from support.people import Person, answers, assert_gone, browser
from support.submissions import ROOT, solution_cells, source
from support.waiting import until

pytestmark = [
    pytest.mark.hub,
    pytest.mark.skipif(
        os.geteuid() != 0, reason="people on the Hub are Unix accounts, which only root can make"
    ),
]

FILTERS, DIGITS = "1-orenist-filter", "5-mnist-filters"
QUESTION = "mdr-08-background"
CROWD = tuple(f"kit-c{number:02}" for number in range(30))
ONE = Members(
    "deep-learning", "kit-grader", ("kit-ida",), ("kit-ada", "kit-ben", "kit-chen"),
    notebooks=(FILTERS, DIGITS),
)  # fmt: skip
OTHER = Members("signals", "kit-grader2", ("kit-ivo",), CROWD, notebooks=(FILTERS,))
ENDLESS = "while True:\n    pass"


# Prints which of the given paths can be read and which can be renamed.
LOOK = """
import os, sys
for path in sys.argv[1:]:
    try:
        print(path, os.listdir(path) if os.path.isdir(path) else open(path, "rb").read(9))
    except PermissionError:
        pass
"""
MOVE = """
import os, sys
for path in sys.argv[1:]:
    try:
        os.rename(path, path + "-moved")
        print(path)
    except PermissionError:
        pass
"""


def solutions(notebook: str) -> dict[str, str]:
    """The solved source of each solution cell."""
    written = {grade_id(cell): cell.source for cell in solved(source(notebook)).cells}
    return {name: written[name] for name in solution_cells(notebook)}


def with_a_mistake() -> dict[str, str]:
    """Solutions of the first notebook with wrongly scaled edge filters."""
    cells = solutions(FILTERS)
    right = cells["ofe-04-edge-filter"]
    cells["ofe-04-edge-filter"] = right.replace("/ 23.0", "/ 25.0")
    assert cells["ofe-04-edge-filter"] != right
    return cells


# --- `make hub`, first, since accounts of another Hub would conflict with its own ---


@contextmanager
def made(output: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run `make hub`; yield its process and output when it is up, and kill it in the end."""
    with output.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "tools/bootstrap.py", "hub"],
            cwd=ROOT,
            stdout=file,
            start_new_session=True,
        )
    try:
        yield process, until(lambda: ready(process, output), "the demonstration is up")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers_at(url: str) -> bool:
    """Whether a Hub answers at this address."""
    try:
        with urllib.request.urlopen(f"{url}/hub/login") as page:
            return bool(page.status == 200)
    except OSError:
        return False


def uids_of_the_course() -> set[int]:
    return {pwd.getpwnam(n).pw_uid for n in (*COURSE.students, *COURSE.instructors, COURSE.grader)}


def address(said: str) -> str:
    """The Hub's address in the output of `make hub`."""
    found = re.search(r"JupyterHub: (http://127\.0\.0\.1:\d+)$", said, re.M)
    assert found is not None
    return found[1]


def test_make_hub_says_how_to_log_in_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with made(tmp_path / "output") as (process, said):
        url, uids = address(said), uids_of_the_course()
        assert answers_at(url)
        for student in COURSE.students:
            assert re.search(rf"^  {student} +\S{{12}} +student$", said, re.M)
        homes = {pwd.getpwnam(student).pw_dir for student in COURSE.students}
        assert all(Path(home).is_dir() for home in homes)
        # A second one cannot create the same accounts, and does not damage this one.
        other = subprocess.run(
            [sys.executable, "tools/bootstrap.py", "hub"], cwd=ROOT, capture_output=True
        )
        assert other.returncode == 2
        assert b"this machine has an account" in other.stderr
        assert uids_of_the_course() == uids
        assert all(Path(home).is_dir() for home in homes)
        assert answers_at(url)
        os.killpg(process.pid, signal.SIGINT)  # Ctrl-C reaches the whole group
        assert process.wait(60) == 0
    assert not any(Path(home).exists() for home in homes)
    assert_gone([*COURSE.students, *COURSE.instructors, COURSE.grader], uids)


def test_make_hub_that_was_killed_takes_its_hub_with_it(tmp_path: Path) -> None:
    with made(tmp_path / "output") as (process, said):
        url, uids = address(said), uids_of_the_course()
        folder = Path(pwd.getpwnam(COURSE.grader).pw_dir).parents[1]
        lifeline = Process(*json.loads((folder / LIFELINE).read_text()))
        below = processes.descendants(lifeline)
        names = b"".join(Path(f"/proc/{one.pid}/cmdline").read_bytes() for one in below)
        assert b"jupyterhub" in names
        assert b"configurable_http_proxy" in names
        assert b"autograder.service" in names
        os.killpg(process.pid, signal.SIGKILL)
    until(lambda: not any(one.is_alive for one in (*below, lifeline)), "all has ended", 60)
    assert not answers_at(url)
    accounts.remove_stale()  # as the next demonstration does
    assert not folder.exists()
    assert_gone([*COURSE.students, *COURSE.instructors, COURSE.grader], uids)


def ready(process: subprocess.Popen[bytes], output: Path) -> str:
    """The output, once it is complete; empty before."""
    assert process.poll() is None
    said = output.read_text()
    return said if "Ctrl-C" in said else ""


# --- two courses on one Hub ---


@pytest.fixture(scope="module")
def hub() -> Iterator[Demonstration]:
    """Two courses on one Hub."""
    with Demonstration([ONE, OTHER]) as running:
        uids = {pwd.getpwnam(name).pw_uid for name in running.accounts}
        yield running
    assert not running.folder.exists()
    assert_gone(running.accounts, uids)


@pytest.fixture(scope="module")
def chromium(hub: Demonstration) -> Iterator[Browser]:
    """A headless Chromium."""
    with browser() as running:
        yield running


@dataclass
class Class:
    """Two students with open browsers, and the text of ada's Validate dialog."""

    ada: Person
    ben: Person
    validated: str


@pytest.fixture(scope="module")
def handed_in(hub: Demonstration, chromium: Browser, solved_run: Path) -> Class:
    """Two students who fetch, solve, validate and submit at the same time, in the browser."""
    ada, ben = (Person(hub, chromium, name) for name in ("kit-ada", "kit-ben"))
    for person in (ada, ben):
        person.open_lab()
        person.open_list()
        person.fetch()
    ada.fill(FILTERS, solutions(FILTERS))
    ada.fill(DIGITS, solutions(DIGITS))
    ben.fill(FILTERS, with_a_mistake())
    # The five checkpoints that a full training would have left beside ada's notebooks.
    folder = hub.home("kit-ada") / ONE.name / ASSIGNMENT
    for path in (solved_run / "checkpoint", *solved_run.glob("mdc_session-*")):
        shutil.copy(path, folder)
        shutil.chown(folder / path.name, "kit-ada", "kit-ada")
    validated = ada.validate(FILTERS)
    ada.submit()
    ben.submit()
    return Class(ada, ben, validated)


@pytest.fixture(scope="module")
def graded(hub: Demonstration, handed_in: Class) -> Class:
    """The class after both have been graded."""
    until(lambda: len(answers(hub, ONE.name)) == 2, "answers to ada and ben")
    return handed_in


@pytest.fixture(scope="module")
def ida(hub: Demonstration, chromium: Browser, graded: Class) -> Person:
    """The instructor."""
    return Person(hub, chromium, "kit-ida")


def inbound(hub: Demonstration, student: str, course: str = ONE.name) -> list[Path]:
    """A student's submissions in the exchange."""
    return sorted((hub.exchange / course / "inbound").glob(f"{student}+*"))


def results(hub: Demonstration, student: str, course: str = ONE.name) -> dict[str, Any]:
    """A student's results.json."""
    path = hub.root(course) / "autograded" / student / ASSIGNMENT / "results.json"
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


# --- students ---


def test_validate_passes_for_a_solved_notebook(handed_in: Class) -> None:
    assert "Success" in handed_in.validated


def test_students_have_the_list_of_assignments_alone(handed_in: Class) -> None:
    assert handed_in.ada.nbgrader_menu() == ["Assignment List"]


def test_feedback_shows_what_passed(graded: Class) -> None:
    page = graded.ada.read_feedback(FILTERS)
    expect(page.locator("h1")).to_have_text(f"{FILTERS}: 20 of 20 points")
    expect(page.locator("li", has_text="✗")).to_have_count(0)
    expect(page.locator("#toc tr.short")).to_have_count(0)
    checks = page.locator("li", has_text="✓")
    assert checks.count() > 20


def test_feedback_names_the_mistake_with_a_hint(graded: Class) -> None:
    page = graded.ben.read_feedback(FILTERS)
    expect(page.locator("#toc tr.short")).to_have_count(1)
    expect(page.locator("#toc tr.short")).to_contain_text("[OFE-04] edge filter")
    failed = page.locator("li", has_text="✗")
    expect(failed.first).to_contain_text("Hint: ")
    expect(failed.first).to_contain_text("23")


def test_a_row_of_the_list_leads_to_its_cell(graded: Class) -> None:
    page = graded.ben.read_feedback(FILTERS)
    before = page.locator("h1").inner_text()
    page.locator("#toc tr.short a").click()
    target = page.locator(":target")
    expect(target).to_be_in_viewport()
    expect(target).to_contain_text("Hint: ")
    target.get_by_role("link", name="to the top").click()
    expect(page.locator("h1")).to_be_in_viewport()
    assert page.locator("h1").inner_text() == before


def test_formulas_are_typeset_without_anything_from_elsewhere(graded: Class) -> None:
    page = graded.ada.read_feedback(FILTERS)
    formulas = page.locator("math")
    assert formulas.count() >= 5
    assert not re.search(r"\$[^$\n]+\$", page.locator("body").inner_text())
    for formula in formulas.all():
        box = formula.bounding_box()
        assert box is not None
        assert box["width"] > 0 < box["height"]
    # Fractions are typeset: the numerator is above the denominator.
    above, below = (page.locator(f"mfrac > :nth-child({n})").first for n in (1, 2))
    upper, lower = above.bounding_box(), below.bounding_box()
    assert upper is not None
    assert lower is not None
    assert upper["y"] + upper["height"] <= lower["y"]
    assert graded.ada.elsewhere == graded.ben.elsewhere == []


def test_only_what_is_graded_of_a_checkpoint_travels(hub: Demonstration, handed_in: Class) -> None:
    (submission,) = inbound(hub, "kit-ada")
    sent = {path.name: path.stat().st_size for path in submission.iterdir()}
    assert {name for name in sent if "mdc_" in name or name == "checkpoint"} == {
        "checkpoint",
        "mdc_session-4000.index",
        "mdc_session-4000.data-00000-of-00001",
    }
    assert sum(sent.values()) < 42e6
    home = hub.home("kit-ada") / ONE.name / ASSIGNMENT
    assert sum(path.stat().st_size for path in home.iterdir() if path.is_file()) > 150e6


@pytest.mark.parametrize(("files", "size"), [(1, 51), (3, 25)], ids=["one file", "many files"])
def test_too_much_is_refused_before_it_is_copied(
    hub: Demonstration, handed_in: Class, files: int, size: int
) -> None:
    student = "kit-chen"
    folder = hub.home(student) / ONE.name / ASSIGNMENT
    if not folder.exists():
        hub.run(student, "nbgrader", "fetch_assignment", ASSIGNMENT, "--course", ONE.name)
    large = [folder / f"picture-{number}.raw" for number in range(files)]
    for path in large:
        path.touch()
        os.truncate(path, size * 1_000_000)
    done = hub.run(student, "nbgrader", "submit", ASSIGNMENT, "--course", ONE.name, check=False)
    for path in large:
        path.unlink()
    assert done.returncode != 0
    assert re.search(r"Not submitted: .*picture-\d\.raw.* MB", done.stderr)
    assert "Traceback" not in done.stderr.splitlines()[0]
    assert inbound(hub, student) == []


def test_jupyterlab_says_without_a_traceback_why_nothing_was_submitted(
    hub: Demonstration, chromium: Browser, handed_in: Class
) -> None:
    student = Person(hub, chromium, "kit-chen")
    folder = hub.home(student.name) / ONE.name / ASSIGNMENT
    student.open_lab()
    student.open_list()
    if not folder.exists():
        student.fetch()
    large = folder / "picture-0.raw"
    large.touch()
    os.truncate(large, 51_000_000)
    said = student.submit_in_vain()
    large.unlink()
    assert "Not submitted: picture-0.raw has 51.0 MB" in said
    assert "submit again." in said
    assert "Traceback" not in said
    assert inbound(hub, student.name) == []


# --- access control ---


@pytest.mark.parametrize(
    ("person", "service"),
    [
        ("ada", f"{ONE.name}-autograder/"),
        ("ada", f"{ONE.name}-autograder/api/state"),
        ("ada", f"{ONE.name}/formgrader/manage_assignments"),
        ("ada", f"{ONE.name}/lab"),
        ("ida", f"{OTHER.name}-autograder/"),
        ("ida", f"{OTHER.name}/formgrader/manage_assignments"),
    ],
)
def test_pages_of_a_course_are_for_its_instructors(
    hub: Demonstration, graded: Class, ida: Person, person: str, service: str
) -> None:
    visitor = {"ada": graded.ada, "ida": ida}[person]
    page = visitor.context.new_page()
    response = page.goto(f"{hub.url}/services/{service}")
    page.close()
    assert response is not None
    # The Hub issues no token for a service that the user may not access, so the request for data is
    # anonymous.
    assert response.status == (401 if "/api/" in service else 403)
    course = service.partition("/")[0].removesuffix("-autograder")
    if course == ONE.name:
        allowed = ida.get(f"/services/{service}")
        assert allowed.status == 200, "the instructor would not get it either"


def test_a_student_reads_nothing_of_others(hub: Demonstration, graded: Class) -> None:
    """Each path exists and is readable by its owner, so a refusal is meaningful."""
    (of_ben,) = inbound(hub, "kit-ben")
    root = hub.root(ONE.name)
    service = service_pid(hub, ONE)
    private = [
        root / "gradebook.db",
        root / "source" / ASSIGNMENT / f"{FILTERS}.ipynb",
        root / "submitted" / "kit-ben" / ASSIGNMENT / f"{FILTERS}.ipynb",
        root / ".autograder" / "secret",
        root.parent / "env" / "kit" / "autograder" / "checks" / "__init__.py",
        hub.home("kit-ben") / ONE.name / ASSIGNMENT / f"{FILTERS}.ipynb",
        hub.folder / "state" / "place.json",
        Path(f"/proc/{service}/environ"),  # with the service's token
        of_ben.parent,
        hub.exchange / ONE.name / "feedback",
        hub.exchange / OTHER.name / "outbound",
    ]  # fmt: skip
    assert all(path.exists() for path in private)
    done = hub.run("kit-ada", "python", "-c", LOOK, *map(str, private))
    assert done.stdout == ""
    own = hub.run("kit-ada", "python", "-c", LOOK, str(inbound(hub, "kit-ada")[0]))
    assert "submission_secret.txt" in own.stdout, "the script can read what is ada's"


def test_a_student_changes_nothing_of_others(hub: Demonstration, graded: Class) -> None:
    (of_ben,) = inbound(hub, "kit-ben")  # even if ada knew its secret name
    before = {path.name: path.read_bytes() for path in of_ben.iterdir()}
    course = hub.exchange / ONE.name
    done = hub.run(
        "kit-ada", "python", "-c", MOVE, str(of_ben), str(course), str(course / "inbound")
    )
    assert done.stdout == ""
    assert {path.name: path.read_bytes() for path in of_ben.iterdir()} == before


def test_students_do_not_have_the_hidden_checks(hub: Demonstration) -> None:
    done = hub.run("kit-ada", "python", "-c", "import autograder", check=False)
    assert "ModuleNotFoundError" in done.stderr
    hub.run("kit-ada", "python", "-c", "import nbgrader, numpy")


def test_a_students_token_tells_about_the_student_alone(hub: Demonstration, graded: Class) -> None:
    server = next(
        path for path in Path("/proc").glob("[0-9]*")
        if is_of(path, "kit-ada") and b"jupyterhub-singleuser" in (path / "cmdline").read_bytes()
    )  # fmt: skip
    environment = dict(
        item.split("=", 1) for item in (server / "environ").read_text().split("\0") if "=" in item
    )
    headers = {"Authorization": f"token {environment['JUPYTERHUB_API_TOKEN']}"}
    ask = graded.ada.context.request
    api = environment["JUPYTERHUB_API_URL"]
    mine = ask.get(f"{api}/user", headers=headers).json()
    assert (mine["name"], mine["groups"]) == ("kit-ada", [f"nbgrader-{ONE.name}"])
    for what in ("users", "users/kit-ben", "groups", "services", f"services/{ONE.name}-autograder"):
        assert ask.get(f"{api}/{what}", headers=headers).status in (403, 404), what


# --- instructors ---


def test_the_dashboard_shows_the_class(hub: Demonstration, ida: Person) -> None:
    assert ida.get(f"/services/{ONE.name}-autograder/").status == 200
    rows = ida.page.locator("table.students tbody tr")
    expect(rows).to_have_count(2)
    for student in ("kit-ada", "kit-ben"):
        score = f"{results(hub, student)['score']:g} of"
        expect(rows.filter(has_text=student)).to_contain_text(score)
        expect(rows.filter(has_text=student)).to_contain_text("graded")
    assert ida.elsewhere == []


def test_links_of_formgrader_lead_into_the_courses_lab(hub: Demonstration, ida: Person) -> None:
    # Like the Course List, which opens formgrader inside JupyterLab.
    ida.get(f"/services/{ONE.name}/lab?formgrader=true")
    expect(ida.page).to_have_url(re.compile("/formgrader/manage_assignments$"))
    table = ida.page.locator("#main-table")
    name = table.get_by_role("link", name=ASSIGNMENT)
    preview = table.locator(".preview a")
    targets = [link.get_attribute("href") for link in (name, preview)]
    for target, folder in zip(targets, ("source", "release"), strict=True):
        assert target is not None
        assert ida.get(target).status == 200
        shown = ida.page.locator(".jp-DirListing-item")
        expect(shown.filter(has_text=f"{FILTERS}.ipynb")).to_be_visible()
        assert f"/{folder}/{ASSIGNMENT}" in ida.page.url
    assert ida.elsewhere == []


def test_points_given_by_hand_are_kept_and_exported(hub: Demonstration, ida: Person) -> None:
    ida.get(f"/services/{ONE.name}/formgrader/gradebook/{ASSIGNMENT}/{DIGITS}")
    ida.page.locator("#main-table a[href*=submissions]").first.click()
    ida.page.wait_for_load_state("networkidle")  # by then, the current points are filled in
    box = ida.page.locator(f"input#{QUESTION}")
    box.fill("2.5")
    with ida.page.expect_response(lambda r: "/api/grade" in r.url and r.request.method != "GET"):
        box.blur()
    student = graded_by_hand(hub)
    assert student is not None
    # Grading the same work again keeps the manual points.
    before = results(hub, student)
    regrade(hub, ida, student)
    assert results(hub, student) == before
    assert graded_by_hand(hub) == student
    hub.run(ONE.grader, "nbgrader", "export", "--to", "grades.csv", course=ONE.name)
    with (hub.root(ONE.name) / "grades.csv").open() as file:
        exported = {row["student_id"]: float(row["score"]) for row in csv.DictReader(file)}
    assert exported[student] == pytest.approx(before["score"] + 2.5)


def test_formgrader_typesets_formulas_without_anything_from_elsewhere(
    hub: Demonstration, ida: Person
) -> None:
    ida.get(f"/services/{ONE.name}/formgrader/gradebook/{ASSIGNMENT}/{FILTERS}")
    ida.page.locator("#main-table a[href*=submissions]").first.click()
    fraction = ida.page.locator("mfrac").first
    expect(fraction).to_be_visible()
    box = fraction.bounding_box()
    assert box is not None
    assert box["width"] > 0 < box["height"]
    assert ida.elsewhere == []


def graded_by_hand(hub: Demonstration) -> str | None:
    """The student with 2.5 manual points in the gradebook."""
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{hub.root(ONE.name) / 'gradebook.db'}") as gradebook:
        for submission in gradebook.find_assignment(ASSIGNMENT).submissions:
            for notebook in submission.notebooks:
                if any(g.name == QUESTION and g.manual_score == 2.5 for g in notebook.grades):
                    return str(submission.student.id)
    return None


def version(path: Path) -> int:
    """Modification time of a file in ns; 0 while it is being replaced."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def is_newer(path: Path, seen: int) -> bool:
    """Whether a file has changed since this version of it."""
    return version(path) > seen


def regrade(hub: Demonstration, ida: Person, student: str) -> None:
    """Press the dashboard's Regrade button, and wait until the regrade is done."""
    path = hub.root(ONE.name) / "autograded" / student / ASSIGNMENT / "results.json"
    before = version(path)
    ida.get(f"/services/{ONE.name}-autograder/")
    ida.page.get_by_role("button", name=f"Grade again: {student}").click()
    until(lambda: version(path) > before, f"{student} graded again")


def test_grading_in_formgrader_and_by_the_service_at_once(hub: Demonstration, ida: Person) -> None:
    students = ("kit-ada", "kit-ben")
    before = {student: results(hub, student) for student in students}
    by_hand = graded_by_hand(hub)
    ida.get(f"/services/{ONE.name}/formgrader/manage_submissions/{ASSIGNMENT}")
    cookies = {c["name"]: c["value"] for c in ida.context.cookies(ida.page.url)}
    base = f"{hub.url}/services/{ONE.name}/formgrader/api/submission/{ASSIGNMENT}"
    said = []
    for _ in range(2):
        for student in students:
            path = hub.root(ONE.name) / "autograded" / student / ASSIGNMENT / "results.json"
            seen = version(path)
            dashboard = ida.context.new_page()
            dashboard.goto(f"{hub.url}/services/{ONE.name}-autograder/")
            dashboard.get_by_role("button", name=f"Grade again: {student}").click()
            answer = ida.context.request.post(
                f"{base}/{student}/autograde",
                headers={"X-CSRFToken": cookies["_xsrf"], "X-XSRFToken": cookies["_xsrf"]},
                timeout=300_000,
            )
            said.append((answer.status, answer.json()["success"]))
            dashboard.close()
            until(partial(is_newer, path, seen), "graded")
    assert said == [(200, True)] * 4
    until(lambda: state(hub, ida)["health"]["requests"] == 0, "the service is done")
    assert {student: results(hub, student) for student in students} == before
    assert graded_by_hand(hub) == by_hand
    rows = state(hub, ida)["assignments"][0]["rows"]
    assert [(row["status"], row["failed"]) for row in rows] == [("graded", [])] * 2


def state(hub: Demonstration, person: Person) -> dict[str, Any]:
    """The dashboard's content."""
    answer = person.context.request.get(f"{hub.url}/services/{ONE.name}-autograder/api/state")
    assert answer.status == 200
    found: dict[str, Any] = answer.json()
    return found


# --- a crowd, and a killed service ---


def service_pid(hub: Demonstration, course: Members) -> int | None:
    """The pid of a course's autograder service."""
    for path in Path("/proc").glob("[0-9]*"):
        if is_of(path, course.grader):
            command = (path / "cmdline").read_bytes().split(b"\0")
            if command[1:3] == [b"-m", b"autograder.service"]:
                return int(path.name)
    return None


def is_of(process: Path, user: str) -> bool:
    """Whether a process exists and runs under this account."""
    try:
        return process.stat().st_uid == pwd.getpwnam(user).pw_uid and bool(
            (process / "cmdline").read_bytes()
        )
    except OSError:
        return False


@dataclass
class Crowd:
    """The answers to thirty submissions within a minute, and the pid of the killed service."""

    answers: dict[str, dict[str, Any]]
    killed: int


@pytest.fixture(scope="module")
def crowd(hub: Demonstration) -> Crowd:
    """Thirty submissions, the first with an endless loop; the service is killed meanwhile."""
    cells = solutions(FILTERS)

    def hand_in(number: int) -> None:
        student = CROWD[number]
        fetched = hub.home(student) / OTHER.name / ASSIGNMENT
        shutil.copytree(hub.exchange / OTHER.name / "outbound" / ASSIGNMENT, fetched)
        path = fetched / f"{FILTERS}.ipynb"
        notebook = json.loads(path.read_text())
        for cell in notebook["cells"]:
            name = cell["metadata"].get("nbgrader", {}).get("grade_id")
            if name in cells:
                # All submissions differ, and numbers 1 … 29 have done different amounts.
                done = number == 0 or list(cells).index(name) <= number % len(cells)
                if done:
                    cell["source"] = f"# {student}\n{cells[name]}"
                if number == 0 and name == next(iter(cells)):
                    cell["source"] = ENDLESS
        path.write_text(json.dumps(notebook))
        for made in (fetched.parent, fetched, *fetched.iterdir()):
            shutil.chown(made, student, student)
        hub.run(student, "nbgrader", "submit", ASSIGNMENT, "--course", OTHER.name)

    hand_in(0)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        handing_in = [pool.submit(hand_in, number) for number in range(1, len(CROWD))]
        until(lambda: len(answers(hub, OTHER.name)) >= 3, "the first answers")
        killed = service_pid(hub, OTHER)
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        for one in handing_in:
            one.result()
    until(lambda: len(answers(hub, OTHER.name)) == len(CROWD), "all answers", 900)
    return Crowd({str(answer["student"]): answer for answer in answers(hub, OTHER.name)}, killed)


def test_everybody_is_graded_once_though_the_service_was_killed(
    hub: Demonstration, crowd: Crowd
) -> None:
    assert sorted(crowd.answers) == sorted(CROWD)
    assert {answer["kind"] for answer in crowd.answers.values()} == {"graded"}
    assert service_pid(hub, OTHER) not in (None, crowd.killed)
    for student in CROWD:
        assert len(inbound(hub, student, OTHER.name)) == 1
        found = results(hub, student, OTHER.name)
        assert found["score"] == crowd.answers[student]["score"]
    # One page for each student's only notebook.
    assert len(list((hub.exchange / OTHER.name / "feedback").glob("*.html"))) == len(CROWD)


def test_scores_are_those_of_the_command_line(hub: Demonstration, crowd: Crowd) -> None:
    chosen = CROWD[1:4]
    options = [text for student in chosen for text in ("--student", student)]
    done = hub.run(OTHER.grader, "autograder", "grade", ASSIGNMENT, "--json", "--force", *options,
                   course=OTHER.name)  # fmt: skip
    scores = {one["student"]: one["score"] for one in json.loads(done.stdout)}
    assert scores == {student: crowd.answers[student]["score"] for student in chosen}
    assert len(set(scores.values())) == 3, "these students have done different amounts"


def test_nobody_waits_for_anothers_time_out(crowd: Crowd) -> None:
    slow = crowd.answers[CROWD[0]]
    assert slow["arrived"] == min(answer["arrived"] for answer in crowd.answers.values())
    overtook = [a for a in crowd.answers.values() if a["answered"] < slow["answered"]]
    assert len(overtook) >= 3


def test_first_come_first_served(crowd: Crowd) -> None:
    others = [answer for name, answer in crowd.answers.items() if name != CROWD[0]]
    order = sorted(others, key=lambda answer: answer["arrived"])
    finished = sorted(others, key=lambda answer: answer["answered"])
    workers = max(2, os.cpu_count() or 1)
    for place, answer in enumerate(order):
        # Submissions that are graded at the same time may end in any order.
        assert abs(finished.index(answer) - place) <= 2 * workers
