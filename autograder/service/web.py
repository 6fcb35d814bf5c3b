"""The service's pages: submissions, their results, and the instructor's actions.

Visitors log in at the Hub and pass two checks: the Hub grants them
`access:services!service=<this service>` (checked by JupyterHub's mixin), and they are members of
the instructor group.  The service reads a visitor's name and groups, which every OAuth token may
ask about its owner; it needs no further scope.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, urlencode, urlsplit

from jupyterhub.services.auth import HubOAuthCallbackHandler, HubOAuthenticated
from tornado.web import Application, HTTPError, RequestHandler, StaticFileHandler

from autograder.course import check_name
from autograder.errors import UserError
from autograder.service.reconcile import Reconciler
from autograder.service.records import Request
from autograder.service.view import PageState

_HERE = Path(__file__).parent
LONGEST = 32 << 20  # most bytes shown of a page or a log
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class HealthCheck(RequestHandler):
    """A health check for monitoring, without private data."""

    def initialize(self, reconciler: Reconciler) -> None:
        """Store the reconciler."""
        self.reconciler = reconciler

    def get(self) -> None:
        """Answer 200 as soon as the service listens."""
        health = self.reconciler.health
        self.write(
            {
                "status": "ok",
                "sandbox": bool(health.sandbox),
                "looked": health.last_look > 0,
                "paused": self.reconciler.records.paused,
            }
        )


class Instructors(HubOAuthenticated, RequestHandler):  # type: ignore[misc]
    """Base class of pages for members of the instructor group only."""

    reconciler: Reconciler
    view: PageState

    def initialize(self, reconciler: Reconciler, view: PageState) -> None:
        """Store the reconciler and the view."""
        self.reconciler = reconciler
        self.view = view

    def set_default_headers(self) -> None:
        """Forbid external content, framing and caching."""
        for name, value in _HEADERS.items():
            self.set_header(name, value)

    def prepare(self) -> None:
        """Redirect anonymous visitors to the login; raise 403 for non-members of the group."""
        user = self.current_user
        if user is None:
            if self.request.method == "GET" and not self.request.path.startswith(self._api):
                self.redirect(self.get_login_url())
                return
            raise HTTPError(401, "log in first")
        if self.reconciler.settings.instructor_group not in user.get("groups", ()):
            raise HTTPError(403, "not in the group")

    @property
    def _api(self) -> str:
        return f"{self.settings['prefix']}api/"

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer with the error in one sentence."""
        error = kwargs.get("exc_info", (None, None))[1]
        said = error.log_message if isinstance(error, HTTPError) else ""
        group = self.reconciler.settings.instructor_group
        text = {
            401: "You are logged out.",
            403: f"Only members of the group {group} may see this page.",
            404: "There is no such page.",
        }.get(status_code, said or "Something went wrong; the service's log says more.")
        if status_code == 403 and said and "xsrf" in said.lower():
            text = "This page is out of date; load it again."
        if self.request.path.startswith(self._api):
            self.finish({"error": text})
        else:
            self.render("error.html", text=text)

    def fragment(self) -> str:
        """The part of the page that changes, as HTML."""
        html = self.render_string("state.html", state=self.view.state(), **self._words)
        return html.decode("utf-8")

    @property
    def _words(self) -> dict[str, Any]:
        """Functions that the templates call."""
        return {"when": _when, "link": self._link, "formgrader": self._formgrader}

    def _link(self, page: str, **query: str) -> str:
        """Address of one of this service's pages."""
        return f"{self.settings['prefix']}{page}?{urlencode(query, errors='surrogateescape')}"

    def _formgrader(self, student: str, assignment: str) -> str:
        """Address of a student's page in formgrader, a sibling of this service on the Hub."""
        beside = self.settings["prefix"].rstrip("/").rpartition("/")[0]
        parts = (self.reconciler.settings.course_id, "formgrader", "manage_students")
        path = "/".join(quote(part, safe="") for part in (*parts, student, assignment))
        return f"{beside}/{path}"

    @property
    def looked(self) -> float:
        """When the service last looked at the exchange; 0 before the first look."""
        return self.reconciler.health.last_look


class Dashboard(Instructors):
    """The main page."""

    def get(self) -> None:
        """Render the current state."""
        self.render(
            "page.html",
            course=self.reconciler.settings.course_id,
            user=self.current_user["name"],
            fragment=self.fragment(),
            looked=self.looked,
            **self._words,
        )


class _OfOne(Instructors):
    """Base class of pages about one submission; the query names assignment and student."""

    def _submission(self) -> dict[str, Any]:
        try:
            return self.view.submission(
                self.get_query_argument("assignment"), self.get_query_argument("student")
            )
        except KeyError as error:
            raise HTTPError(404) from error

    def _file(self, of: Callable[[str, str, str], Path]) -> bytes:
        """A file of one notebook."""
        found = self._submission()
        notebook = self.get_query_argument("notebook")
        if notebook not in [one["name"] for one in found["notebooks"]]:
            raise HTTPError(404)
        try:
            path = of(found["assignment"], found["row"]["student"], notebook)
            with path.open("rb") as file:
                return file.read(LONGEST)
        except OSError as error:
            raise HTTPError(404) from error


class Submission(_OfOne):
    """One student's submission, notebook by notebook."""

    def get(self) -> None:
        """Render the submission."""
        self.render(
            "submission.html",
            course=self.reconciler.settings.course_id,
            found=self._submission(),
            **self._words,
        )


class Feedback(_OfOne):
    """A feedback page as the student sees it."""

    def get(self) -> None:
        """Serve the page under a sandboxing policy, since a student wrote most of it."""
        self.set_header(
            "Content-Security-Policy",
            "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
            "base-uri 'none'; frame-ancestors 'none'",
        )
        self.finish(self._file(self.view.feedback))


class Log(_OfOne):
    """The log of a notebook's grading."""

    def get(self) -> None:
        """Serve the log as text."""
        self.set_header("Content-Type", "text/plain; charset=UTF-8")
        self.finish(self._file(self.view.log))


class Confirm(Instructors):
    """Asks for confirmation before all submissions are graded again."""

    def get(self) -> None:
        """Render the confirmation form."""
        name = self.get_query_argument("assignment")
        if name not in self.reconciler.assignments():
            raise HTTPError(404)
        self.render(
            "confirm.html",
            course=self.reconciler.settings.course_id,
            name=name,
            count=len(self.reconciler.course.students(name)),
        )


class State(Instructors):
    """The page's content as JSON."""

    def get(self) -> None:
        """Write the state."""
        self.write(json.dumps(self.view.state(), ensure_ascii=False))
        self.set_header("Content-Type", "application/json; charset=UTF-8")


class Fragment(Instructors):
    """The part of the page that changes."""

    def get(self) -> None:
        """Write the HTML in a JSON object."""
        self.write({"html": self.fragment(), "looked": _when(self.looked)})


class Action(Instructors):
    """Handles the button called `name`."""

    def initialize(self, reconciler: Reconciler, view: PageState, name: str = "") -> None:
        """Store the reconciler, the view and the name of the action."""
        super().initialize(reconciler, view)
        self.name = name

    def post(self) -> None:
        """Perform the action; answer with JSON to a script, and redirect a form to the page."""
        records = self.reconciler.records
        if self.name in ("pause", "resume"):
            records.pause(self.name == "pause")
            said = "Grading is paused." if self.name == "pause" else "Grading goes on."
        else:
            said = self._request(cast(Request, self.name))
        if "application/json" in self.request.headers.get("Accept", ""):
            self.write({"said": said})
        else:
            self.redirect(self.settings["prefix"], status=303)

    def _request(self, request: Request) -> str:
        chosen, assignment = self._field("student"), self._field("assignment")
        known = self.reconciler.assignments()
        if assignment and assignment not in known:
            raise HTTPError(404)
        count = 0
        for name in [assignment] if assignment else known:
            present = self.reconciler.course.students(check_name(name))
            if chosen and chosen not in self.view.students(name):
                continue
            for student in present:
                if chosen in ("", student):
                    self.reconciler.records.request(request, name, student)
                    count += 1
        if chosen and not count:
            raise HTTPError(404)
        what = {"regrade": "graded again", "release": "given the newest feedback"}[request]
        return f"{chosen or f'{count} submissions'}: will be {what}."

    def _field(self, name: str) -> str:
        """A value from the form or the JSON body; empty if it is missing."""
        if self.request.headers.get("Content-Type", "").startswith("application/json"):
            try:
                given = json.loads(self.request.body or b"{}")
            except ValueError as error:
                raise HTTPError(400, "the body is not JSON") from error
            value = given.get(name) if isinstance(given, dict) else None
        else:
            value = self.get_body_argument(name, "")
        return value if isinstance(value, str) else ""


def application(reconciler: Reconciler, prefix: str, cookie_secret: bytes) -> Application:
    """The web application with all pages below `prefix`, which starts and ends with a slash."""
    given = {"reconciler": reconciler, "view": PageState(reconciler)}
    actions: tuple[str, ...] = ("regrade", "release", "pause", "resume")
    return Application(
        [
            (f"{prefix}health", HealthCheck, {"reconciler": reconciler}),
            (f"{prefix}oauth_callback", HubOAuthCallbackHandler),
            (prefix, Dashboard, given),
            (f"{prefix}submission", Submission, given),
            (f"{prefix}feedback", Feedback, given),
            (f"{prefix}log", Log, given),
            (f"{prefix}confirm", Confirm, given),
            (f"{prefix}api/state", State, given),
            (f"{prefix}api/fragment", Fragment, given),
            *((f"{prefix}api/{name}", Action, {**given, "name": name}) for name in actions),
            (f"{prefix}static/(.*)", StaticFileHandler, {"path": str(_HERE / "static")}),
            (".*", NotFound),
        ],
        cookie_secret=cookie_secret,
        xsrf_cookies=True,
        template_path=str(_HERE / "templates"),
        prefix=prefix,
    )


class NotFound(RequestHandler):
    """Answers all other addresses."""

    def prepare(self) -> None:
        """Raise 404."""
        raise HTTPError(404)


def address(url: str) -> tuple[str, int]:
    """Host and port in the address that the Hub gave.  Raises UserError if it gave none."""
    parts = urlsplit(url)
    if not parts.hostname or not parts.port:
        raise UserError(
            "JUPYTERHUB_SERVICE_URL names no address to listen on: JupyterHub starts this service, "
            "and its entry in c.JupyterHub.services needs a url"
        )
    return parts.hostname, parts.port


def _when(seconds: float | None) -> str:
    """A time as HTML in the server's time zone; the page's script converts it to the reader's."""
    if not seconds:
        return "not yet"
    then = datetime.fromtimestamp(seconds).astimezone()
    shown = then.strftime("%d %b %Y, %H:%M %Z")
    return f'<time datetime="{then.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}">{shown}</time>'
