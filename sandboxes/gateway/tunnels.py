"""Connections to user ports: opened by the guest agent's CONNECT, recorded, kept for the same caller."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from sandboxes.gateway import failures, upstream
from sandboxes.gateway.routes import TooManyStreams

if TYPE_CHECKING:
    from sandboxes.gateway.assess import Record
    from sandboxes.gateway.routes import Route, TunnelKey

_CONNECT_SECONDS = 10.0
# Shorter than the 5 s after which common servers close a connection that waits.
_IDLE_SECONDS = 4.0


class PortClosed(Exception):
    """Nothing listens on the port inside the sandbox."""


class Tunnel:
    """A connection to a port while one request uses it; a clean one is kept for the same caller."""

    def __init__(self, route: Route, key: TunnelKey, connection: upstream.Connection) -> None:
        self._route = route
        self._key = key
        self.connection = connection
        self.clean = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.clean:
            self.connection.close()
            return
        idle = self._route.tunnels.setdefault(self._key, upstream.Idle(_IDLE_SECONDS))
        idle.release(self.connection, sent_whole=True)


def kept(route: Route, key: TunnelKey) -> Tunnel | None:
    """Return a tunnel that an earlier request of this caller left."""
    idle = route.tunnels.get(key)
    connection = idle.take() if idle is not None else None
    return None if connection is None else Tunnel(route, key, connection)


async def open_new(route: Route, key: TunnelKey, record: Record, *, server_name: str | None) -> Tunnel:
    """Open a tunnel once its intent is on disk. `server_name` is for ports that speak TLS.

    Raises PortClosed, TooManyStreams, TapAway, TapRefused, or what the connection to the guest raises.
    """
    await _make_room(route)
    port = key[0]
    # Reaching the agent is no act yet, so it need not wait for the disk.
    reaching = asyncio.create_task(upstream.connect(route.socket, seconds=route.limits.connect_seconds))
    try:
        # A caller that leaves while this is on its way to the disk has made an intent all the same.
        await record.begin({"port": port}, {"port": port})
        connection = await _dial(route, await reaching, port, server_name)
    except BaseException as error:
        reaching.cancel()
        reaching.add_done_callback(_close_unused)
        reason = "port_closed" if isinstance(error, PortClosed) else failures.cause(error)
        record.conclude("error", reason=reason)
        raise
    record.conclude("ok")
    return Tunnel(route, key, connection)


def _close_unused(reaching: asyncio.Task[upstream.Connection]) -> None:
    if not reaching.cancelled() and reaching.exception() is None:
        reaching.result().close()


async def _make_room(route: Route) -> None:
    if route.open_tunnels >= route.limits.tunnels_per_sandbox:
        for idle in route.tunnels.values():
            idle.clear()
        await asyncio.sleep(0)
    if route.open_tunnels >= route.limits.tunnels_per_sandbox:
        raise TooManyStreams


async def _dial(
    route: Route, connection: upstream.Connection, port: int, server_name: str | None
) -> upstream.Connection:
    route.open_tunnels += 1
    connection.on_lost = route.count_lost_tunnel
    target = f"127.0.0.1:{port}"
    try:
        connection.begin()
        connection.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode("ascii"))
        head = await connection.read_head("CONNECT", seconds=_CONNECT_SECONDS)
        if head.status != 200:
            raise PortClosed
        if port in route.ingress.https_ports:
            await connection.start_tls(server_name, _CONNECT_SECONDS)
    except BaseException:
        connection.close()
        raise
    return connection
