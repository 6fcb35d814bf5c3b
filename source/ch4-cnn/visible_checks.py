"""Friendly checks for the grade cells of a notebook.

A check looks at a name of the notebook and says in one line what it is, what was
wanted, and why. It sees names, types, shapes and numbers that are no secret; it does
not know the solution. In a notebook these lines appear without a traceback, and what
is missing because its cell stopped is said to be that.

At the end of a notebook, `before_you_hand_in` sums up the folder.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Sequence
from itertools import islice
from operator import is_
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

__all__ = [
    "CheckFailed",
    "NotDoneYet",
    "before_you_hand_in",
    "done",
    "expect",
    "expect_array",
    "expect_call",
    "expect_tensor",
    "needs",
]

Shape = Sequence[int | None]


class CheckFailed(AssertionError):
    """Something is there, but it is not what was wanted."""


class NotDoneYet(NotImplementedError):
    """Something that an earlier cell should have made is not there."""


def needs(*names: str, cell: str) -> None:
    """Stop with one line unless the notebook has all these names."""
    _need(_notebook(), names, cell)


def expect(condition: Any, message: str) -> None:
    """Stop with this message unless the condition holds."""
    if not condition:
        raise CheckFailed(message)


def expect_tensor(
    name: str,
    shape: Shape | None = None,
    dtype: str | None = None,
    *,
    cell: str,
    why: str = "",
) -> None:
    """Expect a graph tensor, a variable or an array of this shape and dtype.

    `None` in the shape is a size that stays open until a session runs, such as the
    number of images. An array may have any size there.
    """
    value = _need(_notebook(), [name], cell)
    if not _has_shape_and_dtype(value):
        raise CheckFailed(_because(f"{name} {_is(value, 'a tensor')}", why))
    _match(name, value, shape, dtype, why)


def expect_array(
    name: str,
    shape: Shape | None = None,
    dtype: str | None = None,
    *,
    cell: str,
    why: str = "",
) -> None:
    """Expect a NumPy array of this shape and dtype; `None` is any size."""
    value = _need(_notebook(), [name], cell)
    if not isinstance(value, np.ndarray):
        raise CheckFailed(_because(f"{name} {_is(value, 'an array')}", why))
    _match(name, value, shape, dtype, why)


def expect_call(
    name: str,
    *args: Any,
    shape: Shape | None = None,
    dtype: str | None = None,
    equals: Any = None,
    tolerance: float = 1e-5,
    cell: str,
    why: str = "",
) -> Any:
    """Call a function of the notebook, check what it returns, and return it."""
    notebook = _notebook()
    function = _need(notebook, [name], cell)
    if not callable(function):
        raise CheckFailed(_because(f"{name} {_is(function, 'a function')}", why))
    try:
        value = function(*args)
    except NotImplementedError as error:
        if not _is_stub(error, notebook):
            raise
        raise _not_done([name], cell) from None

    call = f"{name}({'...' if args else ''})"
    if value is None:
        raise CheckFailed(f"{call} gives None: is its last line a return?")
    if shape is not None or dtype is not None:
        if not _has_shape_and_dtype(value):
            raise CheckFailed(_because(f"{call} {_is(value, 'an array')}", why))
        _match(call, value, shape, dtype, why)
    if equals is not None:
        _compare(call, value, equals, tolerance, why)
    return value


def done(cell: str) -> None:
    """Say that all visible checks of this cell have passed."""
    print(f"[{cell}] looks right so far ✓")


# Names ------------------------------------------------------------------------------


def _notebook() -> dict[str, Any]:
    """The names of the notebook: the globals of whoever called the check."""
    return sys._getframe(2).f_globals


def _need(notebook: dict[str, Any], names: Sequence[str], cell: str) -> Any:
    """The value of the last name, once all of them are there and made by this cell."""
    missing = [name for name in names if notebook.get(name) is None]
    if missing:
        raise _not_done(missing, cell)
    unread = _why_not(names, cell, SyntaxError)
    if unread:  # then the names are left from an older version of the cell
        raise CheckFailed(unread)
    for name in names:
        _see_that_it_is_new(name, notebook[name], cell)
    return notebook[names[-1]]


def _not_done(names: Sequence[str], cell: str) -> NotDoneYet | CheckFailed:
    stopped = _why_not(names, cell, BaseException)
    if stopped:
        return CheckFailed(stopped)
    return NotDoneYet(f"not done yet: write {_listed(names)} in cell [{cell}] first")


def _listed(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


# Cells that stopped -----------------------------------------------------------------


class _Stopped(NamedTuple):
    """A cell whose last run ended with an error, and what there is to say about it."""

    source: str
    kind: type[BaseException]
    text: str


_LABEL = re.compile(r"^# \[(.+?)\]", re.MULTILINE)
_LONGEST = 200  # characters of an error's message
_stopped: dict[str, _Stopped] = {}  # by cell
_last = ""  # the cell that ran last


def _remember(result: Any) -> None:
    """Keep how a cell ended; IPython calls this behind every one."""
    global _last
    source = str(getattr(result.info, "raw_cell", ""))
    # Not every front end tells which cell it is; then its first line does.
    cell = getattr(result.info, "cell_id", None) or source.strip().partition("\n")[0]
    _last = cell
    _stopped.pop(cell, None)
    error = result.error_before_exec or result.error_in_exec
    if error is not None and not isinstance(error, NotImplementedError | CheckFailed):
        _stopped[cell] = _Stopped(source, type(error), _what_happened(error))


def _what_happened(error: BaseException) -> str:
    kind = type(error).__name__
    article = "an" if kind[0] in "AEIOU" else "a"
    if isinstance(error, SyntaxError):
        line = f", `{error.text.strip()[:60]}`" if error.text else ""
        return f"has {article} {kind} in line {error.lineno}{line}: {error.msg}"
    trace, line = error.__traceback__, ""
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_name == "<module>" and trace.tb_frame.f_globals.get("__name__") == "__main__":
            line = f" in line {trace.tb_lineno}"
            break
        trace = trace.tb_next
    message = (str(error).strip().splitlines() or [""])[0][:_LONGEST]
    return f"stopped{line} with {article} {kind}{': ' if message else ''}{message}"


def _why_not(names: Sequence[str], cell: str, kind: type[BaseException]) -> str:
    """Why a cell that should make one of these names did not; empty if there is no reason."""
    for key, stopped in _stopped.items():
        label = _LABEL.search(stopped.source)
        # A cell that has lost its label is believed only right before the check.
        mine = label[1] == cell if label else key == _last
        speaks = any(re.search(rf"\b{re.escape(n)}\b", stopped.source) for n in names)
        if mine and speaks and issubclass(stopped.kind, kind):
            return f"cell [{cell}] {stopped.text}" if label else f"the cell before {stopped.text}"
    return ""


# Figures of earlier cells -----------------------------------------------------------

_figures: dict[str, tuple[Any, list[Any]]] = {}  # by cell: a figure and what it shows


def _see_that_it_is_new(name: str, value: Any, cell: str) -> None:
    """Stop if this is a figure that was checked as that of another cell."""
    if not (hasattr(value, "axes") and hasattr(value, "savefig")):
        return
    shows = [artist for axes in value.axes for artist in axes.get_children()]
    shows += [image.get_array() for axes in value.axes for image in axes.images]
    for other, (figure, showed) in _figures.items():
        same = value is figure and len(shows) == len(showed)
        if other != cell and same and all(map(is_, shows, showed)):
            stopped = _why_not([name], cell, BaseException)
            if stopped:
                raise CheckFailed(stopped)
            message = f"not done yet: {name} is still the picture of cell [{other}]"
            raise NotDoneYet(f"{message}: draw that of [{cell}]")
    _figures[cell] = value, shows


# Shapes, dtypes and values ----------------------------------------------------------


def _has_shape_and_dtype(value: Any) -> bool:
    """True for arrays and for tensors, without importing TensorFlow."""
    names = ("shape", "dtype")
    return not isinstance(value, type) and all(hasattr(value, name) for name in names)


def _shape_of(value: Any) -> tuple[int | None, ...] | None:
    """The shape as a tuple; None for a tensor with an unknown number of axes."""
    if isinstance(value.shape, tuple):
        return value.shape
    if value.shape.rank is None:
        return None
    return tuple(value.shape.as_list())


def _dtype_of(value: Any) -> str:
    """The name of the dtype (TensorFlow calls that of a variable float32_ref)."""
    name: str = value.dtype.name
    return name.removesuffix("_ref")


def _match(
    what: str,
    value: Any,
    shape: Shape | None,
    dtype: str | None,
    why: str,
) -> None:
    if shape is not None:
        wanted, found = tuple(shape), _shape_of(value)
        is_array = isinstance(value, np.ndarray | np.generic)
        if not _fits(found, wanted, open_fits_all=is_array):
            text = "unknown shape" if found is None else f"shape {found}"
            raise CheckFailed(_because(f"{what} has {text}, expected {wanted}", why))
    if dtype is not None and _dtype_of(value) != dtype:
        message = f"{what} has dtype {_dtype_of(value)}, expected {dtype}"
        if shape is not None:  # then the reason is about the shape
            why = "different dtypes do not mix"
        raise CheckFailed(_because(message, why))


def _fits(
    found: tuple[int | None, ...] | None,
    wanted: tuple[int | None, ...],
    open_fits_all: bool,
) -> bool:
    if found is None or len(found) != len(wanted):
        return False
    return all(
        size == want or (want is None and open_fits_all)
        for size, want in zip(found, wanted, strict=True)
    )


def _compare(call: str, value: Any, equals: Any, tolerance: float, why: str) -> None:
    wanted = np.asarray(equals, dtype=float)
    try:
        found = np.asarray(value, dtype=float)
    except (TypeError, ValueError, NotImplementedError):
        kind = "numbers" if wanted.ndim else "a number"
        raise CheckFailed(_because(f"{call} {_is(value, kind)}", why)) from None
    if found.shape != wanted.shape:
        message = f"{call} has shape {found.shape}, expected {wanted.shape}"
        raise CheckFailed(_because(message, why))
    wrong = ~(np.abs(found - wanted) <= tolerance)  # so that nan is wrong, too
    if not wrong.any():
        return
    place = tuple(int(index) for index in np.argwhere(wrong)[0])
    where = f" at {list(place)}" if place else ""
    message = f"{call} gives {found[place]:.6g}{where}, expected {wanted[place]:.6g}"
    raise CheckFailed(_because(message, why))


def _is(value: Any, wanted: str) -> str:
    kind = type(value).__name__
    article = "an" if kind[0].lower() in "aeiou" else "a"
    hint = ""
    if callable(value) and wanted != "a function":
        hint = " (call it with parentheses)"
    return f"is {article} {kind}, expected {wanted}{hint}"


def _because(message: str, why: str) -> str:
    return f"{message}: {why}" if why else message


# Before handing in ------------------------------------------------------------------

NOTEBOOKS = (
    "1-orenist-filter.ipynb",
    "2-orenist-classification.ipynb",
    "3-orenist-dynamic-filter.ipynb",
    "4-mnist-training.ipynb",
    "5-mnist-filters.ipynb",
)
_PREFIX = "mdc_session-4000"
_INDEX, _VALUES = f"{_PREFIX}.index", f"{_PREFIX}.data-00000-of-00001"
CHECKPOINT = ("checkpoint", _INDEX, _VALUES)
_TODO = re.compile(r"^[ \t]*raise NotImplementedError\(.*?TODO \[(.+?)\]", re.MULTILINE)
_UNANSWERED = "YOUR ANSWER HERE"
_LOOKED_AT = 10_000  # names in the folder

_Row = tuple[bool, str]  # whether it can be handed in, and what there is to say about it


def before_you_hand_in() -> None:
    """Print what of a submission lies in this folder, and what of it is not finished.

    It decides nothing: whatever the folder holds, no error is raised and no point depends on it.
    """
    notebooks, files = list(NOTEBOOKS), list(CHECKPOINT)
    if not any(map(_is_there, notebooks)):
        notebooks = []
        files = [name for name in files if _is_there(name)]
        where = "where this cell runs"
        if "google.colab" in sys.modules:
            where = "on Colab's machine; take each with File → Download → Download .ipynb"
        print(f"Before you hand in: there are no notebooks to look at {where}.")
    else:
        print("Before you hand in: this folder as it was last saved (Ctrl+S saves).")
    rows = {name: _row(_look_at_notebook, name) for name in notebooks}
    looks = {"checkpoint": _look_at_list, _INDEX: _look_at_index, _VALUES: _look_at_values}
    rows |= {name: _row(looks[name], name) for name in files}
    for name, (fine, text) in rows.items():
        print(f"{'✓' if fine else '✗'} {name:37} {text}")
    if not all(fine for fine, _ in rows.values()):
        print("Lines with ✗ are not finished yet, or would be missing.")
    elif notebooks:
        print("Nothing is missing: hand in these eight files.")


def _row(look: Callable[[Path], _Row], name: str) -> _Row:
    try:
        path = Path(name)
        if not path.is_file():
            return False, _missing(name)
        return look(path) if path.stat().st_size else (False, "is empty")
    except Exception as error:  # a folder may hold anything
        return False, f"cannot be read ({type(error).__name__})"


def _is_there(name: str) -> bool:
    try:
        return Path(name).exists()
    except OSError:
        return False


def _missing(name: str) -> str:
    names = sorted(path.name for path in islice(Path().iterdir(), _LOOKED_AT))
    if name in names:
        return "is no file"
    stem, _, kind = name.rpartition(".")
    alike = [n for n in names if name in NOTEBOOKS and stem in n and n.endswith(f".{kind}")]
    if alike:
        return f"not under this name, but as {alike[0]!a}: rename it"
    steps = [int(n[12:-6]) for n in names if re.fullmatch(r"mdc_session-\d{1,6}\.index", n)]
    if name == _INDEX and steps:
        return f"not here; the last step here is {max(steps)}"
    return "not here" if name in NOTEBOOKS else "not here: notebook 4 writes it"


def _look_at_notebook(path: Path) -> _Row:
    cells = json.loads(path.read_text("utf-8"))["cells"]
    text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    todo = [f"[{label}]" for label in dict.fromkeys(_TODO.findall(text))]
    if any("".join(c["source"]).strip() == _UNANSWERED for c in cells):
        todo.append("the question in words")
    more = [f"and {len(todo) - 3} more"] if len(todo) > 3 else []
    return not todo, f"not done: {', '.join(todo[:3] + more)}" if todo else "every cell is written"


def _look_at_list(path: Path) -> _Row:
    fine = f'{_PREFIX}"' in path.read_text("utf-8")
    return fine, "names step 4000" if fine else "does not name step 4000"


def _look_at_index(path: Path) -> _Row:
    _bytes_of_values()  # or it cannot be read
    return True, "is here"


def _look_at_values(path: Path) -> _Row:
    size = path.stat().st_size
    try:
        wanted = _bytes_of_values()
    except Exception:  # then the index has a line of its own
        wanted = None
    if wanted not in (None, size):
        text = f"{size} bytes instead of {wanted}: it was cut off, or is of another training"
        return False, text
    return True, f"{size / 1e6:.1f} MB" + (", whole" if wanted else "")


def _bytes_of_values() -> int | None:
    """What the index says that the values take; None where TensorFlow is not loaded."""
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is None:
        return None
    reader = tensorflow.train.load_checkpoint(f"./{_PREFIX}")
    types = reader.get_variable_to_dtype_map()
    shapes = reader.get_variable_to_shape_map()
    return sum(types[name].size * math.prod(shapes[name]) for name in shapes)


# One line instead of a traceback ----------------------------------------------------


def _is_stub(error: BaseException, notebook: dict[str, Any]) -> bool:
    """True if the notebook's own code raised the error, as an open TODO does."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals is notebook


def _show_one_line(
    shell: Any,
    kind: type[BaseException],
    error: BaseException,
    trace: TracebackType | None,
    tb_offset: int | None = None,
) -> list[str]:
    """Show the message alone. Other people's NotImplementedError stays complete."""
    ours = isinstance(error, CheckFailed | NotDoneYet)
    if not ours and not _is_stub(error, shell.user_global_ns):
        shell.showtraceback((kind, error, trace), tb_offset=tb_offset)
        return []
    # No colours: no two of them can be read on every theme's ground.
    lines = [str(error) or "not done yet"]
    shell._showtraceback(kind, error, lines)
    return lines


def _install() -> None:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if shell is not None:
        shell.set_custom_exc((NotImplementedError, CheckFailed), _show_one_line)
        shell.events.register("post_run_cell", _remember)


_install()
