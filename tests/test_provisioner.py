"""The sockets through which a kernel is spoken to are bounded."""

from __future__ import annotations

from pathlib import Path

import zmq

from autograder.engine.provisioner import kernel_manager
from autograder.kernel.child import Order


def test_what_waits_of_a_kernel_is_bounded(tmp_path: Path) -> None:
    """On the sockets that nbclient reads, not on those of another context."""
    order = Order(entry="kernel", level="namespaces", scratch=str(tmp_path), runtime=str(tmp_path))
    manager = kernel_manager(str(tmp_path / "socket"), order, 0, 1)
    manager.write_connection_file()
    client = manager.client()
    try:
        for socket in (client.connect_iopub(), client.connect_shell()):
            assert socket.getsockopt(zmq.MAXMSGSIZE) == 256 << 20
            assert socket.getsockopt(zmq.RCVHWM) == 50
            socket.close(linger=0)
    finally:
        client.context.destroy(linger=0)
        manager.context.destroy(linger=0)
