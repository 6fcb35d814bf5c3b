"""Answers the checks' questions from inside the kernel: plain values, no judgement.

The student's code shares this process and may have changed anything in it, so every answer is no
more than a claim.  The checks believe arrays that they can test, and nothing else.

A question is ``{"id", "op", …}``; the answer is ``{"id", "value"}`` or ``{"id", "error",
"message"}``, where `error` is ``missing`` (no such name), ``unfit`` (an object of another kind),
``todo`` (a NotImplementedError) or ``raised`` (any other exception).

Graph tensors are evaluated in the responder's own sessions (`open_session`), so that questions
never disturb the variables in the student's session; the session name ``student`` means the
student's own `sess`.
"""

from __future__ import annotations

import contextlib
import io
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf
from IPython import get_ipython

from autograder import wire
from autograder.kernel import fast_forward, figures

MESSAGE_LIMIT = 20_000  # TensorFlow puts the cause after a long trace
# Most fetches run once: optimising the graph would take longer than running it.
RUN_AS_IT_IS = tf.ConfigProto()
RUN_AS_IT_IS.graph_options.rewrite_options.disable_meta_optimizer = True
RUN_AS_IT_IS.graph_options.optimizer_options.opt_level = tf.OptimizerOptions.L0
connection: socket.socket | None = None


class Missing(Exception):
    """A name the question needs is not defined in the notebook."""


class Unfit(Exception):
    """The object in question is of the wrong kind; the text says which kind it is."""


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
            with contextlib.redirect_stdout(io.StringIO()), fast_forward.suspended():
                value = operation(**arguments)
            return {"id": identity, "value": value}
        except Missing as error:
            return {"id": identity, "error": "missing", "message": str(error)}
        except Unfit as error:
            return {"id": identity, "error": "unfit", "message": str(error)}
        except NotImplementedError as error:
            return {"id": identity, "error": "todo", "message": str(error)[:MESSAGE_LIMIT]}
        except Exception as error:
            message = f"{_kind_of(error)}: {error}"[:MESSAGE_LIMIT]
            return {"id": identity, "error": "raised", "message": message}

    # -- names -----------------------------------------------------------------------------

    def _find(self, name: str) -> Any:
        """The object called `name`: a notebook variable or `owner.attribute`."""
        head, _, rest = name.partition(".")
        if head not in self.namespace:
            raise Missing(name)
        found = self.namespace[head]
        for part in filter(None, rest.split(".")):
            if not hasattr(found, part):
                raise Unfit(f"{head} is {_a(found)}, which has no {part}")
            found = getattr(found, part)
            head = f"{head}.{part}"
        return found

    def _argument(self, value: Any) -> Any:
        """`value`, with the notebook's own object `n` in place of every ``{"name": n}``.

        ``{"lent": array}`` becomes a read-only array that is not contiguous in memory.
        """
        if isinstance(value, dict) and set(value) == {"name"}:
            return self._find(value["name"])
        if isinstance(value, dict) and set(value) == {"lent"}:
            return _lent(value["lent"])
        if isinstance(value, list):
            return [self._argument(item) for item in value]
        return value

    def op_describe(self, names: list[str]) -> list[dict[str, Any]]:
        """Kind, type name, static shape (−1: unknown) and dtype of each name."""
        return [self._describe(name) for name in names]

    def _describe(self, name: str) -> dict[str, Any]:
        try:
            found = self._find(name)
        except (Missing, Unfit):
            return {"kind": "missing", "type": "", "shape": None, "dtype": ""}
        return described(found)

    def op_describe_call(self, name: str, args: list[Any]) -> dict[str, Any]:
        """What a notebook function returns: kind, type name, static shape and dtype."""
        with self._asked(name, args, {}) as result:
            return described(result)

    def op_value(self, name: str) -> Any:
        """A notebook variable that is not part of the graph: number, text, array, list, dict."""
        return plain(self._find(name))

    # -- functions -------------------------------------------------------------------------

    def op_call(self, name: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """What a notebook function returns; tensors come back evaluated."""
        with self._asked(name, args, kwargs) as result:
            return self._evaluated(result)

    @contextlib.contextmanager
    def _asked(self, name: str, args: list[Any], kwargs: dict[str, Any]) -> Iterator[Any]:
        """The result of a notebook function, in the graph in which the notebook would call it.

        A function that caches its results must not cache a tensor of any other graph.
        """
        function = self._find(name)
        if not callable(function):
            raise Unfit(f"{name} is {_a(function)}, expected a function")
        arguments = [self._argument(item) for item in args]
        keywords = {key: self._argument(item) for key, item in kwargs.items()}
        graph = tf.get_default_graph()
        before = _collections(graph)
        result = function(*arguments, **keywords)
        try:
            yield result
        finally:
            # Remove what only this question has made, such as a variable, from the collections.
            made = _collections(graph) != before
            if made and function(*arguments, **keywords) is not result:
                for key in graph.collections:
                    graph.get_collection_ref(key)[:] = before.get(key, [])

    def _evaluated(self, result: Any) -> Any:
        if isinstance(result, tf.Tensor | tf.Variable):
            with tf.Session(graph=result.graph, config=RUN_AS_IT_IS) as session:
                # The variable may be missing from its graph's collections.
                own = [result] if isinstance(result, tf.Variable) else []
                variables = {v.op.name: v for v in [*_variables(result.graph), *own]}
                session.run([v.initializer for v in _needed([result], variables)])
                return np.asarray(session.run(result))
        if isinstance(result, list | tuple):
            return [self._evaluated(item) for item in result]
        return plain(result)

    # -- graphs ----------------------------------------------------------------------------

    def op_open_session(self, session: str, of: str, values: dict[str, Any]) -> None:
        """A new session on the graph of tensor `of`: `values` loaded, other variables initialised.

        Each variable is initialised when it is first needed: most questions need neither the
        weights of all layers nor Adam's two numbers for each weight.
        """
        graph = self._graph(of)
        given = [self._variable(name, graph) for name in values]
        fresh = tf.Session(graph=graph, config=RUN_AS_IT_IS)
        self._load(fresh, given, list(values.values()))
        self.sessions[session] = fresh
        self.blank[session] = {variable.op.name: variable for variable in _variables(graph)}
        self._has_values(session, given)

    def _graph(self, name: str) -> tf.Graph:
        """The graph of the tensor, variable or operation `name`."""
        found = self._find(name)
        if not isinstance(found, tf.Tensor | tf.Variable | tf.Operation):
            raise Unfit(f"{name} is {_a(found)}, expected a tensor")
        return found.graph

    def _has_values(self, session: str, variables: list[Any]) -> None:
        for variable in variables:
            self.blank.get(session, {}).pop(variable.op.name, None)

    def _initialise_for(self, session: str, nodes: list[Any]) -> None:
        """Initialise the variables that these nodes depend on, in one of our own sessions."""
        blank = self.blank.get(session)
        if not blank:
            return
        needed = _needed(nodes, blank)
        self.sessions[session].run([variable.initializer for variable in needed])
        self._has_values(session, needed)

    def _session(self, session: str) -> tf.Session:
        if session != "student":
            return self.sessions[session]
        found = self._find("sess")
        if not (hasattr(found, "run") and isinstance(getattr(found, "graph", None), tf.Graph)):
            raise Unfit(f"sess is {_a(found)}, expected a session")
        return found

    def _node(self, name: str, graph: tf.Graph) -> Any:
        """The tensor, variable or operation `name`, for a session on this graph."""
        found = self._find(name)
        try:
            graph.as_graph_element(found)
        except TypeError as error:
            raise Unfit(f"{name} is {_a(found)}, expected a tensor") from error
        return found

    def op_run(
        self, session: str, fetch: list[str], feed: dict[str, Any], times: int = 1
    ) -> list[Any]:
        """Run `session.run(fetch, feed)` `times` times; the last values (None for operations)."""
        running = self._session(session)
        nodes = [self._node(name, running.graph) for name in fetch]
        fed = {self._node(name, running.graph): value for name, value in feed.items()}
        self._initialise_for(session, nodes)
        values: list[Any] = []
        for _ in range(times):
            values = running.run(nodes, feed_dict=fed)
        return [None if value is None else plain(value) for value in values]

    def op_assign(self, session: str, values: dict[str, Any]) -> None:
        """Load arrays into graph variables, given by their notebook name or graph name."""
        running = self._session(session)
        variables = [self._variable(name, running.graph) for name in values]
        self._load(running, variables, list(values.values()))
        self._has_values(session, variables)

    def _variable(self, name: str, graph: tf.Graph) -> Any:
        if name in self.namespace:
            found = self._find(name)
            if not isinstance(found, tf.Variable):
                raise Unfit(f"{name} is {_a(found)}, expected a tf.Variable")
            return found
        for variable in _variables(graph):
            if variable.op.name == name:
                return variable
        raise Missing(name)

    def _load(self, running: tf.Session, variables: list[Any], values: list[Any]) -> None:
        """Set variables like `tf.Variable.load`, but all in one run if possible."""
        for variable, value in zip(variables, values, strict=True):
            if not variable.shape.is_compatible_with(np.shape(value)):
                called = [*self._names(variable), variable.op.name][0]
                raise Unfit(f"{called} has shape {variable.shape}, expected {np.shape(value)}")
        starts = [variable.initializer.inputs[1] for variable in variables]
        if len({start.ref() for start in starts}) < len(starts):
            # Variables that share an initial tensor cannot be told apart by it.
            for variable, value in zip(variables, values, strict=True):
                variable.load(value, running)
        elif variables:
            initialisers = [variable.initializer for variable in variables]
            running.run(initialisers, dict(zip(starts, values, strict=True)))

    def _names(self, variable: Any) -> list[str]:
        """The notebook's names of a variable."""
        own = [name for name, value in self.namespace.items() if value is variable]
        return [name for name in own if not name.startswith("_")]

    def op_variables(self, of: str) -> list[dict[str, Any]]:
        """Every global variable of the graph of `of`: name, notebook names, shape, trainable."""
        graph = self._graph(of)
        trainable = graph.get_collection(tf.GraphKeys.TRAINABLE_VARIABLES)
        return [
            {
                "name": variable.op.name,
                "names": self._names(variable),
                "shape": [-1 if n is None else n for n in variable.shape.as_list()],
                "dtype": variable.dtype.base_dtype.name,
                "trainable": any(variable is other for other in trainable),
            }
            for variable in _variables(graph)
        ]

    def op_learns(self, of: str, names: list[str]) -> list[bool]:
        """Whether tensor `of` has a gradient with respect to each of the variables `names`."""
        graph, tensor = self._graph(of), self._find(of)
        variables = [self._variable(name, graph) for name in names]
        # Use a copy, so that the gradient's operations do not end up in the notebook's graph.
        with tf.Graph().as_default() as copy:
            tf.import_graph_def(graph.as_graph_def(), name="")
            sources = [copy.get_tensor_by_name(f"{variable.op.name}:0") for variable in variables]
            found = tf.gradients(copy.get_tensor_by_name(tensor.name), sources)
        return [gradient is not None for gradient in found]

    def op_saved(self, name: str) -> list[str]:
        """Graph names of the variables that a `tf.train.Saver` writes."""
        saver = self._find(name)
        if not isinstance(saver, tf.train.Saver):
            raise Unfit(f"{name} is {_a(saver)}, expected a tf.train.Saver")
        variables = saver._var_list  # no public API gives them
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
        return [has_value(running, self._variable(name, running.graph)) for name in names]

    def op_training_log(self, session: str) -> dict[str, Any]:
        """The `fast_forward.Journal` of a session, with feeds by the notebook's names."""
        journal = fast_forward.journal_of(self._session(session))
        return {
            "steps": journal.steps,
            "sizes": _pairs(journal.sizes),
            "batches": len(journal.batches),
            "first": [
                {self._name_of(name): array for name, array in fed.items()} for fed in journal.first
            ],
            "saves": [[path, steps] for path, steps in journal.saves],
            "evaluated": _pairs(journal.evaluated),
            "alongside": _pairs(journal.alongside),
        }

    def _name_of(self, tensor: str) -> str:
        """The notebook's name of a tensor with this graph name."""
        for key, value in self.namespace.items():
            if isinstance(value, tf.Tensor) and value.name == tensor and not key.startswith("_"):
                return key
        return tensor

    # -- pictures --------------------------------------------------------------------------

    def op_figure(self, name: str) -> dict[str, Any]:
        """The description of a matplotlib figure: see `autograder.kernel.figures`."""
        return figures.told(self._find(name))


def _pairs(counts: Mapping[int, int]) -> np.ndarray:
    """Sorted pairs (what was counted, how often), as int64 (n, 2)."""
    return np.array(sorted(counts.items()), np.int64).reshape(-1, 2)


def has_value(running: tf.Session, variable: Any) -> bool:
    """Whether a variable has a value in a session; adds no operation to its graph."""
    try:
        running.run(variable)
    except tf.errors.FailedPreconditionError:
        return False
    return True


def described(found: Any) -> dict[str, Any]:
    """Kind, type name, static shape (−1: unknown) and dtype of an object."""
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


def _needed(nodes: list[Any], variables: dict[str, Any]) -> list[Any]:
    """The variables (by graph name) that these nodes depend on."""
    needed, seen = [], set()
    ahead = [getattr(node, "op", node) for node in tf.nest.flatten(nodes)]
    while ahead:
        operation = ahead.pop()
        if not isinstance(operation, tf.Operation) or operation in seen:
            continue
        seen.add(operation)
        if operation.name in variables:
            needed.append(variables[operation.name])
        ahead += [tensor.op for tensor in operation.inputs]
        ahead += operation.control_inputs
    return needed


def _variables(graph: tf.Graph) -> list[Any]:
    return list(graph.get_collection(tf.GraphKeys.GLOBAL_VARIABLES))


def _collections(graph: tf.Graph) -> dict[str, list[Any]]:
    """A snapshot of a graph's collections."""
    return {key: graph.get_collection(key) for key in graph.collections}


def _lent(array: np.ndarray) -> np.ndarray:
    """The same numbers, read-only and interleaved with others."""
    if not array.ndim:
        return array
    wide = np.repeat(array, 2, axis=-1)
    wide[..., 1::2] = 0
    lent = wide[..., ::2]
    lent.flags.writeable = False
    return lent


def _a(found: Any) -> str:
    """The kind of an object in words: `a str`."""
    kind = "NumPy array" if isinstance(found, np.ndarray) else type(found).__name__
    return f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}"


def plain(value: Any, depth: int = 0) -> Any:
    """`value` as None, bool, int, float, str, array, or lists and dicts of these.

    Raises Unfit for anything else.
    """
    if value is None or isinstance(value, bool | int | float | str | np.ndarray | np.generic):
        return value
    if isinstance(value, tf.Dimension):
        return value.value
    if isinstance(value, dict) and depth < 4:
        return {str(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple) and depth < 4:
        return [plain(item, depth + 1) for item in value]
    raise Unfit(f"there is {_a(value)} where numbers, text or lists of them are expected")


def _questions(source: socket.socket) -> Iterator[dict[str, Any]]:
    while True:
        question = wire.receive(source)
        if question["op"] == "done":
            wire.send(source, {"id": question["id"], "value": None})
            return
        yield question


def _kind_of(error: Exception) -> str:
    """The name of an error's class, with the built-in exception that it derives from, if any."""
    own = type(error)
    known = next(kind for kind in own.__mro__ if kind.__module__ == "builtins")
    if known in (own, Exception):
        return own.__name__
    return f"{own.__name__} ({known.__name__})"


def serve() -> None:
    """Answer questions on the values connection until ``done``; called between two cells."""
    shell = get_ipython()
    assert connection is not None
    assert shell is not None
    responder = Responder(shell.user_ns)
    fast_forward.separate()
    for question in _questions(connection):
        answer = responder.answer(question)
        try:
            wire.send(connection, answer)
        except wire.WireError as error:
            wire.send(connection, {"id": question["id"], "error": "raised", "message": str(error)})
    for session in responder.sessions.values():
        session.close()
