"""Checks that several notebooks of the chapter share; the modules bind them to grade cells.

pytest takes the checks of a class from its last base to its first, then its own: bases are
listed so that what comes first in the notebook is checked first.

Where one thing builds on another, a check takes the student's own result of the step before
(the kernel, the feature map, the weights) as given: a mistake costs once.
"""

from __future__ import annotations

import functools
from typing import ClassVar

import numpy as np
import pytest

from autograder.checks import check
from autograder.checks.ch4_cnn import reference
from autograder.checks.ch4_cnn.adapter import Graph, Notebook, Running, same
from autograder.engine.values import NoValue
from data import mnist, orenist

Array = reference.Array


MOST_MAPS = 1000


class Strokes:
    """Fresh ORENIST images for every check."""

    @pytest.fixture
    def strokes(self, rng: np.random.Generator) -> Array:
        """Images (12, 784)."""
        return self.draw(rng, 4)[0]

    @staticmethod
    def draw(rng: np.random.Generator, per_class: int) -> tuple[Array, Array]:
        """Images (3·per_class, 784) and one-hot labels (3·per_class, 3)."""
        return orenist.generate(int(rng.integers(2**31)), per_class)


def maps_of(values: Array) -> list[Array]:
    """Every single feature map of (n, h, w, c); more than a figure can show are none."""
    if values.shape[0] * values.shape[3] > MOST_MAPS:
        raise NoValue(f"{values.shape[0]} × {values.shape[3]} feature maps are too many to draw")
    return [values[i, :, :, f] for i in range(len(values)) for f in range(values.shape[3])]


def in_blocks(maps: Array) -> bool:
    """Whether these are feature maps (n, h, w, c) that blocks of 2×2 cover without a rest."""
    return maps.ndim == 4 and maps.shape[1] % 2 == 0 and maps.shape[2] % 2 == 0


def vary(values: Array) -> bool:
    """Whether these are not the same number everywhere.

    A kernel that answers every question with one number would agree with itself.
    """
    return values.size > 0 and float(values.max()) > float(values.min())


def faint_and_bright(images: Array) -> Array:
    """The images, then the same ten times as bright, so that some responses pass any cutoff."""
    return np.concatenate([images, 10 * images])


def unscaled(kernel: Array, channel: int) -> Array:
    """One filter, divided by its largest weight, so that a wrong divisor does not show."""
    weights = kernel[:, :, 0, channel]
    scaled: Array = weights / np.abs(weights).max()
    return scaled


class EdgeFilterChecks:
    """`edge_filter()` ([OFE-04], [OCE-03])."""

    @check(
        "edge_filter() has shape (5, 5, 1, 2)",
        hint="the axes of a kernel are rows, columns, input channels, filters",
    )
    def test_shape(self, notebook: Notebook) -> None:
        assert notebook.result("edge_filter").shape == (5, 5, 1, 2)

    @check(
        "edge_filter() is of type float32",
        hint="TensorFlow does not mix types: the images are float32, so dtype=tf.float32",
    )
    def test_dtype(self, notebook: Notebook) -> None:
        kernel = notebook.call("edge_filter")
        assert isinstance(kernel, np.ndarray)
        assert kernel.dtype == np.float32

    @check(
        "The positive weights of each filter sum to 1",
        hint="23 is the sum of the positive weights: divide every weight by 23.0",
        weight=2,
    )
    def test_scale(self, notebook: Notebook) -> None:
        kernel = notebook.result("edge_filter")
        assert kernel.ndim == 4
        assert same(np.clip(kernel, 0, None).sum(axis=(0, 1, 2)), np.ones(2))

    @check(
        "Filter 0 subtracts right from left, and so answers to vertical edges",
        hint="filter0 is the left table of Fig 4-5 and stands in [:, :, 0, 0]; "
        "it subtracts right from left, so it sees vertical edges",
        weight=2,
    )
    def test_vertical(self, notebook: Notebook) -> None:
        kernel = notebook.result("edge_filter")
        assert kernel.shape == (5, 5, 1, 2)
        assert same(unscaled(kernel, 0), unscaled(reference.edge_kernels(), 0))

    @check(
        "Filter 1 subtracts bottom from top, and so answers to horizontal edges",
        hint="filter1 is the right table of Fig 4-5 and stands in [:, :, 0, 1]; "
        "it subtracts bottom from top, so it sees horizontal edges",
        weight=2,
    )
    def test_horizontal(self, notebook: Notebook) -> None:
        kernel = notebook.result("edge_filter")
        assert kernel.shape == (5, 5, 1, 2)
        assert same(unscaled(kernel, 1), unscaled(reference.edge_kernels(), 1))


class InputChecks(Strokes):
    """`x` and `x_image`."""

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
    def test_x_image(self, graph: Graph) -> None:
        image = np.zeros((28, 28))
        image[3, 20] = 1
        answer = graph.fresh().of(image.reshape(1, 784), "x_image")
        assert answer.shape == (1, 28, 28, 1)
        assert answer[0, 3, 20, 0] == answer.sum() == 1


class EdgeMapChecks(Strokes):
    """From the image to pooled edge maps of two filters ([OFE-05], [OCE-04], [ODE-03])."""

    @staticmethod
    def maps(graph: Graph, rng: np.random.Generator) -> Running:
        """A session in which the maps can be looked at."""
        return graph.fresh()

    @check(
        "h_conv keeps 28 rows and columns, one feature map per filter",
        hint="padding='SAME' keeps 28×28 by adding a border of two zeros; strides are 1",
    )
    def test_conv_shape(self, graph: Graph, strokes: np.ndarray, rng: np.random.Generator) -> None:
        assert self.maps(graph, rng).of(strokes, "h_conv").shape == (12, 28, 28, 2)

    @check(
        "h_conv answers to rising and to falling edges alike",
        hint="at a falling edge the sum is negative: take abs of the convolution, "
        "before anything is cut off",
    )
    def test_both_edges(self, graph: Graph, strokes: Array, rng: np.random.Generator) -> None:
        # Turning every pixel's sign turns every rising edge into a falling one.
        response, opposite = (
            self.maps(graph, rng)
            .of(np.concatenate([strokes, -strokes]), "h_conv")
            .reshape(2, len(strokes), -1)
        )
        assert vary(response)
        assert same(response, opposite)

    @check(
        "h_conv is the absolute value of the convolution with W_conv",
        hint="h_conv = tf.abs(tf.nn.conv2d(x_image, W_conv, …)), with strides of 1",
        weight=2,
    )
    def test_conv_values(self, graph: Graph, strokes: np.ndarray, rng: np.random.Generator) -> None:
        kernel, response = self.maps(graph, rng).of(strokes, "W_conv", "h_conv")
        assert kernel.ndim == 4
        # Before it is computed: a convolution of any size that a kernel names could take hours.
        assert max(kernel.shape[:2]) <= 28
        assert response.shape == (len(strokes), 28, 28, kernel.shape[3])
        assert vary(response)
        wanted = np.abs(reference.convolve(strokes.reshape(-1, 28, 28, 1), kernel))
        assert same(response, wanted)

    @check(
        "h_conv_cutoff subtracts 0.2 and leaves nothing below 0",
        hint="relu(h_conv - 0.2): weak responses become 0, strong ones shrink by 0.2",
        weight=2,
    )
    def test_cutoff(self, graph: Graph, strokes: np.ndarray, rng: np.random.Generator) -> None:
        images = faint_and_bright(strokes)
        response, kept = self.maps(graph, rng).of(images, "h_conv", "h_conv_cutoff")
        assert vary(response)
        assert same(kept, reference.cut_off(response))

    @check(
        "h_pool takes the maximum of 2×2 blocks: 28×28 becomes 14×14",
        hint="ksize and strides are [1, 2, 2, 1] (batch, rows, columns, channels) "
        "and tf.nn.max_pool takes the maximum",
        weight=2,
    )
    def test_pool(self, graph: Graph, strokes: np.ndarray, rng: np.random.Generator) -> None:
        images = faint_and_bright(strokes)
        kept, pooled = self.maps(graph, rng).of(images, "h_conv_cutoff", "h_pool")
        assert in_blocks(kept)
        assert vary(kept)
        assert same(pooled, reference.max_pool(kept))


class NetworkChecks(Strokes):
    """What the two-class networks share; the subclasses bind the sizes.

    sizes: flattened feature maps, hidden units, classes.
    learning_rate: what Adam is asked to use.
    moving: variables that training must change.
    scales: standard deviations of weights that we give it.
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
    def shapes(cls) -> dict[str, tuple[int, ...]]:
        """Variables of the layers behind the pooling, by notebook name."""
        flat, hidden, classes = cls.sizes
        return {"w2": (flat, hidden), "b2": (hidden,), "w0": (hidden, classes), "b0": (classes,)}

    @classmethod
    def some_weights(cls, rng: np.random.Generator) -> dict[str, Array]:
        """Weights for which neither the hidden layer nor the softmax saturates, float32."""
        # Uniform, for three million of them are drawn three times as fast as from a normal.
        return {
            name: (rng.random(shape, np.float32) - np.float32(0.5))
            * np.float32(cls.scales[name] * 12**0.5)
            for name, shape in cls.shapes().items()
        }

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
        """A session as initialising leaves it, only to look at."""
        return graph.fresh()

    @pytest.fixture(scope="class")
    @classmethod
    def loaded(cls, graph: Graph, weights: dict[str, Array]) -> Running:
        """A session with `weights`, only to look at."""
        return graph.fresh(**weights)


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
        assert flat.shape == (len(images), self.sizes[0])
        assert same(flat, pooled.reshape(len(images), -1))

    @check(
        "hidden2 multiplies by w2, adds b2 and applies the activation",
        hint="hidden2 = activation(tf.matmul(h_pool_flat, w2) + b2), with the activation "
        "that the text names",
    )
    def test_hidden(
        self, loaded: Running, weights: dict[str, Array], batch: tuple[Array, Array]
    ) -> None:
        images, _ = batch
        flat, hidden = loaded.of(images, "h_pool_flat", "hidden2")
        assert flat.shape == (len(images), self.sizes[0])
        assert same(hidden, self.activate(flat @ weights["w2"] + weights["b2"]))

    @check(
        "p is the softmax of hidden2 times w0 plus b0",
        hint="p = tf.nn.softmax(tf.matmul(hidden2, w0) + b0): once, over the classes",
    )
    def test_softmax(
        self, loaded: Running, weights: dict[str, Array], batch: tuple[Array, Array]
    ) -> None:
        images, _ = batch
        hidden, p = loaded.of(images, "hidden2", "p")
        assert hidden.shape == (len(images), self.sizes[1])
        assert same(p, reference.softmax(hidden @ weights["w0"] + weights["b0"]))

    @check(
        "Before training every class has the same probability",
        hint="w0 and b0 start as zeros, so that the untrained network prefers no class",
    )
    def test_uniform(self, untrained: Running, batch: tuple[Array, Array]) -> None:
        images, _ = batch
        p = untrained.of(images, "p")
        assert same(p, np.full((len(images), self.sizes[2]), 1 / self.sizes[2]))

    @check(
        "w2 starts as a truncated normal, b2 as zeros",
        hint="tf.truncated_normal with its default standard deviation of 1; tf.zeros for the bias",
    )
    def test_start(self, untrained: Running) -> None:
        assert not untrained.weight("b2").any()
        assert reference.is_truncated_normal(untrained.weight("w2")[None], 1.0)

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
        """Shapes of all variables that are trained, by notebook name."""
        return cls.shapes()


class TrainingChecks(NetworkChecks):
    """Loss, training step and accuracy ([OCE-06], [ODE-05], [MDC-05], [MDR-05])."""

    @check(
        "Before training the loss is n·ln(classes) for n images",
        hint="the loss is summed over the images, not averaged, and w0 = b0 = 0 makes every "
        "class equally probable",
    )
    def test_initial_loss(self, untrained: Running, batch: tuple[Array, Array]) -> None:
        images, labels = batch
        loss = untrained.of(images, "loss", labels=labels)
        assert same(loss, np.array(len(images) * np.log(self.sizes[2])))

    @check(
        "The loss is the cross entropy of p and t",
        hint="loss = -tf.reduce_sum(t * tf.log(p)); logits functions want the numbers "
        "before the softmax, not p",
    )
    def test_loss(self, loaded: Running, batch: tuple[Array, Array]) -> None:
        images, labels = batch
        p, loss = loaded.of(images, "p", "loss", labels=labels)
        assert p.shape == labels.shape
        assert same(loss, np.array(reference.cross_entropy(p, labels)))

    @check(
        "The accuracy is the share of images whose largest p is at the right class",
        hint="compare tf.argmax(p, 1) with tf.argmax(t, 1), cast to float32, take the mean",
    )
    def test_accuracy(self, loaded: Running, batch: tuple[Array, Array]) -> None:
        images, labels = batch
        p = loaded.of(images, "p")
        assert p.shape == labels.shape
        # Labels that agree with p for a third of the images.
        answers = p.argmax(axis=1)
        answers[len(answers) // 3 :] = (answers[len(answers) // 3 :] + 1) % self.sizes[2]
        made = np.eye(self.sizes[2])[answers]
        value = loaded.of(images, "accuracy", labels=made)
        assert same(value, np.array(reference.accuracy(p, made)))

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
        # Adam's first step is rate · g/(|g| + ε), so just below the rate where g is not tiny.
        assert 0.97 * self.learning_rate < step.max() < 1.03 * self.learning_rate

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
                # The one that the network prefers, for every image: a loss that forgets the
                # labels would make it rarer.
                labels = np.zeros_like(labels)
                labels[:, p.sum(axis=0).argmax()] = 1
            error = p - labels  # the gradient of the summed cross entropy, by hidden2·w0 + b0
            session.train(images, labels)
            assert self.goes_down(session.weight("w0") - weights["w0"], hidden.T @ error)
            bias = session.weight("b0") - weights["b0"]
            assert not bias.any() or self.goes_down(bias, error.sum(axis=0))

    @staticmethod
    def goes_down(moved: Array, gradient: Array) -> bool:
        """Whether a step went against the gradient, wherever that is steep."""
        steep = np.abs(gradient) > 0.05 * np.abs(gradient).max()
        return bool((np.sign(moved[steep]) == -np.sign(gradient[steep])).all())


def shown_maps(graph: Graph, name: str) -> list[Array]:
    """The feature maps in the notebook's array `name`, or a failed check."""
    values = graph.array(name)
    assert values.ndim == 4
    assert vary(values)
    return maps_of(values)


class PictureChecks:
    """The table of images, filters and feature maps ([OFE-08], [ODE-09], [MDR-08])."""

    @check(
        "The picture shows the nine images",
        hint="the first row shows the first nine images, each reshaped to 28×28",
    )
    def test_images(self, graph: Graph, first_nine: Array) -> None:
        assert graph.shows(list(first_nine.reshape(9, 28, 28))) == 1

    @check(
        "The picture shows every filter",
        hint="filter f is filter_vals[:, :, 0, f], for every f",
    )
    def test_filters(self, graph: Graph) -> None:
        kernel = graph.array("filter_vals")
        assert kernel.ndim == 4
        assert vary(kernel)
        assert graph.shows([kernel[:, :, 0, f] for f in range(kernel.shape[3])]) == 1

    @check(
        "The picture shows every feature map: all filters, nine images",
        hint="the map of image i and filter f is conv_vals[i, :, :, f], for every i and every f: "
        "one loop stands inside the other",
        weight=2,
    )
    def test_maps(self, graph: Graph) -> None:
        assert graph.shows(shown_maps(graph, "conv_vals")) == 1


class PooledPictureChecks:
    """The same table after pooling ([OFE-10], [ODE-10], [MDR-09])."""

    @check(
        "The picture shows every pooled map: all filters, nine images",
        hint="the pooled map of image i and filter f is pool_vals[i, :, :, f], "
        "for every i and every f",
    )
    def test_maps(self, graph: Graph) -> None:
        assert graph.shows(shown_maps(graph, "pool_vals")) == 1


class DigitNetwork(NetworkChecks):
    """Sizes of the digit network, and digits the notebook has not seen."""

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
        assert graph.number("num_filters") == 16
        assert graph.trainable_shapes() == [(5, 5, 1, 16)]
        assert not graph.untrained(["W_conv"])

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
        assert graph.fresh().of(images, "h_conv").shape == (len(images), 28, 28, 16)

    @check(
        "h_conv is the plain convolution of the image with W_conv",
        hint="no abs, no cut-off, no bias: this chapter's network uses the raw convolution, "
        "and its kernel is not rotated",
        weight=2,
    )
    def test_conv(self, graph: Graph, rng: np.random.Generator) -> None:
        images, _ = self.images(rng)
        kernel = self.some_weights(rng)["W_conv"]
        response = graph.fresh(W_conv=kernel).of(images, "h_conv")
        assert same(response, reference.convolve(images.reshape(-1, 28, 28, 1), kernel))

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
        assert same(pooled, reference.max_pool(response))


def accuracy_on_all_digits(weights: dict[str, Array]) -> float:
    """Share of MNIST's 10 000 test digits that the digit network reads with these weights.

    Asked again with the same weights, as when a notebook is checked again with an earlier cell
    repaired, it is not computed again.
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
    """The five variables of the digit network among a checkpoint's tensors, by shape.

    The number of filters and of hidden units may be any: what is wrong with them is said
    elsewhere.  Adam's slots have the same shapes; they are named after the variable, with a
    suffix.  Raises NoValue when one is not there, or not unique.
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
