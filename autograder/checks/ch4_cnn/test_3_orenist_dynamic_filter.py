"""Notebook 3: trained filters."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest

from autograder.checks import check, grade_cell
from autograder.checks.ch4_cnn import reference
from autograder.checks.ch4_cnn.adapter import Graph, Running, same
from autograder.checks.ch4_cnn.common import (
    EdgeMapChecks,
    InputChecks,
    LayerChecks,
    StrokeLoopChecks,
    TrainingChecks,
)
from autograder.checks.ch4_cnn.pictures import PictureChecks, PooledPictureChecks
from autograder.data import orenist
from autograder.engine.values import NoValue, Values

KERNEL: dict[str, tuple[int, ...]] = {"W_conv": (5, 5, 1, 2)}


@pytest.fixture(scope="class")
def graph(request: pytest.FixtureRequest, values: Values) -> Graph:
    only_filters = issubclass(request.cls, EdgeMapChecks)
    return Graph(
        values,
        of="h_pool" if only_filters else "p",
        shapes=KERNEL if only_filters else {**KERNEL, **LayerChecks.shapes()},
    )


@pytest.fixture(scope="class")
def all_ninety(given: Path) -> tuple[np.ndarray, np.ndarray]:
    return orenist.load(given / "ORENIST.data")


@pytest.fixture(scope="class")
def first_nine(all_ninety: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return all_ninety[0][:9]


@pytest.fixture(scope="class")
def nine_classes(all_ninety: tuple[np.ndarray, np.ndarray]) -> list[int]:
    return [int(label) for label in all_ninety[1][:9].argmax(axis=1)]


@grade_cell("ode-03-graph-check")
class TestGraph(EdgeMapChecks, InputChecks):
    @staticmethod
    def maps(graph: Graph, rng: np.random.Generator) -> Running:
        # Load our own kernel if W_conv is a variable.  Other checks test that it is one, and its
        # initial values.
        session = graph.fresh()
        with contextlib.suppress(NoValue):
            session.load(W_conv=0.1 * rng.normal(size=KERNEL["W_conv"]))
        return session

    @check(
        "W_conv is a trainable variable of shape (5, 5, 1, 2)",
        hint="what training should change is a tf.Variable that h_pool depends on, not a constant; "
        "there is no other variable yet",
        weight=2,
    )
    def test_variable(self, graph: Graph) -> None:
        assert graph.trainable_shapes() == [(5, 5, 1, 2)]
        assert not graph.untrained(["W_conv"])

    @check(
        "W_conv starts as a truncated normal of standard deviation 0.1",
        hint="tf.truncated_normal([5, 5, 1, 2], stddev=0.1): no value beyond 0.2",
    )
    def test_start(self, graph: Graph) -> None:
        kernels = np.stack([graph.fresh().weight("W_conv") for _ in range(20)])
        assert reference.is_truncated_normal(kernels, 0.1)


@grade_cell("ode-04-layers-check")
class TestLayers(LayerChecks):
    @classmethod
    def trained(cls) -> dict[str, tuple[int, ...]]:
        return {**KERNEL, **cls.shapes()}


@grade_cell("ode-05-training-check")
class TestTraining(TrainingChecks):
    moving = ("W_conv", *TrainingChecks.moving)

    @classmethod
    def some_weights(cls, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return {**super().some_weights(rng), "W_conv": 0.1 * rng.normal(size=KERNEL["W_conv"])}


@grade_cell("ode-07-train-check")
class TestTrained(StrokeLoopChecks):
    pass


@grade_cell("ode-08-values-check")
class TestValues:
    @check(
        "filter_vals, conv_vals and pool_vals come from the trained session",
        hint="fetch [W_conv, h_conv_cutoff, h_pool] from sess and feed {x: images[:9]}",
    )
    def test_values(self, graph: Graph, all_ninety: tuple[np.ndarray, np.ndarray]) -> None:
        names = ("W_conv", "h_conv_cutoff", "h_pool")
        wanted = graph.trained().of(all_ninety[0][:9], *names)
        for name, values in zip(("filter_vals", "conv_vals", "pool_vals"), wanted, strict=True):
            assert same(graph.array(name), values)


@grade_cell("ode-09-picture-check")
class TestConvPicture(PictureChecks):
    pass


@grade_cell("ode-10-picture-check")
class TestPoolPicture(PooledPictureChecks):
    pass
