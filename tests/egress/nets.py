"""Addresses of the internet of these tests, and sockets in it.

They look public, so that nothing has to be exempted from the table of special ranges.
"""

from __future__ import annotations

import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from tests.internet.namespaces import EGRESS_ADDRESS, enter, inside, linked_namespaces

if TYPE_CHECKING:
    from collections.abc import Iterator

RESOLVER = "45.79.0.53"
API, EVIL, OTHER, CORPORATE, SOCKS = "45.79.1.1", "45.79.1.66", "45.79.1.2", "45.79.1.3", "45.79.1.4"
SILENT = "45.79.1.9"  # takes no connections and refuses none
OWN = EGRESS_ADDRESS
INTERNAL = "10.20.0.5"
LINK_LOCAL = "169.254.169.254"


@contextmanager
def internet() -> Iterator[tuple[str, str]]:
    """Make both namespaces; yield the name of egress's and that of the internet."""
    with linked_namespaces("-egress") as made:
        silence = ["ip", "-n", made.internet, "route", "add", "blackhole", SILENT, "table", "local"]
        subprocess.run(silence, check=True)
        yield made.egress, made.internet


class Maker:
    """Makes IPv4 sockets that belong to a namespace, wherever they are used, on a thread that lives in it."""

    def __init__(self, namespace: str) -> None:
        self._thread = ThreadPoolExecutor(1, initializer=enter, initargs=(namespace,))

    def make(self) -> socket.socket:
        """Return a new stream socket."""
        return self._thread.submit(socket.socket, socket.AF_INET, socket.SOCK_STREAM).result()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the thread."""
        self._thread.shutdown()


def socket_in(namespace: str, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """Return one IPv4 socket that belongs to the namespace."""
    sock = inside(namespace, lambda: socket.socket(socket.AF_INET, kind))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return sock
