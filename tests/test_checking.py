"""Running hidden checks with pytest and counting points, whatever checks and kernels do."""

from __future__ import annotations

import itertools
import os
import re
import sys
import textwrap
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest

from autograder.checks import Setup
from autograder.engine.checking import Checking, points_of, run_checks
from autograder.engine.fixtures import seeded
from autograder.engine.results import CellResult, NotebookResult
from autograder.engine.values import KernelLost
from autograder.errors import GraderFault, UserError

HEAD = """
import numpy as np
import pytest
from autograder.checks import check, grade_cell
from autograder.engine.values import NoValue
"""
_number = itertools.count()


class FakeRun:
    """A stand-in for a notebook with known values at each grade cell; records who asked."""

    def __init__(self, **values: Any) -> None:
        self.values = values
        self.asked: list[str] = []
        self.notebook = nbformat.v4.new_notebook()

    def values_at(self, cell: str) -> Any:
        self.asked.append(cell)
        value = self.values.get(cell.replace("-", "_"), cell)
        if isinstance(value, Exception):
            raise value
        return value


class Outcome:
    """The result of a module of checks: cells by id, the log, and the run that it asked."""

    def __init__(self, cells: list[CellResult], log: str, run: FakeRun) -> None:
        self.cells = {cell.cell: cell for cell in cells}
        self.order = [cell.cell for cell in cells]
        self.log, self.run = log, run

    def hints(self, cell: str) -> list[str]:
        return [check.hint for check in self.cells[cell].checks]


Grade = Callable[..., Outcome]


@pytest.fixture
def grade(tmp_path: Path) -> Grade:
    """Run checks given as source text; `points` per grade cell."""

    def run(
        source: str,
        points: dict[str, float],
        values: FakeRun | None = None,
        secret: bytes = b"s",
        key: str = "key",
        name: str = "",
        **more: Any,
    ) -> Outcome:
        # Imported modules are cached by name, so each gets its own.
        module = tmp_path / (name or f"test_made_up_{next(_number)}.py")
        module.write_text(HEAD + textwrap.dedent(source))
        fake = values or FakeRun()
        plugin = Checking(
            fake,  # type: ignore[arg-type]
            "the submission",  # type: ignore[arg-type]
            "the scratch folder",  # type: ignore[arg-type]
            tmp_path / "given",
            points,
            secret,
            key,
            **more,
        )
        cells, log = run_checks(module, plugin)
        return Outcome(cells, log, fake)

    return run


TWO = """
@grade_cell("b-check")
class TestB:
    @check("b holds", hint="think of b", weight=3)
    def test_holds(self, values):
        assert values == "b-check"

    @check("b fails", hint="think again")
    def test_fails(self, values):
        assert values == "something else"


@grade_cell("a-check")
class TestA:
    @check("a holds", hint="think of a")
    def test_holds(self, values):
        assert values == "a-check"
"""


def test_outcomes_become_points(grade: Grade) -> None:
    outcome = grade(TWO, {"a-check": 2, "b-check": 4})
    a, b = outcome.cells["a-check"], outcome.cells["b-check"]
    assert (a.points, a.max_points) == (2, 2)
    assert (b.points, b.max_points) == (3, 4)
    assert [(c.id, c.title, c.passed, c.hint, c.weight) for c in b.checks] == [
        ("test_holds", "b holds", True, "", 3.0),
        ("test_fails", "b fails", False, "think again", 1.0),
    ]


@pytest.mark.parametrize("order", [["a-check", "b-check"], ["b-check", "a-check"]])
def test_the_kernel_is_asked_in_the_order_of_the_notebook(grade: Grade, order: list[str]) -> None:
    outcome = grade(TWO, dict.fromkeys(order, 1.0))
    assert outcome.order == order
    assert outcome.run.asked == order  # once for each cell, however many checks it has


def test_inherited_and_parametrised_checks_count(grade: Grade) -> None:
    outcome = grade(
        """
        class Shared:
            wanted = 0

            @check("inherited", hint="h")
            def test_shared(self):
                assert self.wanted == 1

        @grade_cell("a-check")
        class TestA(Shared):
            wanted = 1

        @grade_cell("b-check")
        class TestB(Shared):
            @pytest.mark.parametrize("number", [1, 2, 3])
            @check("each", hint="h")
            def test_each(self, number):
                assert number < 3
        """,
        {"a-check": 1, "b-check": 4},
    )
    assert outcome.cells["a-check"].points == 1
    assert outcome.cells["b-check"].points == 2
    assert len(outcome.cells["b-check"].checks) == 4


def test_the_fixtures_give_what_belongs_to_the_submission(grade: Grade, tmp_path: Path) -> None:
    outcome = grade(
        f"""
        @grade_cell("a-check")
        class TestA:
            @check("all there", hint="h")
            def test_fixtures(self, values, submission, scratch, given, rng, prepared_rng):
                assert values == "a-check"
                assert submission == "the submission"
                assert scratch == "the scratch folder"
                assert str(given) == {str(tmp_path / "given")!r}
                assert isinstance(rng, np.random.Generator)
                assert isinstance(prepared_rng, np.random.Generator)
        """,
        {"a-check": 1},
    )
    assert outcome.cells["a-check"].points == 1, outcome.log


# -- missing values ----------------------------------------------------------------------------


def test_the_reason_for_no_value_replaces_the_hint(grade: Grade) -> None:
    outcome = grade(
        """
        @grade_cell("a-check")
        class TestA:
            @check("in the check", hint="h")
            def test_call(self):
                raise NoValue("h_pool is not there")

            @pytest.fixture
            def broken(self):
                raise NoValue("x raised ValueError")

            @check("in a fixture", hint="h")
            def test_setup(self, broken):
                pass

            @check("not at all", hint="h")
            def test_fine(self):
                pass
        """,
        {"a-check": 3},
    )
    assert outcome.hints("a-check") == ["h_pool is not there", "x raised ValueError", ""]
    assert outcome.cells["a-check"].points == 1


def test_a_mistake_that_is_known_replaces_the_hint(grade: Grade) -> None:
    outcome = grade(
        """
        from autograder.checks import diagnose

        def judge(answer):
            diagnose(
                answer == 4,
                (lambda: answer < 0, "the sign is the wrong way round"),
                (lambda: abs(answer) > 4, lambda: f"too large by {answer - 4}"),
            )

        @grade_cell("a")
        class TestA:
            @check("right", hint="think")
            def test_right(self):
                judge(4)

            @check("first known mistake", hint="think")
            def test_first(self):
                judge(-5)

            @check("second known mistake", hint="think")
            def test_second(self):
                judge(5)

            @check("unknown mistake", hint="think")
            def test_unknown(self):
                judge(1)
        """,
        {"a": 4.0},
    )
    assert outcome.hints("a") == ["", "the sign is the wrong way round", "too large by 1", "think"]
    assert outcome.cells["a"].points == 1.0
    assert not any(check.raised for check in outcome.cells["a"].checks)


def test_a_fault_of_the_engine_is_no_mistake_of_the_student(grade: Grade) -> None:
    run = FakeRun(a_check=AttributeError("a slip of ours"))
    source = """
    @grade_cell("a-check")
    class TestA:
        @check("right", hint="look again")
        def test_it(self, values):
            assert values
    """
    with pytest.raises(GraderFault, match="AttributeError: a slip of ours"):
        grade(source, {"a-check": 1.0}, run)


def test_what_the_grader_could_not_read_in_time_is_no_mistake_of_the_student(grade: Grade) -> None:
    source = """
    from autograder.errors import GraderFault

    @grade_cell("a-check")
    class TestA:
        @check("right", hint="look again")
        def test_it(self):
            raise GraderFault("reading took too long")
    """
    with pytest.raises(GraderFault, match="reading took too long"):
        grade(source, {"a-check": 1.0})


def test_a_lost_kernel_fails_its_cells_and_no_other(grade: Grade) -> None:
    source = """
    @grade_cell("a-check")
    class TestA:
        @check("a", hint="h")
        def test_a(self, values):
            pass

    @grade_cell("b-check")
    class TestB:
        @check("b1", hint="h")
        def test_b1(self, values):
            pass

        @check("b2", hint="h")
        def test_b2(self, values):
            pass

    @grade_cell("c-check")
    class TestC:
        @check("needs no kernel", hint="h")
        def test_c(self, submission):
            pass
    """
    run = FakeRun(b_check=KernelLost("the kernel ended in cell b"))
    outcome = grade(source, {"a-check": 1, "b-check": 2, "c-check": 1}, run)
    assert [cell.points for cell in outcome.cells.values()] == [1, 0, 1]
    assert outcome.hints("b-check") == ["the kernel ended in cell b"] * 2


def test_an_unexpected_exception_fails_its_check_and_stays_in_the_log(grade: Grade) -> None:
    outcome = grade(
        """
        @grade_cell("a-check")
        class TestA:
            @check("breaks", hint="think", weight=2)
            def test_breaks(self):
                {}["a hidden value"]

            @check("runs on", hint="h")
            def test_fine(self):
                pass
        """,
        {"a-check": 3},
    )
    assert outcome.hints("a-check") == ["think", ""]
    assert outcome.cells["a-check"].points == 1
    assert "test_breaks: KeyError: 'a hidden value'" in outcome.log


BROKEN = """
@grade_cell("a-check")
class TestA:
    @check("one", hint="think")
    def test_one(self):
        {}

    @check("two", hint="h")
    def test_two(self):
        pass
"""


@pytest.mark.parametrize(
    ("statement", "raised"),
    [
        ("pytest.fail('no')", ""),
        ("assert False", ""),
        ("assert np.array([1, 2]) == 1", "ValueError"),
        ("np.zeros(2) + np.zeros(3)", "ValueError"),
        ("[1, 2][2]", "IndexError"),
        ("{}['hidden']", "KeyError"),
        ("len(3)", "TypeError"),
        ("None.shape", "AttributeError"),
        ("1 / 0", "ZeroDivisionError"),
        ("raise RecursionError", "RecursionError"),
        ("raise UnicodeError", "UnicodeError"),
    ],
)
def test_a_check_that_breaks_at_a_value_has_failed_and_says_so(
    grade: Grade, statement: str, raised: str
) -> None:
    outcome = grade(BROKEN.format(statement), {"a-check": 2})
    one, two = outcome.cells["a-check"].checks
    assert (one.passed, one.hint, one.raised) == (False, "think", raised)
    assert (two.passed, two.raised) == (True, "")
    result = NotebookResult("n", "graded", cells=list(outcome.cells.values()))
    lines = [f"the check test_one of a-check raised {raised}"] if raised else []
    assert result.raised == lines
    checks = result.to_json()["cells"][0]["checks"]
    assert [check.get("raised", "") for check in checks] == [raised, ""]


OURS = {
    "raise OSError(28, 'No space left on device', '/tmp/x')": "its disk is full: make room",
    "raise OSError(24, 'Too many open files')": "OSError: Too many open files",
    "open('/nowhere/at/all')": "FileNotFoundError: No such file or directory$",
    "raise OSError('a reason of its own')": "OSError$",
    "raise MemoryError": "MemoryError",
    "import no_such_module": "ModuleNotFoundError$",
    "no_such_name": "NameError$",
    "raise UserWarning('old')": "UserWarning$",
    "raise SystemExit(0)": "SystemExit",
    "raise GeneratorExit": "GeneratorExit",
    "pytest.skip('later')": "Skipped",
    "pytest.xfail('known')": "XFailed",
}


@pytest.mark.parametrize("statement", OURS)
def test_what_no_value_can_cause_is_the_graders_fault(grade: Grade, statement: str) -> None:
    with pytest.raises(GraderFault, match=f"^test_one: {OURS[statement]}"):
        grade(BROKEN.format(statement), {"a-check": 2})


FIXTURE = """
@grade_cell("a-check")
class TestA:
    @pytest.fixture(scope={scope!r})
    def thing(self{asks}):
        {body}

    @check("one", hint="h")
    def test_one(self, thing):
        pass
"""


@pytest.mark.parametrize(
    ("scope", "asks", "body"),
    [
        ("function", ", never_heard_of", "pass"),
        ("module", ", values", "pass"),  # a class's, for a module
        ("function", "", "raise OSError"),
        ("function", "", "raise MemoryError"),
        ("function", "", "pytest.skip('not here')"),
        ("function", "", "yield; raise OSError('cannot remove')"),
    ],
)
def test_a_fixture_that_breaks_is_the_graders_fault(
    grade: Grade, scope: str, asks: str, body: str
) -> None:
    with pytest.raises(GraderFault, match=r"^test_one: "):
        grade(FIXTURE.format(scope=scope, asks=asks, body=body), {"a-check": 1})


def test_a_fixture_that_breaks_at_a_value_fails_its_checks(grade: Grade) -> None:
    source = FIXTURE.format(scope="function", asks="", body="np.zeros(2) + np.zeros(3)")
    (one,) = grade(source, {"a-check": 1}).cells["a-check"].checks
    assert (one.passed, one.raised) == (False, "ValueError")


@pytest.mark.parametrize("mark", ["skip(reason='later')", "skipif(True, reason='x')", "xfail"])
def test_a_check_that_was_not_asked_is_no_failed_one(grade: Grade, mark: str) -> None:
    source = BROKEN.format("assert False").replace(
        "    @check", f"    @pytest.mark.{mark}\n    @check", 1
    )
    with pytest.raises(GraderFault, match=r"^test_one: "):
        grade(source, {"a-check": 2})


def test_nothing_is_checked_after_a_fault(grade: Grade, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    later = TWO.partition('@grade_cell("a-check")')[0].replace(
        "assert", f"open({str(ran)!r}, 'w');"
    )
    source = BROKEN.format("raise MemoryError") + later
    with pytest.raises(GraderFault):
        grade(source, {"a-check": 1, "b-check": 1})
    assert not ran.exists()
    grade(source.replace("raise MemoryError", "pass"), {"a-check": 1, "b-check": 1})
    assert ran.exists()


def test_pytest_that_breaks_is_the_graders_fault(
    grade: Grade, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_it(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Checking, "_hint", break_it)
    with pytest.raises(GraderFault, match=r"^pytest broke: MemoryError"):
        grade(BROKEN.format("assert False"), {"a-check": 2})


def test_a_module_that_the_machine_cannot_read_is_the_graders_fault(grade: Grade) -> None:
    with pytest.raises(GraderFault, match="the checks could not be read: MemoryError"):
        grade("raise MemoryError", {"a-check": 1})


def test_a_check_that_fails_when_taken_down_has_passed_once(grade: Grade) -> None:
    source = FIXTURE.format(scope="function", asks="", body="yield; raise ValueError")
    outcome = grade(source, {"a-check": 1})
    assert [c.passed for c in outcome.cells["a-check"].checks] == [True]


def test_what_the_checks_print_is_not_printed(
    grade: Grade, capfd: pytest.CaptureFixture[str]
) -> None:
    source = """
    @grade_cell("a-check")
    class TestA:
        @check("a", hint="h")
        def test_a(self):
            print("a hidden value")
            assert False
    """
    grade(source, {"a-check": 1})
    out, err = capfd.readouterr()
    assert "hidden" not in out + err
    assert "FAILURES" not in out + err


# -- mistakes of the instructor ----------------------------------------------------------------


def test_a_cell_without_checks_is_an_error(grade: Grade) -> None:
    with pytest.raises(UserError, match=r"no checks for c-check, d-check"):
        grade(TWO, {"a-check": 1, "b-check": 1, "c-check": 1, "d-check": 1})


def test_a_check_of_an_unknown_cell_is_an_error(grade: Grade) -> None:
    with pytest.raises(UserError, match="TestB::test_holds is not a check of a grade cell"):
        grade(TWO, {"a-check": 1})


@pytest.mark.parametrize(
    "source",
    [
        """
        @grade_cell("a-check")
        class TestA:
            def test_unmarked(self):
                pass
        """,
        """
        @check("on its own", hint="h")
        def test_alone():
            pass
        """,
    ],
)
def test_a_test_that_is_no_check_is_an_error(grade: Grade, source: str) -> None:
    with pytest.raises(UserError, match="is not a check of a grade cell"):
        grade(source, {"a-check": 1})


@pytest.mark.parametrize(
    ("source", "detail"),
    [
        ("import no_such_module", "no_such_module"),
        ("def broken(:", "SyntaxError"),
        ("raise RuntimeError('by hand')", "by hand"),
        ("", "NO_TESTS_COLLECTED"),
    ],
)
def test_a_module_that_cannot_be_read_is_an_error_that_says_why(
    grade: Grade, source: str, detail: str
) -> None:
    with pytest.raises(UserError) as raised:
        grade(source, {"a-check": 1})
    assert re.match(r"the checks in test_made_up_\d+\.py could not be run", str(raised.value))
    assert detail in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_surroundings_configure_nothing(
    grade: Grade, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for folder in (tmp_path, elsewhere):
        (folder / "pytest.ini").write_text("[pytest]\naddopts = --collect-only\n")
        (folder / "pyproject.toml").write_text("[tool.pytest.ini_options]\naddopts='-k nothing'\n")
    (elsewhere / "conftest.py").write_text("raise RuntimeError('read')")
    monkeypatch.chdir(elsewhere)
    assert grade(TWO, {"a-check": 1, "b-check": 1}).cells["a-check"].points == 1
    assert sorted(os.listdir(elsewhere)) == ["conftest.py", "pyproject.toml", "pytest.ini"]


def test_the_environment_tells_pytest_nothing(
    grade: Grade, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "-k nothing --no-such-option")
    monkeypatch.setenv("PYTEST_PLUGINS", "no_such_plugin")
    before = dict(os.environ)
    assert grade(TWO, {"a-check": 1, "b-check": 1}).cells["a-check"].points == 1
    assert dict(os.environ) == before


def test_a_warning_costs_no_point_however_strict_python_is(grade: Grade) -> None:
    source = BROKEN.format("import warnings; warnings.warn('old')")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert grade(source, {"a-check": 1}).cells["a-check"].points == 1


# -- random numbers ----------------------------------------------------------------------------


def draw(generator: np.random.Generator) -> tuple[int, ...]:
    return tuple(int(n) for n in generator.integers(0, 2**62, 4))


def test_seeded_depends_on_secret_and_parts_and_on_nothing_else() -> None:
    assert draw(seeded(b"s", "key", "part")) == draw(seeded(b"s", "key", "part"))
    np.random.seed(1)
    cases: list[tuple[bytes, *tuple[str, ...]]] = [
        (b"s", "key", "part"),
        (b"t", "key", "part"),
        (b"s", "kez", "part"),
        (b"s", "key", "parT"),
        (b"s", "keyp", "art"),
        (b"s", "part", "key"),
        (b"s", "key"),
        (b"s",),
        (b"", "key", "part"),
    ]
    assert len({draw(seeded(*case)) for case in cases}) == len(cases)


def test_seeded_gives_these_numbers_for_ever() -> None:
    # A regrade after an update must draw the same numbers as before.
    assert int(seeded(b"secret", "key", "check").integers(0, 1000)) == 655


RANDOM = """
@grade_cell("a-check")
class TestA:
    @check("one", hint="h")
    def test_one(self, rng, prepared_rng):
        raise NoValue(f"{rng.integers(2**62)} {prepared_rng.integers(2**62)}")

    @check("two", hint="h")
    def test_two(self, rng):
        raise NoValue(str(rng.integers(2**62)))
"""


def test_each_check_draws_its_own_numbers(grade: Grade) -> None:
    def numbers(**which: Any) -> list[str]:
        return " ".join(grade(RANDOM, {"a-check": 1}, name=name, **which).hints("a-check")).split()

    name = "test_random.py"
    once = numbers()
    assert len(set(once)) == 3
    assert numbers() == once
    assert not set(numbers(secret=b"t")) & set(once)
    assert not set(numbers(key="other")) & set(once)
    prepared = int(seeded(b"s", "key", "prepare").integers(2**62))
    assert once[1] == str(prepared)


def test_the_numbers_do_not_depend_on_where_the_course_lies(grade: Grade, tmp_path: Path) -> None:
    name = "test_random_place.py"
    here = grade(RANDOM, {"a-check": 1}, name=name).hints("a-check")
    (tmp_path / "there").mkdir()
    sys.modules.pop("test_random_place")
    assert grade(RANDOM, {"a-check": 1}, name=f"there/{name}").hints("a-check") == here


# -- points ------------------------------------------------------------------------------------


def test_points_are_those_of_the_release() -> None:
    def cell(name: str, **marks: Any) -> Any:
        made = nbformat.v4.new_code_cell("")
        made.metadata["nbgrader"] = {"grade_id": name, **marks}
        return made

    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell("text"),
            cell("b-check", grade=True, solution=False, points=2),
            cell("a", grade=False, solution=True),
            cell("a-check", grade=True, solution=False, points=0.5),
            cell("written", grade=True, solution=True, points=5),
            cell("given", grade=False, solution=False, locked=True),
        ]
    )
    assert list(points_of(notebook).items()) == [("b-check", 2.0), ("a-check", 0.5)]


# -- hints -------------------------------------------------------------------------------------

FAILING = """
from autograder.engine.submission import Unusable
from autograder.engine.values import KernelLost, Raised

@grade_cell("a-01-x-check")
class TestA:
    @check("one", hint="think of shapes")
    def test_one(self, values):
        {statement}
"""


def stopped_by(name: str, text: str) -> FakeRun:
    """A run of a notebook whose solution cell raised this error; "" for none."""
    run = FakeRun()
    errors = [nbformat.v4.new_output("error", ename=name, evalue=text, traceback=[])]
    solution = nbformat.v4.new_code_cell("x", outputs=errors if name else [])
    solution.metadata["nbgrader"] = {"grade_id": "a-01-x", "solution": True}
    check = nbformat.v4.new_code_cell("x")
    check.metadata["nbgrader"] = {"grade_id": "a-01-x-check", "grade": True, "points": 1}
    run.notebook.cells = [solution, check]
    return run


MISSING = "raise NoValue('x is not there')"


@pytest.mark.parametrize(
    ("error", "statement", "hint"),
    [
        (("", ""), "assert False", "think of shapes"),
        (("", ""), MISSING, "x is not there"),
        (("", ""), "raise Raised('f raised ValueError')", "f raised ValueError (think of shapes)"),
        (("NotImplementedError", "TODO [A]: not done yet"), MISSING, "TODO [A]: not done yet"),
        (("NotImplementedError", "TODO [A]: not done"), "assert False", "TODO [A]: not done"),
        (
            ("TypeError", "no\nway\x1b[31m"),
            MISSING,
            "cell [A-01] was stopped by TypeError: no way?[31m (think of shapes)",
        ),
        (
            ("NameError", "y"),
            "assert False",
            "cell [A-01] was stopped by NameError: y (names come first)",
        ),
        (("NameError", "y"), "raise KernelLost('the kernel ended')", "the kernel ended"),
        (("DataLossError", "bad"), "raise Unusable('it is cut off')", "it is cut off"),
        (("NotImplementedError", "TODO [A]: not"), "raise Unusable('cut')", "TODO [A]: not"),
    ],
)
def test_a_hint_names_the_concept_and_what_happened(
    grade: Grade, error: tuple[str, str], statement: str, hint: str
) -> None:
    setup = Setup(explain={"^NameError": "names come first"})
    source = FAILING.format(statement=statement)
    outcome = grade(source, {"a-01-x-check": 1}, stopped_by(*error), setup=setup)
    assert outcome.hints("a-01-x-check") == [hint]


def test_a_silent_hint_repeats_nothing_that_a_kernel_says(grade: Grade) -> None:
    run = stopped_by("ValueError", "the solution")
    for statement in ("raise Raised('the solution')", "raise NoValue('the solution')", MISSING):
        source = FAILING.format(statement=statement)
        outcome = grade(source, {"a-01-x-check": 1}, run, silent=True)
        assert outcome.hints("a-01-x-check") == ["think of shapes"]


def test_a_silent_check_that_breaks_does_not_say_at_what(grade: Grade) -> None:
    outcome = grade(BROKEN.format("None.shape"), {"a-check": 2}, silent=True)
    assert [check.raised for check in outcome.cells["a-check"].checks] == ["", ""]


LOST = """Graph execution error:

Detected at node 'MatMul' defined at (most recent call last):
{trace}
Node: 'MatMul'
Matrix size-incompatible: In[0]: [9,392], In[1]: [3,2]
\t [[{{{{node MatMul}}}}]]

Original stack trace for 'MatMul':
{trace}
""".format(trace="\n".join(40 * ['  File "<frozen runpy>", line 198, in _run_module_as_main']))


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        ("shapes differ", "shapes differ"),
        ("two\nlines", "two lines"),
        (LOST, "Matrix size-incompatible: In[0]: [9,392], In[1]: [3,2]"),
        (f"Restoring failed. This is likely. Original error:\n\n{LOST}", "Matrix size-incomp"),
        ("Graph execution error:\n\nAttempting to use\n\t [[{{node v}}]]", "Attempting to use"),
        ("Detected at node of a train", "Detected at node of a train"),
    ],
)
def test_the_cause_of_an_error_is_taken_from_where_it_stands(
    grade: Grade, message: str, cause: str
) -> None:
    source = FAILING.format(statement="assert False")
    outcome = grade(source, {"a-01-x-check": 1}, stopped_by("Error", message))
    (hint,) = outcome.hints("a-01-x-check")
    assert hint.startswith(f"cell [A-01] was stopped by Error: {cause}")
    assert hint.endswith("(think of shapes)")
    assert "runpy" not in hint


def test_only_the_cells_asked_for_are_checked(grade: Grade) -> None:
    outcome = grade(TWO, {"a-check": 1, "b-check": 4}, only=["b-check"])
    assert list(outcome.cells) == ["b-check"]
    assert outcome.run.asked == ["b-check"]
