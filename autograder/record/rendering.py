"""Renders pages in the sandbox, in forks of a warm interpreter that holds no secret and no lock.

The first page of a command starts the interpreter; it ends with the command.
"""

from __future__ import annotations

import atexit
import json
import threading
from typing import Any

import numpy as np

from autograder.engine.errand import Overrun, ask
from autograder.engine.sandbox import Sandbox, sandbox
from autograder.engine.warm import WarmInterpreter, WarmLost
from autograder.errors import GraderFault, UserError, printable
from autograder.kernel.child import GB, Limits

LIMITS = Limits(memory=GB, disk=1 << 20, files=10, processes=2, cpu=12)
SECONDS = 60.0  # wall time, generous for a busy machine; `cpu` is the effective limit
MODULES = ("numpy.random", "pyseccomp", "autograder.kernel.page")


class NotRendered(Exception):
    """The page could not be rendered; the message is shown to the reader."""


class Renderer:
    """Renders pages with one warm interpreter, started on first use and shared by all threads.

    With `unconfined`, it renders even where this machine allows no confinement.
    """

    def __init__(self, unconfined: bool = False) -> None:
        self._unconfined = unconfined
        self._mutex = threading.Lock()
        self._warm: WarmInterpreter | None = None
        self._sandbox: Sandbox | None = None

    def render(self, asked: dict[str, Any], shared: tuple[str, ...]) -> str:
        """Render a page with `kernel.page`.

        Args:
            asked: the input of `kernel.page`, as plain data.
            shared: folders with templates, readable in the sandbox.

        Raises:
            NotRendered: there is no page within the limits on time, memory and output.

        """
        data = np.frombuffer(json.dumps(asked).encode(), np.uint8)
        question = {"op": "page", "data": data}
        try:
            place = self._start()
            answer = ask(place, "page", question, limits=LIMITS, seconds=SECONDS, shared=shared)
        except Overrun as error:
            raise NotRendered(str(error) or "ended what renders it") from error
        except (GraderFault, WarmLost, UserError) as error:
            raise NotRendered(f"could not be rendered here ({error})") from error
        match answer:
            case {"value": {"page": np.ndarray() as page}} if page.dtype == np.uint8:
                return page.tobytes().decode("utf-8", "replace")
        raise NotRendered(f"could not be rendered ({printable(answer.get('message', ''), 200)})")

    def _start(self) -> Sandbox:
        """Start the interpreter if needed.

        Raises UserError if this machine cannot confine it.
        """
        with self._mutex:
            if self._warm is not None and self._warm.ended:
                self.close()
            if self._sandbox is None:
                self._warm = self._warm or WarmInterpreter(*MODULES)
                self._sandbox = sandbox(self._warm, self._unconfined)
            return self._sandbox

    def close(self) -> None:
        """End the interpreter, even while it renders."""
        if self._warm is not None:
            self._warm.close()
        self._warm = self._sandbox = None


_renderers: dict[bool, Renderer] = {}


def renderer(unconfined: bool = False) -> Renderer:
    """The renderer of this process."""
    if unconfined not in _renderers:
        _renderers[unconfined] = Renderer(unconfined)
        atexit.register(_renderers[unconfined].close)
    return _renderers[unconfined]
