"""Feedback on hostile work, opened in a real browser: it runs nothing and asks for nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import pytest
from hostile import ATTACKS, FILTERS, hand_in
from submissions import ASSIGNMENT, NOTEBOOKS, CourseCopy, solution_cells

sync_api = pytest.importorskip("playwright.sync_api")
# nbgrader's own page loads its scripts from there.
ALLOWED = ("https://cdnjs.cloudflare.com/ajax/libs/",)
STUDENTS = ("shows-html", "shows-html-solved")


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not here")
    arguments = """--no-sandbox --disable-gpu --disable-background-networking
        --disable-component-update --disable-sync --no-first-run""".split()
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield started
        started.close()


@pytest.fixture(scope="module")
def course(course_copy: Callable[[], CourseCopy]) -> CourseCopy:
    course = course_copy()
    for name in NOTEBOOKS[1:]:
        for folder in ("source", "release"):
            (course.root / folder / ASSIGNMENT / f"{name}.ipynb").unlink()
    course.succeed("nbgrader", "generate_assignment", ASSIGNMENT, "--force")
    for student in STUDENTS:
        attack = ATTACKS[student]
        done = solution_cells(FILTERS) if attack.solved else []
        hand_in(course._submit(student, {FILTERS: done}), attack, {})
    course.succeed("autograder", "grade", ASSIGNMENT)
    course.succeed("nbgrader", "generate_feedback", ASSIGNMENT)
    return course


@pytest.mark.parametrize("student", STUDENTS)
def test_a_hostile_page_runs_and_loads_nothing(
    browser: object, course: CourseCopy, student: str
) -> None:
    path = course.root / "feedback" / student / ASSIGNMENT / f"{FILTERS}.html"
    page = browser.new_page()  # type: ignore[attr-defined]
    asked: list[str] = []
    spoken: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: (spoken.append(dialog.message), dialog.dismiss()))
    page.route(
        "**/*",
        lambda route: route.continue_() if route.request.url == path.as_uri() else route.abort(),
    )
    page.goto(path.as_uri(), wait_until="load")
    links = page.eval_on_selector_all("a[href]", "all => all.map(a => a.href)")
    # A student may link to a page; nobody goes there who does not click, and nothing runs here.
    schemes = ("http://", "https://", f"{path.as_uri()}#")
    assert [url for url in links if not url.startswith(schemes)] == []
    handlers = page.evaluate(
        """() => [...document.querySelectorAll("*")].flatMap(
            e => [...e.attributes].filter(a => a.name.startsWith("on")).map(a => a.name))"""
    )
    assert handlers == []
    for selector in ("iframe", "object", "embed", "form", "base", "video", "svg"):
        assert page.locator(f".cell {selector}, #notebook {selector}").count() == 0, selector
    # Formulas are typeset, and only that.
    inside = "[href], [style], style, img, mglyph, annotation-xml, mtext *"
    assert page.locator("math").locator(inside).count() == 0
    for place in page.locator("#notebook").all():
        place.hover(force=True, position={"x": 1, "y": 1})
    page.wait_for_load_state("networkidle")
    loaded = [url for url in asked if not url.startswith(("data:", *ALLOWED))]
    assert loaded == [path.as_uri()]
    assert spoken == []
    assert "owned" not in page.title()
    assert "fetch(" in page.inner_text("body")  # what was written is shown, as text
    page.close()
