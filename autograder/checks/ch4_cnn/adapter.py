"""The only module that knows how to reach the notebooks' names.

Checks work with convolution kernels, feature maps and training steps as NumPy arrays; the classes
here translate that into queries to the Jupyter kernel.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from autograder.checks.ch4_cnn import reference
from autograder.engine.figure import Figure
from autograder.engine.values import NoValue, Session, TrainingLog, Values

Array = np.ndarray[Any, Any]
TOLERANCE = 1e-4


class Notebook:
    """Queries that work for every notebook of the chapter."""

    def __init__(self, values: Values) -> None:
        self._values = values
        self._figures: dict[str, Figure] = {}

    def array(self, name: str) -> Array:
        """A NumPy array of the notebook."""
        value = self._values.value(name)
        if not isinstance(value, np.ndarray):
            raise NoValue(f"{name} is a {type(value).__name__}, expected a NumPy array")
        return _numbers(value, f"{name} is not an array of numbers")

    def number(self, name: str) -> float:
        """A single number of the notebook."""
        value = _numbers(self._values.value(name), f"{name} is not a number")
        if value.ndim:
            raise NoValue(f"{name} has shape {value.shape}, expected one number")
        return float(value)

    def whole(self, name: str) -> int:
        """A single number of the notebook; NoValue unless its type is an integer type."""
        return _whole(self._values.value(name), name)

    def value(self, name: str) -> Any:
        """Any plain value of the notebook."""
        return self._values.value(name)

    def call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """The return value of the notebook's function, unconverted."""
        return self._values.call(name, *args, **kwargs)

    def result(self, name: str, *args: Any) -> Array:
        """The return value of the notebook's function, as an array."""
        return _numbers(self._returned(name, *args), f"{name}(…) does not return numbers")

    def number_of(self, name: str, *args: Any) -> float:
        """The single number that the notebook's function returns."""
        found = self.result(name, *args)
        if found.ndim:
            raise NoValue(f"{name}(…) has shape {found.shape}, expected one number")
        return float(found)

    def floats(self, name: str, *args: Any) -> Array:
        """The return value as an array; NoValue unless its dtype is a floating-point type."""
        found = np.asarray(self._returned(name, *args))
        if found.dtype.kind != "f":
            raise NoValue(f"{name}(…) returns {found.dtype.name}, expected floats")
        return found.astype(float)

    def whole_result(self, name: str, *args: Any) -> int:
        """The single number that is returned; NoValue unless its type is an integer type."""
        return _whole(self._returned(name, *args), f"{name}(…)")

    def returns(self, name: str) -> dict[str, Any]:
        """Kind, type, shape and dtype of the return value of a function without arguments."""
        return self._values.describe_call(name)

    def _returned(self, name: str, *args: Any) -> Any:
        found = self._values.call(name, *args)
        if found is None:
            raise NoValue(f"{name}(…) returns nothing: is its last line a return?")
        return found

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Static shape of a tensor, with −1 for an open dimension; None if the rank is unknown."""
        shape = self._description(name)["shape"]
        return None if shape is None else tuple(shape)

    def dtype(self, name: str) -> str:
        """Name of a tensor's dtype."""
        return str(self._description(name)["dtype"])

    def kind(self, name: str) -> str:
        """`tensor`, `placeholder`, `variable`, `operation`, `array`, `function` or `object`."""
        return str(self._description(name)["kind"])

    def _description(self, name: str) -> dict[str, Any]:
        (found,) = self._values.describe(name)
        if found.get("kind", "missing") == "missing":
            raise NoValue(f"{name} is not there: not done yet, or under another name")
        return found

    def figure(self, name: str = "fig") -> Figure:
        """The content of a figure of the notebook; queried once."""
        if name not in self._figures:
            self._figures[name] = self._values.figure(name)
        return self._figures[name]


class Graph(Notebook):
    """A notebook with a graph, the checks' own sessions on it, and the student's session.

    Args:
        values: the kernel to query.
        of: notebook name of a tensor in the graph.
        shapes: shapes of the network's expected variables, by notebook name.

    """

    def __init__(self, values: Values, of: str, shapes: dict[str, tuple[int, ...]]) -> None:
        super().__init__(values)
        self.names = list(shapes)
        self._of = of
        self._shapes = shapes
        self._names: dict[str, str] | None = None

    def fresh(self, **weights: Array) -> Running:
        """A new session with `weights` (by notebook name) loaded and the rest initialised."""
        return Running(self, self._values.session(self._of, self.named(weights)))

    def named(self, weights: dict[str, Array]) -> dict[str, Array]:
        """The weights by their names in the graph, as float32."""
        return {self.graph_name(name): np.asarray(v, np.float32) for name, v in weights.items()}

    def trained(self) -> Running:
        """The student's own session."""
        return Running(self, self._values.student_session())

    def variables(self) -> list[dict[str, Any]]:
        """Descriptions of all variables of the graph."""
        return self._values.variables(self._of)

    def untrained(self, names: list[str]) -> list[str]:
        """Which of these variables training cannot change: not trainable, or without a gradient."""
        own = {name: self.graph_name(name) for name in names}
        trainable = {v["name"] for v in self.variables() if v["trainable"]}
        depends = self._values.learns(self._of, *own.values())
        return [
            name
            for (name, graph_name), reaches in zip(own.items(), depends, strict=True)
            if graph_name not in trainable or not reaches
        ]

    def fixed(self) -> list[str]:
        """Graph names of the variables behind the tensor that are not trainable."""
        names = [str(v["name"]) for v in self.variables() if not v["trainable"]]
        behind = self._values.learns(self._of, *names) if names else []
        return [name for name, reaches in zip(names, behind, strict=True) if reaches]

    def saved(self, name: str) -> set[str]:
        """Graph names of the variables that a Saver of the notebook writes."""
        return set(self._values.saved(name))

    def trainable_shapes(self) -> list[tuple[int, ...]]:
        """Shapes of the trainable variables, sorted."""
        return sorted(tuple(v["shape"]) for v in self.variables() if v["trainable"])

    def graph_name(self, name: str) -> str:
        """The name, in the graph and in checkpoints, of the variable that a notebook calls `name`.

        A variable under another notebook name is recognised by its shape, if that is unique.
        """
        if self._names is None:
            self._names = {}
            variables = self.variables()
            for wanted, shape in self._shapes.items():
                own = [v for v in variables if wanted in v["names"]]
                alike = [v for v in variables if v["trainable"] and tuple(v["shape"]) == shape]
                found = own or (alike if len(alike) == 1 else [])
                if found:
                    self._names[wanted] = str(found[0]["name"])
        if name not in self._names:
            raise NoValue(f"the graph has no variable {name} of shape {self._shapes[name]}")
        return self._names[name]


class Running:
    """A session on a graph, with a NumPy interface."""

    def __init__(self, graph: Graph, session: Session) -> None:
        self._graph, self._session = graph, session

    def load(self, **weights: Array) -> None:
        """Assign these values to variables, by notebook name; they are sent as float32."""
        self._session.assign(**self._graph.named(weights))

    def of(self, images: Array, *names: str, labels: Array | None = None) -> Any:
        """Values of tensors for images (n, 784), and labels where the tensor needs them."""
        feed: dict[str, Any] = {"x": images.astype(np.float32)}
        if labels is not None:
            feed["t"] = labels.astype(np.float32)
        return self._session.fetch(*names, feed=feed)

    def train(self, images: Array, labels: Array, steps: int = 1) -> None:
        """Run `train_step` on the same images `steps` times."""
        feed = {"x": images.astype(np.float32), "t": labels.astype(np.float32)}
        self._session.step("train_step", feed, steps)

    def count_steps(self, steps: int) -> None:
        """Set the graph's integer scalars, such as a global step, to `steps`."""
        counters = {
            str(variable["name"]): np.array(steps, variable["dtype"])
            for variable in self._graph.variables()
            if not variable["shape"] and variable["dtype"] in ("int32", "int64")
        }
        if counters:
            self._session.assign(**counters)

    def weight(self, name: str) -> Array:
        """The value of the variable that the notebook calls `name`."""
        return self._session.variable_values(self._graph.graph_name(name))[0]

    def is_initialised(self) -> bool:
        """Whether all variables of the graph, including the optimizer's, have values."""
        names = [str(variable["name"]) for variable in self._graph.variables()]
        return all(self._session.initialised(*names))

    def log(self) -> TrainingLog:
        """The log of the training steps that the notebook has run in this session."""
        return self._session.training_log()

    def adam_steps(self) -> float:
        """Number of Adam's steps since the session was initialised; 0 without Adam."""
        names = [str(variable["name"]) for variable in self._graph.variables()]
        powers = self._session.variable_values(*filter(counts_steps, names))
        return max(map(reference.adam_steps, powers), default=0.0)

    def weights(self) -> dict[str, Array]:
        """The values of the network's expected variables, by notebook name."""
        names = {name: self._graph.graph_name(name) for name in self._graph.names}
        values = self._session.variable_values(*names.values())
        return dict(zip(names, values, strict=True))


def lent(array: Array) -> dict[str, Array]:
    """A function argument that arrives as a read-only, non-contiguous array."""
    return {"lent": array}


def _numbers(value: Any, reason: str) -> Array:
    """A value as a float64 array.  Raises NoValue with the reason."""
    try:
        return np.asarray(value, dtype=float)
    except (TypeError, ValueError) as error:
        raise NoValue(reason) from error


def _whole(value: Any, name: str) -> int:
    number = np.asarray(value)
    if number.ndim or number.dtype.kind not in "iu":
        kind = type(value).__name__ if number.ndim == 0 and number.dtype.kind != "f" else "float"
        raise NoValue(f"{name} is a {kind}, expected an int: it counts")
    return int(number)


def counts_steps(name: str) -> bool:
    """Whether this name, in a graph or checkpoint, is that of Adam's step counter, β₂'s power."""
    return name.endswith("beta2_power")


def same(one: Array, other: Array, tolerance: float = TOLERANCE) -> bool:
    """Whether two arrays have the same shape and are equal up to rounding.

    `tolerance` is both absolute and relative; float32 sums of a few thousand terms differ by less
    than the default between NumPy and TensorFlow.
    """
    return one.shape == other.shape and bool(alike(one, other[None], tolerance)[0])


def alike(one: Array, others: Array, tolerance: float = TOLERANCE) -> Array:
    """Whether `one` (…) is the `same` as each of `others` (n, …); booleans (n,)."""
    if not np.isfinite(one).all():
        return np.zeros(len(others), bool)
    close = np.isclose(one, others, rtol=tolerance, atol=tolerance)
    return np.asarray(close.all(axis=tuple(range(1, others.ndim))))
