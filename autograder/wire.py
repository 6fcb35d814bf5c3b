"""Frames between the kernel zone and the checks zone: JSON and raw array buffers.

A frame is ``MAGIC``, two little-endian unsigned 32-bit lengths (header, payload), a JSON header
``{"body": …, "arrays": [{"dtype", "shape"}, …]}`` and the arrays' bytes, C-ordered, one after the
other.  In the body, an array is written as ``{"array": k}`` and a dict as ``{"map": [[key, value],
…]}``.  Nothing is ever unpickled, and a reader decides from the header alone whether to accept the
payload.
"""

from __future__ import annotations

import contextlib
import json
import math
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import numpy as np

MAGIC = b"KIT1"
HEADER_LIMIT = 1 << 20
PAYLOAD_LIMIT = 256 << 20
NUMBERS_LIMIT = 64 << 20  # in all arrays of a frame; a reader may convert each to float64
DEPTH_LIMIT = 12
DTYPES = frozenset(
    {"bool", "float16", "float32", "float64"}
    | {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
)
OUT_OF_TIME = "no complete frame in time"
_PREFIX = struct.Struct("<4sII")
# A `time.monotonic()` value for the whole frame; or a function, called before each wait, that
# returns how long to wait until the next call, 0 when time is up.
Deadline = float | Callable[[], float] | None


class WireError(ValueError):
    """The other side sent something that is not a frame; the message says what."""


class WireClosed(WireError):
    """The other side closed the connection."""


class WireTimeout(WireError):
    """No complete frame arrived, or was accepted, in time."""


def _pack(value: Any, arrays: list[np.ndarray], depth: int = 0) -> Any:
    if depth > DEPTH_LIMIT:
        raise WireError(f"a value is nested more than {DEPTH_LIMIT} deep")
    if isinstance(value, np.ndarray | np.generic):
        # Make it a plain array, so that a subclass cannot redefine its bytes.
        plain = np.asarray(value, order="C")
        if plain.dtype.name not in DTYPES:
            raise WireError(f"an array of dtype {plain.dtype} cannot be sent")
        arrays.append(plain.astype(plain.dtype.newbyteorder("<"), copy=False))
        return {"array": len(arrays) - 1}
    if isinstance(value, dict):
        return {"map": [[str(key), _pack(item, arrays, depth + 1)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_pack(item, arrays, depth + 1) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise WireError(f"a {type(value).__name__} cannot be sent")


def _unpack(value: Any, arrays: dict[int, np.ndarray], depth: int = 0) -> Any:
    if depth > 3 * DEPTH_LIMIT:
        raise WireError("the body is nested too deep")
    if isinstance(value, list):
        return [_unpack(item, arrays, depth + 1) for item in value]
    if isinstance(value, dict):
        match value:
            case {"array": int(index)} if len(value) == 1 and index in arrays:
                # An array named twice could turn a small frame into huge data for the reader.
                return arrays.pop(index)
            case {"map": list(pairs)} if len(value) == 1:
                return dict(_pair(pair, arrays, depth + 1) for pair in pairs)
        raise WireError("the body holds an object that is neither an array nor a map")
    return value


def _pair(pair: Any, arrays: dict[int, np.ndarray], depth: int) -> tuple[str, Any]:
    match pair:
        case [str(key), item]:
            return key, _unpack(item, arrays, depth)
    raise WireError("a map in the body is malformed")


def send(connection: socket.socket, body: Any, deadline: Deadline = None) -> None:
    """Send `body` (None, bool, int, float, str, arrays, and lists and dicts of these).

    Raises WireError when the body cannot be written as a frame, WireTimeout when the other side
    does not take all of it in time, OSError when the connection is gone.
    """
    arrays: list[np.ndarray] = []
    packed = _pack(body, arrays)
    header = json.dumps(
        {
            "body": packed,
            "arrays": [{"dtype": a.dtype.name, "shape": list(a.shape)} for a in arrays],
        }
    ).encode()
    size = sum(a.nbytes for a in arrays)
    if len(header) > HEADER_LIMIT or size > PAYLOAD_LIMIT:
        raise WireError(f"a frame of {len(header)} + {size} bytes is too large")
    parts = [memoryview(_PREFIX.pack(MAGIC, len(header), size) + header)]
    # Skip empty arrays: a reader that has all bytes may already be gone, and sending would fail.
    parts += [_bytes_of(array) for array in arrays if array.size]
    for part in parts:
        while part:
            connection.settimeout(_until(deadline))
            with contextlib.suppress(TimeoutError):
                part = part[connection.send(part) :]


def _bytes_of(array: np.ndarray) -> memoryview:
    """The memory of a C-ordered array."""
    return array.reshape(-1).view(np.uint8).data


def receive(connection: socket.socket, deadline: Deadline = None) -> Any:
    """Receive one frame and return its body; arrays are fresh, C-ordered `np.ndarray`s.

    Raises WireClosed, WireTimeout or WireError; never receives more than `HEADER_LIMIT +
    PAYLOAD_LIMIT` bytes.
    """
    magic, header_size, payload_size = _PREFIX.unpack(_exactly(connection, _PREFIX.size, deadline))
    if magic != MAGIC:
        raise WireError("the reply does not start like a frame")
    if header_size > HEADER_LIMIT or payload_size > PAYLOAD_LIMIT:
        raise WireError(f"the reply announces {header_size} + {payload_size} bytes")
    text = _exactly(connection, header_size, deadline)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WireError("the reply's header is not JSON") from error
    match header:
        case {"body": body, "arrays": list(described)} if len(header) == 2:
            arrays = _allocate(described, payload_size)
        case _:
            raise WireError("the reply's header lacks its body or its arrays")
    for array in arrays:
        _fill(_bytes_of(array), connection, deadline)
    native = [array.astype(array.dtype.newbyteorder("="), copy=False) for array in arrays]
    return _unpack(body, dict(enumerate(native)))


def _allocate(described: list[Any], size: int) -> list[np.ndarray]:
    """Arrays of the described dtypes and shapes, yet to be filled with `size` bytes."""
    wanted: list[tuple[np.dtype[Any], list[int]]] = []
    numbers, left = 0, size
    for entry in described:
        match entry:
            case {"dtype": str(name), "shape": list(shape)} if name in DTYPES:
                pass
            case _:
                raise WireError("an array is described without an allowed dtype and a shape")
        if len(shape) > 8 or not all(type(n) is int and 0 <= n <= PAYLOAD_LIMIT for n in shape):
            raise WireError("an array has an impossible shape")
        dtype = np.dtype(name).newbyteorder("<")
        count = math.prod(shape)
        numbers += count
        left -= count * dtype.itemsize
        if numbers > NUMBERS_LIMIT:
            raise WireError(f"the reply holds more than {NUMBERS_LIMIT} numbers")
        if left < 0:
            raise WireError("an array is larger than the bytes that came with it")
        wanted.append((dtype, shape))
    if left:
        raise WireError("bytes are left over behind the last array")
    try:
        return [np.empty(shape, dtype) for dtype, shape in wanted]
    except ValueError as error:  # no elements, but a shape too large for NumPy
        raise WireError("an array has an impossible shape") from error


def _exactly(connection: socket.socket, size: int, deadline: Deadline) -> bytearray:
    data = bytearray(size)
    _fill(memoryview(data), connection, deadline)
    return data


def _until(deadline: Deadline) -> float | None:
    """Seconds to wait at most, None without a deadline.  Raises WireTimeout when it has passed."""
    if deadline is None:
        return None
    left = deadline() if callable(deadline) else deadline - time.monotonic()
    if left <= 0:
        raise WireTimeout(OUT_OF_TIME)
    return left


def _fill(view: memoryview, connection: socket.socket, deadline: Deadline) -> None:
    got = 0
    while got < len(view):
        left = _until(deadline)
        try:
            connection.settimeout(left)
            count = connection.recv_into(view[got:])
        except TimeoutError:
            continue
        except OSError as error:
            raise WireClosed("the connection broke") from error
        if count == 0:
            raise WireClosed("the connection was closed")
        got += count
