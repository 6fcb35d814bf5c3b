"""The release follows from `source/`, runs as it is, and contains no secrets."""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from autograder.checks import check
from autograder.course import Course, checks_for
from autograder.engine.notebook import (
    grade_id,
    is_autograded,
    is_manual,
    is_solution,
    label,
    solved,
)
from autograder.errors import UserError
from autograder.record.gradebook import Gradebook
from autograder.release import leaks, source_notebooks

ROOT = Path(__file__).parents[1]
NAME = "ch4-cnn"
SOURCES = sorted((ROOT / "source" / NAME).glob("*.ipynb"))
RELEASED = sorted((ROOT / "release" / NAME).glob("*.ipynb"))

named = pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
released = pytest.mark.parametrize("path", RELEASED, ids=lambda path: path.stem)


def copied(to: Path, *folders: str) -> Course:
    """Make a separate course with these folders of the kit."""
    shutil.copy(ROOT / "nbgrader_config.py", to)
    for folder in folders:
        shutil.copytree(
            ROOT / folder / NAME,
            to / folder / NAME,
            ignore=shutil.ignore_patterns("__pycache__", ".*"),
        )
    return Course.at(to)


def contents(folder: Path) -> dict[str, bytes]:
    """Path → content of all files below a folder, without Python's and Jupyter's caches."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not {"__pycache__", ".ipynb_checkpoints"} & set(path.parts)
    }


def code(path: Path) -> list[NotebookNode]:
    return [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]


# -- the committed release ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Course:
    """A course whose release nbgrader has just made from our source."""
    course = copied(tmp_path_factory.mktemp("course"), "source")
    Gradebook(course).generate_release(NAME)
    return course


def test_the_release_is_what_the_source_gives(made: Course) -> None:
    committed, fresh = contents(ROOT / "release" / NAME), contents(made.release(NAME))
    assert sorted(committed) == sorted(fresh)
    stale = [name for name in fresh if fresh[name] != committed[name]]
    assert stale == [], "run `autograder release ch4-cnn`"


def test_a_release_that_cannot_be_made_leaves_the_one_before(tmp_path: Path) -> None:
    course = copied(tmp_path, "source")
    gradebook = Gradebook(course)
    gradebook.generate_release(NAME)
    with gradebook.database() as database:
        database.add_student("ada")
        database.add_submission(NAME, "ada")
    path = course.source(NAME) / SOURCES[0].name
    notebook = nbformat.read(path, as_version=4)
    (check,) = [cell for cell in notebook.cells if cell.id == "fig-4-2-blur-check"]
    notebook.cells.remove(check)
    nbformat.write(notebook, path)
    before = contents(course.release(NAME))
    with pytest.raises(UserError, match=r"give it its old cells back, or move gradebook\.db away"):
        gradebook.generate_release(NAME)
    assert contents(course.release(NAME)) == before


def test_making_the_release_changes_no_source(made: Course) -> None:
    assert contents(made.source(NAME)) == contents(ROOT / "source" / NAME)


def test_nothing_leaks_from_the_release() -> None:
    assert leaks(Course.at(ROOT), NAME) == []


def test_there_are_five_notebooks() -> None:
    assert [p.name for p in SOURCES] == [p.name for p in RELEASED]
    assert len(SOURCES) == 5


@released
def test_every_code_cell_of_the_release_parses(path: Path) -> None:
    for cell in code(path):
        ast.parse(cell.source)


@named
def test_every_code_cell_of_the_source_and_its_solution_parses(path: Path) -> None:
    notebook = solved(nbformat.read(path, as_version=4))
    for cell in notebook.cells:
        if cell.cell_type == "code":
            ast.parse(cell.source)
        assert "SOLUTION" not in cell.source


def what_is_raised(source: str) -> list[tuple[str, object]]:
    """The name and the message of each exception that the source raises."""
    found: list[tuple[str, object]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Raise):
            assert isinstance(node.exc, ast.Call)
            assert isinstance(node.exc.func, ast.Name)
            assert isinstance(node.exc.args[0], ast.Constant)
            found.append((node.exc.func.id, node.exc.args[0].value))
    return found


@released
def test_each_stub_names_its_cell_and_raises(path: Path) -> None:
    stubs = [cell for cell in code(path) if is_solution(cell)]
    assert stubs
    for cell in stubs:
        raised = what_is_raised(cell.source)
        messages = [message for _, message in raised]
        wanted = f"TODO [{label(str(grade_id(cell)))}]: not done yet"
        assert messages.count(wanted) >= 1, cell.id
        assert set(messages) == {wanted}, cell.id
        assert {name for name, _ in raised} == {"NotImplementedError"}


@released
def test_cells_of_the_release_have_no_outputs_and_what_is_given_is_locked(path: Path) -> None:
    for cell in code(path):
        assert cell.outputs == []
        assert cell.execution_count is None
        assert cell.metadata.nbgrader.locked is not is_solution(cell)


@named
def test_cells_are_named_as_other_tools_expect(path: Path) -> None:
    names = []
    for cell in nbformat.read(path, as_version=4).cells:
        name = grade_id(cell)
        if name is None:
            continue
        names.append(name)
        assert re.fullmatch(r"(fig-\d-\d+|o[fcd]e-\d\d|md[cr]-\d\d)(-[a-z]+)*", name)
        assert name.endswith("-check") == is_autograded(cell)
        if is_solution(cell) and cell.cell_type == "code":
            assert "### BEGIN SOLUTION" in cell.source
            assert "### END SOLUTION" in cell.source
    assert len(names) == len(set(names))


@released
def test_every_grade_cell_has_points_and_hidden_checks(path: Path) -> None:
    text = checks_for(NAME, path.stem).module.read_text()
    graded = [c for c in nbformat.read(path, as_version=4).cells if is_autograded(c)]
    assert graded
    for cell in graded:
        assert cell.metadata.nbgrader.points > 0
        assert f'@grade_cell("{grade_id(cell)}")' in text
    bound = re.findall(r'@grade_cell\("([^"]+)"\)', text)
    assert sorted(bound) == sorted(str(grade_id(c)) for c in graded)


def test_exactly_one_question_is_graded_by_hand() -> None:
    cells = [c for path in RELEASED for c in nbformat.read(path, as_version=4).cells]
    assert [grade_id(c) for c in cells if is_manual(c)] == ["mdr-08-background"]


# -- finding leaks -----------------------------------------------------------------------------

Plant = Callable[[Course], None]


def edit(course: Course, name: str, change: Callable[[NotebookNode], None]) -> None:
    path = course.release(NAME) / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    change(notebook)
    nbformat.write(notebook, path)


def a_solution_line(course: Course, name: str = SOURCES[3].stem) -> str:
    """A distinctive line of a solution."""
    for cell in nbformat.read(course.source(NAME) / f"{name}.ipynb", as_version=4).cells:
        inside = cell.source.partition("### BEGIN SOLUTION\n")[2].partition("### END")[0]
        for line in inside.splitlines():
            if len(line.strip()) > 30:
                return str(line)
    raise AssertionError("no solution")


def a_hidden(part: str) -> str:
    """A title or a hint of some hidden check; both are literals in calls of `check`."""
    text = checks_for(NAME, SOURCES[0].stem).module.read_text()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == check.__name__:
            values = [*node.args, *(k.value for k in node.keywords if k.arg == "hint")]
            return str(values[0 if part == "title" else 1].value)  # type: ignore[attr-defined]
    raise AssertionError("no check")


def plant_line(course: Course) -> None:
    line = a_solution_line(course)
    edit(course, "1-orenist-filter", lambda nb: nb.cells[-1].update(source=f"x\n{line}\ny"))


def plant_reformatted_line(course: Course) -> None:
    line = a_solution_line(course).strip().replace(" ", "   ").replace("=", " = ")
    edit(course, "2-orenist-classification", lambda nb: nb.cells[1].update(source="  " + line))


def plant_line_beside(course: Course) -> None:
    with (course.release(NAME) / "visible_checks.py").open("a") as file:
        file.write(f"\n# {a_solution_line(course)}\n{a_solution_line(course)}\n")


def plant_output(course: Course) -> None:
    output = nbformat.v4.new_output("stream", text="0.98")
    edit(course, "4-mnist-training", lambda nb: code_of(nb)[2].outputs.append(output))


def code_of(notebook: NotebookNode) -> list[NotebookNode]:
    return [c for c in notebook.cells if c.cell_type == "code"]


def plant_marker(course: Course) -> None:
    edit(
        course, "3-orenist-dynamic-filter", lambda nb: nb.cells[2].update(source="### END SOLUTION")
    )


def plant_hidden_tests(course: Course) -> None:
    edit(course, "3-orenist-dynamic-filter", lambda nb: nb.cells[2].update(source="# HIDDEN TESTS"))


def plant_hint(course: Course) -> None:
    edit(course, "5-mnist-filters", lambda nb: nb.cells[0].update(source=a_hidden("hint")))


def plant_title_in_metadata(course: Course) -> None:
    def change(notebook: NotebookNode) -> None:
        notebook.cells[0].metadata["note"] = a_hidden("title")

    edit(course, "1-orenist-filter", change)


def plant_text_file(course: Course) -> None:
    (course.release(NAME) / "notes.md").write_text(f"Think: {a_hidden('hint')}")


def plant_uncleared_cell(course: Course) -> None:
    """Add an uncleared solution cell without markers, all of which is a solution."""
    path = course.source(NAME) / "1-orenist-filter.ipynb"
    for where in (path, course.release(NAME) / path.name):
        notebook = nbformat.read(where, as_version=4)
        cell = next(c for c in notebook.cells if is_solution(c))
        cell.source = "entirely = 'the solution of an exercise'"
        nbformat.write(notebook, where)


@pytest.mark.parametrize(
    ("plant", "word"),
    [
        (plant_line, "1-orenist-filter.ipynb: solution line"),
        (plant_reformatted_line, "2-orenist-classification.ipynb: solution line"),
        (plant_line_beside, "visible_checks.py: solution line"),
        (plant_output, "4-mnist-training.ipynb: cell"),
        (plant_marker, "3-orenist-dynamic-filter.ipynb: marker '### END SOLUTION'"),
        (plant_hidden_tests, "3-orenist-dynamic-filter.ipynb: marker 'HIDDEN TEST'"),
        (plant_hint, "5-mnist-filters.ipynb: hidden text"),
        (plant_title_in_metadata, "1-orenist-filter.ipynb: hidden text"),
        (plant_text_file, "notes.md: hidden text"),
        (plant_uncleared_cell, "1-orenist-filter.ipynb: solution line"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_planted_is_found(tmp_path: Path, plant: Plant, word: str) -> None:
    course = copied(tmp_path, "source", "release")
    assert leaks(course, NAME) == []
    plant(course)
    found = leaks(course, NAME)
    assert found
    assert all(word in each for each in found), found


@named
def test_a_source_copied_whole_is_found(tmp_path: Path, path: Path) -> None:
    course = copied(tmp_path, "source", "release")
    shutil.copy(path, course.release(NAME))
    found = leaks(course, NAME)
    assert any("solution line" in each for each in found)
    assert any("marker" in each for each in found)


@named
def test_each_solution_line_would_be_found(tmp_path: Path, path: Path) -> None:
    # Solved but without markers, so only the lines themselves give it away.
    course = copied(tmp_path, "source", "release")
    nbformat.write(solved(nbformat.read(path, as_version=4)), course.release(NAME) / path.name)
    solutions = sum(is_solution(c) for c in code(path))
    assert len([each for each in leaks(course, NAME) if "solution line" in each]) >= solutions


def test_an_assignment_without_notebooks_is_an_error(tmp_path: Path) -> None:
    course = copied(tmp_path, "source")
    with pytest.raises(UserError, match=f"no assignment ch9 in .*; there is {NAME}"):
        source_notebooks(course, "ch9")
    (course.release("ch8")).mkdir(parents=True)
    (course.release("ch8") / "1.ipynb").write_text("{}", "utf-8")
    with pytest.raises(UserError, match="source/ch8 holds no notebooks"):
        source_notebooks(course, "ch8")


# -- labels ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("ofe-04-edge-filter", "OFE-04"),
        ("mdc-03-graph", "MDC-03"),
        ("oce-05", "OCE-05"),
        ("fig-4-3-neighbourhood-sum", "Fig 4-3"),
        ("fig-4-10-shapes", "Fig 4-10"),
    ],
)
def test_labels_are_those_of_the_lecture(name: str, wanted: str) -> None:
    assert label(name) == wanted


def test_solved_leaves_the_source_as_it_was() -> None:
    source = nbformat.read(SOURCES[0], as_version=4)
    before = nbformat.writes(source)
    done = solved(source)
    assert nbformat.writes(source) == before
    assert len(done.cells) == len(source.cells)
    assert not any("NotImplementedError" in c.source for c in done.cells if is_solution(c))
