"""Notebook 4: sixteen trained filters, the training loop, and its checkpoint."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection

import numpy as np
import pytest

from autograder.checks import Mistake, check, diagnose, grade_cell
from autograder.checks.ch4_cnn import OTHER_RUN, TEST_ROWS, TRAIN_ROWS, reference, thresholds
from autograder.checks.ch4_cnn.adapter import Graph, counts_steps
from autograder.checks.ch4_cnn.common import (
    DigitMapChecks,
    DigitNetwork,
    InputChecks,
    LayerChecks,
    SaverChecks,
    TrainingChecks,
    accuracy_on_all_digits,
    digit_weights,
    held_out_digits,
)
from autograder.data import mnist
from autograder.engine.submission import SubmittedFiles
from autograder.engine.values import NoValue, TrainingLog, Values

STEPS, BATCH, EVERY = 4000, 100, 100
KEEP = 5  # checkpoints that a Saver keeps
LAST = f"mdc_session-{STEPS}"


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
class TestSession(SaverChecks):
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
        "saver keeps the last five checkpoints",
        hint="tf.train.Saver() keeps five by default: max_to_keep need not be given",
    )
    def test_five(self, graph: Graph) -> None:
        assert graph.number("saver.saver_def.max_to_keep") == 5


def steps_saved(folder: SubmittedFiles) -> list[int]:
    """Steps of the files `mdc_session-<step>.index` in the folder, except step 0.

    An earlier cell, not the loop, saves the initial values as step 0.
    """
    names = (re.fullmatch(r"mdc_session-(\d+)\.index", name) for name in folder.names())
    return sorted(int(match[1]) for match in names if match and int(match[1]))


def saves_of(log: TrainingLog) -> list[tuple[int, int]]:
    """(step in the name, steps done) of each checkpoint `mdc_session-<step>` except step 0."""
    found = [(re.search(r"(?:^|/)mdc_session-(\d+)$", path), done) for path, done in log.saves]
    return [(int(match[1]), done) for match, done in found if match and int(match[1])]


@pytest.fixture(scope="class")
def log(graph: Graph) -> TrainingLog:
    """The log of the training that led to the current values of `sess`."""
    return graph.trained().log()


@grade_cell("mdc-07-train-check")
class TestTrainingLoop:
    @check(
        f"The loop runs train_step exactly {STEPS} times, and counts the steps in i",
        hint=f"i counts from 1 to {STEPS}, with one train_step for each",
    )
    def test_count(self, graph: Graph, log: TrainingLog) -> None:
        i = graph.number("i")
        diagnose(
            log.steps == STEPS and i == STEPS,
            (
                lambda: not log.steps,
                "train_step was not run in sess since its variables were initialised: run it in "
                "every step, and the initialiser only before the loop",
            ),
            (
                lambda: log.steps - STEPS == STEPS // EVERY,
                "one more training step was made for each time you measure: fetch loss and "
                "accuracy alone, without train_step",
            ),
            (
                lambda: abs(log.steps - STEPS) == 1,
                f"the loop is off by one: it made {log.steps} training steps; "
                f"range({STEPS}) has {STEPS} rounds, range(1, {STEPS}) has one less",
            ),
            (
                lambda: log.steps == STEPS,
                f"i is {i:.0f} after {STEPS} steps: it counts from 1, not from 0",
            ),
            (
                lambda: True,
                f"train_step was run {log.steps} times on the way to the values in sess, "
                f"and i is {i:.0f}",
            ),
        )

    @check(
        f"Each step has a new batch of {BATCH} training digits, with their labels",
        hint=f"draw a new batch of {BATCH} with mnist.train.next_batch in every step, and feed it "
        "to train_step as it is",
        weight=2,
    )
    def test_batches(self, log: TrainingLog) -> None:
        sizes = set(log.sizes)
        diagnose(
            sizes == {BATCH},
            (
                lambda: not log.steps,
                "train_step was not run in sess since its variables were initialised: draw a "
                "batch and run it",
            ),
            (
                lambda: 10_000 in sizes,
                "train_step was run on the test digits as well, which a network must not have "
                "seen: to measure, fetch loss and accuracy alone",
            ),
            (
                lambda: True,
                f"batches of {', '.join(map(str, sorted(sizes)[:3]))} digits, not of {BATCH}: "
                "the number stands in next_batch",
            ),
        )
        batches = [pictures_and_labels(fed) for fed in log.first]
        shown = [{image.tobytes() for image in images} for images, _ in batches]
        diagnose(
            log.batches >= min(log.steps, TRAIN_ROWS // BATCH),
            (
                lambda: log.batches == 1,
                "every step had the same batch: draw a new batch inside the loop",
            ),
            (lambda: True, "the steps had few different batches: draw a new one in every step"),
        )
        diagnose(
            all(one != other for one, other in itertools.pairwise(shown)),
            (lambda: True, "two steps had the same batch: draw a new one in every step"),
        )
        fed = set().union(*shown)
        known, test = labelled("train", TRAIN_ROWS, fed), labelled("test", TEST_ROWS, fed)
        diagnose(
            all(image in known for batch in shown for image in batch),
            (
                lambda: all(image in test for batch in shown for image in batch),
                "train_step was fed with test digits: a batch comes from mnist.train",
            ),
        )
        wrong = [
            known[image.tobytes()] != int(label.argmax()) or label.sum() != 1
            for images, labels in batches
            for image, label in zip(images, labels, strict=True)
        ]
        diagnose(
            not any(wrong),
            (
                lambda: True,
                "the labels are not those of the images: feed both parts of one batch, "
                "in the order in which next_batch gives them",
            ),
        )

    @check(
        f"A checkpoint is written every {EVERY} steps, and only then",
        hint="saver.save(sess, './mdc_session', global_step=i) belongs under if i % 100 == 0",
        weight=2,
    )
    def test_rhythm(self, graph: Graph, log: TrainingLog, scratch: SubmittedFiles) -> None:
        saves = [step for step, _ in saves_of(log)]
        wanted = list(range(EVERY, EVERY * len(saves) + 1, EVERY))
        there = steps_saved(scratch)
        diagnose(
            saves and saves == wanted and len(saves) == graph.number("i") // EVERY,
            (
                lambda: not saves and log.saves,
                "no checkpoint is called mdc_session-<step>: the path is './mdc_session', "
                "and global_step=i adds the step",
            ),
            (
                lambda: len(saves) > 1 and saves[1] - saves[0] == 1,
                "a checkpoint is written in every step: saver.save belongs under if i % 100 == 0, "
                "one level further to the right",
            ),
            (
                lambda: len(saves) > 1 and saves[1] - saves[0] != EVERY,
                lambda: (
                    f"a checkpoint is written every {saves[1] - saves[0]} steps, not every {EVERY}"
                ),
            ),
        )
        diagnose(
            there and max(there) == saves[-1] and set(saves[-KEEP:]) <= set(there) <= set(saves),
            (
                lambda: not there,
                "the checkpoints do not lie beside the notebook: the path is './mdc_session'",
            ),
            (
                lambda: max(there) == saves[-1] and len(there) < KEEP,
                f"of the last {KEEP} checkpoints only {len(there)} remain: save with the saver of "
                "[MDC-06], as it is",
            ),
        )

    @check(
        "A checkpoint holds the session as it is at that step",
        hint="save after train_step, and make the Saver after the graph is complete",
    )
    def test_bits(self, graph: Graph, log: TrainingLog, scratch: SubmittedFiles) -> None:
        there = steps_saved(scratch)
        if not there:
            raise NoValue("no checkpoint mdc_session-<step> was written beside the notebook")
        written = scratch.tensors(f"mdc_session-{there[-1]}")
        for name, value in graph.trained().weights().items():
            assert np.array_equal(written[graph.graph_name(name)], value)
        diagnose(
            not log.steps or all(done >= step for step, done in saves_of(log)),
            (
                lambda: True,
                "a checkpoint is written before the training step that it is named after: "
                "save behind train_step",
            ),
        )

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
        "loss_val and acc_val are measured on the whole test set, every 100 steps",
        hint="feed mnist.test.images and mnist.test.labels to measure loss and accuracy, "
        "not the batch that was trained on",
    )
    def test_on_test_set(self, graph: Graph, log: TrainingLog) -> None:
        images, labels = held_out_digits(np.arange(10_000))
        p, loss = graph.trained().of(images, "p", "loss", labels=labels)
        # acc_val and loss_val were last measured with the final weights, on these images.
        rows = sorted({count for step, count in log.evaluated.items() if step % EVERY == 0 < step})
        diagnose(
            abs(graph.number("acc_val") - reference.accuracy(p, labels)) < 1.5 / len(p),
            (
                lambda: len(rows) == 1 and BATCH < rows[0] < len(p),
                lambda: (
                    f"loss and accuracy are measured on {rows[0]} digits: feed "
                    f"mnist.test.images and mnist.test.labels, all {len(p)}"
                ),
            ),
        )
        # A few other images may have the same accuracy by chance, but not the same loss.
        told = graph.number("loss_val")
        parts = np.array([2, 4, 5, 10, 20, 25, 40, 50, 100, 200, 500, 1000, 10_000])
        diagnose(
            np.isclose(told, loss, rtol=1e-3, equal_nan=True),
            (
                lambda: np.isclose(told * parts, loss, rtol=1e-3).any(),
                "the accuracy is right and the loss is an average: it is a sum over the images, "
                "so those of parts of the test set are added",
            ),
        )
        looked = {steps for steps, count in log.evaluated.items() if count >= len(p)}
        diagnose(
            all(looked & set(pair) for pair in saves_of(log) if pair[0] % EVERY == 0),
            (
                lambda: True,
                "not every checkpoint was measured: loss_val and acc_val belong under the same "
                "if as saver.save, behind train_step",
            ),
        )


def pictures_and_labels(fed: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The images (n, 784) and labels (n, 10) that a step was fed, as float32.

    Raises NoValue unless there is exactly one batch of each.
    """
    flat = [
        np.ascontiguousarray(array, np.float32).reshape(len(array), -1)
        for array in fed.values()
        if array.ndim > 1 and len(array)
    ]
    images = [array for array in flat if array.shape[1] == 784]
    labels = [array for array in flat if array.shape[1] == 10]
    if len(images) != 1 or len(labels) != 1 or len(images[0]) != len(labels[0]):
        raise NoValue("a step was not fed with one batch of images and their labels")
    return images[0], labels[0]


def labelled(split: str, size: int, wanted: Collection[bytes]) -> dict[bytes, int]:
    """The classes of the `wanted` digits in a split, by the bytes of their pixels.

    The split is read in parts, because the training split takes 188 MB as float32.

    Args:
        split: "train" or "test".
        size: number of digits in the split.
        wanted: the bytes of digits (784,), float32; digits not in the split are left out.

    """
    found = {}
    for start in range(0, size, 10_000):
        images, labels = mnist.load(split, np.arange(start, start + 10_000))
        for image, label in zip(images, labels, strict=True):
            if (pixels := image.tobytes()) in wanted:
                found[pixels] = int(label)
    return found


@grade_cell("mdc-07-checkpoint-check")
class TestCheckpoint:
    """The submitted checkpoint, which the kernel never reads."""

    @check(
        f"{LAST} was handed in, and its files are whole",
        hint=f"hand in {LAST}.index and {LAST}.data-00000-of-00001 beside the notebook",
    )
    def test_there(self, submission: SubmittedFiles) -> None:
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
    def test_code(self, submission: SubmittedFiles, graph: Graph) -> None:
        handed_in = {name: value.shape for name, value in submission.tensors(LAST).items()}
        assert handed_in == {str(v["name"]): tuple(v["shape"]) for v in graph.variables()}

    @check(
        "The file checkpoint names the last ones, every 100 steps up to 4000",
        hint="global_step=i under if i % 100 == 0, and a Saver that keeps five: 3600, 3700, 3800, "
        "3900 and 4000, or those since you have resumed",
    )
    def test_index(self, submission: SubmittedFiles) -> None:
        listed = re.findall(
            r'^all_model_checkpoint_paths:\s*".*?mdc_session-(\d+)"',
            submission.text("checkpoint"),
            re.M,
        )
        # A Saver lists only its own checkpoints; one created to resume starts from there.
        last_five = list(range(STEPS - 4 * EVERY, STEPS + 1, EVERY))
        steps = [int(step) for step in listed]
        apart = {after - before for before, after in itertools.pairwise(steps)}
        diagnose(
            steps and steps == last_five[-len(steps) :],
            (lambda: not steps, "the file checkpoint names no mdc_session-<step>"),
            (
                lambda: apart == {1},
                "the checkpoints it names lie one step apart: saver.save belongs "
                "under if i % 100 == 0",
            ),
            (
                lambda: len(apart) == 1 and apart != {EVERY},
                lambda: f"the checkpoints it names lie {max(apart)} steps apart, not {EVERY}",
            ),
            (
                lambda: steps[-1] != STEPS,
                lambda: (
                    f"the last checkpoint it names is that of step {steps[-1]}: "
                    f"hand in the one that was written with step {STEPS}"
                ),
            ),
        )

    @check(
        "The network it holds was trained for 4000 steps",
        hint="Adam counts its steps in the checkpoint: train all 4000 in one session before you "
        "hand in, and do not rename the files of another step",
    )
    def test_steps(self, submission: SubmittedFiles) -> None:
        for name, power in submission.tensors(LAST).items():
            if counts_steps(name) and power.shape == () and power >= 0:
                assert reference.adam_steps(power) > 3990  # the power is only a float32

    @check(
        f"The network it holds reads more than {100 * thresholds.MNIST_ACCURACY:.0f} % "
        "of the test digits",
        hint="train all 4000 steps with batches of 100; about 98 % is usual at the end",
        weight=5,
    )
    def test_accuracy(self, weights: dict[str, np.ndarray]) -> None:
        assert accuracy_on_all_digits(weights) > thresholds.MNIST_ACCURACY


@pytest.fixture(scope="class")
def weights(submission: SubmittedFiles) -> dict[str, np.ndarray]:
    return digit_weights(submission.tensors(LAST))


@pytest.fixture(scope="class")
def newest(scratch: SubmittedFiles) -> int:
    """The step of the newest checkpoint beside the notebook, by the file `checkpoint`."""
    path = re.search(
        r'^model_checkpoint_path:\s*".*?mdc_session-(\d+)"', scratch.text("checkpoint"), re.M
    )
    if path is None:
        raise NoValue("the file checkpoint names no mdc_session-<step>")
    return int(path[1])


@grade_cell("mdc-08-resume-check")
class TestResume:
    @check(
        "resume returns the step of the newest checkpoint, an int",
        hint="tf.train.latest_checkpoint gives the path; the step is the number behind the last -",
    )
    def test_step(self, graph: Graph, newest: int) -> None:
        step = self.resume(graph)
        diagnose(
            type(step) is int and step == newest,
            (
                lambda: isinstance(step, float) and step == newest,
                "that is the step as a float, expected an int: it counts",
            ),
        )

    @check(
        "resume puts the saved values back into the session",
        hint="saver.restore(sess, path) with the session that resume was given",
        weight=2,
    )
    def test_values(self, graph: Graph, scratch: SubmittedFiles, newest: int) -> None:
        session = graph.trained()
        session.load(W_conv=np.zeros((5, 5, 1, 16)), b0=np.ones(10))
        self.resume(graph)
        written = scratch.tensors(f"mdc_session-{newest}")
        found = session.weights()
        diagnose(
            all(np.array_equal(written[graph.graph_name(n)], value) for n, value in found.items()),
            (
                lambda: not found["b0"].any(),
                "the session is initialised behind saver.restore, which comes last",
            ),
        )

    @check(
        "resume works with the session and the Saver that it is given",
        hint="sess and saver in resume are its arguments: saver.restore(sess, path)",
    )
    def test_arguments(self, graph: Graph) -> None:
        session = graph.trained()
        session.load(b0=np.ones(10))
        self.resume(graph)
        if (session.weight("b0") == 1).all():
            return  # it puts nothing back, which costs points above
        for name, arguments in (
            ("sess", (None, {"name": "saver"}, ".")),
            ("saver", ({"name": "sess"}, None, ".")),
        ):
            try:
                graph.call("resume", *arguments)
            except NoValue:
                continue  # None cannot restore anything
            raise Mistake(
                f"resume does not use the {name} that it is given: it takes another one, of the "
                "notebook or its own"
            )

    @check(
        "resume goes by the file checkpoint, in any folder and in a new kernel",
        hint="tf.train.latest_checkpoint(directory) reads that file; the step is what stands "
        "behind the last -, whatever else is in the path",
    )
    def test_newest(self, graph: Graph) -> None:
        written = graph.value("saver.last_checkpoints")
        try:
            # Simulate a new kernel, in which the Saver has written nothing yet.
            graph.call("saver.set_last_checkpoints", [])
            for saved in (5, 12, 10):
                path = f"./{OTHER_RUN}/mdc_session"
                graph.call(
                    "saver.save", {"name": "sess"}, path, global_step=saved, write_meta_graph=False
                )
            graph.call("saver.set_last_checkpoints", [])
            step = self.resume(graph, f"./{OTHER_RUN}")
        finally:
            graph.call("saver.set_last_checkpoints", written)
        diagnose(
            step == 10,
            (
                lambda: step == 5,
                "by alphabet a 5 comes behind 10 and 12: the file checkpoint names the newest",
            ),
            (
                lambda: step == 12,
                "the largest number need not be the newest: the file checkpoint names it",
            ),
        )

    @check(
        "resume raises FileNotFoundError when there is nothing to resume",
        hint="tf.train.latest_checkpoint gives None for a folder without checkpoint: "
        "say so with raise FileNotFoundError(…)",
    )
    def test_nothing(self, graph: Graph) -> None:
        with pytest.raises(NoValue, match="FileNotFoundError") as raised:
            graph.call("resume", {"name": "sess"}, {"name": "saver"}, "./no-such-folder")
        diagnose(
            re.search(r"FileNotFoundError\W+\w", str(raised.value)),
            (
                lambda: True,
                "the FileNotFoundError says nothing: put a message that helps into its brackets",
            ),
        )

    @staticmethod
    def resume(graph: Graph, folder: str = ".") -> object:
        return graph.call("resume", {"name": "sess"}, {"name": "saver"}, folder)
