"""Determines what a session would do for a fetch, from the operations the fetch depends on.

A *training step* is an operation that applies gradients: an optimizer's own (`ApplyAdam`,
`ResourceApplyGradientDescent`, …), or a hand-written assignment of floats that are computed from
the feed and from the variable itself (`w.assign_sub(rate * gradient)`).
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import tensorflow.compat.v1 as tf

Operation = Any  # tf.Operation, whose type TensorFlow does not publish

_APPLIES = re.compile(r"(Resource)?(Sparse)?Apply[A-Z]\w*")
_ASSIGNS = re.compile(r"(Resource)?(Assign|Scatter)\w*")
_ASKS = ("ReadVariableOp", "VarIsInitializedOp", "VariableShape", "ResourceGather")
_VARIABLES = ("Variable", "VariableV2", "VarHandleOp")
_FED = ("Placeholder", "PlaceholderWithDefault")
_SCOPE = "without_training/"


@dataclass
class Subgraph:
    """All operations that some operation depends on, including itself.

    Attributes:
        operations: all of them.
        applying: those that make it a training step, and assignments of floats that depend on them.
        writing: those that may change a variable.
        changes: the names of these variables.
        varies: whether its values may differ for the same variables and the same feed.
        saves: whether it writes a checkpoint.
        restores: whether it reads a checkpoint.

    """

    operations: set[Operation]
    applying: set[Operation] = field(default_factory=set)
    writing: set[Operation] = field(default_factory=set)
    changes: set[str] = field(default_factory=set)
    varies: bool = False
    saves: bool = False
    restores: bool = False


class Graph:
    """What the operations of one graph do; answers are cached."""

    def __init__(self) -> None:
        self._found: dict[Operation, Subgraph] = {}
        self._copies: dict[Operation, Operation] = {}
        self._of_steps: set[Operation] = set()  # these apply gradients
        self._no_steps: set[Operation] = set()  # these assign something else

    def behind(self, operation: Operation) -> Subgraph:
        """The subgraph of `operation`."""
        if operation not in self._found:
            self._found[operation] = self._look(operation)
        return self._found[operation]

    def _look(self, operation: Operation) -> Subgraph:
        found = Subgraph(_ancestors([operation]))
        for each in found.operations:
            if _writes(each):
                found.writing.add(each)
                found.changes.add(_variable(each))
            elif each.op_def.is_stateful and each.type not in (*_VARIABLES, *_ASKS):
                found.varies = True
            found.saves = found.saves or each.type == "SaveV2"
            found.restores = found.restores or each.type == "RestoreV2"
        found.applying = {each for each in found.writing if self._applies(each)}
        if found.applying:
            behind = _descendants(found.applying, found.operations)
            found.applying |= {e for e in found.writing & behind if _is_of_floats(e)}
        return found

    def _applies(self, operation: Operation) -> bool:
        if operation not in self._of_steps | self._no_steps:
            applies = _APPLIES.fullmatch(operation.type) or _applies_by_hand(operation)
            (self._of_steps if applies else self._no_steps).add(operation)
        return operation in self._of_steps

    def without_applying(self, fetched: Any) -> list[Any]:
        """What to fetch instead of a tensor or operation so that no gradient is applied.

        For a tensor this is one tensor, for an operation everything else it would change.  Where
        that depends on an omitted operation, a copy without it is created.  Raises TensorFlow's
        errors when there can be no copy.
        """
        if not isinstance(fetched, tf.Operation):
            return [self._copy_of_tensor(fetched)]
        found = self.behind(fetched)
        return [self._copy(operation) for operation in found.writing - found.applying]

    def _copy_of_tensor(self, tensor: Any) -> Any:
        found = self.behind(tensor.op)
        if tensor.op in found.applying:
            return tensor.op.inputs[0]  # the variable as it is
        return self._copy(tensor.op).outputs[tensor.value_index]

    def _copy(self, operation: Operation) -> Operation:
        """The operation, or a copy that does not depend on operations that apply gradients."""
        found = self.behind(operation)
        if not found.applying:
            return operation
        if operation not in self._copies:
            inputs = [self._copy_of_tensor(tensor) for tensor in operation.inputs]
            before = [
                self._copy(other)
                for other in operation.control_inputs
                if other not in found.applying
            ]
            with (
                operation.graph.as_default(),
                tf.control_dependencies(None),
                tf.name_scope(_SCOPE),
                tf.control_dependencies(before),
            ):
                self._copies[operation] = operation.graph.create_op(
                    operation.type,
                    inputs,
                    [tensor.dtype for tensor in operation.outputs],
                    attrs=dict(operation.node_def.attr),
                )
        return self._copies[operation]


_graphs: weakref.WeakKeyDictionary[Any, Graph] = weakref.WeakKeyDictionary()


def of_graph(graph: Any) -> Graph:
    """The `Graph` of a `tf.Graph`."""
    return _graphs.setdefault(graph, Graph())


def _ancestors(operations: Iterable[Operation]) -> set[Operation]:
    found: set[Operation] = set()
    ahead = list(operations)
    while ahead:
        operation = ahead.pop()
        if operation not in found:
            found.add(operation)
            ahead += [tensor.op for tensor in operation.inputs]
            ahead += operation.control_inputs
    return found


def _descendants(operations: set[Operation], within: set[Operation]) -> set[Operation]:
    """Operations in `within` that depend on one of the given operations."""
    followers: dict[Operation, list[Operation]] = {}
    for each in within:
        for before in [*(tensor.op for tensor in each.inputs), *each.control_inputs]:
            followers.setdefault(before, []).append(each)
    found: set[Operation] = set()
    ahead = list(operations)
    while ahead:
        for follower in followers.get(ahead.pop(), []):
            if follower not in found:
                found.add(follower)
                ahead.append(follower)
    return found


def _writes(operation: Operation) -> bool:
    if any(argument.is_ref for argument in operation.op_def.input_arg):
        return bool(operation.type != "IsVariableInitialized")
    takes_variable = any(tensor.dtype == tf.resource for tensor in operation.inputs)
    return bool(operation.op_def.is_stateful and takes_variable and operation.type not in _ASKS)


def _variable(operation: Operation) -> str:
    """The name of the variable that an operation changes, which is its first input."""
    source = operation.inputs[0].op
    while source.type not in _VARIABLES and len(source.inputs):
        source = source.inputs[0].op
    return str(source.name)


def _is_of_floats(operation: Operation) -> bool:
    kinds = [tensor.dtype.base_dtype for tensor in operation.inputs]
    return any(kind.is_floating for kind in kinds)


def _applies_by_hand(operation: Operation) -> bool:
    if not _ASSIGNS.fullmatch(operation.type) or not _is_of_floats(operation):
        return False
    before = _ancestors(tensor.op for tensor in list(operation.inputs)[1:])
    fed = any(e.type in _FED and e.outputs[0].dtype.is_floating for e in before)
    return fed and any(e.type in _VARIABLES and e.name == _variable(operation) for e in before)
