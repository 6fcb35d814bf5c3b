"""Downloads from Moodle and Canvas are unpacked into `submitted/`, whatever the files' names."""

from __future__ import annotations

import io
import os
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from nbgrader.api import Gradebook as Database

from autograder.course import Course
from autograder.errors import UserError
from autograder.record.collect import (
    ROSTER_LIMIT,
    Collected,
    Platform,
    chosen,
    collect,
    read_roster,
)
from support.submissions import ASSIGNMENT, ROOT, CourseCopy

BOOK = "1-orenist-filter.ipynb"

MOODLE_ROSTER = (
    "First name,Last name,ID number,Email address,Username\r\n"
    "철수,김,20260001,kim@uni.kr,kimcs\r\n"
    "Ada,Lovelace,20260002,ada@uni.kr,ada\r\n"
    "영희,이,20260003,lee@uni.kr,leeyh\r\n"
    "민준,김,20260004,kim1@uni.kr,kimmj1\r\n"
    "민준,김,20260005,kim2@uni.kr,kimmj2\r\n"
)
CANVAS_ROSTER = (
    "Student,ID,SIS User ID,SIS Login ID,Section,Chapter 4 (77)\n"
    "    Points Possible,,,,,97\n"
    '"Kim, Chulsoo",101,20260001,kimcs,A,\n'
    '"Lovelace, Ada",102,20260002,ada,A,\n'
    '"Lee, Younghee",103,20260003,leeyh,A,\n'
)


@pytest.fixture
def course(tmp_path: Path) -> Course:
    """A course without submissions."""
    root = tmp_path / "course"
    shutil.copytree(ROOT / "release", root / "release")
    (root / "nbgrader_config.py").touch()
    return Course.at(root)


def archive(path: Path, files: dict[str, bytes], encoding: str = "utf-8", mode: int = 0) -> Path:
    """Write a zip archive; names keep their encoding, and UTF-8 names may lack the UTF-8 flag."""
    data = io.BytesIO()
    raw: dict[bytes, bytes] = {}
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as made:
        for number, (name, text) in enumerate(files.items()):
            shown = name
            if encoding != "flagged":
                written = name.encode(encoding)
                shown = f"{number:04}".ljust(len(written), "_")[: len(written)]
                raw[shown.encode()] = written
            member = zipfile.ZipInfo(shown, (2026, 1, 2, 3, 4, 6))
            member.external_attr = mode << 16
            made.writestr(member, text)
    whole = data.getvalue()
    for shown_, written in raw.items():
        whole = whole.replace(shown_, written)
    path.write_bytes(whole)
    return path


def done(
    course: Course, source: Path, platform: Platform, roster: str = "", name: str = "roster.csv"
) -> Collected:
    """Collect an archive; return the outcome."""
    people = []
    if roster:
        path = course.root / name
        path.write_text(roster, "utf-8")
        people = read_roster(path)
    return collect(course, ASSIGNMENT, source, platform, people)


def files(course: Course, student: str) -> dict[str, bytes]:
    """Path → content of the files in a student's folder."""
    folder = course.submitted(student, ASSIGNMENT)
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


MOODLE = {
    f"김철수_12_assignsubmission_file_/{BOOK}": b"one",
    "김철수_12_assignsubmission_file_/ch4/mine.py": b"two",
    "김철수_12_assignsubmission_onlinetext_/onlinetext.html": b"words",
    f"Ada Lovelace_13_assignsubmission_file_{BOOK}": b"three",
}


@pytest.mark.parametrize("encoding", ["utf-8", "cp949", "flagged"])
def test_moodle(course: Course, tmp_path: Path, encoding: str) -> None:
    source = archive(tmp_path / "class.zip", MOODLE, encoding)
    found = done(course, source, "moodle", MOODLE_ROSTER)
    assert files(course, "kimcs") == {BOOK: b"one", "ch4/mine.py": b"two"}
    assert files(course, "ada") == {BOOK: b"three"}
    assert found == Collected(["ada", "kimcs"], missing=["kimmj1", "kimmj2", "leeyh"])
    assert found.complete


def test_canvas(course: Course, tmp_path: Path) -> None:
    inside = {
        f"kimchulsoo_101_5001_{BOOK}": b"one",
        "kimchulsoo_101_5002_mdc_session-4000.index": b"two",
        "lovelaceadalate_102_5003_hw.zip": b"three",
        f"leeyounghee_LATE_103_5004_{BOOK}": b"four",
    }
    found = done(course, archive(tmp_path / "c.zip", inside), "canvas", CANVAS_ROSTER)
    assert files(course, "kimcs") == {BOOK: b"one", "mdc_session-4000.index": b"two"}
    assert files(course, "ada") == {"hw.zip": b"three"}
    assert files(course, "leeyh") == {BOOK: b"four"}
    assert found == Collected(["ada", "kimcs", "leeyh"])


@pytest.mark.parametrize("packed", [True, False])
def test_folders_of_students(course: Course, tmp_path: Path, packed: bool) -> None:
    inside = {
        f"ada/{BOOK}": b"one",
        f"김 철수/{BOOK}": b"two",
        "__MACOSX/ada/x": b"",
        f"20260003/{BOOK}": b"four",
    }
    source = tmp_path / "class"
    if packed:
        source = archive(tmp_path / "class.zip", inside)
    else:
        for name, text in inside.items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(text)
    found = done(course, source, "folders", MOODLE_ROSTER + "x,y,9,e@e,20260003\n")
    assert found.found == ["20260003", "ada", "kimcs"]
    assert files(course, "kimcs") == {BOOK: b"two"}


@pytest.mark.parametrize(
    "around", ["class", "submitted", ASSIGNMENT, f"submitted/{ASSIGNMENT}", "ada"]
)
def test_a_folder_around_all_students_is_no_student(
    course: Course, tmp_path: Path, around: str
) -> None:
    """Archive programs put one around what is packed; a student's id may even be its name."""
    files = {f"{around}/{student}/{BOOK}": student.encode() for student in ("ada", "bob")}
    packed = archive(tmp_path / "class.zip", files | {f"{around}/read me.txt": b"for the tutor"})
    outcome = done(course, packed, "folders")
    assert sorted(outcome.found) == ["ada", "bob"]
    assert outcome.unmatched == ["read me.txt (no name of a student)"]
    assert (course.submitted("bob", ASSIGNMENT) / BOOK).read_bytes() == b"bob"


@pytest.mark.parametrize(
    ("around", "roster"),
    [("submitted", ""), (ASSIGNMENT, ""), ("class", "Username\nada\nbob\n")],
)
def test_a_folder_around_the_only_student_is_known_by_its_name_or_the_roster(
    course: Course, tmp_path: Path, around: str, roster: str
) -> None:
    packed = archive(tmp_path / "class.zip", {f"{around}/ada/{BOOK}": b"{}"})
    assert done(course, packed, "folders", roster).found == ["ada"]


@pytest.mark.parametrize("roster", ["", "Username\nada\nbob\n"])
@pytest.mark.parametrize(
    "paths",
    [
        [BOOK],
        [f"{ASSIGNMENT}/{BOOK}"],
        [f"first/{BOOK}", "second/2-orenist-classification.ipynb"],
    ],
)
def test_the_folder_of_the_only_student_is_kept(
    course: Course, tmp_path: Path, paths: list[str], roster: str
) -> None:
    packed = archive(tmp_path / "one.zip", {f"ada/{path}": b"{}" for path in paths})
    assert done(course, packed, "folders", roster).found == ["ada"]
    assert all((course.submitted("ada", ASSIGNMENT) / path).exists() for path in paths)


def test_folders_in_the_letters_of_korean_windows(course: Course, tmp_path: Path) -> None:
    folder = tmp_path / "class" / os.fsdecode("김철수".encode("cp949"))
    folder.mkdir(parents=True)
    (folder / BOOK).write_bytes(b"one")
    assert done(course, tmp_path / "class", "folders", MOODLE_ROSTER).found == ["kimcs"]


def test_who_is_not_in_the_roster_or_could_be_two_is_named(course: Course, tmp_path: Path) -> None:
    inside = {
        f"김민준_20_assignsubmission_file_/{BOOK}": b"one",
        f"Nobody_21_assignsubmission_file_/{BOOK}": b"two",
        "readme.txt": b"three",
    }
    found = done(course, archive(tmp_path / "c.zip", inside), "moodle", MOODLE_ROSTER)
    assert found.found == []
    assert found.unmatched == [
        "김민준 20 (could be kimmj1, kimmj2)",
        "Nobody 21 (not in the roster)",
        "readme.txt (no name of a student)",
    ]
    assert not found.complete


def test_a_number_of_the_platform_tells_two_of_one_name_apart(
    course: Course, tmp_path: Path
) -> None:
    roster = (
        "Identifier,Full name,Email address\n"
        "Participant 20,김민준,kim1@uni.kr\nParticipant 21,김민준,kim2@uni.kr\n"
    )
    inside = {f"김민준_{n}_assignsubmission_file_/{BOOK}": str(n).encode() for n in (20, 21)}
    found = done(course, archive(tmp_path / "c.zip", inside), "moodle", roster)
    assert found.found == ["kim1@uni.kr", "kim2@uni.kr"]
    assert files(course, "kim2@uni.kr") == {BOOK: b"21"}


KIM = "First name,Last name,Username\nMinsu,Kim,kimms\nAda,Lovelace,ada\n"
KIMS = {
    "moodle": [f"Kim Minsu_{n}_assignsubmission_file_/{BOOK}" for n in (1, 2)],
    "canvas": [f"kimminsu_{n}_500{n}_{BOOK}" for n in (1, 2)],
    "folders": [f"{name}/{BOOK}" for name in ("Kim Minsu", "kimms")],
}
ADA = {
    "moodle": f"Ada Lovelace_3_assignsubmission_file_/{BOOK}",
    "canvas": f"adalovelace_3_5003_{BOOK}",
    "folders": f"ada/{BOOK}",
}


@pytest.mark.parametrize("platform", ["moodle", "canvas", "folders"])
def test_two_who_would_be_one_student_are_named_and_nothing_of_them_is_written(
    course: Course, tmp_path: Path, platform: Platform
) -> None:
    inside = {name: name.encode() for name in [*KIMS[platform], ADA[platform]]}
    found = done(course, archive(tmp_path / "c.zip", inside), platform, KIM)
    assert found.found == ["ada"]
    assert len(found.unmatched) == 2
    assert all("(would be kimms, but so would " in said for said in found.unmatched)
    assert not course.submitted("kimms", ASSIGNMENT).exists()
    assert not found.complete


def test_two_folders_without_a_roster_are_not_mixed(course: Course, tmp_path: Path) -> None:
    inside = {f"kim/{BOOK}": b"one", f"kim /{BOOK}": b"two"}
    found = done(course, archive(tmp_path / "c.zip", inside), "folders")
    assert found.found == []
    assert len(found.unmatched) == 2


def test_who_is_known_by_a_number_is_matched_beside_a_namesake(
    course: Course, tmp_path: Path
) -> None:
    roster = "Identifier,Full name,Email address\nParticipant 1,Kim Minsu,kim@uni.kr\n"
    inside = {name: name.encode() for name in KIMS["moodle"]}
    found = done(course, archive(tmp_path / "c.zip", inside), "moodle", roster)
    assert files(course, "kim@uni.kr") == {BOOK: KIMS["moodle"][0].encode()}
    assert found.unmatched == ["Kim Minsu 2 (would be kim@uni.kr, but so would Kim Minsu 1)"]


def test_of_two_files_with_one_name_one_is_said_to_be_left_out(
    course: Course, tmp_path: Path
) -> None:
    inside = {f"ada_3_5001_{BOOK}": b"one", f"ada_3_5002_{BOOK}": b"two"}
    found = done(course, archive(tmp_path / "c.zip", inside), "canvas")
    assert files(course, "ada") == {BOOK: b"two"}
    assert found.left_out == [f"ada_3_5001_{BOOK}: another file has this name"]


def test_without_a_roster_students_are_called_as_the_platform_calls_them(
    course: Course, tmp_path: Path
) -> None:
    inside = {
        **{f"김민준_{n}_assignsubmission_file_/{BOOK}": b"x" for n in (20, 21)},
        f"Ada_22_assignsubmission_file_/{BOOK}": b"x",
    }
    found = done(course, archive(tmp_path / "c.zip", inside), "moodle")
    assert found == Collected(["Ada", "김민준_20", "김민준_21"])


def test_nothing_that_is_there_is_changed(course: Course, tmp_path: Path) -> None:
    source = archive(tmp_path / "c.zip", MOODLE)
    there = course.submitted("ada", ASSIGNMENT)
    there.mkdir(parents=True)
    (there / BOOK).write_bytes(b"before")
    first = done(course, source, "moodle", MOODLE_ROSTER)
    assert (first.found, first.kept) == (["kimcs"], ["ada"])
    assert files(course, "ada") == {BOOK: b"before"}
    second = done(course, source, "moodle", MOODLE_ROSTER)
    assert (second.found, second.kept) == ([], ["ada", "kimcs"])
    assert any("already there, and left alone: ada and kimcs" in line for line in second.lines())


WHO = "Ada Lovelace_13_assignsubmission_file_"


@pytest.mark.parametrize("name", ["/etc/x", "../x", "../../x", "a/../../../x", "..\\..\\x", "C:/x"])
def test_nothing_leads_out_of_a_submission(course: Course, tmp_path: Path, name: str) -> None:
    inside = {f"{WHO}/{name}": b"evil", name: b"evil", f"{WHO}/{BOOK}": b"good"}
    found = done(course, archive(tmp_path / "c.zip", inside), "moodle", MOODLE_ROSTER)
    assert files(course, "ada") == {BOOK: b"good"}
    assert {path.name for path in tmp_path.iterdir()} == {"c.zip", "course"}
    assert all("leads out of the archive" in said for said in found.left_out)
    assert not found.complete


def test_links_are_left_out(course: Course, tmp_path: Path) -> None:
    source = archive(tmp_path / "c.zip", {f"{WHO}/{BOOK}": b"/etc/passwd"}, mode=stat.S_IFLNK)
    found = done(course, source, "moodle", MOODLE_ROSTER)
    assert found.left_out == [f"{WHO}/{BOOK}: it is a link, or leads out of the archive"]
    folder = tmp_path / "class" / "ada"
    folder.mkdir(parents=True)
    (folder / BOOK).symlink_to("/etc/passwd")
    (folder / "mine.py").write_bytes(b"x")
    done(course, tmp_path / "class", "folders")
    assert files(course, "ada") == {"mine.py": b"x"}


@pytest.mark.parametrize("name", [f"{'x' * 300}/{BOOK}", f"ada/{'한' * 90}.py", "a/" * 1600 + "x"])
def test_a_name_that_is_too_long_is_said_to_be_so(
    course: Course, tmp_path: Path, name: str
) -> None:
    source = archive(tmp_path / "c.zip", {name: b"one", f"ada/{BOOK}": b"two"})
    found = done(course, source, "folders")
    assert files(course, "ada") == {BOOK: b"two"}
    assert [said.partition(": ")[2] for said in found.left_out] == [
        "its name is too long; shorten it in the archive, or copy the file by hand"
    ]


def test_a_bomb_costs_its_owner_one_file(course: Course, tmp_path: Path) -> None:
    inside = {f"{WHO}/bomb.ipynb": bytes(30 << 20), f"{WHO}/{BOOK}": b"good"}
    path = tmp_path / "c.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, text in inside.items():
            made.writestr(name, text)
    found = done(course, path, "moodle", MOODLE_ROSTER)
    assert files(course, "ada") == {BOOK: b"good"}
    assert found.left_out == [f"{WHO}/bomb.ipynb: it unpacks to hundreds of times its size"]


def test_an_archive_of_another_platform_is_refused(course: Course, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="name a zip archive or a folder"):
        done(course, ROOT / "README.md", "moodle")
    with pytest.raises(UserError, match="--from blackboard"):
        chosen("blackboard")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "cp949", "utf-16"])
def test_a_roster_is_read_as_spreadsheets_write_it(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "roster.csv"
    path.write_bytes(MOODLE_ROSTER.replace(",", ";").encode(encoding))
    first = read_roster(path)[0]
    assert (first.id, first.first_name, first.last_name) == ("kimcs", "철수", "김")


def test_a_list_that_is_no_roster_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "roster.csv"
    path.write_text("Colour,Size\nred,1\n")
    with pytest.raises(UserError, match="no column that tells students apart"):
        read_roster(path)
    path.write_text("Username\nada\nada\n")
    with pytest.raises(UserError, match="two students with the id ada"):
        read_roster(path)
    path.write_bytes(b"Username\n" + b"ada\n" * (ROSTER_LIMIT // 4))
    with pytest.raises(UserError, match="more than 10 MB, too many for a roster"):
        read_roster(path)


def test_the_command_says_who_is_missing_and_tells_formgrader_the_names(
    course_copy: Callable[[], CourseCopy], tmp_path: Path
) -> None:
    copy = course_copy()
    source = archive(tmp_path / "c.zip", {**MOODLE, "Nobody_9_assignsubmission_file_/x": b""})
    roster = tmp_path / "roster.csv"
    roster.write_text(MOODLE_ROSTER, "utf-8")
    ran = copy.run(
        *("autograder", "collect", ASSIGNMENT, str(source)),
        *("--from", "moodle", "--roster", str(roster)),
    )
    assert ran.returncode == 1, ran.stderr
    assert "collected submissions of 2 students: ada and kimcs" in ran.stdout
    assert "handed in nothing: kimmj1, kimmj2 and leeyh" in ran.stdout
    assert "could not be matched to anybody: Nobody 9 (not in the roster)" in ran.stdout
    with Database(f"sqlite:///{copy.root / 'gradebook.db'}") as database:
        names = {s.id: (s.first_name, s.last_name, s.lms_user_id) for s in database.students}
    assert names["kimcs"] == ("철수", "김", "20260001")
