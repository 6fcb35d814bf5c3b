"""Notebook 1: kernels by hand, the graph from image to pooled feature map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from autograder.checks import check, diagnose, grade_cell
from autograder.checks.ch4_cnn import reference
from autograder.checks.ch4_cnn.adapter import Graph, Notebook, lent, same
from autograder.checks.ch4_cnn.common import (
    EdgeFilterChecks,
    FixedFilterChecks,
    InputChecks,
    constant_factor,
    vary,
)
from autograder.checks.ch4_cnn.pictures import PictureChecks, PooledPictureChecks
from autograder.data import orenist
from autograder.engine.values import Values


@pytest.fixture(scope="class")
def notebook(values: Values) -> Notebook:
    return Notebook(values)


@pytest.fixture(scope="class")
def graph(values: Values) -> Graph:
    return Graph(values, of="h_pool", shapes={})


@pytest.fixture(scope="class")
def first_nine(given: Path) -> np.ndarray:
    images, _ = orenist.load(given / "ORENIST.data")
    return images[:9]


@pytest.fixture(scope="class")
def nine_classes(given: Path) -> list[int]:
    _, labels = orenist.load(given / "ORENIST.data")
    return [int(label) for label in labels[:9].argmax(axis=1)]


@grade_cell("fig-4-2-blur-check")
class TestBlurKernels:
    @check(
        "blur_kernel spreads its weights almost evenly, as in Fig 4-2",
        hint="read the left table of Fig 4-2 again: eight equal weights and a slightly larger one",
    )
    def test_even(self, notebook: Notebook) -> None:
        wanted = np.full((3, 3), 0.11)
        wanted[1, 1] = 0.12
        kernel = notebook.array("blur_kernel")
        diagnose(
            same(kernel, wanted, 1e-6),
            (
                lambda: same(kernel, np.full((3, 3), 1 / 9), 1e-6),
                "that is the plain average: in Fig 4-2 the middle weighs a little more",
            ),
            (lambda: kernel.max() == 0.6, "that is the soft one: blur_kernel is the other table"),
        )

    @check(
        "soft_blur_kernel keeps most of the middle pixel, as in Fig 4-2",
        hint="read the right table of Fig 4-2 again: the middle weighs twelve neighbours",
    )
    def test_soft(self, notebook: Notebook) -> None:
        wanted = np.full((3, 3), 0.05)
        wanted[1, 1] = 0.60
        assert same(notebook.array("soft_blur_kernel"), wanted, 1e-6)

    @check(
        "The weights of each blur kernel sum to 1",
        hint="a blur must not brighten or darken the image: all nine weights together make 1",
    )
    def test_sums(self, notebook: Notebook) -> None:
        for name in ("blur_kernel", "soft_blur_kernel"):
            weights = notebook.array(name)
            assert weights.size == 9
            assert abs(weights.sum() - 1) < 1e-6


def some_kernel(rng: np.random.Generator, patch: np.ndarray, *, negative: bool) -> np.ndarray:
    """Draw a kernel of the patch's shape whose sum over the patch has the wanted sign."""
    kernel = rng.normal(size=patch.shape)
    return -kernel if ((patch * kernel).sum() < 0) != negative else kernel


@grade_cell("fig-4-3-neighbourhood-sum-check")
class TestNeighbourhoodSum:
    @check(
        "The slide's patch gives 116.9",
        hint="multiply each pixel by the weight at its own place, then add all nine products",
    )
    def test_slide(self, notebook: Notebook) -> None:
        patch = np.array([[91, 46, 35], [141, 140, 135], [156, 153, 153]], float)
        kernel = np.full((3, 3), 0.11)
        kernel[1, 1] = 0.12
        assert same(notebook.result("neighbourhood_sum", patch, kernel), np.array(116.9), 1e-6)

    @check(
        "Any other patch and kernel are summed right, too, whatever their shape",
        hint="add the products of all pixels and weights of the two arguments, whatever their "
        "shape; the slide's patch is only an example",
        weight=2,
    )
    def test_any(self, notebook: Notebook, rng: np.random.Generator) -> None:
        for number, shape in enumerate([(3, 3), (5, 5), (2, 7), (6, 3), (1, 4)]):
            patch = rng.uniform(0, 255, shape)
            self.sums(notebook, patch, some_kernel(rng, patch, negative=number % 2 == 1))

    @check(
        "Whole and negative numbers are summed right, and the arguments stay as they are",
        hint="add the products of patch and kernel as they are: whole numbers, negative ones, and "
        "arrays that cannot be changed, for which new ones are made",
    )
    def test_kinds(self, notebook: Notebook, rng: np.random.Generator) -> None:
        grey = rng.integers(0, 256, (4, 5))
        self.sums(notebook, grey, some_kernel(rng, grey, negative=True))
        self.sums(notebook, grey.astype(np.uint8), rng.normal(size=(4, 5)))
        self.sums(notebook, grey - 300, grey - 128)
        patch, kernel = rng.normal(size=(2, 3, 3))
        answer = notebook.result("neighbourhood_sum", lent(patch), lent(kernel))
        assert same(answer, np.array((patch * kernel).sum()), 1e-6)

    @check("The sum is one float", hint="the docstring says what is returned: a float")
    def test_float(self, notebook: Notebook, rng: np.random.Generator) -> None:
        patches = rng.integers(0, 256, (2, 3, 3))
        answers = [
            # A sum below 0 may be wrong, which costs the points of other checks.
            notebook.floats("neighbourhood_sum", patch, some_kernel(rng, patch, negative=False))
            for patch in patches
        ]
        assert all(answer.ndim == 0 for answer in answers)
        assert np.ptp(answers) > 0  # neither a constant nor NaN

    @staticmethod
    def sums(notebook: Notebook, patch: np.ndarray, kernel: np.ndarray) -> None:
        """Fail unless the function returns the sum of the products of these two."""
        answer = notebook.result("neighbourhood_sum", patch, kernel)
        products = patch * kernel
        wanted = np.array(products.sum())
        diagnose(
            same(answer, wanted, 1e-6),
            (
                lambda: same(answer, np.array(116.9)),
                "compute with the arguments, not with the numbers of the slide",
            ),
            (
                lambda: same(answer, np.array(products[:3, :3].sum()), 1e-6),
                "only three rows and columns are summed: patch and kernel may have any shape",
            ),
            (
                lambda: same(answer, np.array(products.mean()), 1e-6),
                "that is the mean of the products: add them",
            ),
            (
                lambda: same(answer, np.array((patch * kernel[::-1, ::-1]).sum()), 1e-6),
                "the kernel is turned round: every pixel has the weight at its own place",
            ),
            (
                lambda: (
                    same(answer, np.array(np.trunc(products).sum()), 1e-6)
                    or same(answer, np.trunc(wanted), 1e-6)
                ),
                "the decimals are lost: an array of whole numbers holds none",
            ),
            (
                lambda: answer.ndim > 0,
                "the products are not added: the sum is one number",
            ),
            (
                lambda: any(
                    same(answer, np.array(other), 1e-6)
                    for other in (abs(wanted), np.abs(products).sum(), max(wanted, 0))
                ),
                "a negative sum stays negative: the absolute value is taken later",
            ),
            (
                lambda: any(same(answer, np.round(wanted, n), 1e-6) for n in range(4)),
                "the sum is rounded: return it as it is",
            ),
        )


@grade_cell("fig-4-4-kernels-check")
class TestKernels:
    @check(
        "mean_kernel takes the mean of nine pixels",
        hint="nine equal weights that sum to 1",
    )
    def test_mean(self, notebook: Notebook) -> None:
        assert same(notebook.array("mean_kernel"), np.full((3, 3), 1 / 9), 1e-6)

    @check(
        "edge_kernel is that of Fig 4-4",
        hint="the left column is the right one with the opposite sign, and the middle column is 0",
    )
    def test_edge(self, notebook: Notebook) -> None:
        wanted = np.outer([1, 2, 3], [-1, 0, 1])
        kernel = notebook.array("edge_kernel")
        diagnose(
            same(kernel, wanted, 1e-6),
            (
                lambda: same(kernel, -wanted, 1e-6),
                "the signs are the other way round: the left column is negative",
            ),
            (
                lambda: same(kernel, wanted.T, 1e-6),
                "rows and columns are exchanged: the middle column is 0",
            ),
            (lambda: same(kernel, wanted[::-1], 1e-6), "the rows stand upside down"),
            (
                lambda: constant_factor(kernel, wanted) > 0,
                "the weights of Fig 4-4 are whole numbers: nothing divides them",
            ),
            (
                lambda: (
                    kernel.shape == (3, 3)
                    and not kernel[:, 1].any()
                    and same(kernel[:, 0], -kernel[:, 2])
                ),
                "the outer columns are others in Fig 4-4: read the three weights of each again",
            ),
        )


@grade_cell("fig-4-4-convolve-check")
class TestConvolve:
    @check(
        "The result has the size of the image, square or not",
        hint="with a border of zeros there is one result for each pixel: the size stays",
    )
    def test_size(self, notebook: Notebook, rng: np.random.Generator) -> None:
        image = rng.uniform(size=(7, 11))
        shape = notebook.result("convolve", image, np.ones((3, 3))).shape
        diagnose(
            shape == (7, 11),
            (lambda: shape == (5, 9), "the image shrinks: it needs a frame of zeros"),
            (lambda: shape == (9, 13), "the frame of zeros is part of the result: it belongs off"),
            (lambda: shape == (11, 7), "rows and columns are exchanged"),
        )

    @check(
        "The kernel is used as it is written, not turned round",
        hint="conv2d slides the kernel as written (cross-correlation); do not rotate it",
    )
    def test_not_flipped(self, notebook: Notebook) -> None:
        image, kernel = np.zeros((9, 9)), np.zeros((3, 3))
        image[4, 4] = kernel[0, 1] = 1
        answer = notebook.result("convolve", image, kernel)
        assert answer.shape == (9, 9)
        place = divmod(int(np.abs(answer).argmax()), 9)
        diagnose(
            place == (5, 4),
            (lambda: place == (4, 5), "rows and columns of the kernel are exchanged"),
        )

    @check(
        "Every pixel is right, at the border and for other kernels",
        hint="beyond the border lie zeros; a kernel of 2k+1 rows needs k of them on each side",
        weight=2,
    )
    def test_values(self, notebook: Notebook, rng: np.random.Generator) -> None:
        for shape in ((3, 3), (5, 5), (3, 5), (7, 1)):
            self.slides(notebook, rng.uniform(size=(8, 9)), rng.normal(size=shape))
        self.slides(notebook, rng.uniform(size=(3, 4)), rng.normal(size=(5, 7)))

    @check(
        "Whole and negative numbers are right, too, and the arguments stay as they are",
        hint="slide any kernel over any image: whole numbers, negative ones, and arrays that "
        "cannot be changed, for which new ones are made",
    )
    def test_kinds(self, notebook: Notebook, rng: np.random.Generator) -> None:
        grey = rng.integers(0, 256, (6, 5))
        self.slides(notebook, grey, rng.normal(size=(3, 3)))
        self.slides(notebook, grey - 300, rng.integers(-9, 9, (3, 3)))
        image, kernel = rng.normal(size=(6, 4)), rng.normal(size=(3, 5))
        answer = notebook.result("convolve", lent(image), lent(kernel))
        assert same(answer, self.slid(image, kernel))

    @check(
        "The result contains floats",
        hint="np.zeros makes an array of floats; np.zeros_like takes the image's type",
    )
    def test_floats(self, notebook: Notebook, rng: np.random.Generator) -> None:
        grey = rng.integers(0, 256, (5, 6))
        assert notebook.floats("convolve", grey, rng.normal(size=(3, 3))).shape == (5, 6)

    @staticmethod
    def slid(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        """The neighbourhood sums of an image (rows, columns)."""
        answer = reference.convolve(image[None, :, :, None], kernel[:, :, None, None])
        return answer[0, :, :, 0]

    @classmethod
    def slides(cls, notebook: Notebook, image: np.ndarray, kernel: np.ndarray) -> None:
        """Fail unless the function slides this kernel over this image."""
        answer, wanted = notebook.result("convolve", image, kernel), cls.slid(image, kernel)
        rows, columns = kernel.shape[0] // 2, kernel.shape[1] // 2
        inside = np.zeros(image.shape, bool)
        inside[rows : len(image) - rows, columns : image.shape[1] - columns] = True
        diagnose(
            same(answer, wanted),
            (
                lambda: same(answer, cls.slid(image, kernel[::-1, ::-1])),
                "the kernel is turned round: slide it as it is written",
            ),
            (
                lambda: same(answer, np.trunc(wanted)),
                "the decimals are lost: the result must be an array of floats, also where the "
                "image has none",
            ),
            (
                lambda: same(answer, np.abs(wanted)) or same(answer, np.maximum(wanted, 0)),
                "negative sums stay negative: the absolute value is taken later",
            ),
            (
                lambda: any(same(answer, np.round(wanted, n)) for n in range(3)),
                "the sums are rounded: return them as they are",
            ),
            (
                lambda: bool(constant_factor(answer, wanted)),
                "the sums are divided, or multiplied: each is the sum of products as it is",
            ),
            (
                lambda: (
                    inside.any()
                    and answer.shape == wanted.shape
                    and same(answer[inside], wanted[inside])
                ),
                "the border is wrong: beyond the image all pixels count as 0, and the kernel "
                "reaches half its own rows and columns out",
            ),
        )


@grade_cell("ofe-04-edge-filter-check")
class TestEdgeFilter(EdgeFilterChecks):
    pass


@grade_cell("ofe-05-graph-check")
class TestGraph(FixedFilterChecks, InputChecks):
    pass


@grade_cell("ofe-07-values-check")
class TestFirstNine:
    @check(
        "filter_vals holds the kernel",
        hint="the first value that sess.run gives back is that of W_conv",
    )
    def test_filters(self, graph: Graph, first_nine: np.ndarray) -> None:
        kernel = graph.fresh().of(first_nine, "W_conv")
        assert vary(kernel)
        assert same(graph.array("filter_vals"), kernel)

    @check(
        "conv_vals holds the feature maps of the first nine images",
        hint="fetch h_conv_cutoff and feed {x: images[:9]}",
        weight=2,
    )
    def test_maps(self, graph: Graph, first_nine: np.ndarray) -> None:
        maps = graph.fresh().of(first_nine, "h_conv_cutoff")
        assert vary(maps)
        values = graph.array("conv_vals")
        diagnose(
            same(values, maps),
            (
                lambda: same(values, graph.fresh().of(first_nine, "h_conv")),
                "that is h_conv: fetch h_conv_cutoff, behind the cutoff",
            ),
        )


@grade_cell("ofe-08-picture-check")
class TestConvPicture(PictureChecks):
    pass


@grade_cell("fig-4-10-shapes-check")
class TestOutputSize:
    @check(
        "SAME padding: the size divided by the stride, rounded up",
        hint="with SAME only the stride counts: ceil(size / stride)",
    )
    def test_same(self, notebook: Notebook, rng: np.random.Generator) -> None:
        sizes(notebook, rng, "SAME", "VALID")

    @check(
        "VALID padding: only whole windows count",
        hint="a kernel of k pixels fits size - k + 1 times; every stride-th place is used, "
        "rounded up",
    )
    def test_valid(self, notebook: Notebook, rng: np.random.Generator) -> None:
        sizes(notebook, rng, "VALID", "SAME")

    @check("The size is an int", hint="// and math.ceil give whole numbers, / and np.ceil do not")
    def test_int(self, notebook: Notebook, rng: np.random.Generator) -> None:
        sizes = {
            notebook.whole_result("output_size", *case, padding)
            for case in random_cases(rng)
            for padding in ("SAME", "VALID")
        }
        assert len(sizes) > 1  # not a constant


def random_cases(rng: np.random.Generator) -> list[tuple[int, int, int]]:
    kernels = rng.integers(2, 8, 6)
    cases = [(int(rng.integers(k + 3, 40)), int(k), int(rng.integers(1, 5))) for k in kernels]
    # One that every wrong formula gets wrong, and one too large for a list of all sizes.
    return [*cases, (29, 3, 4), (1_000_003, 5, 2)]


def sizes(notebook: Notebook, rng: np.random.Generator, padding: str, other: str) -> None:
    """Fail unless `output_size` is right with this padding."""
    cases = [(28, 5, 1), (28, 2, 2), (5, 2, 2), *random_cases(rng)]
    wanted = np.array([reference.output_size(*case, padding) for case in cases])
    turned = np.array([reference.output_size(*case, other) for case in cases])
    numbers = [notebook.number_of("output_size", *case, padding) for case in cases]
    answers = np.array(numbers)
    covered = np.array([n if padding == "SAME" else n - k + 1 for n, k, _ in cases])
    strides = np.array([stride for _, _, stride in cases])
    diagnose(
        np.array_equal(answers, wanted),
        (lambda: np.array_equal(answers, turned), f"that is the formula of {other}, not {padding}"),
        (
            lambda: np.array_equal(answers, covered // strides),
            "the size is rounded down: ⌈ ⌉ means up",
        ),
        (lambda: np.allclose(answers, covered / strides), "the size is not rounded up"),
        (
            lambda: padding == "VALID" and np.array_equal(answers, -(-(covered - 1) // strides)),
            "size - k + 1 is the number of places, the + 1 is missing",
        ),
    )


@grade_cell("ofe-09-values-check")
class TestPooledValues:
    @check(
        "pool_vals holds the pooled maps of the first nine images",
        hint="fetch h_pool and feed {x: images[:9]}",
    )
    def test_pooled(self, graph: Graph, first_nine: np.ndarray) -> None:
        maps, kernel = graph.fresh().of(first_nine, "h_pool", "W_conv")
        assert vary(maps)
        values = graph.array("pool_vals")
        diagnose(
            same(values, maps),
            (
                lambda: same(values, graph.fresh().of(first_nine, "h_conv_cutoff")),
                "that is h_conv_cutoff: fetch h_pool, behind the pooling",
            ),
        )
        diagnose(
            same(graph.array("filter_vals"), kernel),
            (lambda: True, "filter_vals does not hold the filters: fetch [W_conv, h_pool]"),
        )


@grade_cell("ofe-10-picture-check")
class TestPoolPicture(PooledPictureChecks):
    pass
