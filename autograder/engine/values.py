"""Asking a kernel for values: the only way from the checks zone into the kernel zone."""

from __future__ import annotations

import math
import secrets
import socket
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from autograder import wire
from autograder.errors import printable

ASK_SECONDS = 30.0
FIGURE_LIMIT = 4000  # axes, images and scatters; the largest of the chapter has some 350


class NoValue(Exception):
    """A question got no usable answer; the text tells the student why, in one sentence."""


class Raised(NoValue):
    """The notebook's own code raised an error when it was asked."""


class KernelLost(NoValue):
    """The kernel ended or stopped answering; nothing more can be asked of it."""


class Values:
    """Questions to one kernel, each answered by plain values or by NoValue.

    The methods mirror `autograder.kernel.responder.Responder`; names are those of the notebook.
    left: seconds that all answers together may take.
    """

    def __init__(self, connection: socket.socket, left: float = math.inf) -> None:
        self._connection = connection
        self._sessions = 0
        self.left = left
        self.lost = ""

    def ask(self, op: str, seconds: float = ASK_SECONDS, **arguments: Any) -> Any:
        """The answer to one question.

        Raises NoValue when the kernel says why not, KernelLost when it says nothing usable.
        """
        if self.lost:
            raise KernelLost(self.lost)
        identity = secrets.token_hex(8)
        started = time.monotonic()
        deadline = started + min(seconds, self.left)
        try:
            wire.send(self._connection, {"id": identity, "op": op, **arguments}, deadline)
            answer = wire.receive(self._connection, deadline)
        except wire.WireTimeout:
            self.lost = f"the notebook gave no answer within {seconds:.0f} s"
            if self.left < seconds:
                self.lost = "the notebook took too long over its answers"
        except (wire.WireError, OSError) as error:
            self.lost = f"the notebook stopped answering ({printable(error, 80)})"
        self.left -= time.monotonic() - started
        if self.lost:
            raise KernelLost(self.lost)
        match answer:
            case {"id": str(echoed), "value": value} if echoed == identity and len(answer) == 2:
                return value
            case {"id": str(echoed), "error": kind, "message": message} if echoed == identity:
                reason = _reason(op, arguments, str(kind), printable(message, 200))
                raise (Raised if kind == "raised" else NoValue)(reason)
        self.lost = "the notebook answered something that was not asked"
        raise KernelLost(self.lost)

    # -- names and functions ---------------------------------------------------------------

    def describe(self, *names: str) -> list[dict[str, Any]]:
        """Per name: kind, type, shape (−1 unknown, None no shape) and dtype."""
        found = self.ask("describe", names=list(names))
        if not isinstance(found, list) or len(found) != len(names):
            raise NoValue("the notebook's names could not be read")
        return [_description(entry) for entry in found]

    def value(self, name: str) -> Any:
        """A variable outside the graph."""
        return self.ask("value", name=name)

    def call(self, name: str, *args: Any, seconds: float = ASK_SECONDS, **kwargs: Any) -> Any:
        """What the notebook's function `name` returns; tensors come back evaluated.

        An argument ``{"name": n}`` stands for the notebook's own object `n`.
        """
        return self.ask("call", seconds=seconds, name=name, args=list(args), kwargs=kwargs)

    # -- graphs ----------------------------------------------------------------------------

    def session(self, of: str, values: Mapping[str, np.ndarray] | None = None) -> Session:
        """A new session on the graph of tensor `of`.

        Variables start with `values`, given by their notebook names or graph names; the others
        are freshly initialised.
        """
        self._sessions += 1
        name = f"checks-{self._sessions}"
        self.ask("open_session", session=name, of=of, values=dict(values or {}))
        return Session(self, name)

    def student_session(self) -> Session:
        """The student's own session `sess`, as training left it."""
        return Session(self, "student")

    def variables(self, of: str) -> list[dict[str, Any]]:
        """The graph's variables: name, names in the notebook, shape, dtype, trainable."""
        found = self.ask("variables", of=of)
        if not isinstance(found, list):
            raise NoValue("the graph's variables could not be read")
        return [_variable(entry) for entry in found]

    def learns(self, of: str, *names: str) -> list[bool]:
        """Whether the tensor `of` has a gradient by each of these variables (graph names)."""
        found = self.ask("learns", of=of, names=list(names))
        if not isinstance(found, list) or len(found) != len(names):
            raise NoValue(f"the gradients of {of} could not be read")
        return [entry is True for entry in found]

    def saved(self, name: str) -> list[str]:
        """Graph names of the variables that the notebook's Saver `name` writes."""
        found = self.ask("saved", name=name)
        if not isinstance(found, list):
            raise NoValue(f"what {name} saves could not be read")
        return [str(entry) for entry in found]

    def figure(self, name: str) -> list[dict[str, Any]]:
        """Per axes of a figure: images, points, bars, ylim, title."""
        found = self.ask("figure", name=name)
        axes = found.get("axes") if isinstance(found, dict) else None
        if not isinstance(axes, list):
            raise NoValue(f"{name} could not be read as a figure")
        read = [_axes(name, entry) for entry in axes]
        if sum(1 + len(ax["images"]) + len(ax["points"]) for ax in read) > FIGURE_LIMIT:
            raise NoValue(f"{name} shows more than can be looked at")
        return read


def _description(entry: Any) -> dict[str, Any]:
    match entry:
        case {"kind": str(kind), "type": str(type_), "shape": shape, "dtype": str(dtype)} if (
            shape is None or _is_shape(shape)
        ):
            return {
                "kind": kind[:40],
                "type": type_[:200],
                "shape": shape,
                "dtype": dtype[:40],
            }
    raise NoValue("the notebook's names could not be read")


def _variable(entry: Any) -> dict[str, Any]:
    match entry:
        case {
            "name": str(name),
            "names": list(names),
            "shape": list(shape),
            "dtype": str(dtype),
            "trainable": bool(trainable),
        } if _is_shape(shape) and all(isinstance(other, str) for other in names):
            return {
                "name": name,
                "names": names,
                "shape": shape,
                "dtype": dtype[:40],
                "trainable": trainable,
            }
    raise NoValue("the graph's variables could not be read")


def _is_shape(shape: Any) -> bool:
    """Whether this is a shape as TensorFlow gives it: at most 8 axes, −1 for what is open."""
    return (
        isinstance(shape, list)
        and len(shape) <= 8
        and all(type(n) is int and -1 <= n < 1 << 40 for n in shape)
    )


def _axes(figure: str, entry: Any) -> dict[str, Any]:
    match entry:
        case {
            "images": list(images),
            "points": list(points),
            "bars": np.ndarray() as bars,
            "ylim": [int() | float() as low, int() | float() as high],
            "title": str(title),
        } if all(isinstance(image, np.ndarray) for image in images):
            groups = [_points(figure, group) for group in points]
            return {
                "images": images,
                "points": groups,
                "bars": bars,
                "ylim": [low, high],
                "title": title[:1000],
            }
    raise NoValue(f"{figure} could not be read as a figure")


def _points(figure: str, entry: Any) -> dict[str, Any]:
    match entry:
        case {"offsets": np.ndarray() as offsets, "vertices": np.ndarray() as vertices}:
            return {"offsets": offsets, "vertices": vertices}
    raise NoValue(f"{figure} could not be read as a figure")


class Session:
    """One TensorFlow session in the kernel."""

    def __init__(self, values: Values, name: str) -> None:
        self._values, self._name = values, name

    def fetch(self, *names: str, feed: dict[str, Any] | None = None) -> Any:
        """The values of tensors: one array for one name, else a list of arrays."""
        arrays = _arrays(names, self._run(list(names), feed or {}, 1))
        return arrays[0] if len(names) == 1 else arrays

    def step(self, operation: str, feed: dict[str, Any], times: int = 1) -> None:
        """Run an operation (a training step) `times` times on the same feed."""
        self._run([operation], feed, times)

    def _run(self, fetch: list[str], feed: dict[str, Any], times: int) -> list[Any]:
        fetched = self._values.ask("run", session=self._name, fetch=fetch, feed=feed, times=times)
        if not isinstance(fetched, list) or len(fetched) != len(fetch):
            raise NoValue(f"{', '.join(fetch)} could not be evaluated")
        return fetched

    def initialised(self, *names: str) -> list[bool]:
        """Whether each of these variables (graph names) has a value."""
        found = self._values.ask("initialised", session=self._name, names=list(names))
        if not isinstance(found, list) or len(found) != len(names):
            raise NoValue("the variables could not be read")
        return [entry is True for entry in found]

    def assign(self, **values: np.ndarray) -> None:
        """Load arrays into variables, given by their notebook names or graph names."""
        self._values.ask("assign", session=self._name, values=values)

    def variable_values(self, *names: str) -> list[np.ndarray]:
        """The values of variables, given by their notebook names or graph names."""
        found = self._values.ask("variable_values", session=self._name, names=list(names))
        if not isinstance(found, list) or len(found) != len(names):
            raise NoValue("the variables could not be read")
        return _arrays(names, found)


def _arrays(names: tuple[str, ...], values: list[Any]) -> list[np.ndarray]:
    """`values`, if they are arrays; a kernel that is honest sends nothing else for tensors."""
    if not all(isinstance(value, np.ndarray) for value in values):
        raise NoValue(f"{', '.join(names)} could not be evaluated")
    return values


def _reason(op: str, arguments: dict[str, Any], kind: str, message: str) -> str:
    match kind:
        case "missing":
            return f"{message} is not there: not done yet, or under another name"
        case "todo":
            return message or "not done yet"
    subject = arguments.get("name") or ", ".join(map(str, arguments.get("fetch", []))) or op
    return f"{subject} raised {message}"
