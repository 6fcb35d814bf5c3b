"""Restoring a submitted notebook: everything except the student's answers is the release's."""

from __future__ import annotations

import contextlib
import copy
import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode
from nbgrader.utils import determine_grade
from nbgrader.validator import Validator

from autograder.engine.matching import recognise
from autograder.engine.notebook import (
    grade_id,
    in_order,
    is_autograded,
    is_manual,
    is_solution,
    restore,
    runs_alike,
)
from autograder.engine.reading import SIZE_LIMIT
from autograder.errors import CannotGrade
from support.submissions import read_here

ROOT = Path(__file__).parents[1]
RELEASED = sorted((ROOT / "release" / "ch4-cnn").glob("*.ipynb"))

Cell = dict[str, Any]


def cell(kind: str, source: str, name: str = "", **marks: Any) -> Cell:
    """One cell as JSON; `marks` make it nbgrader's cell `name`."""
    made: Cell = {"cell_type": kind, "id": name or source[:20].replace(" ", "-")}
    made |= {"metadata": {}, "source": source}
    if kind == "code":
        made |= {"outputs": [], "execution_count": None}
    if marks:
        marks = {"grade": False, "solution": False, "locked": False, "schema_version": 3, **marks}
        made["metadata"] = {"nbgrader": {"grade_id": name, "cell_type": kind, **marks}}
    return made


def given(name: str, source: str) -> Cell:
    return cell("code", source, name, locked=True)


def solution(name: str, source: str = "raise NotImplementedError") -> Cell:
    return cell("code", source, name, solution=True)


def check(name: str, points: float = 2) -> Cell:
    return cell("code", f"look_at('{name}')", name, grade=True, locked=True, points=points)


def book(*cells: Cell, **changes: Any) -> Cell:
    """One notebook as JSON."""
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        "cells": list(cells),
        **changes,
    }


def released() -> Cell:
    """The release: two exercises with text between them, a manual question, a last cell."""
    return book(
        cell("markdown", "Welcome"),
        given("import", "import numpy"),
        solution("a"),
        cell("markdown", "Look at it", "between", locked=True),
        check("a-check"),
        solution("b"),
        check("b-check", 1),
        check("b-more-check", 3),
        cell("markdown", "Your answer", "why", grade=True, solution=True, points=5),
        given("last", "print('end')"),
    )


def names(notebook: NotebookNode) -> list[str]:
    """Grade ids in order, `-` for a cell without one."""
    return [grade_id(c) or "-" for c in notebook.cells]


def by_name(notebook: NotebookNode, name: str) -> NotebookNode:
    (found,) = (c for c in notebook.cells if grade_id(c) == name)
    return found


@pytest.fixture
def hand_in(tmp_path: Path) -> Callable[[Any], NotebookNode]:
    """Write content as the submitted notebook, read it and restore it."""

    def write(content: Any) -> NotebookNode:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        (tmp_path / "nb.ipynb").write_bytes(data)
        release = nbformat.from_dict(released())
        before = copy.deepcopy(release)
        restored = restore(read_here(tmp_path, "nb"), release)
        assert release == before
        assert_sound(restored, release)
        return restored

    return write


def assert_sound(restored: NotebookNode, release: NotebookNode) -> None:
    """Assert the invariants of every restored notebook."""
    nbformat.validate(restored)
    nbformat.writes(restored).encode("utf-8")
    ids = [c.id for c in restored.cells]
    assert len(ids) == len(set(ids))
    assert restored.metadata == release.metadata
    assert restored.nbformat_minor == release.nbformat_minor
    found = names(restored)
    for official in release.cells:
        name = grade_id(official)
        if name is None:
            continue
        assert found.count(name) == 1
        mine = by_name(restored, name)
        assert mine.id == official.id
        assert mine.cell_type == official.cell_type
        assert mine.metadata == official.metadata
        if not is_solution(official):
            assert mine.source == official.source
    for own in restored.cells:
        if grade_id(own) is None:
            assert {*own.metadata} <= {"piece_of"}
            assert {*own.metadata.values()} <= {grade_id(c) for c in release.cells}
        assert not own.get("outputs")
    last = ""
    for official in release.cells:
        name = str(grade_id(official))
        if is_solution(official):
            last = name
        elif is_autograded(official) and last:
            assert found.index(name) > found.index(last)


# -- an honest notebook ------------------------------------------------------------------------


def test_a_solved_notebook_keeps_its_solutions(hand_in: Callable[[Any], NotebookNode]) -> None:
    work = released()
    work["cells"][2]["source"] = "a = 1"
    work["cells"][8]["source"] = "Because."
    restored = hand_in(work)
    assert names(restored) == names(nbformat.from_dict(released()))
    assert by_name(restored, "a").source == "a = 1"
    assert by_name(restored, "why").source == "Because."


def test_sources_may_be_lists_of_lines(hand_in: Callable[[Any], NotebookNode]) -> None:
    work = released()
    work["cells"][2]["source"] = ["a = 1\n", "b = 2"]
    assert by_name(hand_in(work), "a").source == "a = 1\nb = 2"


def test_own_cells_stay_where_they_are(hand_in: Callable[[Any], NotebookNode]) -> None:
    work = released()
    work["cells"].insert(3, cell("code", "helper = 1"))
    work["cells"].insert(2, cell("raw", "note"))
    work["cells"].append(cell("markdown", "Bye"))
    restored = hand_in(work)
    own = [(c.cell_type, c.source) for c in restored.cells if grade_id(c) is None]
    assert own == [
        ("markdown", "Welcome"),
        ("raw", "note"),
        ("code", "helper = 1"),
        ("markdown", "Bye"),
    ]
    at = names(restored).index("a")
    assert [c.source for c in restored.cells[at - 1 : at + 2 : 2]] == ["note", "helper = 1"]


def test_a_notebook_without_cell_ids_is_read(hand_in: Callable[[Any], NotebookNode]) -> None:
    work = released()
    work["nbformat_minor"] = 2
    for each in work["cells"]:
        del each["id"]
    work["cells"][2]["source"] = "a = 1"
    assert by_name(hand_in(work), "a").source == "a = 1"


def test_a_notebook_of_format_3_is_read(hand_in: Callable[[Any], NotebookNode]) -> None:
    work = nbformat.from_dict(released())
    by_name(work, "a").source = "a = 1"
    old = nbformat.convert(work, 3)
    assert old.nbformat == 3
    restored = hand_in(json.loads(nbformat.writes(old, version=3)))
    assert by_name(restored, "a").source == "a = 1"


# -- changed cells of the release are restored -------------------------------------------------


@pytest.mark.parametrize("name", ["import", "between", "a-check", "b-more-check", "last"])
def test_an_edited_cell_comes_back(hand_in: Callable[[Any], NotebookNode], name: str) -> None:
    work = released()
    (mine,) = (c for c in work["cells"] if c["id"] == name)
    official = mine["source"]
    mine["source"] = "100  # full marks"
    assert by_name(hand_in(work), name).source == official


@pytest.mark.parametrize("points", [0, 1000, -1, 1e308, "100", None, [1]])
def test_edited_points_come_back(hand_in: Callable[[Any], NotebookNode], points: Any) -> None:
    work = released()
    work["cells"][4]["metadata"]["nbgrader"]["points"] = points
    assert by_name(hand_in(work), "a-check").metadata.nbgrader.points == 2


@pytest.mark.parametrize("flag", ["grade", "solution", "locked", "task"])
@pytest.mark.parametrize("value", [True, False, None, "yes", 7, {}])
@pytest.mark.parametrize("at", [1, 2, 4, 8])
def test_edited_flags_come_back(
    hand_in: Callable[[Any], NotebookNode], flag: str, value: Any, at: int
) -> None:
    work = released()
    work["cells"][at]["metadata"]["nbgrader"][flag] = value
    restored = hand_in(work)
    assert names(restored) == names(nbformat.from_dict(released()))
    kinds = [(grade_id(c), is_solution(c), is_autograded(c), is_manual(c)) for c in restored.cells]
    official = nbformat.from_dict(released()).cells
    assert kinds == [
        (grade_id(c), is_solution(c), is_autograded(c), is_manual(c)) for c in official
    ]


@pytest.mark.parametrize("key", ["nbgrader", "grade_id", "schema_version", "cell_type"])
def test_lost_marks_come_back(hand_in: Callable[[Any], NotebookNode], key: str) -> None:
    work = released()
    for each in work["cells"]:
        each["metadata"].pop(key, None)
        each["metadata"].get("nbgrader", {}).pop(key, None)
    hand_in(work)


def test_a_renamed_cell_is_the_cell_by_its_other_marks(
    hand_in: Callable[[Any], NotebookNode],
) -> None:
    work = released()
    work["cells"][4]["metadata"]["nbgrader"]["grade_id"] = "c-check"
    work["cells"][2]["metadata"]["nbgrader"]["grade_id"] = "old-a"
    work["cells"][2]["source"] = "a = 1"
    restored = hand_in(work)
    assert names(restored) == names(nbformat.from_dict(released()))
    assert by_name(restored, "a").source == "a = 1"


def test_a_renamed_cell_that_nothing_tells_is_the_students_own(
    hand_in: Callable[[Any], NotebookNode],
) -> None:
    work = released()
    work["cells"][1] = cell("code", "something()", "c", locked=True)
    restored = hand_in(work)
    at = names(restored).index("import")
    assert restored.cells[at].source == "import numpy"
    assert "something()" in [c.source for c in restored.cells if grade_id(c) is None]


@pytest.mark.parametrize("at", range(1, 10))
def test_a_deleted_cell_comes_back_in_its_place(
    hand_in: Callable[[Any], NotebookNode], at: int
) -> None:
    work = released()
    del work["cells"][at]
    found, wanted = names(hand_in(work)), names(nbformat.from_dict(released()))
    assert [n for n in found if n != "-"] == [n for n in wanted if n != "-"]


def test_a_notebook_without_cells_becomes_the_release(
    hand_in: Callable[[Any], NotebookNode],
) -> None:
    restored = hand_in(book())
    assert names(restored) == names(nbformat.from_dict(released()))[1:]
    assert by_name(restored, "a").source == "raise NotImplementedError"


def test_of_a_duplicated_cell_the_first_counts(hand_in: Callable[[Any], NotebookNode]) -> None:
    work = released()
    first, second = solution("a", "a = 1"), solution("a", "a = 2")
    work["cells"][2:3] = [first, second]
    work["cells"].append(check("b-check"))
    restored = hand_in(work)
    assert by_name(restored, "a").source == "a = 1"
    at = names(restored).index("a")
    assert restored.cells[at + 1].source == "a = 2"
    assert grade_id(restored.cells[at + 1]) is None
    assert not is_autograded(restored.cells[-1])


def test_a_grade_cell_moved_up_goes_back_behind_its_solution(
    hand_in: Callable[[Any], NotebookNode],
) -> None:
    work = released()
    work["cells"].insert(0, work["cells"].pop(4))
    found = names(hand_in(work))
    assert found.index("a-check") == found.index("a") + 1


def test_a_deleted_grade_cell_comes_back_behind_its_solution(
    hand_in: Callable[[Any], NotebookNode],
) -> None:
    work = released()
    del work["cells"][4]
    work["cells"].insert(0, work["cells"].pop(3))  # its neighbour is before the solution
    found = names(hand_in(work))
    assert found.index("between") < found.index("a") < found.index("a-check")


def test_a_deleted_solution_comes_back_before_its_grade_cell(
    hand_in: Callable[[Any], NotebookNode],
) -> None:
    work = released()
    given_first = work["cells"].pop(1)
    del work["cells"][1]
    work["cells"].append(given_first)  # where the solution would be restored
    found = names(hand_in(work))
    assert found.index("a") < found.index("a-check")


def test_the_students_order_of_cells_is_kept(hand_in: Callable[[Any], NotebookNode]) -> None:
    work = released()
    work["cells"][2], work["cells"][5] = work["cells"][5], work["cells"][2]
    work["cells"].reverse()
    found = names(hand_in(work))
    assert [n for n in found if n in ("last", "why", "a", "between", "b", "import")] == [
        "last", "why", "a", "between", "b", "import"
    ]  # fmt: skip


def run_order(restored: NotebookNode) -> list[str]:
    """Grade ids in the order of execution; the source of cells without one."""
    release = nbformat.from_dict(released())
    ordered = in_order(restored, release)
    assert sorted(map(id, ordered.cells)) == sorted(map(id, restored.cells))
    found = [grade_id(c) for c in ordered.cells if grade_id(c)]
    assert found == [grade_id(c) for c in release.cells if grade_id(c)]
    return [grade_id(c) or c.source for c in ordered.cells]


def test_a_notebook_in_the_releases_order_runs_as_it_stands(
    hand_in: Callable[[Any], NotebookNode],
) -> None:
    work = released()
    for at in (10, 6, 5, 3, 1, 0):
        work["cells"].insert(at, cell("code", f"own = {at}"))
    restored = hand_in(work)
    assert run_order(restored) == [grade_id(c) or c.source for c in restored.cells]
    assert runs_alike(restored, in_order(restored, nbformat.from_dict(released())))


def test_a_moved_cell_goes_back_and_what_stood_around_it_stays(
    hand_in: Callable[[Any], NotebookNode],
) -> None:
    work = released()
    work["cells"][5:6] = [cell("code", "for b")]
    work["cells"][1:1] = [cell("code", "first"), solution("b", "b = 1"), cell("code", "second")]
    restored = hand_in(work)
    assert names(restored)[2] == "b"
    order = run_order(restored)
    assert order[:4] == ["Welcome", "first", "second", "import"]
    assert order[4:] == [
        *("a", "between", "a-check", "for b", "b", "b-check", "b-more-check", "why", "last")
    ]
    assert not runs_alike(restored, in_order(restored, nbformat.from_dict(released())))


def test_grade_cells_put_together_leave_own_cells_between_the_solutions(
    hand_in: Callable[[Any], NotebookNode],
) -> None:
    work = released()
    work["cells"].insert(5, cell("code", "for b"))
    work["cells"].sort(key=lambda c: c["id"].endswith("-check"))
    order = run_order(hand_in(work))
    assert order.index("between") < order.index("for b") < order.index("b")


def test_a_piece_of_a_cell_does_not_run_before_it(hand_in: Callable[[Any], NotebookNode]) -> None:
    work = released()
    work["cells"][1:1] = [solution("b", "b = 1"), solution("b", "b += 1")]
    order = run_order(hand_in(work))
    at = order.index("b")
    assert order[at + 1] == "b += 1"
    assert order[at + 2] == "raise NotImplementedError"  # as released, in its place
    assert order[at - 1] == "a-check"


def test_a_changed_copy_behind_the_check_stays_there(
    hand_in: Callable[[Any], NotebookNode],
) -> None:
    work = released()
    work["cells"][2]["source"] = "a = 1"
    work["cells"].insert(5, solution("a", "a = 'tried'"))
    order = run_order(hand_in(work))
    assert order.index("a = 'tried'") == order.index("a-check") + 1


def test_a_copy_with_the_answer_takes_the_place_of_an_untouched_cell(
    hand_in: Callable[[Any], NotebookNode],
) -> None:
    work = released()
    work["cells"].insert(5, solution("a", "a = 1"))
    restored = hand_in(work)
    assert by_name(restored, "a").source == "a = 1"
    assert run_order(restored) == run_order(hand_in(released()))


@pytest.mark.parametrize("kind", ["markdown", "raw", "code", "heading", "", "🙂"])
def test_a_changed_cell_type_comes_back(hand_in: Callable[[Any], NotebookNode], kind: str) -> None:
    work = released()
    for each in work["cells"]:
        each["cell_type"] = kind
    work["cells"][2]["source"] = "a = 1"
    restored = hand_in(work)
    assert by_name(restored, "a").source == "a = 1"
    assert by_name(restored, "a").cell_type == "code"


def test_tags_and_other_metadata_come_off(hand_in: Callable[[Any], NotebookNode]) -> None:
    work = released()
    work["cells"].insert(1, cell("code", "x = 1"))
    for each in work["cells"]:
        each["metadata"] |= {"tags": ["skip-execution", "raises-exception"], "jupyter": {"x": 1}}
    for each in hand_in(work).cells:
        assert set(each.metadata) <= {"nbgrader"}


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"kernelspec": {"name": "bash", "display_name": "Bash", "argv": ["rm"]}},
        {"kernelspec": None, "language_info": {"name": "sh"}, "widgets": {}},
        {"nbgrader": {"x": 1}, "authors": "me", "title": "<script>"},
    ],
)
def test_the_notebooks_metadata_is_that_of_the_release(
    hand_in: Callable[[Any], NotebookNode], metadata: Any
) -> None:
    hand_in(released() | {"metadata": metadata})


def test_outputs_and_attachments_handed_in_are_dropped(
    hand_in: Callable[[Any], NotebookNode],
) -> None:
    work = released()
    full = {"output_type": "execute_result", "data": {"text/plain": "2"}, "metadata": {}}
    for each in work["cells"]:
        if each["cell_type"] == "code":
            each["outputs"] = [full | {"execution_count": 1}]
            each["execution_count"] = 1
        else:
            each["attachments"] = {"x.svg": {"image/svg+xml": "<svg onload=x>"}}
    for each in hand_in(work).cells:
        assert not each.get("outputs")
        assert not each.get("attachments")
        assert each.get("execution_count") is None


def test_ids_that_clash_are_made_unique(hand_in: Callable[[Any], NotebookNode]) -> None:
    work = released()
    for each in work["cells"]:
        each["id"] = "own-1"
    work["cells"].extend({**cell("code", "1"), "id": "a"} for _ in range(3))
    hand_in(work)


def test_own_ids_avoid_those_of_the_release(tmp_path: Path) -> None:
    release = nbformat.from_dict(book(solution("own-1"), check("own-2")))
    work = nbformat.from_dict(book(cell("code", "x"), cell("code", "y"), solution("own-1")))
    assert_sound(restore(work, release), release)


def test_nbgrader_takes_the_result(hand_in: Callable[[Any], NotebookNode]) -> None:
    work = released()
    work["cells"] = work["cells"][::-1] * 2
    restored = hand_in(work)
    for each in restored.cells:
        if is_autograded(each):
            assert determine_grade(each)[1] == each.metadata.nbgrader.points
    assert Validator()._get_changed_cells(restored) == []


# -- unreadable files --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\x00" * 1000,
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xfe{\x00}\x00",
        b"null",
        b"[]",
        b"3",
        b'"text"',
        b"{}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"nbformat": 4}',
        b'{"nbformat": 99, "nbformat_minor": 5, "metadata": {}, "cells": []}',
        b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": "cells"}',
        b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": {"a": 1}}',
        b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [1, null]}',
        b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{}]}',
    ],
    ids=lambda content: repr(content[:40]),
)
def test_what_is_no_notebook_cannot_be_graded(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "nb.ipynb").write_bytes(content)
    with pytest.raises(CannotGrade, match=r"nb\.ipynb is not a") as raised:
        read_here(tmp_path, "nb")
    assert len(str(raised.value)) < 200
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("key", ["source", "metadata", "cell_type"])
@pytest.mark.parametrize("value", [None, 3, [1], {"a": 1}, [], {}, "<lost>"])
@pytest.mark.parametrize("at", [0, 2, 4])
def test_malformed_cells_cannot_be_graded_or_are_mended(
    hand_in: Callable[[Any], NotebookNode], key: str, value: Any, at: int
) -> None:
    work = released()
    work["cells"][at][key] = value
    if value == "<lost>":
        del work["cells"][at][key]
    with contextlib.suppress(CannotGrade):  # any other exception fails the test
        assert hand_in(work).cells


@pytest.mark.parametrize("mark", [None, 3, "x", [], {"grade_id": []}, {"grade_id": {"a": 1}}])
def test_malformed_marks_count_as_none(hand_in: Callable[[Any], NotebookNode], mark: Any) -> None:
    work = released()
    work["cells"][4]["metadata"]["nbgrader"] = mark
    work["cells"][0]["metadata"]["nbgrader"] = mark
    assert names(hand_in(work)) == names(nbformat.from_dict(released()))


def test_half_a_character_is_replaced(tmp_path: Path) -> None:
    for at in (0, 2):
        work = released()
        work["cells"][at]["source"] = "half a character: \ud800"
        (tmp_path / "nb.ipynb").write_text(json.dumps(work))
        found = read_here(tmp_path, "nb").cells[at].source
        assert found == "half a character: \ufffd"


def test_a_huge_notebook_cannot_be_graded(tmp_path: Path) -> None:
    with (tmp_path / "nb.ipynb").open("wb") as file:
        file.truncate(SIZE_LIMIT + 1)
    with pytest.raises(CannotGrade, match="64 MB"):
        read_here(tmp_path, "nb")


def test_a_missing_notebook_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_here(tmp_path, "nb")


def test_a_link_to_a_notebook_cannot_be_graded(tmp_path: Path) -> None:
    (tmp_path / "other").write_text(json.dumps(released()))
    (tmp_path / "nb.ipynb").symlink_to("other")
    with pytest.raises(CannotGrade, match="not a regular file"):
        read_here(tmp_path, "nb")


def test_many_cells_take_little_time(hand_in: Callable[[Any], NotebookNode]) -> None:
    work = released()
    work["cells"] = [cell("code", "x") for _ in range(3000)] + work["cells"]
    assert len(hand_in(work).cells) == 3010


# -- random changes ----------------------------------------------------------------------------

VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1e9, "", "text", "a", "a-check", "why", [], ["skip-execution"], {},
)  # fmt: skip


def mutate(work: Cell, chance: random.Random) -> None:
    """Make a random change, as a careless or crafty student might."""
    cells = work["cells"]
    some = chance.randrange(len(cells)) if cells else 0
    other = chance.randrange(len(cells)) if cells else 0
    known = [c["id"] for c in released()["cells"]]
    match chance.choice(
        ["drop", "copy", "move", "own", "name", "mark", "type", "source", "tag", "id", "top", "any"]
    ):
        case "own":
            kind = chance.choice(["code", "markdown", "raw"])
            cells.insert(some, cell(kind, f"own {chance.random()}"))
        case _ if not cells:
            return
        case "drop":
            del cells[some]
        case "copy":
            cells.insert(other, copy.deepcopy(cells[some]))
        case "move":
            cells.insert(other, cells.pop(some))
        case "name":
            marks = cells[some]["metadata"].setdefault("nbgrader", {})
            if isinstance(marks, dict):
                marks["grade_id"] = chance.choice(known)
        case "mark":
            marks = cells[some]["metadata"].get("nbgrader")
            if isinstance(marks, dict):
                key = chance.choice(["grade", "solution", "locked", "points", "grade_id", "task"])
                marks[key] = chance.choice(VALUES)
        case "type":
            cells[some]["cell_type"] = chance.choice(["code", "markdown", "raw"])
        case "source":
            cells[some]["source"] = f"edited {chance.random()}"
        case "tag":
            cells[some]["metadata"]["tags"] = chance.choice(VALUES)
        case "id":
            cells[some]["id"] = chance.choice([*known, "own-1", "x y", ""])
        case "top":
            work[chance.choice(["metadata", "nbformat_minor", "extra"])] = chance.choice(VALUES)
        case "any":
            key = chance.choice([*cells[some], "outputs", "attachments"])
            cells[some][key] = chance.choice(VALUES)
            if not isinstance(cells[some]["metadata"], dict):
                cells[some]["metadata"] = {}


def test_whatever_is_handed_in_is_restored_or_refused(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    release = nbformat.from_dict(released())
    known = set(names(release)) - {"-"}
    readable = 0
    for _ in range(150):
        work = released()
        for _ in range(chance.randrange(1, 12)):
            mutate(work, chance)
        (tmp_path / "nb.ipynb").write_text(json.dumps(work))
        try:
            submitted = read_here(tmp_path, "nb")
        except CannotGrade:
            continue
        readable += 1
        restored = restore(submitted, release)
        assert_sound(restored, release)
        seen = set()
        for each in submitted.cells:
            name = grade_id(each)
            if name in known and name not in seen and is_solution(by_name(release, name)):
                seen.add(name)
                official = by_name(release, name).source
                assert by_name(restored, name).source == each.source or each.source == official
        # Every cell was in the submission, as often, or is the release's.
        stands, stood = (Counter(c.source for c in b.cells) for b in (restored, submitted))
        assert not stands - stood - Counter(c.source for c in release.cells)
        # Only cells of the release are dropped.
        recognised = recognise(submitted, release)
        at = {match.at for match in recognised.cells.values()} | recognised.passed_over
        own = [c.source for number, c in enumerate(submitted.cells) if number not in at]
        assert [c.source for c in restored.cells if grade_id(c) is None] == own
        for number in recognised.passed_over:
            assert submitted.cells[number].source in {c.source for c in release.cells}
    assert readable > 50


@pytest.mark.parametrize("path", RELEASED, ids=lambda path: path.stem)
def test_a_released_notebook_handed_in_unchanged_is_itself(path: Path) -> None:
    release = nbformat.read(path, as_version=4)
    restored = restore(read_here(path.parent, path.stem), release)
    assert_sound(restored, release)
    assert [c.source for c in restored.cells] == [c.source for c in release.cells]
    assert names(restored) == names(release)


@pytest.mark.parametrize("path", RELEASED, ids=lambda path: path.stem)
def test_a_released_notebook_turned_upside_down_is_restored(path: Path) -> None:
    release = nbformat.read(path, as_version=4)
    work = nbformat.from_dict(release)
    work.cells = work.cells[::-1] + work.cells
    assert_sound(restore(work, release), release)
