"""Draws architecture.svg: `python docs/make_architecture.py`.

The picture shows the way of one submission through the modules, from the folder that was handed in
to the gradebook, and in which zone each step runs.  A test proves that the file is what this script
draws, and that every module it names exists.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path

PICTURE = Path(__file__).with_name("architecture.svg")
WIDTH = 1180
KERNEL, ENGINE, RECORD = (20, 340), (400, 390), (830, 330)  # zones: left edge, width
ZONES_FROM, ROW, BOX = 158, 92, 72  # y of the zones; height of a row, and of a box in it
INSET = 16
LINE = 17  # between two lines of text

STYLE = """\
  text { font-family: system-ui, "DejaVu Sans", sans-serif; font-size: 13px; fill: #1f2933; }
  .zone { font-size: 15px; font-weight: 600; }
  .module { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 12px; }
  .arrow { stroke: #52606d; stroke-width: 1.6; fill: none; marker-end: url(#head); }
  .both { marker-start: url(#head); }
  .plain { marker-end: none; }
  .label { font-size: 12px; fill: #52606d; text-anchor: end; }
  .number { font-weight: 600; fill: #ffffff; text-anchor: middle; }"""


@dataclass(frozen=True)
class Step:
    """A box: which modules, and what they do.

    zone: left edge and width; row: counted from the top of the zones; number: its place on the
    submission's way, 0 for none.
    """

    zone: tuple[int, int]
    row: float
    modules: tuple[str, ...]
    does: tuple[str, ...]
    number: int = 0

    @property
    def top(self) -> float:
        """The y of its upper edge."""
        return ZONES_FROM + 42 + self.row * ROW

    @property
    def middle(self) -> float:
        """The y of its middle."""
        return self.top + BOX / 2

    @property
    def left(self) -> int:
        """The x of its left edge."""
        return self.zone[0] + INSET

    @property
    def right(self) -> int:
        """The x of its right edge."""
        return self.zone[0] + self.zone[1] - INSET

    def draw(self) -> Iterator[str]:
        """The box with its text."""
        width = self.right - self.left
        yield (
            f'<rect x="{self.left}" y="{self.top:g}" width="{width}" height="{BOX}" rx="6" '
            'fill="#ffffff" stroke="#9aa5b1"/>'
        )
        x = self.left + 12
        if self.number:
            yield f'<circle cx="{self.left}" cy="{self.middle:g}" r="12" fill="#3b6ea8"/>'
            yield text(self.left, self.middle + 5, str(self.number), "number")
            x += 10
        lines = [("module", ", ".join(self.modules)), *(("", line) for line in self.does)]
        y = self.middle - LINE * (len(lines) - 1) / 2 + 5
        for number, (kind, line) in enumerate(lines):
            yield text(x, y + LINE * number, line, kind)


# The submission's way, in the order in which it goes.
POOL = Step(
    ENGINE,
    0,
    ("engine.pool", "engine.grade"),
    ("return a remembered result, or grade", "the notebook in a worker process"),
    1,
)
FIND = Step(
    ENGINE,
    1,
    ("engine.arrival", "engine.finding"),
    ("decide which files are the notebook", "and its checkpoint"),
    2,
)
READ = Step(
    ENGINE,
    2,
    ("engine.reading",),
    ("takes over the cells' types, sources and", "ids, and nothing else"),
    3,
)
RESTORE = Step(
    ENGINE,
    3,
    ("engine.matching", "engine.notebook"),
    ("put the student's cells into the", "release's notebook and order"),
    4,
)
RUN = Step(
    ENGINE, 4, ("engine.run",), ("starts a kernel and runs the cells up to", "a grade cell"), 5
)
CHECK = Step(
    ENGINE,
    5,
    ("checks.ch4_cnn", "engine.checking"),
    ("pytest runs the hidden checks; they ask", "for values through engine.values"),
    6,
)
TENSORS = Step(
    ENGINE, 6, ("engine.submission",), ("hands the checks the checkpoint's", "tensors"), 7
)
REPAIR = Step(
    ENGINE,
    7,
    ("engine.repair",),
    ("checks later cells again, with the course's", "solution in place of a failed cell"),
    8,
)
RESULT = Step(ENGINE, 8, ("engine.results",), ("points, checks and hints as plain data",), 9)

ARCHIVE = Step(KERNEL, 1, ("kernel.archive",), ("unpacks zip archives",))
NOTEBOOK = Step(KERNEL, 2, ("kernel.notebook",), ("parses the submitted notebook",))
WARM = Step(
    KERNEL,
    3,
    ("kernel.warm", "kernel.child"),
    ("fork every process of this zone from", "one interpreter without secrets"),
)
CONFINED = Step(
    KERNEL,
    4,
    ("kernel.isolate", "kernel.fast_forward"),
    ("the student's cells run here, confined;", "long trainings in fast motion"),
)
ANSWER = Step(KERNEL, 5, ("kernel.responder",), ("answers with plain values and arrays",))
CHECKPOINT = Step(
    KERNEL, 6, ("kernel.checkpoint",), ("reads tensors, in a process that runs", "no student code")
)
PAGE = Step(KERNEL, 9, ("kernel.page",), ("lays out a page of feedback",))

BOOK = Step(
    RECORD,
    8,
    ("record.nbgrader_glue",),
    ("nbgrader writes gradebook.db and the", "graded notebooks, with results.json"),
    10,
)
FEEDBACK = Step(
    RECORD,
    9,
    ("record.feedback", "record.pages"),
    ("write the student's feedback pages",),
    11,
)
LOCK = Step(RECORD, 7, ("record.locks",), ("one writer at a time for a submission",))
OUTSIDE = Step(
    RECORD,
    10,
    ("record.export", "service.publish"),
    ("grades for Moodle and Canvas; feedback", "through the exchange of a Hub"),
    12,
)

STEPS = (
    *(POOL, FIND, READ, RESTORE, RUN, CHECK, TENSORS, REPAIR, RESULT),
    *(ARCHIVE, NOTEBOOK, WARM, CONFINED, ANSWER, CHECKPOINT, PAGE),
    *(LOCK, BOOK, FEEDBACK, OUTSIDE),
)
ROWS = 11

# How a submission comes in, and who asks for it to be graded.
ENTRANCES = (
    (("record.collect", "service.inbound"), "bring work into submitted/"),
    (("cli", "grading"), "autograder grade"),
    (("record.autograde",), "nbgrader autograde, formgrader"),
    (("service.reconcile",), "the service on a Hub"),
)


def text(x: float, y: float, line: str, kind: str = "") -> str:
    """One line of text, its baseline at `y`."""
    class_ = f' class="{kind}"' if kind else ""
    return f'<text x="{x:g}" y="{y:g}"{class_}>{escape(line, quote=False)}</text>'


def line(*points: tuple[float, float], kind: str = "plain") -> str:
    """A line through `points`; `kind` names its heads as the style sheet does."""
    path = " L".join(f"{x:g} {y:g}" for x, y in points)
    return f'<path class="arrow {kind}" d="M{path}"/>'


def arrow(*points: tuple[float, float], both: bool = False) -> str:
    """A line through `points` with a head at its end, or at both."""
    return line(*points, kind="both" if both else "single")


def zone(place: tuple[int, int], title: str, about: str, fill: str, edge: str) -> Iterator[str]:
    """The ground on which the boxes of a zone stand."""
    x, width = place
    height = 42 + ROWS * ROW + 4
    yield (
        f'<rect x="{x}" y="{ZONES_FROM}" width="{width}" height="{height}" rx="10" '
        f'fill="{fill}" stroke="{edge}"/>'
    )
    yield text(x + INSET, ZONES_FROM + 27, title, "zone")
    yield text(x + width - INSET, ZONES_FROM + 27, about, "label")


def entrances() -> Iterator[str]:
    """The row above the zones."""
    width, gap = 270, 20
    for number, (modules, about) in enumerate(ENTRANCES):
        x = 20 + number * (width + gap)
        yield (
            f'<rect x="{x}" y="50" width="{width}" height="56" rx="6" '
            'fill="#f5f7fa" stroke="#9aa5b1"/>'
        )
        yield text(x + 12, 73, ", ".join(modules), "module")
        yield text(x + 12, 94, about)
    yield text(20, 32, "Where a submission comes from, and who asks for it to be graded", "zone")
    middle, pool = 128, (POOL.left + POOL.right) / 2
    first = 20 + width / 2
    last = first + 3 * (width + gap)
    yield line((first, middle), (last, middle))
    for number in range(len(ENTRANCES)):
        down = first + number * (width + gap)
        yield line((down, 106), (down, middle))
    yield arrow((pool, middle), (pool, POOL.top - 3))


def arrows() -> Iterator[str]:
    """The way down the engine, over to the record, and each crossing into the kernel zone."""
    way = (POOL, FIND, READ, RESTORE, RUN, CHECK, TENSORS, REPAIR, RESULT)
    for upper, lower in pairwise(way):
        x = (upper.left + upper.right) / 2
        yield arrow((x, upper.top + BOX), (x, lower.top - 3))
    for ours, theirs in (
        (FIND, ARCHIVE),
        (READ, NOTEBOOK),
        (RUN, CONFINED),
        (CHECK, ANSWER),
        (TENSORS, CHECKPOINT),
    ):
        yield arrow((ours.left - 15, ours.middle), (theirs.right + 4, theirs.middle), both=True)
    x = (WARM.left + WARM.right) / 2
    yield arrow((x, WARM.top), (x, NOTEBOOK.top + BOX + 3))
    yield arrow((x, WARM.top + BOX), (x, CONFINED.top - 3))
    yield arrow((RESULT.right, RESULT.middle), (BOOK.left - 16, BOOK.middle))
    x = (BOOK.left + BOOK.right) / 2
    yield arrow((x, LOCK.top + BOX), (x, BOOK.top - 3))
    yield arrow((x, BOOK.top + BOX), (x, FEEDBACK.top - 3))
    yield arrow((x, FEEDBACK.top + BOX), (x, OUTSIDE.top - 3))
    yield arrow((FEEDBACK.left - 15, FEEDBACK.middle), (PAGE.right + 4, PAGE.middle), both=True)
    # Repairs run in a kernel of their own.
    side = REPAIR.right + 8
    yield arrow((REPAIR.right, REPAIR.middle), (side, REPAIR.middle), (side, RUN.middle),
                (RUN.right + 3, RUN.middle))  # fmt: skip


def picture() -> str:
    """The whole SVG file."""
    height = ZONES_FROM + 42 + ROWS * ROW + 4 + 78
    foot = height - 52
    title = "The way of a submission through the modules"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'aria-labelledby="title">',
        f'<title id="title">{title}</title>',
        f"<style>\n{STYLE}\n</style>",
        '<defs><marker id="head" viewBox="0 0 10 10" refX="8" refY="5" markerWidth="7" '
        'markerHeight="7" orient="auto-start-reverse">'
        '<path d="M0 0 L10 5 L0 10 z" fill="#52606d"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        *zone(KERNEL, "Kernel zone", "untrusted", "#fdecea", "#d64545"),
        *zone(ENGINE, "Checks zone", "trusted", "#eaf2fb", "#3b6ea8"),
        *zone(RECORD, "Record zone", "trusted, one writer at a time", "#edf7ee", "#3f8f4f"),
        *entrances(),
        *arrows(),
        *(part for step in STEPS for part in step.draw()),
        text(20, foot, "Between the kernel zone and the others: frames of JSON and raw arrays"
             " (wire), with lengths that are bounded before anything is read."),
        text(20, foot + 22, "In the checks zone NumPy compares arrays; nothing is unpickled. The"
             " course secret, the checks and the solutions never enter the kernel zone,"),
        text(20, foot + 42, "except in step 8: there cells of the course's solution share a kernel"
             " with the student's, and nothing leaves it but which checks passed."),
        "</svg>",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
