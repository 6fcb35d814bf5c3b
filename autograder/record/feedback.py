"""The feedback page: nbgrader's, with a table of contents that names the grade cells."""

from __future__ import annotations

from traitlets import default

from autograder.record.pages import PageExporter


class FeedbackExporter(PageExporter):
    """Renders `feedback.html.j2`, which extends nbgrader's template."""

    @default("template_file")  # type: ignore[untyped-decorator]
    def _own_template(self) -> str:
        return "feedback.html.j2"
