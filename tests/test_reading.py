"""Submitted notebooks are read in the sandbox, with a definite answer for any content."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nbformat import NotebookNode

from autograder.engine import reading
from autograder.engine.notebook import grade_id
from autograder.engine.reading import notebook_of, read_submitted
from autograder.engine.sandbox import Sandbox
from autograder.errors import CannotGrade, GraderFault
from autograder.kernel.child import Limits
from autograder.kernel.notebook import ABSENT, CELL_LIMIT, TEXT_LIMIT
from support.submissions import ASSIGNMENT, NOTEBOOKS, ROOT, read_here

RELEASE = ROOT / "release" / ASSIGNMENT


def written(folder: Path, content: Any) -> Path:
    """Write content as the submitted notebook `nb`."""
    folder.mkdir(exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content, separators=(",", ":"))
    (folder / "nb.ipynb").write_text(text, "utf-8")
    return folder


def book(cells: list[Any], **more: Any) -> dict[str, Any]:
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells, **more}


def cell(source: str, kind: str = "markdown", **metadata: Any) -> dict[str, Any]:
    return {"cell_type": kind, "id": "an-id", "metadata": metadata, "source": source}


def with_metadata(text: str) -> str:
    """A notebook whose metadata is `text`."""
    return json.dumps(book([cell("mine")])).replace('"metadata": {}', f'"metadata": {text}', 1)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_what_is_read_is_what_stands_there(place: Sandbox, name: str) -> None:
    found = read_submitted(RELEASE, name, place)
    wanted = json.loads((RELEASE / f"{name}.ipynb").read_text("utf-8"))["cells"]
    assert [(c.cell_type, c.source, c.id) for c in found.cells] == [
        (c["cell_type"], "".join(c["source"]), c["id"]) for c in wanted
    ]
    assert [grade_id(c) for c in found.cells] == [
        c["metadata"].get("nbgrader", {}).get("grade_id") for c in wanted
    ]


def test_nothing_else_is_kept(place: Sandbox, tmp_path: Path) -> None:
    mark = {"grade_id": "a", "points": 100, "grade": True, "solution": False}
    code = cell("x", "code", nbgrader=mark, tags=["skip-execution"])
    code |= {"outputs": [{"output_type": "stream", "name": "stdout", "text": "y"}]}
    text = cell("z") | {"attachments": {"a.png": {"image/png": ""}}}
    found = read_submitted(written(tmp_path, book([code, text])), "nb", place)
    assert found.cells == [
        {"cell_type": "code", "id": "an-id", "metadata": {"nbgrader": {"grade_id": "a"}}}
        | {"source": "x"},
        {"cell_type": "markdown", "id": "an-id", "metadata": {}, "source": "z"},
    ]
    assert found.metadata == {}


def test_an_old_notebook_is_read(place: Sandbox, tmp_path: Path) -> None:
    cells = [
        {"cell_type": "heading", "level": 2, "source": ["Title"], "metadata": {}},
        {"cell_type": "code", "input": ["x = 1\n", "x"], "language": "python", "metadata": {}}
        | {"outputs": [{"output_type": "pyout", "prompt_number": 1, "text": ["1"]}]},
    ]
    old = {"nbformat": 3, "nbformat_minor": 0, "metadata": {}}
    old["worksheets"] = [{"cells": cells, "metadata": {}}]
    found = read_submitted(written(tmp_path, old), "nb", place)
    assert [(c.cell_type, c.source) for c in found.cells] == [
        ("markdown", "## Title"),
        ("code", "x = 1\nx"),
    ]


PICTURE = {
    "output_type": "display_data",
    "metadata": {},
    "data": {"image/png": "iVBOR" * 6_000_000},
}
AS_JUPYTER = json.dumps(book([cell("x = 'é 한'", "code")]), ensure_ascii=False, indent=1)
READ: dict[str, Callable[[], bytes]] = {
    "a byte order mark": lambda: AS_JUPYTER.encode("utf-8-sig"),
    "UTF-16": lambda: AS_JUPYTER.encode("utf-16"),
    "UTF-16 without a mark": lambda: AS_JUPYTER.encode("utf-16-le"),
    "UTF-16, big end first": lambda: AS_JUPYTER.encode("utf-16-be"),
    "UTF-32": lambda: AS_JUPYTER.encode("utf-32"),
    "zero bytes at the end": lambda: AS_JUPYTER.encode() + b"\0" * 4096,
    "an end of an older, longer file": lambda: AS_JUPYTER.encode() + b"\n ]\n}",
    "tabs and line ends of Windows": lambda: AS_JUPYTER.replace("\n", "\r\n\t").encode(),
    "pictures": lambda: json.dumps(
        book([cell("x = 'é 한'", "code") | {"outputs": [PICTURE]}, cell("🙂")])
    ).encode(),
}


@pytest.mark.parametrize("name", READ)
def test_what_an_editor_reads_is_read(place: Sandbox, tmp_path: Path, name: str) -> None:
    (tmp_path / "nb.ipynb").write_bytes(READ[name]())
    assert read_submitted(tmp_path, "nb", place).cells[0].source == "x = 'é 한'"


@pytest.mark.parametrize("version", [None, "4", "4.5", 4.0, {}])
def test_a_notebook_without_a_number_of_its_format_is_read(
    place: Sandbox, tmp_path: Path, version: Any
) -> None:
    work = book([cell("x = 1", "code") | {"outputs": []}], nbformat=version, nbformat_minor="5")
    assert read_submitted(written(tmp_path, work), "nb", place).cells[0].source == "x = 1"
    del work["nbformat"], work["nbformat_minor"]
    assert read_submitted(written(tmp_path, work), "nb", place).cells[0].source == "x = 1"


def test_half_a_character_costs_nothing_else(place: Sandbox, tmp_path: Path) -> None:
    half = cell("x = 1  # \ud83d", "code", nbgrader={"grade_id": "a\udc00"}, note="\ud83d")
    work = book([half | {"id": "b\ud83d"}, cell("mine \U0001f642")], title="\ud83d")
    folder = written(tmp_path, json.dumps(work))
    first, second = read_submitted(folder, "nb", place).cells
    assert (first.source, grade_id(first), first.id) == ("x = 1  # \ufffd", "a\ufffd", "b\ufffd")
    assert second.source == "mine \U0001f642"


def test_a_large_notebook_of_wide_characters_is_read(place: Sandbox, tmp_path: Path) -> None:
    """Each character of such a text takes four bytes of memory."""
    output = {"output_type": "stream", "name": "stdout", "text": "🙂" + "x" * (60 << 20)}
    work = book([cell("mine", "code") | {"outputs": [output]}])
    (tmp_path / "nb.ipynb").write_text(json.dumps(work, ensure_ascii=False), "utf-8")
    assert read_submitted(tmp_path, "nb", place).cells[0].source == "mine"


def test_bytes_of_another_encoding_stay_where_they_are(place: Sandbox, tmp_path: Path) -> None:
    text = json.dumps(book([cell("x = 1  # \u00fc", "code")]), ensure_ascii=False)
    (tmp_path / "nb.ipynb").write_bytes(text.encode("latin-1"))
    assert read_submitted(tmp_path, "nb", place).cells[0].source == "x = 1  # \ufffd"


@pytest.mark.parametrize(
    "changes",
    [{"metadata": None}, {"metadata": ...}, {"source": None}, {"source": ...}, {"cell_type": ...}],
    ids=repr,
)
def test_a_scratch_cell_that_lacks_something_costs_nothing(
    place: Sandbox, tmp_path: Path, changes: dict[str, Any]
) -> None:
    scratch = {k: v for k, v in (cell("# try", "code") | changes).items() if v is not ...}
    work = book([cell("mine", "code"), scratch | {"outputs": []}, cell("last")])
    found = read_submitted(written(tmp_path, work), "nb", place)
    assert [c.cell_type for c in found.cells] == ["code", "code", "markdown"]
    assert found.cells[1].source == ("" if "source" in changes else "# try")
    assert (found.cells[0].source, found.cells[2].source) == ("mine", "last")


LINES = AS_JUPYTER.split("\n")
MERGED = "\n".join([*LINES[:5], "<<<<<<< HEAD", LINES[5], "=======", LINES[5], ">>>>>>> you"])
SAID = {
    "merge": (MERGED, "line 6 holds <<<<<<<, a mark of an unfinished merge; keep one of the two"),
    "merge at the top": (f"<<<<<<< HEAD\n{MERGED}", "line 1 holds <<<<<<<"),
    "broken off": (AS_JUPYTER[:150], "it breaks off in line 10, so a part is missing; save it in"),
    "broken off in a text": (AS_JUPYTER[: AS_JUPYTER.index("x = ") + 2], "breaks off in line"),
    "a comma too many": (AS_JUPYTER.replace("{},", "{},,", 1), "it is damaged in line "),
    "empty": ("", "there is nothing in the file; save it in Jupyter and hand it in again"),
    "only zero bytes": ("\0" * 4096, "there is nothing in the file"),
    "a web page": ("<!DOCTYPE html><html>", "it is a web page; download the notebook itself"),
    "an archive": ("PK\x03\x04 and more", "it is a zip archive or an office document"),
    "a pointer": ("version https://git-lfs.github.com/spec/v1\noid 1", "Git LFS leaves"),
    "Python": ("# %%\nimport numpy", "it is something else than a notebook; hand in the file"),
    "other JSON": ('{"a": 1}', "it holds no cells; hand in the notebook that Jupyter has saved"),
}


@pytest.mark.parametrize("name", SAID)
def test_what_cannot_be_read_is_named_with_what_to_do(
    place: Sandbox, tmp_path: Path, name: str
) -> None:
    text, said = SAID[name]
    with pytest.raises(CannotGrade) as raised:
        read_submitted(written(tmp_path, text), "nb", place)
    assert said in str(raised.value)
    assert str(raised.value).startswith("nb.ipynb is not a readable notebook (")
    for word in ("Expecting", "JSON", "delimiter", "char ", "codec"):
        assert word not in str(raised.value)


# Each took half a minute or gigabytes when the grader itself parsed it.
COSTLY: dict[str, tuple[Callable[[], Any], str]] = {
    "wide metadata": (lambda: with_metadata('{"a":[' + "{}," * 6_000_000 + "{}]}"), "mine"),
    "deep metadata": (
        lambda: with_metadata('{"a":' * 200_000 + "{}" + "}" * 200_000),
        "nested too deep",
    ),
    "many cells": (lambda: book([cell("", "raw")] * 250_000), f"more than {CELL_LIMIT} cells"),
    "long text": (lambda: book([cell("[" * (TEXT_LIMIT + 1))]), "more than 4 MB of text"),
    "all of it outputs": (
        lambda: book([cell("mine", "code") | {"outputs": [{"data": [{}] * 4_000_000}]}]),
        "mine",
    ),
    "many sources": (lambda: book([cell("mine") | {"source": [[]] * 6_000_000}]), "no text|nb"),
    "a number without end": (lambda: with_metadata('{"a":' + "9" * 4_000_000 + "}"), "digits"),
    "a level without end": (
        lambda: (
            {"nbformat": 3, "metadata": {}}
            | {
                "worksheets": [
                    {"cells": [{"cell_type": "heading", "level": 10**12, "source": "x"}]}
                ]
            }
        ),
        "too much memory|used more than",
    ),
}


@pytest.mark.parametrize("name", COSTLY)
def test_a_costly_file_is_read_within_bounds_or_refused(
    place: Sandbox, tmp_path: Path, name: str
) -> None:
    make, said = COSTLY[name]
    folder = written(tmp_path, make())
    assert (folder / "nb.ipynb").stat().st_size < reading.SIZE_LIMIT
    if said == "mine":
        assert [c.source for c in read_submitted(folder, "nb", place).cells] == ["mine"]
        return
    with pytest.raises(CannotGrade, match=said) as raised:
        read_submitted(folder, "nb", place)
    assert str(raised.value).startswith("nb.ipynb ")
    assert len(str(raised.value)) < 250


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(memory=20 << 20, cpu=20), "memory"),
        (Limits(memory=4 << 30, cpu=0), "used more than 0 s of processor time"),
    ],
)
def test_a_limit_ends_the_reader_and_says_why(
    place: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    limits: Limits,
    reason: str,
) -> None:
    monkeypatch.setattr(reading, "LIMITS", limits)
    # Reading takes more than a second, so the reader is checked meanwhile.
    folder = written(tmp_path, with_metadata('{"a":[' + '{"a":{}},' * 2_000_000 + "{}]}"))
    with pytest.raises(CannotGrade, match=rf"^nb\.ipynb could not be read: it .*{reason}"):
        read_submitted(folder, "nb", place)


def test_a_reader_that_does_not_answer_is_the_graders_fault(
    place: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "SECONDS", 0.0)
    with pytest.raises(
        GraderFault, match=r"nb\.ipynb could not be read: nothing was answered within 0 s"
    ):
        read_submitted(written(tmp_path, book([])), "nb", place)
    assert list(place.folder.glob("kit-read-*")) == []


# -- answers of a compromised reader --------------------------------------------------------------


def arrays(**changes: Any) -> dict[str, Any]:
    """A valid answer for two cells, "ab" (with the id "c") and "", with changes."""
    return {
        "kinds": np.array([0, 1], np.uint8),
        "lengths": np.array([[2, 1, ABSENT], [0, ABSENT, ABSENT]], np.int64),
        "text": np.frombuffer(b"abc", np.uint8),
        **changes,
    }


def test_a_right_answer_is_put_together() -> None:
    found = notebook_of({"value": arrays()}, "nb")
    assert [(c.cell_type, c.source, grade_id(c)) for c in found.cells] == [
        ("code", "ab", "c"),
        ("markdown", "", None),
    ]
    nothing = arrays(kinds=np.zeros(0, np.uint8), lengths=np.zeros((0, 3), np.int64))
    nothing["text"] = np.zeros(0, np.uint8)
    assert notebook_of({"value": nothing}, "nb").cells == []


BIG = np.iinfo(np.int64).max
CHANGES: dict[str, dict[str, np.ndarray]] = {
    "unknown kind": {"kinds": np.array([0, 3], np.uint8)},
    "other type": {"kinds": np.array([0, 1], np.int64)},
    "floats": {"lengths": np.zeros((2, 3))},
    "fewer kinds": {"kinds": np.array([0], np.uint8)},
    "flat": {"lengths": np.zeros(6, np.int64)},
    "a cell without source": {"lengths": np.array([[ABSENT, 1, 2], [0, -1, -1]], np.int64)},
    "negative": {"lengths": np.array([[5, -2, -1], [0, -1, -1]], np.int64)},
    "too long": {"lengths": np.array([[3, 1, -1], [0, -1, -1]], np.int64)},
    "too short": {"lengths": np.array([[1, 1, -1], [0, -1, -1]], np.int64)},
    "overflow": {"lengths": np.array([[BIG, BIG, 5], [0, -1, -1]], np.int64)},
    "no UTF-8": {"text": np.array([255, 254, 253], np.uint8)},
    "half a character": {"text": np.frombuffer("é1".encode(), np.uint8)[:3]}
    | {"lengths": np.array([[1, 2, -1], [0, -1, -1]], np.int64)},
    "too much": {"text": np.zeros(TEXT_LIMIT + 1, np.uint8)},
    "too many": {"kinds": np.zeros(CELL_LIMIT + 1, np.uint8)}
    | {"lengths": np.zeros((CELL_LIMIT + 1, 3), np.int64), "text": np.zeros(0, np.uint8)},
}
WRONG: dict[str, Any] = {
    "nothing": {},
    "no value": {"value": None},
    "no arrays": {"value": {"kinds": 1, "lengths": 2, "text": 3}},
    "one array": {"value": {"kinds": np.zeros(2, np.uint8)}},
} | {name: {"value": arrays(**change)} for name, change in CHANGES.items()}


@pytest.mark.parametrize("name", WRONG)
def test_an_answer_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(CannotGrade, match=r"^nb\.ipynb could not be read"):
        notebook_of(WRONG[name], "nb")


def test_what_the_reader_says_is_one_printable_line() -> None:
    said = {"error": "raised", "message": "\x1b]0;owned\x07\n\u202e" + "x" * 10_000}
    with pytest.raises(CannotGrade, match="not a readable notebook") as raised:
        notebook_of(said, "nb")
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 250


def test_reading_here_and_in_the_sandbox_agree(place: Sandbox, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    values: list[Any] = [None, 3, "text", ["a", "b"], {"a": 1}, "\u202e é 한", [], True]
    for _ in range(20):
        cells = [
            {key: chance.choice(values) for key in ("source", "metadata", "id")}
            | {"cell_type": chance.choice(["code", "markdown", "raw", "odd", None])}
            if chance.random() < 0.2
            else cell(f"own {chance.random()}", chance.choice(["code", "raw"]))
            for _ in range(chance.randrange(1, 6))
        ]
        folder = written(tmp_path, book(cells))
        assert outcome(read_here, folder) == outcome(
            lambda folder, name: read_submitted(folder, name, place), folder
        )


def outcome(read: Callable[[Path, str], NotebookNode], folder: Path) -> Any:
    """The notebook, or the reason why it cannot be read."""
    try:
        return read(folder, "nb")
    except CannotGrade as error:
        return str(error)
