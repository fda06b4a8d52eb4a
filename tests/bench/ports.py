"""A request to a server inside a sandbox: by the public port, and by the guest agent's own tunnel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from e2b import Sandbox

from tests.gateway.realports import Port, listen
from tests.live import UnixConnection

if TYPE_CHECKING:
    import http.client
    from collections.abc import Callable
    from pathlib import Path

    from tests.live import Stack

_PORT = 8080


class Tunnel(UnixConnection):
    """A connection to a port of a sandbox through nothing but its agent."""

    def connect(self) -> None:
        """Connect to the agent and have it dial the port."""
        super().connect()
        self.sock.sendall(f"CONNECT 127.0.0.1:{_PORT} HTTP/1.1\r\nHost: guest\r\n\r\n".encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.sock.recv(1)
        if b" 200 " not in head:
            raise ConnectionRefusedError(head.decode(errors="replace"))


def measure_ports(
    stack: Stack, guest_socket: Callable[[Stack], Path], repeat: Callable[[int, Callable[[], object]], list[float]]
) -> tuple[list[float], list[float]]:
    """Return the times of requests on a kept connection, through the gateway and past it."""
    with Sandbox.create(timeout=300, **stack.sdk) as sandbox:
        listen(sandbox, "127.0.0.1", _PORT)
        direct = Tunnel(guest_socket(stack))
        with Port(stack, sandbox, _PORT) as port:
            public = repeat(300, lambda: port.seen("GET", "/"))
        bare = repeat(300, lambda: _get(direct))
        direct.close()
    return public, bare


def _get(connection: http.client.HTTPConnection) -> bytes:
    connection.request("GET", "/")
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"the server answered {answer.status}")
    return body
