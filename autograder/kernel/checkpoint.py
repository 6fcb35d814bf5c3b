"""Reads a checkpoint's tensors, in a separate process that has run no student code.

It reads only the tensors (`<prefix>.index` and its data files) and never opens `.meta` graphs,
SavedModels or pickles.  TensorFlow's own reader does the parsing, so a malformed file can at worst
end this process.
"""

from __future__ import annotations

import math
import socket
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow.compat.v1 as tf

from autograder import wire


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """The answer to ``{"op": "tensors", "prefix", "names" | None}``: `{name: array}`.

    If names is None, every numeric tensor of the checkpoint is read.  An error states in "needs"
    how many bytes of data the index lists; None if the index cannot be read.
    """
    identity = question.get("id")
    needs = None
    try:
        reader = tf.train.load_checkpoint(str(Path.cwd() / question["prefix"]))
        needs = _bytes_of_data(reader)
        wanted = question["names"]
        found = reader.get_variable_to_shape_map()
        names = sorted(found) if wanted is None else wanted
        tensors = {name: np.asarray(reader.get_tensor(name)) for name in names}
        numeric = {name: a for name, a in tensors.items() if a.dtype.name in wire.DTYPES}
        return {"id": identity, "value": numeric}
    except Exception as error:
        message = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        return {"id": identity, "error": "raised", "message": message, "needs": needs}


def _bytes_of_data(reader: Any) -> int:
    """The size in bytes of the numeric tensors that a checkpoint's index lists."""
    shapes, types = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    return sum(
        math.prod(shape) * types[name].size
        for name, shape in shapes.items()
        if types[name].name in wire.DTYPES
    )


def serve(connection: socket.socket) -> None:
    """Answer questions until the other side closes the connection."""
    while True:
        try:
            question = wire.receive(connection)
        except wire.WireClosed:
            return
        reply = answer(question)
        try:
            wire.send(connection, reply)
        except wire.WireError as error:
            wire.send(
                connection,
                {"id": question.get("id"), "error": "raised", "message": str(error)},
            )
