"""Answers the checks' questions from inside the kernel: plain values, no judgement.

The student's code shares this process and may have changed anything in it, so every answer
is no more than a claim.  The checks believe arrays they can test, and nothing else.

A question is ``{"id", "op", …}``; the answer ``{"id", "value"}`` or ``{"id", "error",
"message"}``, where `error` is ``missing`` (no such name), ``todo`` (a NotImplementedError) or
``raised`` (any other exception).

Graph tensors are evaluated in sessions of the responder's own (`open_session`), so that asking
never disturbs the variables in the student's session; the session name ``student`` means the
student's own `sess`.
"""

from __future__ import annotations

import contextlib
import io
import socket
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf
from IPython import get_ipython

from autograder import wire

MESSAGE_LIMIT = 300
# Most of what is asked is run once: optimising the graph for it would take longer than it does.
RUN_AS_IT_IS = tf.ConfigProto()
RUN_AS_IT_IS.graph_options.rewrite_options.disable_meta_optimizer = True
RUN_AS_IT_IS.graph_options.optimizer_options.opt_level = tf.OptimizerOptions.L0
connection: socket.socket | None = None


class Missing(Exception):
    """A name the question needs is not defined in the notebook."""


class Responder:
    """Answers questions about the variables in `namespace` until told `done`."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self.namespace = namespace
        self.sessions: dict[str, tf.Session] = {}
        self.blank: dict[str, dict[str, Any]] = {}  # per session: variables yet to initialise

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """The answer to one question; exceptions become part of it."""
        identity = question.get("id")
        try:
            operation: Callable[..., Any] = getattr(self, f"op_{question['op']}")
            arguments = {k: v for k, v in question.items() if k not in ("id", "op")}
            with contextlib.redirect_stdout(io.StringIO()):
                value = operation(**arguments)
            return {"id": identity, "value": value}
        except Missing as error:
            return {"id": identity, "error": "missing", "message": str(error)}
        except NotImplementedError as error:
            return {"id": identity, "error": "todo", "message": str(error)[:MESSAGE_LIMIT]}
        except Exception as error:
            message = f"{type(error).__name__}: {error}"[:MESSAGE_LIMIT]
            return {"id": identity, "error": "raised", "message": message}

    # -- names -----------------------------------------------------------------------------

    def _find(self, name: str) -> Any:
        """The object called `name`: a notebook variable, `owner.attribute`, or a node `a/b:0`."""
        head, _, rest = name.partition(".")
        if head not in self.namespace:
            raise Missing(name)
        found = self.namespace[head]
        for part in filter(None, rest.split(".")):
            found = getattr(found, part)
        return found

    def _argument(self, value: Any) -> Any:
        """`value`, with every ``{"name": n}`` replaced by the notebook's own object `n`."""
        if isinstance(value, dict) and set(value) == {"name"}:
            return self._find(value["name"])
        if isinstance(value, list):
            return [self._argument(item) for item in value]
        return value

    def op_describe(self, names: list[str]) -> list[dict[str, Any]]:
        """Kind, type name, static shape (−1: unknown) and dtype of each name."""
        return [self._describe(name) for name in names]

    def _describe(self, name: str) -> dict[str, Any]:
        try:
            found = self._find(name)
        except (Missing, AttributeError):
            return {"kind": "missing", "type": "", "shape": None, "dtype": ""}
        if isinstance(found, tf.Operation):
            kind = "operation"
        elif isinstance(found, tf.Variable):
            kind = "variable"
        elif isinstance(found, tf.Tensor):
            kind = "placeholder" if found.op.type == "Placeholder" else "tensor"
        elif isinstance(found, np.ndarray | np.generic):
            kind = "array"
        elif callable(found):
            kind = "function"
        else:
            kind = "object"
        shape, dtype = None, ""
        if kind in ("variable", "tensor", "placeholder"):
            if found.shape.rank is not None:
                shape = [-1 if n is None else n for n in found.shape.as_list()]
            dtype = found.dtype.base_dtype.name
        elif kind == "array":
            shape, dtype = list(np.shape(found)), found.dtype.name
        return {"kind": kind, "type": type(found).__name__, "shape": shape, "dtype": dtype}

    def op_value(self, name: str) -> Any:
        """A notebook variable that is not part of the graph: number, text, array, list, dict."""
        return plain(self._find(name))

    # -- functions -------------------------------------------------------------------------

    def op_call(self, name: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """Call a notebook function; tensors that it makes are made in a graph of their own."""
        function = self._find(name)
        arguments = [self._argument(item) for item in args]
        keywords = {key: self._argument(item) for key, item in kwargs.items()}
        graph = tf.Graph()
        with graph.as_default() if not _touches_graph(arguments) else contextlib.nullcontext():
            result = function(*arguments, **keywords)
        return self._evaluated(result)

    def _evaluated(self, result: Any) -> Any:
        if isinstance(result, tf.Tensor | tf.Variable):
            with tf.Session(graph=result.graph, config=RUN_AS_IT_IS) as session:
                if isinstance(result, tf.Variable):
                    session.run(result.initializer)
                else:
                    session.run(_initialisers(result.graph))
                return np.asarray(session.run(result))
        if isinstance(result, list | tuple):
            return [self._evaluated(item) for item in result]
        return plain(result)

    # -- graphs ----------------------------------------------------------------------------

    def op_open_session(self, session: str, of: str, values: dict[str, Any]) -> None:
        """A new session on the graph of tensor `of`: `values` loaded, what remains initialised.

        That is done when it is first needed, for most questions need neither the weights of all
        layers nor Adam's two numbers for each of them.
        """
        graph = self._find(of).graph
        given = [self._variable(name, graph) for name in values]
        fresh = tf.Session(graph=graph, config=RUN_AS_IT_IS)
        _load(fresh, given, list(values.values()))
        self.sessions[session] = fresh
        self.blank[session] = {
            variable.op.name: variable
            for variable in graph.get_collection(tf.GraphKeys.GLOBAL_VARIABLES)
        }
        self._has_values(session, given)

    def _has_values(self, session: str, variables: list[Any]) -> None:
        for variable in variables:
            self.blank.get(session, {}).pop(variable.op.name, None)

    def _initialise_for(self, session: str, nodes: list[Any]) -> None:
        """Initialise, in a session of ours, the variables on which these nodes depend."""
        blank = self.blank.get(session)
        if not blank:
            return
        needed, seen = [], set()
        ahead = [getattr(node, "op", node) for node in tf.nest.flatten(nodes)]
        while ahead:
            operation = ahead.pop()
            if not isinstance(operation, tf.Operation) or operation in seen:
                continue
            seen.add(operation)
            if operation.name in blank:
                needed.append(blank[operation.name])
            ahead += [tensor.op for tensor in operation.inputs]
            ahead += operation.control_inputs
        self.sessions[session].run([variable.initializer for variable in needed])
        self._has_values(session, needed)

    def _session(self, session: str) -> tf.Session:
        return self._find("sess") if session == "student" else self.sessions[session]

    def op_run(
        self, session: str, fetch: list[str], feed: dict[str, Any], times: int = 1
    ) -> list[Any]:
        """`session.run(fetch, feed)`, `times` times; the last values (None for operations)."""
        running = self._session(session)
        nodes = [self._find(name) for name in fetch]
        fed = {self._find(name): value for name, value in feed.items()}
        self._initialise_for(session, nodes)
        values: list[Any] = []
        for _ in range(times):
            values = running.run(nodes, feed_dict=fed)
        return [None if value is None else plain(value) for value in values]

    def op_assign(self, session: str, values: dict[str, Any]) -> None:
        """Load arrays into graph variables, given by their notebook name or graph name."""
        running = self._session(session)
        variables = [self._variable(name, running.graph) for name in values]
        _load(running, variables, list(values.values()))
        self._has_values(session, variables)

    def _variable(self, name: str, graph: tf.Graph) -> Any:
        if name in self.namespace:
            return self._find(name)
        for variable in graph.get_collection(tf.GraphKeys.GLOBAL_VARIABLES):
            if variable.op.name == name:
                return variable
        raise Missing(name)

    def op_variables(self, of: str) -> list[dict[str, Any]]:
        """Every global variable of the graph of `of`: name, notebook names, shape, trainable."""
        graph = self._find(of).graph
        trainable = graph.get_collection(tf.GraphKeys.TRAINABLE_VARIABLES)
        return [
            {
                "name": variable.op.name,
                "names": [
                    key
                    for key, value in self.namespace.items()
                    if value is variable and not key.startswith("_")
                ],
                "shape": [-1 if n is None else n for n in variable.shape.as_list()],
                "dtype": variable.dtype.base_dtype.name,
                "trainable": any(variable is other for other in trainable),
            }
            for variable in graph.get_collection(tf.GraphKeys.GLOBAL_VARIABLES)
        ]

    def op_learns(self, of: str, names: list[str]) -> list[bool]:
        """Whether tensor `of` has a gradient by each of the variables `names`."""
        tensor = self._find(of)
        variables = [self._variable(name, tensor.graph) for name in names]
        with tensor.graph.as_default():
            return [gradient is not None for gradient in tf.gradients(tensor, variables)]

    def op_saved(self, name: str) -> list[str]:
        """Graph names of the variables that a `tf.train.Saver` writes."""
        variables = self._find(name)._var_list  # no public way tells
        if isinstance(variables, dict):
            return list(variables)
        return [variable.op.name for variable in variables]

    def op_variable_values(self, session: str, names: list[str]) -> list[np.ndarray]:
        """The values of variables in a session, given by notebook name or graph name."""
        running = self._session(session)
        variables = [self._variable(name, running.graph) for name in names]
        self._initialise_for(session, variables)
        return [np.asarray(value) for value in running.run(variables)]

    def op_initialised(self, session: str, names: list[str]) -> list[bool]:
        """Whether each of these variables (graph names) has a value in a session."""
        running = self._session(session)
        with running.graph.as_default():
            asked = [
                tf.is_variable_initialized(self._variable(name, running.graph)) for name in names
            ]
        return [bool(answer) for answer in running.run(asked)]

    # -- pictures --------------------------------------------------------------------------

    def op_figure(self, name: str) -> dict[str, Any]:
        """What a matplotlib figure shows: images and scatter points of all its axes."""
        figure = self._find(name)
        axes = []
        for ax in figure.axes:
            images = [np.ma.getdata(image.get_array()) for image in ax.images]
            points = [
                {
                    "offsets": np.ma.getdata(group.get_offsets()),
                    "vertices": _vertices(group),
                }
                for group in ax.collections
                if hasattr(group, "get_offsets")
            ]
            bars = [[p.get_x() + p.get_width() / 2, p.get_height()] for p in ax.patches]
            axes.append(
                {
                    "images": [plain(image) for image in images],
                    "points": points,
                    "bars": np.array(bars, float).reshape(-1, 2),
                    "ylim": list(map(float, ax.get_ylim())),
                    "title": ax.get_title(),
                }
            )
        return {"axes": axes}


def _vertices(group: Any) -> np.ndarray:
    """The outline of a scatter marker, (n, 2) float64, in marker units."""
    paths = group.get_paths()
    return np.asarray(paths[0].vertices, float) if paths else np.zeros((0, 2))


def _touches_graph(arguments: list[Any]) -> bool:
    return any(hasattr(argument, "graph") or hasattr(argument, "save") for argument in arguments)


def _initialisers(graph: tf.Graph) -> list[Any]:
    variables = graph.get_collection(tf.GraphKeys.GLOBAL_VARIABLES)
    return [variable.initializer for variable in variables]


def _load(running: tf.Session, variables: list[Any], values: list[Any]) -> None:
    """Give variables values, as `tf.Variable.load` does, but all in one run where that can be."""
    starts = [variable.initializer.inputs[1] for variable in variables]
    if len({start.ref() for start in starts}) < len(starts):
        # Variables that start as one and the same tensor cannot be told apart by it.
        for variable, value in zip(variables, values, strict=True):
            variable.load(value, running)
    elif variables:
        initialisers = [variable.initializer for variable in variables]
        running.run(initialisers, dict(zip(starts, values, strict=True)))


def plain(value: Any, depth: int = 0) -> Any:
    """`value` as None, bool, int, float, str, array, or lists and dicts of these.

    Raises TypeError for anything else.
    """
    if value is None or isinstance(value, bool | int | float | str | np.ndarray | np.generic):
        return value
    if isinstance(value, dict) and depth < 4:
        return {str(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple) and depth < 4:
        return [plain(item, depth + 1) for item in value]
    raise TypeError(f"a {type(value).__name__} is not a plain value")


def _questions(source: socket.socket) -> Iterator[dict[str, Any]]:
    while True:
        question = wire.receive(source)
        if question["op"] == "done":
            wire.send(source, {"id": question["id"], "value": None})
            return
        yield question


def serve() -> None:
    """Answer questions on the values connection until ``done``; called between two cells."""
    shell = get_ipython()
    assert connection is not None
    assert shell is not None
    responder = Responder(shell.user_ns)
    for question in _questions(connection):
        answer = responder.answer(question)
        try:
            wire.send(connection, answer)
        except wire.WireError as error:
            wire.send(connection, {"id": question["id"], "error": "raised", "message": str(error)})
    for session in responder.sessions.values():
        session.close()
