"""The visible checks: what they accept, and what they say."""

import importlib.util
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

SOURCE = Path(__file__).parents[1] / "source" / "ch4-cnn"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SOURCE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


checks = load("visible_checks")


class FakeShape:
    """What TensorFlow gives for `tensor.shape`."""

    def __init__(self, sizes):
        self.sizes = sizes
        self.rank = None if sizes is None else len(sizes)

    def as_list(self):
        return list(self.sizes)


def tensor(*sizes, dtype="float32", rank_known=True):
    shape = FakeShape(sizes if rank_known else None)
    return SimpleNamespace(shape=shape, dtype=SimpleNamespace(name=dtype))


@pytest.fixture
def notebook():
    """Run code as a cell does: in globals of its own, with the checks imported."""
    names = {name: getattr(checks, name) for name in checks.__all__}

    def run(code: str, **more):
        names.update(more)
        exec(code, names)
        return names

    return run


def error(kind: type, notebook, code: str, **names) -> str:
    with pytest.raises(kind) as caught:
        notebook(code, **names)
    return str(caught.value)


failure = partial(error, checks.CheckFailed)
not_done = partial(error, checks.NotDoneYet)


# needs


def test_needs_is_quiet_when_the_names_are_there(notebook):
    notebook("needs('a', 'b', cell='OFE-04')", a=0, b=np.zeros(3))


def test_needs_names_only_what_is_missing(notebook):
    said = not_done(notebook, "needs('a', 'b', 'c', cell='OFE-05')", b=1, c=None)
    assert said == "not done yet: write a and c in cell [OFE-05] first"


def test_needs_looks_in_the_notebook_and_not_in_the_module(notebook):
    said = not_done(notebook, "needs('np', cell='OFE-01')")
    assert said == "not done yet: write np in cell [OFE-01] first"


def test_not_done_is_no_failed_check():
    assert issubclass(checks.NotDoneYet, NotImplementedError)
    assert issubclass(checks.CheckFailed, AssertionError)
    assert not issubclass(checks.NotDoneYet, AssertionError)


# expect_tensor

POOL = """expect_tensor(
    'h_pool', (None, 14, 14, 2), 'float32', cell='OFE-05', why='SAME keeps it'
)"""


def test_tensor_as_wanted(notebook):
    notebook(POOL, h_pool=tensor(None, 14, 14, 2))


def test_tensor_of_another_shape(notebook):
    said = failure(notebook, POOL, h_pool=tensor(None, 12, 12, 2))
    is_and_wanted = "h_pool has shape (None, 12, 12, 2), expected (None, 14, 14, 2)"
    assert said == f"{is_and_wanted}: SAME keeps it"


@pytest.mark.parametrize(
    "sizes",
    [(9, 14, 14, 2), (None, None, None, 2), (None, 14, 14), ()],
)
def test_tensor_open_in_the_wrong_place(notebook, sizes):
    said = failure(notebook, POOL, h_pool=tensor(*sizes))
    assert f"has shape {sizes}" in said


def test_tensor_with_an_unknown_number_of_axes(notebook):
    unknown = tensor(rank_known=False)
    said = failure(notebook, POOL, h_pool=unknown)
    assert said.startswith("h_pool has unknown shape, expected (None, 14, 14, 2)")


def test_tensor_of_another_dtype(notebook):
    said = failure(
        notebook,
        POOL,
        h_pool=tensor(None, 14, 14, 2, dtype="float64"),
    )
    is_and_wanted = "h_pool has dtype float64, expected float32"
    assert said == f"{is_and_wanted}: different dtypes do not mix"


def test_reason_of_a_dtype_that_is_checked_alone(notebook):
    code = "expect_tensor('a', dtype='bool', cell='X', why='true or false')"
    said = failure(notebook, code, a=tensor(None))
    assert said == "a has dtype float32, expected bool: true or false"


def test_variable_counts_as_its_plain_dtype(notebook):
    notebook(
        "expect_tensor('w', (5, 2), 'float32', cell='OCE-05')",
        w=tensor(5, 2, dtype="float32_ref"),
    )


def test_scalar_shape_is_checked_too(notebook):
    code = "expect_tensor('loss', (), cell='OCE-06')"
    notebook(code, loss=tensor())
    said = failure(notebook, code, loss=tensor(None))
    assert said == "loss has shape (None,), expected ()"


def test_array_passes_as_tensor_and_open_sizes_fit_any(notebook):
    notebook(POOL, h_pool=np.zeros((9, 14, 14, 2), np.float32))


def test_neither_tensor_nor_array(notebook):
    said = failure(notebook, POOL, h_pool=[1, 2])
    assert said == "h_pool is a list, expected a tensor: SAME keeps it"


def test_function_in_place_of_its_value(notebook):
    said = failure(
        notebook,
        "expect_tensor('W_conv', cell='OFE-05')",
        W_conv=lambda: 0,
    )
    assert said == "W_conv is a function, expected a tensor (call it with parentheses)"


def test_missing_tensor_is_not_done_yet(notebook):
    said = not_done(notebook, POOL)
    assert said == "not done yet: write h_pool in cell [OFE-05] first"


# expect_array


def test_array_as_wanted(notebook):
    code = "expect_array('a', (None, 2), 'float64', cell='OFE-07')"
    notebook(code, a=np.zeros((7, 2)))
    said = failure(notebook, code, a=np.zeros((7, 3)))
    assert said == "a has shape (7, 3), expected (None, 2)"


def test_list_is_no_array(notebook):
    code = "expect_array('a', cell='OFE-07')"
    said = failure(notebook, code, a=[0.5])
    assert said == "a is a list, expected an array"


# expect_call

SUM = "value = expect_call('neighbourhood_sum', 1, equals=116.9, cell='FIG-4-3')"


def test_call_returns_the_value(notebook):
    names = notebook(SUM, neighbourhood_sum=lambda _: 116.9 + 1e-7)
    assert names["value"] == 116.9 + 1e-7


@pytest.mark.parametrize("value", [115.8, float("nan"), 116.9 + 1e-4])
def test_call_with_another_number(notebook, value):
    said = failure(notebook, SUM, neighbourhood_sum=lambda _: value)
    assert said == f"neighbourhood_sum(...) gives {value:.6g}, expected 116.9"


def test_expected_zero_is_checked(notebook):
    code = "expect_call('f', equals=0, cell='X')"
    notebook(code, f=lambda: 0.0)
    assert failure(notebook, code, f=lambda: 1)


def test_call_with_another_array_names_the_place(notebook):
    code = "expect_call('f', equals=[[1, 2], [3, 4]], cell='X')"
    said = failure(notebook, code, f=lambda: [[1, 2], [3, 5]])
    assert said == "f() gives 5 at [1, 1], expected 4"


def test_one_number_does_not_stand_for_an_array(notebook):
    code = "expect_call('f', equals=[1, 1], cell='X')"
    said = failure(notebook, code, f=lambda: 1)
    assert said == "f() has shape (), expected (2,)"


def test_call_that_gives_no_number(notebook):
    said = failure(notebook, SUM, neighbourhood_sum=lambda _: "many")
    assert said == ("neighbourhood_sum(...) is a str, expected a number")


def test_call_that_forgets_its_return(notebook):
    said = failure(notebook, SUM, neighbourhood_sum=lambda _: None)
    assert said == "neighbourhood_sum(...) gives None: is its last line a return?"


def test_call_checks_shape_and_dtype(notebook):
    code = "expect_call('f', shape=(5, 2), dtype='float32', cell='X')"
    notebook(code, f=lambda: tensor(5, 2))
    shape = failure(notebook, code, f=lambda: tensor(2, 5))
    assert shape == "f() has shape (2, 5), expected (5, 2)"
    dtype = failure(notebook, code, f=lambda: np.zeros((5, 2), np.float64))
    assert dtype.startswith("f() has dtype float64, expected float32: different")


def test_value_in_place_of_a_function(notebook):
    said = failure(notebook, SUM, neighbourhood_sum=116.9)
    assert said == ("neighbourhood_sum is a float, expected a function")


def test_stub_is_not_done_yet(notebook):
    notebook("def neighbourhood_sum(_):\n    raise NotImplementedError('TODO')")
    said = not_done(notebook, SUM)
    assert said == "not done yet: write neighbourhood_sum in cell [FIG-4-3] first"


def test_other_errors_of_the_function_stay_what_they_are(notebook):
    assert error(ZeroDivisionError, notebook, SUM, neighbourhood_sum=lambda _: 1 / 0)


def test_a_librarys_not_implemented_error_is_no_open_todo(notebook):
    library: dict = {}
    exec("def op(patch):\n    raise NotImplementedError('symbolic')", library)
    with pytest.raises(NotImplementedError, match="symbolic") as caught:
        notebook(SUM, neighbourhood_sum=library["op"])
    assert not isinstance(caught.value, checks.NotDoneYet)


# expect and done


def test_expect(notebook):
    notebook("expect(1 < 2, 'no')")
    said = failure(notebook, "expect(1 > 2, 'i is 7, expected 9')")
    assert said == "i is 7, expected 9"


def test_done(notebook, capsys):
    notebook("done('OFE-04')")
    assert capsys.readouterr().out == "[OFE-04] looks right so far ✓\n"


# In IPython. A process of its own, because IPython has one shell per process.

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
    """What IPython shows for a cell, and how the cell ended."""
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
            "\x1b[33mTODO [OFE-04]: not done yet\x1b[0m\n",
            "False NotImplementedError",
        ),
        (
            "def f():\n    raise NotImplementedError\nf()",
            "\x1b[33mnot done yet\x1b[0m\n",
            "False NotImplementedError",
        ),
        (
            "needs('h_pool', cell='OFE-05')",
            "\x1b[33mnot done yet: write h_pool in cell [OFE-05] first\x1b[0m\n",
            "False NotDoneYet",
        ),
        (
            "expect(False, 'i is 7, expected 9')",
            "\x1b[31mi is 7, expected 9\x1b[0m\n",
            "False CheckFailed",
        ),
    ],
)
def test_ipython_shows_one_line_and_the_cell_still_fails(cell, line, ended):
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
def test_ipython_keeps_the_traceback_of_everything_else(cell, kind):
    shown, ended = in_ipython(cell)
    assert "Traceback (most recent call last)" in shown
    assert kind in shown
    assert ended == f"False {kind}"
