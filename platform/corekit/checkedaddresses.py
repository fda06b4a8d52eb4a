"""Connections of aiohttp to addresses that were checked: the one that was looked at is the one that is called.

A name is resolved once for each connection, so that it can't change its meaning in between.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import TYPE_CHECKING

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from corekit.addresses import Address

    Check = Callable[[Address], bool]


class NotAllowed(OSError):
    """The place may not be called."""

    def __init__(self) -> None:
        super().__init__("the host does not lead to a public address")


class CheckedConnector(aiohttp.TCPConnector):
    """Connects only where `allowed` says that it may."""

    def __init__(self, allowed: Check, *, keep: bool, context: ssl.SSLContext | None = None) -> None:
        def checked_socket(info: tuple[int, int, int, str, tuple[object, ...]]) -> socket.socket:
            # The last look before a connection: an address in the URL itself never passes the resolver.
            if not allowed(ipaddress.ip_address(str(info[4][0]))):
                raise NotAllowed
            return socket.socket(info[0], info[1], info[2])

        super().__init__(
            resolver=_CheckedResolver(allowed),
            socket_factory=checked_socket,
            ssl=True if context is None else context,
            limit=0,
            use_dns_cache=False,
            force_close=not keep,
        )


class _CheckedResolver(AbstractResolver):
    """Gives out only addresses that may be called."""

    def __init__(self, allowed: Check) -> None:
        self._allowed = allowed

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a name that may be called. NotAllowed when none may."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        usable = [info for info in found if self._allowed(ipaddress.ip_address(info[4][0]))]
        if not usable:
            raise NotAllowed
        return [
            ResolveResult(hostname=host, host=str(info[4][0]), port=port, family=info[0], proto=info[2], flags=0)
            for info in usable
        ]

    async def close(self) -> None:
        """Nothing is kept open."""


def in_words(problem: BaseException) -> str:
    """Say why a call got no answer, without any address."""
    cause: BaseException | None = problem
    while cause is not None:
        if isinstance(cause, NotAllowed):
            return str(cause)
        cause = cause.__cause__
    if isinstance(problem, TimeoutError):
        return "the host did not answer in time"
    if isinstance(problem, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
        return "the host's certificate is not valid"
    if isinstance(problem, aiohttp.ClientConnectorDNSError):
        return "the host's name can't be resolved"
    if isinstance(problem, aiohttp.ClientConnectorError):
        return "the host can't be reached"
    if isinstance(problem, aiohttp.ServerDisconnectedError | ConnectionResetError):
        return "the host closed the connection"
    return "the host's answer is not HTTP"
