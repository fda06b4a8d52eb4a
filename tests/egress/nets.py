"""Two network namespaces joined by a wire: one for egress, one that is the internet of these tests.

The addresses look public, so that nothing has to be exempted from the table of special ranges. Nothing leaves the
machine: neither namespace has another link.
"""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

RESOLVER = "45.79.0.53"
API, EVIL, OTHER, CORPORATE, SOCKS = "45.79.1.1", "45.79.1.66", "45.79.1.2", "45.79.1.3", "45.79.1.4"
SILENT = "45.79.1.9"  # takes no connections and refuses none
OWN = "45.79.0.2"
INTERNAL = "10.20.0.5"
LINK_LOCAL = "169.254.169.254"
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextmanager
def internet() -> Iterator[tuple[str, str]]:
    """Make both namespaces; yield the name of egress's and that of the internet."""
    ours, theirs = f"ghe-out-{os.getpid()}", f"ghe-net-{os.getpid()}"
    try:
        for name in (ours, theirs):
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", ours, "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", theirs)
        for name in (ours, theirs):
            _ip("-n", name, "link", "set", "wire", "up")
        _ip("-n", ours, "addr", "add", f"{OWN}/32", "dev", "wire")
        _ip("-n", ours, "route", "add", "default", "dev", "wire", "src", OWN)
        for address in (RESOLVER, API, EVIL, OTHER, CORPORATE, SOCKS, INTERNAL, LINK_LOCAL):
            _ip("-n", theirs, "addr", "add", f"{address}/32", "dev", "wire")
        _ip("-n", theirs, "route", "add", f"{OWN}/32", "dev", "wire")
        yield ours, theirs
    finally:
        for name in (ours, theirs):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


class Maker:
    """Makes IPv4 sockets that belong to a namespace, wherever they are used, on a thread that lives in it."""

    def __init__(self, namespace: str) -> None:
        self._thread = ThreadPoolExecutor(1, initializer=_enter, initargs=(namespace,))

    def make(self, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """Return a new socket."""
        sock = self._thread.submit(socket.socket, socket.AF_INET, kind).result()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return sock

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the thread."""
        self._thread.shutdown()


def _enter(namespace: str) -> None:
    handle = os.open(f"/run/netns/{namespace}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        # For this thread alone.
        if _libc.setns(handle, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(handle)


def socket_in(namespace: str, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """Return one socket that belongs to the namespace."""
    with Maker(namespace) as maker:
        return maker.make(kind)
