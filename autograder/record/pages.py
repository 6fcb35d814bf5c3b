"""Notebooks as self-contained HTML pages, rendered in the sandbox.

Pages are opened from disk, in JupyterLab's viewer (which runs no scripts) and in formgrader, also
on Hubs without internet access.  nbconvert and its parsers run in another process (`kernel.page`),
because a student's text can take them any amount of time; this module only prepares their input.
"""

from __future__ import annotations

import html
import os
from pathlib import Path
from typing import Any

from jupyter_core.paths import jupyter_path
from nbconvert.exporters import HTMLExporter
from nbconvert.exporters.exporter import Exporter
from nbformat import NotebookNode
from traitlets import List

from autograder.engine.notebook import grade_id
from autograder.kernel.page import PAGE_SECONDS, as_written
from autograder.record.rendering import NotRendered, renderer

TEMPLATES = Path(__file__).with_name("templates")
# Settings that apply in this process, or that keep their defaults in the renderer.
_ELSEWHERE = {"preprocessors", "default_preprocessors", "filters", "enabled"}

_PLAIN = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>pre {{ white-space: pre-wrap; }}</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


class PageExporter(HTMLExporter):  # type: ignore[misc]
    """nbconvert's HTML with formulas as MathML and no external resources.

    A notebook that cannot be rendered within the limits becomes a plain-text page, with a note.
    """

    default_preprocessors = List([])  # they run in the renderer

    def from_notebook_node(
        self, nb: Any, resources: dict[str, Any] | None = None, **kw: Any
    ) -> tuple[str, dict[str, Any]]:
        """Convert a notebook to a page."""
        notebook, found = Exporter.from_notebook_node(self, nb, resources, **kw)
        known = _data(found)
        known.get("nbgrader", {}).pop("db_url", None)  # may hold a password; pages do not need it
        asked = {
            "notebook": notebook,
            "resources": known,
            "settings": self._settings(),
            "templates": [str(TEMPLATES)],
        }
        # The template path includes Jupyter's own folders, which hold more than templates and are
        # not shared.  A template folder may be a link, as in an environment layered on another; the
        # sandbox has the link, so its target is shared.
        folders = [path for path in self.template_paths if path not in jupyter_path()]
        shared = tuple(map(os.path.realpath, filter(os.path.isdir, [str(TEMPLATES), *folders])))
        unconfined = bool(self.config.Autograde.get("run_student_code_unconfined", False))
        reason = ""
        for seconds in (PAGE_SECONDS, 0.0):
            try:
                page = renderer(unconfined).render({**asked, "seconds": seconds}, shared)
                return page, found
            except NotRendered as error:
                reason = str(error)
        return plain_page(notebook, found, reason), found

    def _settings(self) -> dict[str, Any]:
        """Settings of nbconvert for the page, as far as they are plain data."""
        names = {*self.trait_names(config=True), "template_file", "template_paths"}
        values = {name: getattr(self, name) for name in sorted(names - _ELSEWHERE)}
        settings: dict[str, Any] = _data(values)
        return settings


def _data(value: Any) -> Any:
    """The JSON part of a value; nbconvert adds functions, which the renderer has itself."""
    if isinstance(value, dict):
        kept = {key: _data(inner) for key, inner in value.items() if isinstance(key, str)}
        return {key: inner for key, inner in kept.items() if inner is not None}
    if isinstance(value, list | tuple | set):
        return [_data(inner) for inner in value]
    return value if isinstance(value, str | int | float | bool) else None


def plain_page(notebook: NotebookNode, resources: dict[str, Any], reason: str) -> str:
    """A page without layout: the source and text outputs of each cell, and the header's notes."""
    where = resources.get("nbgrader", resources)
    title = str(where.get("notebook", where.get("notebook_id", "notebook")))
    shown = [f"<p><strong>This page is shown as plain text: it {html.escape(reason)}.</strong></p>"]
    said = where.get("page", {})
    shown += [f"<p>{html.escape(said[key])}</p>" for key in ("note", "reason") if said.get(key)]
    if "score" in where and "max_score" in where:
        shown.append(f"<p>{where['score']:g} of {where['max_score']:g} points</p>")
    for cell in notebook.cells:
        if grade_id(cell):
            shown.append(f"<h2>{html.escape(str(grade_id(cell)))}</h2>")
        texts = [cell.source]
        for output in cell.get("outputs", []):
            texts.append(output.get("text") or output.get("data", {}).get("text/plain", ""))
        shown += [f"<pre>{as_written(text)}</pre>" for text in texts if text]
    return _PLAIN.format(title=html.escape(title), body="\n".join(shown))
