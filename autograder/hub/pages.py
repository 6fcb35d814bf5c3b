"""Pages that a student's Assignment list offers beside nbgrader's feedback.

The list says that there is feedback when every notebook that was handed in has a page in the
exchange, under a name that only the student and the grader can tell.  So a notice about an attempt
is put where its feedback would be, and a notebook that is not part of the assignment gets a page.
"""

from __future__ import annotations

import contextlib
import html
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from nbconvert.preprocessors import CSSHTMLHeaderPreprocessor
from nbgrader.converters import GenerateFeedback
from nbgrader.coursedir import CourseDirectory
from nbgrader.utils import notebook_hash
from traitlets.config import Config

from autograder.engine.grade import Graded
from autograder.engine.notebook import grade_id, mark
from autograder.engine.results import SubmissionResult
from autograder.hub.records import replace_file
from autograder.record.feedback import FeedbackExporter, about
from autograder.record.nbgrader_glue import filled

_MOST = 50  # notebooks of one attempt that get a page

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 1rem/1.5 sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{text}</p>
</body>
</html>
"""


def notice(title: str, text: str) -> str:
    """A page that says one thing."""
    return _PAGE.format(title=html.escape(title), text=html.escape(text))


def publish(outbound: Path, secret: str, pages: Mapping[str, str]) -> None:
    """Put pages, by notebook name, where the student with this secret looks for them."""
    if not secret:
        return
    if not outbound.is_dir():
        outbound.mkdir()
        outbound.chmod(0o711)  # whoever knows a page's name can read it; nobody can list them
    for name, page in list(pages.items())[:_MOST]:
        with contextlib.suppress(UnicodeEncodeError):  # no student's software could ask for it
            digest = notebook_hash(secret=secret, notebook_id=name)
            replace_file(outbound / f"{digest}.html", page.encode("utf-8", "replace"), mode=0o644)


def strangers(handed_in: Iterable[str], wanted: Iterable[str]) -> dict[str, str]:
    """Pages for the notebooks that are not part of the assignment."""
    text = (
        "No notebook of the assignment has this name, and this one was not taken for any: "
        "nobody has graded it."
    )
    return {name: notice(name, text) for name in set(handed_in) - set(wanted)}


def outcomes(graded: Mapping[str, Graded], note: str, config: Config) -> dict[str, str]:
    """Feedback pages of an attempt that is not in the gradebook, with a note at their top."""
    converter = GenerateFeedback(coursedir=CourseDirectory(config=config), config=config)
    exporter = FeedbackExporter(config=converter.config)
    exporter.register_preprocessor(CSSHTMLHeaderPreprocessor, enabled=True)
    whole = SubmissionResult("", "", [one.result for one in graded.values()]).to_json()
    pages = {}
    for name, one in graded.items():
        notebook = filled(one)
        points = {cell.cell: cell.points for cell in one.result.cells}
        for cell in notebook.cells:
            if mark(cell):
                cell.metadata.nbgrader["score"] = points.get(str(grade_id(cell)), 0.0)
                cell.metadata.nbgrader["comment"] = None
        shown = {"score": one.result.score, "max_score": one.result.max_score, "late_penalty": 0}
        top = about(whole, name, note=note)
        resources = {"nbgrader": {"notebook": name, "page": top, **shown}}
        pages[name], _ = exporter.from_notebook_node(notebook, resources)
    return pages


def moment(seconds: float) -> str:
    """A time for people: the day, and the minute after it, by the server's clock and zone."""
    return datetime.fromtimestamp(seconds + 59).astimezone().strftime("%d %B %Y, %H:%M %Z")


def timestamp(seconds: float) -> str:
    """A time as nbgrader writes it to `timestamp.txt`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S.%f UTC")
