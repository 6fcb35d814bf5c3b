"""An IPython kernel that listens on the sockets it is given and makes none itself."""

from __future__ import annotations

from typing import Any

import zmq
from ipykernel.kernelapp import IPKernelApp
from traitlets import Dict, Type, Unicode

from autograder.kernel.shell import Kernel


class Application(IPKernelApp):  # type: ignore[misc]
    """A kernel without connection file or heartbeat, and only with channels it has sockets for.

    listeners: port → descriptor of a listening Unix socket.
    signing_key: the key that signs its messages.
    """

    kernel_class = Type(Kernel)
    listeners = Dict()
    signing_key = Unicode()

    def init_connection_file(self) -> None:
        """Set what a connection file would otherwise provide."""
        self.transport, self.ip = "ipc", "k"
        self.session.key = self.signing_key.encode()
        for port, name in enumerate(("shell", "iopub", "stdin", "control", "hb"), start=1):
            setattr(self, f"{name}_port", port)

    def write_connection_file(self, **kwargs: Any) -> None:
        """Write none, since nobody else may connect."""

    def _bind_socket(self, s: Any, port: int) -> int:
        if port in self.listeners:
            s.setsockopt(zmq.USE_FD, self.listeners[port])
            s.bind(f"ipc://{self.ip}-{port}")  # ZeroMQ requires a name but does not use it
        return port

    def init_control(self, context: Any) -> None:
        """Disconnect the debugger's own connection, which would be retried for ever."""
        super().init_control(context)
        self.debug_shell_socket.disconnect(self.shell_socket.getsockopt(zmq.LAST_ENDPOINT))

    def init_heartbeat(self) -> None:
        """Start none, since the warm interpreter knows whether the process lives."""
