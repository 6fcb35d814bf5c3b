"""Training steps in a kernel are always logged, and optionally skipped after the first ones.

Every test runs a notebook at each level of confinement that the machine supports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from autograder.engine.run import NotebookRun
from autograder.engine.sandbox import Sandbox
from autograder.engine.submission import SubmittedFiles
from autograder.engine.values import TrainingLog, Values
from autograder.engine.warm import WarmInterpreter

STEPS = 4  # steps that a kernel computes

GRAPH = """
import numpy as np
import tensorflow.compat.v1 as tf

tf.disable_v2_behavior()
x = tf.placeholder(tf.float32, [None, 3])
t = tf.placeholder(tf.float32, [None, 1])
w = tf.Variable(tf.ones([3, 1]), name="w")
count = tf.Variable(0, trainable=False, name="count")
loss = tf.reduce_sum(tf.square(tf.matmul(x, w) - t))
train_step = {optimizer}
noise = loss + tf.random.uniform([], 1.0, 2.0)
sess = tf.Session()
sess.run(tf.global_variables_initializer())
saver = tf.train.Saver()
rng = np.random.default_rng(0)
computed = []


def batch(rows=5):
    images = rng.random((rows, 3))
    return {{x: images, t: 2 * images.sum(axis=1, keepdims=True)}}


def seen(values):
    computed.append(values)
    return values


"""
SGD = "tf.train.GradientDescentOptimizer(0.01).minimize(loss)"


@pytest.fixture(scope="module")
def warm() -> Iterator[WarmInterpreter]:
    with WarmInterpreter() as interpreter:
        yield interpreter.wait()


class Ran:
    """A notebook of one cell after its run, with its folder."""

    def __init__(self, run: NotebookRun, place: Sandbox, folder: Path) -> None:
        self.values: Values = run.values_at("check")
        self.files = SubmittedFiles(folder, place)
        (cell,) = (cell for cell in run.notebook.cells if cell.source)
        assert not [o for o in cell.outputs if o.output_type == "error"], cell.outputs

    def __getitem__(self, name: str) -> Any:
        return self.values.value(name)

    @property
    def log(self) -> TrainingLog:
        return self.values.student_session().training_log()


Run = Callable[..., Ran]


@pytest.fixture
def run(place: Sandbox, tmp_path: Path) -> Iterator[Run]:
    """Run the graph and then some code; the kernel ends with the test."""
    running: list[NotebookRun] = []

    def start(code: str, optimizer: str = SGD, steps: int | None = STEPS) -> Ran:
        folder = tmp_path / f"work-{len(running)}"
        folder.mkdir()
        cell, check = new_code_cell(GRAPH.format(optimizer=optimizer) + code), new_code_cell("")
        check.metadata["nbgrader"] = {
            "grade_id": "check", "solution": False, "grade": True, "points": 1,
        }  # fmt: skip
        notebook: nbformat.NotebookNode = new_notebook(cells=[cell, check])
        running.append(
            NotebookRun(
                notebook, folder, sandbox=place, environment={}, seconds=60, training_steps=steps
            )
        )
        return Ran(running[-1], place, folder)

    yield start
    for each in running:
        each.close()


LOOP = """
values = []
for i in range(1, 11):
    {step}
    values.append(sess.run(w))
"""

STEPPING = {
    "run": "sess.run(train_step, feed_dict=batch())",
    "beside a value": "_, value = sess.run([train_step, loss], batch())",
    "in a dictionary": "sess.run({'step': train_step, 'deep': (loss, [w])}, batch())",
    "by the operation": "train_step.run(batch(), session=sess)",
    "by name": "sess.run(train_step.name, batch())",
    "by a callable": (
        "fed = batch(); sess.make_callable([train_step, loss], [x, t])(fed[x], fed[t])"
    ),
}

OPTIMIZERS = {
    "gradient descent": SGD,
    "Adam": "tf.train.AdamOptimizer(0.01).minimize(loss)",
    "momentum": "tf.train.MomentumOptimizer(0.01, 0.9).minimize(loss)",
    "with its own counter": ("tf.train.AdamOptimizer(0.01).minimize(loss, global_step=count)"),
    "by hand": "w.assign_sub(0.01 * tf.gradients(loss, w)[0])",
    "by hand, assigned": "tf.group(w.assign(w - 0.01 * tf.gradients(loss, w)[0]))",
}


@pytest.mark.parametrize("way", STEPPING)
def test_a_step_counts_however_it_is_run(run: Run, way: str) -> None:
    ran = run(LOOP.format(step=STEPPING[way]))
    assert ran.log.steps == 10
    assert ran.log.sizes == {5: 10}
    assert ran.log.batches == 10
    values = np.stack(ran["values"])
    moves = np.abs(np.diff(values, axis=0)).max(axis=(1, 2)) > 0
    assert moves.tolist() == [True] * (STEPS - 1) + [False] * (10 - STEPS)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_every_optimizer_is_known(run: Run, kind: str) -> None:
    ran = run(LOOP.format(step=STEPPING["run"]), OPTIMIZERS[kind])
    assert ran.log.steps == 10
    assert np.array_equal(ran["values"][-1], ran["values"][STEPS - 1])
    assert not np.array_equal(ran["values"][STEPS - 1], ran["values"][STEPS - 2])


def test_without_a_number_every_step_is_computed(run: Run) -> None:
    ran = run(LOOP.format(step=STEPPING["run"]), steps=None)
    assert ran.log.steps == 10
    assert (np.abs(np.diff(np.stack(ran["values"]), axis=0)).max(axis=(1, 2)) > 0).all()


def test_the_first_steps_are_those_of_any_session(run: Run) -> None:
    """TensorFlow computes these steps as without fast motion."""
    short = LOOP.format(step=STEPPING["run"]).replace("11", str(STEPS + 1))
    followed, free = run(short)["values"], run(short, steps=None)["values"]
    assert all(map(np.array_equal, followed, free))


def test_what_is_fetched_beside_a_step_is_computed_for_its_own_feed(run: Run) -> None:
    ran = run("""
fed = []
for _ in range(8):
    fed.append(batch())
    computed.append(sess.run([train_step, loss, tf.constant(3)], fed[-1]))
right = [computed[n][1] == sess.run(loss, fed[n]) for n in range(4, 8)]
nothing = [values[0] is None for values in computed]
""")
    assert ran["right"] == [True] * 4
    assert ran["nothing"] == [True] * 8


def test_a_counter_of_steps_goes_on(run: Run) -> None:
    ran = run(
        """
after = []
with tf.control_dependencies([train_step]):
    late = tf.identity(loss)
while sess.run(count) < 9:
    after.append(sess.run(late, batch()))
steps = int(sess.run(count))
""",
        OPTIMIZERS["with its own counter"],
    )
    assert ran["steps"] == 9
    assert ran.log.steps == 9
    assert len(ran["after"]) == 9


def test_an_assignment_is_no_training_step(run: Run) -> None:
    ran = run("""
given = tf.placeholder(tf.float32, [3, 1])
put = w.assign(given)
w.load(np.full((3, 1), 7.0), sess)
for n in range(9):
    sess.run(put, {given: np.full((3, 1), n + 0.5)})
    sess.run(count.assign_add(1))
value = sess.run(w)
""")
    assert ran.log.steps == 0
    assert (ran["value"] == 8.5).all()


def test_the_log_shows_what_the_first_steps_were_fed(run: Run) -> None:
    ran = run("""
fed = [batch(rows) for rows in (5, 7, 2, 5, 5)]
for one in fed:
    sess.run(train_step, one)
wanted = [[one[x], one[t]] for one in fed]
""")
    assert ran.log.sizes == {2: 1, 5: 3, 7: 1}
    assert len(ran.log.first) == 3
    for shown, (images, labels) in zip(ran.log.first, ran["wanted"], strict=False):
        assert np.array_equal(shown["x"], images)
        assert np.array_equal(shown["t"], labels)


def test_the_same_batch_again_is_one(run: Run) -> None:
    ran = run("one = batch()\nfor _ in range(9):\n    sess.run(train_step, one)")
    assert (ran.log.steps, ran.log.batches) == (9, 1)


def test_initialising_begins_anew(run: Run) -> None:
    ran = run("""
for _ in range(9):
    sess.run(train_step, batch())
start = sess.run(tf.global_variables_initializer())
for _ in range(2):
    sess.run(train_step, batch())
value = sess.run(w)
""")
    assert ran.log.steps == 2
    assert not (ran["value"] == 1).all()  # the steps count as the first ones again


def test_each_session_has_a_log_of_its_own(run: Run) -> None:
    ran = run("""
with tf.Session() as other:
    other.run(tf.global_variables_initializer())
    for _ in range(9):
        other.run(train_step, batch())
sess.run(train_step, batch())
""")
    assert ran.log.steps == 1


def test_a_restored_value_brings_its_steps_along(run: Run) -> None:
    ran = run("""
for i in range(1, 9):
    sess.run(train_step, batch())
    saver.save(sess, "./kept", global_step=i)
old, sess = sess, tf.Session()
sess.run(tf.global_variables_initializer())
saver.restore(sess, "./kept-6")
for _ in range(3):
    sess.run(train_step, batch())
""")
    assert ran.log.steps == 9
    assert ran.log.sizes == {5: 9}
    assert ran.log.saves == [(f"./kept-{i}", i) for i in range(1, 7)]


def test_a_checkpoint_of_unchanged_variables_is_whole(run: Run) -> None:
    ran = run("""
import os
large = tf.Variable(tf.zeros([300_000]))
sess.run(large.initializer)
saver = tf.train.Saver()
for i in range(1, 31):
    sess.run(train_step, batch())
    path = saver.save(sess, "./kept", global_step=i)
shared = os.stat("kept-29.data-00000-of-00001").st_nlink
times = np.array([os.stat(f"kept-{i}.index").st_mtime_ns for i in range(26, 31)])
value = sess.run(w)
""")
    assert ran["shared"] > 1
    assert (np.diff(ran["times"]) > 0).all()  # the newest file has the newest time
    assert ran["path"] == "./kept-30"
    for step in range(26, 31):
        assert np.array_equal(ran.files.tensors(f"kept-{step}")["w"], ran["value"])
        assert f"kept-{step}.meta" in ran.files.names()
    assert "kept-25.index" not in ran.files.names()
    assert 'model_checkpoint_path: "kept-30"' in ran.files.text("checkpoint")


def test_a_checkpoint_after_a_change_is_another(run: Run) -> None:
    ran = run("""
for i in range(1, 8):
    sess.run(train_step, batch())
saver.save(sess, "./first")
w.load(np.zeros((3, 1)), sess)
saver.save(sess, "./second")
""")
    assert ran.files.tensors("first")["w"].any()
    assert not ran.files.tensors("second")["w"].any()


def test_a_fetch_is_computed_again_when_something_is_other(run: Run) -> None:
    ran = run("""
images = np.ones((9000, 3), np.float32)
fed = {x: images, t: np.zeros((9000, 1))}
once, twice = sess.run([loss, w], fed), sess.run([loss, w], fed)
twice[1][:] = 7  # what was given away is the notebook's own
thrice = sess.run([loss, w], fed)
images *= 2
larger = sess.run(loss, fed)
w.load(np.zeros((3, 1)), sess)
nothing = sess.run(loss, fed)
random = [float(sess.run(noise, fed)) for _ in range(5)]
""")
    assert ran["once"][0] == ran["twice"][0] == ran["thrice"][0]
    assert (ran["thrice"][1] == 1).all()
    assert ran["larger"] == pytest.approx(4 * ran["once"][0])
    assert ran["nothing"] == 0
    assert len(set(ran["random"])) == 5


def test_a_fetch_of_nothing_new_is_not_computed_again(run: Run) -> None:
    ran = run("""
looked = []
watched = loss + tf.py_func(seen, [loss], tf.float32)
pure = tf.reduce_sum(tf.matmul(x, tf.ones([3, 3000])))
import time
fed = {x: np.ones((20000, 3), np.float32)}
took = []
for _ in range(3):
    began = time.perf_counter()
    sess.run(pure, fed)
    took.append(time.perf_counter() - began)
one = batch()
for _ in range(3):
    sess.run(watched, one)
""")
    assert max(ran["took"][1:]) < ran["took"][0] / 3
    assert len(ran["computed"]) == 3  # operations with side effects run every time


def test_the_log_tells_after_which_steps_the_network_was_looked_at(run: Run) -> None:
    ran = run("""
for i in range(1, 9):
    sess.run([train_step, loss], batch())
    if i % 4 == 0:
        for _ in range(2):
            sess.run(loss, batch(50))
""")
    assert ran.log.evaluated == {4: 100, 8: 100}


def test_the_checks_own_questions_are_computed_and_not_counted(run: Run) -> None:
    ran = run("""
for _ in range(9):
    sess.run(train_step, batch())
""")
    feed = {"x": np.ones((5, 3), np.float32), "t": np.zeros((5, 1), np.float32)}
    session = ran.values.student_session()
    before = session.variable_values("w")[0]
    session.step("train_step", feed, times=2)
    assert not np.array_equal(session.variable_values("w")[0], before)
    fresh = ran.values.session("loss")
    fresh.step("train_step", feed, times=9)
    assert fresh.fetch("loss", feed=feed) < session.fetch("loss", feed=feed)
    assert ran.log.steps == 9


def test_what_a_session_refuses_it_refuses_in_its_own_words(run: Run) -> None:
    ran = run("""
import traceback
words = []
for fetch, feed in ((loss, {}), ("nobody", None), (train_step, {x: np.ones((2, 9))})):
    for _ in range(2):
        try:
            sess.run(fetch, feed)
        except Exception as error:
            words.append(type(error).__name__)
for _ in range(9):
    sess.run(train_step, batch())
try:
    sess.run(train_step, {x: np.ones((2, 9))})
except ValueError as error:
    words.append("late")
other = tf.Session()
other.close()
try:
    other.run(train_step, batch())
except RuntimeError as error:
    words.append("closed")
""")
    pairs = ["InvalidArgumentError"] * 2 + ["ValueError"] * 2
    assert ran["words"] == [*pairs, "ValueError", "ValueError", "late", "closed"]
    assert ran.log.steps == 9


def test_whoever_initialises_without_end_gets_no_steps_without_end(run: Run) -> None:
    ran = run(f"""
moved = 0
for _ in range(15 * {STEPS}):
    sess.run(tf.global_variables_initializer())
    sess.run(train_step, batch())
    moved += bool((sess.run(w) != 1).any())
""")
    assert ran["moved"] == 10 * STEPS
    assert ran.log.steps == 1
