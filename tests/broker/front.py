"""A stand-in for the way out of a sandbox: a port that adds who asks to each request and leads to the broker."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

from tests.broker.proxyplace import ALICE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# One request a connection, so that none goes without it.
_SAID = b"Gatehouse-Sandbox-Id: %s\r\nGatehouse-Sandbox-Generation: 1\r\nConnection: close\r\n" % ALICE.encode()


def _serve(client: socket.socket, broker: Path) -> None:
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with client, server, contextlib.suppress(OSError):
        server.connect(str(broker))
        head = b""
        while b"\r\n" not in head:
            piece = client.recv(65_536)
            if not piece:
                return
            head += piece
        line, _, rest = head.partition(b"\r\n")
        server.sendall(line + b"\r\n" + _SAID + rest)
        threading.Thread(target=_pass, args=(client, server), daemon=True).start()
        while data := server.recv(65_536):
            client.sendall(data)
        # Closing alone would wait for the other thread, which reads.
        client.shutdown(socket.SHUT_RDWR)


def _pass(client: socket.socket, server: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := client.recv(65_536):
            server.sendall(data)


@contextlib.contextmanager
def running(broker: Path) -> Iterator[str]:
    """Listen until the block ends; give the URL."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=_serve, args=(client, broker), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)
