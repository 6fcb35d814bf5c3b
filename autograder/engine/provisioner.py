"""Kernels for `jupyter_client` that are forked from the warm interpreter.

jupyter_client starts kernels through provisioners; with this one nbclient, and so everything
built on it, gets a forked and confined kernel without knowing.  Kernel and client talk over
Unix sockets in a private folder: no TCP port is opened.
"""

from __future__ import annotations

import asyncio
import time
import typing
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
from autograder.kernel.child import Order

NAME = "autograder-warm"
SOCKET_OPTIONS = {
    # Together they bound what waits here while nobody reads.
    zmq.MAXMSGSIZE: 256 << 20,  # bytes of one part of a message
    zmq.RCVHWM: 50,  # messages of one channel
    # A kernel needs some 0.1 s until it listens, and ZeroMQ would let up to 0.1 s more pass.
    zmq.RECONNECT_IVL: 5,  # ms
}


class WarmProvisioner(KernelProvisionerBase):  # type: ignore[misc]
    """Starts one kernel by an order to the warm interpreter."""

    address = Unicode(config=True)
    order = Any(config=True)
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
        """Send `signum` to the kernel."""
        if self.process:
            self.process.signal(signum)

    async def kill(self, restart: bool = False) -> None:
        """End the kernel and everything it started."""
        if self.process:
            self.process.kill()

    async def terminate(self, restart: bool = False) -> None:
        """End the kernel; there is nothing in it worth a gentler way."""
        await self.kill(restart)

    async def cleanup(self, restart: bool = False) -> None:
        """Forget the kernel."""
        self.process = None

    async def pre_launch(self, **kwargs: typing.Any) -> dict[str, typing.Any]:
        """Write the connection file."""
        manager = self.parent
        manager.write_connection_file()
        self.connection_info = manager.get_connection_info()
        launch: dict[str, typing.Any] = await super().pre_launch(cmd=[NAME], **kwargs)
        return launch

    async def launch_kernel(self, cmd: list[str], **kwargs: typing.Any) -> KernelConnectionInfo:
        """Order the kernel; the child finds its connection file by the order's path."""
        assert self.order is not None
        self.process = Forked(self.address, self.order, self.values, self.log_descriptor)
        return self.connection_info


class _PromptClient(AsyncKernelClient):  # type: ignore[misc]
    """A client that does not wait for 0.2 s of silence before it calls a kernel ready."""

    @default("context")  # type: ignore[untyped-decorator]
    def _bounded_context(self) -> zmq.asyncio.Context:
        self._created_context = True
        context = zmq.asyncio.Context()
        for option, value in SOCKET_OPTIONS.items():
            context.setsockopt(option, value)
        return context

    async def wait_for_ready(self, timeout: float = 60) -> None:
        """Return once the kernel answers and its messages arrive; RuntimeError if it does not."""
        deadline = time.monotonic() + timeout
        while True:
            self.kernel_info()
            try:
                await self.get_shell_msg(timeout=1)
                await self.get_iopub_msg(timeout=1)  # what comes later has no cell waiting for it
                return
            except Empty:
                if time.monotonic() > deadline or not await self.is_alive():
                    raise RuntimeError("the kernel did not become ready") from None


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


def kernel_manager(address: str, order: Order, values: int, log: int) -> AsyncKernelManager:
    """A manager whose `start_kernel` forks a kernel as `order` says.

    Connection file and sockets stand in `order.runtime`.
    """
    specs = _WarmSpecs()
    specs.config_of_kernel = {
        "address": address,
        "order": order,
        "values": values,
        "log_descriptor": log,
    }
    return AsyncKernelManager(
        transport="ipc",
        ip=f"{order.runtime}/k",
        connection_file=f"{order.runtime}/kernel.json",
        kernel_spec_manager=specs,
        kernel_name=NAME,
        client_factory=_PromptClient,
        shutdown_wait_time=0.1,
    )
