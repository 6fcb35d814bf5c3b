"""The sockets between grader and kernel: bounded, and connected only once."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from autograder.engine.provisioner import Listeners, kernel_manager
from autograder.kernel.child import PORTS, Order


@pytest.fixture
def listeners(tmp_path: Path) -> Iterator[Listeners]:
    made = Listeners(tmp_path)
    yield made
    made.close()


def test_what_waits_of_a_kernel_is_bounded(tmp_path: Path, listeners: Listeners) -> None:
    """On the sockets that nbclient reads, but not on those of another ZeroMQ context."""
    order = Order(entry="kernel", level="namespaces", scratch=str(tmp_path))
    manager = kernel_manager(str(tmp_path / "socket"), order, listeners, 0, 1)
    client = manager.client()
    client.start_channels()
    try:
        for channel in (client.iopub_channel, client.shell_channel):
            assert channel.socket.getsockopt(zmq.MAXMSGSIZE) == 256 << 20
            assert channel.socket.getsockopt(zmq.RCVHWM) == 50
    finally:
        client.stop_channels()


def test_nothing_is_told_to_a_watch_that_has_closed(
    tmp_path: Path, listeners: Listeners, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ZeroMQ's monitoring thread would otherwise hang or end the process."""
    order = Order(entry="kernel", level="namespaces", scratch=str(tmp_path))
    client = kernel_manager(str(tmp_path / "socket"), order, listeners, 0, 1).client()
    done: list[tuple[str, int]] = []
    switch_off, close = zmq.Socket.disable_monitor, zmq.Socket.close

    def unwatched(socket: zmq.Socket[bytes]) -> None:
        done.append(("unwatched", socket.socket_type))
        switch_off(socket)

    def closed(socket: zmq.Socket[bytes], linger: int | None = None) -> None:
        done.append(("closed", socket.socket_type))
        close(socket, linger)

    monkeypatch.setattr(zmq.Socket, "disable_monitor", unwatched)
    monkeypatch.setattr(zmq.Socket, "close", closed)
    client.start_channels()
    client.stop_channels()
    first = next(place for place, (what, _) in enumerate(done) if what == "closed")
    assert done[first] == ("closed", zmq.PAIR)
    assert done[:first] == [("unwatched", zmq.DEALER), ("unwatched", zmq.SUB)]


def test_listening_sockets_can_be_reached_wherever_their_folder_lies(tmp_path: Path) -> None:
    """The path of a socket is limited to 107 bytes."""
    deep = tmp_path.joinpath(*["a folder with a long name"] * 8)
    deep.mkdir(parents=True)
    assert len(str(deep)) > 200
    listeners = Listeners(deep)
    for port in PORTS.values():
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"{listeners.address}-{port}")
    shutil.rmtree(deep)
    deep.mkdir()
    with socket.socket(socket.AF_UNIX) as client, pytest.raises(FileNotFoundError):
        client.connect(f"{listeners.address}-1")
    listeners.close()


def test_the_address_stays_with_its_folder(tmp_path: Path, listeners: Listeners) -> None:
    """Even if another folder takes its place."""
    tmp_path.rename(tmp_path.with_name("moved"))
    tmp_path.mkdir()
    with socket.socket(socket.AF_UNIX) as elsewhere:
        elsewhere.bind(str(tmp_path / "k-1"))
        elsewhere.listen(1)
        elsewhere.setblocking(False)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"{listeners.address}-1")
        with pytest.raises(BlockingIOError):
            elsewhere.accept()


def test_a_lost_connection_is_noticed_and_not_made_again(
    tmp_path: Path, listeners: Listeners
) -> None:
    """Not even to a socket that listens under the same name."""
    order = Order(entry="kernel", level="namespaces", scratch=str(tmp_path))
    client = kernel_manager(str(tmp_path / "socket"), order, listeners, 0, 1).client()
    kernels = [socket.socket(fileno=os.dup(number)) for number in listeners.descriptors()]
    client.start_channels()
    try:
        connections = [kernel.accept()[0] for kernel in kernels]
        assert not client.lost()
        for each in connections:
            each.close()
        watches = [watch.poll(10_000) for watch in client._watches]
        assert all(watches)
        assert client.lost()
        for kernel in kernels:
            kernel.settimeout(0.5)
            with pytest.raises(TimeoutError):
                kernel.accept()
    finally:
        client.stop_channels()
        for kernel in kernels:
            kernel.close()
