"""The ORENIST pictures: how they are drawn and stored, and which files are read."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from autograder.data import orenist
from autograder.data.orenist import DATA_FILE, SEED, STUDENT_FILE, generate, load, write

BOOK = "e35ba18a"  # the start of the sha256 of the book's own file


def save(path: Path, content: object, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def refused(path: Path) -> str:
    """Check that `load` refuses the file with a one-line message that names it."""
    with pytest.raises(ValueError, match="is not an ORENIST file") as caught:
        load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path} is not an ORENIST file: ")
    return message.removeprefix(f"{path} is not an ORENIST file: ")


# --- drawing ---------------------------------------------------------------------


def test_the_seed_decides_everything() -> None:
    for first, again in zip(generate(3), generate(3), strict=True):
        np.testing.assert_array_equal(first, again)
    assert not np.array_equal(generate(3)[0], generate(4)[0])
    assert not np.array_equal(generate(3)[1], generate(4)[1])


def test_the_random_state_of_others_is_left_alone() -> None:
    np.random.seed(0)
    expected = np.random.random()
    np.random.seed(0)
    generate(3, per_class=1)
    assert np.random.random() == expected


@pytest.mark.parametrize("per_class", [1, 7, 30])
def test_shapes_types_and_ranges(per_class: int) -> None:
    images, labels = generate(5, per_class)
    assert images.shape == (3 * per_class, 784)
    assert labels.shape == (3 * per_class, 3)
    assert images.dtype == labels.dtype == np.float32
    assert images.min() >= 0
    assert images.max() <= 1
    assert set(np.unique(labels)) == {0, 1}
    np.testing.assert_array_equal(labels.sum(axis=1), 1)
    np.testing.assert_array_equal(labels.sum(axis=0), per_class)


def test_pictures_are_whole_grey_levels_and_all_different() -> None:
    images, _ = generate(SEED)
    grey = images.astype(np.float64) * 255
    np.testing.assert_allclose(grey, np.rint(grey), atol=1e-4)
    assert len(np.unique(images, axis=0)) == 90


def test_the_classes_are_mixed() -> None:
    classes = generate(SEED)[1].argmax(axis=1)
    assert 40 < np.count_nonzero(np.diff(classes)) < 80  # sorted: 2
    np.testing.assert_array_equal(np.bincount(classes[:9]), [3, 3, 3])


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        generate(-1)


def edges(images: NDArray[np.float32]) -> NDArray[np.float64]:
    """Apply the fixed 5x5 edge filters, cut off 0.2, pool 2x2: (n, 14, 14, 2)."""
    side = np.array([2, 3, 4, 3, 2]), np.array([1, 2, 3, 2, 1])
    zero = np.zeros(5)
    vertical = np.column_stack([side[0], side[1], zero, -side[1], -side[0]]) / 23
    padded = np.pad(images.reshape(-1, 28, 28), ((0, 0), (2, 2), (2, 2)))
    patches = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), axis=(1, 2))
    kernels = np.stack([vertical, vertical.T], axis=-1)
    answer = np.abs(np.einsum("nrcij,ijf->nrcf", patches, kernels)) - 0.2
    pooled: NDArray[np.float64] = answer.reshape(-1, 14, 2, 14, 2, 2).max(axis=(2, 4))
    return np.maximum(pooled, 0)


@pytest.mark.parametrize("seed", [SEED, 0, 1, 2, 3])
def test_the_edge_filters_tell_the_classes_apart(seed: int) -> None:
    images, labels = generate(seed)
    answer = edges(images)
    classes = labels.argmax(axis=1)
    strength = answer.sum(axis=(1, 2))
    ratio = strength[:, 0] / strength[:, 1]
    assert ratio[classes == 0].min() > 3
    assert ratio[classes == 1].max() < 1 / 3
    assert ratio[classes == 2].min() > 1 / 2
    assert ratio[classes == 2].max() < 2
    # Strokes give a strong response, the empty paper none.
    assert strength.max(axis=1).min() > 10
    assert (answer[:, [0, 0, -1, -1], [0, -1, 0, -1]] == 0).mean() > 0.99


# --- the file --------------------------------------------------------------------


def test_the_data_file_is_what_the_generator_makes(tmp_path: Path) -> None:
    write(tmp_path / "again.data")
    assert (tmp_path / "again.data").read_bytes() == DATA_FILE.read_bytes()


def test_students_get_the_same_file() -> None:
    content = STUDENT_FILE.read_bytes()
    # Owners of the book may put its file there, which must work.
    if not hashlib.sha256(content).hexdigest().startswith(BOOK):
        assert content == DATA_FILE.read_bytes()


def test_running_the_module_writes_both_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    places = tmp_path / "one.data", tmp_path / "two.data"
    monkeypatch.setattr(orenist, "DATA_FILE", places[0])
    monkeypatch.setattr(orenist, "STUDENT_FILE", places[1])
    orenist.main()
    printed = capsys.readouterr().out
    for place in places:
        assert place.read_bytes() == DATA_FILE.read_bytes()
        assert str(place) in printed


@pytest.mark.parametrize("encoding", ["ASCII", "latin1"])
def test_the_notebooks_can_unpickle_it(encoding: str) -> None:
    with DATA_FILE.open("rb") as file:
        images, labels = pickle.load(file, encoding=encoding)
    for read, drawn in zip((images, labels), generate(SEED), strict=True):
        assert type(read) is np.ndarray
        assert read.dtype == np.float32
        assert read.flags.writeable
        np.testing.assert_array_equal(read, drawn)


def test_it_names_only_what_numpy_1_and_2_both_have() -> None:
    names = set()

    class Recorder(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            names.add(f"{module}.{name}")
            return super().find_class(module, name)

    content = DATA_FILE.read_bytes()
    Recorder(io.BytesIO(content)).load()
    assert names == {"numpy.ndarray", "numpy.dtype"}
    assert max(code.proto for code, _, _ in pickletools.genops(content)) == 4


# --- reading files pickled elsewhere -----------------------------------------------


def same_as_generated(path: Path, seed: int = SEED) -> None:
    images, labels = load(path)
    assert images.dtype == labels.dtype == np.float32
    np.testing.assert_array_equal(images, generate(seed)[0])
    np.testing.assert_array_equal(labels, generate(seed)[1])


def test_load_reads_our_file(tmp_path: Path) -> None:
    same_as_generated(DATA_FILE)
    write(tmp_path / "other.data", seed=8)
    same_as_generated(tmp_path / "other.data", seed=8)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8"])
def test_load_reads_what_numpy_pickles(tmp_path: Path, protocol: int, dtype: str) -> None:
    images, labels = generate(SEED)
    pair = np.asfortranarray(images.astype(dtype)), labels.astype("i8")
    same_as_generated(save(tmp_path / "file", pair, protocol))


@pytest.mark.parametrize("protocol", range(6))
def test_load_reads_lists_of_arrays_numbers_and_numpy_scalars(
    tmp_path: Path, protocol: int
) -> None:
    images, labels = generate(SEED)
    pair = [list(images.astype("f8")), [list(row) for row in labels]]
    same_as_generated(save(tmp_path / "file", pair, protocol))
    same_as_generated(save(tmp_path / "file", (images.tolist(), tuple(labels.tolist())), protocol))


def python_2_array(row: NDArray[np.float64]) -> bytes:
    """Pickle an array like Python 2 in protocol 0: text, with str for the bytes."""
    shape = b"(" + b"".join(b"I%d\n" % n for n in row.shape) + b"t"
    return (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
        b"(I1\n" + shape + b"cnumpy\ndtype\n(S'f8'\nI0\nI1\ntR"
        b"(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\n"
        b"S" + repr(row.tobytes())[1:].encode() + b"\ntb"
    )


def python_2_file(path: Path) -> Path:
    images, labels = (array.astype(np.float64) for array in generate(SEED))
    rows = b"".join(python_2_array(row) + b"a" for row in images)
    path.write_bytes(b"((lp0\n" + rows + python_2_array(labels) + b"tp1\n.")
    return path


def test_load_reads_the_form_of_the_books_file(tmp_path: Path) -> None:
    path = python_2_file(tmp_path / "ORENIST.data")
    # To be such a file, Python itself must read it with latin1 only.
    with path.open("rb") as file, pytest.raises(UnicodeDecodeError):
        pickle.load(file)
    with path.open("rb") as file:
        images, labels = pickle.load(file, encoding="latin1")
    assert isinstance(images, list)
    assert images[0].dtype == labels.dtype == np.float64
    same_as_generated(path)


# --- refusing --------------------------------------------------------------------


class Call:
    """Pickles as a call of an arbitrary function, which makes pickles dangerous."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("where", ["alone", "as images", "inside a list"])
def test_no_function_is_ever_called(tmp_path: Path, protocol: int, where: str) -> None:
    trace = tmp_path / "trace"
    images, labels = generate(SEED)
    for call in (
        Call(os.system, f"touch {trace}"),
        Call(eval, f"open({str(trace)!r}, 'w')"),
        Call(open, str(trace), "w"),
        Call(np.save, str(trace), 1),
        Call(np.load, str(DATA_FILE), None, True),
        Call(np.frombuffer, b"12345678"),
        Call(getattr, 1, "real"),
    ):
        content = {
            "alone": call,
            "as images": (call, labels),
            "inside a list": ([*images[:-1], call], labels),
        }[where]
        message = refused(save(tmp_path / "file", content, protocol))
        assert "and only arrays are read" in message
    assert not trace.exists()
    assert not trace.with_suffix(".npy").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cos\nsystem\n(S'echo'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"cnumpy.core.multiarray\nfromfile\n(S'x'\ntR.",
        b"cdata.orenist\nwrite\n(S'x'\ntR.",
        b"(S'echo'\nios\nsystem\n.",
        b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.",
        b"\x80\x04\x8c\x02os\x8c\x07sys\ntem\x93.",  # the message stays one line
        b"\x80\x04\x8c\x05numpy\x8c\x0dndarray.dumps\x93.",
    ],
)
def test_no_other_name_is_looked_up(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    assert "and only arrays are read" in refused(tmp_path / "file")


def test_object_arrays_are_refused(tmp_path: Path) -> None:
    images, labels = generate(SEED)
    refused(save(tmp_path / "file", (images.astype(object), labels)))
    refused(save(tmp_path / "file", (images, labels.astype(object))))
    refused(save(tmp_path / "file", (list(images.astype(object)), labels)))


def test_raw_bytes_are_never_taken_for_objects(tmp_path: Path) -> None:
    # NumPy itself would follow these eight bytes as a pointer.
    forged = python_2_array(np.full((1, 784), 0.5))
    forged = forged.replace(b"S'f8'", b"S'O8'").replace(b"S'<'", b"S'|'")
    (tmp_path / "file").write_bytes(b"(" + forged + python_2_array(np.eye(3)) + b"t.")
    assert "'O8'" in refused(tmp_path / "file")


@pytest.mark.parametrize("dtype", ["U1", "S1", "V8", "M8[s]", "c16", [("x", "f8")]])
def test_other_types_are_refused(tmp_path: Path, dtype: Any) -> None:
    content = np.zeros((90, 784), dtype), generate(SEED)[1]
    refused(save(tmp_path / "file", content))


def test_forged_shapes_are_refused(tmp_path: Path) -> None:
    honest = python_2_array(np.zeros((2, 784))) + python_2_array(np.eye(3)[:2])
    path = tmp_path / "file"
    path.write_bytes(b"(" + honest + b"t.")
    load(path)
    for shape in (b"I3\nI784\n", b"I2\nI785\n", b"I2000000000\nI784\n", b"I1\nI1568\n"):
        path.write_bytes(b"(" + honest.replace(b"I2\nI784\n", shape) + b"t.")
        refused(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "pair"),
        ({}, "pair"),
        ((), "pair"),
        ((1, 2, 3), "pair"),
        ((1, 2), "images are neither"),
        (("a" * 784, np.eye(3)), "images are neither"),
        (([], np.eye(3)), "images have shape (0,)"),
        ((np.zeros((0, 784)), np.zeros((0, 3))), "shape (0, 784)"),
        ((np.zeros(784), np.eye(3)), "images have shape (784,)"),
        ((np.zeros((3, 28, 28)), np.eye(3)), "expected (n, 784)"),
        ((np.zeros((3, 783)), np.eye(3)), "expected (n, 784)"),
        ((np.zeros((3, 784)), np.eye(4)[:3]), "labels have shape (3, 4)"),
        (([np.zeros(784), np.zeros(783)], np.eye(3)), "a row that is not 784"),
        (([np.zeros(784), "a" * 784], np.eye(3)), "a row that is not 784"),
        (([np.zeros(784), None], np.eye(3)), "a row that is not 784"),
        (([["0.5"] * 784] * 3, np.eye(3)), "a row that is not 784"),
        (([[np.zeros(1)] * 784], np.eye(3)), "a row that is not 784"),
        ((np.zeros((2, 784)), np.eye(3)), "2 images and 3 labels"),
        ((np.full((3, 784), 1.01), np.eye(3)), "images are not all between 0 and 1"),
        ((np.full((3, 784), -0.1), np.eye(3)), "images are not all between 0 and 1"),
        ((np.full((3, 784), np.nan), np.eye(3)), "images are not all between 0 and 1"),
        ((np.zeros((3, 784)), np.eye(3) * 255), "labels are not all between 0 and 1"),
        ((np.zeros((3, 784)), np.ones((3, 3))), "not one-hot"),
        ((np.zeros((3, 784)), np.zeros((3, 3))), "not one-hot"),
        ((np.zeros((3, 784)), np.full((3, 3), 1 / 3)), "not one-hot"),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, content: object, message: str) -> None:
    assert message in refused(save(tmp_path / "file", content))


def test_broken_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    whole = DATA_FILE.read_bytes()
    for content in (
        b"",
        b"<!DOCTYPE html>\n<html>",
        b"\x00\x00\x08\x03" + bytes(100),
        whole[:1000],
        whole[:-1],
        b"\x80\x09" + whole[2:],
    ):
        path.write_bytes(content)
        refused(path)


def test_a_list_that_holds_itself_is_refused(tmp_path: Path) -> None:
    endless: list[object] = []
    endless += [endless, endless]
    refused(save(tmp_path / "file", endless))


def test_a_missing_file_is_reported_as_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "file")
