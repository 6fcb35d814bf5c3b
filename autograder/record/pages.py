"""Notebooks as HTML pages that load nothing: formulas are MathML, which browsers typeset.

A page is opened from disk, in JupyterLab's viewer (which runs no scripts) and in formgrader, on
Hubs without internet too.  A script that typesets formulas would have to be found in all of them.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jinja2
from latex2mathml.converter import convert_to_element
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

LATEX_LIMIT = 2000  # characters of one formula
# What MathML Core knows; links, styles and everything else are left out.
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
# Where a formula stands in the page until all student HTML has been cleaned.
_PLACE = re.compile(r'<span class="formula-(inline|block)">([^<]*)</span>')


def formula(latex: str, display: str) -> str:
    """MathML of a formula, `display` being "inline" or "block"; its source if that fails."""
    source = f"<code>{html.escape(latex)}</code>"
    if len(latex) > LATEX_LIMIT:
        return source
    try:
        math = convert_to_element(latex, display=display)
    except Exception:  # a student's formula may be anything, and the library's errors are many
        return source
    for element in math.iter():
        if element.tag not in _ELEMENTS:
            return source
        for name in set(element.attrib) - _ATTRIBUTES:
            del element.attrib[name]
        # The library writes characters as references, and would leave markup in a text as it is.
        element.text = html.unescape(element.text or "") or None
        element.tail = html.unescape(element.tail or "") or None
    math.set("xmlns", "http://www.w3.org/1998/Math/MathML")
    return ElementTree.tostring(math, encoding="unicode")


class _Renderer(IPythonRenderer):  # type: ignore[misc]
    """Marks formulas; they are converted when the page is complete."""

    def inline_math(self, body: str) -> str:
        return self._place("inline", body)

    def block_math(self, body: str) -> str:
        return self._place("block", body)

    def latex_environment(self, name: str, body: str) -> str:
        return self._place("block", f"\\begin{{{name}}}{body}\\end{{{name}}}")

    def _place(self, display: str, latex: str) -> str:
        return f'<span class="formula-{display}">{html.escape(latex, quote=False)}</span>'


class PageExporter(HTMLExporter):  # type: ignore[misc]
    """nbconvert's HTML, with formulas as MathML and nothing loaded from elsewhere."""

    def __init__(self, **kw: Any) -> None:
        templates = jinja2.FileSystemLoader(Path(__file__).with_name("templates"))
        super().__init__(extra_loaders=[templates], **kw)

    @jinja2.pass_context
    def markdown2html(self, context: jinja2.runtime.Context, source: str) -> str:
        """Render Markdown as nbconvert does, but for formulas."""
        renderer = _Renderer(
            escape=False,
            attachments=context.get("cell", {}).get("attachments", {}),
            embed_images=self.embed_images,
            path=context.get("resources", {}).get("metadata", {}).get("path", ""),
            anchor_link_text=self.anchor_link_text,
            exclude_anchor_links=self.exclude_anchor_links,
        )
        return str(MarkdownWithMath(renderer=renderer).render(source))

    def from_notebook_node(
        self, nb: Any, resources: dict[str, Any] | None = None, **kw: Any
    ) -> tuple[str, dict[str, Any]]:
        """Convert a notebook to a page."""
        page, resources = super().from_notebook_node(nb, resources, **kw)
        return _PLACE.sub(lambda m: formula(html.unescape(m[2]), m[1]), page), resources
