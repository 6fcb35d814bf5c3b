"""Frames between the zones: plain values arrive unchanged, everything else is refused."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import random
import re
import socket
import struct
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autograder import wire


def over(body: Any) -> Any:
    """Send `body` through a connection and give back what arrives."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sender = threading.Thread(target=wire.send, args=(theirs, body))
        sender.start()
        try:
            return wire.receive(ours, time.monotonic() + 10)
        finally:
            ours.close()
            sender.join()


def arriving(raw: bytes) -> Any:
    """Return what a receiver reads from these bytes before the connection ends."""
    ours, theirs = socket.socketpair()

    def write() -> None:
        with contextlib.suppress(OSError), theirs:
            theirs.sendall(raw)

    with ours:
        writer = threading.Thread(target=write)
        writer.start()
        try:
            return wire.receive(ours, time.monotonic() + 10)
        finally:
            ours.close()
            writer.join()


def frame(header: Any, payload: bytes = b"", magic: bytes = b"KIT1") -> bytes:
    """Encode a frame; a header that is not bytes is written as JSON."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<4sII", magic, len(text), len(payload)) + text + payload


def described(dtype: Any, shape: Any, payload: bytes = b"", body: Any = None) -> bytes:
    """Encode a frame with one array."""
    body = {"array": 0} if body is None else body
    return frame({"body": body, "arrays": [{"dtype": dtype, "shape": shape}]}, payload)


def same(one: Any, other: Any) -> bool:
    """Compare two bodies, arrays by dtype, shape and bytes."""
    if isinstance(one, np.ndarray | np.generic):
        return (
            type(other) is np.ndarray
            and one.dtype.newbyteorder("=") == other.dtype
            and one.shape == other.shape
            and np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
        )
    if isinstance(one, list | tuple):
        return (
            type(other) is list
            and len(one) == len(other)
            and all(same(a, b) for a, b in zip(one, other, strict=True))
        )
    if isinstance(one, dict):
        return (
            type(other) is dict
            and [str(key) for key in one] == list(other)
            and all(same(value, other[str(key)]) for key, value in one.items())
        )
    return type(one) is type(other) and one == other


# -- accepted values ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(wire.DTYPES))
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 4), (2, 0, 5), (2, 3, 1, 2)])
def test_every_dtype_and_shape_arrives_unchanged(name: str, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(len(name))
    sent = rng.uniform(0, 100, shape).astype(name)
    assert same(sent, over(sent))


@pytest.mark.parametrize(
    "body",
    [
        None,
        True,
        False,
        0,
        -(2**80),
        1.5,
        "",
        "h_pool \u2014 \u03c3, \U0001f600, \ud800, \0",
        [],
        {},
        [[], {}, [None]],
        {"array": 1, "map": [["a", 2]]},
        {"body": {"arrays": [np.arange(3), {"x": np.float32(2.5)}]}, "": [1, 2.0, "3"]},
        {"1": {"2": {"3": [np.zeros((0, 2), np.uint8), np.ones((), bool)]}}},
    ],
    ids=repr,
)
def test_plain_values_arrive_unchanged(body: Any) -> None:
    assert same(body, over(body))


def test_floats_that_are_no_numbers_arrive() -> None:
    infinite, negative, nothing = over([np.inf, -np.inf, np.nan])
    assert infinite == np.inf
    assert negative == -np.inf
    assert nothing != nothing
    assert same(np.array([np.nan, np.inf]), over(np.array([np.nan, np.inf])))


def test_tuples_become_lists_and_keys_become_text() -> None:
    assert over({1: (2, (3,)), None: ()}) == {"1": [2, [3]], "None": []}


@pytest.mark.parametrize("name", [">f4", ">f8", ">i2", ">u8", ">f2"])
def test_big_endian_arrays_keep_their_values(name: str) -> None:
    sent = np.arange(-5, 7).reshape(3, 4).astype(name)
    got = over(sent)
    assert got.dtype.isnative
    assert np.array_equal(sent, got)


@pytest.mark.parametrize(
    "make",
    [
        lambda a: a.T,
        lambda a: a[::-2, ::3],
        lambda a: np.asfortranarray(a),
        lambda a: np.broadcast_to(a[:1], a.shape),
        lambda a: a[:, None],
    ],
)
def test_strided_arrays_keep_their_order(make: Any) -> None:
    sent = make(np.arange(60, dtype=np.int32).reshape(6, 10))
    got = over(sent)
    assert np.array_equal(sent, got)
    assert got.flags.c_contiguous
    assert got.flags.writeable


def test_a_subclass_arrives_as_a_plain_array_of_its_real_content() -> None:
    class Liar(np.ndarray):
        dtype = property(lambda self: np.dtype("float64"))
        shape = property(lambda self: (7, 7))

        def __eq__(self, other: object) -> Any:
            return True

        def tobytes(self, order: Any = None) -> bytes:
            return b"lies"

        def astype(self, *args: Any, **kwargs: Any) -> Any:
            return np.full(9, 9)

    truth = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert same(truth, over(truth.view(Liar)))
    masked = np.ma.masked_array(truth, mask=True)
    assert same(truth, over(masked))


def test_arrays_that_arrive_share_no_memory() -> None:
    shared = np.zeros(4)
    one, other = over([shared, shared])
    one[:] = 1
    assert not other.any()


def test_frames_follow_each_other_on_one_connection() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for number in range(3):
            wire.send(theirs, [number, np.full(number, number)])
        for number in range(3):
            assert same([number, np.full(number, number)], wire.receive(ours))


def test_a_frame_larger_than_the_socket_buffer_arrives() -> None:
    sent = np.random.default_rng(0).integers(0, 255, 5 << 20, dtype=np.uint8)
    assert same(sent, over(sent))


def test_random_bodies_arrive_unchanged() -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    chance, rng = random.Random(seed), np.random.default_rng(seed)

    def draw(depth: int) -> Any:
        kind = chance.choice(["leaf", "array"] + ["list", "dict"] * (depth < 6))
        if kind == "list":
            return [draw(depth + 1) for _ in range(chance.randrange(4))]
        if kind == "dict":
            names = ("array", "map", "a", "\u03c3", "", "id")
            return {chance.choice(names): draw(depth + 1) for _ in range(chance.randrange(4))}
        if kind == "leaf":
            letters = 'ab\u20ac\U0001f600\ud800\0\n"\\'
            return chance.choice(
                [
                    None,
                    chance.random() < 0.5,
                    chance.randrange(-(2**70), 2**70),
                    chance.uniform(-1e300, 1e300),
                    "".join(chance.choices(letters, k=chance.randrange(9))),
                ]
            )
        shape = [chance.randrange(4) for _ in range(chance.randrange(5))]
        array = rng.integers(0, 120, shape).astype(chance.choice(sorted(wire.DTYPES)))
        if chance.random() < 0.3:
            array = array.astype(array.dtype.newbyteorder(">"))
        return array.T if chance.random() < 0.3 else array

    for _ in range(200):
        body = draw(0)
        assert same(body, over(body)), body


# -- refused by the sender ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        np.array([object()]),
        np.array(["text"]),
        np.array([b"bytes"]),
        np.array([1j]),
        np.array(["2020-01-01"], "M8[D]"),
        np.zeros(2, [("a", "f4")]),
        np.str_("text"),
        b"bytes",
        object(),
        {1, 2},
        1j,
        len,
        [{"deep": [object]}],
    ],
    ids=lambda body: re.sub(" at 0x[0-9a-f]+", "", repr(body)),  # the same name in every run
)
def test_a_value_that_is_not_plain_is_not_sent(body: Any) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with pytest.raises(wire.WireError, match="cannot be sent"):
            wire.send(theirs, body)
        ours.setblocking(False)
        with pytest.raises(BlockingIOError):
            ours.recv(1)


def test_a_value_that_holds_itself_is_not_sent() -> None:
    ring: list[Any] = []
    ring.append(ring)
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(wire.WireError, match="nested more than"):
        wire.send(theirs, ring)


def test_frames_over_the_limits_are_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with pytest.raises(wire.WireError, match="too large"):
            wire.send(theirs, "x" * (wire.HEADER_LIMIT + 1))
        monkeypatch.setattr(wire, "PAYLOAD_LIMIT", 1000)
        with pytest.raises(wire.WireError, match="too large"):
            wire.send(theirs, np.zeros(1001, np.uint8))


# -- refused by the receiver -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (frame({"body": 1, "arrays": []}, magic=b"KIT2"), "does not start like a frame"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "does not start like a frame"),
        (struct.pack("<4sII", b"KIT1", wire.HEADER_LIMIT + 1, 0), "announces"),
        (struct.pack("<4sII", b"KIT1", 2, wire.PAYLOAD_LIMIT + 1), "announces"),
        (struct.pack("<4sII", b"KIT1", 2**32 - 1, 2**32 - 1), "announces"),
        (frame(b""), "not JSON"),
        (frame(b"{"), "not JSON"),
        (frame(b"\xff\xfe\x00"), "not JSON"),
        (frame(b"[" * 100_000), "not JSON"),
        (frame(b'{"body":' * 100_000), "not JSON"),
        (frame(b"1" * 100_000), "not JSON"),
        (frame([1, 2]), "lacks its body"),
        (frame(None), "lacks its body"),
        (frame({"body": 1}), "lacks its body"),
        (frame({"arrays": []}), "lacks its body"),
        (frame({"body": 1, "arrays": {}}), "lacks its body"),
        (frame({"body": 1, "arrays": [], "more": 1}), "lacks its body"),
    ],
)
def test_what_is_no_frame_is_refused(raw: bytes, reason: str) -> None:
    with pytest.raises(wire.WireError, match=reason):
        arriving(raw)


@pytest.mark.parametrize(
    "dtype",
    ["object", "O", "|O", "str", "<U4", "S8", "V8", "complex64", "datetime64[s]", "float128",
     "f4", "<f4", "float32, float32", "", None, 4, ["float32"], {"a": 1}],
)  # fmt: skip
def test_dtypes_that_are_not_allowed_are_refused(dtype: Any) -> None:
    with pytest.raises(wire.WireError, match="without an allowed dtype"):
        arriving(described(dtype, [1], bytes(8)))


@pytest.mark.parametrize("entry", [None, 1, [], "float32", {}, {"dtype": "float32"}, {"shape": []}])
def test_arrays_without_a_description_are_refused(entry: Any) -> None:
    with pytest.raises(wire.WireError, match="described without"):
        arriving(frame({"body": None, "arrays": [entry]}))


@pytest.mark.parametrize(
    "shape",
    [[-1], [2, -2], [1.0], ["1"], [None], [True], [[1]], [2**28 + 1], [2**70], [1] * 9, [1] * 5000],
)
def test_impossible_shapes_are_refused(shape: Any) -> None:
    with pytest.raises(wire.WireError, match="impossible shape"):
        arriving(described("uint8", shape, bytes(4)))


@pytest.mark.parametrize(
    "shape", [[5], [2**28], [2**28] * 8, [0, 2**28, 2**28, 2**28], [2**28] * 7 + [0]]
)
def test_shapes_beyond_the_bytes_that_came_are_refused_without_a_large_array(shape: Any) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(wire.WireError):
            arriving(described("uint8", shape, bytes(4)))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_an_empty_array_of_absurd_shape_is_refused() -> None:
    with pytest.raises(wire.WireError):
        arriving(described("float64", [0, 2**28, 2**28, 2**28]))


@pytest.mark.parametrize("payload", [bytes(3), bytes(5), b""])
def test_bytes_left_over_or_lacking_are_refused(payload: bytes) -> None:
    with pytest.raises(wire.WireError, match=r"left over|larger than the bytes"):
        arriving(described("uint8", [4], payload))


def test_bytes_without_an_array_are_refused() -> None:
    with pytest.raises(wire.WireError, match="left over"):
        arriving(frame({"body": None, "arrays": []}, b"x"))


@pytest.mark.parametrize(
    "body",
    [
        {"array": 1},
        {"array": -1},
        {"array": 0.0},
        {"array": "0"},
        {"array": None},
        {"array": 0, "map": []},
        {"map": {}},
        {"map": [1]},
        {"map": [["a"]]},
        {"map": [["a", 1, 2]]},
        {"map": [[{"array": 0}, 1]]},
        {"map": [[1, 1]]},
        {"map": None},
        {"map": [["a", {"other": 1}]]},
        {},
        {"pickle": "gASVAA=="},
        [[[{"x": 1}]]],
    ],
)
def test_bodies_with_anything_but_arrays_and_maps_are_refused(body: Any) -> None:
    with pytest.raises(wire.WireError):
        arriving(described("uint8", [1], b"x", body=body))


def test_one_array_cannot_be_named_many_times() -> None:
    # Otherwise a small frame becomes a huge array when the list is stacked.
    with pytest.raises(wire.WireError):
        arriving(described("uint8", [1], b"x", body=[{"array": 0}] * 1000))


@pytest.mark.parametrize("depth", [40, 200, 900, 980])
@pytest.mark.parametrize(
    ("opening", "closing"),
    [("[", "]"), ('{"map":[["k",', "]]}"), ('{"map":[[', ",1]]}")],
)
def test_deep_nesting_is_refused(depth: int, opening: str, closing: str) -> None:
    body = opening * depth + "0" + closing * depth
    with pytest.raises(wire.WireError):
        arriving(frame(f'{{"body": {body}, "arrays": []}}'.encode()))


@pytest.mark.parametrize("depth", range(900, 1000, 3))
def test_keys_are_text_and_nothing_deeper(depth: int) -> None:
    key = "[" * depth + "]" * depth
    with pytest.raises(wire.WireError):
        arriving(frame(f'{{"body": {{"map": [[{key}, 1]]}}, "arrays": []}}'.encode()))


@pytest.mark.parametrize("kept", [0, 1, 11, 12, 20, -1])
def test_a_frame_that_breaks_off_is_refused(kept: int) -> None:
    whole = described("float32", [4], bytes(16))
    with pytest.raises(wire.WireClosed):
        arriving(whole[:kept])


def test_a_broken_connection_is_refused() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours, pytest.raises(wire.WireClosed):
        wire.receive(ours, time.monotonic() + 5)
    with pytest.raises(wire.WireClosed):
        wire.receive(ours, time.monotonic() + 5)


def test_silence_ends_at_the_deadline() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        started = time.monotonic()
        with pytest.raises(wire.WireTimeout):
            wire.receive(ours, started + 0.2)
        assert 0.1 < time.monotonic() - started < 5
        with pytest.raises(wire.WireTimeout):
            wire.receive(ours, time.monotonic() - 1)


def test_a_trickle_of_bytes_ends_at_the_deadline() -> None:
    ours, theirs = socket.socketpair()
    enough = threading.Event()

    def trickle() -> None:
        for byte in described("uint8", [1000], bytes(1000)):
            if enough.wait(0.02):
                return
            theirs.sendall(bytes([byte]))

    with ours, theirs:
        writer = threading.Thread(target=trickle)
        writer.start()
        try:
            started = time.monotonic()
            with pytest.raises(wire.WireTimeout):
                wire.receive(ours, started + 0.3)
            assert time.monotonic() - started < 5
        finally:
            enough.set()
            writer.join()


def test_a_reader_that_takes_nothing_ends_at_the_deadline() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        started = time.monotonic()
        with pytest.raises(wire.WireTimeout):
            wire.send(ours, np.zeros(10_000_000), started + 0.2)
        assert 0.1 < time.monotonic() - started < 5
        with pytest.raises(wire.WireTimeout):
            wire.send(ours, 0, time.monotonic() - 1)


def test_a_reader_that_dawdles_ends_at_one_deadline_for_all_arrays() -> None:
    """It reads each array within the time that a single one may take."""
    ours, theirs = socket.socketpair()
    array = np.zeros(1_000_000)
    enough = threading.Event()
    taken = 0

    def dawdle() -> None:
        nonlocal taken
        while not enough.wait(0.5):
            left = array.nbytes
            while left and (count := len(theirs.recv(left))):
                left -= count
                taken += count

    with ours, theirs:
        reader = threading.Thread(target=dawdle)
        reader.start()
        try:
            with pytest.raises(wire.WireTimeout):
                wire.send(ours, [array] * 20, time.monotonic() + 2)
        finally:
            enough.set()
            ours.shutdown(socket.SHUT_RDWR)
            reader.join()
    assert array.nbytes < taken < 20 * array.nbytes


def test_damaged_frames_give_a_value_or_a_wire_error() -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    header = {
        "body": {"map": [["id", "ab"], ["value", [{"array": 0}, {"array": 1}, None, 1.5]]]},
        "arrays": [
            {"dtype": "float32", "shape": [2, 3]},
            {"dtype": "uint8", "shape": [5]},
        ],
    }
    whole = frame(header, bytes(29))
    tokens = [b"[", b"{", b"-", b"9" * 30, b'"', b"null", b"1e999", b"NaN", b"\\ud800", b"\xff"]
    for _ in range(500):
        raw = bytearray(whole[12:])
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(raw) - 29)
            if chance.random() < 0.5:
                raw[at] = chance.randrange(256)
            else:
                raw[at : at + chance.randrange(6)] = chance.choice(tokens)
        raw[:0] = struct.pack("<4sII", b"KIT1", len(raw) - 29, 29)
        with contextlib.suppress(wire.WireError):
            arriving(bytes(raw))


# -- nothing is unpickled ----------------------------------------------------------------------


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_nothing_is_ever_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "unpickled"
    bomb = pickle.dumps(Bomb(path))
    saved = io.BytesIO()
    np.save(saved, np.array([Bomb(path)], dtype=object), allow_pickle=True)
    for payload in (bomb, saved.getvalue()):
        for raw in (
            payload,
            frame(payload),
            frame({"body": None, "arrays": []}, payload),
            described("object", [1], payload),
            described("object", [], payload),
            frame({"body": {"pickle": payload.hex()}, "arrays": []}),
        ):
            with pytest.raises(wire.WireError):
                arriving(raw)
        got = arriving(described("uint8", [len(payload)], payload))
        assert got.tobytes() == payload
    assert not path.exists()
    pickle.loads(bomb)
    assert path.exists()  # the payload works: unpickling it creates the file


def test_a_deadline_may_be_asked_for_again_and_again() -> None:
    one, other = socket.socketpair()
    asked = []

    def patience() -> float:
        asked.append(True)
        return 0.01 if len(asked) < 5 else 0.0

    with one, other:
        with pytest.raises(wire.WireTimeout):
            wire.receive(one, patience)
        assert len(asked) == 5
        asked.clear()
        with pytest.raises(wire.WireTimeout):
            wire.send(
                one, np.zeros(1 << 22), patience
            )  # more than a socket buffers when nobody reads from it
        assert len(asked) >= 5


def test_a_slow_reader_gets_every_byte() -> None:
    sent = np.arange(1 << 21)
    one, other = socket.socketpair()
    with one, other, ThreadPoolExecutor() as threads:
        sending = threads.submit(wire.send, one, sent, lambda: 0.001)
        got = wire.receive(other, lambda: 0.001)
        sending.result()
    assert np.array_equal(got, sent)
