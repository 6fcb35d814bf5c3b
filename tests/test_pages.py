"""Pages of notebooks load no external resources, and their formulas contain nothing active."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import nbformat
import pytest
from traitlets.config import Config

from autograder.kernel.page import LATEX_LIMIT, formula
from autograder.record.feedback import FeedbackExporter
from autograder.record.pages import PageExporter
from support.templates import settings_of

pytestmark = pytest.mark.kernel


class Tags(HTMLParser):
    """Collects (element, attribute names) and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, set[str]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name for name, _ in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(*sources: str, sanitize: bool = True) -> str:
    """A page of Markdown cells, rendered with the course's configuration."""
    cells = [nbformat.v4.new_markdown_cell(source) for source in sources]
    exporter = PageExporter(
        config=Config({"HTMLExporter": {"sanitize_html": sanitize, "template_name": "classic"}})
    )
    return exporter.from_notebook_node(nbformat.v4.new_notebook(cells=cells))[0]


def test_a_formula_is_mathml() -> None:
    tags = Tags(formula(r"\frac{n-k}{s} + 1", "block"))
    assert [tag for tag, _ in tags.found][:3] == ["math", "mrow", "mfrac"]
    assert re.sub(r"\s", "", tags.text) == "n−ks+1"


@pytest.mark.parametrize(
    "latex",
    [
        r"\text{<script>steal()</script>}",
        r"\text{&lt;script&gt;steal()&lt;/script&gt;}",
        r"\text{&amp;lt;script&amp;gt;steal()}",
        r"\href{javascript:steal()}{x}",
        r"\style{background:url(//elsewhere)}{x}",
        r'\text{<img src=x onerror="steal()">}',
        r"\class{a}{\id{b}{x}} \color{red}{x}",
        "<script>steal()</script>",
    ],
)
def test_a_formula_is_nothing_but_a_formula(latex: str) -> None:
    for tag, attributes in Tags(formula(latex, "inline")).found:
        assert tag.startswith("m") or tag == "code"
        assert not attributes & {"href", "src", "style", "class", "id", "onerror"}


@pytest.mark.parametrize(
    "latex", ["{" * 900, r"\left(", "x" * (LATEX_LIMIT + 1), "<b>" + "{" * 900]
)
def test_what_is_no_formula_is_shown_as_written(latex: str) -> None:
    tags = Tags(formula(latex, "inline"))
    assert tags.found == [("code", set())]
    assert tags.text == latex


@pytest.mark.parametrize("sanitize", [True, False])
def test_markdown_keeps_all_kinds_of_formulas(sanitize: bool) -> None:
    page = page_of("$a$ and\n\n$$b$$\n\n\\begin{align}c\\end{align}", "`$d$`", sanitize=sanitize)
    tags = [tag for tag, _ in Tags(page).found]
    assert tags.count("math") == 3
    assert "$d$" in page
    assert not re.search(r"\$[ab]", Tags(page).text)


def test_a_student_who_writes_the_places_of_formulas_gets_formulas() -> None:
    hostile = r'<span class="formula-inline">\href{javascript:steal()}{x}<script>y</script></span>'
    page = page_of(hostile, r"$\text{<script>steal()</script>}$")
    body = page[page.index("<body") :]
    assert "script" not in {tag for tag, _ in Tags(body).found}
    assert "href" not in {name for _, names in Tags(body).found for name in names}


@pytest.mark.parametrize("template", ["feedback", "formgrade"])
def test_a_page_names_no_other_machine(template: str) -> None:
    """The templates load nothing from elsewhere; ordinary links are allowed."""
    cell = nbformat.v4.new_code_cell("x = 1", metadata={"nbgrader": {"grade": False}})
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("$k$"), cell])
    marks = {"notebook": "n", "score": 1, "max_score": 1, "late_penalty": 0}
    resources = {"nbgrader": marks, "base_url": "/services/c", "index": 0, "total": 1}
    exporter = FeedbackExporter if template == "feedback" else PageExporter
    page, _ = exporter(config=settings_of(template)).from_notebook_node(notebook, resources)
    assert "<math" in page
    loaded = re.findall(r"""(?:src=|<link[^>]*href=|url\(|@import\s)["']?([^"')\s>]+)""", page)
    assert loaded or template == "feedback"
    assert [url for url in loaded if re.match(r"(https?:)?//", url)] == []
    assert "cdnjs" not in page
