"""Places operations softly, so that code written for a GPU runs on a machine without one."""

from __future__ import annotations

import functools
from typing import Any

import tensorflow.compat.v1 as tf
from tensorflow.python.client.session import BaseSession
from tensorflow.python.eager import context


def prepare_forks() -> None:
    """Make every session place softly, the student's and those of the checks.

    A session keeps its own configuration otherwise.
    """
    begin = BaseSession.__init__

    @functools.wraps(begin)
    def softly(
        self: BaseSession, target: Any = "", graph: tf.Graph | None = None, config: Any = None
    ) -> None:
        if config is None or isinstance(config, tf.ConfigProto):
            own = tf.ConfigProto()
            own.CopyFrom(context.context().config if config is None else config)
            own.allow_soft_placement = True
            config = own
        begin(self, target, graph, config)

    BaseSession.__init__ = softly
