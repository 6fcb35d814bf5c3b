"""Cells are recognised after an editor, a converter or a student has changed their marks."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

import nbformat
import pytest
from nbformat import NotebookNode

from autograder.engine.matching import recognise
from autograder.engine.notebook import (
    grade_id,
    in_order,
    is_autograded,
    is_solution,
    restore,
    solved,
    written,
)
from support.submissions import ASSIGNMENT, NOTEBOOKS, ROOT, source

FILTERS = NOTEBOOKS[0]


def release(name: str) -> NotebookNode:
    return nbformat.read(ROOT / "release" / ASSIGNMENT / f"{name}.ipynb", as_version=4)


def complete(name: str) -> NotebookNode:
    """A complete notebook, without the points and flags that only the release has."""
    return solved(source(name))


def at(notebook: NotebookNode, name: str) -> int:
    return next(i for i, cell in enumerate(notebook.cells) if grade_id(cell) == name)


def own(text: str, kind: str = "code") -> NotebookNode:
    """A cell created in an editor."""
    return NotebookNode(cell_type=kind, id="f00", metadata=NotebookNode(), source=text)


def without_comment(text: str) -> str:
    """A text without its leading comments, which people drop when they retype a cell."""
    lines = text.split("\n")
    while lines and lines[0].startswith("#"):
        del lines[0]
    return "\n".join(lines)


# -- changes by editors and converters -----------------------------------------------------------


def lose_marks(notebook: NotebookNode) -> None:
    for cell in notebook.cells:
        cell.metadata = NotebookNode()


def lose_marks_and_ids(notebook: NotebookNode) -> None:
    lose_marks(notebook)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"{number:08x}"


def lose_all_but_place(notebook: NotebookNode) -> None:
    """Drop marks and ids, and the comments of the solution cells."""
    mine = [cell for cell in notebook.cells if is_solution(cell) and cell.cell_type == "code"]
    lose_marks_and_ids(notebook)
    for cell in mine:
        cell.source = without_comment(cell.source)


def lose_the_solutions_marks(notebook: NotebookNode) -> None:
    """Retype the solution cells only, without their comments."""
    for number, cell in enumerate(notebook.cells):
        if is_solution(cell):
            cell.metadata, cell.id = NotebookNode(), f"{number:08x}"
            cell.source = without_comment(cell.source)


def name_as_in_an_older_release(notebook: NotebookNode) -> None:
    for number, cell in enumerate(notebook.cells):
        if name := grade_id(cell):
            cell.metadata.nbgrader.grade_id = f"{name}-2023"
            cell.source = cell.source if is_autograded(cell) else without_comment(cell.source)
        cell.id = f"{number:08x}"


def answer_under_the_stub(notebook: NotebookNode) -> None:
    """Put every answer into a new cell, without a comment; keep its stub."""
    stubs = written(release_of(notebook))
    for cell in list(notebook.cells):
        if is_solution(cell) and cell.cell_type == "code":
            notebook.cells.insert(notebook.cells.index(cell) + 1, own(without_comment(cell.source)))
            cell.source = stubs[str(grade_id(cell))]


def answer_under_the_check(notebook: NotebookNode) -> None:
    stubs = written(release_of(notebook))
    waiting: str | None = None
    for cell in list(notebook.cells):
        if is_solution(cell) and cell.cell_type == "code":
            waiting, cell.source = without_comment(cell.source), stubs[str(grade_id(cell))]
        elif is_autograded(cell) and waiting is not None:
            notebook.cells.insert(notebook.cells.index(cell) + 1, own(waiting))
            waiting = None


def answer_in_the_check(notebook: NotebookNode, instead: bool = False) -> None:
    """Put the answer into the grade cell, before its content or instead of it."""
    stubs = written(release_of(notebook))
    waiting: str | None = None
    for cell in notebook.cells:
        if is_solution(cell) and cell.cell_type == "code":
            waiting, cell.source = without_comment(cell.source), stubs[str(grade_id(cell))]
        elif is_autograded(cell) and waiting is not None:
            cell.source = waiting if instead else f"{waiting}\n\n{cell.source}"
            waiting = None


def answer_in_place_of_the_check(notebook: NotebookNode) -> None:
    answer_in_the_check(notebook, instead=True)


def release_of(notebook: NotebookNode) -> NotebookNode:
    marked = next(name for cell in notebook.cells if (name := grade_id(cell)))
    return next(r for r in map(release, NOTEBOOKS) if marked in map(grade_id, r.cells))


def merge(notebook: NotebookNode, names: list[str], into: NotebookNode) -> None:
    """Join cells to `into`, as Shift-M does."""
    for cell in [cell for cell in notebook.cells if grade_id(cell) in names]:
        into.source = f"{into.source}\n\n{cell.source}".strip()
        notebook.cells.remove(cell)


def code_cells(notebook: NotebookNode) -> list[str]:
    return [n for cell in notebook.cells if cell.cell_type == "code" and (n := grade_id(cell))]


def merge_each_with_the_next(notebook: NotebookNode) -> None:
    mine = [
        name for name in code_cells(notebook) if is_solution(notebook.cells[at(notebook, name)])
    ]
    for first, second in zip(mine[::2], mine[1::2], strict=False):
        names = code_cells(notebook)
        between = names[names.index(first) + 1 : names.index(second) + 1]
        merge(notebook, between, notebook.cells[at(notebook, first)])


def merge_all_into_the_first(notebook: NotebookNode) -> None:
    first, *others = written(notebook)
    merge(notebook, others, notebook.cells[at(notebook, first)])


def merge_all_into_a_new_cell(notebook: NotebookNode) -> None:
    """Leave the stubs where they are."""
    stubs = release_of(notebook)
    sources = [cell.source for cell in notebook.cells if grade_id(cell) in written(notebook)]
    notebook.cells = [*stubs.cells, own("\n".join(sources))]


def merge_the_whole_notebook(notebook: NotebookNode) -> None:
    whole = own("")
    merge(notebook, code_cells(notebook), whole)
    notebook.cells.append(whole)


WAYS = (
    *(merge_each_with_the_next, merge_all_into_the_first, merge_all_into_a_new_cell),
    merge_the_whole_notebook,
    *(lose_marks, lose_marks_and_ids, lose_all_but_place, lose_the_solutions_marks),
    *(name_as_in_an_older_release, answer_under_the_stub, answer_under_the_check),
    *(answer_in_the_check, answer_in_place_of_the_check),
)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_answer_is_found(name: str, way: Callable[[NotebookNode], None]) -> None:
    submitted, official = complete(name), release(name)
    wanted = {cell: without_comment(text) for cell, text in written(submitted).items()}
    way(submitted)
    restored = restore(submitted, official)
    found = {cell: without_comment(text) for cell, text in written(restored).items()}
    assert found == wanted
    # No cell of the release runs twice, and every other cell is the student's.
    ordered = in_order(restored, official)
    assert [grade_id(c) for c in ordered.cells if c.cell_type == "code"] == [
        grade_id(c) for c in official.cells if c.cell_type == "code"
    ]


def found_in(submitted: NotebookNode, name: str = FILTERS) -> dict[str, str]:
    return written(restore(submitted, release(name)))


def test_what_was_recognised_by_what_is_said() -> None:
    submitted = complete(FILTERS)
    submitted.cells[at(submitted, "ofe-04-edge-filter")].metadata = NotebookNode()
    graph = submitted.cells[at(submitted, "ofe-05-graph")]
    graph.metadata, graph.id = NotebookNode(), "abc"
    values = submitted.cells[at(submitted, "ofe-07-values")]
    values.metadata, values.id, values.source = NotebookNode(), "abd", "v = 1"
    assert recognise(submitted, release(FILTERS)).remarks == [
        "recognised without nbgrader's mark: OFE-04 by the cell's id; "
        "OFE-05 by the first comment; OFE-07 by the place"
    ]
    assert recognise(complete(FILTERS), release(FILTERS)).remarks == []


def merged(*texts: str) -> NotebookNode:
    """The release with these texts in the cell of Fig 4-2."""
    submitted = release(FILTERS)
    submitted.cells[at(submitted, "fig-4-2-blur")].source = "\n".join(texts)
    return submitted


BLUR, SUM = "# [Fig 4-2] two kernels that blur\nblur = 1", "# [Fig 4-3] the neighbourhood sum"


def test_where_a_merged_answer_was_found_is_said() -> None:
    submitted = merged("import os", BLUR, f"{SUM} \nn = 2")
    found = recognise(submitted, release(FILTERS))
    assert found.remarks == ["the answer to Fig 4-3 was found in the cell of Fig 4-2"]
    assert found.cells["fig-4-2-blur"].source == f"import os\n{BLUR}"
    assert found.cells["fig-4-3-neighbourhood-sum"].source == f"{SUM} \nn = 2"


@pytest.mark.parametrize(
    "text",
    [
        f'text = """\n{SUM}\n"""',
        f"def f():\n    x = 1\n{SUM}\n    return x",
        f"if True:\n    x = 1\n{SUM}\nelse:\n    x = 2",
        f"x = [\n{SUM}\n]",
        f"@property\n{SUM}\ndef f(self): pass",
        f"x = 1 + \\\n2 \\\n{SUM}",
        f"if True:\n    {SUM}\n    x = 1",
        f"{SUM}\nx = 1\n{SUM}\nx = 2",
    ],
)
def test_a_line_within_a_statement_or_one_that_comes_twice_splits_no_cell(text: str) -> None:
    submitted = merged(BLUR, text)
    assert found_in(submitted)["fig-4-2-blur"] == f"{BLUR}\n{text}"


@pytest.mark.parametrize(
    "text", ["x = (1", "x = 'a", "def f(:\n    pass", "!echo don't", "x = = 1"]
)
def test_a_mistake_in_one_answer_does_not_hide_the_next(text: str) -> None:
    found = found_in(merged(BLUR, text, f"{SUM}\nn = 2"))
    assert found["fig-4-2-blur"] == f"{BLUR}\n{text}"
    assert found["fig-4-3-neighbourhood-sum"] == f"{SUM}\nn = 2"


def test_an_answer_in_its_own_cell_counts_before_a_merged_copy() -> None:
    submitted = merged(BLUR, f"{SUM}\nn = 2")
    submitted.cells[at(submitted, "fig-4-3-neighbourhood-sum")].source = f"{SUM}\nn = 3"
    found = found_in(submitted)
    assert found["fig-4-3-neighbourhood-sum"] == f"{SUM}\nn = 3"
    assert found["fig-4-2-blur"] == f"{BLUR}\n{SUM}\nn = 2"


def test_several_merged_answers_are_named_together() -> None:
    submitted = complete(FILTERS)
    mine = ["fig-4-3-neighbourhood-sum", "ofe-04-edge-filter"]
    merge(submitted, mine, submitted.cells[at(submitted, "fig-4-2-blur")])
    assert recognise(submitted, release(FILTERS)).remarks == [
        "the answers to Fig 4-3, OFE-04 were found in the cell of Fig 4-2"
    ]


def test_a_copy_of_a_given_cell_in_an_answer_runs_there() -> None:
    given = release(FILTERS).cells[at(release(FILTERS), "fig-4-3-patch")].source
    assert found_in(merged(BLUR, given))["fig-4-2-blur"] == f"{BLUR}\n{given}"


def test_code_behind_a_merged_check_stays_with_the_answer() -> None:
    submitted = merged(BLUR)
    check = submitted.cells.pop(at(submitted, "fig-4-2-blur-check"))
    submitted.cells[at(submitted, "fig-4-2-blur")].source += f"\n{check.source}\nmore = 1"
    assert found_in(submitted)["fig-4-2-blur"] == f"{BLUR}\nmore = 1"


def test_the_label_alone_tells_under_another_title() -> None:
    submitted = complete(FILTERS)
    place = at(submitted, "ofe-05-graph")
    moved = submitted.cells.pop(place)
    submitted.cells.append(own("# [ofe-05]  my own graph\n" + without_comment(moved.source)))
    assert found_in(submitted)["ofe-05-graph"] == submitted.cells[-1].source


def test_a_label_of_two_cells_tells_nothing() -> None:
    submitted = complete(FILTERS)
    del submitted.cells[at(submitted, "fig-4-4-convolve")]
    submitted.cells.append(own("# [Fig 4-4] a try\nprint(1)"))
    official = written(release(FILTERS))
    assert found_in(submitted)["fig-4-4-convolve"] == official["fig-4-4-convolve"]


def test_a_scratch_cell_is_no_answer() -> None:
    """It defines no name in the stub or its check, or its cell is already done."""
    submitted = release(FILTERS)
    submitted.cells.insert(at(submitted, "ofe-05-graph") + 1, own("print(images.shape)"))
    submitted.cells.insert(at(submitted, "ofe-04-edge-filter") + 2, own("mine = 3"))
    assert found_in(submitted) == written(release(FILTERS))
    submitted = complete(FILTERS)
    submitted.cells.insert(at(submitted, "ofe-07-values") + 1, own("conv_vals = 0"))
    restored = restore(submitted, release(FILTERS))
    assert written(restored) == written(complete(FILTERS))
    assert sum(grade_id(cell) is None and cell.cell_type == "code" for cell in restored.cells) == 1


def test_what_stands_elsewhere_is_no_answer_of_a_cell_between_others() -> None:
    """An answer without a mark counts only at its cell's place, not among other cells."""
    submitted = release(FILTERS)
    submitted.cells.insert(1, own("filter_vals, conv_vals = 1, 2"))
    assert found_in(submitted) == written(release(FILTERS))


def test_helpers_above_an_answer_under_the_check_run_before_it() -> None:
    submitted = release(FILTERS)
    behind = at(submitted, "ofe-04-edge-filter-check") + 1
    submitted.cells[behind:behind] = [own("def helper(): pass"), own("edge_filter = helper")]
    official = release(FILTERS)
    order = [cell.source for cell in in_order(restore(submitted, official), official).cells]
    check = official.cells[at(official, "ofe-04-edge-filter-check")].source
    assert order.index("def helper(): pass") < order.index("edge_filter = helper")
    assert order.index("edge_filter = helper") < order.index(check)


def test_an_answer_in_the_grade_cell_beside_a_done_cell_is_named() -> None:
    submitted = complete(FILTERS)
    check = submitted.cells[at(submitted, "ofe-04-edge-filter-check")]
    check.source = "def edge_filter():\n    return 1\n\n" + check.source
    found = recognise(submitted, release(FILTERS))
    assert found.remarks == [
        "what was typed into the grade cell of OFE-04 does not count; write it into the cell above"
    ]
    assert (
        found.cells["ofe-04-edge-filter"].source
        == (written(complete(FILTERS))["ofe-04-edge-filter"])
    )


def remarks_on(changes: dict[str, Callable[[str], str]], submitted: NotebookNode) -> list[str]:
    for name, change in changes.items():
        cell = submitted.cells[at(submitted, name)]
        cell.source = change(cell.source)
    return recognise(submitted, release(FILTERS)).remarks


def test_what_was_added_to_locked_cells_is_named() -> None:
    changes = {
        "ofe-01-import": lambda text: f"{text}\nimport pandas as P_",
        "ofe-02-data": lambda text: f"def helper():\n    return 1\n\n{text}",
        "ofe-05-graph-check": lambda text: f"{text}\nmine = 1",
    }
    assert remarks_on(changes, complete(FILTERS)) == [
        "what was added to the locked cell of OFE-01, OFE-02, OFE-05 was not run; write code of "
        "your own in a cell of your own or in the answer's cell"
    ]


def test_of_another_release_only_what_the_student_uses_counts_as_added() -> None:
    changes = {
        "ofe-01-import": lambda text: text.replace(
            "import numpy as np", "import numpy as np, pandas as P_"
        ),
        "ofe-02-data": lambda text: f"{text}\nother = 1",
    }
    assert remarks_on(changes, complete(FILTERS)) == []
    submitted = complete(FILTERS)
    submitted.cells.append(own("P_.DataFrame()"))
    (remark,) = remarks_on(changes, submitted)
    assert remark.startswith("what was added to the locked cell of OFE-01 was not run")


def test_comments_white_space_and_magic_commands_are_nothing_added() -> None:
    changes = {
        name: lambda text: "%matplotlib inline\n# mine\n\n" + text.replace("\n", "  # x\n\n") + " "
        for name in ("ofe-01-import", "ofe-02-data", "fig-4-3-patch")
    }
    assert remarks_on(changes, complete(FILTERS)) == []
    behind = {"ofe-01-import": lambda text: f"{text}\n# mine"}
    assert remarks_on(behind, complete(FILTERS)) == []
    for name in NOTEBOOKS:
        assert recognise(release(name), release(name)).remarks == []


def test_a_grade_cell_of_another_release_is_no_answer() -> None:
    submitted = release(FILTERS)
    for cell in submitted.cells:
        if is_autograded(cell):
            cell.source = cell.source.replace("expect", "see_that").replace("(", "( ")
    assert found_in(submitted) == written(release(FILTERS))


def test_an_answer_to_a_written_question_is_found_by_its_place() -> None:
    name = NOTEBOOKS[4]
    submitted = release(name)
    question = submitted.cells[at(submitted, "mdr-08-background")]
    question.metadata, question.id, question.source = NotebookNode(), "q", "Zero padding."
    restored = restore(submitted, release(name))
    assert restored.cells[at(restored, "mdr-08-background")].source == "Zero padding."


@pytest.mark.parametrize("text", ["", "x = 1", "# [OFE-05] from images to pooled feature maps"])
def test_thousands_of_cells_take_little_time(text: str) -> None:
    submitted, official = complete(FILTERS), release(FILTERS)
    names = " = ".join(["x", "h_conv", "h_pool", "filter_vals", "conv_vals", "fig", "pool_vals"])
    lines = "\n".join(line for cell in official.cells for line in cell.source.split("\n"))[:400]
    more = [own(f"{text}\n{names} = {n}\n{lines}") for n in range(4900)]
    submitted.cells[10:10] = copy.deepcopy(more)
    lose_marks_and_ids(submitted)
    started = time.process_time()
    restore(submitted, official)
    assert time.process_time() - started < 10


def test_a_long_line_takes_little_time() -> None:
    submitted = release(FILTERS)
    here = at(submitted, "ofe-05-graph") + 1
    for text in (
        "a," * 1_000_000,
        "for " * 500_000,
        " " * 2_000_000 + "x",
        "x:" * 1_000_000,
        "\n" * 2_000_000,
        f"x\n{SUM}\n" + " " * 390_000 + "$",
        f"x\n{SUM}\n'''" + "\n" * 390_000,
    ):
        submitted.cells.insert(here, own(text))
    started = time.process_time()
    recognise(submitted, release(FILTERS))
    assert time.process_time() - started < 10
