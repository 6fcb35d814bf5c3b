"""MNIST for the notebooks: `input_data.read_data_sets(directory, one_hot=True)`.

    mnist = input_data.read_data_sets("MNIST_data", one_hot=True)
    mnist.train.images          # float32, (60000, 784), 0.0 is white and 1.0 is black
    mnist.train.labels          # float32, (60000, 10), one-hot
    mnist.test.images, mnist.test.labels                # the same for 10000 test digits
    batch_xs, batch_ts = mnist.train.next_batch(100)    # (100, 784), (100, 10)

The four idx files are looked for in this order:

1. the directory given;
2. the folder named by the environment variable MNIST_DIR;
3. `data/mnist` in the current folder or any folder above it;
4. TensorFlow's own downloader (it needs the network once; works on Colab).
"""

import gzip
import os
import struct
import zlib
from pathlib import Path

import numpy as np

FILES = {
    "train_images": "train-images-idx3-ubyte",
    "train_labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}
SIDE, CLASSES = 28, 10


class _OneLine:
    """An exception that Jupyter shows as one line: the message is all there is."""

    def _render_traceback_(self):
        return [f"{type(self).__name__}: {self}"]


class MnistNotFound(_OneLine, FileNotFoundError):
    """No place has the four files, and the downloader could not help."""


class DamagedFile(_OneLine, ValueError):
    """A file was found but is not the idx file that its name promises."""


class DataSet:
    """Images with their labels, and batches of them in random order."""

    def __init__(self, images, labels, rng=None):
        self.images = images
        self.labels = labels
        self._rng = np.random.default_rng() if rng is None else rng
        self._waiting = np.empty(0, dtype=np.int64)

    @property
    def num_examples(self):
        return len(self.images)

    def next_batch(self, batch_size):
        """Exactly `batch_size` images and their labels.

        Every example is drawn once before any is drawn again: the order is shuffled
        at the start of each epoch, and a batch that reaches the end of one epoch is
        filled up from the next.
        """
        if batch_size < 1:
            raise ValueError(f"next_batch({batch_size}): ask for at least 1 example")
        while len(self._waiting) < batch_size:
            epoch = self._rng.permutation(self.num_examples)
            self._waiting = np.concatenate([self._waiting, epoch])
        rows, self._waiting = np.split(self._waiting, [batch_size])
        return self.images[rows], self.labels[rows]


class DataSets:
    """The two parts of MNIST: `train` and `test`."""

    def __init__(self, train, test):
        self.train = train
        self.test = test


def read_data_sets(directory=".", one_hot=False, seed=None):
    """MNIST as `.train` and `.test`; the same `seed` gives the same batches."""
    raw = _from_folders(directory) or _from_tensorflow()
    # NumPy before 1.25 has no Generator.spawn; this draws the same.
    train_rng, test_rng = map(np.random.default_rng, np.random.SeedSequence(seed).spawn(2))

    def part(name, rng):
        images, labels = raw[f"{name}_images"], raw[f"{name}_labels"]
        if len(images) != len(labels) or not len(images):
            raise DamagedFile(
                f"MNIST {name} set: {len(images)} images and {len(labels)} labels "
                "do not belong together"
            )
        whole = images.reshape(len(images), SIDE * SIDE)
        pixels = np.divide(whole, np.float32(255), dtype=np.float32)
        answers = labels.astype(np.int64)
        if one_hot:
            answers = np.eye(CLASSES, dtype=np.float32)[answers]
        return DataSet(pixels, answers, rng)

    return DataSets(part("train", train_rng), part("test", test_rng))


def _from_folders(directory):
    """The four arrays of the first folder that has all four files, or None."""
    here = Path.cwd()
    folders = [Path(directory).expanduser()]
    if os.environ.get("MNIST_DIR"):
        folders.append(Path(os.environ["MNIST_DIR"]).expanduser())
    folders += [parent / "data" / "mnist" for parent in (here, *here.parents)]
    for folder in folders:
        found = {key: _find(folder, name) for key, name in FILES.items()}
        if all(found.values()):
            return {key: _read_idx(path, key) for key, path in found.items()}
    return None


def _find(folder, name):
    dotted = name.replace("-idx", ".idx")
    for candidate in (name, dotted, f"{name}.gz", f"{dotted}.gz"):
        if (folder / candidate).is_file():
            return folder / candidate
    return None


def _read_idx(path, key):
    """The unsigned bytes of an idx file: a header of big-endian sizes, then data."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as file:
            content = file.read()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DamagedFile(f"{path} is not a whole gzip file; get it again") from error
    dimensions = 3 if key.endswith("images") else 1
    header = 4 + 4 * dimensions
    if len(content) < header or content[:4] != bytes([0, 0, 8, dimensions]):
        raise DamagedFile(f"{path} is not an idx file of {dimensions} dimensions; get it again")
    shape = struct.unpack(f">{dimensions}I", content[4:header])
    values = np.frombuffer(content, np.uint8, offset=header)
    if values.size != np.prod(shape, dtype=np.int64):
        raise DamagedFile(
            f"{path} holds {values.size} values, but its header promises the shape "
            f"{shape}; get it again"
        )
    if dimensions == 3 and shape[1:] != (SIDE, SIDE):
        raise DamagedFile(f"{path}: images of {shape[1:]}, expected {(SIDE, SIDE)}")
    if dimensions == 1 and values.size and values.max() >= CLASSES:
        raise DamagedFile(f"{path}: label {values.max()}, expected 0 to {CLASSES - 1}")
    return values.reshape(shape)


def _from_tensorflow():
    try:
        import tensorflow

        train, test = tensorflow.keras.datasets.mnist.load_data()
    except Exception as error:  # no TensorFlow, no network, no space: same remedy
        raise MnistNotFound(
            "MNIST was not found and could not be downloaded: put the four files "
            f"{', '.join(FILES.values())} into one folder (.gz is fine) and name that "
            "folder in read_data_sets(...) or in the environment variable MNIST_DIR"
        ) from error
    return dict(zip(FILES, (*train, *test), strict=True))
