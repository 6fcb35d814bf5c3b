"""Notebook 4: sixteen trained filters, the training loop, and the checkpoint it leaves."""

from __future__ import annotations

import re

import numpy as np
import pytest

from autograder.checks import check, grade_cell
from autograder.checks.ch4_cnn import (
    TEST_ROWS,
    TRAINING_STEPS,
    probe_rows,
    reference,
    thresholds,
)
from autograder.checks.ch4_cnn.adapter import Graph, Running, counts_steps
from autograder.checks.ch4_cnn.common import (
    DigitMapChecks,
    DigitNetwork,
    InputChecks,
    LayerChecks,
    TrainingChecks,
    accuracy_on_all_digits,
    digit_weights,
    held_out_digits,
)
from autograder.engine.submission import SubmittedFiles
from autograder.engine.values import NoValue, Values

LAST = "mdc_session-4000"
SAVED = list(range(100, TRAINING_STEPS + 1, 100))


@pytest.fixture(scope="class")
def graph(request: pytest.FixtureRequest, values: Values) -> Graph:
    only_filters = issubclass(request.cls, DigitMapChecks)
    shapes = DigitNetwork.shapes()
    return Graph(
        values,
        of="h_pool" if only_filters else "p",
        shapes={"W_conv": shapes["W_conv"]} if only_filters else shapes,
    )


@grade_cell("mdc-03-graph-check")
class TestGraph(DigitMapChecks, InputChecks):
    pass


@grade_cell("mdc-04-layers-check")
class TestLayers(DigitNetwork, LayerChecks):
    @check(
        "The network has 3 222 938 parameters",
        hint="5·5·16 + 3136·1024 + 1024 + 1024·10 + 10: every weight and bias is a tf.Variable "
        "that p depends on; if there are more, a bias or a layer is too many",
    )
    def test_parameters(self, graph: Graph) -> None:
        assert sum(int(np.prod(shape)) for shape in graph.trainable_shapes()) == 3_222_938
        assert not graph.untrained(list(self.shapes()))


@grade_cell("mdc-05-training-check")
class TestTraining(DigitNetwork, TrainingChecks):
    pass


@grade_cell("mdc-06-session-check")
class TestSession:
    @check(
        "sess can evaluate the graph, with every variable initialised",
        hint="make a session and run tf.global_variables_initializer() in it",
    )
    def test_initialised(self, graph: Graph) -> None:
        p = graph.trained().of(held_out_digits(np.arange(10))[0], "p")
        assert p.shape == (10, 10)
        assert np.isfinite(p).all()
        assert graph.trained().is_initialised()

    @check(
        "saver saves every variable of the graph",
        hint="tf.train.Saver() takes them all, if it is made when the graph is complete",
    )
    def test_all(self, graph: Graph) -> None:
        variables = {str(variable["name"]) for variable in graph.variables()}
        assert variables
        assert graph.saved("saver") == variables

    @check(
        "saver keeps the last five checkpoints",
        hint="tf.train.Saver() keeps five by default: max_to_keep need not be given",
    )
    def test_five(self, graph: Graph) -> None:
        assert graph.number("saver.saver_def.max_to_keep") == 5


def steps_saved(folder: SubmittedFiles) -> list[int]:
    """Steps for which an index file `mdc_session-<step>.index` lies in the folder."""
    names = (re.fullmatch(r"mdc_session-(\d+)\.index", name) for name in folder.names())
    return sorted(int(match[1]) for match in names if match)


def at_the_last_step(graph: Graph, scratch: SubmittedFiles) -> Running:
    """A session with the values that the last step left.

    It is the student's, unless that has been initialised since: the loop is stopped where it asks
    for the next batch, and may have begun another step.  Then what was saved counts.
    """
    session = graph.trained()
    if session.adam_steps() > 0.5 or TRAINING_STEPS not in steps_saved(scratch):
        return session
    written = scratch.tensors(f"mdc_session-{TRAINING_STEPS}")
    counted = [reference.adam_steps(written[name]) for name in written if counts_steps(name)]
    if not any(steps > 0.5 for steps in counted):
        return session
    return graph.fresh(**{name: written[graph.graph_name(name)] for name in graph.names})


@grade_cell("mdc-07-train-check")
class TestTrainingLoop:
    @check(
        "A checkpoint is written every 100 steps, and only then",
        hint="saver.save(sess, './mdc_session', global_step=i) belongs under if i % 100 == 0",
        weight=2,
    )
    def test_rhythm(self, graph: Graph, scratch: SubmittedFiles) -> None:
        assert steps_saved(scratch) == SAVED

    @check(
        "A checkpoint holds the session as it is at that step",
        hint="save after train_step, and make the Saver after the graph is complete",
    )
    def test_bits(self, graph: Graph, scratch: SubmittedFiles) -> None:
        written = scratch.tensors(f"mdc_session-{TRAINING_STEPS}")
        for name, value in at_the_last_step(graph, scratch).weights().items():
            assert np.array_equal(written[graph.graph_name(name)], value)

    @check(
        "The loop learns to read digits it has not seen",
        hint="draw a new batch of 100 from mnist.train in every step and run train_step on it",
        weight=2,
    )
    def test_learns(self, graph: Graph) -> None:
        images, labels = held_out_digits(np.arange(0, 10_000, 5))
        p = graph.trained().of(images, "p")
        assert reference.accuracy(p, labels) > thresholds.MNIST_EARLY_ACCURACY

    @check(
        "loss_val and acc_val are measured on the whole test set",
        hint="feed mnist.test.images and mnist.test.labels to measure loss and accuracy, "
        "not the batch that was trained on",
    )
    def test_on_test_set(
        self, graph: Graph, scratch: SubmittedFiles, probe: tuple[np.ndarray, np.ndarray]
    ) -> None:
        session = at_the_last_step(graph, scratch)
        p, loss = session.of(probe[0], "p", "loss", labels=probe[1])
        # The last line of the log belongs to the last step: the same weights, the same images.
        assert abs(graph.number("acc_val") - reference.accuracy(p, probe[1])) < 1.5 / len(p)
        # The accuracy of a few other images may be the same by chance, but not the loss.
        assert np.isclose(graph.number("loss_val"), loss, rtol=1e-3, equal_nan=True)


@pytest.fixture(scope="class")
def probe(prepared_rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    _, rows = probe_rows(prepared_rng, TEST_ROWS["4-mnist-training"])
    return held_out_digits(rows)


@grade_cell("mdc-07-checkpoint-check")
class TestCheckpoint:
    """The checkpoint that was handed in; nothing of it is read in the kernel."""

    @check(
        f"{LAST} was handed in, and its files are whole",
        hint=f"hand in {LAST}.index and {LAST}.data-00000-of-00001 beside the notebook",
    )
    def test_there(self, submission: SubmittedFiles) -> None:
        elsewhere = [name for name in submission.names() if name.endswith(f"/{LAST}.index")]
        if elsewhere and f"{LAST}.index" not in submission.names():
            raise NoValue(f"{elsewhere[0]} must lie beside the notebook, not in a folder")
        assert submission.tensors(LAST)

    @check(
        "It holds the five variables of the network",
        hint="make the Saver after the whole graph, so that it knows W_conv, w2, b2, w0 and b0",
    )
    def test_variables(self, weights: dict[str, np.ndarray]) -> None:
        assert set(weights) == set(DigitNetwork.shapes())

    @check(
        "It was written by the code of this notebook",
        hint="the names and shapes in it are other than those which your own code writes: run all "
        "cells in a fresh kernel, and hand in what [MDC-07] leaves",
    )
    def test_code(self, submission: SubmittedFiles, scratch: SubmittedFiles) -> None:
        handed_in = submission.tensors(LAST)
        written = scratch.tensors(f"mdc_session-{TRAINING_STEPS}")
        assert shapes_of(handed_in) == shapes_of(written)

    @check(
        "The file checkpoint names the last five, every 100 steps",
        hint="global_step=i under if i % 100 == 0, and a Saver that keeps five: "
        "3600, 3700, 3800, 3900 and 4000",
    )
    def test_index(self, submission: SubmittedFiles) -> None:
        listed = re.findall(
            r'^all_model_checkpoint_paths:\s*".*?mdc_session-(\d+)"',
            submission.text("checkpoint"),
            re.M,
        )
        assert [int(step) for step in listed] == [3600, 3700, 3800, 3900, 4000]

    @check(
        "The network it holds was trained for 4000 steps",
        hint="Adam counts its steps in the checkpoint: train all 4000 in one session before you "
        "hand in, and do not rename the files of another step",
    )
    def test_steps(self, submission: SubmittedFiles) -> None:
        for name, power in submission.tensors(LAST).items():
            if counts_steps(name) and power.shape == () and power >= 0:
                assert reference.adam_steps(power) > 3990  # float32 is not exact

    @check(
        f"The network it holds reads more than {100 * thresholds.MNIST_ACCURACY:.0f} % "
        "of the test digits",
        hint="train all 4000 steps with batches of 100; about 98 % is usual at the end",
        weight=5,
    )
    def test_accuracy(self, weights: dict[str, np.ndarray]) -> None:
        assert accuracy_on_all_digits(weights) > thresholds.MNIST_ACCURACY


def shapes_of(tensors: dict[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    """Names and shapes in a checkpoint."""
    return {name: value.shape for name, value in tensors.items()}


@pytest.fixture(scope="class")
def weights(submission: SubmittedFiles) -> dict[str, np.ndarray]:
    return digit_weights(submission.tensors(LAST))


@grade_cell("mdc-08-resume-check")
class TestResume:
    @check(
        "resume returns the step of the newest checkpoint",
        hint="tf.train.latest_checkpoint gives the path; the step is the number behind the last -",
    )
    def test_step(self, graph: Graph) -> None:
        assert self.resume(graph) == TRAINING_STEPS

    @check(
        "resume puts the saved values back into the session",
        hint="saver.restore(sess, path) with the session that resume was given",
        weight=2,
    )
    def test_values(self, graph: Graph, scratch: SubmittedFiles) -> None:
        session = graph.trained()
        session.load(W_conv=np.zeros((5, 5, 1, 16)), b0=np.ones(10))
        self.resume(graph)
        written = scratch.tensors(f"mdc_session-{TRAINING_STEPS}")
        for name, value in session.weights().items():
            assert np.array_equal(written[graph.graph_name(name)], value)

    @check(
        "resume raises FileNotFoundError when there is nothing to resume",
        hint="tf.train.latest_checkpoint gives None for a folder without checkpoint: "
        "say so with raise FileNotFoundError(…)",
    )
    def test_nothing(self, graph: Graph) -> None:
        with pytest.raises(NoValue, match="FileNotFoundError"):
            graph.call("resume", {"name": "sess"}, {"name": "saver"}, "./no-such-folder")

    @staticmethod
    def resume(graph: Graph) -> object:
        return graph.call("resume", {"name": "sess"}, {"name": "saver"}, ".")
