"""Friendly checks for the grade cells of a notebook.

A check looks at a name of the notebook and says in one line what it is, what was
wanted, and why. It sees names, types, shapes and numbers that are no secret; it does
not know the solution. In a notebook these lines appear without a traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import numpy as np

__all__ = [
    "CheckFailed",
    "NotDoneYet",
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
    """The value of the last name, once all of them are there."""
    missing = [name for name in names if notebook.get(name) is None]
    if missing:
        raise _not_done(missing, cell)
    return notebook[names[-1]]


def _not_done(names: Sequence[str], cell: str) -> NotDoneYet:
    return NotDoneYet(f"not done yet: write {_listed(names)} in cell [{cell}] first")


def _listed(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


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
    colour = 31 if isinstance(error, CheckFailed) else 33
    lines = [f"\x1b[{colour}m{str(error) or 'not done yet'}\x1b[0m"]
    shell._showtraceback(kind, error, lines)
    return lines


def _install() -> None:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if shell is not None:
        shell.set_custom_exc((NotImplementedError, CheckFailed), _show_one_line)


_install()
