"""Notebook 5: the restored session, its pictures, and the misclassified digits."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from autograder.checks import check, diagnose, grade_cell
from autograder.checks.ch4_cnn import probe_rows, reference
from autograder.checks.ch4_cnn.adapter import Graph, Running, same
from autograder.checks.ch4_cnn.common import (
    DigitMapChecks,
    DigitNetwork,
    InputChecks,
    LayerChecks,
    SaverChecks,
    TrainingChecks,
    digit_weights,
    held_out_digits,
)
from autograder.checks.ch4_cnn.pictures import (
    BarChecks,
    Item,
    PictureChecks,
    PooledPictureChecks,
    seen,
)
from autograder.engine.submission import SubmittedFiles
from autograder.engine.values import NoValue, Values

LAST = "mdc_session-4000"
TINY = 1e-30  # in place of a probability of 0, which has no logarithm


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
    return held_out_digits(probe_rows(prepared_rng))


@pytest.fixture(scope="class")
def first_nine(probe: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return probe[0][:9]


@pytest.fixture(scope="class")
def nine_classes(probe: tuple[np.ndarray, np.ndarray]) -> list[int]:
    return [int(label) for label in probe[1][:9].argmax(axis=1)]


@grade_cell("mdr-03-graph-check")
class TestGraph(DigitMapChecks, InputChecks):
    pass


@grade_cell("mdr-04-layers-check")
class TestLayers(DigitNetwork, LayerChecks):
    @check(
        "The variables are made in the same order as in notebook 4",
        hint="W_conv, w2, b2, w0, b0: in another order they get each other's names, and the "
        "checkpoint's values go astray",
    )
    def test_order(self, graph: Graph) -> None:
        made = [str(variable["name"]) for variable in graph.variables()]
        own = [graph.graph_name(name) for name in self.moving]
        by_order = [name for name in own if re.fullmatch(r"Variable(_\d+)?", name)]
        assert [name for name in made if name in by_order] == by_order


@grade_cell("mdr-05-accuracy-check")
class TestTraining(DigitNetwork, TrainingChecks):
    pass


@grade_cell("mdr-06-restore-check")
class TestRestore(SaverChecks):
    @check(
        "sess holds the values of the checkpoint, bit for bit",
        hint="saver.restore(sess, './mdc_session-4000') comes last: an initialiser after it "
        "would draw new values",
        weight=3,
    )
    def test_bits(self, graph: Graph, submission: SubmittedFiles) -> None:
        saved, found = digit_weights(submission.tensors(LAST)), graph.trained().weights()
        diagnose(
            all(np.array_equal(saved[name], value) for name, value in found.items()),
            (
                lambda: all(
                    saved[name].shape == value.shape and np.abs(saved[name] - value).max() < 0.05
                    for name, value in found.items()
                ),
                "the values are nearly those of the checkpoint: nothing trains, or changes them, "
                "once they are restored",
            ),
        )

    @check(
        "The restored network reads digits",
        hint="build the same graph as in notebook 4, so that every value goes where it came from",
    )
    def test_reads(
        self, graph: Graph, submission: SubmittedFiles, probe: tuple[np.ndarray, np.ndarray]
    ) -> None:
        images, labels = probe[0][:500], probe[1][:500]
        p = graph.trained().of(images, "p")
        saved, found = digit_weights(submission.tensors(LAST)), graph.trained().weights()
        diagnose(
            reference.accuracy(p, labels) > 0.9,
            (
                lambda: any(not np.array_equal(saved[n], value) for n, value in found.items()),
                "sess does not hold the values of the checkpoint: restore them last",
            ),
        )


@pytest.fixture(scope="class")
def restored(graph: Graph, submission: SubmittedFiles) -> Running:
    """A session with the values that should have been restored.

    If the graph or the checkpoint does not allow it, other checks have failed already, and the
    student's session is returned as it is.
    """
    try:
        tensors = submission.tensors(LAST)
        weights = digit_weights(tensors)
        fitting = {name: tensors[graph.graph_name(name)] for name in graph.names}
    except (NoValue, KeyError):
        return graph.trained()
    if any(not np.array_equal(fitting[name], weights[name]) for name in weights):
        return graph.trained()
    return graph.fresh(**weights)


class RestoredChecks:
    """Later cells must keep the restored values; an empty cell earns no points for doing so."""

    def see_that_it_is_done(self, graph: Graph) -> None:
        """Fail unless the cell has produced its result, right or wrong."""
        raise NotImplementedError

    @check(
        "sess still holds the restored values",
        hint="nothing may be initialised, trained or loaded once saver.restore has run: "
        "that would put other numbers over the trained ones",
    )
    def test_still_restored(self, graph: Graph, restored: Running) -> None:
        self.see_that_it_is_done(graph)
        wanted, found = restored.weights(), graph.trained().weights()
        assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


@grade_cell("mdr-07-values-check")
class TestValues(RestoredChecks):
    def see_that_it_is_done(self, graph: Graph) -> None:
        graph.array("filter_vals")

    @check(
        "filter_vals, conv_vals and pool_vals belong to the first nine test images",
        hint="fetch [W_conv, h_conv, h_pool] from sess and feed {x: mnist.test.images[:9]}",
    )
    def test_values(
        self, graph: Graph, restored: Running, probe: tuple[np.ndarray, np.ndarray]
    ) -> None:
        wanted = restored.of(probe[0][:9], "W_conv", "h_conv", "h_pool")
        for name, values in zip(("filter_vals", "conv_vals", "pool_vals"), wanted, strict=True):
            assert same(graph.array(name), values)


@grade_cell("mdr-08-picture-check")
class TestConvPicture(RestoredChecks, PictureChecks):
    one_scale = False

    def see_that_it_is_done(self, graph: Graph) -> None:
        assert seen(graph.figure())


@grade_cell("mdr-09-picture-check")
class TestPoolPicture(RestoredChecks, PooledPictureChecks):
    one_scale = False

    def see_that_it_is_done(self, graph: Graph) -> None:
        # The previous cell's figure has no pictures of this size.
        assert any(picture.data.shape == (14, 14) for picture in seen(graph.figure()))


class ListChecks:
    """The list of misclassified digits."""

    @check(
        "misclassified lists the first digits the network gets wrong, ten at most",
        hint="go through the test set in order, skip what is right, "
        "keep (prediction, actual, probabilities), stop at ten",
        weight=2,
    )
    def test_list(self, graph: Graph, wrong: list[Item]) -> None:
        found = graph.value("misclassified")
        assert isinstance(found, list)
        diagnose(
            not any(int(entry[0]) == int(entry[1]) for entry in found),
            (lambda: True, "it lists digits that are read rightly: skip what is right"),
        )
        diagnose(
            len(found) == len(wrong),
            (lambda: not found, "misclassified is empty: put in what the network gets wrong"),
            (
                lambda: True,
                lambda: (
                    f"misclassified has {len(found)} entries: go through the test set in "
                    "order, and stop at ten"
                ),
            ),
        )
        for (prediction, actual, p), item in zip(found, wrong, strict=True):
            assert (int(prediction), int(actual)) == (item.prediction, item.actual)
            told = np.asarray(p, float).reshape(-1)
            diagnose(
                same(told, item.probabilities),
                (
                    functools.partial(is_rounded, told, item.probabilities),
                    "the probabilities are rounded: keep those that p gives",
                ),
            )


def is_rounded(told: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether these are the wanted probabilities, except for rounding."""
    return told.shape == wanted.shape and bool(np.abs(told - wanted).max() <= 0.05)


@grade_cell("mdr-10-misclassified-check")
class TestMisclassified(BarChecks, ListChecks, RestoredChecks):
    def see_that_it_is_done(self, graph: Graph) -> None:
        graph.value("misclassified")


@pytest.fixture(scope="class")
def wrong(restored: Running, probe: tuple[np.ndarray, np.ndarray]) -> list[Item]:
    """The first ten digits that the restored network misclassifies."""
    found = (item for item in items(restored, probe) if item.prediction != item.actual)
    return list(itertools.islice(found, 10))


@pytest.fixture(scope="class")
def listed(
    graph: Graph, restored: Running, probe: tuple[np.ndarray, np.ndarray], wrong: list[Item]
) -> list[Item]:
    """The digits of the student's own list; those of `wrong` if these cannot be told.

    Digits are told by their probabilities.  A mistake in the list costs points only once.
    """
    try:
        entries = [
            (int(prediction), int(actual), np.asarray(p, np.float32).reshape(10))
            for prediction, actual, p in graph.value("misclassified")
        ]
    except (NoValue, TypeError, ValueError):
        return wrong
    if not entries or entries_match(entries, wrong):
        return wrong
    known = list(items(restored, probe))
    # Many digits have a p of nearly 1; what tells them apart are the small ones.
    everything = np.log(np.maximum([item.probabilities for item in known], TINY))
    found = []
    for prediction, actual, p in entries:
        apart = np.abs(everything - np.log(np.maximum(p, TINY))).max(axis=1)
        if not apart.min() < 0.01:
            return wrong
        own = known[apart.argmin()]
        if (prediction, actual) != (own.actual, own.prediction):  # the title has its own order
            own = replace(own, prediction=prediction, actual=actual)
        found.append(own)
    return found


def items(session: Running, probe: tuple[np.ndarray, np.ndarray]) -> Iterator[Item]:
    """Every digit of the test set, with the network's answer."""
    for images, labels in zip(*(np.split(part, 20) for part in probe), strict=True):
        for p, label, image in zip(session.of(images, "p"), labels, images, strict=True):
            yield Item(int(p.argmax()), int(label.argmax()), p, image)


def entries_match(entries: list[tuple[int, int, np.ndarray]], wanted: list[Item]) -> bool:
    """Whether these are the wanted digits, in this order."""
    return len(entries) == len(wanted) and all(
        (prediction, actual) == (item.prediction, item.actual) and same(p, item.probabilities)
        for (prediction, actual, p), item in zip(entries, wanted, strict=True)
    )
