"""Notebook 1: kernels by hand, the graph from image to pooled feature map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from autograder.checks import check, grade_cell
from autograder.checks.ch4_cnn import reference
from autograder.checks.ch4_cnn.adapter import Graph, Notebook, same
from autograder.checks.ch4_cnn.common import (
    EdgeFilterChecks,
    EdgeMapChecks,
    InputChecks,
    PictureChecks,
    PooledPictureChecks,
    vary,
)
from autograder.engine.values import Values
from data import orenist


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


@grade_cell("fig-4-2-blur-check")
class TestBlurKernels:
    @check(
        "blur_kernel spreads its weights almost evenly, as in Fig 4-2",
        hint="read the left table of Fig 4-2 again: eight equal weights and a slightly larger one",
    )
    def test_even(self, notebook: Notebook) -> None:
        wanted = np.full((3, 3), 0.11)
        wanted[1, 1] = 0.12
        assert same(notebook.array("blur_kernel"), wanted, 1e-6)

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
        "Any other patch and kernel are summed right, too",
        hint="compute with the arguments, not with the numbers of the slide",
        weight=2,
    )
    def test_any(self, notebook: Notebook, rng: np.random.Generator) -> None:
        for _ in range(3):
            patch, kernel = rng.uniform(0, 255, (3, 3)), rng.normal(size=(3, 3))
            wanted = np.array((patch * kernel).sum())
            assert same(notebook.result("neighbourhood_sum", patch, kernel), wanted, 1e-6)


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
        assert same(notebook.array("edge_kernel"), wanted, 1e-6)


@grade_cell("fig-4-4-convolve-check")
class TestConvolve:
    @check(
        "The result has the size of the image, square or not",
        hint="with a border of zeros there is one result for each pixel: the size stays",
    )
    def test_size(self, notebook: Notebook, rng: np.random.Generator) -> None:
        image = rng.uniform(size=(7, 11))
        assert notebook.result("convolve", image, np.ones((3, 3))).shape == (7, 11)

    @check(
        "The kernel is used as it is written, not turned round",
        hint="conv2d slides the kernel as written (cross-correlation); do not rotate it",
    )
    def test_not_flipped(self, notebook: Notebook) -> None:
        image, kernel = np.zeros((9, 9)), np.zeros((3, 3))
        image[4, 4] = kernel[0, 1] = 1
        answer = notebook.result("convolve", image, kernel)
        assert answer.shape == (9, 9)
        assert np.abs(answer).argmax() == 5 * 9 + 4

    @check(
        "Every pixel is right, at the border and for larger kernels",
        hint="beyond the border lie zeros; a kernel of 2k+1 rows needs k of them on each side",
        weight=2,
    )
    def test_values(self, notebook: Notebook, rng: np.random.Generator) -> None:
        for shape in ((3, 3), (5, 5), (3, 5)):
            image, kernel = rng.uniform(size=(8, 9)), rng.normal(size=shape)
            wanted = reference.convolve(image[None, :, :, None], kernel[:, :, None, None])
            assert same(notebook.result("convolve", image, kernel), wanted[0, :, :, 0])


@grade_cell("ofe-04-edge-filter-check")
class TestEdgeFilter(EdgeFilterChecks):
    pass


@grade_cell("ofe-05-graph-check")
class TestGraph(EdgeMapChecks, InputChecks):
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
        assert same(graph.array("conv_vals"), maps)


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
        cases = [(28, 5, 1), (28, 2, 2), (5, 2, 2), *random_cases(rng)]
        assert all(agrees(notebook, case, "SAME") for case in cases)

    @check(
        "VALID padding: only whole windows count",
        hint="a kernel of k pixels fits size - k + 1 times; every stride-th place is used, "
        "rounded up",
    )
    def test_valid(self, notebook: Notebook, rng: np.random.Generator) -> None:
        cases = [(28, 5, 1), (28, 2, 2), (5, 2, 2), *random_cases(rng)]
        assert all(agrees(notebook, case, "VALID") for case in cases)


def random_cases(rng: np.random.Generator) -> list[tuple[int, int, int]]:
    kernels = rng.integers(2, 8, 6)
    return [(int(rng.integers(k + 3, 40)), int(k), int(rng.integers(1, 5))) for k in kernels]


def agrees(notebook: Notebook, case: tuple[int, int, int], padding: str) -> bool:
    answer = notebook.result("output_size", *case, padding)
    return same(answer, np.array(float(reference.output_size(*case, padding))))


@grade_cell("ofe-09-values-check")
class TestPooledValues:
    @check(
        "pool_vals holds the pooled maps of the first nine images",
        hint="fetch h_pool and feed {x: images[:9]}",
    )
    def test_pooled(self, graph: Graph, first_nine: np.ndarray) -> None:
        maps = graph.fresh().of(first_nine, "h_pool")
        assert vary(maps)
        assert same(graph.array("pool_vals"), maps)


@grade_cell("ofe-10-picture-check")
class TestPoolPicture(PooledPictureChecks):
    pass
