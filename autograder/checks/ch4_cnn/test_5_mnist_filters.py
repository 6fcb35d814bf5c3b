"""Notebook 5: the restored session, its pictures, and the digits it gets wrong."""

from __future__ import annotations

import numpy as np
import pytest

from autograder.checks import check, grade_cell
from autograder.checks.ch4_cnn import TEST_ROWS, probe_rows, reference
from autograder.checks.ch4_cnn.adapter import Graph, same
from autograder.checks.ch4_cnn.common import (
    DigitMapChecks,
    DigitNetwork,
    InputChecks,
    LayerChecks,
    PictureChecks,
    PooledPictureChecks,
    TrainingChecks,
    digit_weights,
    held_out_digits,
)
from autograder.engine.submission import SubmittedFiles
from autograder.engine.values import Values

LAST = "mdc_session-4000"


@pytest.fixture(scope="class")
def graph(request: pytest.FixtureRequest, values: Values) -> Graph:
    only_filters = issubclass(request.cls, DigitMapChecks)
    shapes = DigitNetwork.shapes()
    return Graph(
        values,
        of="h_pool" if only_filters else "p",
        shapes={"W_conv": shapes["W_conv"]} if only_filters else shapes,
    )


@pytest.fixture(scope="class")
def probe(prepared_rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    _, rows = probe_rows(prepared_rng, TEST_ROWS["5-mnist-filters"])
    return held_out_digits(rows)


@pytest.fixture(scope="class")
def first_nine(probe: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return probe[0][:9]


@grade_cell("mdr-03-graph-check")
class TestGraph(DigitMapChecks, InputChecks):
    pass


@grade_cell("mdr-04-layers-check")
class TestLayers(DigitNetwork, LayerChecks):
    pass


@grade_cell("mdr-05-accuracy-check")
class TestTraining(DigitNetwork, TrainingChecks):
    pass


@grade_cell("mdr-06-restore-check")
class TestRestore:
    @check(
        "sess holds the values of the checkpoint, bit for bit",
        hint="saver.restore(sess, './mdc_session-4000') comes last: an initialiser after it "
        "would draw new values",
        weight=3,
    )
    def test_bits(self, graph: Graph, submission: SubmittedFiles) -> None:
        saved = digit_weights(submission.tensors(LAST))
        for name, value in graph.trained().weights().items():
            assert np.array_equal(saved[name], value)

    @check(
        "The restored network reads digits",
        hint="build the same graph as in notebook 4, so that every value goes where it came from",
    )
    def test_reads(self, graph: Graph, probe: tuple[np.ndarray, np.ndarray]) -> None:
        images, labels = probe[0][:500], probe[1][:500]
        p = graph.trained().of(images, "p")
        assert reference.accuracy(p, labels) > 0.9


@grade_cell("mdr-07-values-check")
class TestValues:
    @check(
        "filter_vals, conv_vals and pool_vals belong to the first nine test images",
        hint="fetch [W_conv, h_conv, h_pool] from sess and feed {x: mnist.test.images[:9]}",
    )
    def test_values(self, graph: Graph, probe: tuple[np.ndarray, np.ndarray]) -> None:
        wanted = graph.trained().of(probe[0][:9], "W_conv", "h_conv", "h_pool")
        for name, values in zip(("filter_vals", "conv_vals", "pool_vals"), wanted, strict=True):
            assert same(graph.array(name), values)


@grade_cell("mdr-08-picture-check")
class TestConvPicture(PictureChecks):
    pass


@grade_cell("mdr-09-picture-check")
class TestPoolPicture(PooledPictureChecks):
    pass


@grade_cell("mdr-10-misclassified-check")
class TestMisclassified:
    @check(
        "misclassified lists the first digits the network gets wrong, ten at most",
        hint="go through the test set in order, skip what is right, "
        "keep (prediction, actual, probabilities), stop at ten",
        weight=2,
    )
    def test_list(self, graph: Graph, wrong: list[tuple[int, int, np.ndarray]]) -> None:
        found = graph.value("misclassified")
        assert isinstance(found, list)
        assert len(found) == len(wrong)
        for (prediction, actual, p), (wanted, label, q) in zip(found, wrong, strict=True):
            assert (int(prediction), int(actual)) == (wanted, label)
            assert same(np.asarray(p, float).reshape(-1), q)

    @check(
        "Each of them is drawn beside the probabilities of all ten digits",
        hint="ten bars for each digit, at the heights of its probabilities",
    )
    def test_bars(self, graph: Graph, wrong: list[tuple[int, int, np.ndarray]]) -> None:
        shown = [bars[:, 1] for bars, _ in graph.bars()]
        assert all(any(same(q, other) for other in shown) for _, _, q in wrong)

    @check(
        "The bars share one scale, from 0 to 1",
        hint="set_ylim takes two arguments: set_ylim(0, 1)",
    )
    def test_scale(self, graph: Graph) -> None:
        limits = [ylim for _, ylim in graph.bars()]
        assert limits
        assert all(same(np.array(ylim), np.array([0.0, 1.0])) for ylim in limits)


@pytest.fixture(scope="class")
def wrong(graph: Graph, probe: tuple[np.ndarray, np.ndarray]) -> list[tuple[int, int, np.ndarray]]:
    """The first ten digits that the student's restored network gets wrong."""
    session, found = graph.trained(), []
    for images, labels in zip(*(np.split(part, 4) for part in probe), strict=True):
        p = session.of(images, "p")
        answers, right = p.argmax(axis=1), labels.argmax(axis=1)
        rows = np.flatnonzero(answers != right)
        found += [(int(answers[i]), int(right[i]), p[i]) for i in rows]
        if len(found) >= 10:
            break
    return found[:10]
