"""Renders a notebook as an HTML page, in a separate process that has run no student code.

A stranger's text may cost the parsers any amount of time, and the HTML cleaner too, since some of
their patterns take quadratic time.  Each text therefore has a budget of processor time for both,
and is shown as plain text if it exceeds that; the process as a whole is limited from outside.  The
page loads nothing: formulas are MathML, which browsers typeset.
"""

from __future__ import annotations

import functools
import html
import json
import re
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn
from xml.etree import ElementTree

import jinja2
import nbformat
import numpy as np
from latex2mathml.converter import convert_to_element
from nbconvert.exporters import HTMLExporter
from nbconvert.filters import ansi2html, clean_html, strip_ansi
from nbconvert.filters.highlight import Highlight2HTML
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

from autograder import wire

TEXT_SECONDS = 1.0  # processor time for one text
PAGE_SECONDS = 4.0  # and for all texts of a page
PLAIN_LIMIT = 20_000  # characters of a text that are shown as plain text
LATEX_LIMIT = 2000  # characters of one formula
FORMULAS_LIMIT = 10_000  # of one page
AS_WRITTEN = "Shown as plain text: it would take too long to lay it out."
# The elements and attributes of MathML Core; links, styles and everything else are left out.
_ELEMENTS = frozenset(
    """
    math merror mfrac mi mmultiscripts mn mo mover mpadded mphantom mprescripts mroot mrow ms
    mspace msqrt mstyle msub msubsup msup mtable mtd mtext mtr munder munderover
""".split()
)
_ATTRIBUTES = frozenset(
    """
    accent accentunder columnalign columnspan depth dir display displaystyle fence form height
    largeop linethickness lspace mathvariant maxsize minsize movablelimits rowspan rspace
    scriptlevel separator stretchy symmetric voffset width
""".split()
)
# A formula's placeholder in the page until all student HTML has been cleaned.
_PLACE = re.compile(r'<span class="formula-(inline|block)">([^<]*)</span>')


class _TooLong(BaseException):
    """A text's time is over; a BaseException, so that no library handles it."""


class _Laid(str):
    """HTML made from a text; `plain` makes HTML that shows the text as it was written."""

    plain: Callable[[], str]

    def __new__(cls, made: str, plain: Callable[[], str]) -> _Laid:
        laid = super().__new__(cls, made)
        laid.plain = plain
        return laid


class _Plain(str):
    """HTML that shows a text as it was written: nothing in it needs cleaning."""


class Budget:
    """Processor time for the texts of one page.

    seconds: for all of them; with 0, every text is shown as plain text.
    """

    def __init__(self, seconds: float = PAGE_SECONDS) -> None:
        self.left = seconds
        self._formulas = FORMULAS_LIMIT
        signal.signal(signal.SIGPROF, self._over)

    def _over(self, number: int, frame: FrameType | None) -> NoReturn:
        raise _TooLong

    def within(self, make: Callable[[], str], plain: Callable[[], str]) -> str:
        """The result of `make`, or of `plain` when the text's time runs out first."""
        started, formulas = time.process_time(), self._formulas
        try:
            if self.left <= 0:
                raise _TooLong
            # Repeat: a library may swallow the first exception where none can be raised.
            signal.setitimer(signal.ITIMER_PROF, min(TEXT_SECONDS, self.left), 0.1)
            try:
                made = make()
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
        except (_TooLong, RecursionError):
            self._formulas = formulas  # none of this text's is shown
            made = plain()
        self.left -= time.process_time() - started
        return made

    def count_formula(self) -> None:
        """Count one formula of the text that is laid out; ends that if there are too many."""
        if not self._formulas:
            raise _TooLong
        self._formulas -= 1


def as_written(text: str) -> str:
    """A text as HTML that looks like the text, up to `PLAIN_LIMIT` characters."""
    rest = "" if len(text) <= PLAIN_LIMIT else "\n… (the rest is left out)"
    return f"{html.escape(text[:PLAIN_LIMIT])}{rest}"


def _shown_as_written(text: str) -> _Plain:
    return _Plain(f"<p><em>{AS_WRITTEN}</em></p>\n<pre>{as_written(text)}</pre>")


def formula(latex: str, display: str) -> str:
    """MathML of a formula, `display` being "inline" or "block"; its source if that fails."""
    source = f"<code>{html.escape(latex)}</code>"
    if len(latex) > LATEX_LIMIT:
        return source
    try:
        math = convert_to_element(latex, display=display)
    except Exception:  # a student's formula may be anything, and the library raises many kinds
        return source
    for element in math.iter():
        if element.tag not in _ELEMENTS:
            return source
        for name in set(element.attrib) - _ATTRIBUTES:
            del element.attrib[name]
        # Undo the library's character references; ElementTree then escapes all markup in the text.
        element.text = html.unescape(element.text or "") or None
        element.tail = html.unescape(element.tail or "") or None
    math.set("xmlns", "http://www.w3.org/1998/Math/MathML")
    return ElementTree.tostring(math, encoding="unicode")


class _Markdown(IPythonRenderer):  # type: ignore[misc]
    """Marks formulas; they are converted when the page is complete."""

    def __init__(self, budget: Budget, **settings: Any) -> None:
        super().__init__(**settings)
        self._budget = budget

    def inline_math(self, body: str) -> str:
        return self._place("inline", body)

    def block_math(self, body: str) -> str:
        return self._place("block", body)

    def latex_environment(self, name: str, body: str) -> str:
        return self._place("block", f"\\begin{{{name}}}{body}\\end{{{name}}}")

    def _place(self, display: str, latex: str) -> str:
        self._budget.count_formula()
        return f'<span class="formula-{display}">{html.escape(latex, quote=False)}</span>'


class Page(HTMLExporter):  # type: ignore[misc]
    """nbconvert's HTML, with each text within a budget and formulas as MathML."""

    def __init__(self, budget: Budget, **settings: Any) -> None:
        self._budget = budget
        super().__init__(**settings)

    @jinja2.pass_context
    def markdown2html(self, context: jinja2.runtime.Context, source: str) -> str:
        """Render Markdown as nbconvert does, except for formulas."""
        renderer = _Markdown(
            self._budget,
            escape=False,
            attachments=context.get("cell", {}).get("attachments", {}),
            anchor_link_text=self.anchor_link_text,
            exclude_anchor_links=self.exclude_anchor_links,
        )

        def plain() -> str:
            return _shown_as_written(source)

        return self._budget.within(
            lambda: _Laid(MarkdownWithMath(renderer=renderer).render(source), plain), plain
        )

    def _highlighted(self, highlight: Highlight2HTML, source: str, metadata: Any = None) -> str:
        def plain() -> str:
            return _Plain(f'<div class="highlight"><pre>{as_written(source)}</pre></div>')

        return self._budget.within(
            lambda: _Laid(highlight(source, metadata=metadata), plain), plain
        )

    def _cleaned(self, found: str | bytes) -> str:
        """Clean HTML as nbconvert does; templates ask for it where it is needed."""
        text = found.decode() if isinstance(found, bytes) else found  # a template encodes SVG
        if isinstance(text, _Plain):
            return text
        plain = text.plain if isinstance(text, _Laid) else lambda: _shown_as_written(text)
        return self._budget.within(lambda: str(clean_html(text)), plain)

    def _coloured(self, text: str) -> str:
        return self._budget.within(
            lambda: str(ansi2html(text)), lambda: as_written(strip_ansi(text))
        )

    def from_notebook_node(
        self, nb: Any, resources: dict[str, Any] | None = None, **kw: Any
    ) -> tuple[str, dict[str, Any]]:
        """Convert a notebook to a page."""
        language = nb.metadata.get("language_info", {})
        lexer = language.get("pygments_lexer", language.get("name"))
        highlight = Highlight2HTML(pygments_lexer=lexer, parent=self)
        self.filters = {
            "highlight_code": functools.partial(self._highlighted, highlight),
            "ansi2html": self._coloured,
            "clean_html": self._cleaned,
            # nbconvert's filter fixes links of obsolete notebooks, in quadratic time.
            "strip_files_prefix": lambda text: text,
        }
        page, resources = super().from_notebook_node(nb, resources, **kw)
        return _PLACE.sub(self._formula, page, count=FORMULAS_LIMIT), resources

    def _formula(self, place: re.Match[str]) -> str:
        latex = html.unescape(place[2])
        return self._budget.within(
            lambda: formula(latex, place[1]), lambda: f"<code>{as_written(latex)}</code>"
        )


def prepare_forks() -> None:
    """Render a small page: half of the time one takes goes into building patterns and parsers."""
    text = "# a\n*b* `c` [d](e) $x^2$\n\n- f\n\n```python\ng\n```\n"
    cells = [nbformat.v4.new_markdown_cell(text), nbformat.v4.new_code_cell("x = 1")]
    page = Page(Budget(), sanitize_html=True, template_name="classic")
    page.from_notebook_node(nbformat.v4.new_notebook(cells=cells))


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """The answer to ``{"op": "page", "data": JSON}``: ``{"page": its text in UTF-8}``.

    The JSON is ``{"notebook", "resources", "settings" (nbconvert's), "templates" (folders that take
    precedence), "seconds" (of the budget)}``.
    """
    identity = question.get("id")
    try:
        asked = json.loads(question["data"].tobytes())
        loaders = [jinja2.FileSystemLoader(asked["templates"])]
        page = Page(Budget(asked["seconds"]), extra_loaders=loaders, **asked["settings"])
        text, _ = page.from_notebook_node(nbformat.from_dict(asked["notebook"]), asked["resources"])
        encoded = text.encode("utf-8", "replace")
        return {"id": identity, "value": {"page": np.frombuffer(encoded, np.uint8)}}
    except MemoryError:
        return {"id": identity, "error": "memory", "message": "it takes too much memory"}
    except Exception as error:
        detail = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        return {"id": identity, "error": "raised", "message": detail}


def serve(connection: socket.socket) -> None:
    """Answer one question."""
    question = wire.receive(connection)
    wire.send(connection, answer(question))
