"""Outputs on the feedback page: results in grade cells, sanitised student output elsewhere."""

from __future__ import annotations

import base64
import binascii
import html
import re
import struct

from nbformat import NotebookNode
from nbformat.v4 import new_output

from autograder.engine.results import CellResult, CheckResult, NotebookResult

TEXT_LIMIT = 20_000
IMAGE_LIMIT = 2 << 20
PIXEL_LIMIT = 50_000_000
COUNT_LIMIT = 200  # outputs of one cell; consecutive prints are one output
UNCHANGED = (
    "This is the notebook as it was handed out, with nothing written in it. "
    "Did you hand in the right file?"
)
# Terminal escape sequences other than colours, which the notebook template renders.
_ESCAPES = re.compile(r"\x1b(?!\[[0-9;]*m)(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|.?)")
# Includes bidirectional controls: they can make a line look like another, or like the grader's.
_CONTROLS = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)


def grade_cell_outputs(cell: CellResult, result: NotebookResult) -> list[NotebookNode]:
    """The outputs of a grade cell: its checks, then its points as the number nbgrader records.

    nbgrader reads the first `execute_result` as the score.  It gives full marks for text that is
    not a finite number, and none if there is any error output or stderr, so exactly one plain
    decimal number is written.
    """
    points = f"{cell.points:.2f}".rstrip("0").rstrip(".")
    shown = {"text/html": _html(cell, result), "text/plain": _text(cell, result)}
    return [
        new_output("display_data", data=shown),
        new_output("execute_result", data={"text/plain": points}, execution_count=None),
    ]


def why(status: str, reason: str, found: str = "") -> str:
    """The message about the grading of a notebook; empty if there is nothing to report.

    Args:
        status: the notebook's status, as in `results.json`.
        reason: the reason for that status.
        found: how the notebook was found, if not under its own name.

    """
    said = {
        "missing": "This notebook was not handed in.",
        "not found": f"{reason[:1].upper()}{reason[1:]}.",
        "failed": f"This notebook could not be graded: {reason}.",
        "unchanged": UNCHANGED,
    }.get(status, "")
    notes = [found, reason if status == "graded" else ""]
    return " ".join(filter(None, [said, *(f"Note: {note}." for note in notes if note)]))


def _text(cell: CellResult, result: NotebookResult) -> str:
    lines = [text for text in (why(result.status, result.reason, result.found), cell.note) if text]
    for check in cell.checks:
        lines.append(f"{'✓' if check.passed else '✗'} {check.title}")
        if not check.passed:
            lines.append(f"    Hint: {check.hint}")
    return "\n".join(lines)


def _html(cell: CellResult, result: NotebookResult) -> str:
    """The same as HTML, with the few tags that nbconvert's sanitizer allows."""
    said = why(result.status, result.reason, result.found)
    notes = [html.escape(text) for text in (said, cell.note) if text]
    shown = [f"<blockquote>{note}</blockquote>" for note in notes]
    if cell.checks:
        passed = sum(check.passed for check in cell.checks)
        points = f"{cell.points:g} of {cell.max_points:g} points"
        shown.append(f"<strong>{passed} of {len(cell.checks)} checks passed: {points}</strong>")
        shown.append(f"<ul>{''.join(map(_item, cell.checks))}</ul>")
    return "\n".join(shown)


def _item(check: CheckResult) -> str:
    title = html.escape(check.title)
    if check.passed:
        return f"<li>✓ {title}</li>"
    hint = f"<ul><li><em>Hint: {html.escape(check.hint)}</em></li></ul>"
    return f"<li><strong>✗ {title}</strong>{hint}</li>"


def harmless(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """A student's outputs, reduced to a bounded number of texts and PNG images."""
    kept = [mended for output in outputs[:COUNT_LIMIT] if (mended := _mend(output)) is not None]
    if len(outputs) > COUNT_LIMIT:
        note = f"… ({len(outputs) - COUNT_LIMIT} more outputs are left out)"
        kept.append(new_output("display_data", data={"text/plain": note}))
    return kept


def _mend(output: NotebookNode) -> NotebookNode | None:
    match output.get("output_type"):
        case "stream":
            name = "stderr" if output.get("name") == "stderr" else "stdout"
            return new_output("stream", name=name, text=_plain(output.get("text", "")))
        case "error":
            trace = output.get("traceback")
            return new_output(
                "error",
                ename=_plain(output.get("ename", ""))[:200],
                evalue=_plain(output.get("evalue", ""))[:2000],
                traceback=[_plain(line) for line in trace[-40:]] if isinstance(trace, list) else [],
            )
        case "display_data" | "execute_result":
            shown = output.get("data")
            data = {}
            if isinstance(shown, dict):
                picture, text = shown.get("image/png"), shown.get("text/plain")
                if isinstance(picture, str) and _is_png(picture):
                    data["image/png"] = picture
                if isinstance(text, str):
                    data["text/plain"] = _plain(text)
            return new_output("display_data", data=data) if data else None
    return None


def _plain(text: object) -> str:
    """Bounded text without control characters or terminal sequences other than colours."""
    whole = "".join(map(str, text)) if isinstance(text, list) else str(text)
    clean = _CONTROLS.sub("", _ESCAPES.sub("", whole[:TEXT_LIMIT]))
    clean = clean.encode("utf-8", "replace").decode("utf-8")  # lone surrogates cannot be encoded
    return clean if len(whole) <= TEXT_LIMIT else f"{clean}\n… (the rest is left out)"


def _is_png(picture: str) -> bool:
    """Whether this is a base64 PNG within the limits on its size and its number of pixels."""
    if len(picture) > IMAGE_LIMIT:
        return False
    try:
        start = base64.b64decode("".join(picture.split()), validate=True)[:24]
    except (binascii.Error, ValueError):
        return False
    if len(start) < 24 or not start.startswith(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"):
        return False
    width, height = struct.unpack(">II", start[16:])
    return bool(width * height <= PIXEL_LIMIT)
