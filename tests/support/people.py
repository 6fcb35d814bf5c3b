"""Users in a browser, who log in to the Hub and work in JupyterLab."""

from __future__ import annotations

import contextlib
import grp
import json
import pwd
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

from playwright.sync_api import (
    Browser,
    FrameLocator,
    Locator,
    Page,
    Response,
    expect,
    sync_playwright,
)

from deploy.demo import ASSIGNMENT, Demonstration

PATIENCE = 120_000  # ms; generous, for a busy machine
_ARGUMENTS = """
    --no-sandbox --disable-gpu --disable-background-networking --disable-component-update
    --disable-sync --no-first-run
""".split()
_LOCAL = re.compile(r"(https?|wss?)://127\.0\.0\.1[:/]|(data|blob|about|file):")

# Replaces cells of a notebook through the server's API, as the student who is logged in.
_FILL = """async ([base, path, cells]) => {
    const url = `${base}api/contents/${path}`;
    const headers = {"X-XSRFToken": document.cookie.match(/_xsrf=([^;]*)/)[1]};
    const content = (await (await fetch(url, {headers})).json()).content;
    for (const cell of content.cells) {
        const id = (cell.metadata.nbgrader || {}).grade_id;
        if (id in cells) cell.source = cells[id];
    }
    const body = JSON.stringify({type: "notebook", format: "json", content});
    return (await fetch(url, {method: "PUT", headers, body})).status;
}"""


def chromium() -> str:
    """Path of Chromium.  Raises RuntimeError if it is not installed."""
    found = shutil.which("chromium")
    if found is None:
        raise RuntimeError(
            "these tests need Chromium; run `make test` as root, which installs it, "
            "or `apt-get install chromium`"
        )
    return found


@contextmanager
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium(), args=_ARGUMENTS)
        yield running
        running.close()


def barriers(page: Page) -> list[tuple[str, str]]:
    """(rule, element) of the serious accessibility problems that axe-core finds on a page."""
    page.evaluate(
        resources.files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")
    )
    return [
        (rule["id"], node["html"][:200])
        for rule in page.evaluate("axe.run()")["violations"]
        for node in rule["nodes"]
        if rule["impact"] in ("serious", "critical")
    ]


class Person:
    """A logged-in user with a browser; `elsewhere` lists requests to other machines."""

    def __init__(
        self, hub: Demonstration, running: Browser, name: str, width: int = 1400, height: int = 900
    ) -> None:
        self.hub, self.name = hub, name
        self.elsewhere: list[str] = []
        self.context = running.new_context(viewport={"width": width, "height": height})
        self.context.set_default_timeout(PATIENCE)
        self.context.on("request", lambda request: self._note(request.url))
        self.context.on("page", lambda page: page.on("websocket", lambda w: self._note(w.url)))
        self.page = self.context.new_page()
        self.page.goto(f"{hub.url}/hub/login?next=/hub/home")
        self.page.fill("#username_input", name)
        self.page.fill("#password_input", hub.passwords[name])
        self.page.click("#login_submit")
        self.page.wait_for_url("**/hub/home")

    def _note(self, url: str) -> None:
        if not _LOCAL.match(url):
            self.elsewhere.append(url)

    def get(self, url: str) -> Response:
        """Open an address of the Hub, below its root or in full."""
        response = self.page.goto(url if url.startswith("http") else f"{self.hub.url}{url}")
        assert response is not None
        return response

    # --- JupyterLab ---

    def open_lab(self) -> None:
        """Start the user's server and wait for JupyterLab."""
        self.get("/hub/spawn")
        self.page.get_by_role("menuitem", name="Nbgrader").wait_for()

    def nbgrader_menu(self) -> list[str]:
        """The entries of nbgrader's menu."""
        self.page.get_by_role("menuitem", name="Nbgrader").click()
        self.page.locator(".lm-Menu-item[data-type=command]").first.wait_for()
        labels = self.page.locator(".lm-Menu-item[data-type=command] .lm-Menu-itemLabel")
        found = [text for text in labels.all_inner_texts() if text]  # separators have none
        self.page.keyboard.press("Escape")
        return found

    def open_list(self) -> None:
        """Open the list of assignments."""
        self.page.get_by_role("menuitem", name="Nbgrader").click()
        self.page.locator(".lm-Menu-itemLabel", has_text="Assignment List").click()
        expect(self.page.locator("#released_assignments_list_loading")).to_be_hidden()

    def fetch(self) -> None:
        """Fetch the assignment."""
        self.page.get_by_role("button", name="Fetch", exact=True).click()
        self.page.get_by_role("button", name="Submit", exact=True).wait_for()

    def fill(self, notebook: str, cells: Mapping[str, str]) -> None:
        """Replace cells of a fetched notebook, by id."""
        path = f"{self.course}/{ASSIGNMENT}/{notebook}.ipynb"
        status = self.page.evaluate(_FILL, [f"/user/{self.name}/", path, dict(cells)])
        assert status == 200

    def validate(self, notebook: str) -> str:
        """Press Validate; return the text of the dialog."""
        row = self.page.locator("#fetched_assignments_list .nested_list_item", has_text=notebook)
        if not row.is_visible():
            self.page.locator("#fetched_assignments_list a", has_text=ASSIGNMENT).first.click()
        row.get_by_role("button", name="Validate").click()
        dialog = self.page.locator(".jp-Dialog")
        dialog.wait_for()
        text = dialog.inner_text()
        dialog.get_by_role("button").last.click()
        return text

    def submit(self) -> None:
        """Press Submit, and wait for the submission in the list."""
        rows = self.page.locator("#submitted_assignments_list .nested_list_item")
        before = rows.count()
        self.page.get_by_role("button", name="Submit", exact=True).click()
        expect(rows).to_have_count(before + 1)

    def submit_in_vain(self) -> str:
        """Press Submit, which is refused; return the text of the dialog."""
        self.page.get_by_role("button", name="Submit", exact=True).click()
        dialog = self.page.locator(".jp-Dialog")
        dialog.wait_for()
        text = dialog.inner_text()
        dialog.get_by_role("button").last.click()
        return text

    def fetch_feedback(self) -> Locator:
        """Press the buttons until the list offers feedback; return the link to the newest."""
        self.page.locator(".lm-TabBar-tab", has_text="Assignments").click()
        link = self.page.locator("#submitted_assignments_list a", has_text="view feedback")
        deadline = time.monotonic() + 300
        while not link.count():
            assert time.monotonic() < deadline, f"no feedback for {self.name}"
            self.page.locator("#refresh_assignments_list").click()
            button = self.page.get_by_role("button", name="Fetch Feedback")
            button.click()
            self.page.wait_for_timeout(1000)  # the list gives no sign while it loads
        return link.last

    def read_feedback(self, notebook: str) -> FrameLocator:
        """Open a feedback page in JupyterLab; return the frame that shows it."""
        self.fetch_feedback().click()
        item = self.page.locator(".jp-DirListing-item", has_text=notebook)
        item.dblclick()
        frame = self.page.frame_locator("iframe[sandbox]").last
        frame.locator("h1").first.wait_for()
        return frame

    @property
    def course(self) -> str:
        """Name of the course in which this user is a student or an instructor."""
        return next(c.name for c in self.hub.courses if self.name in (*c.students, *c.instructors))


def answers(hub: Demonstration, course: str) -> list[dict[str, object]]:
    """The answers that the service of a course has given to attempts."""
    return answers_in(hub.root(course))


def answers_in(root: Path) -> list[dict[str, object]]:
    """The answers to attempts in the records of a course root."""
    folder = root / ".autograder" / "hub" / "answers"
    return [json.loads(path.read_text("utf-8")) for path in folder.glob("*/*.json")]


def assert_gone(names: list[str], uids: set[int]) -> None:
    """Assert that no account, group or process is left."""
    assert not {entry.pw_name for entry in pwd.getpwall()} & set(names)
    assert not [g.gr_name for g in grp.getgrall() if set(g.gr_mem) & set(names)]
    owners = set()
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            owners.add(path.stat().st_uid)
    assert not owners & uids
