"""Work is found in any place and under any name, and the result says how it was found."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import stat
import unicodedata
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import pytest
from rich.console import Console
from typer.testing import CliRunner

from autograder.cli import app
from autograder.course import Course
from autograder.engine.arrival import Release, laid_out, look, needs_archives, survey
from autograder.engine.files import read_regular
from autograder.engine.finding import Finding, alike, named, plain
from autograder.engine.notebook import grade_id, solved
from autograder.engine.results import NotebookResult, SubmissionResult
from autograder.engine.sandbox import Sandbox, sandbox
from autograder.engine.warm import WarmInterpreter
from autograder.errors import CannotGrade, UserError
from autograder.grading import Plan, reasons
from autograder.kernel import archive
from support.submissions import ASSIGNMENT, NOTEBOOKS, ROOT, CourseCopy, solution_cells, source

RELEASE = ROOT / "release" / ASSIGNMENT
FILTERS = NOTEBOOKS[0]
BOOK = f"{FILTERS}.ipynb"
CHECKPOINT = ("checkpoint", "mdc_session-4000.index", "mdc_session-4000.data-*")
PARTS = ("checkpoint", "mdc_session-4000.index", "mdc_session-4000.data-00000-of-00001")


@pytest.fixture(scope="module")
def place(warm: WarmInterpreter) -> Sandbox:
    """The strongest sandbox that this machine supports."""
    return sandbox(warm)


def work(name: str = FILTERS, cells: int = 3) -> bytes:
    """A notebook with the first solution cells written."""
    book = nbformat.read(RELEASE / f"{name}.ipynb", as_version=4)
    written = {grade_id(cell): cell.source for cell in solved(source(name)).cells}
    for cell in book.cells:
        if grade_id(cell) in solution_cells(name)[:cells]:
            cell.source = written[grade_id(cell)]
    text: str = nbformat.writes(book)
    return text.encode()


def put(path: Path, data: bytes, minutes: int = 0) -> Path:
    """Write a file that is this many minutes old."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, ns=(1, (1_700_000_000 - 60 * minutes) * 10**9))
    return path


def found(folder: Path, name: str = FILTERS, patterns: tuple[str, ...] = ("*.py",)) -> Finding:
    """The finding for a notebook, without opening archives."""
    return look(survey(folder), Release(RELEASE, name, patterns))


# --- names ---


@pytest.mark.parametrize(
    "name",
    [
        BOOK,
        f"{FILTERS} (1).ipynb",
        f"{FILTERS}(12).ipynb",
        f"Copy of {BOOK}",
        f"Copy of Copy of {BOOK}",
        f"{FILTERS} - Copy.ipynb",
        f"{FILTERS} - Copy (2).ipynb",
        f"{FILTERS}-Copy1.ipynb",
        f"{FILTERS} copy.ipynb",
        f"{FILTERS} - 복사본.ipynb",
        f"{FILTERS}의 사본.ipynb",
        f"사본 - {BOOK}",
        "1-Orenist-Filter.ipynb",
        "1-ORENIST-FILTER.IPYNB",
        "1_orenist_filter.ipynb",
        "1 orenist filter.ipynb",
        f"{BOOK}.json",
        f"{BOOK}.txt",
        f"{FILTERS} (1).ipynb.json",
        f"{BOOK} (1)",
        f"{FILTERS}-2.ipynb",
        f"deep/er/{BOOK}",
    ],
)
def test_a_name_is_known_whatever_copies_and_downloads_made_of_it(name: str) -> None:
    assert named(name, NOTEBOOKS) == FILTERS
    assert named(unicodedata.normalize("NFD", name), NOTEBOOKS) == FILTERS


@pytest.mark.parametrize(
    "name", ["hw.ipynb", f".{BOOK}", f"._{BOOK}", f"{FILTERS}.py", f"{FILTERS}s.ipynb", "1.ipynb"]
)
def test_another_name_is_not(name: str) -> None:
    assert named(name, NOTEBOOKS) is None


def test_released_notebooks_are_told_apart_by_their_names() -> None:
    assert [named(f"{name}.ipynb", NOTEBOOKS) for name in NOTEBOOKS] == NOTEBOOKS
    assert alike("ch4-cnn", "CH4-CNN (1)")
    assert not alike("ch4-cnn", "ch5-cnn")
    assert plain("mdc_session-4000 (1).index") == plain("mdc_session-4000.index")


# --- notebooks ---


@pytest.mark.parametrize(
    "path",
    [
        f"{FILTERS} (1).ipynb",
        f"{BOOK}.json",
        f"{ASSIGNMENT}/{BOOK}",
        f"a/b/Copy of {BOOK}",
        "1-Orenist-Filter.ipynb",
    ],
)
def test_the_only_candidate_is_taken_and_named(tmp_path: Path, path: str) -> None:
    put(tmp_path / path, work())
    put(tmp_path / "__MACOSX" / f"._{BOOK}", b"\0")
    put(tmp_path / ".ipynb_checkpoints" / BOOK, work(cells=1))
    one = found(tmp_path)
    assert one.files == {BOOK: path}
    assert one.said == (f"{path} was taken for {BOOK}",)


def test_a_notebook_in_its_place_is_taken_without_a_word(tmp_path: Path) -> None:
    put(tmp_path / BOOK, work())
    put(tmp_path / ".ipynb_checkpoints" / f"{FILTERS}-checkpoint.ipynb", work(cells=5))
    assert found(tmp_path) == Finding({BOOK: BOOK})


def test_its_cells_tell_what_a_notebook_is(tmp_path: Path) -> None:
    put(tmp_path / "hw.ipynb", work())
    put(tmp_path / "other.ipynb", work(NOTEBOOKS[1]))
    one = found(tmp_path)
    assert one.files == {BOOK: "hw.ipynb"}
    assert one.said == (f"hw.ipynb was taken for {BOOK}, by its cells",)


@pytest.mark.parametrize(
    "name",
    [
        *(FILTERS, "notebook", "notes.txt", f"{FILTERS}.html", "sub/work.odd"),
        *(f"{BOOK}{end}" for end in ("~", ".bak", ".crdownload", ".orig")),
    ],
)
def test_its_cells_tell_what_a_file_of_any_name_is(tmp_path: Path, name: str) -> None:
    for number in range(60):
        put(tmp_path / "data" / f"{number}.csv", b"1, 2")
    put(tmp_path / name, b"\xef\xbb\xbf\n " + work())
    put(tmp_path / f"{NOTEBOOKS[1]}.ipynb", work(NOTEBOOKS[1]))
    one = found(tmp_path)
    assert one.files == {BOOK: name}
    assert one.said == (f"{name} was taken for {BOOK}, by its cells",)
    put(tmp_path / BOOK, work(), minutes=5)
    assert found(tmp_path).said == ()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        (f"{FILTERS}.html", b"<!DOCTYPE html><html>" + work()),
        (f"{FILTERS}.py", work()),
        ("notes", b'{"a": 1}'),
        (FILTERS, b'{"a": 1}'),
    ],
)
def test_an_export_or_other_json_is_not_taken_for_a_notebook(
    tmp_path: Path, name: str, data: bytes
) -> None:
    put(tmp_path / name, data)
    one = found(tmp_path, patterns=CHECKPOINT)
    assert (one.files, one.rest) == ({}, (name,))


def test_its_text_tells_what_a_notebook_is_that_lost_its_ids(tmp_path: Path) -> None:
    book = nbformat.reads(work().decode(), as_version=4)
    for cell in book.cells:
        cell.metadata = {}
    put(tmp_path / "hw.ipynb", nbformat.writes(book).encode())
    assert found(tmp_path).files == {BOOK: "hw.ipynb"}
    assert found(tmp_path, NOTEBOOKS[1]).files == {}


def test_two_notebooks_that_changed_names_are_told_apart(tmp_path: Path) -> None:
    put(tmp_path / BOOK, work(NOTEBOOKS[1]))
    put(tmp_path / f"{NOTEBOOKS[1]}.ipynb", work())
    assert found(tmp_path).files == {BOOK: f"{NOTEBOOKS[1]}.ipynb"}
    assert found(tmp_path, NOTEBOOKS[1]).files == {f"{NOTEBOOKS[1]}.ipynb": BOOK}


RELEASED = (RELEASE / BOOK).read_bytes()
SEVERAL: dict[str, tuple[dict[str, tuple[bytes, int]], str, str]] = {
    "the changed one, older": (
        {BOOK: (RELEASED, 0), f"{FILTERS} (1).ipynb": (work(), 9)},
        f"{FILTERS} (1).ipynb",
        "the only whole one that has changes against the release",
    ),
    "the changed one, in its place": (
        {BOOK: (work(), 9), f"{FILTERS}-Copy1.ipynb": (RELEASED, 0)},
        BOOK,
        "the only whole one that has changes against the release",
    ),
    "the newest of the changed": (
        {BOOK: (RELEASED, 0), "x (1).ipynb": (work(), 9), "x (2).ipynb": (work(cells=5), 5)},
        "x (2).ipynb",
        "the newest that has changes against the release",
    ),
    "the one that is whole": (
        {BOOK: (work().partition(b"photograph")[0], 0), f"{FILTERS} (1).ipynb": (work(), 9)},
        f"{FILTERS} (1).ipynb",
        "the only whole one that has changes against the release",
    ),
    "the newest, when none is changed": (
        {BOOK: (RELEASED, 5), "old/" + BOOK: (RELEASED + b"\n", 0)},
        "old/" + BOOK,
        "the newest, none has changes against the release",
    ),
}


@pytest.mark.parametrize("case", SEVERAL)
def test_of_several_the_newest_with_changes_is_taken_and_all_are_named(
    tmp_path: Path, case: str
) -> None:
    files, taken, why = SEVERAL[case]
    for name, (data, minutes) in files.items():
        put(tmp_path / name, data, minutes)
    one = found(tmp_path)
    assert one.files == {BOOK: taken}
    (said,) = one.said
    assert said.endswith(f"{taken} was taken: {why}")
    assert all(name in said for name in files)


@pytest.mark.parametrize("text", ["# more\n{}", "{}\n# more", "{}  ", ""])
def test_any_change_of_an_answer_is_a_change(tmp_path: Path, text: str) -> None:
    book = nbformat.reads(RELEASED.decode(), as_version=4)
    cell = next(c for c in book.cells if grade_id(c) == solution_cells(FILTERS)[2])
    cell.source = text.format(cell.source)
    put(tmp_path / BOOK, RELEASED)
    put(tmp_path / f"{FILTERS} (1).ipynb", nbformat.writes(book).encode(), minutes=9)
    assert found(tmp_path).files == {BOOK: f"{FILTERS} (1).ipynb"}


@pytest.mark.parametrize("ascii_only", [False, True])
def test_how_a_file_is_written_is_no_change(tmp_path: Path, ascii_only: bool) -> None:
    tree = json.loads(RELEASED)
    for cell in tree["cells"]:
        cell["source"] = "".join(cell["source"])
    put(tmp_path / BOOK, json.dumps(tree, ensure_ascii=ascii_only).encode())
    put(tmp_path / f"{FILTERS} (1).ipynb", work(cells=1), minutes=9)
    assert found(tmp_path).files == {BOOK: f"{FILTERS} (1).ipynb"}


def test_copies_of_the_same_are_one(tmp_path: Path) -> None:
    put(tmp_path / BOOK, work(), minutes=9)
    put(tmp_path / f"{FILTERS} (1).ipynb", work())
    assert found(tmp_path) == Finding({BOOK: BOOK})


# --- files beside the notebook ---


def test_modules_come_from_beside_the_notebook(tmp_path: Path) -> None:
    put(tmp_path / "ch4-cnn" / BOOK, work())
    put(tmp_path / "ch4-cnn" / "mine.py", b"right = 1")
    put(tmp_path / "mine.py", b"wrong = 1")
    assert found(tmp_path).files == {BOOK: f"ch4-cnn/{BOOK}", "mine.py": "ch4-cnn/mine.py"}


@pytest.mark.parametrize(
    "names",
    [
        ("checkpoint.txt", "mdc_session-4000 (1).index", f"{PARTS[2]} (1)"),
        ("Checkpoint", "MDC_session-4000.INDEX", "mdc_session-4000 (1).data-00000-of-00001"),
        ("checkpoint (1)", "Copy of mdc_session-4000.index", f"{PARTS[2]}.txt"),
        tuple(f"checkpoints/{name}" for name in PARTS),
        ("checkpoint-1", "mdc_session-4000-1.index", "mdc_session-4000-1.data-00000-of-00001"),
        tuple(f"my/checkpoints (1)/Copy of {name}" for name in PARTS),
    ],
)
def test_a_checkpoint_is_found_under_other_names(tmp_path: Path, names: tuple[str, ...]) -> None:
    put(tmp_path / BOOK, work())
    for name in names:
        put(tmp_path / name, b"data")
    one = found(tmp_path, patterns=CHECKPOINT)
    assert one.files == {BOOK: BOOK, **dict(zip(PARTS, names, strict=True))}
    assert set(one.said) == {
        f"{path} was taken for {where}" for where, path in zip(PARTS, names, strict=True)
    }


def test_a_checkpoint_in_its_place_is_the_one(tmp_path: Path) -> None:
    put(tmp_path / BOOK, work())
    for name in PARTS:
        put(tmp_path / name, b"data", minutes=9)
        put(tmp_path / "old" / name, b"other")
    assert found(tmp_path, patterns=CHECKPOINT) == Finding(
        {BOOK: BOOK, **{name: name for name in PARTS}}
    )


def test_the_files_of_one_training_stay_together(tmp_path: Path) -> None:
    put(tmp_path / BOOK, work())
    for name in PARTS:
        put(tmp_path / "run" / name, b"data", minutes=9)
    put(tmp_path / "other" / PARTS[1], b"newer")
    files = found(tmp_path, patterns=CHECKPOINT).files
    assert {files[name] for name in PARTS} == {f"run/{name}" for name in PARTS}


def test_an_empty_file_of_a_checkpoint_is_taken_only_where_there_is_no_other(
    tmp_path: Path,
) -> None:
    put(tmp_path / BOOK, work())
    put(tmp_path / "run" / PARTS[0], b"data")
    put(tmp_path / "run" / PARTS[1], b"")
    put(tmp_path / PARTS[2], b"")
    one = found(tmp_path, patterns=CHECKPOINT)
    assert one.files == {BOOK: BOOK, **{n: f"run/{n}" for n in PARTS[:2]}, PARTS[2]: PARTS[2]}
    assert not any(said.startswith(PARTS[2]) for said in one.said)
    assert not one.complete
    put(tmp_path / "old" / PARTS[1], b"data", minutes=9)
    assert found(tmp_path, patterns=CHECKPOINT).files[PARTS[1]] == f"old/{PARTS[1]}"


@pytest.mark.parametrize("name", ["model.keras", "a/mdc_session-4000 (1).weights.h5", "M.HDF5"])
def test_what_keras_saves_is_named_where_a_checkpoint_is_not_whole(
    tmp_path: Path, name: str
) -> None:
    put(tmp_path / BOOK, work())
    put(tmp_path / name, b"PK")
    for part in PARTS:
        assert found(tmp_path, patterns=CHECKPOINT).instead == (name,)
        put(tmp_path / part, b"data")
    assert found(tmp_path, patterns=CHECKPOINT).instead == ()


@pytest.mark.parametrize("name", [".venv", "env", "node_modules", "__pycache__"])
def test_what_tools_made_is_passed_over(tmp_path: Path, name: str) -> None:
    put(tmp_path / BOOK, work())
    put(tmp_path / "mine.py", b"")
    if name == "env":
        put(tmp_path / name / "pyvenv.cfg", b"")
    (tmp_path / name).mkdir(exist_ok=True)
    for number in range(2500):
        (tmp_path / name / f"m{number}.py").touch()
    assert found(tmp_path) == Finding({BOOK: BOOK, "mine.py": "mine.py"})


def test_thousands_of_other_files_hide_nothing_that_lies_higher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autograder.engine.arrival.MOST", 50)
    put(tmp_path / BOOK, work())
    for number in range(60):
        put(tmp_path / "data" / f"{number}.csv", b"1")
    one = found(tmp_path)
    assert one.files == {BOOK: BOOK}
    assert one.said == ("more than 50 files were handed in, not all were looked at",)


# --- missing notebooks ---


@pytest.mark.parametrize(
    ("files", "rest"),
    [
        ((), ()),
        (("timestamp.txt", "ORENIST.data", "visible_checks.py", ".DS_Store", "Thumbs.db"), ()),
        (("report.docx",), ("report.docx",)),
        (("a/b.pdf", "notes.txt"), ("notes.txt", "a/b.pdf")),
        ((f"{FILTERS}.py",), (f"{FILTERS}.py",)),
        ((f"{NOTEBOOKS[1]}.ipynb", "notes.txt"), ()),
        ((f"{NOTEBOOKS[1]}.ipynb", "mine.ipynb", "work.rar"), ("mine.ipynb", "work.rar")),
    ],
)
def test_what_may_be_meant_for_a_notebook_that_was_not_found_is_named(
    tmp_path: Path, files: tuple[str, ...], rest: tuple[str, ...]
) -> None:
    for name in files:
        put(tmp_path / name, b"something")
    assert found(tmp_path, patterns=CHECKPOINT).rest == rest


@pytest.mark.parametrize("kind", ["7z", "rar", "tar", "tar.gz", "tgz", "egg", "alz", "xz", "bz2"])
def test_an_archive_of_another_kind_is_said_to_stay_closed(tmp_path: Path, kind: str) -> None:
    said = (
        "is an archive of a kind that is not opened here: hand in a .zip, or the files themselves"
    )
    put(tmp_path / f"work.{kind}", b"something")
    assert found(tmp_path).said == (f"work.{kind} {said}",)
    assert found(tmp_path).rest == (f"work.{kind}",)
    put(tmp_path / BOOK, work())
    assert found(tmp_path).said == ()
    assert found(tmp_path, patterns=CHECKPOINT).said == (f"work.{kind} {said}",)
    put(tmp_path / "more.7z", b"something")
    assert "are archives of a kind" in found(tmp_path, patterns=CHECKPOINT).said[0]


def test_a_remark_that_all_notebooks_share_is_shown_with_their_reason() -> None:
    def shown(*found: str) -> str:
        results = [NotebookResult(name, "not found", "no", found=name) for name in found]
        output = io.StringIO()
        console = Console(file=output, width=100)
        reasons([SubmissionResult("ada", ASSIGNMENT, results)], [], console)
        return output.getvalue()

    assert shown("x.7z is closed", "x.7z is closed") == "ada: x.7z is closed\nada: no\n"
    assert shown("", "") == "ada: no\n"


# --- hard links ---


def test_a_hard_link_of_the_owners_is_read_where_nobody_else_may_write(tmp_path: Path) -> None:
    folder = tmp_path / "submission"
    put(folder / BOOK, work())
    os.link(folder / BOOK, tmp_path / "backup")
    assert read_regular(folder, BOOK, 1 << 20, own_links=True) == work()
    folder.chmod(0o777)
    with pytest.raises(CannotGrade, match="hard link"):
        read_regular(folder, BOOK, 1 << 20, own_links=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("whose", ["file", "folder"])
def test_a_hard_link_to_what_is_anothers_is_not(tmp_path: Path, whose: str) -> None:
    folder = tmp_path / "submission"
    put(folder / BOOK, work())
    os.link(folder / BOOK, tmp_path / "backup")
    os.chown(folder / BOOK if whose == "file" else folder, 12345, -1)
    with pytest.raises(CannotGrade, match="hard link"):
        read_regular(folder, BOOK, 1 << 20, own_links=True)


def test_no_module_is_read_through_a_hard_link(tmp_path: Path, place: Sandbox) -> None:
    secret = put(tmp_path / "secret", b"secret")
    folder = tmp_path / "submission"
    put(folder / BOOK, work())
    os.link(secret, folder / "mine.py")
    with laid_out(folder, (), Release(RELEASE, FILTERS, ("*.py",)), place) as laid:
        assert {path.name for path in laid.folder.iterdir()} == {BOOK}
        assert "hard link" in laid.unread["mine.py"]


# --- archives ---


def zipped(files: dict[str, bytes], **of_all: int) -> bytes:
    """A zip archive with these files."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as made:
        for name, text in files.items():
            member = zipfile.ZipInfo(name, (2026, 1, 2, 3, 4, 6))
            member.external_attr = of_all.get("mode", 0) << 16
            member.compress_type = zipfile.ZIP_DEFLATED
            made.writestr(member, text)
    return data.getvalue()


def laid(folder: Path, place: Sandbox) -> tuple[dict[str, bytes], Finding]:
    """The files of a submission in their proper places, and how they were found."""
    patterns = ("*.py", *CHECKPOINT)
    with laid_out(folder, (), Release(RELEASE, FILTERS, patterns), place) as there:
        paths = [path for path in there.folder.rglob("*") if path.is_file()]
        return {str(p.relative_to(there.folder)): p.read_bytes() for p in paths}, there.found


def test_an_archive_is_opened_for_what_is_not_beside_it(tmp_path: Path, place: Sandbox) -> None:
    inside = {f"ch4-cnn/{BOOK}": work(), "ch4-cnn/mine.py": b"x = 1", "__MACOSX/x.py": b""}
    put(tmp_path / "hw.zip", zipped({**inside, "ch4-cnn/checkpoint.txt": b"model"}))
    files, how = laid(tmp_path, place)
    assert files == {BOOK: work(), "mine.py": b"x = 1", "checkpoint": b"model"}
    assert how.said == (
        "hw.zip was unpacked",
        f"hw.zip/ch4-cnn/{BOOK} was taken for {BOOK}",
        "hw.zip/ch4-cnn/checkpoint.txt was taken for checkpoint",
    )


@pytest.mark.parametrize("name", [FILTERS, "notebook", f"{FILTERS}.bak"])
def test_its_cells_tell_what_a_file_in_an_archive_is(
    tmp_path: Path, place: Sandbox, name: str
) -> None:
    put(tmp_path / "hw.zip", zipped({f"x/{name}": work(), "data.csv": b"1, 2"}))
    files, how = laid(tmp_path, place)
    assert files == {BOOK: work()}
    assert how.said[1] == f"hw.zip/x/{name} was taken for {BOOK}, by its cells"


def test_work_in_an_archive_counts_beside_an_untouched_notebook(
    tmp_path: Path, place: Sandbox
) -> None:
    put(tmp_path / BOOK, RELEASED)
    put(tmp_path / "hw.zip", zipped({BOOK: work()}))
    assert laid(tmp_path, place)[0][BOOK] == work()


BOMB = zipped({BOOK: b" " * (30 << 20)})
CKPT = {name: name.encode() for name in PARTS}
SMALL = {name: CKPT[name] for name in PARTS[:2]}
IN_ARCHIVES: dict[str, tuple[dict[str, bytes], tuple[str, ...]]] = {
    "one": ({"ckpt.zip": zipped(CKPT)}, tuple(f"ckpt.zip/{name}" for name in PARTS)),
    "a folder": (
        {"ckpt (1).zip": zipped({f"x/{name} (1)": data for name, data in CKPT.items()})},
        tuple(f"ckpt (1).zip/x/{name} (1)" for name in PARTS),
    ),
    "each its own": (
        {f"{name}.zip": zipped({name: data}) for name, data in CKPT.items()},
        tuple(f"{name}.zip/{name}" for name in PARTS),
    ),
    "the largest alone": (
        {**SMALL, f"{PARTS[2]}.zip": zipped(CKPT)},
        (*SMALL, f"{PARTS[2]}.zip/{PARTS[2]}"),
    ),
    "the largest alone, in a folder": (
        {**SMALL, f"run/{PARTS[2]} (1).zip": zipped(CKPT)},
        (*SMALL, f"run/{PARTS[2]} (1).zip/{PARTS[2]}"),
    ),
    "one in another": (
        {"moodle.zip": zipped({"kim/ckpt.zip": zipped(CKPT)})},
        tuple(f"moodle.zip/kim/ckpt.zip/{name}" for name in PARTS),
    ),
}


@pytest.mark.parametrize("case", IN_ARCHIVES)
def test_a_checkpoint_is_found_in_archives(tmp_path: Path, place: Sandbox, case: str) -> None:
    handed_in, lie = IN_ARCHIVES[case]
    put(tmp_path / BOOK, work())
    for name, data in handed_in.items():
        put(tmp_path / name, data)
    files, how = laid(tmp_path, place)
    assert files == {BOOK: work(), **CKPT}
    assert {f"{name} was unpacked" for name in handed_in if name not in CKPT} <= set(how.said)
    taken = {f"{path} was taken for {name}" for path, name in zip(lie, PARTS, strict=True)}
    assert {said for said in how.said if "taken" in said} == taken - {
        f"{name} was taken for {name}" for name in SMALL
    }


def test_an_archive_with_every_checkpoint_of_a_training_is_opened(
    tmp_path: Path, place: Sandbox
) -> None:
    noise = os.urandom(35 << 20)  # compresses badly, like trained weights
    others = {f"mdc_session-{step}.data-00000-of-00001": noise for step in (3800, 3900)}
    put(tmp_path / "hw.zip", zipped({BOOK: work(), **others, **CKPT, PARTS[2]: noise[:-3]}))
    files, how = laid(tmp_path, place)
    assert how.said[0] == "hw.zip was unpacked"
    assert files == {BOOK: work(), **SMALL, PARTS[2]: noise[:-3]}


def test_the_archive_in_an_archive_is_opened_and_none_in_that(
    tmp_path: Path, place: Sandbox
) -> None:
    inner = zipped({"ch4-cnn/mine.py": b"x = 1", f"ch4-cnn/{BOOK}": work()})
    put(tmp_path / "moodle.zip", zipped({"hw.zip": inner}))
    files, how = laid(tmp_path, place)
    assert files == {BOOK: work(), "mine.py": b"x = 1"}
    assert how.said == (
        "moodle.zip was unpacked",
        "moodle.zip/hw.zip was unpacked",
        f"moodle.zip/hw.zip/ch4-cnn/{BOOK} was taken for {BOOK}",
    )
    put(tmp_path / "moodle.zip", zipped({"more.zip": zipped({"hw.zip": inner})}))
    files, how = laid(tmp_path, place)
    assert files == {}
    assert how.rest == ("moodle.zip/more.zip/hw.zip",)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b" " * (30 << 20), ()),  # a suspicious compression ratio
        (b"PK\3\4 and so on", ("could not be unpacked: it is no zip archive, or is damaged",)),
        (BOMB, ("could not be unpacked: it unpacks to hundreds of times its size",)),
    ],
)
def test_an_archive_in_an_archive_that_cannot_be_opened_costs_nothing_else(
    tmp_path: Path, place: Sandbox, data: bytes, said: tuple[str, ...]
) -> None:
    put(tmp_path / "hw.zip", zipped({"data.zip": data, BOOK: work()}))
    files, how = laid(tmp_path, place)
    assert files == {BOOK: work()}
    assert how.said == (
        "hw.zip was unpacked",
        *(f"hw.zip/data.zip {words}" for words in said),
        f"hw.zip/{BOOK} was taken for {BOOK}",
    )


def test_only_so_many_archives_of_an_archive_are_opened(tmp_path: Path, place: Sandbox) -> None:
    many = {f"{number}.zip": zipped({BOOK: work(cells=number)}) for number in range(1, 10)}
    put(tmp_path / "hw.zip", zipped(many))
    opened = [said for said in laid(tmp_path, place)[1].said if said.endswith("was unpacked")]
    assert opened == [
        "hw.zip was unpacked",
        *(f"hw.zip/{number}.zip was unpacked" for number in range(1, 9)),
    ]


def test_what_keras_saves_is_named_in_an_archive_too(tmp_path: Path, place: Sandbox) -> None:
    put(tmp_path / "hw.zip", zipped({BOOK: work(), "model.keras": b"PK"}))
    assert laid(tmp_path, place)[1].instead == ("hw.zip/model.keras",)


def test_an_archive_stays_closed_where_nothing_is_wanted_of_it(tmp_path: Path) -> None:
    put(tmp_path / BOOK, work())
    put(tmp_path / "data.zip", b"no archive at all")
    assert not needs_archives(survey(tmp_path), found(tmp_path))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (BOMB, "it unpacks to hundreds of times its size"),
        (b"PK\3\4 and so on", "it is no zip archive, or is damaged"),
        (zipped({BOOK: work()})[:-30], "it is no zip archive, or is damaged"),
        (zipped({f"{n}.py": b"" for n in range(5001)}), "it holds more than 5000 files"),
    ],
)
def test_an_archive_that_cannot_be_opened_is_said_to_be_so(
    tmp_path: Path, place: Sandbox, data: bytes, said: str
) -> None:
    put(tmp_path / "hw.zip", data)
    files, how = laid(tmp_path, place)
    assert files == {}
    assert how.said == (f"hw.zip could not be unpacked: {said}",)
    assert how.rest == ("hw.zip",)


@pytest.mark.parametrize(
    "name",
    ["/etc/evil.py", "../evil.py", "a/../../evil.py", "C:/evil.py", "..\\evil.py", "a//b.py"],
)
def test_what_leads_out_of_an_archive_is_taken_by_its_last_name(
    tmp_path: Path, place: Sandbox, name: str
) -> None:
    folder = tmp_path / "submitted"
    put(folder / "hw.zip", zipped({name: b"evil", BOOK: work()}))
    assert laid(folder, place)[0] == {BOOK: work(), name.replace("\\", "/").split("/")[-1]: b"evil"}
    assert list(tmp_path.iterdir()) == [folder]
    put(folder / "hw.zip", zipped({"evil.py": b"good", name: b"evil", BOOK: work()}))
    if name.endswith("evil.py"):
        assert laid(folder, place)[0] == {BOOK: work(), "evil.py": b"good"}


@pytest.mark.parametrize("name", ["../C.py:", f"../{'x' * 300}.py"])
def test_a_name_in_an_archive_that_is_no_name_is_left_out(
    tmp_path: Path, place: Sandbox, name: str
) -> None:
    put(tmp_path / "hw.zip", zipped({name: b"{evil", BOOK: work()}))
    assert laid(tmp_path, place)[0] == {BOOK: work()}


def test_a_notebook_is_found_whose_name_in_an_archive_begins_at_a_drive(
    tmp_path: Path, place: Sandbox
) -> None:
    put(tmp_path / "hw.zip", zipped({f"C:\\Users\\kim\\{BOOK}": work()}))
    assert laid(tmp_path, place)[0] == {BOOK: work()}


def test_what_tools_made_does_not_count_in_an_archive(tmp_path: Path, place: Sandbox) -> None:
    folders = (".venv/lib", "hw/node_modules", "hw/__pycache__", "hw/env/lib", "/tmp/.git")
    made = {f"{folders[n % 5]}/{n}.py": b"" for n in range(6000)}
    put(tmp_path / "hw.zip", zipped({**made, "hw/env/pyvenv.cfg": b"", f"hw/{BOOK}": work()}))
    assert laid(tmp_path, place)[0] == {BOOK: work()}


def test_a_link_in_an_archive_is_left_out(tmp_path: Path, place: Sandbox) -> None:
    put(tmp_path / "hw.zip", zipped({BOOK: b"/etc/passwd"}, mode=stat.S_IFLNK | 0o777))
    assert laid(tmp_path, place)[0] == {}


@pytest.mark.parametrize("encoding", ["cp949", "utf-8"])
def test_names_are_read_as_they_were_written(encoding: str) -> None:
    data = zipped({"AB/x.py": b""})
    raw = "김철수/x.py".encode(encoding)
    written = zipped({"q" * len(raw.decode("cp437")): b""}).replace(
        b"q" * len(raw.decode("cp437")), raw
    )
    _, members = archive.opened(io.BytesIO(written))
    assert [archive.name_of(member) for member in members] == ["김철수/x.py"]
    assert archive.name_of(archive.opened(io.BytesIO(data))[1][0]) == "AB/x.py"


# --- owner and folder ---


@dataclass
class Class:
    """A course whose students hand in by writing files below `submitted/`."""

    root: Path
    files: dict[str, bytes] = field(default_factory=dict)

    def hand_in(self, *paths: str) -> Course:
        """Write the same notebook at each path; return the course."""
        (self.root / "nbgrader_config.py").touch()
        shutil.copytree(RELEASE, self.root / "release" / ASSIGNMENT, dirs_exist_ok=True)
        for path in paths:
            put(self.root / "submitted" / path, work())
        return Course.at(self.root)


@pytest.mark.parametrize(
    ("path", "lies"),
    [
        (f"ada/{ASSIGNMENT}/{BOOK}", BOOK),
        (f"ada/CH4-CNN/{BOOK}", f"CH4-CNN/{BOOK}"),
        (f"ada/ch4-cnn (1)/{BOOK}", f"ch4-cnn (1)/{BOOK}"),
        (f"ada/{BOOK}", BOOK),
        (f"ada/homework/{BOOK}", f"homework/{BOOK}"),
        (f"ada/{ASSIGNMENT}/{ASSIGNMENT}/{BOOK}", f"{ASSIGNMENT}/{BOOK}"),
    ],
)
def test_a_submission_is_found_under_another_folder(tmp_path: Path, path: str, lies: str) -> None:
    course = Class(tmp_path).hand_in(path, "ada/__MACOSX/x")
    assert course.students(ASSIGNMENT) == ["ada"]
    folder, only = course.handed_in("ada", ASSIGNMENT)
    release = Release(course.release(ASSIGNMENT), FILTERS, ())
    assert look(survey(folder, only), release).files == {BOOK: lies}


def test_an_empty_folder_of_the_right_name_hides_no_work(tmp_path: Path) -> None:
    course = Class(tmp_path).hand_in(f"ada/{BOOK}", f"ada/{ASSIGNMENT}/timestamp.txt")
    folder, only = course.handed_in("ada", ASSIGNMENT)
    release = Release(course.release(ASSIGNMENT), FILTERS, ())
    assert look(survey(folder, only), release).files == {BOOK: BOOK}


def test_work_for_another_assignment_is_not_taken_for_this_one(tmp_path: Path) -> None:
    course = Class(tmp_path).hand_in("ada/other/x.ipynb", "bob/x.ipynb", f"eve/{BOOK}")
    put(tmp_path / "release" / "other" / "x.ipynb", work())
    assert course.students(ASSIGNMENT) == ["eve"]
    assert course.students("other") == ["ada", "bob"]


def test_students_are_called_in_one_form(tmp_path: Path) -> None:
    mac = unicodedata.normalize("NFD", "김철수")
    course = Class(tmp_path).hand_in(f"{mac}/{ASSIGNMENT}/{BOOK}")
    assert course.students(ASSIGNMENT) == ["김철수"]
    assert course.handed_in("김철수", ASSIGNMENT)[0] == tmp_path / "submitted" / mac / ASSIGNMENT
    assert course.odd_name("김철수") == ""


def test_two_folders_for_one_name_are_said_to_be_so(tmp_path: Path) -> None:
    mac = unicodedata.normalize("NFD", "김철수")
    course = Class(tmp_path).hand_in(f"{mac}/{ASSIGNMENT}/{BOOK}", f"김철수/{ASSIGNMENT}/{BOOK}")
    assert sorted(course.students(ASSIGNMENT)) == sorted([mac, "김철수"])
    assert course.odd_name("김철수") == ""
    assert "NFC and NFD" in course.odd_name(mac)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("[1반] 김철수", ""),
        ("[x](y)<b>", ""),
        ("{0}", ""),
        ("two\nlines", "line break"),
        ("trailing ", "begins or ends with a space: rename it"),
        (" leading", "begins or ends with a space: rename it"),
        ("\u3000김철수", "begins or ends with a space: rename it"),
        ("x" * 201, "longer than 200 bytes"),
        (os.fsdecode("김철수".encode("cp949")), "as Korean Windows writes names it is 김철수"),
        (os.fsdecode(b"\xff\xfe"), "in no known letters"),
    ],
)
def test_a_name_can_be_recorded_or_is_refused_by_itself(
    tmp_path: Path, name: str, said: str
) -> None:
    course = Class(tmp_path).hand_in(f"{name}/{ASSIGNMENT}/{BOOK}")
    assert course.students(ASSIGNMENT) == [name]
    assert said in course.odd_name(name)
    assert bool(course.odd_name(name)) is bool(said)


def test_work_in_no_students_folder_is_named_where_there_is_no_other(tmp_path: Path) -> None:
    course = Class(tmp_path).hand_in("park.ipynb", "kim.zip", ".gitkeep", "README.md", "Thumbs.db")
    assert course.strays() == ["kim.zip", "park.ipynb"]
    with pytest.raises(UserError, match=r"only submitted/kim\.zip and submitted/park\.ipynb; move"):
        Plan.of(course, ASSIGNMENT, [])


def test_work_in_no_students_folder_is_named_beside_others_and_ends_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Class(tmp_path).hand_in("kim.zip", f"ada/{ASSIGNMENT}/{BOOK}")
    monkeypatch.setattr("autograder.engine.pool.Engine", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr("autograder.grading.grade_class", lambda *_: [])
    monkeypatch.setattr("autograder.record.copies.report_copies", lambda *_: [])
    call = ["grade", ASSIGNMENT, "--course", str(tmp_path)]
    everybody, one = (CliRunner().invoke(app, [*call, *who]) for who in ((), ("--student", "ada")))
    assert everybody.exit_code == 1
    assert "submitted/kim.zip is in no student's folder" in everybody.stdout
    assert (one.exit_code, "kim.zip" in one.stdout) == (0, False)


# --- through the commands ---


@pytest.fixture(scope="module")
def graded(
    course_copy: Callable[[], CourseCopy], tmp_path_factory: pytest.TempPathFactory
) -> CourseCopy:
    """A class with all kinds of names and folders, graded by the command."""
    course = course_copy()
    course.succeed("nbgrader", "generate_assignment", ASSIGNMENT, "--force")
    top = course.root / "submitted"
    put(top / "[1반] 김철수" / ASSIGNMENT / BOOK, work())
    put(top / unicodedata.normalize("NFD", "박지성") / "CH4-CNN" / f"{FILTERS} (1).ipynb", work())
    put(top / "ada" / ASSIGNMENT / "report.docx", b"words")
    put(top / "ada" / ASSIGNMENT / "timestamp.txt", b"2026-01-02 18:00:00 XYZ")
    put(top / "bob" / ASSIGNMENT / "hw.zip", zipped({f"x/{BOOK}": work()}))
    put(top / "bob" / ASSIGNMENT / "timestamp.txt", b"2026-01-02 18:00:00 KST")
    put(top / os.fsdecode("이순신".encode("cp949")) / ASSIGNMENT / BOOK, work())
    put(top / "eve " / ASSIGNMENT / BOOK, work())
    put(top / "kim.zip", zipped({BOOK: work()}))
    put(top / "README.md", b"words")
    return course


STUDENTS = ("[1반] 김철수", "박지성", "bob")


def test_everybody_is_graded_or_refused_by_himself(graded: CourseCopy) -> None:
    done = graded.run("autograder", "grade", ASSIGNMENT, "--jobs", "2")
    assert done.returncode == 1, done.stderr
    scores = {s: sum(graded.points(s)[FILTERS].values()) for s in STUDENTS}
    assert len(set(scores.values())) == 1
    assert scores["bob"] > 0
    for said in (
        f"박지성, {FILTERS}: CH4-CNN/{FILTERS} (1).ipynb was taken for {BOOK}",
        f"bob, {FILTERS}: hw.zip was unpacked; hw.zip/x/{BOOK} was taken for {BOOK}",
        "ada: this notebook was not found in what was handed in: report.docx",
        "as Korean Windows writes names it is 이순신: rename the folder",
        "eve: the name of the folder, 'eve ', begins or ends with a space: rename it",
        f"submitted/kim.zip is in no student's folder, so it is not graded: move it to "
        f"submitted/STUDENT/{ASSIGNMENT}/, or unpack",
        "ada: timestamp.txt has a time zone that is not known (2026-01-02 18:00:00 XYZ)",
    ):
        assert said in " ".join(done.stdout.split()), said
    assert "README" not in done.stdout
    assert graded.notebook("ada", FILTERS)["status"] == "not found"
    assert graded.notebook("bob", NOTEBOOKS[1])["status"] == "missing"
    assert set(graded.recorded()) == {"ada", *STUDENTS}


def test_nbgrader_gives_the_same(graded: CourseCopy) -> None:
    before = {student: graded.results(student) for student in STUDENTS}
    shutil.rmtree(graded.root / "autograded")
    done = graded.run("nbgrader", "autograde", ASSIGNMENT)
    assert "was not graded: the name of the folder is not in UTF-8" in done.stderr
    assert "eve was not graded: the name of the folder, 'eve ', begins or ends" in done.stderr
    assert done.returncode == 1
    assert {student: graded.results(student) for student in STUDENTS} == before
    graded.succeed("nbgrader", "generate_feedback", ASSIGNMENT, "--student", STUDENTS[0])
    pages = graded.root / "feedback" / STUDENTS[0] / ASSIGNMENT
    assert (pages / f"{FILTERS}.html").is_file()
