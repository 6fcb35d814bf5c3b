"""The visible checks: accepted answers and messages."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

Notebook = Callable[..., dict[str, object]]

SOURCE = Path(__file__).parents[1] / "source" / "ch4-cnn"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SOURCE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


checks = load("visible_checks")


class FakeShape:
    """A stand-in for TensorFlow's `tensor.shape`."""

    def __init__(self, sizes: tuple[int | None, ...] | None) -> None:
        self.sizes = sizes
        self.rank = None if sizes is None else len(sizes)

    def as_list(self) -> list[int | None]:
        assert self.sizes is not None
        return list(self.sizes)


def tensor(*sizes: int | None, dtype: str = "float32", rank_known: bool = True) -> SimpleNamespace:
    shape = FakeShape(sizes if rank_known else None)
    return SimpleNamespace(shape=shape, dtype=SimpleNamespace(name=dtype))


@pytest.fixture
def notebook() -> Notebook:
    """Run code like a cell, in its own globals with the checks imported."""
    names: dict[str, object] = {name: getattr(checks, name) for name in checks.__all__}

    def run(code: str, **more: object) -> dict[str, object]:
        names.update(more)
        exec(code, names)
        return names

    return run


def error(kind: type[Exception], notebook: Notebook, code: str, **names: object) -> str:
    with pytest.raises(kind) as caught:
        notebook(code, **names)
    return str(caught.value)


failure = partial(error, checks.CheckFailed)
not_done = partial(error, checks.NotDoneYet)


# needs


def test_needs_is_quiet_when_the_names_are_there(notebook: Notebook) -> None:
    notebook("needs('a', 'b', cell='OFE-04')", a=0, b=np.zeros(3))


def test_needs_names_only_what_is_missing(notebook: Notebook) -> None:
    said = not_done(notebook, "needs('a', 'b', 'c', cell='OFE-05')", b=1, c=None)
    assert said == "not done yet: write a and c in cell [OFE-05] first"


def test_needs_looks_in_the_notebook_and_not_in_the_module(notebook: Notebook) -> None:
    said = not_done(notebook, "needs('np', cell='OFE-01')")
    assert said == "not done yet: write np in cell [OFE-01] first"


def test_not_done_is_no_failed_check() -> None:
    assert issubclass(checks.NotDoneYet, NotImplementedError)
    assert issubclass(checks.CheckFailed, AssertionError)
    assert not issubclass(checks.NotDoneYet, AssertionError)


# expect_tensor

POOL = """expect_tensor(
    'h_pool', (None, 14, 14, 2), 'float32', cell='OFE-05', why='SAME keeps it'
)"""


def test_tensor_as_wanted(notebook: Notebook) -> None:
    notebook(POOL, h_pool=tensor(None, 14, 14, 2))


def test_tensor_of_another_shape(notebook: Notebook) -> None:
    said = failure(notebook, POOL, h_pool=tensor(None, 12, 12, 2))
    is_and_wanted = "h_pool has shape (None, 12, 12, 2), expected (None, 14, 14, 2)"
    assert said == f"{is_and_wanted}: SAME keeps it"


@pytest.mark.parametrize(
    "sizes",
    [(9, 14, 14, 2), (None, None, None, 2), (None, 14, 14), ()],
)
def test_tensor_open_in_the_wrong_place(notebook: Notebook, sizes: tuple[int | None, ...]) -> None:
    said = failure(notebook, POOL, h_pool=tensor(*sizes))
    assert f"has shape {sizes}" in said


def test_tensor_with_an_unknown_number_of_axes(notebook: Notebook) -> None:
    unknown = tensor(rank_known=False)
    said = failure(notebook, POOL, h_pool=unknown)
    assert said.startswith("h_pool has unknown shape, expected (None, 14, 14, 2)")


def test_tensor_of_another_dtype(notebook: Notebook) -> None:
    said = failure(
        notebook,
        POOL,
        h_pool=tensor(None, 14, 14, 2, dtype="float64"),
    )
    is_and_wanted = "h_pool has dtype float64, expected float32"
    assert said == f"{is_and_wanted}: different dtypes do not mix"


def test_reason_of_a_dtype_that_is_checked_alone(notebook: Notebook) -> None:
    code = "expect_tensor('a', dtype='bool', cell='X', why='true or false')"
    said = failure(notebook, code, a=tensor(None))
    assert said == "a has dtype float32, expected bool: true or false"


def test_variable_counts_as_its_plain_dtype(notebook: Notebook) -> None:
    notebook(
        "expect_tensor('w', (5, 2), 'float32', cell='OCE-05')",
        w=tensor(5, 2, dtype="float32_ref"),
    )


def test_scalar_shape_is_checked_too(notebook: Notebook) -> None:
    code = "expect_tensor('loss', (), cell='OCE-06')"
    notebook(code, loss=tensor())
    said = failure(notebook, code, loss=tensor(None))
    assert said == "loss has shape (None,), expected ()"


def test_array_passes_as_tensor_and_open_sizes_fit_any(notebook: Notebook) -> None:
    notebook(POOL, h_pool=np.zeros((9, 14, 14, 2), np.float32))


def test_neither_tensor_nor_array(notebook: Notebook) -> None:
    said = failure(notebook, POOL, h_pool=[1, 2])
    assert said == "h_pool is a list, expected a tensor: SAME keeps it"


def test_function_in_place_of_its_value(notebook: Notebook) -> None:
    said = failure(
        notebook,
        "expect_tensor('W_conv', cell='OFE-05')",
        W_conv=lambda: 0,
    )
    assert said == "W_conv is a function, expected a tensor (call it with parentheses)"


def test_missing_tensor_is_not_done_yet(notebook: Notebook) -> None:
    said = not_done(notebook, POOL)
    assert said == "not done yet: write h_pool in cell [OFE-05] first"


# expect_array


def test_array_as_wanted(notebook: Notebook) -> None:
    code = "expect_array('a', (None, 2), 'float64', cell='OFE-07')"
    notebook(code, a=np.zeros((7, 2)))
    said = failure(notebook, code, a=np.zeros((7, 3)))
    assert said == "a has shape (7, 3), expected (None, 2)"


def test_list_is_no_array(notebook: Notebook) -> None:
    code = "expect_array('a', cell='OFE-07')"
    said = failure(notebook, code, a=[0.5])
    assert said == "a is a list, expected an array"


# expect_call

SUM = "value = expect_call('neighbourhood_sum', 1, equals=116.9, cell='FIG-4-3')"


def test_call_returns_the_value(notebook: Notebook) -> None:
    names = notebook(SUM, neighbourhood_sum=lambda _: 116.9 + 1e-7)
    assert names["value"] == 116.9 + 1e-7


@pytest.mark.parametrize("value", [115.8, float("nan"), 116.9 + 1e-4])
def test_call_with_another_number(notebook: Notebook, value: float) -> None:
    said = failure(notebook, SUM, neighbourhood_sum=lambda _: value)
    assert said == f"neighbourhood_sum(...) gives {value:.6g}, expected 116.9"


def test_expected_zero_is_checked(notebook: Notebook) -> None:
    code = "expect_call('f', equals=0, cell='X')"
    notebook(code, f=lambda: 0.0)
    assert failure(notebook, code, f=lambda: 1)


def test_call_with_another_array_names_the_place(notebook: Notebook) -> None:
    code = "expect_call('f', equals=[[1, 2], [3, 4]], cell='X')"
    said = failure(notebook, code, f=lambda: [[1, 2], [3, 5]])
    assert said == "f() gives 5 at [1, 1], expected 4"


def test_one_number_does_not_stand_for_an_array(notebook: Notebook) -> None:
    code = "expect_call('f', equals=[1, 1], cell='X')"
    said = failure(notebook, code, f=lambda: 1)
    assert said == "f() has shape (), expected (2,)"


def test_call_that_gives_no_number(notebook: Notebook) -> None:
    said = failure(notebook, SUM, neighbourhood_sum=lambda _: "many")
    assert said == ("neighbourhood_sum(...) is a str, expected a number")


def test_call_that_forgets_its_return(notebook: Notebook) -> None:
    said = failure(notebook, SUM, neighbourhood_sum=lambda _: None)
    assert said == "neighbourhood_sum(...) gives None: is its last line a return?"


def test_call_checks_shape_and_dtype(notebook: Notebook) -> None:
    code = "expect_call('f', shape=(5, 2), dtype='float32', cell='X')"
    notebook(code, f=lambda: tensor(5, 2))
    shape = failure(notebook, code, f=lambda: tensor(2, 5))
    assert shape == "f() has shape (2, 5), expected (5, 2)"
    dtype = failure(notebook, code, f=lambda: np.zeros((5, 2), np.float64))
    assert dtype.startswith("f() has dtype float64, expected float32: different")


def test_value_in_place_of_a_function(notebook: Notebook) -> None:
    said = failure(notebook, SUM, neighbourhood_sum=116.9)
    assert said == ("neighbourhood_sum is a float, expected a function")


def test_stub_is_not_done_yet(notebook: Notebook) -> None:
    notebook("def neighbourhood_sum(_):\n    raise NotImplementedError('TODO')")
    said = not_done(notebook, SUM)
    assert said == "not done yet: write neighbourhood_sum in cell [FIG-4-3] first"


def test_other_errors_of_the_function_stay_what_they_are(notebook: Notebook) -> None:
    assert error(ZeroDivisionError, notebook, SUM, neighbourhood_sum=lambda _: 1 / 0)


def test_a_librarys_not_implemented_error_is_no_open_todo(notebook: Notebook) -> None:
    library: dict[str, object] = {}
    exec("def op(patch):\n    raise NotImplementedError('symbolic')", library)
    with pytest.raises(NotImplementedError, match="symbolic") as caught:
        notebook(SUM, neighbourhood_sum=library["op"])
    assert not isinstance(caught.value, checks.NotDoneYet)


# expect and done


def test_expect(notebook: Notebook) -> None:
    notebook("expect(1 < 2, 'no')")
    said = failure(notebook, "expect(1 > 2, 'i is 7, expected 9')")
    assert said == "i is 7, expected 9"


def test_done(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    notebook("done('OFE-04')")
    assert capsys.readouterr().out == "[OFE-04] looks right so far ✓\n"


# In IPython, in separate processes, because there is one shell per process.

SHELL = """
import sys
sys.path.insert(0, sys.argv[1])
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance(colors="nocolor")
ran = shell.run_cell("from visible_checks import *")
assert ran.success
print("== cell ==")
result = shell.run_cell(sys.argv[2])
print("== cell ==")
print(result.success, type(result.error_in_exec).__name__)
"""


def in_ipython(cell: str) -> tuple[str, str]:
    """IPython's output for a cell, and how the cell ended."""
    ran = subprocess.run(
        [sys.executable, "-c", SHELL, str(SOURCE), cell],
        capture_output=True,
        text=True,
        check=True,
    )
    _, shown, ended = ran.stdout.split("== cell ==\n")
    assert "Custom TB Handler failed" not in ran.stderr
    return shown, ended.strip()


@pytest.mark.parametrize(
    ("cell", "line", "ended"),
    [
        (
            "raise NotImplementedError('TODO [OFE-04]: not done yet')",
            "TODO [OFE-04]: not done yet\n",
            "False NotImplementedError",
        ),
        (
            "def f():\n    raise NotImplementedError\nf()",
            "not done yet\n",
            "False NotImplementedError",
        ),
        (
            "needs('h_pool', cell='OFE-05')",
            "not done yet: write h_pool in cell [OFE-05] first\n",
            "False NotDoneYet",
        ),
        (
            "expect(False, 'i is 7, expected 9')",
            "i is 7, expected 9\n",
            "False CheckFailed",
        ),
    ],
)
def test_ipython_shows_one_line_and_the_cell_still_fails(cell: str, line: str, ended: str) -> None:
    assert in_ipython(cell) == (line, ended)


@pytest.mark.parametrize(
    ("cell", "kind"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("assert 1 == 2", "AssertionError"),
        ("import io\nio.IOBase().truncate()", "UnsupportedOperation"),
        (
            "lib = {}\n"
            "exec('def op(): raise NotImplementedError(1)', lib)\n"
            "lib['op']()  # raised in somebody else's module",
            "NotImplementedError",
        ),
    ],
)
def test_ipython_keeps_the_traceback_of_everything_else(cell: str, kind: str) -> None:
    shown, ended = in_ipython(cell)
    assert "Traceback (most recent call last)" in shown
    assert kind in shown
    assert ended == f"False {kind}"


# The state of the cell that should have defined a name.

SESSION = """
import json, sys
sys.path.insert(0, sys.argv[1])
import matplotlib
matplotlib.use("agg")
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance(colors="nocolor")
cells = json.loads(sys.argv[2])
for number, cell in enumerate(["from visible_checks import *", *cells]):
    print("== cell ==")
    shell.run_cell(cell, cell_id=f"cell-{number}" if sys.argv[3] == "named" else None)
"""


def last_of(*cells: str, named: bool = True) -> str:
    """IPython's output for the last of these cells."""
    ran = subprocess.run(
        [sys.executable, "-c", SESSION, str(SOURCE), json.dumps(cells), "named" if named else ""],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Error in callback" not in ran.stdout + ran.stderr
    return ran.stdout.split("== cell ==\n")[-1].strip()


ASK = "# [OFE-04] check\nexpect_call('edge_filter', shape=(5, 5), cell='OFE-04')\ndone('OFE-04')"
BROKEN = "# [OFE-04] two filters\ndef edge_filter(:\n    return 1"
STOPPED = "# [OFE-04] two filters\nedge_filter = make(\n    5)"


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(
    ("cell", "said"),
    [
        (BROKEN, "has a SyntaxError in line 2, `def edge_filter(:`: invalid syntax"),
        (
            "# [OFE-04] two filters\n  edge_filter = 1",
            "has an IndentationError in line 2, `edge_filter = 1`: unexpected indent",
        ),
        (STOPPED, "stopped in line 2 with a NameError: name 'make' is not defined"),
    ],
)
def test_a_cell_that_stopped_is_not_called_not_done(cell: str, said: str, named: bool) -> None:
    assert last_of(cell, ASK, named=named) == f"cell [OFE-04] {said}"


def test_a_cell_without_its_label_is_the_one_before_the_check() -> None:
    bare = BROKEN.partition("\n")[2]
    assert last_of(bare, ASK).startswith("the cell before has a SyntaxError in line 1")
    assert last_of(bare, "1", ASK).startswith("not done yet: write edge_filter in cell [OFE-04]")


def test_a_cell_that_broke_is_not_taken_for_what_it_was_before() -> None:
    works = "# [OFE-04] two filters\nimport numpy as np\nedge_filter = lambda: np.eye(5)"
    assert last_of(works, ASK) == "[OFE-04] looks right so far ✓"
    assert last_of(works, BROKEN, ASK).startswith("cell [OFE-04] has a SyntaxError")
    assert last_of(BROKEN, works, ASK, named=False) == "[OFE-04] looks right so far ✓"


def test_another_cells_error_is_not_this_cells() -> None:
    other = "# [OFE-05] the graph\nW_conv = edge_filter("
    assert last_of(other, ASK).startswith("not done yet: write edge_filter in cell [OFE-04]")


def test_an_open_todo_is_not_done_yet() -> None:
    todo = "# [OFE-04] two filters\nraise NotImplementedError('not done: edge_filter')"
    assert last_of(todo, ASK).startswith("not done yet: write edge_filter in cell [OFE-04]")


# Figures

DRAW = "import numpy as np\nfrom pictures import grid\nfig = grid([[np.eye(3)]])"
FIRST = "needs('fig', cell='OFE-08')\ndone('OFE-08')"
SECOND = "needs('fig', cell='OFE-10')\ndone('OFE-10')"
STALE = "not done yet: fig is still the picture of cell [OFE-08]: draw that of [OFE-10]"


def test_a_figure_of_an_earlier_cell_is_not_this_cells() -> None:
    assert last_of(DRAW, FIRST, SECOND) == STALE
    assert last_of(DRAW, FIRST, "fig.canvas.draw()", SECOND) == STALE


def test_a_cell_that_stopped_says_so_rather_than_that_the_figure_is_old() -> None:
    said = last_of(DRAW, FIRST, "# [OFE-10] picture\nfig = grid(pool_vals)", SECOND)
    assert (
        said == "cell [OFE-10] stopped in line 2 with a NameError: name 'pool_vals' is not defined"
    )


@pytest.mark.parametrize(
    "again",
    [
        DRAW,
        "fig.clear(); fig.add_subplot().imshow(np.eye(3))",
        "fig.axes[0].imshow(np.eye(5))",
        "fig.axes[0].images[0].set_data(np.eye(5))",
    ],
)
def test_a_figure_that_was_drawn_again_is_new(again: str) -> None:
    assert last_of(DRAW, FIRST, again, SECOND) == "[OFE-10] looks right so far ✓"


def test_a_check_that_runs_twice_sees_its_own_figure() -> None:
    assert last_of(DRAW, FIRST, FIRST) == "[OFE-08] looks right so far ✓"


# Before handing in

FILES = "checkpoint", "mdc_session-4000.index", "mdc_session-4000.data-00000-of-00001"
TODO = "# TODO: two filters\nraise NotImplementedError('TODO [OFE-04]: not done yet')"
WROTE = "edge_filter = 1  # raise NotImplementedError('TODO [OFE-04]: not done yet')"
# Runs the summary with a checkpoint index of two variables of 6 numbers and a counter.
SUMMARY = """
import sys
sys.path.insert(0, sys.argv[1])
from types import SimpleNamespace as N
class Reader:
    def get_variable_to_shape_map(self): return {"W": [2, 3], "b": [6], "step": []}
    def get_variable_to_dtype_map(self):
        return {"W": N(size=4), "b": N(size=4), "step": N(size=8)}
def load_checkpoint(prefix):
    if open(prefix + ".index", "rb").read() == b"damaged": raise IndexError("data loss")
    return Reader()
train = N(load_checkpoint=load_checkpoint)
if "tensorflow" in sys.argv[2:]: sys.modules["tensorflow"] = N(train=train)
if "colab" in sys.argv[2:]: sys.modules["google.colab"] = N()
from visible_checks import before_you_hand_in
before_you_hand_in()
"""


def book(*cells: dict[str, object]) -> str:
    return json.dumps({"cells": list(cells), "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def a_cell(source: str, kind: str = "code") -> dict[str, object]:
    return {"cell_type": kind, "metadata": {}, "source": source.splitlines(keepends=True)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with all files to hand in."""
    for name in checks.NOTEBOOKS:
        (tmp_path / name).write_text(book(a_cell(WROTE)), encoding="utf-8")
    (tmp_path / FILES[0]).write_text('model_checkpoint_path: "mdc_session-4000"\n')
    (tmp_path / FILES[1]).write_bytes(b"index")
    (tmp_path / FILES[2]).write_bytes(bytes(56))
    return tmp_path


def summed_up(folder: Path, *loaded: str) -> list[str]:
    command = [sys.executable, "-c", SUMMARY, str(SOURCE), *(loaded or ["tensorflow"])]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout.splitlines()


def line_of(lines: list[str], name: str) -> str:
    (line,) = (line for line in lines if line[2:].split(" ")[0] == name)
    return line[0] + line[2 + len(name) :].strip()


def test_the_summary_knows_the_notebooks_of_the_chapter() -> None:
    assert list(checks.NOTEBOOKS) == sorted(path.name for path in SOURCE.glob("*.ipynb"))
    assert checks.CHECKPOINT == FILES


def test_a_whole_folder_lacks_nothing(folder: Path) -> None:
    lines = summed_up(folder)
    assert len(lines) == 10
    assert [line[0] for line in lines[1:9]] == ["✓"] * 8
    assert line_of(lines, FILES[2]) == "✓0.0 MB, whole"
    assert lines[9] == "Nothing is missing: hand in these eight files."
    assert max(map(len, lines)) < 90


NAME = checks.NOTEBOOKS[0]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (NAME, book(a_cell(TODO), a_cell(TODO)), "not done: [OFE-04]"),
        (NAME, book(a_cell(TODO.replace("OFE-04", "Fig 4-3"))), "not done: [Fig 4-3]"),
        (
            NAME,
            book(*(a_cell(TODO.replace("04", n)) for n in ["02", "03", "05", "07", "08"])),
            "not done: [OFE-02], [OFE-03], [OFE-05], and 2 more",
        ),
        (NAME, book(a_cell("YOUR ANSWER HERE", "markdown")), "not done: the question in words"),
        (NAME, "{", "cannot be read (JSONDecodeError)"),
        (NAME, "[]", "cannot be read (TypeError)"),
        (NAME, '{"cells": [{}]}', "cannot be read (KeyError)"),
        (NAME, "[" * 10**6, "cannot be read (RecursionError)"),
        (NAME, b"\xff\xfe\x00", "cannot be read (UnicodeDecodeError)"),
        (NAME, "", "is empty"),
        (NAME, None, "not here"),
        (FILES[0], 'model_checkpoint_path: "mdc_session-40001"', "does not name step 4000"),
        (FILES[0], None, "not here: notebook 4 writes it"),
        (FILES[1], "damaged", "cannot be read (IndexError)"),
        (FILES[1], None, "not here: notebook 4 writes it"),
        (FILES[2], "", "is empty"),
        (
            FILES[2],
            b"x" * 40,
            "40 bytes instead of 56: it was cut off, or is of another training",
        ),
    ],
)
def test_what_is_missing_or_unfinished_has_a_line(
    folder: Path, name: str, content: str | bytes | None, said: str
) -> None:
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    lines = summed_up(folder)
    assert line_of(lines, name) == f"✗{said}"
    assert [line[0] for line in lines[1:9]].count("✗") == 1
    assert lines[9] == "Lines with ✗ are not finished yet, or would be missing."


def test_a_copy_under_another_name_is_named(folder: Path) -> None:
    (folder / NAME).rename(folder / "Copy of 1-orenist-filter (1).ipynb")
    said = "not under this name, but as 'Copy of 1-orenist-filter (1).ipynb': rename it"
    assert line_of(summed_up(folder), NAME) == f"✗{said}"


def test_a_training_that_stopped_says_where(folder: Path) -> None:
    for step in (4000, 900, 1300):
        (folder / f"mdc_session-{step}.index").write_bytes(b"index")
    (folder / FILES[1]).unlink()
    assert line_of(summed_up(folder), FILES[1]) == "✗not here; the last step here is 1300"


def test_without_tensorflow_a_size_is_only_told(folder: Path) -> None:
    (folder / FILES[2]).write_bytes(bytes(10**6))
    assert line_of(summed_up(folder, "nothing"), FILES[2]) == "✓1.0 MB"


def test_an_odd_folder_raises_nothing(folder: Path) -> None:
    one, two, three, four, five = (folder / name for name in checks.NOTEBOOKS)
    for path in (one, two, three, four, folder / FILES[1]):
        path.unlink()
    one.mkdir()
    os.mkfifo(two)
    three.symlink_to(three)
    four.symlink_to("/dev/zero")
    five.write_text(book(a_cell("x = 1"), {"cell_type": "code", "source": 7}))
    (folder / os.fsdecode(b"4-mnist-training\xff.ipynb")).write_bytes(b"x")
    (folder / FILES[1]).mkdir()
    lines = summed_up(folder)
    assert [line_of(lines, name)[0] for name in checks.NOTEBOOKS] == ["✗"] * 5
    assert line_of(lines, checks.NOTEBOOKS[0]) == "✗is no file"
    assert line_of(lines, FILES[1]) == "✗is no file"


def test_where_no_notebook_lies_only_the_checkpoint_is_looked_at(folder: Path) -> None:
    for name in checks.NOTEBOOKS:
        (folder / name).unlink()
    lines = summed_up(folder)
    assert lines[0] == "Before you hand in: there are no notebooks to look at where this cell runs."
    assert [line.split()[1] for line in lines[1:]] == list(FILES)
    for name in FILES:
        (folder / name).unlink()
    assert len(summed_up(folder)) == 1
    (on_colab,) = summed_up(folder, "colab")
    assert on_colab.endswith("take each with File → Download → Download .ipynb.")


def test_a_folder_that_is_gone_raises_nothing(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    code = f"import os, sys\nsys.path.insert(0, {str(SOURCE)!r})\nimport visible_checks\n"
    code += f"os.rmdir({str(gone)!r})\nvisible_checks.before_you_hand_in()"
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, cwd=gone, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert (
        ran.stdout
        == "Before you hand in: there are no notebooks to look at where this cell runs.\n"
    )
