"""Asks a kernel for values: the only way from the checks zone into the kernel zone."""

from __future__ import annotations

import math
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from autograder import wire
from autograder.engine.clock import ASLEEP, BUSY, TOO_BUSY, Allowance, Clock
from autograder.engine.faults import NO_ROOM
from autograder.engine.figure import Figure, NotAFigure
from autograder.engine.figure import read as read_figure
from autograder.errors import GraderFault, cause_of, printable

ASK_SECONDS = 60.0  # by the kernel's clock


class NoValue(Exception):
    """A question got no usable answer; the text tells the student why, in one sentence."""


class Raised(NoValue):
    """The notebook's own code raised an error when it was asked."""


class KernelLost(NoValue):
    """The kernel ended or stopped answering; nothing more can be asked of it."""


@dataclass(frozen=True)
class TrainingLog:
    """How a session's variables got their values, as the kernel reports it.

    Attributes:
        steps: training steps since they were initialised; a restored checkpoint brings its own.
        sizes: number of rows in a batch → number of steps with such a batch.
        batches: the number of different batches.
        first: the feeds of the first three steps, by the notebook's names.
        saves: (path as given, steps so far) of each checkpoint, in order.
        evaluated: steps so far → rows that were fed then without training on them.
        alongside: number of a step that fetched more than itself → rows that it was fed.

    """

    steps: int
    sizes: dict[int, int]
    batches: int
    first: list[dict[str, np.ndarray]]
    saves: list[tuple[str, int]]
    evaluated: dict[int, int]
    alongside: dict[int, int]


class Values:
    """Questions to one kernel, each answered by plain values or by NoValue.

    The methods mirror `autograder.kernel.responder.Responder`; names are those of the notebook.

    clock: the kernel's; without one, wall time limits the answers.
    whole: the most that the clock may show.
    """

    def __init__(
        self, connection: socket.socket, clock: Clock | None = None, whole: float = math.inf
    ) -> None:
        self._connection = connection
        self._sessions = 0
        self._clock = clock or Clock()
        self._whole = whole
        self.lost = ""
        self.hung = False  # whether the kernel slept until the time for an answer was up
        self.no_room = False  # whether an answer said that the disk is full

    def ask(self, op: str, seconds: float = ASK_SECONDS, **arguments: Any) -> Any:
        """The answer to one question.

        seconds: how much of the kernel's clock it may take (see `Allowance`).

        Raises NoValue when the kernel gives a reason, KernelLost when it answers nothing usable,
        GraderFault when this machine had no time for it.
        """
        if self.lost:
            raise KernelLost(self.lost)
        identity = secrets.token_hex(8)
        left = self._whole - self._clock.used
        allowed = Allowance(self._clock, min(seconds, left))
        try:
            wire.send(self._connection, {"id": identity, "op": op, **arguments}, allowed.left)
            answer = wire.receive(self._connection, allowed.left)
        except wire.WireTimeout as error:
            if allowed.why == BUSY:
                raise GraderFault(TOO_BUSY) from error
            self.hung = allowed.why == ASLEEP
            self.lost = f"the notebook gave no answer within {seconds:.0f} s"
            if left < seconds:
                self.lost = "the notebook took too long over its answers"
        except (wire.WireError, OSError) as error:
            self.lost = f"the notebook stopped answering ({printable(error, 80)})"
        if self.lost:
            raise KernelLost(self.lost)
        match answer:
            case {"id": str(echoed), "value": value} if echoed == identity and len(answer) == 2:
                return value
            case {"id": str(echoed), "error": kind, "message": message} if echoed == identity:
                said = printable(cause_of(str(message)), 200)
                self.no_room = self.no_room or NO_ROOM in said
                reason = _reason(op, arguments, str(kind), said)
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
        """The value of a variable outside the graph."""
        return self.ask("value", name=name)

    def call(self, name: str, *args: Any, seconds: float = ASK_SECONDS, **kwargs: Any) -> Any:
        """What the notebook's function `name` returns; tensors come back evaluated.

        The argument ``{"name": n}`` stands for the notebook's own object `n`, ``{"lent": array}``
        for a read-only array that is not contiguous in memory.
        """
        return self.ask("call", seconds=seconds, name=name, args=list(args), kwargs=kwargs)

    def describe_call(self, name: str, *args: Any) -> dict[str, Any]:
        """Kind, type, shape and dtype, as in `describe`, of what the function `name` returns."""
        return _description(self.ask("describe_call", name=name, args=list(args)))

    # -- graphs ----------------------------------------------------------------------------

    def session(self, of: str, values: Mapping[str, np.ndarray] | None = None) -> Session:
        """A new session on the graph of tensor `of`.

        Variables start with `values`, given by their notebook names or graph names; the others are
        freshly initialised.
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
        """Whether `of` has a gradient with respect to each of these variables (graph names)."""
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

    def figure(self, name: str) -> Figure:
        """The contents of a figure: its axes with everything drawn in them, and its texts."""
        try:
            return read_figure(self.ask("figure", name=name))
        except NotAFigure as error:
            raise NoValue(f"{name} could not be read as a figure: {error}") from error


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


def _training_log(entry: Any) -> TrainingLog:
    match entry:
        case {
            "steps": int(steps),
            "sizes": np.ndarray() as sizes,
            "batches": int(batches),
            "first": list(first),
            "saves": list(saves),
            "evaluated": np.ndarray() as evaluated,
            "alongside": np.ndarray() as alongside,
        } if all(map(_is_feed, first)) and all(map(_is_save, saves)):
            return TrainingLog(
                steps=steps,
                sizes=_counted(sizes),
                batches=batches,
                first=first,
                saves=[(path, done) for path, done in saves],
                evaluated=_counted(evaluated),
                alongside=_counted(alongside),
            )
    raise NoValue("the training steps could not be read")


def _counted(pairs: np.ndarray) -> dict[int, int]:
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind != "i":
        raise NoValue("the training steps could not be read")
    return {int(what): int(count) for what, count in pairs}


def _is_feed(entry: Any) -> bool:
    return isinstance(entry, dict) and all(isinstance(a, np.ndarray) for a in entry.values())


def _is_save(entry: Any) -> bool:
    match entry:
        case [str(), int()]:
            return True
    return False


def _is_shape(shape: Any) -> bool:
    """Whether this is a shape as TensorFlow gives it: at most 8 axes, −1 for unknown lengths."""
    return (
        isinstance(shape, list)
        and len(shape) <= 8
        and all(type(n) is int and -1 <= n < 1 << 40 for n in shape)
    )


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

    def training_log(self) -> TrainingLog:
        """The log of the training steps that the notebook's cells have run in it."""
        return _training_log(self._values.ask("training_log", session=self._name))

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
    """`values`, if they are arrays; an honest kernel sends nothing else for tensors."""
    if not all(isinstance(value, np.ndarray) for value in values):
        raise NoValue(f"{', '.join(names)} could not be evaluated")
    return values


def _reason(op: str, arguments: dict[str, Any], kind: str, message: str) -> str:
    match kind:
        case "missing":
            return f"{message} is not there: not done yet, or under another name"
        case "todo":
            return message or "not done yet"
        case "unfit":
            return message
    names = arguments.get("fetch") or arguments.get("values") or []
    subject = arguments.get("name") or ", ".join(map(str, names)) or arguments.get("of") or op
    return f"{subject} raised {message}"
