"""Reads a submitted notebook, in a separate process that has run no student code.

A stranger's JSON may take any amount of time and memory to parse, so it is parsed here, within
limits.  Only what grading needs of each cell is passed on, as plain arrays that the grader need not
parse again: its type, its source, its `grade_id` and its id.  Outputs, attachments and all other
metadata are dropped.
"""

from __future__ import annotations

import codecs
import json
import re
import socket
from typing import Any

import nbformat
import numpy as np

from autograder import wire

CELL_LIMIT = 5000
TEXT_LIMIT = 4 << 20  # bytes of source, `grade_id` and id of all cells
NAME_LIMIT = 200  # characters of a `grade_id` or cell id; real ones are shorter
KINDS = ("code", "markdown", "raw")
ABSENT = -1  # the length of an absent text
MESSAGE_LIMIT = 150  # characters of an error message
AGAIN = "save it in Jupyter and hand it in again"
# Byte order marks that editors write.
_ENCODINGS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins like UTF-16, so it comes first
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Files handed in by mistake, by how they begin.
_OTHERS = {
    "<": "it is a web page; download the notebook itself, a file that begins with {",
    "PK\x03\x04": "it is a zip archive or an office document; hand in the notebook itself",
    "%PDF": "it is a PDF; hand in the notebook that it was made of",
    "version https://git-lfs": "it is what Git LFS leaves in a file's place; run `git lfs pull`",
}
_MERGE = re.compile(r"^(<{7}|\|{7}|={7}|>{7})(?=\s|$)", re.MULTILINE)
# The fields of a cell that nbformat needs to convert any version of the format to version 4.
_KEPT = ("cell_type", "source", "input", "level", "language", "id", "metadata")


class Unreadable(ValueError):
    """The file is no notebook, or exceeds the limits; the text says why."""


def parsed(data: bytes) -> dict[str, np.ndarray]:
    """The parts of a notebook's cells that count, as arrays.

    kinds: the position in `KINDS` of each cell's type, uint8 (cells,).
    lengths: the bytes of its source, `grade_id` and id, int64 (cells, 3), `ABSENT` for an absent
        one.
    text: those texts, one after the other in UTF-8, uint8 (bytes,).

    Raises Unreadable, and whatever nbformat raises for malformed content.
    """
    cells = _upgraded(_outline(_tree(_decoded(data)))).cells
    kinds, lengths, texts = [], [], []
    for number, cell in enumerate(cells, start=1):
        if not isinstance(cell.source, str) or not isinstance(cell.cell_type, str):
            raise Unreadable(f"cell number {number} holds no text; {AGAIN}")
        marks = cell.metadata.get("nbgrader")
        name = marks.get("grade_id") if isinstance(marks, dict) else None
        kinds.append(KINDS.index(cell.cell_type) if cell.cell_type in KINDS else KINDS.index("raw"))
        encoded = [_encoded(cell.source), _name(name), _name(cell.get("id"))]
        lengths.append([ABSENT if text is None else len(text) for text in encoded])
        texts += [text for text in encoded if text is not None]
    text = b"".join(texts)
    if len(text) > TEXT_LIMIT:
        raise Unreadable(f"its cells hold more than {TEXT_LIMIT >> 20} MB of text")
    return {
        "kinds": np.array(kinds, np.uint8),
        "lengths": np.array(lengths, np.int64).reshape(-1, 3),
        "text": np.frombuffer(text, np.uint8),
    }


def _decoded(data: bytes) -> str:
    """The text of a file, without a byte order mark or zero bytes around it.

    Undecodable bytes become replacement characters; they are usually in a comment.
    """
    encoding = next((name for mark, name in _ENCODINGS if data.startswith(mark)), "utf-8")
    if data[:4:2] == b"\0\0" and data[1:2] != b"\0":
        encoding = "utf-16-be"
    elif data[1:4:2] == b"\0\0" and data[:1] != b"\0":
        encoding = "utf-16-le"
    text = data.decode(encoding, "replace").strip("\0\ufeff \t\r\n")
    if not text:
        raise Unreadable(f"there is nothing in the file; {AGAIN}")
    return text


def _tree(text: str) -> dict[str, Any]:
    """The JSON object that the text begins with.

    Raises Unreadable when there is none, with advice to the author.
    """
    try:
        tree, _ = json.JSONDecoder(strict=False).raw_decode(text)
    except RecursionError as error:
        raise Unreadable("nested too deep") from error
    except json.JSONDecodeError as error:
        raise Unreadable(_what_is_wrong(text, error)) from error
    if not isinstance(tree, dict) or not ("cells" in tree or "worksheets" in tree):
        raise Unreadable("it holds no cells; hand in the notebook that Jupyter has saved")
    return tree


def _what_is_wrong(text: str, error: json.JSONDecodeError) -> str:
    for start, said in _OTHERS.items():
        if text.startswith(start) and not _MERGE.match(text):
            return said
    if mark := _MERGE.search(text):
        line = text.count("\n", 0, mark.start()) + 1
        return (
            f"line {line} holds {mark[1]}, a mark of an unfinished merge; "
            "keep one of the two versions in a text editor and hand it in again"
        )
    if not text.startswith("{"):
        return "it is something else than a notebook; hand in the file that Jupyter has saved"
    if error.pos >= len(text) or error.msg.startswith("Unterminated"):
        return f"it breaks off in line {text.count(chr(10)) + 1}, so a part is missing; {AGAIN}"
    return f"it is damaged in line {error.lineno}, column {error.colno}; {AGAIN}"


def _name(text: object) -> bytes | None:
    if not isinstance(text, str) or not 0 < len(text) <= NAME_LIMIT:
        return None
    return _encoded(text)


def _encoded(text: str) -> bytes:
    """The text in UTF-8; half an emoji, which JSON can hold, becomes a replacement character."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text).encode("utf-8")


def _outline(tree: dict[str, Any]) -> dict[str, Any]:
    """The notebook without the parts that do not count, which may be most of it."""
    outline: dict[str, Any] = {
        k: tree[k] for k in ("nbformat", "nbformat_minor", "cells") if k in tree
    }
    if isinstance(tree.get("cells"), list) and not isinstance(tree.get("nbformat"), int):
        outline |= {"nbformat": 4, "nbformat_minor": 5}  # only these versions keep cells so
    outline["metadata"] = {}
    lists = [outline]
    if "worksheets" in tree:  # before version 4
        sheets = tree["worksheets"]
        outline["worksheets"] = lists = [
            {"cells": sheet.get("cells"), "metadata": {}} for sheet in sheets
        ]
    if sum(len(each.get("cells", ())) for each in lists) > CELL_LIMIT:
        raise Unreadable(f"it has more than {CELL_LIMIT} cells")
    for each in lists:
        if isinstance(each.get("cells"), list):
            each["cells"] = [_bare(cell) for cell in each["cells"]]
    return outline


def _bare(cell: Any) -> Any:
    if not isinstance(cell, dict):
        return cell  # nbformat will report it
    bare = {key: cell[key] for key in _KEPT if key in cell}
    marks = bare["metadata"].get("nbgrader") if isinstance(bare.get("metadata"), dict) else None
    name = marks.get("grade_id") if isinstance(marks, dict) else None
    bare["metadata"] = {"nbgrader": {"grade_id": name}} if isinstance(name, str) else {}
    if not cell:
        return cell
    if bare.get("source") is None and "input" not in cell:
        bare["source"] = ""
    if not isinstance(bare.get("cell_type"), str):
        bare["cell_type"] = "code" if "outputs" in cell or "execution_count" in cell else "raw"
    if bare["cell_type"] == "code":
        bare["outputs"] = []
    return bare


def _upgraded(outline: dict[str, Any]) -> nbformat.NotebookNode:
    notebook = nbformat.reader.reads(json.dumps(outline))
    return nbformat.convert(notebook, 4)


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """The answer to ``{"op": "notebook", "data": uint8 array}``: see `parsed`."""
    identity = question.get("id")
    try:
        return {"id": identity, "value": parsed(question["data"].tobytes())}
    except MemoryError:
        return {"id": identity, "error": "memory", "message": ""}
    except Unreadable as error:
        return {"id": identity, "error": "raised", "message": str(error)}
    except Exception as error:  # nbformat raises many kinds for malformed content
        detail = (str(error).splitlines() or [type(error).__name__])[0][:60]
        said = f"its cells are not as Jupyter writes them: {detail}; {AGAIN}"
        return {"id": identity, "error": "raised", "message": said}


def serve(connection: socket.socket) -> None:
    """Answer one question."""
    question = wire.receive(connection)
    wire.send(connection, answer(question))
