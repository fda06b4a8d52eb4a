"""The reserved name that leads to the secret broker: it is told who asks, by whom the socket belongs to."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from corekit.netrules.reasons import Reason
from sandboxes.egress.refusals import Refused
from sandboxes.egress.wire import Wire

if TYPE_CHECKING:
    from sandboxes.egress.registry import Sandbox
    from sandboxes.egress.services import Services


def identity(sandbox: Sandbox) -> list[tuple[bytes, bytes]]:
    """Return the headers that only egress may set."""
    return [
        (b"Gatehouse-Sandbox-Id", sandbox.id.encode()),
        (b"Gatehouse-Sandbox-Generation", str(sandbox.generation).encode()),
    ]


def connect(services: Services) -> Wire:
    """Connect to the broker. Raises Refused with 503 where there is none."""
    path = services.settings.broker_socket
    if path is None:
        raise Refused(Reason.CONNECT_FAILED, status=503)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        # At once, or not at all: a unix socket whose queue is full says so.
        sock.connect(str(path))
    except OSError:
        sock.close()
        raise Refused(Reason.CONNECT_FAILED, status=503) from None
    return Wire(services.poller, sock, asyncio.get_running_loop())
