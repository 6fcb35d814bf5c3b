"""Kernels for `jupyter_client` that are forked from the warm interpreter.

jupyter_client starts kernels through provisioners.  With this one, nbclient and everything built on
it get a forked and confined kernel without knowing.  Kernel and client talk over Unix sockets; no
TCP port is opened.

The grader may reach what a kernel may not, so no kernel may decide what the grader connects to.
The grader makes the listening sockets itself, in a folder that no kernel sees, and passes their
file descriptors to the kernel.  It connects to each once and never reconnects.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
import typing
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from queue import Empty

import zmq
import zmq.asyncio
from jupyter_client.asynchronous import AsyncKernelClient
from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning import KernelProvisionerBase
from traitlets import Any, Integer, Unicode, default

from autograder.engine.warm import Forked
from autograder.kernel.child import PORTS, Order

NAME = "autograder-warm"
SOCKET_OPTIONS = {
    # Together these bound the data queued here while nobody reads.
    zmq.MAXMSGSIZE: 256 << 20,  # bytes of one part of a message
    zmq.RCVHWM: 50,  # messages of one channel
    # Milliseconds, so never: after a disconnect anybody may be listening.  With -1, which should
    # mean never, ZeroMQ drops a lost connection in the middle of a message, and then aborts
    # (fq.cpp, !_more).
    zmq.RECONNECT_IVL: 10**9,
}


class Listeners:
    """Sockets in `folder` on which one kernel will listen; the folder is the grader's alone.

    Their names begin with `address`, which is short wherever the folder lies and names the same
    folder until `close`, even if it is removed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.address = f"/proc/self/fd/{self._folder}/k"
        self._sockets = []
        try:
            for port in PORTS.values():
                self._sockets.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                self._sockets[-1].bind(f"{self.address}-{port}")
                self._sockets[-1].listen(1)
        except OSError:
            self.close()
            raise

    def descriptors(self) -> list[int]:
        """The file descriptors to pass to the kernel."""
        return [one.fileno() for one in self._sockets]

    def handed_over(self) -> None:
        """Close the sockets here; they are the kernel's now."""
        for one in self._sockets:
            one.close()

    def close(self) -> None:
        """Release the folder; `address` is invalid afterwards."""
        self.handed_over()
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1


class WarmProvisioner(KernelProvisionerBase):  # type: ignore[misc]
    """Starts one kernel by an order to the warm interpreter."""

    address = Unicode(config=True)
    order = Any(config=True)
    listeners = Any(config=True)
    values = Integer(config=True)
    log_descriptor = Integer(config=True)

    process: Forked | None = None

    @property
    def has_process(self) -> bool:
        """Whether a kernel process is being managed."""
        return self.process is not None

    async def poll(self) -> int | None:
        """The kernel's exit status, or None while it runs."""
        return self.process.poll() if self.process else 0

    async def wait(self) -> int | None:
        """Wait until the kernel has ended."""
        while self.process and self.process.poll() is None:
            await asyncio.sleep(0.02)
        return self.process.exit_status if self.process else 0

    async def send_signal(self, signum: int) -> None:
        """Send `signum` to the kernel, even if its code has stopped it."""
        if self.process:
            # A kernel that is not process 1 of a namespace can stop itself.
            self.process.signal(signal.SIGCONT)
            self.process.signal(signum)

    async def kill(self, restart: bool = False) -> None:
        """End the kernel and everything it started."""
        if self.process:
            self.process.kill()

    async def terminate(self, restart: bool = False) -> None:
        """End the kernel; nothing in it needs a graceful shutdown."""
        await self.kill(restart)

    async def cleanup(self, restart: bool = False) -> None:
        """Forget the kernel."""
        self.process = None

    async def pre_launch(self, **kwargs: typing.Any) -> dict[str, typing.Any]:
        """Set the connection info."""
        self.connection_info = self.parent.get_connection_info()
        launch: dict[str, typing.Any] = await super().pre_launch(cmd=[NAME], **kwargs)
        return launch

    async def launch_kernel(self, cmd: list[str], **kwargs: typing.Any) -> KernelConnectionInfo:
        """Order the kernel and pass it the sockets to listen on."""
        assert self.order is not None
        assert self.listeners is not None
        order = replace(self.order, signing_key=self.connection_info["key"].decode())
        self.process = Forked(
            self.address, order, self.values, self.log_descriptor, self.listeners.descriptors()
        )
        self.listeners.handed_over()
        return self.connection_info


class _PromptClient(AsyncKernelClient):  # type: ignore[misc]
    """A client of the two channels that running a notebook needs.

    It calls a kernel ready without first waiting for 0.2 s of silence.
    """

    @default("context")  # type: ignore[untyped-decorator]
    def _bounded_context(self) -> zmq.asyncio.Context:
        self._created_context = True
        context = zmq.asyncio.Context()
        for option, value in SOCKET_OPTIONS.items():
            context.setsockopt(option, value)
        return context

    async def wait_for_ready(self, timeout: float = 60) -> None:
        """Return once the kernel answers and its messages arrive; otherwise raise RuntimeError."""
        deadline = time.monotonic() + timeout
        while True:
            self.kernel_info()
            try:
                await self.get_shell_msg(timeout=1)
                await self.get_iopub_msg(timeout=1)  # no cell waits for later ones
                return
            except Empty:
                if time.monotonic() > deadline or not await self.is_alive():
                    raise RuntimeError("the kernel did not become ready") from None

    _watches: Sequence[zmq.Socket[bytes]] = ()

    def start_channels(self, *_: object, **__: object) -> None:
        """Connect to the kernel and monitor each connection."""
        super().start_channels(stdin=False, hb=False, control=False)
        plain: zmq.Context[zmq.Socket[bytes]] = zmq.Context.shadow(self.context.underlying)
        for name, channel in (("shell", self.shell_channel), ("iopub", self.iopub_channel)):
            channel.socket.monitor(f"inproc://{name}", zmq.EVENT_DISCONNECTED)
            watch = plain.socket(zmq.PAIR)
            watch.connect(f"inproc://{name}")
            self._watches = [*self._watches, watch]

    def stop_channels(self) -> None:
        """Close the connections; jupyter_client's method would open the other channels first."""
        # ZeroMQ's own thread may be reporting a disconnect to a monitor right now.
        for channel in (self.shell_channel, self.iopub_channel):
            channel.socket.disable_monitor()
        for watch in self._watches:
            watch.close(linger=0)
        self.context.destroy(linger=100)

    def lost(self) -> bool:
        """Whether a connection to the kernel has ended.

        Call this from one thread only, and only before `stop_channels`.
        """
        return any(watch.poll(0) for watch in self._watches)


class _WarmSpecs(KernelSpecManager):  # type: ignore[misc]
    """Gives every notebook the same kernel, whatever kernelspec it names."""

    config_of_kernel: dict[str, typing.Any]

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        return KernelSpec(
            argv=[NAME],
            display_name="Python 3",
            language="python",
            interrupt_mode="signal",
            metadata={
                "kernel_provisioner": {
                    "provisioner_name": NAME,
                    "config": self.config_of_kernel,
                }
            },
        )


class _WarmManager(AsyncKernelManager):  # type: ignore[misc]
    """A manager that writes no connection file and opens no connection itself."""

    def write_connection_file(self, **kwargs: typing.Any) -> None:
        pass

    def _connect_control_socket(self) -> None:
        pass


def kernel_manager(
    address: str, order: Order, listeners: Listeners, values: int, log: int
) -> AsyncKernelManager:
    """A manager whose `start_kernel` forks a kernel as `order` says, with these `listeners`."""
    specs = _WarmSpecs()
    specs.config_of_kernel = {
        "address": address,
        "order": order,
        "listeners": listeners,
        "values": values,
        "log_descriptor": log,
    }
    ports = {f"{channel}_port": port for channel, port in PORTS.items()}
    return _WarmManager(
        transport="ipc",
        ip=listeners.address,
        **ports,
        kernel_spec_manager=specs,
        kernel_name=NAME,
        client_factory=_PromptClient,
        shutdown_wait_time=0.1,
    )
