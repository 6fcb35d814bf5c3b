"""The instructors' page: who may see it, what it says, and that it works without a mouse."""

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from exchange import FILTERS, Classroom, Scripted, template
from submissions import ASSIGNMENT, CourseCopy
from tornado.httpserver import HTTPServer
from tornado.web import Application, HTTPError, RequestHandler

from autograder.engine.results import CellResult, CheckResult, NotebookResult, SubmissionResult
from autograder.errors import UserError
from autograder.hub.reconcile import Reconciler
from autograder.hub.records import Answer
from autograder.hub.settings import Settings
from autograder.hub.view import View
from autograder.hub.web import address, application
from autograder.record.copies import identical_checkpoints, note_tensors
from autograder.record.gradebook import Gradebook

PREFIX = "/services/it/"
GROUP = "formgrade-deep-learning"
ACCESS = "access:services!service=it"
HOSTILE = "<img src=x onerror=\"document.title='stolen'\">"
CHROMIUM = shutil.which("chromium")
PHONE, DESKTOP = {"width": 360, "height": 740}, {"width": 1200, "height": 900}


# --- a class, as it lies on disk after grading ---


def graded(student: str, passed: list[bool], reason: str = "") -> SubmissionResult:
    checks = [
        CheckResult(f"test_{i}", f"Check {i} holds", ok, "" if ok else f"Think about {i}")
        for i, ok in enumerate(passed)
    ]
    status = "failed" if reason else "graded"
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
    """A reconciler that stands still in a class that is graded."""
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


# --- what the page is made of ---


def test_checks_are_listed_the_worst_first(reconciler: Reconciler) -> None:
    (shown,) = View(reconciler).state()["assignments"]
    assert [(c["title"], c["failed"], c["of"], c["hint"]) for c in shown["checks"]] == [
        ("Check 2 holds", 3, 4, "Think about 2"),
        ("Check 3 holds", 2, 4, "Think about 3"),
        ("Check 1 holds", 1, 4, "Think about 1"),
    ]


def test_scores_are_counted_in_tenths(reconciler: Reconciler) -> None:
    (shown,) = View(reconciler).state()["assignments"]
    assert shown["distribution"] == [0, 0, 1, 0, 0, 1, 0, 1, 0, 1]


def test_every_student_has_a_line(reconciler: Reconciler) -> None:
    (shown,) = View(reconciler).state()["assignments"]
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


def test_identical_checkpoints_are_found(reconciler: Reconciler) -> None:
    assert identical_checkpoints(reconciler.course, ASSIGNMENT) == [{"ada", "bob"}]
    (shown,) = View(reconciler).state()["assignments"]
    assert shown["identical"] == [["ada", "bob"]]


def test_what_changes_on_disk_is_seen(reconciler: Reconciler) -> None:
    view = View(reconciler)
    assert view.state()["assignments"][0]["distribution"][9] == 1
    path = reconciler.course.autograded("bob", ASSIGNMENT) / "results.json"
    path.write_text(json.dumps(graded("bob", [True]).to_json()))
    os.utime(path, (2e9, 2e9))
    assert view.state()["assignments"][0]["distribution"][9] == 2


@pytest.mark.parametrize("url", ["", "http://", "unix:/tmp/x", "http://127.0.0.1"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UserError, match="JUPYTERHUB_SERVICE_URL"):
        address(url)


# --- a Hub to log in at ---


@dataclass
class Hub:
    """The four addresses of a Hub that a service needs; whoever comes is `visitor`."""

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
def listening(pages: Callable[[], Application]) -> Iterator[str]:
    """Serve an application from a thread of its own."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as sock:
        sock.setblocking(False)
        loop = asyncio.new_event_loop()
        started = threading.Event()

        async def start() -> None:
            HTTPServer(pages()).add_socket(sock)
            started.set()

        def run() -> None:
            asyncio.set_event_loop(loop)
            loop.run_until_complete(start())
            loop.run_forever()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        assert started.wait(10)
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    with listening(hub.pages) as hub.url:
        yield hub


@pytest.fixture
def page(reconciler: Reconciler, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of the page."""
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
    HubOAuth.clear_instance()
    with listening(lambda: application(reconciler, PREFIX, b"x" * 32)) as url:
        # The Hub knows the whole address; the service only the path.
        monkeypatch.setenv("JUPYTERHUB_OAUTH_CALLBACK_URL", f"{url}{PREFIX}oauth_callback")
        yield f"{url}{PREFIX}"
    HubOAuth.clear_instance()


class Visitor:
    """A browser without a screen: cookies and redirects."""

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
        assert status == 403
        assert "ada" not in body


@pytest.mark.parametrize("path", ["api/state", "api/fragment"])
def test_whoever_has_not_logged_in_gets_no_data(page: str, path: str) -> None:
    status, body, _ = Visitor().get(page + path)
    assert status == 403
    assert "ada" not in body


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
    assert reconciler.records.wishes() == []


def press(visitor: Visitor, page: str, action: str, content: dict[str, Any]) -> tuple[int, Any]:
    token = next(cookie.value for cookie in visitor.jar if cookie.name == "_xsrf")
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
    assert reconciler.records.wishes() == [("regrade", ASSIGNMENT, "ada")]
    assert press(visitor, page, "release", {"student": None})[0] == 200
    released = [s for kind, _, s in reconciler.records.wishes() if kind == "release"]
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
    assert reconciler.records.wishes() == []


def test_pause_and_resume(page: str, reconciler: Reconciler) -> None:
    visitor = Visitor()
    visitor.get(page)
    assert press(visitor, page, "pause", {}) == (200, {"said": "Grading is paused."})
    assert reconciler.records.paused
    press(visitor, page, "resume", {})
    assert not reconciler.records.paused


# --- in a browser ---

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt install chromium")


@contextlib.contextmanager
def browser(size: dict[str, int]) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        tab = chromium.new_page(viewport=size)
        tab.faults = []
        tab.on("pageerror", lambda error: tab.faults.append(str(error)))
        tab.on("console", lambda m: m.type == "error" and tab.faults.append(m.text))
        tab.asked = []
        tab.on("request", lambda request: tab.asked.append(request.url))
        yield tab
        chromium.close()


def picture(tab: Any, name: str) -> None:
    """A picture of the page, for whoever names a folder for them."""
    if folder := os.environ.get("SCREENSHOTS"):
        tab.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


@needs_chromium
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_in_a_browser(page: str, size: dict[str, int], request: pytest.FixtureRequest) -> None:
    with browser(size) as tab:
        tab.goto(page)
        tab.wait_for_selector("#looked:not(:empty)")
        picture(tab, request.node.callspec.id)
        # Nothing is wider than the screen, and what a student wrote is only text.
        assert tab.evaluate("document.documentElement.scrollWidth") <= size["width"]
        assert tab.title() == "deep-learning: autograder"
        assert HOSTILE in tab.inner_text("main")
        assert tab.query_selector("main img") is None
        # Everything comes from the service, and the policy stands in nothing's way.
        assert tab.faults == []
        hosts = {urllib.parse.urlsplit(url).port for url in tab.asked}
        assert len(hosts) <= 2  # the service, and the Hub to log in at


@needs_chromium
def test_without_a_mouse(page: str, reconciler: Reconciler) -> None:
    with browser(DESKTOP) as tab:
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
        assert reconciler.records.wishes() == [("regrade", ASSIGNMENT, student)]


@needs_chromium
def test_the_page_follows_by_itself(page: str, reconciler: Reconciler) -> None:
    with browser(DESKTOP) as tab:
        tab.goto(page)
        tab.wait_for_selector("#looked:not(:empty)")  # what it finds first it does not announce
        assert "zoë" not in tab.inner_text("main")
        reconciler.records.write(Answer("b", "zoë", ASSIGNMENT, "deferred", 2.0, until=3.0))
        tab.wait_for_selector("text=zoë")
        assert "6 handed in" in tab.inner_text("[role=status]")


@needs_chromium
def test_without_scripts_the_buttons_work(page: str, reconciler: Reconciler) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = chromium.new_context(java_script_enabled=False).new_page()
        tab.goto(page)
        tab.click("#pause")
        assert tab.url == page
        assert "Go on grading" in tab.inner_text("main")
        assert reconciler.records.paused
        chromium.close()
