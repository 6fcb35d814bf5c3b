"""Queries to a forked kernel: answered by plain values, or by a reason for the student.

Student code that tampers with its own process can only spoil its own answers.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from autograder import wire
from autograder.engine.run import NotebookRun
from autograder.engine.sandbox import Sandbox, sandbox
from autograder.engine.values import KernelLost, NoValue, Values
from autograder.engine.warm import WarmInterpreter


@pytest.fixture(scope="session")
def warm() -> Iterator[WarmInterpreter]:
    with WarmInterpreter() as interpreter:
        yield interpreter.wait()


@pytest.fixture(scope="module")
def place(warm: WarmInterpreter) -> Sandbox:
    return sandbox(warm)


def book(*sources: str) -> nbformat.NotebookNode:
    """Make a notebook of these cells, each followed by a grade cell: `check-1`, `check-2`, …"""
    cells = []
    for number, source in enumerate(sources, 1):
        cell, check = new_code_cell(source), new_code_cell("")
        cell.metadata["nbgrader"] = {"grade_id": f"work-{number}", "solution": True, "grade": False}
        check.metadata["nbgrader"] = {"grade_id": f"check-{number}", "solution": False}
        check.metadata["nbgrader"] |= {"grade": True, "points": 1}
        cells += [cell, check]
    return new_notebook(cells=cells)


Start = Callable[..., NotebookRun]


@pytest.fixture
def start(place: Sandbox, tmp_path: Path) -> Iterator[Start]:
    """Start a kernel on a notebook of these cells; it ends with the test."""
    running: list[NotebookRun] = []

    def run(*sources: str, seconds: float = 20) -> NotebookRun:
        folder = tmp_path / f"work-{len(running)}"
        folder.mkdir()
        made = NotebookRun(book(*sources), folder, sandbox=place, environment={}, seconds=seconds)
        running.append(made)
        return made

    yield run
    for each in running:
        each.close()


GRAPH = """
import numpy as np
import tensorflow.compat.v1 as tf

tf.disable_v2_behavior()
x = tf.placeholder(tf.float32, [None, 4])
t = tf.placeholder(tf.float32, [None, 2])
w = tf.Variable(tf.ones([4, 2]), name="layer/w")
b = tf.Variable(tf.zeros([2]))
fixed = tf.Variable(tf.constant([3.0]), trainable=False)
h = tf.matmul(x, w) + b
unknown = tf.placeholder(tf.float32)
loss = tf.reduce_sum(tf.square(h - t))
train_step = tf.train.GradientDescentOptimizer(0.01).minimize(loss)
sess = tf.Session()
sess.run(tf.global_variables_initializer())
sess.run(w.assign(np.full((4, 2), 5.0)))

numbers = [1, 2.5, "three", None, True]
nested = {"a": [np.arange(3), (1, 2)], 7: "seven"}
image = np.arange(6, dtype=np.uint8).reshape(2, 3)
scalar = np.float32(1.5)
lines = "two\\nlines"
big = np.zeros(300 << 20, np.uint8)
endless = []
endless.append(endless)
objects = np.array([object()])
words = np.array(["text"])


class Liar(np.ndarray):
    @property
    def shape(self):
        return (9, 9)

    @property
    def dtype(self):
        return np.dtype("float64")

    def __eq__(self, other):
        return True

    def __array__(self, *args, **kwargs):
        return np.full((9, 9), 9.0)


liar = np.arange(6, dtype=np.float32).reshape(2, 3).view(Liar)


class Pretender:
    shape = (5, 5)
    dtype = np.dtype("float32")
    __class__ = np.ndarray

    def __repr__(self):
        return "x" * 10**8


pretender = Pretender()


def add(one, other=1):
    return one + other


def flags(array):
    return [array.flags.writeable, array.flags.c_contiguous, array.ravel().tolist()]


def operations():
    return len(tf.get_default_graph().get_operations())


def kernel():
    return tf.reshape(tf.range(6.0), [2, 3])


def variable():
    return tf.Variable([1.0, 2.0])


def from_variable():
    return 2 * tf.Variable([1.0, 2.0])


def several():
    return tf.constant(1), [tf.constant([2.0]), 3], "four"


def in_the_graph(tensor):
    return tensor * 2


def todo():
    raise NotImplementedError("TODO [OFE-04]: not done yet")


def silent():
    raise NotImplementedError


def raising():
    raise ValueError("first line\\nsecond \\x1b[31m<b>line" + "!" * 10**6)


class Gone(FileNotFoundError):
    pass


def gone():
    raise Gone("train first")


def leaving():
    raise SystemExit(0)


def printing():
    print("score: 100")
    return 3


def handle():
    return open("/dev/null")


def slow():
    import time
    time.sleep(60)
"""

PICTURES = """
import matplotlib.pyplot as plt
fig, axes = plt.subplots(1, 3)
axes[0].imshow(image, vmin=-10, vmax=10)
axes[0].set_title("an image")
axes[1].scatter([1, 2], [3, 4], marker="_")
axes[1].scatter([5], [6])
axes[2].bar([0, 1, 2], [0.1, 0.7, 0.2])
axes[2].set_ylim(0, 1)
empty = plt.figure()
later = "defined after the first grade cell"
"""


@pytest.fixture(scope="module")
def notebook(place: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NotebookRun]:
    """A kernel with a small graph, shared by tests that do not change it."""
    with NotebookRun(
        book(GRAPH, PICTURES),
        tmp_path_factory.mktemp("graph"),
        sandbox=place,
        environment={},
        seconds=30,
    ) as run:
        yield run


@pytest.fixture
def values(notebook: NotebookRun) -> Values:
    return notebook.values_at("check-2")


def test_only_cells_before_the_grade_cell_have_run(start: Start) -> None:
    run = start("a = 1", "a = 2")
    assert run.values_at("check-1").value("a") == 1
    assert run.values_at("check-2").value("a") == 2
    assert run.notes == []


def test_a_cell_that_raises_stops_no_later_cell(start: Start) -> None:
    run = start("a = 1\nraise ValueError('mine')", "b = 2")
    values = run.values_at("check-2")
    assert (values.value("a"), values.value("b")) == (1, 2)
    assert run.notebook.cells[0].outputs[0].ename == "ValueError"


# -- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "shape", "dtype"),
    [
        ("x", "placeholder", [-1, 4], "float32"),
        ("unknown", "placeholder", None, "float32"),
        ("h", "tensor", [-1, 2], "float32"),
        ("w", "variable", [4, 2], "float32"),
        ("train_step", "operation", None, ""),
        ("image", "array", [2, 3], "uint8"),
        ("scalar", "array", [], "float32"),
        ("add", "function", None, ""),
        ("numbers", "object", None, ""),
        ("np.pi", "object", None, ""),
        ("h.op", "operation", None, ""),
        ("nowhere", "missing", None, ""),
        ("image.nothing", "missing", None, ""),
        ("nowhere.at.all", "missing", None, ""),
    ],
)
def test_describe(values: Values, name: str, kind: str, shape: Any, dtype: str) -> None:
    (found,) = values.describe(name)
    assert (found["kind"], found["shape"], found["dtype"]) == (kind, shape, dtype)


def test_describe_takes_many_names_in_order(values: Values) -> None:
    assert [d["kind"] for d in values.describe("w", "nowhere", "add")] == [
        "variable", "missing", "function"
    ]  # fmt: skip
    assert values.describe() == []


def test_plain_values_come_as_they_are(values: Values) -> None:
    assert values.value("numbers") == [1, 2.5, "three", None, True]
    assert values.value("lines") == "two\nlines"
    nested = values.value("nested")
    assert nested["7"] == "seven"
    assert nested["a"][0].tolist() == [0, 1, 2]
    assert nested["a"][1] == [1, 2]
    assert values.value("image").dtype == np.uint8
    assert values.value("scalar") == np.float32(1.5)


def test_a_missing_value_is_a_reason(values: Values) -> None:
    with pytest.raises(NoValue, match=r"^nowhere is not there: not done yet, or under another"):
        values.value("nowhere")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("add", "^there is a function where numbers, text or lists of them are expected$"),
        ("sess", "there is a Session where"),
        ("h", "there is a SymbolicTensor where"),
        ("objects", "dtype object cannot be sent"),
        ("words", "cannot be sent"),
        ("endless", "there is a list where"),
        ("big", "too large"),
        ("pretender", "dtype object cannot be sent"),
    ],
)
def test_a_value_that_is_not_plain_is_a_reason_and_no_end(
    values: Values, name: str, reason: str
) -> None:
    with pytest.raises(NoValue, match=reason) as raised:
        values.value(name)
    assert not isinstance(raised.value, KernelLost)
    assert len(str(raised.value)) < 300
    assert values.value("lines") == "two\nlines"


def test_an_array_that_lies_arrives_as_what_it_is(values: Values) -> None:
    got = values.value("liar")
    assert type(got) is np.ndarray
    assert got.dtype == np.float32
    assert got.tolist() == [[0, 1, 2], [3, 4, 5]]


# -- functions ---------------------------------------------------------------------------------


def test_call_takes_arguments_of_all_plain_kinds(values: Values) -> None:
    assert values.call("add", 2) == 3
    assert values.call("add", 2, other=5) == 7
    assert values.call("add", "a", "b") == "ab"
    assert values.call("add", np.ones((2, 2)), np.eye(2)).tolist() == [[2, 1], [1, 2]]
    assert values.call("np.square", np.arange(3)).tolist() == [0, 1, 4]


def test_call_takes_the_notebooks_own_objects(values: Values) -> None:
    assert values.call("add", {"name": "image"}, 1).tolist() == [[1, 2, 3], [4, 5, 6]]
    with pytest.raises(NoValue, match="nowhere is not there"):
        values.call("add", {"name": "nowhere"})


def test_tensors_come_back_evaluated(values: Values) -> None:
    assert values.call("kernel").tolist() == [[0, 1, 2], [3, 4, 5]]
    assert values.call("variable").tolist() == [1, 2]
    assert values.call("from_variable").tolist() == [2, 4]
    one, inner, four = values.call("several")
    assert (int(one), inner[0].tolist(), inner[1], four) == (1, [2.0], 3, "four")


def test_a_call_leaves_no_trace_in_the_students_graph(values: Values) -> None:
    before = len(values.variables("h"))
    for _ in range(3):
        values.call("variable")
    assert len(values.variables("h")) == before


def test_a_call_that_is_remembered_is_asked_where_the_notebook_asks(
    start: Start,
) -> None:
    run = start(
        "import functools\nimport tensorflow.compat.v1 as tf\ntf.disable_v2_behavior()\n"
        "@functools.lru_cache\ndef kernel():\n    return tf.Variable([1.0, 2.0])",
        "both = kernel() + tf.constant(1.0)\nsess = tf.Session()\n"
        "sess.run(tf.global_variables_initializer())",
    )
    assert run.values_at("check-1").call("kernel").tolist() == [1, 2]
    assert run.values_at("check-2").student_session().fetch("both").tolist() == [2, 3]


def test_a_lent_array_can_only_be_read_and_has_gaps(values: Values) -> None:
    grey = np.arange(6.0).reshape(2, 3)
    assert values.call("flags", {"lent": grey}) == [False, False, [0, 1, 2, 3, 4, 5]]
    assert values.call("flags", {"lent": np.float64(3)}) == [True, True, [3]]


def test_what_is_asked_adds_nothing_to_the_graph(values: Values) -> None:
    before = values.call("operations")
    assert values.learns("h", "layer/w", "fixed") == [True, False]
    assert values.student_session().initialised("layer/w") == [True]
    values.session("h").fetch("h", feed={"x": ONES})
    assert values.call("operations") == before


def test_what_a_call_prints_is_not_shown(notebook: NotebookRun, values: Values) -> None:
    assert values.call("printing") == 3
    assert not any("score" in str(cell.get("outputs")) for cell in notebook.notebook.cells)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nowhere", "^nowhere is not there: not done yet, or under another name$"),
        ("todo", r"^TODO \[OFE-04\]: not done yet$"),
        ("silent", "^not done yet$"),
        ("raising", "^raising raised ValueError: first line second .\\[31m<b>line!!!"),
        ("gone", r"^gone raised Gone \(FileNotFoundError\): train first"),
        ("handle", "^there is a TextIOWrapper where numbers, text or lists of them are expected$"),
        ("image", "^image is a NumPy array, expected a function$"),
        ("add", "missing 1 required positional argument"),
    ],
)
def test_a_call_that_fails_is_a_reason_in_one_line(values: Values, name: str, reason: str) -> None:
    with pytest.raises(NoValue, match=reason) as raised:
        values.call(name)
    assert not isinstance(raised.value, KernelLost)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 300


# -- graphs ------------------------------------------------------------------------------------

ONES = np.ones((1, 4), np.float32)


def test_sessions_of_the_checks_start_afresh_and_do_not_disturb_the_students(
    values: Values,
) -> None:
    mine, other = values.session("h"), values.session("h")
    assert mine.fetch("h", feed={"x": ONES}).tolist() == [[4, 4]]
    mine.assign(w=np.full((4, 2), 2, np.float32))
    assert mine.fetch("h", feed={"x": ONES}).tolist() == [[8, 8]]
    assert other.fetch("h", feed={"x": ONES}).tolist() == [[4, 4]]
    assert values.student_session().fetch("h", feed={"x": ONES}).tolist() == [[20, 20]]


def test_a_session_starts_with_what_it_is_given_and_initialises_the_rest(values: Values) -> None:
    session = values.session("h", {"layer/w": np.full((4, 2), 3, np.float32)})
    w, b, fixed = session.variable_values("w", "b", "fixed")
    assert (w.tolist(), b.tolist(), fixed.tolist()) == ([[3, 3]] * 4, [0, 0], [3])


def test_what_is_initialised_late_does_not_undo_what_was_assigned(values: Values) -> None:
    session = values.session("h")
    session.assign(b=np.array([1, 2], np.float32))
    assert session.fetch("h", feed={"x": ONES}).tolist() == [[5, 6]]
    session.assign(w=np.zeros((4, 2), np.float32))
    session.step("train_step", {"x": ONES, "t": np.array([[1, 2]], np.float32)})
    assert session.fetch("h", feed={"x": ONES}).tolist() == [[1, 2]]


def test_a_variable_that_starts_as_another_is_initialised_with_it(start: Start) -> None:
    run = start(
        "import tensorflow.compat.v1 as tf\ntf.disable_v2_behavior()\n"
        "one = tf.Variable(tf.ones([2]))\ncopy = tf.Variable(2 * one.initialized_value())\n"
        "with tf.control_dependencies([copy.assign_add([1.0, 0.0])]):\n"
        "    moved = tf.identity(tf.zeros([2]))\n"
        "both = [one, copy]"
    )
    asked = run.values_at("check-1")
    session = asked.session("one")
    session.fetch("moved")
    assert session.fetch("copy").tolist() == [3, 2]
    assert np.array_equal(asked.session("one").variable_values("copy", "one"), [[2, 2], [1, 1]])


def test_which_variables_have_values_is_told(values: Values) -> None:
    student = values.student_session()
    assert student.initialised("layer/w", "b") == [True, True]
    with pytest.raises(NoValue, match="nowhere is not there"):
        student.initialised("nowhere")


def test_variables_without_values_are_told(start: Start) -> None:
    run = start(GRAPH + "\nsess = tf.Session()\nsess.run(b.initializer)\n")
    student = run.values_at("check-1").student_session()
    assert student.initialised("b", "layer/w") == [True, False]


def test_variables_that_start_as_one_tensor_are_given_values_of_their_own(start: Start) -> None:
    run = start(
        "import tensorflow.compat.v1 as tf\ntf.disable_v2_behavior()\nzeros = tf.zeros([2])\n"
        "one, other = tf.Variable(zeros), tf.Variable(zeros)\nboth = one + 10 * other"
    )
    given = {"one": np.array([1, 2], np.float32), "other": np.array([3, 4], np.float32)}
    session = run.values_at("check-1").session("both", given)
    assert session.fetch("both").tolist() == [31, 42]


def test_variables_are_assigned_by_notebook_name_and_by_graph_name(values: Values) -> None:
    session = values.session("h")
    session.assign(**{"layer/w": np.zeros((4, 2), np.float32), "b": np.array([1, 2], np.float32)})
    assert session.fetch("h", feed={"x": ONES}).tolist() == [[1, 2]]
    w, b = session.variable_values("w", "Variable")
    assert w.tolist() == np.zeros((4, 2)).tolist()
    assert b.tolist() == [1, 2]
    with pytest.raises(NoValue, match="nowhere is not there"):
        session.variable_values("w", "nowhere")


@pytest.mark.parametrize(
    ("named", "reason"),
    [
        ({"nowhere": np.zeros(2, np.float32)}, "nowhere is not there"),
        ({"w": np.zeros((2, 2), np.float32)}, r"^w has shape \(4, 2\), expected \(2, 2\)$"),
        ({"image": np.zeros(2, np.float32)}, "^image is a NumPy array, expected a tf.Variable$"),
    ],
)
def test_an_assignment_that_fails_is_a_reason(
    values: Values, named: dict[str, Any], reason: str
) -> None:
    with pytest.raises(NoValue, match=reason):
        values.session("h").assign(**named)


def test_several_tensors_are_fetched_at_once_from_one_run(values: Values) -> None:
    w, h = values.session("h").fetch("w", "h", feed={"x": ONES})
    assert w.tolist() == np.ones((4, 2)).tolist()
    assert h.tolist() == [[4, 4]]


def test_training_steps_move_only_their_session_and_what_is_trainable(values: Values) -> None:
    session = values.session("h")
    feed = {"x": ONES, "t": np.zeros((1, 2), np.float32)}
    session.step("train_step", feed, times=3)
    w, b, fixed = session.variable_values("w", "b", "fixed")
    # h = 4w + b starts at 4; each step takes 2·0.01·h from each of its five terms.
    assert w == pytest.approx(np.full((4, 2), 1 - 4 * (1 - 0.9**3) / 5), abs=1e-5)
    assert b == pytest.approx(np.full(2, -4 * (1 - 0.9**3) / 5), abs=1e-5)
    assert fixed.tolist() == [3]
    assert values.student_session().variable_values("w")[0].tolist() == [[5, 5]] * 4


@pytest.mark.parametrize(
    ("names", "feed", "reason"),
    [
        (["nowhere"], {}, "nowhere is not there"),
        (["h"], {}, "h raised InvalidArgumentError"),
        (["h"], {"nowhere": ONES}, "nowhere is not there"),
        (["h"], {"x": np.ones((1, 5), np.float32)}, "h raised ValueError"),
        (["h"], {"x": "text"}, "h raised"),
        (["image"], {}, "^image is a NumPy array, expected a tensor$"),
        (["add"], {}, "^add is a function, expected a tensor$"),
    ],
)
def test_a_fetch_that_fails_is_a_reason(
    values: Values, names: list[str], feed: dict[str, Any], reason: str
) -> None:
    session = values.session("h")
    with pytest.raises(NoValue, match=reason) as raised:
        session.fetch(*names, feed=feed)
    assert not isinstance(raised.value, KernelLost)
    assert session.fetch("h", feed={"x": ONES}).tolist() == [[4, 4]]


def test_variables_tell_name_shape_and_whether_they_are_trainable(values: Values) -> None:
    found = {v["name"]: v for v in values.variables("h")}
    assert found["layer/w"]["names"] == ["w"]
    assert found["layer/w"]["shape"] == [4, 2]
    assert found["layer/w"]["trainable"] is True
    (fixed,) = (v for v in found.values() if v["names"] == ["fixed"])
    assert fixed["trainable"] is False


@pytest.mark.parametrize("of", ["nowhere", "image", "sess.nothing"])
def test_what_has_no_graph_gives_no_session(values: Values, of: str) -> None:
    with pytest.raises(NoValue):
        values.session(of)
    with pytest.raises(NoValue):
        values.variables(of)


# -- pictures ----------------------------------------------------------------------------------


def test_a_figure_is_told_as_data(values: Values) -> None:
    figure = values.figure("fig")
    first, second, third = figure.axes
    (picture,) = first.pictures
    assert picture.data.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert picture.limits.tolist() == [-10, 10]
    assert picture.level == pytest.approx((picture.data + 10) / 20)
    assert picture.box == pytest.approx(first.box)
    assert first.box[2] < second.box[0]
    assert [text.text for text in figure.texts] == ["an image"]
    assert first.box[0] < figure.texts[0].at[0] < first.box[2]
    assert figure.texts[0].at[1] > first.box[3]
    assert [s.points.tolist() for s in second.scatters] == [[[1, 3], [2, 4]], [[5, 6]]]
    dash, dot = (s.outline for s in second.scatters)
    assert np.ptp(dash[:, 1]) < 1e-9 < np.ptp(dash[:, 0])
    assert len(dot) > len(dash)
    assert third.bars[:, [2, 3]] == pytest.approx(np.array([[0.8, 0.1], [0.8, 0.7], [0.8, 0.2]]))
    assert third.bars.sum(axis=0)[:2] == pytest.approx([1.8, 0])
    assert third.ylim.tolist() == [0, 1]
    assert values.figure("empty").axes == []


@pytest.mark.parametrize("name", ["nowhere", "image", "add"])
def test_what_is_no_figure_is_a_reason(values: Values, name: str) -> None:
    with pytest.raises(NoValue):
        values.figure(name)


# -- missing and wrong answers -----------------------------------------------------------------


def test_a_question_that_takes_too_long_ends(start: Start) -> None:
    run = start("import time\ndef slow():\n    time.sleep(60)")
    values = run.values_at("check-1")
    started = time.monotonic()
    with pytest.raises(KernelLost, match="no answer within 1 s"):
        values.call("slow", seconds=1)
    assert time.monotonic() - started < 10
    with pytest.raises(KernelLost, match="no answer within 1 s"):
        values.value("slow")


def test_a_question_that_ends_the_kernel_is_a_reason(start: Start) -> None:
    run = start("import os\ndef end():\n    os._exit(0)", "later = 1")
    with pytest.raises(KernelLost, match="stopped answering"):
        run.values_at("check-1").call("end")
    with pytest.raises(KernelLost):
        run.values_at("check-2")


def test_leaving_python_in_a_call_is_a_reason(start: Start) -> None:
    run = start("def leave():\n    raise SystemExit(0)")
    with pytest.raises(NoValue):
        run.values_at("check-1").call("leave", seconds=1)


def answered(respond: Callable[[dict[str, Any], socket.socket], None]) -> Values:
    """Values that are answered by `respond` instead of a kernel."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        with theirs, contextlib.suppress(wire.WireError, OSError):
            while True:
                respond(wire.receive(theirs, time.monotonic() + 10), theirs)

    threading.Thread(target=serve, daemon=True).start()
    return Values(ours)


def test_an_answer_to_the_question_is_taken() -> None:
    values = answered(lambda q, line: wire.send(line, {"id": q["id"], "value": q["name"]}))
    assert values.value("a") == "a"
    assert values.value("b") == "b"


@pytest.mark.parametrize(
    "make",
    [
        lambda identity: {"id": "guessed", "value": 100},
        lambda identity: {"id": 1, "value": 100},
        lambda identity: {"id": identity.upper() + "0", "value": 100},
        lambda identity: {"id": [identity], "value": 100},
        lambda identity: {"id": None, "value": 100},
        lambda identity: {"value": 100},
        lambda identity: {"id": identity},
        lambda identity: {"id": identity, "value": 100, "more": 1},
        lambda identity: {"id": identity, "error": "raised"},
        lambda identity: {"id": "guessed", "error": "raised", "message": "text"},
        lambda identity: [identity, 100],
        lambda identity: identity,
        lambda identity: None,
        lambda identity: {},
        lambda identity: np.arange(3),
        lambda identity: {"id": np.arange(3), "value": 1},
    ],
)
def test_an_answer_nobody_asked_for_ends_the_questions(make: Callable[[str], Any]) -> None:
    asked: list[str] = []

    def respond(question: dict[str, Any], line: socket.socket) -> None:
        asked.append(question["id"])
        wire.send(line, make(question["id"]))

    values = answered(respond)
    for _ in range(2):
        with pytest.raises(KernelLost):
            values.value("a")
    assert len(asked) == 1


@pytest.mark.parametrize("garbage", [b"garbage" * 100, b"KIT1" + b"\xff" * 8, b"KIT1", b"", b"\0"])
def test_garbage_ends_the_questions(garbage: bytes) -> None:
    def respond(_: dict[str, Any], line: socket.socket) -> None:
        line.sendall(garbage)
        line.shutdown(socket.SHUT_RDWR)

    values = answered(respond)
    for _ in range(2):
        with pytest.raises(KernelLost, match="stopped answering"):
            values.value("a")


def test_a_question_that_nobody_takes_ends_in_time() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        values = Values(ours)
        with pytest.raises(KernelLost, match="no answer within 1 s"):
            values.ask("call", seconds=1, args=[np.zeros(1_000_000)] * 3)


@pytest.mark.parametrize("message", ["", 5, None, ["a"], np.arange(3), "\x1b[2J\n\ud800" * 99])
def test_a_refusal_in_any_words_is_a_reason_in_one_line(message: Any) -> None:
    def respond(question: dict[str, Any], line: socket.socket) -> None:
        wire.send(line, {"id": question["id"], "error": "raised", "message": message})

    values = answered(respond)
    with pytest.raises(NoValue) as raised:
        values.call("f")
    assert not isinstance(raised.value, KernelLost)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 300


# The connection is an ordinary descriptor, which student code can find and write to.
FIND = """
from autograder.kernel import responder
line = responder.connection
"""


def test_garbage_written_by_student_code_ends_the_questions(start: Start) -> None:
    run = start(f"{FIND}\nline.sendall(b'garbage' * 100)", "later = 1", seconds=1)
    for check in ("check-1", "check-2"):
        with pytest.raises(KernelLost):
            run.values_at(check)
    run.finish()
    assert run.stopped


def test_a_closed_connection_ends_the_questions(start: Start) -> None:
    run = start(f"{FIND}\nline.close()")
    with pytest.raises(KernelLost):
        run.values_at("check-1")


def test_a_responder_replaced_by_the_student_answers_no_better_than_they_could(
    start: Start,
) -> None:
    run = start("""
from autograder.kernel import responder
responder.Responder.answer = lambda self, q: {"id": q["id"], "value": "full marks"}
""")
    values = run.values_at("check-1")
    assert values.value("anything") == "full marks"  # only a claim, and plain data
    with pytest.raises(NoValue):
        values.describe("a", "b")
    with pytest.raises(NoValue):
        values.session("h").fetch("a", "b")
    with pytest.raises(NoValue):
        values.figure("fig")


# Student code also controls the messages on Jupyter's own channels.
SEND = """
k = get_ipython().kernel
def send(kind, content):
    k.session.send(k.iopub_socket, kind, content, parent=k.get_parent("shell"), ident=b"x")
"""


@pytest.mark.parametrize(
    "message",
    [
        "send('stream', {})",
        "send('stream', {'name': 'stdout', 'text': 5})",
        "send('display_data', {})",
        "send('execute_result', {'data': {}, 'metadata': {}, 'execution_count': 'x'})",
        "send('execute_input', {'code': '', 'execution_count': '<script>'})",
        "send('error', {'ename': 1})",
        "send('status', {})",
        "send('comm_open', {})",
        "k.iopub_socket.send_multipart([b'x', b'<IDS|MSG>', b'signed', b'{', b'{', b'{', b'{'])",
    ],
)
def test_a_malformed_message_stops_at_most_its_notebook(start: Start, message: str) -> None:
    run = start(SEND + message, "b = 2")
    for check in ("check-1", "check-2"):
        with contextlib.suppress(NoValue):
            run.values_at(check)
    run.finish()
    nbformat.validate(run.notebook)


# -- kernels that end or hang ------------------------------------------------------------------

BEAT = """
import os, threading, time
def beat():
    while True:
        with open("beat", "a") as file:
            file.write(".")
        time.sleep(0.02)
threading.Thread(target=beat, daemon=True).start()
if os.fork() == 0:
    beat()
"""


def beats(run: Path, within: float) -> bool:
    """Whether some process of the submission writes within this many seconds."""

    def written() -> int:
        file = run / "beat"
        return file.stat().st_size if file.exists() else 0

    before, deadline = written(), time.monotonic() + within
    while written() == before and time.monotonic() < deadline:
        time.sleep(0.02)
    return written() > before


@pytest.mark.parametrize(
    "ending",
    ["os._exit(0)", "os.abort()", "os.kill(os.getpid(), 9)", "import ctypes; ctypes.string_at(0)"],
)
def test_the_death_of_a_kernel_is_a_reason_that_names_the_cell(start: Start, ending: str) -> None:
    run = start("a = 1", f"import os\n{ending}", "b = 1")
    assert run.values_at("check-1").value("a") == 1
    if "kill" in ending:  # process 1 of its namespace cannot be killed from inside
        ending = ""
    for check in ("check-2", "check-3"):
        try:
            run.values_at(check)
        except KernelLost as error:
            assert str(error) == "the kernel ended in cell WORK-2"  # noqa: PT017
        else:
            assert not ending
            return
    run.finish()
    assert run.notes == ["the kernel ended in cell WORK-2"]
    assert run.stopped


def test_closing_ends_every_process_of_the_kernel(start: Start, tmp_path: Path) -> None:
    run = start(BEAT)
    run.values_at("check-1")
    assert beats(tmp_path / "work-0", within=10)
    run.close()
    assert not beats(tmp_path / "work-0", within=0.3)


def test_a_dead_kernel_leaves_no_process_behind(start: Start, tmp_path: Path) -> None:
    run = start(BEAT, "os._exit(1)")
    run.values_at("check-1")
    assert beats(tmp_path / "work-0", within=10)
    with pytest.raises(KernelLost):
        run.values_at("check-2")
    assert not beats(tmp_path / "work-0", within=0.3)


def test_a_cell_that_takes_too_long_is_stopped_and_what_was_there_counts(start: Start) -> None:
    run = start("a = 1\nimport time\ntime.sleep(60)", "b = 2", seconds=1)
    started = time.monotonic()
    values = run.values_at("check-2")
    assert (values.value("a"), values.value("b")) == (1, 2)
    assert run.notes == ["stopped after 1 s in cell WORK-1"]
    assert time.monotonic() - started < 15


LOOP = """
while True:
    try:
        while True:
            time.sleep(0.01)
    except BaseException:
        pass
"""


def test_a_cell_that_will_not_be_stopped_is_ended(start: Start, tmp_path: Path) -> None:
    run = start(BEAT + LOOP, "b = 2", seconds=1)
    started = time.monotonic()
    for check in ("check-1", "check-2"):
        with pytest.raises(KernelLost, match=r"^stopped after 1 s in cell WORK-1$"):
            run.values_at(check)
    run.finish()
    assert run.notes == ["stopped after 1 s in cell WORK-1"]
    assert time.monotonic() - started < 30
    assert (tmp_path / "work-0" / "beat").exists()
    assert not beats(tmp_path / "work-0", within=0.3)


def test_two_kernels_do_not_know_each_other(start: Start) -> None:
    one, other = start("a = 'one'"), start("a = 'other'")
    assert one.values_at("check-1").value("a") == "one"
    assert other.values_at("check-1").value("a") == "other"
    one.close()
    assert other.values_at("check-1").value("a") == "other"
