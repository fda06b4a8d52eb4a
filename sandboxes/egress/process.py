"""One egress process, put together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING

from corekit.logs import logger
from sandboxes.egress.control import Control
from sandboxes.egress.credentials import Credentials
from sandboxes.egress.events import Outbox
from sandboxes.egress.flow import Flow
from sandboxes.egress.intercept import HostTrust
from sandboxes.egress.ownaddresses import OwnAddresses
from sandboxes.egress.poller import Poller
from sandboxes.egress.registry import Registry
from sandboxes.egress.resolver import Resolver
from sandboxes.egress.services import Services
from sandboxes.egress.serving import serve

if TYPE_CHECKING:
    from sandboxes.egress.registry import Sandbox
    from sandboxes.egress.settings import EgressSettings


def control_listener(settings: EgressSettings) -> socket.socket:
    """Return the socket that the node connects to: the one that was handed over, else one of its own."""
    if settings.control_fd is not None:
        return socket.socket(fileno=settings.control_fd)
    settings.control_socket.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(settings.control_socket))
    settings.control_socket.chmod(0o600)
    listener.listen(8)
    return listener


async def run(settings: EgressSettings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set."""
    limits = settings.limits
    outbox = Outbox(limits)
    resolver = Resolver(settings.resolvers, seconds=limits.resolve_seconds, ipv6=settings.ipv6)
    poller = Poller()
    credentials = Credentials(settings.internal_socket, poller, limits.connect_seconds)
    own, host_trust = OwnAddresses(settings.own), HostTrust(settings.ca_file)
    services = Services(settings, resolver, outbox, own, poller, credentials, host_trust)

    def accepted(sandbox: Sandbox, sock: socket.socket) -> Flow:
        return Flow(services, sandbox, sock, serve)

    registry = Registry(limits, accepted)
    # A node that did not start this process as another user talks to it as the same one.
    control = Control(control_listener(settings), registry, outbox)
    control.start()
    sweeping = asyncio.create_task(_sweep(registry, limits.sweep_seconds))
    logger.info("egress_ready", pid=os.getpid(), resolvers=[server for server, _ in settings.resolvers])
    await stop.wait()
    logger.info("egress_stopping")
    sweeping.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await sweeping
    await registry.close()
    outbox.settle()
    await control.hand_over(limits.farewell_seconds)
    control.close()
    credentials.close()
    poller.close()


async def _sweep(registry: Registry, every: float) -> None:
    """End what takes too long. One look at everything costs less than a timer for each flow."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(every)
        now = loop.time()
        for flow in registry.flows():
            flow.check(now)
