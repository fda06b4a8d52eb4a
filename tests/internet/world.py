"""A small internet on this machine: names, addresses, servers, and a record of all that reached it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

from tests.internet.capture import Capture, Packet
from tests.internet.certificates import Authority
from tests.internet.names import PORT as DNS_PORT
from tests.internet.names import DatagramServer, Zone, serve_stream
from tests.internet.namespaces import LINK, Namespaces, enter, inside, linked_namespaces
from tests.internet.sites import Sites

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator
    from pathlib import Path

RESOLVER = "45.79.0.53"
"""The name server that egress is told of."""
RESOLVERS = (RESOLVER, "8.8.8.8", "8.8.4.4", "1.1.1.1")
"""All name servers there are; over TCP every address is one."""
API, PYPI, WILD, PLAIN, DB, MUNICH, EVIL = (f"45.79.1.{last}" for last in (10, 11, 12, 13, 14, 15, 66))
HTTPS_PORTS = (443, 8443, 853)
HTTP_PORTS = (80, 8080, 3000)
RAW_PORTS = (22, 5432)
_PATIENCE_S = 10.0
_numbers = itertools.count()
_LARGEST_LINE = 1 << 20
_USUAL = {
    "api.allowed.test": (API,),
    "pypi.allowed.test": (PYPI,),
    "*.wild.allowed.test": (WILD,),
    "wild.allowed.test": (WILD,),
    "plain.allowed.test": (PLAIN,),
    "db.allowed.test": (DB,),
    "xn--mnchen-3ya.test": (MUNICH,),
    "evil.test": (EVIL,),
    "*.evil.test": (EVIL,),
    "*.test": (EVIL,),
    "dns.google": ("8.8.8.8",),
    "metadata.google.internal": ("169.254.169.254",),
    "localhost": ("127.0.0.1",),
}


class Internet:
    """What a test sees of it. All servers run in one thread of this process, in a namespace of their own.

    `sites` are what egress reached by going out, `own` what it reached on its own host: nothing may ever be there.
    """

    def __init__(self, names: Namespaces, directory: Path) -> None:
        self.namespaces = names
        self.authority = Authority(directory)
        self.zone = Zone()
        self.sites = Sites()
        self.own = Sites()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending = asyncio.Event()
        self._ready = threading.Event()
        self._failed: list[Exception] = []
        self._capture: Capture | None = None
        self._thread = threading.Thread(target=self._run, name="test internet", daemon=True)
        self.reset()

    @property
    def netns(self) -> str:
        """The namespace to leave from: where egress runs."""
        return self.namespaces.egress

    @property
    def packets(self) -> list[Packet]:
        """What came over the link, of connections only the first packet."""
        found: list[Packet] = self.call(self._taken)
        return found

    def _taken(self) -> list[Packet]:
        assert self._capture is not None
        self._capture.read()
        return list(self._capture.packets)

    def settings(self) -> dict[str, str]:
        """Return the environment that lets egress run in this internet."""
        return {"GATEHOUSE_EGRESS_NETNS": self.netns, "GATEHOUSE_EGRESS_RESOLVERS": RESOLVER}

    def reset(self) -> None:
        """Forget all that happened and all that a test changed."""
        self.zone.records.clear()
        for name, addresses in _USUAL.items():
            self.zone.address(name, *addresses)
        self.zone.scripts.clear()
        self.zone.silent = False
        self.zone.ttl = 0
        for sites in (self.sites, self.own):
            sites.sites.clear()
            sites.connections.clear()
        self.zone.questions.clear()
        if self._capture is not None:
            self.call(self._forget)

    def _forget(self) -> None:
        self._taken()
        assert self._capture is not None
        self._capture.packets.clear()

    def wait(self, condition: Callable[[], Any]) -> Any:
        """Return the condition's value once it holds; fail with its last value when it does not in time."""
        deadline = time.monotonic() + _PATIENCE_S
        while not (value := condition()):
            assert time.monotonic() < deadline, value
            time.sleep(0.01)
        return value

    def connect(self, address: str, port: int) -> socket.socket:
        """Return a connection from where egress runs, past egress: to see that a server is there."""
        return inside(self.netns, lambda: socket.create_connection((address, port), _PATIENCE_S))

    def call(self, function: Callable[[], Any]) -> Any:
        """Run a function in the servers' thread and return its value."""

        async def run() -> Any:
            return function()

        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(_PATIENCE_S)

    def start(self) -> None:
        """Return when all servers listen."""
        self._thread.start()
        self._ready.wait()
        for error in self._failed:
            raise error

    def stop(self) -> None:
        """End the servers."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            enter(self.namespaces.internet)
            asyncio.run(self._main())
        except Exception as error:  # noqa: BLE001 - it is raised by `start`
            self._failed.append(error)
        finally:
            self._ready.set()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with contextlib.AsyncExitStack() as stack:
            self._capture = Capture(LINK)
            stack.callback(self._capture.socket.close)
            self._loop.add_reader(self._capture.socket, self._capture.read)
            stack.callback(self._loop.remove_reader, self._capture.socket)
            await self._serve(stack, self.sites, _listener)
            answer = functools.partial(serve_stream, self.zone)
            stack.callback((await asyncio.start_server(answer, sock=_listener(DNS_PORT))).close)
            # A datagram's answer comes from the address that was asked only when the socket is bound to it.
            for address in RESOLVERS:
                place = (address, DNS_PORT)
                transport, _ = await self._loop.create_datagram_endpoint(lambda: DatagramServer(self.zone), place)
                stack.callback(transport.close)
            # The same servers on the host that egress runs on, and on its loopback.
            await self._serve(stack, self.own, lambda port: inside(self.netns, lambda: _listener(port)))
            self._ready.set()
            await self._ending.wait()

    async def _serve(
        self, stack: contextlib.AsyncExitStack, sites: Sites, listener: Callable[[int], socket.socket]
    ) -> None:
        tls = self._tls()
        for port in (*HTTP_PORTS, *HTTPS_PORTS):
            encrypted = tls if port in HTTPS_PORTS else None
            server = await asyncio.start_server(
                sites.serve_http, sock=listener(port), ssl=encrypted, limit=_LARGEST_LINE
            )
            stack.callback(server.close)
        for port in RAW_PORTS:
            stack.callback((await asyncio.start_server(sites.serve_database, sock=listener(port))).close)

    def _tls(self) -> ssl.SSLContext:
        context = self.authority.context("unnamed.test")

        def named(tls: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
            tls.named = name  # type: ignore[attr-defined]
            if name is not None:
                tls.context = self.authority.context(name)

        context.sni_callback = named
        return context


def _listener(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("", port))
    listener.listen(1024)
    listener.settimeout(0)
    return listener


@contextlib.contextmanager
def running_internet(directory: Path) -> Iterator[Internet]:
    """Run one; afterwards nothing of it is left on the machine."""
    # A process has one for each folder of tests that asks for it.
    with linked_namespaces(f"-{next(_numbers)}") as names:
        internet = Internet(names, directory)
        internet.start()
        try:
            yield internet
        finally:
            internet.stop()
