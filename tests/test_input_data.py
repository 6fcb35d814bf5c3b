"""The interface of `source/ch4-cnn/input_data.py` for students and the grader."""

from __future__ import annotations

import gzip
import importlib.util
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

MODULE = Path(__file__).parents[1] / "source" / "ch4-cnn" / "input_data.py"
TRAIN, TEST = 25, 7
NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@pytest.fixture
def input_data() -> ModuleType:
    spec = importlib.util.spec_from_file_location("input_data_under_test", MODULE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def away_from_real_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide this machine's MNIST and downloaders, and clear limits from the environment."""
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    monkeypatch.delenv("MNIST_DIR", raising=False)
    monkeypatch.setitem(sys.modules, "tensorflow", None)


def arrays(mark: int = 0) -> list[np.ndarray]:
    """Arrays in which image k has k in its first pixel, `mark` in its last, and label k % 10."""
    result: list[np.ndarray] = []
    for count in (TRAIN, TEST):
        images = np.zeros((count, 28, 28), np.uint8)
        images[:, 0, 0] = np.arange(count)
        images[:, 27, 27] = mark
        result += [images, (np.arange(count) % 10).astype(np.uint8)]
    return result


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim])
    return header + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write(folder: Path, mark: int = 0, rename: Callable[[str], str] = lambda name: name) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in zip(NAMES, arrays(mark), strict=True):
        path = folder / rename(name)
        packed = gzip.compress if path.suffix == ".gz" else bytes
        path.write_bytes(packed(idx(array)))
    return folder


def mark_of(data: Any) -> int:
    return round(float(data.test.images[0, -1]) * 255)


def first_pixels(batch: tuple[np.ndarray, np.ndarray]) -> list[int]:
    return [int(pixel) for pixel in np.rint(batch[0][:, 0] * 255)]


# The arrays


def test_images_are_rows_of_784_between_0_and_1(input_data: ModuleType, tmp_path: Path) -> None:
    data = input_data.read_data_sets(write(tmp_path / "m", mark=255), one_hot=True)
    for part, count in ((data.train, TRAIN), (data.test, TEST)):
        assert part.num_examples == count
        assert part.images.shape == (count, 784)
        assert part.images.dtype == np.float32
        assert part.images.min() == 0.0
        assert part.images.max() == 1.0
    np.testing.assert_allclose(data.train.images[:, 0] * 255, np.arange(25), atol=1e-4)


def test_one_hot_labels_have_a_single_one_in_the_right_place(
    input_data: ModuleType, tmp_path: Path
) -> None:
    labels = input_data.read_data_sets(write(tmp_path / "m"), one_hot=True).train.labels
    assert labels.shape == (TRAIN, 10)
    assert labels.dtype == np.float32
    assert labels.sum(axis=1).tolist() == [1.0] * TRAIN
    assert labels.argmax(axis=1).tolist() == [k % 10 for k in range(TRAIN)]


def test_labels_are_integers_without_one_hot(input_data: ModuleType, tmp_path: Path) -> None:
    labels = input_data.read_data_sets(write(tmp_path / "m")).test.labels
    assert np.issubdtype(labels.dtype, np.integer)
    assert labels.tolist() == list(range(TEST))


# Where the files are found


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name,
        lambda name: name + ".gz",
        lambda name: name.replace("-idx", ".idx"),
        lambda name: name.replace("-idx", ".idx") + ".gz",
    ],
    ids=["plain", "gz", "dotted", "dotted-gz"],
)
def test_every_usual_file_name_is_understood(
    input_data: ModuleType, tmp_path: Path, rename: Callable[[str], str]
) -> None:
    data = input_data.read_data_sets(write(tmp_path / "m", 9, rename), one_hot=True)
    assert mark_of(data) == 9
    assert data.train.num_examples == TRAIN


def test_the_given_directory_comes_first(
    input_data: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MNIST_DIR", str(write(tmp_path / "shared", mark=2)))
    write(tmp_path / "data" / "mnist", mark=3)
    given = write(tmp_path / "given", mark=1)
    assert mark_of(input_data.read_data_sets(given)) == 1


def test_a_relative_directory_is_seen_from_the_current_folder(input_data: ModuleType) -> None:
    write(Path("MNIST_data"), mark=4)
    assert mark_of(input_data.read_data_sets("MNIST_data")) == 4


def test_mnist_dir_comes_second(
    input_data: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MNIST_DIR", str(write(tmp_path / "shared", mark=2)))
    write(tmp_path / "data" / "mnist", mark=3)
    assert mark_of(input_data.read_data_sets("nowhere")) == 2


def test_data_mnist_of_a_folder_above_comes_third(
    input_data: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "course" / "data" / "mnist", mark=3)
    inside = tmp_path / "course" / "source" / "ch4-cnn"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    assert mark_of(input_data.read_data_sets("nowhere")) == 3


def test_a_folder_with_three_of_the_files_is_passed_over(
    input_data: ModuleType, tmp_path: Path
) -> None:
    write(tmp_path / "data" / "mnist", mark=3)
    partial = write(tmp_path / "partial", mark=1)
    (partial / NAMES[3]).unlink()
    assert mark_of(input_data.read_data_sets(partial)) == 3


def test_the_downloader_comes_last(input_data: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, c, d = arrays(mark=5)
    mnist = SimpleNamespace(load_data=lambda: ((a, b), (c, d)))
    datasets = SimpleNamespace(mnist=mnist)
    keras = SimpleNamespace(datasets=datasets)
    monkeypatch.setitem(sys.modules, "tensorflow", SimpleNamespace(keras=keras))
    data = input_data.read_data_sets("nowhere", one_hot=True)
    assert mark_of(data) == 5
    assert data.train.images.shape == (TRAIN, 784)
    assert data.test.labels.argmax(axis=1).tolist() == list(range(TEST))


def test_no_source_is_one_line_that_says_what_to_do(input_data: ModuleType) -> None:
    with pytest.raises(input_data.MnistNotFound) as caught:
        input_data.read_data_sets("nowhere")
    message = str(caught.value)
    assert "\n" not in message
    assert "MNIST_DIR" in message
    assert all(name in message for name in NAMES)
    assert caught.value._render_traceback_() == [f"MnistNotFound: {message}"]
    assert isinstance(caught.value, FileNotFoundError)


def test_importing_needs_numpy_only() -> None:
    code = (
        "import sys; sys.modules['tensorflow'] = None; "
        f"sys.path.insert(0, {str(MODULE.parent)!r}); import input_data"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Damaged files


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        (NAMES[0], lambda whole: whole[:-1], "header promises"),
        (NAMES[0], lambda whole: whole + b"\0", "header promises"),
        (NAMES[0], lambda whole: b"<html>", "not an idx file"),
        (NAMES[0], lambda whole: b"", "not an idx file"),
        (NAMES[1], lambda whole: idx(np.zeros((5, 28, 28), np.uint8)), "1 dimensions"),
        (NAMES[0], lambda whole: idx(np.zeros((25, 8, 8), np.uint8)), "expected"),
        (NAMES[1], lambda whole: idx(np.zeros(24, np.uint8)), "do not belong together"),
        (NAMES[1], lambda whole: idx(np.full(25, 10, np.uint8)), "label 10"),
    ],
)
def test_a_damaged_file_is_named_not_used(
    input_data: ModuleType,
    tmp_path: Path,
    name: str,
    damage: Callable[[bytes], bytes],
    message: str,
) -> None:
    folder = write(tmp_path / "m")
    (folder / name).write_bytes(damage((folder / name).read_bytes()))
    with pytest.raises(input_data.DamagedFile, match=message) as caught:
        input_data.read_data_sets(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [5, 60])
def test_a_cut_gzip_file_is_named(input_data: ModuleType, tmp_path: Path, keep: int) -> None:
    folder = write(tmp_path / "m", rename=lambda name: name + ".gz")
    path = folder / f"{NAMES[0]}.gz"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(input_data.DamagedFile, match="not a whole gzip file"):
        input_data.read_data_sets(folder)


# Batches


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "m")


def test_a_batch_has_exactly_the_rows_asked_for(input_data: ModuleType, folder: Path) -> None:
    train = input_data.read_data_sets(folder, one_hot=True).train
    for size in (1, 10, 10, 10, 24, 25, 60):
        images, labels = train.next_batch(size)
        assert images.shape == (size, 784)
        assert labels.shape == (size, 10)


def test_images_and_labels_stay_together(input_data: ModuleType, folder: Path) -> None:
    train = input_data.read_data_sets(folder, one_hot=True).train
    for _ in range(6):
        batch = train.next_batch(10)
        assert batch[1].argmax(axis=1).tolist() == [k % 10 for k in first_pixels(batch)]


def test_every_example_comes_once_per_epoch(input_data: ModuleType, folder: Path) -> None:
    train = input_data.read_data_sets(folder).train
    drawn = [k for _ in range(5) for k in first_pixels(train.next_batch(10))]
    assert sorted(drawn[:TRAIN]) == list(range(TRAIN))
    assert sorted(drawn[TRAIN:]) == list(range(TRAIN))


def test_each_epoch_has_an_order_of_its_own(input_data: ModuleType, folder: Path) -> None:
    train = input_data.read_data_sets(folder, seed=1).train
    epochs = [first_pixels(train.next_batch(TRAIN)) for _ in range(3)]
    assert list(range(TRAIN)) not in epochs
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_seed_repeats_the_order_and_another_changes_it(
    input_data: ModuleType, folder: Path
) -> None:
    def order(seed: int) -> list[list[int]]:
        train = input_data.read_data_sets(folder, seed=seed).train
        return [first_pixels(train.next_batch(10)) for _ in range(6)]

    assert order(7) == order(7)
    assert order(7) != order(8)


def test_changing_a_batch_does_not_change_the_data(input_data: ModuleType, folder: Path) -> None:
    train = input_data.read_data_sets(folder).train
    images, _ = train.next_batch(TRAIN)
    images[:] = 0.5
    assert 0.5 not in train.images


def test_an_empty_batch_is_refused(input_data: ModuleType, folder: Path) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        input_data.read_data_sets(folder).train.next_batch(0)


def test_batches_need_no_new_numpy_and_are_those_of_its_spawn(
    input_data: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`Generator.spawn` exists since NumPy 1.25."""
    drawn = [rng.permutation(TRAIN) for rng in np.random.default_rng(3).spawn(2)]

    older = type("Older", (np.random.Generator,), {"spawn": None})
    monkeypatch.setattr(np.random, "default_rng", lambda seed: older(np.random.PCG64(seed)))
    folder = write(tmp_path / "mnist")
    images, _ = input_data.read_data_sets(folder, seed=3).train.next_batch(TRAIN)
    assert np.array_equal(np.rint(images[:, 0] * 255), drawn[0])
