"""Two network namespaces with one link: a place to leave from, and all of the internet on the other side.

Nothing of either leads anywhere else, so that no test of the way out reaches a real host.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_NAMED = Path("/run/netns")
_PREFIX = "gh-test"

EGRESS_ADDRESS = "45.33.0.2"
"""Of the place to leave from: public, and still nobody's to reach, because it is the host's own."""
GATEWAY = "45.33.0.1"
LINK = "inet0"
"""The internet's end of the link."""


@dataclass(frozen=True, slots=True)
class Namespaces:
    """The names of both."""

    egress: str
    internet: str


@contextlib.contextmanager
def linked_namespaces(which: str = "") -> Iterator[Namespaces]:
    """Make both namespaces; afterwards they are gone. `which` tells several of one process apart."""
    _sweep()
    made = Namespaces(f"{_PREFIX}-{os.getpid()}-out{which}", f"{_PREFIX}-{os.getpid()}-net{which}")
    try:
        _make(made)
        yield made
    finally:
        for name in (made.egress, made.internet):
            _ip("netns", "del", name, check=False)


def _make(made: Namespaces) -> None:
    for name in (made.egress, made.internet):
        _ip("netns", "add", name)
        _ip("-n", name, "link", "set", "lo", "up")
    _ip("-n", made.egress, "link", "add", "out0", "type", "veth", "peer", "name", LINK, "netns", made.internet)
    for name, link in ((made.egress, "out0"), (made.internet, LINK)):
        # Without an IPv6 address the kernel itself says nothing there.
        _ip("-n", name, "link", "set", link, "addrgenmode", "none")
    _ip("-n", made.egress, "address", "add", f"{EGRESS_ADDRESS}/30", "dev", "out0")
    _ip("-n", made.internet, "address", "add", f"{GATEWAY}/30", "dev", LINK)
    _ip("-n", made.egress, "link", "set", "out0", "up")
    _ip("-n", made.internet, "link", "set", LINK, "up")
    _ip("-n", made.egress, "route", "add", "default", "via", GATEWAY)
    # Every address there is leads to the servers, private ones and metadata too: what must not be reached could be.
    # The way back is in the same table, where it is the longer prefix.
    _ip("-n", made.internet, "route", "add", EGRESS_ADDRESS, "dev", LINK, "table", "local")
    _ip("-n", made.internet, "route", "add", "local", "default", "dev", "lo")


def _sweep() -> None:
    """Remove what a killed run left."""
    for left in _NAMED.glob(f"{_PREFIX}-*"):
        pid = left.name.split("-")[2]
        if not Path(f"/proc/{pid}").exists():
            _ip("netns", "del", left.name, check=False)


def _ip(*arguments: str, check: bool = True) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def enter(name: str) -> None:
    """Move this thread into a namespace, for the sockets that it makes from now on."""
    fd = os.open(_NAMED / name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(fd, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {name}")
    finally:
        os.close(fd)


def inside(name: str, make: Callable[[], T]) -> T:
    """Return what a call returns that is made in a namespace, by a thread of its own."""
    found: list[T] = []
    failed: list[Exception] = []

    def run() -> None:
        try:
            enter(name)
            found.append(make())
        except Exception as error:  # noqa: BLE001 - it is raised where it was asked for
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    for error in failed:
        raise error
    return found[0]
