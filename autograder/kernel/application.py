"""An IPython kernel that listens on sockets it was given, and makes none itself."""

from __future__ import annotations

from typing import Any

import zmq
from ipykernel.kernelapp import IPKernelApp
from traitlets import Dict, Type, Unicode

from autograder.kernel.shell import Kernel


class Application(IPKernelApp):  # type: ignore[misc]
    """A kernel without connection file, heartbeat, or any channel but those it has sockets for.

    listeners: port → descriptor of a listening Unix socket; signing_key: of the messages.
    """

    kernel_class = Type(Kernel)
    listeners = Dict()
    signing_key = Unicode()

    def init_connection_file(self) -> None:
        """Take what a connection file would say from this object."""
        self.transport, self.ip = "ipc", "k"
        self.session.key = self.signing_key.encode()
        for port, name in enumerate(("shell", "iopub", "stdin", "control", "hb"), start=1):
            setattr(self, f"{name}_port", port)

    def write_connection_file(self, **kwargs: Any) -> None:
        """Nobody else is to connect."""

    def _bind_socket(self, s: Any, port: int) -> int:
        if port in self.listeners:
            s.setsockopt(zmq.USE_FD, self.listeners[port])
            s.bind(f"ipc://{self.ip}-{port}")  # ZeroMQ wants a name, and leaves it alone
        return port

    def init_control(self, context: Any) -> None:
        """Without the debugger's own connection, which would be tried again and again."""
        super().init_control(context)
        self.debug_shell_socket.disconnect(self.shell_socket.getsockopt(zmq.LAST_ENDPOINT))

    def init_heartbeat(self) -> None:
        """Whether the process lives is asked of the warm interpreter."""
