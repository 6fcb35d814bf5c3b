"""Outputs as nbgrader and the feedback page read them: ours count, the student's are harmless."""

from __future__ import annotations

import base64
import random
import re
import struct
import time
import zlib
from html.parser import HTMLParser
from typing import Any

import nbformat
import pytest
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook, new_output
from nbgrader.utils import determine_grade

from autograder.engine.results import CellResult, CheckResult, NotebookResult
from autograder.engine.run import _mend
from autograder.record.outputs import TEXT_LIMIT, grade_cell_outputs, harmless

EVIL = "evil7f3a"


def grade_cell(outputs: list[NotebookNode], points: float = 4) -> NotebookNode:
    marks = {"grade": True, "solution": False, "locked": True, "points": points}
    cell = new_code_cell("", outputs=outputs)
    cell.metadata["nbgrader"] = {**marks, "grade_id": "a-check", "schema_version": 3}
    return cell


def checked(
    *passed: bool, points: float = 4, title: str = "title", hint: str = "hint"
) -> CellResult:
    checks = [
        CheckResult(f"test_{i}", title, ok, "" if ok else hint) for i, ok in enumerate(passed)
    ]
    return CellResult("a-check", points, checks)


def notebook(cell: CellResult, status: Any = "graded", reason: str = "") -> NotebookResult:
    return NotebookResult("nb", status, reason, [cell])


def ours(cell: CellResult, **of: Any) -> list[NotebookNode]:
    return grade_cell_outputs(cell, notebook(cell, **of))


def result(text: Any) -> NotebookNode:
    """An execute_result, unvalidated."""
    data = {"text/plain": text}
    return NotebookNode(output_type="execute_result", data=data, metadata={}, execution_count=None)


# -- the traps of nbgrader ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outputs", "recorded"),
    [
        ([], 4),  # no result: full marks
        ([result("nan")], 4),
        ([result("np.float64(1.5)")], 4),
        ([result("-1")], 4),
        ([result("one")], 4),
        ([result(["1", "2"])], 4),
        ([result("3"), result("0")], 3),  # the first result counts
        ([new_output("stream", name="stderr", text="a log line"), result("3")], 0),
        ([new_output("error", ename="E", evalue="", traceback=[]), result("3")], 0),
    ],
)
def test_what_nbgrader_makes_of_outputs(outputs: list[NotebookNode], recorded: float) -> None:
    # These are nbgrader's rules; if one changes, our outputs must be reviewed.
    assert determine_grade(grade_cell(outputs)) == (recorded, 4)


def test_nbgrader_stops_at_too_many_points() -> None:
    with pytest.raises(ValueError, match="cannot be greater"):
        determine_grade(grade_cell([result("5")]))


@pytest.mark.parametrize("most", [0, 0.5, 1, 2, 3, 7, 10, 100, 1000])
@pytest.mark.parametrize("passed", range(8))
def test_nbgrader_records_the_points_we_decided(most: float, passed: int) -> None:
    cell = checked(*[i < passed for i in range(7)], points=most)
    written = ours(cell)
    assert determine_grade(grade_cell(written, most)) == (cell.points, most)
    (number,) = (o for o in written if o.output_type == "execute_result")
    assert re.fullmatch(r"\d+(\.\d{1,2})?", number.data["text/plain"])
    nbformat.validate(new_notebook(cells=[grade_cell(written, most)]))


def test_nbgrader_records_any_points_we_can_decide() -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(500):
        most = chance.choice([1.0, 2.5, 5.0, chance.randrange(1, 60)])
        cell = checked(
            *[chance.random() < 0.5 for _ in range(chance.randrange(1, 12))], points=most
        )
        for check in cell.checks:
            check.weight = chance.choice([0.5, 1, 2, chance.uniform(0.1, 5)])
        assert determine_grade(grade_cell(ours(cell), most)) == (cell.points, most)


@pytest.mark.parametrize("text", ["nan", "100", "np.float64(9)", "inf", "", "\n4\n"])
@pytest.mark.parametrize("status", ["graded", "failed", "missing"])
def test_no_text_of_ours_is_taken_for_points(text: str, status: str) -> None:
    cell = checked(False, True, title=text, hint=text)
    written = ours(cell, status=status, reason=text)
    assert determine_grade(grade_cell(written)) == (2, 4)


@pytest.mark.parametrize("status", ["failed", "missing"])
def test_a_notebook_that_was_not_graded_gets_zero(status: str) -> None:
    cell = CellResult("a-check", 4)
    assert determine_grade(grade_cell(ours(cell, status=status, reason="gone"))) == (0, 4)


# -- outputs of grade cells --------------------------------------------------------------------


def shown(cell: CellResult, **of: Any) -> tuple[str, str]:
    display, _ = ours(cell, **of)
    return display.data["text/html"], display.data["text/plain"]


def test_a_grade_cell_shows_titles_and_the_hints_of_what_failed() -> None:
    cell = checked(True, False, title="The shape is right", hint="think of padding")
    cell.checks[0].hint = "kept to ourselves"
    for text in shown(cell):
        assert text.count("The shape is right") == 2
        assert text.count("think of padding") == 1
        assert "kept to ourselves" not in text
    assert "1 of 2 checks passed" in shown(cell)[0]


@pytest.mark.parametrize(
    ("status", "reason", "wanted"),
    [
        ("missing", "", "was not handed in"),
        ("failed", "the kernel ended", "could not be graded: the kernel ended"),
        ("graded", "stopped after 60 s", "Note: stopped after 60 s"),
    ],
)
def test_a_grade_cell_says_why(status: str, reason: str, wanted: str) -> None:
    for text in shown(checked(False), status=status, reason=reason):
        assert wanted in text


def test_nothing_is_said_when_there_is_nothing_to_say() -> None:
    assert not any("Note" in text for text in shown(checked(True)))


@pytest.mark.parametrize("where", ["title", "hint", "reason"])
@pytest.mark.parametrize("status", ["graded", "failed"])
def test_our_html_takes_all_words_as_text(where: str, status: str) -> None:
    words = {"title": "title", "hint": "hint", "reason": "reason"}
    words[where] = f"</ul><script>{EVIL}()</script><img src=x onerror='{EVIL}'>\" & 3 < 4"
    cell = checked(True, False, title=words["title"], hint=words["hint"])
    page, _ = shown(cell, status=status, reason=words["reason"])
    assert not harms_in(page)
    assert "&lt;script&gt;" in page
    assert "3 &lt; 4" in page


# -- outputs of students -----------------------------------------------------------------------


class Reader(HTMLParser):
    """Collects code and addresses with the test's mark that a browser would run or load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "style", "iframe", "object", "embed", "svg"):
            self.inside = tag
        if EVIL in tag or any(EVIL in f"{name}={value}" for name, value in attrs):
            self.found.append(f"<{tag} {attrs}>")

    handle_startendtag = handle_starttag

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside and EVIL in data:
            self.found.append(f"in <{self.inside}>: {data[:80]}")


def harms_in(page: str) -> list[str]:
    reader = Reader()
    reader.feed(page)
    reader.close()
    return reader.found


def png(width: int = 1, height: int = 1) -> bytes:
    """Encode a PNG image."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes((width + 1) * height) if width * height < 100 else b"")
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def coded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def display(**data: Any) -> NotebookNode:
    """An unvalidated display; in its types, `_` stands for `/` and `__` for `+`."""
    data = {key.replace("__", "+").replace("_", "/"): value for key, value in data.items()}
    return NotebookNode(output_type="display_data", data=data, metadata={})


ATTACKS = [
    display(text_html=f"<script>{EVIL}()</script>"),
    display(text_html=f"<img src=x onerror={EVIL}()>", text_plain="picture"),
    display(image_svg__xml=f"<svg onload={EVIL}()><script>{EVIL}</script></svg>"),
    display(application_javascript=f"{EVIL}()"),
    display(text_markdown=f"[x](javascript:{EVIL}) <script>{EVIL}</script>"),
    display(text_latex=f"$\\href{{javascript:{EVIL}}}{{x}}$"),
    display(**{"application_vnd.jupyter.widget-view+json": {"model_id": EVIL}}),
    display(application_pdf=coded(EVIL.encode())),
    display(image_jpeg=f'" onerror="{EVIL}'),
    display(image_png=f'" onerror="{EVIL}()" x="'),
    display(image_png=coded(f"<svg onload={EVIL}>".encode())),
    display(image_png=coded(png()) + f'" onerror="{EVIL}'),
    display(image_png=[coded(png()), f'" onerror="{EVIL}']),
    display(text_plain=f"<script>{EVIL}()</script>"),
    display(text_plain=f"\x1b[31m<img src=x onerror={EVIL}>\x1b[0m"),
    display(text_plain=f"\x1b[38;5;1;{'9' * 5000}m<script>{EVIL}</script>"),
    NotebookNode(
        output_type="execute_result",
        data={"text/html": f"<script>{EVIL}</script>", "text/plain": f"</pre><script>{EVIL}"},
        metadata={"onload": EVIL},
        execution_count=1,
    ),
    new_output("stream", name="stdout", text=f"</pre><script>{EVIL}()</script>"),
    new_output("stream", name="stderr", text=f"<a href='javascript:{EVIL}'>x</a>"),
    NotebookNode(output_type="stream", name=f"x' onload='{EVIL}", text=f"<{EVIL}>"),
    new_output(
        "error",
        ename=f"<script>{EVIL}</script>",
        evalue=f"<img onerror={EVIL}>",
        traceback=[f"\x1b[31m<script>{EVIL}</script>", f"<iframe src='//{EVIL}'>"],
    ),
]


def page_of(outputs: list[NotebookNode], **options: Any) -> str:
    cell = new_code_cell("x", outputs=outputs)
    text, _ = HTMLExporter(**options).from_notebook_node(new_notebook(cells=[cell]))
    return str(text)


@pytest.mark.parametrize("sanitize", [True, False])
def test_a_page_with_hostile_outputs_runs_and_loads_nothing_of_theirs(sanitize: bool) -> None:
    before = page_of(ATTACKS[:2])
    assert harms_in(before)  # the test detects harm
    kept = harmless(ATTACKS)
    page = page_of(kept, sanitize_html=sanitize)
    assert harms_in(page) == []
    assert page.count(EVIL) >= 8  # text is still readable


@pytest.mark.parametrize("output", ATTACKS, ids=lambda output: str(output)[:60])
def test_only_text_and_pictures_are_kept(output: NotebookNode) -> None:
    kept = harmless([output])
    for each in kept:
        assert set(each.get("data", {})) <= {"text/plain", "image/png"}
        assert not each.get("metadata")
        assert each.output_type != "execute_result"
    nbformat.validate(new_notebook(cells=[new_code_cell("", outputs=kept)]))


def text_of(text: Any) -> str:
    (kept,) = harmless([NotebookNode(output_type="stream", name="stdout", text=text)])
    assert isinstance(kept.text, str)
    return str(kept.text)


@pytest.mark.parametrize(
    "text",
    ["", "plain", "two\nlines\n", "tab\tand\rreturn", "é σ 한국어 🙂", "\x1b[1;31mred\x1b[0m",
     "\x1b[38;5;208morange\x1b[m"],
)  # fmt: skip
def test_honest_text_is_kept_as_it_is(text: str) -> None:
    assert text_of(text) == text


@pytest.mark.parametrize(
    "hostile",
    [
        "\x1b[2J",
        "\x1b[1;1H",
        "\x1b]0;title\x07",
        "\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\",
        "\x1b]52;c;ZXZpbA==\x07",
        "\x1bc",
        "\x1b#8",
        "\x1bP1;2q\x1b\\",
        "\x1b[?1049h",
        "\x1b[31;2J",
        "\x1b\n[2J",
        "\x1b\x1b[2J",
        "\x1b\x00[2J",
        "\x1b[\x0031m",
        "\x1b[3\x1b[2J1m",
        "\x1b",
        "\x1b[",
        "\x1b]0;without end",
        "\x9b2J",
        "\x9d0;title\x9c",
        "\x90q",
        "\x00\x07\x08\x7f\x0e\x0f",
    ],
    ids=repr,
)
def test_terminal_sequences_but_colours_are_removed(hostile: str) -> None:
    text = text_of(f"before{hostile}after\x1b[32mgreen")
    assert text.startswith("before")
    assert text.endswith("fter\x1b[32mgreen")  # some sequences consume one more character
    rest = re.sub(r"\x1b\[[\d;]*m", "", text)
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", rest)


def test_random_text_becomes_harmless() -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    letters = "\x1b\x1b\x1b[[];?m2J\x07\\\x00\x9b\n\ra<\ud800"
    for _ in range(3000):
        text = text_of("".join(chance.choices(letters, k=chance.randrange(20))))
        rest = re.sub(r"\x1b\[[\d;]*m", "", text)
        assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]", rest)
        text.encode("utf-8")


def test_text_that_cannot_be_written_is_mended() -> None:
    output = new_output("error", ename="\ud800", evalue="\ud800", traceback=["\udfff"])
    shown = display(text_plain="a\ud800b")
    for each in harmless([output, shown]):
        nbformat.writes(new_notebook(cells=[new_code_cell("", outputs=[each])])).encode("utf-8")
    assert text_of("a\ud800b") == "a?b"


@pytest.mark.parametrize("piece", ["x", "\x1b[1m", "\x1b]", "\x1b[2J", "\x1b[", "[" * 99, "\n"])
def test_huge_text_is_cut_quickly(piece: str) -> None:
    started = time.monotonic()
    text = text_of(piece * (4_000_000 // len(piece)))
    assert len(text) < TEXT_LIMIT + 100
    assert text.endswith("… (the rest is left out)")
    assert time.monotonic() - started < 5


def test_text_cut_inside_a_sequence_stays_harmless() -> None:
    for shift in range(12):
        text = text_of("x" * (TEXT_LIMIT - shift) + "\x1b[38;5;208m" + "y" * 50)
        assert "\x1b" not in re.sub(r"\x1b\[[\d;]*m", "", text)


def test_a_huge_error_is_cut() -> None:
    lines = [f"line {i} " + "x" * 50_000 for i in range(1000)]
    huge = "y" * 1_000_000
    (kept,) = harmless([new_output("error", ename=huge, evalue=huge, traceback=lines)])
    assert len(str(kept)) < 1_000_000
    assert kept.traceback[-1].startswith("line 999")


def test_very_many_outputs_are_cut() -> None:
    many = [display(text_plain=str(i)) for i in range(50_000)]
    kept = harmless(many)
    assert len(kept) <= 201
    assert [k.data["text/plain"] for k in kept[:3]] == ["0", "1", "2"]
    assert "left out" in str(kept[-1])


def test_pictures_are_kept() -> None:
    data = coded(png(3, 3))
    broken = "\n".join(data[i : i + 20] for i in range(0, len(data), 20))
    for picture in (data, broken):
        (kept,) = harmless([display(image_png=picture, text_plain="<Figure>")])
        assert kept.data["image/png"] == picture
        assert kept.data["text/plain"] == "<Figure>"


@pytest.mark.parametrize(
    "picture",
    [
        coded(b"GIF89a" + png()),
        coded(png())[:8],
        coded(b"\x89PNG\r\n\x1a\n"),
        coded(b"\x89PNG\r\n\x1a\n<script>"),
        coded(png()) + "\ud800",
        coded(png()) + "!",
        "data:image/png;base64," + coded(png()),
        "",
        None,
        3,
        [coded(png())],
        coded(png(100_000, 100_000)),
        coded(png(2**31 - 1, 1)),
        coded(png(2**16, 2**16)),
        coded(png() + bytes(4 << 20)),
    ],
    ids=lambda picture: str(picture)[:30],
)
def test_what_is_no_bounded_png_is_dropped(picture: Any) -> None:
    assert harmless([display(image_png=picture)]) == []


@pytest.mark.parametrize("kind", ["pyout", "update_display_data", "<script>", "", None])
def test_unknown_kinds_of_output_are_dropped(kind: Any) -> None:
    assert harmless([NotebookNode(output_type=kind, data={"text/plain": "4"})]) == []


def test_a_students_result_is_never_taken_for_points() -> None:
    assert harmless([result("4")])[0].output_type == "display_data"


def test_malformed_outputs_stop_nothing() -> None:
    malformed: list[dict[str, Any]] = [
        {"output_type": "stream"},
        {"output_type": "stream", "name": ["x"], "text": {"a": 1}},
        {"output_type": "stream", "name": "stdout", "text": ["a", "b"]},
        {"output_type": "error"},
        {"output_type": "error", "ename": None, "evalue": 3, "traceback": 5},
        {"output_type": "display_data"},
        {"output_type": "display_data", "data": "text"},
        {"output_type": "execute_result", "data": {"text/plain": ["4"]}},
        {},
    ]
    kept = harmless([NotebookNode(m) for m in malformed])
    nbformat.validate(new_notebook(cells=[new_code_cell("", outputs=kept)]))
    assert any("ab" in str(k) for k in kept)


def test_a_note_stands_above_the_checks_and_is_text() -> None:
    cell = checked(True, False)
    cell.note = "checked with <b>the course's own</b> [OFE-04]"
    page, text = shown(cell)
    assert page.startswith("<blockquote>checked with &lt;b&gt;the course&#x27;s own")
    assert text.startswith("checked with <b>the course's own</b> [OFE-04]\n✓")


def test_of_what_a_kernel_shows_only_texts_are_kept() -> None:
    data = {"text/plain": "x", "application/json": [{}] * 1000, "application/x+json": {"a": {}}}
    cell = new_code_cell(
        "x",
        outputs=[
            new_output("display_data", data=data, metadata={"a": [{}] * 1000}),
            new_output("stream", text="printed"),
        ],
    )
    _mend(cell)
    assert cell.outputs[0] == new_output("display_data", data={"text/plain": "x"})
    assert cell.outputs[1].text == "printed"
