"""A SOCKS5 proxy of the user's: names are sent as names, and TLS to the proxy where it wants that."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from typing import TYPE_CHECKING

from corekit.netrules.hosts import Name
from corekit.netrules.policy import SocksProxy as Proxy
from corekit.netrules.reasons import Reason
from sandboxes.egress.refusals import Refused
from sandboxes.egress.wire import Gone

if TYPE_CHECKING:
    from sandboxes.egress.target import Target
    from sandboxes.egress.wire import Wire

__all__ = ["Proxy", "connect"]

_VERSION = 5
_NO_LOGIN, _PASSWORD = 0, 2
_CONNECT = 1
_IPV4, _NAME, _IPV6 = 1, 3, 4
_PIECE = 64 * 1024
_bridges: set[asyncio.Task[None]] = set()


async def connect(wire: Wire, proxy: Proxy, target: Target) -> Wire:
    """Let the proxy connect to the target. Raises Gone, or Refused when TLS to the proxy fails."""
    if proxy.tls:
        wire = await _secured(wire, proxy)
    await _log_in(wire, proxy)
    await wire.send(bytes([_VERSION, _CONNECT, 0]) + _address(target) + target.port.to_bytes(2, "big"))
    version, status, _, kind = await _exactly(wire, 4)
    if version != _VERSION or status != 0:
        raise Gone("the proxy can't connect")
    size = {_IPV4: 4, _IPV6: 16}.get(kind) or (await _exactly(wire, 1))[0]
    await _exactly(wire, size + 2)
    return wire


async def _log_in(wire: Wire, proxy: Proxy) -> None:
    method = _NO_LOGIN if proxy.username is None else _PASSWORD
    await wire.send(bytes([_VERSION, 1, method]))
    if await _exactly(wire, 2) != bytes([_VERSION, method]):
        raise Gone("the proxy wants another way to log in")
    if proxy.username is None:
        return
    user, password = proxy.username.encode(), (proxy.password or "").encode()
    if len(user) > 255 or len(password) > 255:
        raise Gone("the login is too long")
    await wire.send(bytes([1, len(user)]) + user + bytes([len(password)]) + password)
    if (await _exactly(wire, 2))[1] != 0:
        raise Gone("the proxy refuses the login")


def _address(target: Target) -> bytes:
    host = target.host
    if isinstance(host, Name):
        return bytes([_NAME, len(host.text)]) + host.text.encode("ascii")
    return bytes([_IPV4 if isinstance(host, ipaddress.IPv4Address) else _IPV6]) + host.packed


async def _exactly(wire: Wire, count: int) -> bytes:
    while len(wire.ahead) < count:
        if not await wire.more():
            raise Gone("the proxy ended the connection")
    taken = bytes(wire.ahead[:count])
    del wire.ahead[:count]
    return taken


async def _secured(wire: Wire, proxy: Proxy) -> Wire:
    """Return a connection to the proxy that a bridge encrypts, so that what follows needs to know nothing of TLS."""
    context = ssl.create_default_context(cadata=proxy.ca)
    try:
        reader, writer = await asyncio.open_connection(
            sock=wire.release(), ssl=context, server_hostname=proxy.server_name or str(proxy.host)
        )
    except (ssl.SSLError, OSError):
        raise Refused(Reason.TLS_FAILED) from None
    near, far = socket.socketpair()
    near.settimeout(0)
    far.settimeout(0)
    plain_reader, plain_writer = await asyncio.open_connection(sock=far)
    for source, sink in ((reader, plain_writer), (plain_reader, writer)):
        task = asyncio.create_task(_copy(source, sink))
        _bridges.add(task)
        task.add_done_callback(_bridges.discard)
    return wire.beside(near)


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(_PIECE):
            sink.write(data)
            await sink.drain()
    except (OSError, ssl.SSLError):
        sink.transport.abort()
    else:
        sink.close()
