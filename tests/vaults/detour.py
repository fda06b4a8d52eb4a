"""A proxy that leads a name to a port of this host: whoever goes through it keeps the name, and checks it."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK = 65536


class Detour(ThreadingHTTPServer):
    """Answers CONNECT. `ports` is where each name leads; `*.` before one stands for any single label."""

    daemon_threads = True

    def __init__(self, ports: dict[str, int]) -> None:
        super().__init__(("127.0.0.1", 0), _Tunnel)
        self.ports = ports

    @property
    def url(self) -> str:
        """What goes into HTTPS_PROXY."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def port_of(self, name: str) -> int | None:
        """Return where a name leads."""
        return self.ports.get(name) or self.ports.get(f"*.{name.partition('.')[2]}")


class _Tunnel(BaseHTTPRequestHandler):
    server: Detour

    def do_CONNECT(self) -> None:
        name, _, port = self.path.partition(":")
        local = self.server.port_of(name.lower())
        if local is None or port != "443":
            self.send_error(502, "no such way")
            return
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", local)) as far:
            self.send_response(200)
            self.end_headers()
            _relay(self.connection, far)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _relay(near: socket.socket, far: socket.socket) -> None:
    while True:
        ready, _, _ = select.select([near, far], [], [])
        for source, target in ((near, far), (far, near)):
            if source in ready:
                data = source.recv(_CHUNK)
                if not data:
                    return
                target.sendall(data)


@contextlib.contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[None]:
    """Let a server answer until the block ends."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
