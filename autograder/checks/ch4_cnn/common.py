"""Checks shared by several notebooks of the chapter; the test modules bind them to grade cells.

pytest collects the checks of a class from its last base to its first, then its own.  Base classes
are therefore listed in the reverse order of the notebook.

A check takes the student's own result of the previous step (kernel, feature map, weights) as
given, so that a mistake costs points only once.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import ClassVar

import numpy as np
import pytest

from autograder.checks import Mistake, check, diagnose
from autograder.checks.ch4_cnn import reference, thresholds
from autograder.checks.ch4_cnn.adapter import Graph, Notebook, Running, same
from autograder.data import mnist, orenist
from autograder.engine.values import NoValue, TrainingLog

Array = reference.Array


MANY_WEIGHTS = 40  # so many weights do not move towards 0 together by chance


class Strokes:
    """Draws fresh ORENIST images for every check."""

    @pytest.fixture
    def strokes(self, rng: np.random.Generator) -> Array:
        """Images (12, 784)."""
        return self.draw(rng, 4)[0]

    @staticmethod
    def draw(rng: np.random.Generator, per_class: int) -> tuple[Array, Array]:
        """Images (3·per_class, 784) and one-hot labels (3·per_class, 3)."""
        return orenist.generate(int(rng.integers(2**31)), per_class)


def in_blocks(maps: Array) -> bool:
    """Whether these are feature maps (n, h, w, c) that divide evenly into 2×2 blocks."""
    return maps.ndim == 4 and maps.shape[1] % 2 == 0 and maps.shape[2] % 2 == 0


def vary(values: Array) -> bool:
    """Whether the values are not all the same number.

    A kernel that answers every query with one number would be consistent with itself.
    """
    return values.size > 0 and float(values.max()) > float(values.min())


def faint_and_bright(images: Array) -> Array:
    """The images, then the same at ten times the brightness, so that responses pass the cutoff."""
    return np.concatenate([images, 10 * images])


def unscaled(kernel: Array, channel: int) -> Array:
    """One filter divided by its largest absolute weight, so that any divisor is accepted."""
    weights = kernel[:, :, 0, channel]
    scaled: Array = weights / np.abs(weights).max()
    return scaled


def constant_factor(answer: Array, wanted: Array) -> float:
    """The factor by which `answer` is a multiple of `wanted`; 0 if it is not a multiple."""
    if answer.shape != wanted.shape or not wanted.any():
        return 0.0
    factor = float((answer * wanted).sum() / (wanted * wanted).sum())
    return factor if same(answer, factor * wanted) else 0.0


def pooled_by(maps: Array, take: Callable[..., Array]) -> Array:
    """Maps (n, h, w, c) pooled in 2×2 blocks with the reduction `take`."""
    n, h, w, c = maps.shape
    blocks: Array = take(maps.reshape(n, h // 2, 2, w // 2, 2, c), axis=(2, 4))
    return blocks


class EdgeFilterChecks:
    """`edge_filter()` ([OFE-04], [OCE-03])."""

    @pytest.fixture(scope="class")
    @classmethod
    def kernel(cls, notebook: Notebook) -> Array:
        """The return value of the second call of edge_filter()."""
        notebook.result("edge_filter")
        return notebook.result("edge_filter")

    @check(
        "edge_filter() has shape (5, 5, 1, 2)",
        hint="the axes of a kernel are rows, columns, input channels, filters",
    )
    def test_shape(self, kernel: Array) -> None:
        diagnose(
            kernel.shape == (5, 5, 1, 2),
            (
                lambda: sorted(kernel.shape) == [1, 2, 5, 5],
                "the axes stand in another order than rows, columns, input channels, filters",
            ),
            (lambda: kernel.shape == (5, 5, 2), "the axis of the input channels is missing"),
        )

    @check(
        "edge_filter() is a TensorFlow constant of type float32",
        hint="a session works with TensorFlow's objects: return tf.constant(…)",
    )
    def test_dtype(self, notebook: Notebook) -> None:
        found = notebook.returns("edge_filter")
        diagnose(
            found["kind"] == "tensor" and found["dtype"] == "float32",
            (
                lambda: found["kind"] == "variable",
                "that is a variable, which would have to be initialised: return a tf.constant",
            ),
            (
                lambda: found["kind"] == "tensor",
                "TensorFlow does not mix types: the images are float32, so dtype=tf.float32",
            ),
        )

    @check(
        "The positive weights of each filter sum to 1",
        hint="23 is the sum of the positive weights: divide every weight by 23.0",
        weight=2,
    )
    def test_scale(self, kernel: Array) -> None:
        assert kernel.ndim == 4
        sums = np.clip(kernel, 0, None).sum(axis=(0, 1, 2))
        diagnose(
            same(sums, np.ones(2)),
            (
                lambda: not sums.any(),
                "no weight is left: // divides whole numbers and drops the rest, / keeps it",
            ),
            (
                lambda: same(sums, np.array([1, 23.0])),
                "filter0 is divided by 23.0, filter1 is not",
            ),
        )

    @check(
        "Filter 0 subtracts right from left, and so answers to vertical edges",
        hint="filter0 is the left table of Fig 4-5 and stands in [:, :, 0, 0]; "
        "it subtracts right from left, so it sees vertical edges",
        weight=2,
    )
    def test_vertical(self, kernel: Array) -> None:
        self.is_filter(kernel, 0)

    @check(
        "Filter 1 subtracts bottom from top, and so answers to horizontal edges",
        hint="filter1 is the right table of Fig 4-5 and stands in [:, :, 0, 1]; "
        "it subtracts bottom from top, so it sees horizontal edges",
        weight=2,
    )
    def test_horizontal(self, kernel: Array) -> None:
        self.is_filter(kernel, 1)

    @staticmethod
    def is_filter(kernel: Array, channel: int) -> None:
        """Fail unless a filter has the weights of Fig 4-5, up to a positive factor."""
        assert kernel.shape == (5, 5, 1, 2)
        assert kernel[..., channel].any()
        weights, wanted = unscaled(kernel, channel), unscaled(reference.edge_kernels(), channel)
        other = unscaled(reference.edge_kernels(), 1 - channel)
        diagnose(
            same(weights, wanted),
            (
                lambda: same(weights, -wanted),
                lambda: (
                    f"filter{channel} has the opposite signs: it subtracts "
                    + ("right from left", "bottom from top")[channel]
                ),
            ),
            (
                lambda: same(weights, other),
                f"[:, :, 0, {channel}] holds the filter for the other edges: filter0 sees "
                "vertical edges, filter1 horizontal ones",
            ),
        )


class InputChecks(Strokes):
    """`x` and `x_image`.

    Attributes:
        tensors: names of the tensors that must be float32.

    """

    tensors: ClassVar[tuple[str, ...]] = ("x", "x_image", "W_conv", "h_conv", "h_pool")

    @check(
        "x takes any number of images of 784 pixels",
        hint="the placeholder's shape is [None, 784]: None leaves the number of images open",
    )
    def test_any_batch(self, graph: Graph, strokes: np.ndarray) -> None:
        session = graph.fresh()
        for count in (1, 5):
            assert len(session.of(strokes[:count], "h_pool")) == count

    @check(
        "x_image lays the pixels out as images, rows, columns, one channel",
        hint="TensorFlow's order is N, H, W, C: reshape to [-1, 28, 28, 1]",
    )
    def test_x_image(self, graph: Graph, rng: np.random.Generator) -> None:
        images = rng.uniform(0.1, 1, (1, 784)).astype(np.float32)
        answer = graph.fresh().of(images, "x_image")
        wanted = images.reshape(-1, 28, 28, 1)
        diagnose(
            same(answer, wanted),
            (
                lambda: same(answer, wanted.transpose(0, 3, 1, 2)),
                "the channel stands before the rows: TensorFlow's order is N, H, W, C",
            ),
            (
                lambda: same(answer, wanted.transpose(0, 2, 1, 3)),
                "rows and columns are exchanged: reshape alone lays the pixels out",
            ),
            (
                lambda: bool(constant_factor(answer, wanted)),
                "the pixels are scaled: x_image holds the very numbers of x",
            ),
            (lambda: same(answer, 1 - wanted), "the image is turned into its negative"),
        )

    @check(
        "x is a placeholder of float32 for rows of 784 pixels, and all behind it is float32",
        hint="tf.float32 and the shape [None, 784] for x; TensorFlow does not mix types",
    )
    def test_types(self, graph: Graph) -> None:
        assert graph.kind("x") == "placeholder"
        shape = graph.shape("x")
        diagnose(
            shape == (-1, 784),
            (lambda: shape is None, "x has no shape: tf.placeholder(tf.float32, [None, 784])"),
        )
        for name in self.tensors:
            if (dtype := graph.dtype(name)) != "float32":
                raise Mistake(f"{name} is of type {dtype}, and everything here is tf.float32")


@contextlib.contextmanager
def naming(mistake: str) -> Iterator[None]:
    """Turn an AssertionError in the block into a Mistake with this sentence."""
    try:
        yield
    except AssertionError as error:
        raise Mistake(mistake) from error


class EdgeMapChecks(Strokes):
    """From the image to pooled edge maps of two filters ([OFE-05], [OCE-04], [ODE-03])."""

    @staticmethod
    def maps(graph: Graph, rng: np.random.Generator) -> Running:
        """A session in which to evaluate the maps."""
        return graph.fresh()

    @check(
        "h_conv keeps 28 rows and columns, one feature map per filter",
        hint="padding='SAME' keeps 28×28 by adding a border of two zeros; strides are 1",
    )
    def test_conv_shape(self, graph: Graph, strokes: np.ndarray, rng: np.random.Generator) -> None:
        diagnose_size(self.maps(graph, rng).of(strokes, "h_conv"), (12, 28, 28, 2))

    @check(
        "h_conv answers to rising and to falling edges alike",
        hint="at a falling edge the sum is negative: take abs of the convolution, "
        "before anything is cut off",
    )
    def test_both_edges(self, graph: Graph, strokes: Array, rng: np.random.Generator) -> None:
        # Negated pixels turn every rising edge into a falling one.  What lies beyond the border is
        # no edge of the drawing, although a mistake in x_image can make one of it.
        maps = self.maps(graph, rng).of(np.concatenate([strokes, -strokes]), "h_conv")
        if maps.shape[1:3] == (28, 28):
            maps = maps[:, 2:-2, 2:-2]
        response, opposite = maps.reshape(2, len(strokes), -1)
        assert vary(response)
        assert same(response, opposite)

    @check(
        "h_conv is the absolute value of the convolution with W_conv",
        hint="h_conv = tf.abs(tf.nn.conv2d(x_image, W_conv, …)), with strides of 1",
        weight=2,
    )
    def test_conv_values(self, graph: Graph, strokes: np.ndarray, rng: np.random.Generator) -> None:
        kernel, x_image, response = self.maps(graph, rng).of(strokes, "W_conv", "x_image", "h_conv")
        assert kernel.ndim == 4
        # Checked before the convolution, which could take hours with a huge kernel.
        assert max(kernel.shape[:2]) <= 28
        assert response.shape == (len(strokes), 28, 28, kernel.shape[3])
        assert vary(response)
        images = strokes.reshape(-1, 28, 28, 1)
        if x_image.shape == images.shape:  # its values have a check of their own
            images = x_image
        raw = reference.convolve(images, kernel)
        diagnose(
            same(response, np.abs(raw)),
            (
                lambda: same(response, raw),
                "the absolute value is missing: h_conv = tf.abs(tf.nn.conv2d(…))",
            ),
            (
                lambda: same(response, np.maximum(raw, 0)),
                "relu drops the negative answers, and with them every falling edge: take tf.abs",
            ),
            (lambda: same(response, raw**2), "the answers are squared: take tf.abs"),
            (
                lambda: same(response, reference.cut_off(np.abs(raw))),
                "0.2 is subtracted too early: h_conv is what comes before the cutoff",
            ),
            (
                lambda: same(response, np.abs(reference.convolve(images, kernel[::-1, ::-1]))),
                "the kernel is turned round: conv2d slides it as it is written",
            ),
            (
                lambda: bool(constant_factor(response, np.abs(raw))),
                "h_conv is scaled: the absolute value of the convolution stays as it is",
            ),
        )

    @check(
        "h_conv_cutoff subtracts 0.2 and leaves nothing below 0",
        hint="relu(h_conv - 0.2): weak responses become 0, strong ones shrink by 0.2",
        weight=2,
    )
    def test_cutoff(self, graph: Graph, strokes: np.ndarray, rng: np.random.Generator) -> None:
        images = faint_and_bright(strokes)
        response, kept = self.maps(graph, rng).of(images, "h_conv", "h_conv_cutoff")
        assert vary(response)
        diagnose(
            same(kept, reference.cut_off(response)),
            (lambda: same(kept, response), "nothing is cut off: relu(h_conv - 0.2)"),
            (lambda: same(kept, response - 0.2), "tf.nn.relu is missing around h_conv - 0.2"),
            (lambda: same(kept, np.maximum(response, 0)), "0.2 is not subtracted before the relu"),
            (
                lambda: same(kept, np.where(response >= 0.2, response, 0)),
                "the cutoff also takes 0.2 away from what remains: relu(h_conv - 0.2)",
            ),
            (
                lambda: (
                    in_blocks(response)
                    and same(kept, reference.cut_off(reference.max_pool(response)))
                ),
                "the pooling comes behind the cutoff: h_conv_cutoff still has 28×28 pixels",
            ),
            (
                lambda: same(kept, np.abs(response - 0.2)),
                "what lies below 0.2 must become 0: relu, not abs, of h_conv - 0.2",
            ),
            (
                lambda: same(kept, reference.cut_off(response, float((response - kept).max()))),
                "another number than 0.2 is subtracted",
            ),
        )

    @check(
        "h_pool takes the maximum of 2×2 blocks: 28×28 becomes 14×14",
        hint="ksize and strides are [1, 2, 2, 1] (batch, rows, columns, channels) "
        "and tf.nn.max_pool takes the maximum",
        weight=2,
    )
    def test_pool(self, graph: Graph, strokes: np.ndarray, rng: np.random.Generator) -> None:
        images = faint_and_bright(strokes)
        response, kept, pooled = self.maps(graph, rng).of(
            images, "h_conv", "h_conv_cutoff", "h_pool"
        )
        assert in_blocks(kept)
        assert vary(kept)
        diagnose_pool(pooled, kept, "h_conv_cutoff", response if in_blocks(response) else None)


class FixedFilterChecks(EdgeMapChecks):
    """The same with the student's fixed filters ([OFE-05], [OCE-04])."""

    @check(
        "W_conv holds the two filters of edge_filter()",
        hint="W_conv = edge_filter(): the two filters as they are, with their weights",
    )
    def test_kernel(self, notebook: Notebook, graph: Graph, strokes: np.ndarray) -> None:
        kernel = graph.fresh().of(strokes[:1], "W_conv")
        assert vary(kernel)
        # A mistake in edge_filter() costs points in its own cell only.
        assert same(kernel, reference.edge_kernels()) or same(
            kernel, notebook.result("edge_filter")
        )


def diagnose_size(maps: Array, wanted: tuple[int, ...]) -> None:
    """Fail unless feature maps (n, h, w, c) have this shape; name the likely cause."""
    sides = maps.shape[1:3] if maps.ndim == 4 else ()
    diagnose(
        maps.shape == wanted,
        (
            lambda: sides == (24, 24),
            "padding='VALID' has no border, so 28×28 shrinks to 24×24: padding='SAME' keeps it",
        ),
        (
            lambda: sides == (14, 14),
            "strides of 2 halve both sides: [1, 1, 1, 1] visits all pixels",
        ),
        (
            lambda: sides == (28, 28),
            lambda: (
                f"there are {maps.shape[3]} feature maps, expected {wanted[3]}: one for each filter"
            ),
        ),
    )


def diagnose_pool(pooled: Array, maps: Array, of: str, before: Array | None = None) -> None:
    """Fail unless `pooled` is the 2×2 max_pool of `maps`.

    Args:
        pooled: the notebook's h_pool.
        maps: (n, h, w, c).
        of: notebook name of `maps`.
        before: the layer before `maps`, with the same shape, if there is one.

    """
    size = (len(maps), maps.shape[1] // 2, maps.shape[2] // 2, maps.shape[3])
    diagnose(
        same(pooled, reference.max_pool(maps)),
        (
            lambda: pooled.ndim == 4 and pooled.shape[1:3] == maps.shape[1:3],
            "h_pool is as large as before: strides=[1, 2, 2, 1] goes from block to block",
        ),
        (
            lambda: pooled.shape != size,
            "the blocks have another size: ksize and strides are both [1, 2, 2, 1]",
        ),
        (
            lambda: same(pooled, pooled_by(maps, np.mean)),
            "that is the average of each block: tf.nn.max_pool takes the largest",
        ),
        (
            lambda: same(pooled, pooled_by(maps, np.min)),
            "that is the smallest of each block: max_pool takes the largest",
        ),
        (
            lambda: same(pooled, maps[:, ::2, ::2]),
            "that is one pixel of each block: ksize=[1, 2, 2, 1] looks at all four",
        ),
        (
            lambda: same(pooled, reference.max_pool(maps.transpose(0, 2, 1, 3))),
            "rows and columns are exchanged",
        ),
        (
            lambda: any(
                same(pooled, reference.max_pool(reference.cut_off(sign * maps, cutoff)))
                for sign in (1, -1)
                for cutoff in (0.0, 0.2)
            ),
            f"something is cut off between {of} and the pooling: h_pool takes {of} as it is",
        ),
        (
            lambda: same(pooled, reference.max_pool(np.abs(maps))),
            f"there is an absolute value between {of} and the pooling: h_pool takes {of} as it is",
        ),
        (
            lambda: before is not None and same(pooled, reference.max_pool(before)),
            f"h_pool takes what comes before {of}: filter, cutoff, pooling is the order",
        ),
    )


class NetworkChecks(Strokes):
    """Base class for checks of a whole network: the stroke network, unless a subclass overrides it.

    Attributes:
        sizes: number of flattened features, hidden units and classes.
        learning_rate: Adam's learning rate in the assignment.
        moving: variables that a training step must change.
        scales: standard deviations of the weights that `some_weights` draws.

    """

    sizes: ClassVar[tuple[int, int, int]] = (392, 2, 3)
    learning_rate: ClassVar[float] = 0.001
    moving: ClassVar[tuple[str, ...]] = ("w2", "b2", "w0", "b0")
    scales: ClassVar[dict[str, float]] = {"w2": 0.02, "b2": 0.5, "w0": 0.3, "b0": 0.3}

    @classmethod
    def activate(cls, response: Array) -> Array:
        """The hidden layer's activation."""
        activated: Array = np.tanh(response)
        return activated

    @classmethod
    def slope(cls, activated: Array) -> Array:
        """The derivative of the hidden layer's activation, from the activated values."""
        slope: Array = 1 - activated**2
        return slope

    @classmethod
    def respond(cls, raw: Array) -> tuple[Array, Array]:
        """The maps to be pooled and their derivative, both from the raw convolution."""
        maps = reference.cut_off(np.abs(raw))
        return maps, np.sign(raw) * (maps > 0)

    @classmethod
    def shapes(cls) -> dict[str, tuple[int, ...]]:
        """Shapes of the variables after the pooling, by notebook name."""
        flat, hidden, classes = cls.sizes
        return {"w2": (flat, hidden), "b2": (hidden,), "w0": (hidden, classes), "b0": (classes,)}

    @classmethod
    def some_weights(cls, rng: np.random.Generator) -> dict[str, Array]:
        """Random float32 weights that saturate neither the hidden layer nor the softmax."""
        # Uniform, because three million of them take a third of the time of a normal distribution.
        weights = {
            name: (rng.random(shape, np.float32) - np.float32(0.5))
            * np.float32(cls.scales[name] * 12**0.5)
            for name, shape in cls.shapes().items()
        }
        # Near 0, tanh is indistinguishable from the identity; with the student's filter, responses
        # may be little more than b2, so b2 is kept away from 0.
        weights["b2"] = np.copysign(0.4 + np.abs(weights["b2"]) / 2, weights["b2"])
        return weights

    @classmethod
    def images(cls, rng: np.random.Generator) -> tuple[Array, Array]:
        """Images (n, 784) and one-hot labels (n, classes) that the notebook has not seen."""
        return cls.draw(rng, 10)

    @pytest.fixture(scope="class")
    @classmethod
    def batch(cls, shared_rng: np.random.Generator) -> tuple[Array, Array]:
        """Images and labels for all checks of a grade cell."""
        return cls.images(shared_rng)

    @pytest.fixture(scope="class")
    @classmethod
    def weights(cls, shared_rng: np.random.Generator) -> dict[str, Array]:
        """Weights for all checks of a grade cell."""
        return cls.some_weights(shared_rng)

    @pytest.fixture(scope="class")
    @classmethod
    def untrained(cls, graph: Graph) -> Running:
        """A freshly initialised session, which checks must not change."""
        return graph.fresh()

    @pytest.fixture(scope="class")
    @classmethod
    def loaded(cls, graph: Graph, weights: dict[str, Array]) -> Running:
        """A session with `weights`, which checks must not change."""
        return graph.fresh(**weights)


ACTIVATIONS: tuple[Callable[[Array], Array], ...] = (
    np.tanh,
    lambda response: np.maximum(response, 0),
    lambda response: 1 / (1 + np.exp(-response)),
)


class LayerChecks(NetworkChecks):
    """From the pooled maps to probabilities ([OCE-05], [ODE-04], [MDC-04], [MDR-04])."""

    @check(
        "h_pool_flat lays the pooled maps of each image out in one row",
        hint="reshape h_pool to [-1, rows * columns * filters]: one row per image, nothing mixed",
    )
    def test_flat(self, graph: Graph, rng: np.random.Generator) -> None:
        images = faint_and_bright(self.images(rng)[0])
        pooled, flat = graph.fresh().of(images, "h_pool", "h_pool_flat")
        assert vary(pooled)
        diagnose(
            same(flat, pooled.reshape(len(images), -1)) and flat.shape[1] == self.sizes[0],
            (
                lambda: same(flat, pooled.transpose(0, 3, 1, 2).reshape(len(images), -1)),
                "the axes are moved before the reshape: lay h_pool out as it is",
            ),
            (
                lambda: flat.ndim == 2 and len(flat) != len(images),
                "there is not one row for each image: reshape to [-1, rows * columns * filters]",
            ),
        )

    @check(
        "hidden2 multiplies by w2, adds b2 and applies the activation",
        hint="hidden2 = activation(tf.matmul(h_pool_flat, w2) + b2), with the activation "
        "that the text names",
    )
    def test_hidden(
        self,
        graph: Graph,
        loaded: Running,
        weights: dict[str, Array],
        batch: tuple[Array, Array],
    ) -> None:
        images, _ = batch
        self.diagnose_hidden(loaded, weights, images)
        # Also with large sums: only the activation itself may saturate.
        wide = np.linspace(-30, 30, self.sizes[1], dtype=np.float32)
        weights = {**weights, "b2": wide}
        self.diagnose_hidden(graph.fresh(**weights), weights, images)

    def diagnose_hidden(self, session: Running, weights: dict[str, Array], images: Array) -> None:
        """Fail unless hidden2 is right in a session that holds these weights."""
        flat, hidden = session.of(images, "h_pool_flat", "hidden2")
        assert flat.shape == (len(images), self.sizes[0])
        product = flat @ weights["w2"]
        response = product + weights["b2"]
        diagnose(
            same(hidden, self.activate(response)),
            (
                lambda: not same(hidden, session.of(images, "hidden2")),
                "hidden2 is another each time it is asked for: nothing random, no dropout, "
                "belongs into this network",
            ),
            (lambda: same(hidden, response), "the activation is missing around the sum"),
            (
                lambda: same(hidden, self.activate(product)),
                "b2 is not added: activation(tf.matmul(h_pool_flat, w2) + b2)",
            ),
            (
                lambda: same(hidden, self.activate(product) + weights["b2"]),
                "b2 belongs inside the activation: activation(tf.matmul(h_pool_flat, w2) + b2)",
            ),
            (
                lambda: any(same(hidden, other(response)) for other in ACTIVATIONS),
                "that is another activation than the one that the text names",
            ),
            (
                lambda: hidden.shape == (len(images), self.sizes[2]),
                "hidden2 has one number for each class: the sums behind the hidden layer need "
                "a name of their own",
            ),
        )

    @check(
        "p is the softmax of hidden2 times w0 plus b0",
        hint="p = tf.nn.softmax(tf.matmul(hidden2, w0) + b0): once, over the classes",
    )
    def test_softmax(
        self,
        graph: Graph,
        loaded: Running,
        weights: dict[str, Array],
        batch: tuple[Array, Array],
    ) -> None:
        images, _ = batch
        self.diagnose_softmax(loaded, weights, images)
        # Softmax depends on differences alone, so shifted logits reveal any clipping.
        for middle in (-13, 13):
            bias = np.linspace(middle - 3, middle + 3, self.sizes[2], dtype=np.float32)
            weights = {**weights, "b0": bias}
            self.diagnose_softmax(graph.fresh(**weights), weights, images)

    def diagnose_softmax(self, session: Running, weights: dict[str, Array], images: Array) -> None:
        """Fail unless p is right in a session that holds these weights."""
        hidden, p = session.of(images, "hidden2", "p")
        assert hidden.shape == (len(images), self.sizes[1])
        product = hidden @ weights["w0"]
        logits = product + weights["b0"]
        diagnose(
            same(p, reference.softmax(logits)),
            (lambda: same(p, logits), "the softmax is missing: these are the sums before it"),
            (
                lambda: same(p, reference.softmax(reference.softmax(logits))),
                "the softmax is taken twice",
            ),
            (
                lambda: same(p, reference.softmax(logits.T).T),
                "the softmax runs over the images: it belongs over the classes of one image",
            ),
            (lambda: same(p, reference.softmax(product)), "b0 is not added before the softmax"),
            (
                lambda: same(p, np.log(reference.softmax(logits))),
                "that is the logarithm of p: tf.nn.softmax, not log_softmax",
            ),
            (
                lambda: same(p, 1 / (1 + np.exp(-logits))),
                "sigmoid looks at each class alone: softmax makes those of one image sum to 1",
            ),
        )

    @check(
        "Before training every class has the same probability",
        hint="w0 and b0 start as zeros, so that the untrained network prefers no class",
    )
    def test_uniform(self, untrained: Running, batch: tuple[Array, Array]) -> None:
        images, _ = batch
        p = untrained.of(images, "p")
        diagnose(
            same(p, np.full((len(images), self.sizes[2]), 1 / self.sizes[2])),
            (lambda: untrained.weight("w0").any(), "w0 does not start as zeros"),
            (lambda: untrained.weight("b0").any(), "b0 does not start as zeros"),
            (
                lambda: True,
                "w0 and b0 start as zeros, as they should; but what is made of them is not the "
                "softmax, which gives every class the same",
            ),
        )

    @check(
        "w2 starts as a truncated normal, b2 as zeros",
        hint="tf.truncated_normal with its default standard deviation of 1; tf.zeros for the bias",
    )
    def test_start(self, untrained: Running) -> None:
        w2 = untrained.weight("w2")[None]
        diagnose(
            not untrained.weight("b2").any(),
            (lambda: True, "b2 does not start as zeros: tf.Variable(tf.zeros([num_units2]))"),
        )
        diagnose(
            reference.is_truncated_normal(w2, 1.0),
            (
                lambda: reference.is_truncated_normal(w2, 0.1),
                "a standard deviation of 0.1 is for the filters: w2 has the default of 1",
            ),
            (lambda: not w2.any(), "w2 starts as zeros, so that all hidden units stay alike"),
            (
                lambda: bool(np.abs(w2).max() > 2.5 and abs(w2.std() - 1) < 0.1),
                "w2 starts as a normal that is not truncated: tf.truncated_normal",
            ),
        )

    @check(
        "num_units1 and num_units2 are the sizes of the layers, as whole numbers",
        hint="num_units1 is what one image has in h_pool_flat, num_units2 the hidden units",
    )
    def test_units(self, graph: Graph) -> None:
        assert graph.whole("num_units1") == self.sizes[0]
        assert graph.whole("num_units2") == self.sizes[1]

    @check(
        "Training can change w2, b2, w0 and b0, and nothing more than the text asks for",
        hint="every weight and bias is a tf.Variable that p depends on; "
        "if there are more than the text asks for, run all cells in a fresh kernel",
    )
    def test_parameters(self, graph: Graph) -> None:
        assert not graph.untrained(list(LayerChecks.shapes()))
        assert graph.trainable_shapes() == sorted(self.trained().values())

    @classmethod
    def trained(cls) -> dict[str, tuple[int, ...]]:
        """Shapes of all trained variables, by notebook name."""
        return cls.shapes()


def diagnose_loss(loss: Array, p: Array, labels: Array) -> None:
    """Fail unless `loss` is the summed cross entropy of p and one-hot labels (n, classes)."""
    n, classes = labels.shape
    wanted = np.array(reference.cross_entropy(p, labels))
    diagnose(
        same(loss, wanted),
        (lambda: same(loss, -wanted), "the minus is missing: a logarithm of p is below 0"),
        (
            lambda: same(loss, wanted / n) or same(loss, wanted / n / classes),
            "the loss is averaged: it is summed over the images, tf.reduce_sum",
        ),
        (
            lambda: loss.shape != () and same(loss.sum(), wanted),
            "the loss is one number for all images together: tf.reduce_sum over both axes",
        ),
        (
            lambda: same(loss, np.array(-np.log(p).sum())),
            "the logarithms of all classes are summed: t * keeps that of the right one",
        ),
        (
            lambda: same(loss, wanted / np.log(10)) or same(loss, wanted / np.log(2)),
            "that is another logarithm: tf.log is the natural one",
        ),
        (
            lambda: same(loss, np.array(reference.cross_entropy(reference.softmax(p), labels))),
            "the softmax is taken twice: logits functions want the numbers before the softmax, "
            "not p",
        ),
        (
            lambda: same(loss, np.array(((p - labels) ** 2).sum())),
            "that is the squared error: the cross entropy takes the logarithm of p",
        ),
        (
            lambda: is_guarded(loss, p, labels),
            "p is clipped, or something is added to it, before the logarithm: that changes the "
            "loss unless it is as small as 1e-10",
        ),
    )


def is_guarded(loss: Array, p: Array, labels: Array) -> bool:
    """Whether `loss` is the cross entropy of a p that is kept away from 0, by 1e-9 to 0.3."""
    return any(
        same(loss, np.array(reference.cross_entropy(guard(p, np.float32(floor)), labels)))
        for floor in (0.3, 0.1, 0.05, *10.0 ** -np.arange(2, 10))
        for guard in (np.add, np.maximum)
    )


def diagnose_prediction(found: Array, right: Array, classes: int) -> None:
    """Fail unless `found` are the booleans `right` (n,)."""
    diagnose(
        found.dtype == bool and np.array_equal(found, right),
        (
            lambda: found.shape == (classes,),
            "there is one answer for each class, not for each image: argmax along axis 1",
        ),
        (
            lambda: found.shape == (len(right), classes),
            "there is an answer for each class of each image: the class of an image is the one "
            "of its largest p, tf.argmax(p, 1)",
        ),
        (lambda: np.array_equal(found, ~right), "it is true where the answer is wrong: tf.equal"),
        (
            lambda: np.array_equal(found, right),
            "it holds numbers: the cast belongs into the accuracy, this is what tf.equal gives",
        ),
    )


def diagnose_accuracy(value: Array, p: Array, labels: Array) -> None:
    """Fail unless `value` is the share of images that p (n, classes) classifies correctly."""
    share = np.array(reference.accuracy(p, labels))
    along = np.array((p.argmax(axis=0) == labels.argmax(axis=0)).mean())
    diagnose(
        same(value, share),
        (
            lambda: same(value, share * len(p)),
            "that is how many are right, not which share: tf.reduce_mean",
        ),
        (
            lambda: same(value, 1 - share),
            "that is the share of what is wrong: compare with tf.equal",
        ),
        (
            lambda: same(value, along),
            "argmax looks along the images: tf.argmax(p, 1) finds the class of each",
        ),
        (
            lambda: same(value, np.array(((p > 0.5) == (labels > 0.5)).mean())),
            "each p is compared with 0.5: an image counts as right when its largest p is at the "
            "right class, tf.argmax(p, 1)",
        ),
    )


def some_labels(p: Array, rng: np.random.Generator) -> list[Array]:
    """Three sets of one-hot labels (n, classes) on which p has an accuracy of 1/4 to 3/4.

    The number of correct predictions differs from those of the second choice, of the least probable
    class, of the wrong predictions and of the images in each class, so that a wrong formula does
    not agree by coincidence.
    """
    n, classes = p.shape
    order = np.argsort(-p, axis=1)
    made = []
    for right, second in ((13, 11), (7, 19), (22, 3)):
        ranks = np.full(n, classes - 1)
        ranks[: right * n // 30 + 1] = 0
        ranks[right * n // 30 + 1 :][: second * n // 30] = 1
        for _ in range(100):
            answers = np.take_along_axis(order, rng.permutation(ranks)[:, None], axis=1)[:, 0]
            labels = np.eye(classes)[answers]
            if (labels.sum(axis=0) != (ranks == 0).sum()).all():
                break
        made.append(labels)
    return made


class TrainingChecks(NetworkChecks):
    """Loss, training step and accuracy ([OCE-06], [ODE-05], [MDC-05], [MDR-05])."""

    @pytest.fixture(scope="class")
    @classmethod
    def mixed(
        cls, graph: Graph, weights: dict[str, Array], shared_rng: np.random.Generator
    ) -> tuple[Running, Array]:
        """A session and images (30, 784) on which it does not always prefer the same class."""
        images = cls.noise(shared_rng)
        hidden = graph.fresh(**weights).of(images, "hidden2")
        assert hidden.shape == (len(images), cls.sizes[1])
        return graph.fresh(**cls.balanced(weights, hidden)), images

    @staticmethod
    def noise(rng: np.random.Generator) -> Array:
        """Images (30, 784) of noise, which differ more than drawings do."""
        return rng.normal(0, 3, (30, 784))

    @staticmethod
    def balanced(weights: dict[str, Array], hidden: Array) -> dict[str, Array]:
        """The weights with a b0 that makes all classes' mean logits equal for hidden (n, units).

        Otherwise the network might predict one class for every image, as a constant would.
        """
        return {**weights, "b0": -(hidden @ weights["w0"]).mean(axis=0)}

    @check(
        "Before training the loss is n·ln(classes) for n images",
        hint="the loss is summed over the images, not averaged, and w0 = b0 = 0 makes every "
        "class equally probable",
    )
    def test_initial_loss(self, untrained: Running, batch: tuple[Array, Array]) -> None:
        images, labels = batch
        p, loss = untrained.of(images, "p", "loss", labels=labels)
        assert p.shape == labels.shape
        wanted = np.array(len(images) * np.log(self.sizes[2]))
        half = untrained.of(images[::2], "loss", labels=labels[::2])
        more = loss.shape == () and not same(loss, wanted)
        if more and same(loss - half, wanted / 2):
            raise Mistake("something is added to the cross entropy that no image changes")
        diagnose_loss(loss, np.full(labels.shape, 1 / self.sizes[2]), labels)

    @check(
        "The loss is the cross entropy of p and t",
        hint="loss = -tf.reduce_sum(t * tf.log(p)); logits functions want the numbers "
        "before the softmax, not p",
    )
    def test_loss(
        self,
        graph: Graph,
        loaded: Running,
        weights: dict[str, Array],
        batch: tuple[Array, Array],
    ) -> None:
        images, labels = batch
        diagnose_loss(*self.loss_and_p(loaded, images, labels), labels)
        # First with small p for many images, then with p = 1 for all: a guard against log(0) must
        # not change a probability, and no term may be independent of p.
        steep = np.linspace(0, -14, self.sizes[2]).astype(np.float32)
        sure = graph.fresh(**{**weights, "b0": steep})
        diagnose_loss(*self.loss_and_p(sure, images, labels), labels)
        first = np.zeros_like(labels)
        first[:, 0] = 1
        sure = graph.fresh(**{**weights, "b0": 60 * first[0]})
        loss, _ = self.loss_and_p(sure, images, first)
        diagnose(
            same(loss, np.array(0.0)),
            (
                lambda: loss.shape == () and float(loss) > 0,
                "the loss of images that are read with certainty is not 0: nothing is added to "
                "the cross entropy, and p is not clipped",
            ),
        )

    @staticmethod
    def loss_and_p(session: Running, images: Array, labels: Array) -> tuple[Array, Array]:
        """The notebook's loss and p (n, classes); fails if p has another shape."""
        p, loss = session.of(images, "p", "loss", labels=labels)
        assert p.shape == labels.shape
        return loss, p

    @check(
        "t is a placeholder of float32 for one-hot labels",
        hint="t = tf.placeholder(tf.float32, [None, classes]): one row for each image",
    )
    def test_labels(self, graph: Graph) -> None:
        assert graph.kind("t") == "placeholder"
        shape, dtype = graph.shape("t"), graph.dtype("t")
        diagnose(
            shape == (-1, self.sizes[2]),
            (lambda: shape is None, "t has no shape: it is [None, classes]"),
        )
        diagnose(
            dtype == "float32",
            (lambda: True, f"t is of type {dtype}, and everything here is tf.float32"),
        )

    @check(
        "correct_prediction is true or false for each image",
        hint="correct_prediction = tf.equal(tf.argmax(p, 1), tf.argmax(t, 1))",
    )
    def test_prediction(self, mixed: tuple[Running, Array], rng: np.random.Generator) -> None:
        session, images = mixed
        p = session.of(images, "p")
        assert p.shape == (len(images), self.sizes[2])
        for labels in some_labels(p, rng):
            right = p.argmax(axis=1) == labels.argmax(axis=1)
            found = session.of(images, "correct_prediction", labels=labels)
            diagnose_prediction(found, right, self.sizes[2])

    @check(
        "The accuracy is the share of images whose largest p is at the right class",
        hint="compare tf.argmax(p, 1) with tf.argmax(t, 1), cast to float32, take the mean",
    )
    def test_accuracy(self, mixed: tuple[Running, Array], rng: np.random.Generator) -> None:
        session, images = mixed
        p = session.of(images, "p")
        assert p.shape == (len(images), self.sizes[2])
        for labels in some_labels(p, rng):
            value = session.of(images, "accuracy", labels=labels)
            diagnose_accuracy(value, p, labels)

    @check(
        "A training step moves every layer that should learn",
        hint="every weight is a tf.Variable that the loss depends on, nothing stands between, "
        "and the learning rate is not 0",
    )
    def test_moves(
        self, graph: Graph, weights: dict[str, Array], batch: tuple[Array, Array]
    ) -> None:
        session = graph.fresh(**weights)
        before = session.weights()
        session.train(*batch)
        after = session.weights()
        assert all(np.abs(after[name] - before[name]).max() > 0 for name in self.moving)

    @check(
        "The optimizer is Adam with the learning rate asked for",
        hint="Adam's first step moves each weight by about the learning rate: "
        "compare yours with the text",
    )
    def test_rate(
        self, graph: Graph, weights: dict[str, Array], batch: tuple[Array, Array]
    ) -> None:
        session = graph.fresh(**weights)
        before = session.weight("b0")
        session.train(*batch)
        step = np.abs(session.weight("b0") - before)
        # Adam's first step is rate · g/(|g| + ε): just below the rate unless g is tiny.
        times = float(step.max()) / self.learning_rate
        diagnose(
            0.97 < times < 1.03,
            (
                lambda: times == 0,
                "the first step does not move b0: minimize(loss) takes every variable, and the "
                "rate is not 0",
            ),
            (
                lambda: times > 0,
                f"the first step is {times:.3g} times as long as Adam's with the learning rate "
                "that the text asks for: compare the optimizer and its rate",
            ),
        )

    @check(
        "A training step moves the output layer downhill on the loss",
        hint="train_step = tf.train.AdamOptimizer(…).minimize(loss), on this loss "
        "and on variables that are trainable",
        weight=2,
    )
    def test_downhill(
        self, graph: Graph, weights: dict[str, Array], batch: tuple[Array, Array]
    ) -> None:
        images, labels = batch
        for one_class in (False, True):
            session = graph.fresh(**weights)
            hidden, p = session.of(images, "hidden2", "p")
            assert p.shape == labels.shape
            if one_class:
                # Label every image with the network's preferred class, which a loss that ignores
                # the labels would make less probable.
                labels = np.zeros_like(labels)
                labels[:, p.sum(axis=0).argmax()] = 1
            error = p - labels  # gradient of the summed cross entropy with respect to the logits
            session.train(images, labels)
            assert self.goes_down(session.weight("w0") - weights["w0"], hidden.T @ error)
            bias = session.weight("b0") - weights["b0"]
            assert not bias.any() or self.goes_down(bias, error.sum(axis=0))

    @check(
        "Training steps are those of Adam on the cross entropy, and on nothing else",
        hint="tf.train.AdamOptimizer with its rate and its defaults, and minimize(loss): "
        "the steps follow the cross entropy alone",
        weight=2,
    )
    def test_steps(
        self,
        graph: Graph,
        weights: dict[str, Array],
        batch: tuple[Array, Array],
        rng: np.random.Generator,
    ) -> None:
        # With p = 1 for every image, the gradient of the cross entropy is 0.
        images, labels = batch
        first = np.zeros_like(labels)
        first[:, 0] = 1
        sure = {**weights, "b0": 60 * first[0]}
        session = graph.fresh(**sure)
        before = session.weights()
        session.train(images, first)
        after = session.weights()
        diagnose(
            not self.pulled(before, after),
            (
                lambda: True,
                "weights move although every image is read with certainty: train_step minimises "
                "more than the cross entropy, or makes the weights smaller",
            ),
        )
        self.follows(graph.fresh(**weights), [batch, self.images(rng), self.images(rng)])
        late = graph.fresh(**weights)
        late.count_steps(4000)
        with naming("the learning rate changes with the number of steps: it is one number"):
            self.follows(late, [batch])

    def pulled(self, before: dict[str, Array], after: dict[str, Array]) -> bool:
        """Whether a step with a cross-entropy gradient of 0 pulled weights towards 0.

        Rounding errors in a hand-written softmax leave a tiny gradient, which Adam scales up to a
        full step; but that moves all layers at once, and as many weights away from 0 as towards it.
        """
        step = {name: after[name] - before[name] for name in self.moving}
        moved = {n for n, by in step.items() if np.abs(by).max() >= 0.01 * self.learning_rate}
        many = {name for name in self.moving if before[name].size >= MANY_WEIGHTS}
        shrunk = {name for name in moved & many if (step[name] * before[name] < 0).mean() > 0.9}
        return bool(shrunk or (moved and not moved & many))

    def follows(self, session: Running, batches: list[tuple[Array, Array]]) -> None:
        """Fail unless the session's steps on these batches are Adam's."""
        adam = {name: reference.Adam(self.learning_rate) for name in self.moving}
        before = session.weights()
        for number, (images, labels) in enumerate(batches):
            gradients = self.gradients(session, before, images, labels)
            session.train(images, labels)
            after = session.weights()
            for name in self.moving:
                wanted = adam[name].step(gradients[name])
                steep = np.abs(gradients[name]) > 0.05 * np.abs(gradients[name]).max()
                error = np.abs(after[name] - before[name] - wanted)[steep]
                # Rounding may decide which pixel of a block is the largest, so allow for a few.
                right = (error < 0.03 * self.learning_rate).mean() > 0.98
                if number and not right:
                    raise Mistake(
                        "the first step is Adam's, but a later one is not: another optimizer, or "
                        "a rate that changes"
                    )
                assert right
            before = after

    def gradients(
        self, session: Running, weights: dict[str, Array], images: Array, labels: Array
    ) -> dict[str, Array]:
        """Gradients of the cross entropy for all variables, from the notebook's layer values."""
        flat, hidden, p = session.of(images, "h_pool_flat", "hidden2", "p")
        assert p.shape == labels.shape
        assert flat.shape == (len(images), self.sizes[0])
        assert hidden.shape == (len(images), self.sizes[1])
        error = p - labels
        back = (error @ weights["w0"].T) * self.slope(hidden)
        found = {
            "w0": hidden.T @ error,
            "b0": error.sum(axis=0),
            "w2": flat.T @ back,
            "b2": back.sum(axis=0),
        }
        if "W_conv" in self.moving:
            pixels, kernel = images.reshape(-1, 28, 28, 1), weights["W_conv"]
            raw = reference.convolve(pixels, kernel)
            maps, slope = self.respond(raw)
            pooled = (back @ weights["w2"].T).reshape(len(images), 14, 14, -1)
            slopes = reference.unpool(maps, pooled) * slope
            found["W_conv"] = reference.filter_gradient(pixels, slopes, len(kernel))
        return found

    @staticmethod
    def goes_down(moved: Array, gradient: Array) -> bool:
        """Whether a step went against the gradient wherever that is steep."""
        steep = np.abs(gradient) > 0.05 * np.abs(gradient).max()
        return bool((np.sign(moved[steep]) == -np.sign(gradient[steep])).all())


class StrokeLoopChecks:
    """The loop of 200 steps on the ninety drawings ([OCE-08], [ODE-07])."""

    steps, every = 200, 20

    @pytest.fixture(scope="class")
    @classmethod
    def log(cls, graph: Graph) -> TrainingLog:
        """The log of the training steps in the student's session."""
        return graph.trained().log()

    @check(
        "i counts 200 training steps",
        hint="add 1 to i in each of the 200 rounds",
    )
    def test_count(self, graph: Graph) -> None:
        counted = graph.number("i")
        diagnose(
            counted == self.steps,
            (
                lambda: counted == self.steps - 1,
                "i ends at 199: it counts from 0, where the first step is number 1",
            ),
        )

    @check(
        "train_step has run 200 times, once in each round",
        hint="run train_step once in each of the 200 rounds, in sess",
    )
    def test_steps(self, graph: Graph, log: TrainingLog) -> None:
        done = round(min(graph.trained().adam_steps(), 1e9))  # β₂'s power is only a float32
        diagnose(
            done == log.steps == self.steps,
            (lambda: done == 0, "sess has not been trained: run train_step in it, in every round"),
            (
                lambda: done > self.steps,
                f"train_step has run {done} times: where loss and accuracy are measured it is not "
                "fetched, and there are 200 rounds",
            ),
            (lambda: True, f"train_step has run {done} times since sess was initialised"),
        )

    @check(
        "Every step is fed all images with their own labels",
        hint="feed_dict={x: images, t: labels} in every step: all ninety drawings",
        weight=2,
    )
    def test_fed(self, log: TrainingLog, all_ninety: tuple[Array, Array]) -> None:
        images, labels = all_ninety
        rows = sorted(log.sizes)
        diagnose(
            rows == [len(images)],
            (lambda: not rows, "no step was fed images: run train_step with a feed_dict"),
            (
                lambda: len(rows) == 1,
                lambda: f"a step is fed {rows[0]} images: each one takes all {len(images)}",
            ),
            (lambda: True, f"not every step is fed all {len(images)} images"),
        )
        for fed in log.first:
            diagnose_fed(fed, images, labels)
        # Without measurements of their own, loss and accuracy were fetched along with train_step.
        looked = [count for step, count in log.evaluated.items() if 0 < step < self.steps]
        diagnose(
            not looked or max(looked) >= len(images),
            (
                lambda: True,
                lambda: (
                    f"loss and accuracy are measured on {max(looked)} images: they are those of "
                    f"all {len(images)}"
                ),
            ),
        )

    @check(
        "Loss and accuracy are measured every 20 steps",
        hint="every 20 steps, one sess.run fetches loss and accuracy: if i % 20 == 0",
    )
    def test_measured(self, log: TrainingLog) -> None:
        looked = {*log.evaluated, *log.alongside}
        due = range(self.every, self.steps, self.every)  # the check cell measures after the last
        # A wrong number of steps, or a count that is off by one, costs points above.
        diagnose(
            all(looked & {step - 1, step, step + 1} for step in due)
            or (log.steps != self.steps and looked & set(range(1, log.steps + 1))),
            (
                lambda: not looked & set(range(1, self.steps)),
                "loss and accuracy are not measured while the training runs: fetch both with one "
                "sess.run every 20 steps",
            ),
            (lambda: True, "loss and accuracy are measured, but not every 20 steps"),
        )

    @check(
        "The training has lowered the loss",
        hint="run train_step in every round, with all images and labels in feed_dict",
    )
    def test_learned(self, graph: Graph, all_ninety: tuple[Array, Array]) -> None:
        images, labels = all_ninety
        # Computed here, because the notebook's own loss proves nothing.
        weights = graph.trained().weights()
        if "W_conv" not in weights:  # fixed filters; a mistake in them costs points elsewhere
            weights["W_conv"] = graph.trained().of(images[:1], "W_conv")
        assert weights["W_conv"].shape == (5, 5, 1, 2)
        loss = reference.cross_entropy(reference.stroke_probabilities(weights, images), labels)
        assert loss < thresholds.ORENIST_LOSS * len(images) * np.log(3)


def diagnose_fed(fed: dict[str, Array], images: Array, labels: Array) -> None:
    """Fail unless `fed` are these images (n, 784) and labels (n, classes), in any order."""
    assert set(fed) == {"x", "t"}
    diagnose(
        same(in_order(fed["x"], fed["t"]), in_order(images, labels)),
        (lambda: not fed["x"].any(), "the images that are fed are empty"),
        (
            lambda: same(np.sort(fed["x"], axis=0), np.sort(images, axis=0)),
            "the labels that are fed do not belong to the images beside them",
        ),
    )


def in_order(images: Array, labels: Array) -> Array:
    """Images (n, 784) joined with their labels (n, classes), as sorted rows."""
    if images.ndim != 2 or labels.ndim != 2 or len(images) != len(labels):
        raise NoValue("what is fed are not rows of pixels and as many rows of labels")
    rows = np.concatenate([images, labels], axis=1).astype(np.float32)
    return rows[np.lexsort(rows.T)]


class DigitNetwork(NetworkChecks):
    """The digit network: its sizes and layers, with MNIST's test digits as images."""

    sizes = (3136, 1024, 10)
    learning_rate = 0.0005
    moving = ("W_conv", "w2", "b2", "w0", "b0")
    scales: ClassVar = {"W_conv": 0.1, "w2": 0.05, "b2": 0.5, "w0": 0.05, "b0": 0.3}

    @classmethod
    def shapes(cls) -> dict[str, tuple[int, ...]]:
        return {"W_conv": (5, 5, 1, 16), **super().shapes()}

    @classmethod
    def activate(cls, response: Array) -> Array:
        return np.maximum(response, 0)

    @classmethod
    def slope(cls, activated: Array) -> Array:
        return activated > 0

    @classmethod
    def respond(cls, raw: Array) -> tuple[Array, Array]:
        return raw, np.ones_like(raw)

    @classmethod
    def images(cls, rng: np.random.Generator) -> tuple[Array, Array]:
        return held_out_digits(rng.choice(10_000, 100, replace=False))


def held_out_digits(rows: Array) -> tuple[Array, Array]:
    """MNIST test images (n, 784) and one-hot labels (n, 10)."""
    images, labels = mnist.load("test", rows)
    return images, np.eye(10, dtype=np.float32)[labels]


class DigitMapChecks(DigitNetwork):
    """From the digit to pooled feature maps of 16 filters ([MDC-03], [MDR-03])."""

    @check(
        "W_conv is the one variable so far, trainable: 16 filters of 5×5",
        hint="a tf.Variable of shape [5, 5, 1, num_filters] with num_filters = 16 that h_pool "
        "depends on, and no bias",
    )
    def test_variable(self, graph: Graph) -> None:
        assert graph.whole("num_filters") == 16
        assert graph.trainable_shapes() == [(5, 5, 1, 16)]
        assert not graph.untrained(["W_conv"])
        if graph.fixed():
            raise Mistake("h_pool depends on a second variable: the convolution has no bias")

    @check(
        "W_conv starts as a truncated normal of standard deviation 0.1",
        hint="tf.truncated_normal([5, 5, 1, num_filters], stddev=0.1): no value beyond 0.2",
    )
    def test_start(self, graph: Graph) -> None:
        kernels = np.stack([graph.fresh().weight("W_conv") for _ in range(5)])
        assert reference.is_truncated_normal(kernels, 0.1)

    @check(
        "h_conv keeps 28×28 pixels, one feature map per filter",
        hint="padding='SAME' keeps 28×28 by adding a border of two zeros; strides are 1",
    )
    def test_conv_shape(self, graph: Graph, rng: np.random.Generator) -> None:
        images, _ = self.images(rng)
        diagnose_size(graph.fresh().of(images, "h_conv"), (len(images), 28, 28, 16))

    @check(
        "h_conv is the plain convolution of the image with W_conv",
        hint="no abs, no cut-off, no bias: this chapter's network uses the raw convolution, "
        "and its kernel is not rotated",
        weight=2,
    )
    def test_conv(self, graph: Graph, rng: np.random.Generator) -> None:
        images, _ = self.images(rng)
        kernel = self.some_weights(rng)["W_conv"]
        x_image, response = graph.fresh(W_conv=kernel).of(images, "x_image", "h_conv")
        pixels = images.reshape(-1, 28, 28, 1)
        if x_image.shape == pixels.shape:  # its values have a check of their own
            pixels = x_image
        raw = reference.convolve(pixels, kernel)
        diagnose(
            same(response, raw),
            (
                lambda: same(response, np.abs(raw)),
                "there is no tf.abs in this chapter's network: h_conv has the sign of an edge",
            ),
            (
                lambda: same(response, np.maximum(raw, 0)),
                "there is no relu behind these filters: h_conv is the plain convolution",
            ),
            (
                lambda: (
                    same(response, reference.cut_off(np.abs(raw)))
                    or same(response, reference.cut_off(raw))
                ),
                "there is no cutoff in this chapter's network: h_conv is the plain convolution",
            ),
            (
                lambda: same(response, reference.convolve(pixels, kernel[::-1, ::-1])),
                "the kernel is turned round: conv2d slides it as it is written",
            ),
        )

    @check(
        "h_pool takes the maximum of 2×2 blocks: 28×28 becomes 14×14",
        hint="ksize and strides are [1, 2, 2, 1] (batch, rows, columns, channels) "
        "and tf.nn.max_pool takes the maximum",
        weight=2,
    )
    def test_pool(self, graph: Graph, rng: np.random.Generator) -> None:
        images, _ = self.images(rng)
        response, pooled = graph.fresh().of(images, "h_conv", "h_pool")
        assert in_blocks(response)
        diagnose_pool(pooled, response, "h_conv")


class SaverChecks:
    """The Saver of the digit network ([MDC-06], [MDR-06])."""

    @check(
        "saver takes every variable of the graph, Adam's averages too",
        hint="tf.train.Saver() takes them all, if it is made when the graph is complete",
    )
    def test_all(self, graph: Graph) -> None:
        variables = {str(variable["name"]) for variable in graph.variables()}
        assert variables
        assert graph.saved("saver") == variables


def accuracy_on_all_digits(weights: dict[str, Array]) -> float:
    """The digit network's accuracy on MNIST's 10 000 test digits with these weights.

    The last result is cached, because a notebook is checked again with the same weights when an
    earlier cell is repaired.
    """
    return _accuracy_on_all_digits(
        tuple(
            (name, value.dtype.str, value.shape, value.tobytes()) for name, value in weights.items()
        )
    )


@functools.lru_cache(maxsize=1)
def _accuracy_on_all_digits(weights: tuple[tuple[str, str, tuple[int, ...], bytes], ...]) -> float:
    images, labels = held_out_digits(np.arange(10_000))
    arrays = {
        name: np.frombuffer(content, dtype).reshape(shape)
        for name, dtype, shape, content in weights
    }
    return reference.accuracy(reference.digit_probabilities(arrays, images), labels)


def digit_weights(tensors: dict[str, Array]) -> dict[str, Array]:
    """The digit network's five variables among a checkpoint's tensors, found by shape.

    The numbers of filters and hidden units are free, as other checks report wrong ones.  Adam's
    slots have the same shapes; they are excluded by their names, `<variable>/<suffix>`.  Raises
    NoValue if a variable is missing or ambiguous.
    """
    own = {
        key: value
        for key, value in tensors.items()
        if value.ndim and not any(key.startswith(f"{other}/") for other in tensors if other != key)
    }

    def only(name: str, *shape: int | None) -> Array:
        fits = [
            value
            for value in own.values()
            if value.ndim == len(shape)
            and all(want in (None, size) for want, size in zip(shape, value.shape, strict=True))
        ]
        if len(fits) != 1:
            number = "no variable" if not fits else f"{len(fits)} variables"
            asked = ", ".join("any" if n is None else str(n) for n in shape)
            raise NoValue(f"the checkpoint has {number} of shape ({asked}), that of {name}")
        return fits[0]

    kernel = only("W_conv", 5, 5, 1, None)
    w2 = only("w2", 196 * kernel.shape[3], None)
    w0 = only("w0", w2.shape[1], 10)
    return {
        "W_conv": kernel,
        "w2": w2,
        "b2": only("b2", w2.shape[1]),
        "w0": w0,
        "b0": only("b0", 10),
    }
