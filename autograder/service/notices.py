"""Pages in a student's Assignment List besides nbgrader's feedback.

The list reports feedback once every submitted notebook has a page in the exchange, under a name
that only the student and the grader can compute.  A notice about an attempt therefore takes the
place of its feedback, and notebooks that are not part of the assignment get a page, too.
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
from autograder.record.feedback import FeedbackExporter, about
from autograder.record.nbgrader_glue import fill_in
from autograder.service.records import replace_file

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
    """A page with a title and one paragraph."""
    return _PAGE.format(title=html.escape(title), text=html.escape(text))


def publish(outbound: Path, secret: str, pages: Mapping[str, str]) -> None:
    """Publish pages, by notebook name, to the student with this secret."""
    if not secret:
        return
    if not outbound.is_dir():
        outbound.mkdir()
        outbound.chmod(0o711)  # pages can be read by name, but not listed
    for name, page in list(pages.items())[:_MOST]:
        with contextlib.suppress(UnicodeEncodeError):  # no client could request such a name
            digest = notebook_hash(secret=secret, notebook_id=name)
            replace_file(outbound / f"{digest}.html", page.encode("utf-8", "replace"), mode=0o644)


def strangers(handed_in: Iterable[str], wanted: Iterable[str]) -> dict[str, str]:
    """Pages for submitted notebooks that are not part of the assignment."""
    text = (
        "No notebook of the assignment has this name, and this one was not taken for any: "
        "nobody has graded it."
    )
    return {name: notice(name, text) for name in set(handed_in) - set(wanted)}


def outcomes(graded: Mapping[str, Graded], note: str, config: Config) -> dict[str, str]:
    """Feedback pages of an attempt that is not in the gradebook, with a note at the top."""
    converter = GenerateFeedback(coursedir=CourseDirectory(config=config), config=config)
    exporter = FeedbackExporter(config=converter.config)
    exporter.register_preprocessor(CSSHTMLHeaderPreprocessor, enabled=True)
    whole = SubmissionResult("", "", [one.result for one in graded.values()]).to_json()
    pages = {}
    for name, one in graded.items():
        notebook = fill_in(one)
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
    """A time as text in the server's time zone, rounded up to the minute."""
    return datetime.fromtimestamp(seconds + 59).astimezone().strftime("%d %B %Y, %H:%M %Z")


def timestamp(seconds: float) -> str:
    """A time in the format of nbgrader's `timestamp.txt`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S.%f UTC")
