"""Takes the screenshots in docs/hub.md from a demonstration Hub: `python docs/make_screenshots.py`.

Needs root and Chromium, like the tests of the Hub.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from playwright.sync_api import FloatRect, expect  # noqa: E402

from autograder.course import Course  # noqa: E402
from autograder.data import mnist  # noqa: E402
from autograder.demo import HALF  # noqa: E402
from autograder.engine.notebook import grade_id, is_solution, solved  # noqa: E402
from autograder.release import Training  # noqa: E402
from deploy.__main__ import COURSE  # noqa: E402
from deploy.demo import ASSIGNMENT, Demonstration  # noqa: E402
from support.people import Person, answers, browser  # noqa: E402
from support.submissions import source  # noqa: E402
from support.waiting import until  # noqa: E402

DOCS = ROOT / "docs"


def written(notebook: str, count: int) -> dict[str, str]:
    """The sources of the first `count` solution cells, with one mistake."""
    cells = [cell for cell in solved(source(notebook)).cells if is_solution(cell)]
    return {str(grade_id(c)): c.source.replace("/ 23.0", "/ 25.0") for c in cells[:count]}


def hand_in(student: Person, executed: Path, parts: dict[str, int]) -> None:
    """Fetch, fill in and submit the assignment as the student."""
    student.open_lab()
    student.open_list()
    student.fetch()
    for notebook, count in parts.items():
        student.fill(notebook, written(notebook, count))
    folder = student.hub.home(student.name) / COURSE.name / ASSIGNMENT
    for path in (executed / "checkpoint", *executed.glob("mdc_session-4000.*")):
        shutil.copy(path, folder)
        shutil.chown(folder / path.name, student.name, student.name)
    student.submit()


def main() -> None:
    """Let three students submit, and take screenshots of their pages and the instructor's."""
    data = {"MNIST_DIR": mnist.fetch()}
    executed = Training(Course.at(ROOT), ASSIGNMENT).run(data, lambda notebook, line: None)
    amounts = (
        dict.fromkeys(HALF, 99),
        HALF,
        {name: count // 2 for name, count in HALF.items()},
    )
    with Demonstration([COURSE]) as hub, browser() as chromium:
        people = [Person(hub, chromium, name, 1280, 800) for name in COURSE.students]
        for person, parts in zip(people, amounts, strict=True):
            hand_in(person, executed, parts)
        until(lambda: len(answers(hub, COURSE.name)) == len(people), "all answers", 900)
        ada, ben, _ = people
        ida = Person(hub, chromium, COURSE.instructors[0], 1280, 800)
        photograph_student(ada, ben)
        photograph_dashboard(ida)
        photograph_formgrader(ida)


def photograph_student(lister: Person, reader: Person) -> None:
    """Capture the list of assignments with feedback, and a feedback page with a hint."""
    lister.fetch_feedback()
    lister.page.screenshot(path=DOCS / "hub-assignments.png")
    page = reader.read_feedback("1-orenist-filter")
    page.get_by_text("Hint:").first.scroll_into_view_if_needed()
    reader.page.screenshot(path=DOCS / "hub-feedback.png")


def photograph_dashboard(instructor: Person) -> None:
    """Capture the autograder's page."""
    instructor.get(f"/services/{instructor.course}-autograder/")
    instructor.page.locator("table.students").wait_for()
    top = FloatRect(x=0, y=0, width=1280, height=1400)
    instructor.page.screenshot(path=DOCS / "hub-dashboard.png", full_page=True, clip=top)


def photograph_formgrader(instructor: Person) -> None:
    """Capture the written question in formgrader."""
    instructor.get(
        f"/services/{instructor.course}/formgrader/gradebook/{ASSIGNMENT}/5-mnist-filters"
    )
    instructor.page.locator("#main-table a[href*=submissions]").first.click()
    instructor.page.wait_for_load_state("networkidle")  # the page first scrolls by itself
    question = instructor.page.locator("input#mdr-08-background")
    question.focus()
    expect(question).to_be_in_viewport()
    instructor.page.wait_for_timeout(1000)  # the scrolling is animated
    instructor.page.screenshot(path=DOCS / "hub-formgrader.png")


if __name__ == "__main__":
    main()
