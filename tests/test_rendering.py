"""Pages are rendered in the sandbox, within limits; student text never becomes a live link."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import nbformat
import pytest
from nbconvert.filters import markdown_mistune
from nbformat import NotebookNode

from autograder.engine.notebook import restore
from autograder.errors import UserError
from autograder.kernel import page as kernel_page
from autograder.kernel.child import Limits
from autograder.kernel.page import AS_WRITTEN, FORMULAS_LIMIT, PAGE_SECONDS, PLAIN_LIMIT, Budget
from autograder.record import rendering
from autograder.record.feedback import FeedbackExporter
from autograder.record.pages import PageExporter
from autograder.record.rendering import NotRendered, Renderer
from support.templates import settings_of

pytestmark = pytest.mark.kernel

TEMPLATES = ("feedback", "formgrade", "classic")
RELEASE = nbformat.v4.new_notebook(
    cells=[
        nbformat.v4.new_markdown_cell("See [the course](https://course.example/) and $x^2$."),
        nbformat.v4.new_markdown_cell(
            "Write",
            metadata={"nbgrader": {"grade_id": "why", "solution": True, "grade": True}},
        ),
    ]
)


def page_of(template: str, *texts: str, answer: str = "mine", **config: Any) -> str:
    """The page of a submission with these Markdown cells, and an answer to the question."""
    own = [nbformat.v4.new_markdown_cell(text) for text in texts]
    work: NotebookNode = nbformat.from_dict(RELEASE)
    work.cells = [*work.cells, *own]
    work.cells[1].source = answer
    notebook = restore(work, RELEASE)
    for cell in notebook.cells:
        if "nbgrader" in cell.metadata:
            cell.metadata.nbgrader |= {"score": 1.0, "points": 2.0, "comment": None}
    marks = {"notebook": "n", "score": 1, "max_score": 2, "late_penalty": 0}
    marks |= {"db_url": "sqlite:///not-for-the-page"}
    resources = {"nbgrader": marks, "base_url": "/services/c", "index": 0, "total": 1, **config}
    exporter = FeedbackExporter if template == "feedback" else PageExporter
    return str(exporter(config=settings_of(template)).from_notebook_node(notebook, resources)[0])


class Links(HTMLParser):
    """Collects a page's links and resources, and the text of its body."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.text = ""
        self.feed(page[page.index("<body") :])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [str(v) for k, v in attrs if k in ("href", "src", "action", "formaction")]

    def handle_data(self, data: str) -> None:
        self.text += data


LIVE = [
    "https://evil.example/a",
    "http://evil.example",
    "HTTP://evil.example",
    "ftp://evil.example/x",
    "//evil.example",
    "www.evil.example",
    "WWW.evil.example",
    "me@evil.example",
    "mailto:me@evil.example",
    "xmpp:me@evil.example",
    "<https://evil.example/b>",
    "<me@evil.example>",
    "<1+2@evil.example>",
    "<mailto:me@evil.example>",
    "<javascript:alert(1)>",
    "[a](https://evil.example/c)",
    "[a](<https://evil.example/c> 'title')",
    "[a]( javascript:alert(1))",
    "[a\\](https://evil.example/d)",
    "[a][b]\n\n[b]: https://evil.example/e",
    "[b]\n\n[b]: https://evil.example/e",
    "[b]\n\n[b]:\nhttps://evil.example/e",
    "[b][]\n\n  [b]: <https://evil.example/e>",
    "![a](https://evil.example/f.png)",
    "![a][b]\n\n[b]: https://evil.example/f.png",
    "[![a](https://evil.example/g.png)](https://evil.example/h)",
    "<a href='https://evil.example/i'>a</a>",
    "<a\nhref=https://evil.example/i>a</a>",
    "<form action=https://evil.example/j><button formaction=//evil.example>",
    "# https://evil.example/k",
    "| a |\n|---|\n| https://evil.example/l |",
    "> - https://evil.example/m",
    "term\n: https://evil.example/n",
    "[^1]\n\n[^1]: https://evil.example/o",
    "`code` https://evil.example/p",
    "~~https://evil.example/q~~",
    "http&#58;//evil.example",
    "$x$ https://evil.example/r",
    "\\https://evil.example/s",
]


@pytest.mark.parametrize("template", TEMPLATES)
def test_nothing_that_a_student_writes_is_a_live_link(template: str) -> None:
    own = Links(page_of(template)).found
    assert "https://course.example/" in own  # the course's links are kept
    page = page_of(template, *LIVE, answer="\n\n".join(LIVE))
    links = Links(page)
    added = [url for url in links.found if url not in own]
    assert [url for url in added if not url.startswith("#")] == []
    assert links.text.replace("\u200b", "").count("evil.example/a") == 2  # it is there as text


@pytest.mark.parametrize("text", LIVE)
def test_no_other_reader_of_markdown_makes_a_link_either(text: str) -> None:
    """The most liberal readers: all of mistune's rules, and GitHub's for bare addresses."""
    work: NotebookNode = nbformat.from_dict(RELEASE)
    work.cells.append(nbformat.v4.new_markdown_cell(text))
    defused = restore(work, RELEASE).cells[-1].source
    assert defused.replace("\u200b", "") == text
    made = markdown_mistune.markdown2html_mistune(defused)
    assert not re.search(r"<(a|img|form)\b(?![^>]*class=.anchor-link)", made)
    assert not re.search(r"(?i)://|www\.\w|[\w.+-]@\w", defused)


# -- bounds --------------------------------------------------------------------------------------

# Without limits, each takes minutes, or more memory or recursion depth than there is.
COSTLY = {
    "brackets": "[" * 2_000_000,
    "parentheses": "\\\\(" * 130_000,
    "dollars": "$$" * 200_000,
    "quotations": "> " * 200_000,
    "formulas": "$x$ " * 30_000,
    "a long formula": "$" + "{" * 1900 + "}" * 1900 + "$",
    "code": "`a" * 200_000,
    "spaces": " " * 1_000_000,
}


@pytest.mark.parametrize("name", COSTLY)
def test_a_costly_text_takes_nothing_from_the_rest_of_the_page(name: str) -> None:
    page = page_of("feedback", COSTLY[name], answer="*mine*")
    assert "<em>mine</em>" in page
    assert "<math" in page
    assert page.rstrip().endswith("</html>")


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_text_that_takes_too_long_is_shown_as_it_was_written(template: str) -> None:
    page = page_of(template, answer="[" * 2_000_000)
    assert AS_WRITTEN in page
    assert f"<pre>{'[' * PLAIN_LIMIT}\n… (the rest is left out)</pre>" in page


def test_texts_share_the_budget_of_their_page() -> None:
    page = page_of("feedback", *["[" * 2_000_000] * 20, "<b>*last*</b>")
    assert page.count(AS_WRITTEN) == 21
    assert "&lt;\u200bb&gt;*last*&lt;\u200b/b&gt;" in page


def test_a_text_is_cleaned_within_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    def clean_for_ever(text: str) -> str:
        while True:
            pass

    shown = {"text/html": "<i>shown</i>"}
    code = nbformat.v4.new_code_cell("written = 1")
    code.outputs = [nbformat.v4.new_output("display_data", shown)]
    text = nbformat.v4.new_markdown_cell("*laid out*")
    raw = nbformat.v4.new_raw_cell("<b>raw</b>")
    raw.metadata["raw_mimetype"] = "text/html"
    monkeypatch.setattr(kernel_page, "clean_html", clean_for_ever)
    page = kernel_page.Page(Budget(2), sanitize_html=True, template_name="classic")
    made, _ = page.from_notebook_node(nbformat.v4.new_notebook(cells=[text, raw, code]))
    for written in ("*laid out*", "&lt;b&gt;raw", "written = 1", "&lt;i&gt;shown"):
        assert f"<pre>{written}" in made


def test_the_formulas_of_a_page_are_counted() -> None:
    many = "$x$ " * (FORMULAS_LIMIT - 100)
    page = page_of("feedback", many, "$y$ " * 200, "$z$ *last*")
    assert page.count(AS_WRITTEN) == 1  # the text with one too many, and none behind it
    assert page.count("<mi>y</mi>") == 0
    assert "<em>last</em>" in page


def test_headings_and_paragraphs_of_a_feedback_page_are_laid_out() -> None:
    page = page_of("feedback", "## Title\n\nA *paragraph*.")
    assert re.search(r"<p>A <em>paragraph</em>", page)
    assert "&lt;" not in page[page.index("Title") : page.index("paragraph")]


def test_without_a_budget_nothing_is_laid_out() -> None:
    def never() -> str:
        raise AssertionError

    assert Budget(0).within(never, lambda: "plain") == "plain"
    assert Budget(1).within(lambda: "made", never) == "made"


def test_a_library_that_drops_the_end_of_time_is_told_again() -> None:
    def deaf() -> str:
        while True:
            try:
                while True:
                    pass
            except BaseException:
                caught.append(1)
                if len(caught) > 2:
                    raise

    caught: list[int] = []
    assert Budget().within(deaf, lambda: "plain") == "plain"


def test_a_page_that_goes_over_its_limits_is_plain_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rendering, "LIMITS", Limits(memory=0))
    page = page_of("feedback", "<script>steal()</script>" + "[" * 3_000_000, answer="mine")
    assert "This page is shown as plain text: it " in page
    assert re.search("memory|ended what renders it", page)
    assert "1 of 2 points" in page
    assert "<pre>mine</pre>" in page
    assert "<script" not in page
    assert "steal()" in page


def test_processor_time_is_bounded_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "LIMITS", Limits(cpu=0))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("[" * 2_000_000)])
    asked = {"notebook": notebook, "resources": {}, "settings": {}, "templates": []}
    with pytest.raises(NotRendered, match="used more than 0 s of processor time"):
        rendering.renderer().render({**asked, "seconds": PAGE_SECONDS}, ())


def test_the_second_try_lays_out_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    render = Renderer.render

    def first_fails(self: Renderer, question: dict[str, Any], shared: tuple[str, ...]) -> str:
        asked.append(question["seconds"])
        if len(asked) == 1:
            raise NotRendered("used too much of something")
        return render(self, question, shared)

    monkeypatch.setattr(Renderer, "render", first_fails)
    page = page_of("formgrade", answer="*mine*")
    assert asked == [PAGE_SECONDS, 0.0]
    assert "<pre>*mine*</pre>" in page
    assert 'id="why"' in page  # manual grading is still possible


def test_where_nothing_can_be_confined_pages_are_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(*_: object) -> None:
        raise UserError("this machine cannot confine student code")

    monkeypatch.setattr(rendering, "sandbox", cannot)
    monkeypatch.setattr(rendering, "_renderers", {})
    page = page_of("feedback", answer="*mine*")
    assert "This page is shown as plain text" in page
    assert "this machine cannot confine student code" in page
    assert "<pre>*mine*</pre>" in page
    for made in rendering._renderers.values():
        made.close()


def test_no_text_is_laid_out_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> str:
        raise AssertionError

    page_of("feedback")  # starts the renderer before anything is patched
    for name in ("render", "__call__"):
        monkeypatch.setattr(markdown_mistune.MarkdownWithMath, name, never)
    assert "<em>mine</em>" in page_of("feedback", answer="*mine*")


def test_a_page_needs_nothing_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def render(_: Renderer, *found: object) -> str:
        asked.append(found)
        return ""

    monkeypatch.setattr(Renderer, "render", render)
    page_of("feedback", function=print)
    assert "not-for-the-page" not in str(asked)
    assert [p for p in asked[0][1] if p.endswith("share/jupyter")] == []


def test_the_renderer_is_started_again_after_its_end() -> None:
    renderer = Renderer()
    try:
        asked = {"notebook": RELEASE, "resources": {}, "settings": {}, "templates": []}
        assert "<math" in renderer.render({**asked, "seconds": 1}, ())
        warm = renderer._warm
        assert warm is not None
        warm._process.kill()
        warm._process.wait()
        assert "<math" in renderer.render({**asked, "seconds": 1}, ())
    finally:
        renderer.close()
