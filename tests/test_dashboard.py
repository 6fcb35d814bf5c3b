"""The instructors' page: access, content, and use without a mouse."""

from __future__ import annotations

import asyncio
import contextlib
import http.cookiejar
import json
import os
import shutil
import socket
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import ConsoleMessage, Page, ViewportSize, sync_playwright
from tornado.httpserver import HTTPServer
from tornado.web import Application, HTTPError, RequestHandler

from autograder.course import Course
from autograder.engine.results import (
    CellResult,
    CheckResult,
    NotebookResult,
    Status,
    SubmissionResult,
)
from autograder.errors import UserError
from autograder.record.copies import identical_checkpoints, note_tensors
from autograder.record.gradebook import Gradebook
from autograder.service.reconcile import Reconciler
from autograder.service.records import Answer
from autograder.service.roster import how_late
from autograder.service.settings import Settings
from autograder.service.view import PageState
from autograder.service.web import address, application
from support.exchange import FILTERS, Classroom, Scripted, template
from support.people import barriers
from support.submissions import ASSIGNMENT, CourseCopy

PREFIX = "/services/it/"
GROUP = "formgrade-deep-learning"
ACCESS = "access:services!service=it"
HOSTILE = "<img src=x onerror=\"document.title='stolen'\">"
CHROMIUM = shutil.which("chromium")
PHONE, DESKTOP = ViewportSize(width=360, height=740), ViewportSize(width=1200, height=900)


# --- a graded class on disk ---


def graded(student: str, passed: list[bool], reason: str = "") -> SubmissionResult:
    checks = [
        CheckResult(f"test_{i}", f"Check {i} holds", ok, "" if ok else f"Think about {i}")
        for i, ok in enumerate(passed)
    ]
    status: Status = "failed" if reason else "graded"
    notebook = NotebookResult(FILTERS, status, reason, [CellResult("it-check", 10.0, checks)])
    return SubmissionResult(student, ASSIGNMENT, [notebook])


CLASS = [
    graded("ada", [True, True, True, True]),
    graded("bob", [True, True, False, False]),
    graded("дарья", [True, False, False, False]),
    graded(HOSTILE.replace("/", ""), [True, True, False, True], reason=f"it holds {HOSTILE}"),
]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> CourseCopy:
    return template(tmp_path_factory.mktemp("template"))


@pytest.fixture
def reconciler(tmp_path: Path, original: CourseCopy) -> Reconciler:
    """An idle reconciler of a graded class."""
    classroom = Classroom.make(tmp_path, original)
    course = classroom.course
    for number, result in enumerate(CLASS):
        folder = course.autograded(result.student, ASSIGNMENT)
        folder.mkdir(parents=True)
        (folder / "results.json").write_text(json.dumps(result.to_json()), "utf-8")
        submitted = course.submitted(result.student, ASSIGNMENT)
        submitted.mkdir(parents=True)
        note_tensors(course, ASSIGNMENT, result.student, ["a" if number < 2 else str(number)])
    gradebook = Gradebook(course)
    settings = Settings.of(course, gradebook.config)
    standing = Reconciler(course, settings, [Scripted(course)], gradebook)
    standing.records.write(
        Answer("a", "eve", ASSIGNMENT, "refused", arrived=1.0, reason=f"too large {HOSTILE}")
    )
    standing.health.last_error = f"no space {HOSTILE}"
    return standing


# --- the page's data ---


def test_checks_are_listed_the_worst_first(reconciler: Reconciler) -> None:
    (shown,) = PageState(reconciler).state()["assignments"]
    assert [(c["title"], c["failed"], c["of"], c["hint"]) for c in shown["checks"]] == [
        ("Check 2 holds", 3, 4, "Think about 2"),
        ("Check 3 holds", 2, 4, "Think about 3"),
        ("Check 1 holds", 1, 4, "Think about 1"),
    ]


def test_scores_are_counted_in_tenths(reconciler: Reconciler) -> None:
    (shown,) = PageState(reconciler).state()["assignments"]
    assert shown["distribution"] == [0, 0, 1, 0, 0, 1, 0, 1, 0, 1]


def test_every_student_has_a_line(reconciler: Reconciler) -> None:
    (shown,) = PageState(reconciler).state()["assignments"]
    rows = {row["student"]: row for row in shown["rows"]}
    assert set(rows) == {"eve", *(result.student for result in CLASS)}
    assert rows["ada"]["status"] == "graded"
    assert (rows["ada"]["score"], rows["ada"]["max_score"]) == (10.0, 10.0)
    assert rows["eve"]["status"] == "not accepted"
    assert rows["eve"]["score"] is None
    assert [row["student"] for row in shown["rows"] if row["troubled"]] == [
        CLASS[3].student,
        "eve",
    ]
    assert rows[CLASS[3].student]["failed"] == [(FILTERS, f"it holds {HOSTILE}")]


@pytest.mark.parametrize(
    ("statuses", "blank"),
    [
        (["unchanged", "unchanged"], True),
        (["unchanged", "missing"], True),
        (["unchanged", "graded"], False),
        (["missing", "missing"], False),
    ],
)
def test_work_that_is_as_it_was_handed_out_is_to_look_at(
    reconciler: Reconciler, statuses: list[Status], blank: bool
) -> None:
    notebooks = [NotebookResult(f"{i}", status) for i, status in enumerate(statuses)]
    result = SubmissionResult("bob", ASSIGNMENT, notebooks)
    path = reconciler.course.autograded("bob", ASSIGNMENT) / "results.json"
    path.write_text(json.dumps(result.to_json()))
    (shown,) = PageState(reconciler).state()["assignments"]
    row = next(row for row in shown["rows"] if row["student"] == "bob")
    assert (row["blank"], row["troubled"]) == (blank, blank)


def test_identical_checkpoints_are_found(reconciler: Reconciler) -> None:
    assert identical_checkpoints(reconciler.course, ASSIGNMENT) == [{"ada", "bob"}]
    (shown,) = PageState(reconciler).state()["assignments"]
    assert shown["identical"] == [["ada", "bob"]]


def test_what_changes_on_disk_is_seen(reconciler: Reconciler) -> None:
    view = PageState(reconciler)
    assert view.state()["assignments"][0]["distribution"][9] == 1
    path = reconciler.course.autograded("bob", ASSIGNMENT) / "results.json"
    path.write_text(json.dumps(graded("bob", [True]).to_json()))
    os.utime(path, (2e9, 2e9))
    assert view.state()["assignments"][0]["distribution"][9] == 2


@pytest.mark.parametrize("url", ["", "http://", "unix:/tmp/x", "http://127.0.0.1"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UserError, match="JUPYTERHUB_SERVICE_URL"):
        address(url)


def undone(student: str, wrong: int = 0) -> SubmissionResult:
    """A result with three undone cells and one cell with `wrong` failed checks."""
    cells = [
        CellResult(f"c-{i}-check", 1.0, [CheckResult("t", "It is", False, hint)])
        for i, hint in enumerate(
            ("TODO [C-0]: not done yet", "not done yet", "TODO [x]: not done yet")
        )
    ]
    checks = [
        CheckResult(f"w{i}", f"W{i}", False, "It is not done yet by half") for i in range(wrong)
    ]
    result = NotebookResult(FILTERS, "graded", "", [*cells, CellResult("w-check", 1.0, checks)])
    return SubmissionResult(student, ASSIGNMENT, [result])


def write(course: Course, result: SubmissionResult) -> None:
    """Write a result into the course."""
    folder = course.autograded(result.student, ASSIGNMENT)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(result.to_json()), "utf-8")
    course.submitted(result.student, ASSIGNMENT).mkdir(parents=True, exist_ok=True)


def test_what_is_not_done_is_not_called_wrong(reconciler: Reconciler) -> None:
    for result in CLASS:
        write(reconciler.course, undone(result.student))
    (shown,) = PageState(reconciler).state()["assignments"]
    assert shown["checks"] == []
    assert [(one["cell"], one["students"], one["of"]) for one in shown["undone"]] == [
        (f"c-{i}-check", 4, 4) for i in range(3)
    ]
    write(reconciler.course, undone("ada", wrong=2))
    (shown,) = PageState(reconciler).state()["assignments"]
    # Everybody who did the cell got it wrong.
    assert [(c["title"], c["failed"], c["of"]) for c in shown["checks"]] == [
        ("W0", 1, 1),
        ("W1", 1, 1),
    ]
    rows = {row["student"]: row["checks"] for row in shown["rows"]}
    assert rows["ada"] == {"passed": 0, "wrong": 2, "undone": 3}
    assert rows["bob"] == {"passed": 0, "wrong": 0, "undone": 3}


def test_a_check_that_raised_is_for_a_person(reconciler: Reconciler) -> None:
    result = graded("ada", [True, False])
    result.notebooks[0].cells[0].checks[1].raised = "IndexError: 3"
    write(reconciler.course, result)
    (shown,) = PageState(reconciler).state()["assignments"]
    (row,) = [row for row in shown["rows"] if row["student"] == "ada"]
    assert row["raised"] == ["Check 1 holds (it-check): IndexError: 3"]
    assert row["troubled"]


# --- the roster and the due date ---

DUE = datetime(2024, 5, 6, 10, 0, tzinfo=UTC)


def enrol(reconciler: Reconciler) -> None:
    """Enter two students, one of them without a submission, and the assignment's due date."""
    with Gradebook(reconciler.course).database() as database:
        database.update_or_create_student("ada", first_name="Ada", last_name="Lovelace")
        database.update_or_create_student("zed")
        database.update_or_create_student("yan", first_name="Yan", last_name=None)
        database.update_or_create_assignment(ASSIGNMENT, duedate=DUE.replace(tzinfo=None))


def arrive(reconciler: Reconciler, student: str, after: float) -> None:
    """Record an attempt that arrived this many seconds after the due date."""
    when = DUE.timestamp() + after
    reconciler.records.write(Answer(f"{student}{after}", student, ASSIGNMENT, "graded", when, when))


def test_the_roster_gives_names_and_who_is_missing(reconciler: Reconciler) -> None:
    view = PageState(reconciler)
    assert view.state()["assignments"][0]["missing"] == []
    enrol(reconciler)
    (shown,) = view.state()["assignments"]
    assert shown["missing"] == [
        {"student": "yan", "name": "Yan"},
        {"student": "zed", "name": ""},
    ]
    names = {row["student"]: row["name"] for row in shown["rows"]}
    assert names["ada"] == "Ada Lovelace"
    assert names["bob"] == ""


def test_what_came_after_the_due_date_is_late(reconciler: Reconciler) -> None:
    enrol(reconciler)
    arrive(reconciler, "ada", -1)
    arrive(reconciler, "bob", 3 * 3600 + 60)
    arrive(reconciler, "дарья", 2 * 86400)
    with Gradebook(reconciler.course).database() as database:
        database.update_or_create_student("дарья")
        database.add_submission(ASSIGNMENT, "дарья")
        database.find_submission(ASSIGNMENT, "дарья").extension = timedelta(days=2)
        database.db.commit()
    (shown,) = PageState(reconciler).state()["assignments"]
    assert shown["due"] == DUE.timestamp()
    late = {row["student"]: row["late"] for row in shown["rows"]}
    assert (late["ada"], late["bob"], late["дарья"]) == ("", "3 hours 1 minute late", "")


def test_a_gradebook_that_cannot_be_read_stops_no_page(reconciler: Reconciler) -> None:
    enrol(reconciler)
    view = PageState(reconciler)
    before = view.state()["assignments"][0]["missing"]
    path = reconciler.course.root / "gradebook.db"
    path.write_bytes(b"x" * 5000)
    assert view.state()["assignments"][0]["missing"] == before != []


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, ""),
        (1, "1 minute late"),
        (7199, "1 hour 59 minutes late"),
        (86400 * 3.5, "3 days 12 hours late"),
    ],
)
def test_lateness_in_words(seconds: float, said: str) -> None:
    assert how_late(seconds) == said


# --- a simulated Hub ---


@dataclass
class Hub:
    """The Hub's API as far as a service needs it; every visitor is `visitor`, "" if logged out."""

    visitor: str = "teacher"
    url: str = ""
    users: Callable[[str], dict[str, Any]] = lambda name: {
        "teacher": {"groups": [GROUP], "scopes": [ACCESS]},
        "student": {"groups": ["nbgrader-deep-learning"], "scopes": [ACCESS]},
        "other": {"groups": ["formgrade-art-history"], "scopes": [ACCESS]},
        "stranger": {"groups": [GROUP], "scopes": ["access:services!service=else"]},
    }[name]

    def pages(self) -> Application:
        hub = self

        class Authorize(RequestHandler):
            def get(self) -> None:
                if not hub.visitor:
                    self.finish("<title>Sign in</title>")
                    return
                query = {"code": hub.visitor, "state": self.get_argument("state")}
                where = self.get_argument("redirect_uri")
                self.redirect(f"{where}?{urllib.parse.urlencode(query)}")

        class Token(RequestHandler):
            def post(self) -> None:
                self.write({"access_token": self.get_argument("code"), "token_type": "Bearer"})

        class User(RequestHandler):
            def get(self) -> None:
                name = self.request.headers.get("Authorization", "").rpartition(" ")[2]
                try:
                    model = hub.users(name)
                except KeyError:
                    raise HTTPError(403) from None
                self.write({"name": name, "kind": "user", "admin": False, **model})

        base = "/hub/api/"
        return Application(
            [
                (f"{base}oauth2/authorize", Authorize),
                (f"{base}oauth2/token", Token),
                (f"{base}user", User),
            ]
        )


@contextlib.contextmanager
def listening(pages: Callable[[], Application], port: int = 0) -> Iterator[str]:
    """Serve an application from a thread; close all its connections in the end."""
    with contextlib.closing(socket.create_server(("127.0.0.1", port))) as sock:
        sock.setblocking(False)
        loop = asyncio.new_event_loop()
        started = threading.Event()
        servers: list[HTTPServer] = []

        async def start() -> None:
            servers.append(HTTPServer(pages()))
            servers[0].add_socket(sock)
            started.set()

        async def end() -> None:
            servers[0].stop()
            await servers[0].close_all_connections()
            loop.stop()

        def run() -> None:
            asyncio.set_event_loop(loop)
            loop.run_until_complete(start())
            loop.run_forever()
            loop.close()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        assert started.wait(10)
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        asyncio.run_coroutine_threadsafe(end(), loop)
        thread.join(10)


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    with listening(hub.pages) as hub.url:
        yield hub


@dataclass
class Service:
    """The service at `url`, which can be stopped and restarted."""

    reconciler: Reconciler
    url: str = ""
    _running: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def serve(self, pages: Callable[[], Application]) -> None:
        """Serve this application at the address, which is a free one the first time."""
        port = urllib.parse.urlsplit(self.url).port or 0
        self.url = self._running.enter_context(listening(pages, port)) + PREFIX

    def start(self) -> None:
        """Start the service with a new secret, as every start does."""
        from jupyterhub.services.auth import HubOAuth

        HubOAuth.clear_instance()
        secret = os.urandom(32)
        self.serve(lambda: application(self.reconciler, PREFIX, secret))

    def stop(self) -> None:
        """Stop the service."""
        self._running.close()


@pytest.fixture
def service(reconciler: Reconciler, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    from jupyterhub.services.auth import HubOAuth

    environment = {
        "JUPYTERHUB_API_TOKEN": "secret-of-the-service",
        "JUPYTERHUB_API_URL": f"{hub.url}/hub/api",
        "JUPYTERHUB_BASE_URL": "/",
        "JUPYTERHUB_HOST": hub.url,
        "JUPYTERHUB_CLIENT_ID": "service-it",
        "JUPYTERHUB_SERVICE_NAME": "it",
        "JUPYTERHUB_SERVICE_PREFIX": PREFIX,
        "JUPYTERHUB_OAUTH_CALLBACK_URL": f"{PREFIX}oauth_callback",
        "JUPYTERHUB_OAUTH_ACCESS_SCOPES": json.dumps([ACCESS]),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    service = Service(reconciler)
    service.start()
    # The Hub knows the full address, the service only the path.
    monkeypatch.setenv("JUPYTERHUB_OAUTH_CALLBACK_URL", f"{service.url}oauth_callback")
    yield service
    service.stop()
    HubOAuth.clear_instance()


@pytest.fixture
def page(service: Service) -> str:
    """The address of the page."""
    return service.url


class Visitor:
    """A minimal HTTP client with cookies and redirects."""

    def __init__(self) -> None:
        self.jar = http.cookiejar.CookieJar()
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self.jar))

    def get(self, url: str, data: bytes | None = None, **headers: str) -> tuple[int, str, Any]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(url, data, named)
        try:
            with self._opener.open(request, timeout=20) as answer:
                return answer.status, answer.read().decode(), answer.headers
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode(), error.headers


def test_health_is_told_to_everybody_and_says_nothing_private(page: str) -> None:
    status, body, _ = Visitor().get(f"{page}health")
    assert status == 200
    assert json.loads(body) == {"status": "ok", "sandbox": False, "looked": False, "paused": False}


def test_a_member_of_the_group_logs_in_at_the_hub_and_sees_the_page(page: str) -> None:
    status, body, headers = Visitor().get(page)
    assert status == 200
    assert "ada" in body
    assert "дарья" in body
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("name", ["student", "other", "stranger"])
def test_others_are_told_in_one_sentence_that_they_may_not(page: str, hub: Hub, name: str) -> None:
    hub.visitor = name
    visitor = Visitor()
    status, body, _ = visitor.get(page)
    assert status == 403
    assert f"Only members of the group {GROUP} may see this page." in body
    assert "ada" not in body
    for path in ("api/state", "api/fragment"):
        status, body, _ = visitor.get(page + path)
        assert status == (401 if name == "stranger" else 403)  # the Hub did not let "stranger" in
        assert "ada" not in body


@pytest.mark.parametrize("path", ["api/state", "api/fragment"])
def test_whoever_has_not_logged_in_gets_no_data(page: str, path: str) -> None:
    status, body, _ = Visitor().get(page + path)
    assert (status, json.loads(body)) == (401, {"error": "You are logged out."})


def test_the_state_is_json(page: str) -> None:
    visitor = Visitor()
    visitor.get(page)
    status, body, headers = visitor.get(f"{page}api/state")
    assert status == 200
    assert headers["Content-Type"].startswith("application/json")
    assert json.loads(body)["course"] == "deep-learning"


@pytest.mark.parametrize("action", ["regrade", "release", "pause", "resume"])
def test_no_action_without_the_token_of_the_page(
    page: str, reconciler: Reconciler, action: str
) -> None:
    visitor = Visitor()
    visitor.get(page)
    status, body, _ = visitor.get(f"{page}api/{action}", b"student=ada")
    assert status == 403
    assert json.loads(body) == {"error": "This page is out of date; load it again."}
    assert not reconciler.records.paused
    assert reconciler.records.requests() == []


def press(visitor: Visitor, page: str, action: str, content: dict[str, Any]) -> tuple[int, Any]:
    token = next(cookie.value for cookie in visitor.jar if cookie.name == "_xsrf")
    assert token is not None
    status, body, _ = visitor.get(
        f"{page}api/{action}",
        json.dumps(content).encode(),
        X_XSRFToken=token,
        Content_Type="application/json",
        Accept="application/json",
    )
    return status, json.loads(body)


def test_a_regrade_is_wished_for_one_or_for_all(page: str, reconciler: Reconciler) -> None:
    visitor = Visitor()
    visitor.get(page)
    assert press(visitor, page, "regrade", {"student": "ada"})[0] == 200
    assert reconciler.records.requests() == [("regrade", ASSIGNMENT, "ada")]
    assert press(visitor, page, "release", {"student": None})[0] == 200
    released = [s for kind, _, s in reconciler.records.requests() if kind == "release"]
    assert sorted(released) == sorted(result.student for result in CLASS)


@pytest.mark.parametrize(
    "content", [{"student": "nobody"}, {"student": "../ada"}, {"assignment": "../x"}]
)
def test_what_does_not_exist_is_not_wished_for(
    page: str, reconciler: Reconciler, content: dict[str, str]
) -> None:
    visitor = Visitor()
    visitor.get(page)
    assert press(visitor, page, "regrade", content)[0] == 404
    assert reconciler.records.requests() == []


def test_pause_and_resume(page: str, reconciler: Reconciler) -> None:
    visitor = Visitor()
    visitor.get(page)
    assert press(visitor, page, "pause", {}) == (200, {"said": "Grading is paused."})
    assert reconciler.records.paused
    press(visitor, page, "resume", {})
    assert not reconciler.records.paused


def test_each_student_has_a_page_with_feedback_log_and_formgrader(
    page: str, reconciler: Reconciler
) -> None:
    enrol(reconciler)
    arrive(reconciler, "ada", 3600)
    course = reconciler.course
    feedback = course.root / "feedback" / "ada" / ASSIGNMENT / f"{FILTERS}.html"
    feedback.parent.mkdir(parents=True)
    feedback.write_text("<p>well done</p><script>alert(1)</script>", "utf-8")
    log = course.private / "logs" / ASSIGNMENT / "ada" / f"{FILTERS}.log"
    log.parent.mkdir(parents=True)
    log.write_text("<b>7 passed</b>", "utf-8")
    visitor = Visitor()
    _, body, _ = visitor.get(page)
    assert "Ada Lovelace" in body
    formgrader = f"/services/deep-learning/formgrader/manage_students/ada/{ASSIGNMENT}"
    assert f'href="{formgrader}"' in body
    one = f"assignment={ASSIGNMENT}&student=ada"
    assert f'href="{PREFIX}submission?{one.replace("&", "&amp;")}"' in body
    status, body, _ = visitor.get(f"{page}submission?{one}")
    assert status == 200
    assert "1 hour late" in body
    assert f'href="{formgrader}"' in body
    for kind in ("feedback", "log"):
        wanted = f"{PREFIX}{kind}?{one}&notebook={FILTERS}"
        assert f'href="{wanted.replace("&", "&amp;")}"' in body
    status, body, headers = visitor.get(f"{page}feedback?{one}&notebook={FILTERS}")
    assert (status, body[:16]) == (200, "<p>well done</p>")
    assert "sandbox;" in headers["Content-Security-Policy"]  # no script runs in this page
    status, body, headers = visitor.get(f"{page}log?{one}&notebook={FILTERS}")
    assert (status, body) == (200, "<b>7 passed</b>")
    assert headers["Content-Type"] == "text/plain; charset=UTF-8"


@pytest.mark.parametrize("kind", ["submission", "feedback", "log"])
def test_pages_of_nobody_and_of_no_notebook_are_not_there(page: str, kind: str) -> None:
    visitor = Visitor()
    visitor.get(page)
    for student, notebook in (
        ("nobody", FILTERS),
        ("../ada", FILTERS),
        ("ada", "../../../../gradebook"),
        ("ada", "../results"),
        ("ada", FILTERS),  # she has no feedback yet
    ):
        if kind == "submission" and student == "ada":
            continue
        query = urllib.parse.urlencode(
            {"assignment": ASSIGNMENT, "student": student, "notebook": notebook}
        )
        assert visitor.get(f"{page}{kind}?{query}")[0] == 404
    assert visitor.get(f"{page}{kind}")[0] == 400


@pytest.mark.parametrize("kind", ["submission", "feedback", "log", "confirm"])
def test_only_instructors_see_pages_of_students(page: str, hub: Hub, kind: str) -> None:
    hub.visitor = "student"
    query = f"assignment={ASSIGNMENT}&student=ada&notebook={FILTERS}"
    status, body, _ = Visitor().get(f"{page}{kind}?{query}")
    assert status == 403
    assert "ada" not in body


def test_everybody_is_graded_again_only_after_a_question(page: str, reconciler: Reconciler) -> None:
    visitor = Visitor()
    _, body, _ = visitor.get(page)
    assert "Grade all again …</a>" in body
    status, body, _ = visitor.get(f"{page}confirm?assignment={ASSIGNMENT}")
    assert status == 200
    assert "4 submissions are computed anew" in body
    assert reconciler.records.requests() == []
    assert visitor.get(f"{page}confirm?assignment=other")[0] == 404


# --- in a browser ---

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt install chromium")


@dataclass(frozen=True)
class Watched:
    """A tab of a browser, the errors in it, and the addresses that it has asked for."""

    tab: Page
    faults: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


@contextlib.contextmanager
def browser(size: ViewportSize) -> Iterator[Watched]:
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        watched = Watched(chromium.new_page(viewport=size))

        def hear(message: ConsoleMessage) -> None:
            if message.type == "error":
                watched.faults.append(message.text)

        watched.tab.on("pageerror", lambda error: watched.faults.append(str(error)))
        watched.tab.on("console", hear)
        watched.tab.on("request", lambda request: watched.asked.append(request.url))
        yield watched
        chromium.close()


def picture(tab: Page, name: str) -> None:
    """Save a screenshot of the page if SCREENSHOTS names a folder."""
    if folder := os.environ.get("SCREENSHOTS"):
        tab.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


@needs_chromium
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_in_a_browser(page: str, size: ViewportSize, request: pytest.FixtureRequest) -> None:
    with browser(size) as watched:
        tab = watched.tab
        tab.goto(page)
        tab.wait_for_selector("#looked:not(:empty)")
        picture(tab, request.node.callspec.id)
        # Nothing is wider than the screen, and student text stays text.
        assert tab.evaluate("document.documentElement.scrollWidth") <= size["width"]
        assert tab.title() == "deep-learning: autograder"
        assert HOSTILE in tab.inner_text("main")
        assert tab.query_selector("main img") is None
        # Everything comes from the service, and the policy blocks nothing.
        assert watched.faults == []
        hosts = {urllib.parse.urlsplit(url).port for url in watched.asked}
        assert len(hosts) <= 2  # the service, and the Hub to log in at


@needs_chromium
def test_without_a_mouse(page: str, reconciler: Reconciler) -> None:
    with browser(DESKTOP) as watched:
        tab = watched.tab
        tab.goto(page)

        def reach(element: str) -> None:
            for _ in range(60):
                tab.keyboard.press("Tab")
                if tab.evaluate("document.activeElement.id") == element:
                    outline = "getComputedStyle(document.activeElement).outlineStyle"
                    assert tab.evaluate(outline) == "solid"
                    return
            raise AssertionError(f"{element} cannot be reached")

        reach("pause")
        tab.keyboard.press("Enter")
        tab.wait_for_selector("text=Go on grading")
        assert reconciler.records.paused
        assert tab.inner_text("[role=status]") == "Grading is paused."
        assert tab.evaluate("document.activeElement.id") == "pause"  # the focus is kept
        reach("regrade-0-0")
        name = tab.evaluate("document.activeElement.getAttribute('aria-label')")
        student = name.partition(": ")[2]
        tab.keyboard.press("Space")
        tab.wait_for_selector("[role=status]:has-text('will be graded again')")
        assert reconciler.records.requests() == [("regrade", ASSIGNMENT, student)]


@needs_chromium
def test_the_page_follows_by_itself(page: str, reconciler: Reconciler) -> None:
    with browser(DESKTOP) as watched:
        tab = watched.tab
        with tab.expect_response("**/api/fragment"):  # the first update is not announced
            tab.goto(page)
        assert "zoë" not in tab.inner_text("main")
        reconciler.records.write(Answer("b", "zoë", ASSIGNMENT, "deferred", 2.0, until=3.0))
        tab.wait_for_selector("text=zoë")
        assert "6 handed in" in tab.inner_text("[role=status]")


@needs_chromium
def test_a_restart_of_the_service_is_said_and_survived(
    service: Service, reconciler: Reconciler
) -> None:
    with browser(DESKTOP) as watched:
        tab = watched.tab
        tab.goto(service.url)
        tab.wait_for_selector("#looked:not(:empty)")
        service.stop()
        tab.wait_for_selector("[role=alert]:has-text('The service does not answer')")
        picture(tab, "stopped")

        # Now the Hub's proxy answers instead, with an error page.
        class Proxy(RequestHandler):
            def get(self) -> None:
                self.set_status(503)
                self.finish("<!DOCTYPE html><title>503</title>")

        service.serve(lambda: Application([(".*", Proxy)]))
        tab.wait_for_timeout(3000)  # the page has polled since
        assert "does not answer; it may be starting" in tab.inner_text("[role=alert]")
        assert "token" not in tab.inner_text("body")
        service.stop()
        # A restart uses a new secret, so the old cookies are invalid.
        reconciler.records.write(Answer("b", "zoë", ASSIGNMENT, "deferred", 2.0, until=3.0))
        service.start()
        tab.wait_for_selector("text=zoë")
        assert tab.is_hidden("[role=alert]")
        assert "only members" not in tab.inner_text("body").lower()


@needs_chromium
def test_who_has_logged_out_is_sent_to_log_in(service: Service, hub: Hub) -> None:
    with browser(DESKTOP) as watched:
        tab = watched.tab
        tab.goto(service.url)
        tab.wait_for_selector("#looked:not(:empty)")
        hub.visitor = ""  # logged out, in another tab
        service.stop()
        service.start()
        tab.wait_for_url("**/oauth2/authorize*")
        assert tab.title() == "Sign in"


@needs_chromium
def test_times_are_in_the_zone_of_the_reader(page: str, reconciler: Reconciler) -> None:
    enrol(reconciler)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = chromium.new_context(timezone_id="Asia/Seoul", locale="en-GB")
        tab = context.new_page()
        tab.goto(page)
        due = ".summary time[datetime='2024-05-06T10:00:00Z']"
        tab.wait_for_selector(f"{due}:has-text('6 May, 19:00')")
        chromium.close()


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_what_needs_a_person_comes_first(
    page: str, reconciler: Reconciler, size: ViewportSize, scheme: Literal["light", "dark"]
) -> None:
    """A class with many problems, as people see it."""
    enrol(reconciler)
    for result in [graded("ada", [True, False] * 15), *(undone(f"s{i}", 3) for i in range(6))]:
        result.notebooks[0].cells[0].checks[-1].raised = "IndexError" if result.score > 1 else ""
        write(reconciler.course, result)
        arrive(reconciler, result.student, 7200)
    with browser(size) as watched:
        tab = watched.tab
        tab.emulate_media(color_scheme=scheme)
        tab.goto(page)
        tab.wait_for_selector("#looked:not(:empty)")
        picture(tab, f"class-{size['width']}-{scheme}")
        assert barriers(tab) == []
        top = "document.querySelector('{}').getBoundingClientRect().top"
        places = [
            tab.evaluate(top.format(place))
            for place in (".attention h3", "table.students", "table.checks", "#health")
        ]
        assert places == sorted(places)
        assert tab.evaluate("document.documentElement.scrollWidth") <= size["width"]
        # Ten failed checks are listed; the others can be unfolded, and stay unfolded.
        assert tab.locator("table.checks tbody tr:visible").count() == 10
        tab.click("#more-0 summary")
        shown = tab.locator("table.checks tbody tr:visible").count()
        assert shown > 10
        reconciler.records.pause(True)
        tab.wait_for_selector("text=Grading is paused: nothing new")
        assert tab.locator("table.checks tbody tr:visible").count() == shown
        tab.click("th a:has-text('Ada Lovelace')")
        tab.wait_for_selector("h1:has-text('Ada Lovelace')")
        picture(tab, f"submission-{size['width']}-{scheme}")
        assert barriers(tab) == []
        assert tab.evaluate("document.documentElement.scrollWidth") <= size["width"]
        tab.goto(f"{page}confirm?assignment={ASSIGNMENT}")
        picture(tab, f"confirm-{size['width']}-{scheme}")
        assert barriers(tab) == []
        tab.click("#yes")
        tab.wait_for_selector("table.students")
        assert len(reconciler.records.requests()) > 4
        assert watched.faults == []


@needs_chromium
def test_without_scripts_the_buttons_work(page: str, reconciler: Reconciler) -> None:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = chromium.new_context(java_script_enabled=False).new_page()
        tab.goto(page)
        tab.click("#pause")
        assert tab.url == page
        assert "Go on grading" in tab.inner_text("main")
        assert reconciler.records.paused
        chromium.close()
