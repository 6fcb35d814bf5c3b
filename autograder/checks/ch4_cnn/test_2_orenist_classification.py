"""Notebook 2: classification with fixed filters, 392 → 2 → 3."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from autograder.checks import Mistake, check, grade_cell
from autograder.checks.ch4_cnn.adapter import Graph, Notebook, same
from autograder.checks.ch4_cnn.common import (
    EdgeFilterChecks,
    FixedFilterChecks,
    InputChecks,
    LayerChecks,
    StrokeLoopChecks,
    TrainingChecks,
    vary,
)
from autograder.checks.ch4_cnn.pictures import compare_scatters
from autograder.data import orenist
from autograder.engine.values import Values


@pytest.fixture(scope="class")
def notebook(values: Values) -> Notebook:
    return Notebook(values)


@pytest.fixture(scope="class")
def graph(request: pytest.FixtureRequest, values: Values) -> Graph:
    behind_pooling = issubclass(request.cls, LayerChecks | TrainingChecks | TrainedChecks)
    return Graph(
        values,
        of="p" if behind_pooling else "h_pool",
        shapes=LayerChecks.shapes() if behind_pooling else {},
    )


@pytest.fixture(scope="class")
def all_ninety(given: Path) -> tuple[np.ndarray, np.ndarray]:
    return orenist.load(given / "ORENIST.data")


class TrainedChecks:
    """Base class for checks of the student's own session."""


@grade_cell("oce-03-edge-filter-check")
class TestEdgeFilter(EdgeFilterChecks):
    pass


@grade_cell("oce-04-graph-check")
class TestGraph(FixedFilterChecks, InputChecks):
    @check(
        "The filters are fixed",
        hint="in this notebook W_conv is the constant from edge_filter(): nothing trains it",
    )
    def test_fixed(self, graph: Graph, strokes: np.ndarray) -> None:
        # A kernel without a graph has no variables either, so first require one.
        assert vary(graph.fresh().of(strokes[:1], "W_conv"))
        assert (5, 5, 1, 2) not in graph.trainable_shapes()


@grade_cell("oce-05-layers-check")
class TestLayers(LayerChecks):
    pass


@grade_cell("oce-06-training-check")
class TestTraining(TrainingChecks):
    pass


@grade_cell("oce-07-session-check")
class TestSession(TrainedChecks):
    @check(
        "sess can evaluate the graph, with every variable initialised",
        hint="make a session and run tf.global_variables_initializer() in it",
    )
    def test_initialised(self, graph: Graph, all_ninety: tuple[np.ndarray, np.ndarray]) -> None:
        p = graph.trained().of(all_ninety[0], "p")
        assert p.shape == (90, 3)
        assert np.isfinite(p).all()
        assert graph.trained().is_initialised()


@grade_cell("oce-08-train-check")
class TestTrained(StrokeLoopChecks, TrainedChecks):
    pass


@grade_cell("oce-09-scatter-check")
class TestScatter(TrainedChecks):
    @check(
        "hidden2_vals holds (z1, z2) of all images",
        hint="fetch hidden2 from the trained session and feed {x: images}",
    )
    def test_values(self, graph: Graph, all_ninety: tuple[np.ndarray, np.ndarray]) -> None:
        session = graph.trained()
        if not session.log().steps:
            raise Mistake(
                "sess holds no trained network here: fetch hidden2 from the session that [OCE-08] "
                "has trained, and initialise nothing in it"
            )
        assert same(graph.array("hidden2_vals"), session.of(all_ninety[0], "hidden2"))

    @check(
        "The points are sorted by class",
        hint="append z1 and z2 of an image to the lists of its own label",
    )
    def test_sorted(self, graph: Graph, all_ninety: tuple[np.ndarray, np.ndarray]) -> None:
        images, labels = all_ninety
        z = graph.trained().of(images, "hidden2")
        for name, column in (("z1_vals", 0), ("z2_vals", 1)):
            lists = graph.value(name)
            assert len(lists) == 3
            for label in range(3):
                wanted = z[labels.argmax(axis=1) == label, column]
                assert same(np.asarray(lists[label], float), wanted)

    @check(
        "The picture shows each class with its own marker, all in one subplot",
        hint="three scatters, one per class, with marker '|', '_' and '+' and s=200",
    )
    def test_picture(self, graph: Graph, all_ninety: tuple[np.ndarray, np.ndarray]) -> None:
        images, labels = all_ninety
        z = graph.trained().of(images, "hidden2")
        classes = [z[labels.argmax(axis=1) == label] for label in range(3)]
        figure = graph.figure()
        compare_scatters(figure, classes)
        for ax in figure.axes:
            for name, (low, high), way in (
                ("z1", ax.xlim, "to the right"),
                ("z2", ax.ylim, "upwards"),
            ):
                if ax.scatters and low > high:
                    raise Mistake(f"an axis is turned round: {name} goes {way}")
