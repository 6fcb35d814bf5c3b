"""Feedback in a real browser: hostile work runs no code, and the page is accessible."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Literal

import pytest
from playwright.sync_api import Browser, Dialog, expect, sync_playwright

from support.hostile import ATTACKS, FILTERS, hand_in
from support.people import barriers
from support.submissions import ASSIGNMENT, CourseCopy, solution_cells

STUDENTS = ("shows-html", "shows-html-solved")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not here")
    arguments = """--no-sandbox --disable-gpu --disable-background-networking
        --disable-component-update --disable-sync --no-first-run""".split()
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield started
        started.close()


@pytest.fixture(scope="module")
def course(course_copy: Callable[[], CourseCopy]) -> CourseCopy:
    course = course_copy()
    course.keep_first_notebook()
    for student in STUDENTS:
        attack = ATTACKS[student]
        done = solution_cells(FILTERS) if attack.solved else []
        hand_in(course._submit(student, {FILTERS: done}), attack, {})
    course.succeed("autograder", "grade", ASSIGNMENT)
    course.succeed("nbgrader", "generate_feedback", ASSIGNMENT)
    return course


@pytest.mark.parametrize("student", STUDENTS)
def test_a_hostile_page_runs_and_loads_nothing(
    browser: Browser, course: CourseCopy, student: str
) -> None:
    path = course.root / "feedback" / student / ASSIGNMENT / f"{FILTERS}.html"
    page = browser.new_page()
    asked: list[str] = []
    spoken: list[str] = []
    page.on("request", lambda request: asked.append(request.url))

    def dismiss(dialog: Dialog) -> None:
        spoken.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", dismiss)
    page.route(
        "**/*",
        lambda route: route.continue_() if route.request.url == path.as_uri() else route.abort(),
    )
    page.goto(path.as_uri(), wait_until="load")
    links = page.eval_on_selector_all("a[href]", "all => all.map(a => a.href)")
    # The course's notebook has no links, and a student cannot add any.
    assert [url for url in links if not url.startswith(f"{path.as_uri()}#")] == []
    handlers = page.evaluate(
        """() => [...document.querySelectorAll("*")].flatMap(
            e => [...e.attributes].filter(a => a.name.startsWith("on")).map(a => a.name))"""
    )
    assert handlers == []
    for selector in ("iframe", "object", "embed", "form", "base", "video", "svg"):
        assert page.locator(f".cell {selector}, #notebook {selector}").count() == 0, selector
    # Formulas are typeset and contain nothing active.
    inside = "[href], [style], style, img, mglyph, annotation-xml, mtext *"
    assert page.locator("math").locator(inside).count() == 0
    for place in page.locator("#notebook").all():
        place.hover(force=True, position={"x": 1, "y": 1})
    page.wait_for_load_state("networkidle")
    loaded = [url for url in asked if not url.startswith("data:")]
    assert loaded == [path.as_uri()]
    assert spoken == []
    assert "owned" not in page.title()
    assert "fetch(" in page.inner_text("body")  # the code is shown as text
    page.close()


# -- accessibility -------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1280, 375])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("student", STUDENTS)
def test_everybody_can_read_the_page(
    browser: Browser, course: CourseCopy, student: str, scheme: Literal["light", "dark"], width: int
) -> None:
    path = course.root / "feedback" / student / ASSIGNMENT / f"{FILTERS}.html"
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.goto(path.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert barriers(page) == []
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) < 200) == (scheme == "dark")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.close()


def test_each_row_of_the_list_leads_to_its_cell(browser: Browser, course: CourseCopy) -> None:
    path = course.root / "feedback" / STUDENTS[1] / ASSIGNMENT / f"{FILTERS}.html"
    page = browser.new_page()
    page.goto(path.as_uri())
    rows = page.locator("#toc tbody a")
    assert rows.count() == len(solution_cells(FILTERS))
    for number in range(rows.count()):
        rows.nth(number).click()
        target = page.locator(":target")
        expect(target).to_be_in_viewport()
        assert target.locator(".head strong").inner_text() == rows.nth(number).inner_text()
        target.get_by_role("link", name="to the top").click()
        expect(page.locator("h1")).to_be_in_viewport()
    page.close()


def test_paper_is_white_and_has_every_failed_check(browser: Browser, course: CourseCopy) -> None:
    path = course.root / "feedback" / STUDENTS[0] / ASSIGNMENT / f"{FILTERS}.html"
    page = browser.new_page(color_scheme="dark")
    page.goto(path.as_uri())
    page.emulate_media(media="print", color_scheme="dark")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == "rgb(255, 255, 255)"
    failed = page.locator(".checks .bad")
    assert failed.count() > 10
    assert all(check.is_visible() for check in failed.all())
    page.close()
