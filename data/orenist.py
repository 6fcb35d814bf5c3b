"""Generates and reads ORENIST, 90 small pictures of brush strokes.

Class 0 is a vertical stroke, class 1 a horizontal one, class 2 a cross of both.

    python -m autograder.data.orenist      rewrites ORENIST.data, byte for byte the same

Any other seed gives fresh pictures. With NumPy 1 or 2, `images, labels = pickle.load(file)`
reads the file; `load` reads it, and the book's older file, without executing the pickle.
"""

from __future__ import annotations

import io
import math
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The first nine pictures, which the notebooks show, are three of each class.
SEED = 49
SIDE = 28
CLASSES = 3

DATA_FILE = Path(__file__).resolve().with_name("ORENIST.data")
STUDENT_FILE = DATA_FILE.parents[1] / "source" / "ch4-cnn" / "ORENIST.data"  # in a checkout

Pixels = NDArray[np.float64]
Floats = NDArray[np.float32]

_ROWS, _COLUMNS = np.mgrid[0:SIDE, 0:SIDE].astype(np.float64)


def generate(seed: int, per_class: int = 30) -> tuple[Floats, Floats]:
    """Draw `per_class` strokes of each class, in an order shuffled by the seed.

    Returns images (3 * per_class, 784) float32 in [0, 1], where 0 is paper and 1 is
    ink, and labels (3 * per_class, 3) float32, one-hot. The same seed gives the same
    arrays. Raises ValueError for a negative seed.
    """
    # A NumPy release may change how a Generator shuffles or draws normal numbers, so
    # only `random()` is used, which follows the bit stream.
    rng = np.random.default_rng(seed)
    classes = np.repeat(np.arange(CLASSES), per_class)
    drawn = [_image(rng, vertical=k != 1, horizontal=k != 0) for k in classes]
    # Integer grey levels round away differences in the last bit between machines'
    # sines, so the file stays the same byte for byte.
    grey = np.rint(np.array(drawn).reshape(-1, SIDE * SIDE) * 255)
    order = np.argsort(rng.random(len(classes)))
    images = grey.astype(np.float32) / np.float32(255)
    return images[order], np.eye(CLASSES, dtype=np.float32)[classes[order]]


def write(path: Path, seed: int = SEED) -> None:
    """Write `generate(seed)` to `path` as a pickle of the pair (images, labels)."""
    stream = io.BytesIO()
    _PortablePickler(stream, protocol=4).dump(generate(seed))
    path.write_bytes(stream.getvalue())


def load(path: Path) -> tuple[Floats, Floats]:
    """Read an ORENIST file: ours, the book's, or one pickled from the same arrays.

    Nothing named in the file is imported or called, so a hostile pickle runs no code.
    Images and labels may be arrays or lists of rows, of any real number type.

    Returns images (n, 784) float32 in [0, 1] and labels (n, 3) float32, one-hot.
    Raises OSError if the file cannot be read, and ValueError with a one-line message if
    it does not hold such a pair.
    """
    with path.open("rb") as file:
        try:
            content = _ArraysOnly(file, encoding="latin1").load()
            if not isinstance(content, (tuple, list)) or len(content) != 2:
                raise ValueError("it does not hold the pair (images, labels)")
            images = _matrix(content[0], SIDE * SIDE, "images")
            labels = _matrix(content[1], CLASSES, "labels")
        # A broken pickle may raise almost anything, from EOFError to MemoryError.
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"{path} is not an ORENIST file: {reason}") from error
    if len(images) != len(labels):
        raise ValueError(
            f"{path} is not an ORENIST file: it has {len(images)} images and {len(labels)} labels"
        )
    if not (np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all()):
        raise ValueError(f"{path} is not an ORENIST file: its labels are not one-hot")
    return images, labels


def main() -> None:
    """Write the data file and the copy that students get with the notebooks."""
    if not STUDENT_FILE.parent.is_dir():
        sys.exit(f"{STUDENT_FILE.parent} is not there: run this in a checkout")
    for path in (DATA_FILE, STUDENT_FILE):
        write(path)
        print(f"wrote {path}")


# --- drawing ---------------------------------------------------------------------


def _image(rng: np.random.Generator, *, vertical: bool, horizontal: bool) -> Pixels:
    """Draw the chosen strokes on grainy paper: (28, 28) in [0, 1]."""
    ink = np.zeros((SIDE, SIDE))
    if vertical:
        ink = np.maximum(ink, _stroke(rng, math.pi / 2))
    if horizontal:
        ink = np.maximum(ink, _stroke(rng, 0.0))
    # Dry spots in the ink and faint grey on the paper look hand-drawn, and stay well
    # below the cutoff of 0.2 that the notebooks apply after the convolution.
    dry = 1 - 0.15 * rng.random((SIDE, SIDE))
    dust = 0.03 * rng.random((SIDE, SIDE))
    return np.maximum(ink * dry, dust)


def _stroke(rng: np.random.Generator, direction: float) -> Pixels:
    """Draw one slightly bent stroke: its coverage of each pixel, (28, 28) in [0, 1].

    `direction` is in radians, 0 along a row and pi/2 down a column; the stroke leans
    up to 8 degrees away from it.
    """

    def between(low: float, high: float) -> float:
        return low + (high - low) * float(rng.random())

    middle = (SIDE - 1) / 2
    x, y = middle + between(-2, 2), middle + between(-2, 2)
    angle = direction + math.radians(between(-8, 8))
    along = between(9.5, 12) * np.array((math.cos(angle), math.sin(angle)))
    bend = between(-1, 1) * np.array((-math.sin(angle), math.cos(angle)))
    radius = between(3, 5.5) / 2

    centre = np.array((x, y))
    start, knee, end = centre - along, centre + bend, centre + along
    distance = np.minimum(_distance(start, knee), _distance(knee, end))
    # The edge fades over 1.5 pixels, as anti-aliasing.
    return np.clip((radius - distance) / 1.5 + 0.5, 0, 1)


def _distance(start: Pixels, end: Pixels) -> Pixels:
    """Distance of every pixel to the segment from `start` to `end`: (28, 28).

    Both points are (x, y), that is (column, row).
    """
    (x, y), (dx, dy) = start, end - start
    place = ((_COLUMNS - x) * dx + (_ROWS - y) * dy) / (dx * dx + dy * dy)
    place = np.clip(place, 0, 1)
    distance: Pixels = np.hypot(_COLUMNS - x - place * dx, _ROWS - y - place * dy)
    return distance


# --- the file --------------------------------------------------------------------


class _PortablePickler(pickle.Pickler):
    """Pickles arrays under names that every NumPy version has.

    NumPy 2 itself writes `numpy._core.multiarray`, which NumPy 1 lacks. The public
    `numpy.ndarray` and `numpy.dtype` work as well, and make the bytes independent of the
    installed NumPy.
    """

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            state = (1, value.shape, value.dtype, False, value.tobytes())
            return np.ndarray, ((0,),), state
        if isinstance(value, np.dtype):
            return np.dtype, (value.str,)
        return NotImplemented


class _Dtype:
    """Stand-in for a pickled dtype, which is checked; NumPy's own trusts its state blindly."""

    _KNOWN = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")

    def __init__(self, code: str, *_flags: object) -> None:
        self.code = code.lstrip("<>=|")
        self.order = code[0] if code[0] in "<>" else "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1] if state[1] in ("<", ">") else "="

    def real(self) -> np.dtype[Any]:
        if self.code not in self._KNOWN:
            raise ValueError(f"it holds values of type {self.code!r}, not numbers")
        return np.dtype(self.order + self.code)


class _Array:
    """Stand-in for a pickled array; its values are set by `__setstate__`."""

    def __init__(self, *_ignored: object) -> None:
        self.values: NDArray[Any] = np.zeros(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, shape, dtype, fortran, data = state
        if isinstance(data, str):  # a Python 2 byte string, as Python 3 decodes it
            data = data.encode("latin1")
        flat = np.frombuffer(data, dtype.real())
        self.values = flat.reshape(shape, order="F" if fortran else "C")


class _ArraysOnly(pickle.Unpickler):
    """Unpickles lists, tuples, numbers and arrays; refuses all other names.

    The names that NumPy writes are mapped to stand-ins in this module. NumPy's own
    functions are safe for honest files only: a forged dtype state makes them treat any
    bytes as Python objects.
    """

    def find_class(self, module: str, name: str) -> Any:
        # `numpy.core` was renamed `numpy._core` in NumPy 2.
        match module.replace("numpy._core", "numpy.core"), name:
            case ("numpy", "ndarray") | ("numpy.core.multiarray", "_reconstruct"):
                return _Array
            case ("numpy", "dtype"):
                return _Dtype
            case ("numpy.core.multiarray", "scalar"):
                return self._scalar
            case ("numpy.core.numeric", "_frombuffer"):  # pickle protocol 5
                return self._from_buffer
            case ("_codecs", "encode"):  # bytes in protocols 0 to 2
                return self._encode
        raise ValueError(f"it names {module}.{name}, and only arrays are read")

    def _scalar(self, dtype: _Dtype, data: bytes | str) -> Any:
        array = _Array()
        array.__setstate__((1, (), dtype, False, data))
        return array.values.item()

    def _from_buffer(
        self, data: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str
    ) -> _Array:
        array = _Array()
        array.__setstate__((1, shape, dtype, order == "F", data))
        return array

    def _encode(self, text: str, _encoding: str) -> bytes:
        return text.encode("latin1")


def _row(value: object, columns: int, what: str) -> NDArray[Any]:
    """Convert an unpickled row, an array or a flat list of numbers, to (columns,).

    Raises ValueError for anything else; `what` names its matrix in the message.
    """
    if isinstance(value, _Array) and value.values.shape == (columns,):
        return value.values
    # NumPy must not descend into a list: one that contains itself never ends.
    if (
        isinstance(value, (list, tuple))
        and len(value) == columns
        and all(isinstance(number, (int, float)) for number in value)
    ):
        return np.array(value, dtype=np.float64)
    raise ValueError(f"its {what} have a row that is not {columns} numbers")


def _matrix(value: object, columns: int, what: str) -> Floats:
    """Convert an unpickled array or list of rows to (n, columns) float32 in [0, 1].

    Raises ValueError for anything else; `what` names it in the message.
    """
    if isinstance(value, _Array):
        matrix = value.values
    elif isinstance(value, (list, tuple)):
        matrix = np.array([_row(row, columns, what) for row in value])
    else:
        raise ValueError(f"its {what} are neither an array nor a list of rows")
    if matrix.ndim != 2 or matrix.shape[1] != columns or not len(matrix):
        raise ValueError(f"its {what} have shape {matrix.shape}, expected (n, {columns})")
    if not ((matrix >= 0) & (matrix <= 1)).all():
        raise ValueError(f"its {what} are not all between 0 and 1")
    return matrix.astype(np.float32)


if __name__ == "__main__":
    main()
