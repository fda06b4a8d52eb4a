"""Connections to what was decided: the addresses that were checked, or the proxy that the policy prescribes."""

from __future__ import annotations

import asyncio
import errno
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from corekit.netrules.decide import led_astray, reachable
from corekit.netrules.hosts import Name
from corekit.netrules.reasons import Reason
from sandboxes.egress import corporate, socks
from sandboxes.egress.refusals import Refused, refusal_of
from sandboxes.egress.resolver import ResolveFailed
from sandboxes.egress.target import Target
from sandboxes.egress.wire import Gone, Wire

if TYPE_CHECKING:
    from corekit.addresses import Address
    from corekit.netrules.hosts import Host
    from sandboxes.egress.registry import Sandbox
    from sandboxes.egress.services import Services

# How long one address has before the next one is tried beside it.
_STAGGER_S = 0.25


@dataclass(frozen=True, slots=True)
class Route:
    """The checked way to a target: its own addresses, or those of a proxy that finds it."""

    target: Target
    addresses: tuple[Address, ...]
    port: int
    via: corporate.Credentials | None = None
    socks: socks.Proxy | None = None

    @property
    def direct(self) -> bool:
        """Tell whether egress itself connects to the target's address."""
        return self.via is None and self.socks is None


async def find_route(services: Services, sandbox: Sandbox, target: Target) -> Route:
    """Return how a target may be reached. Raises Refused."""
    policy = sandbox.policy
    proxy = policy.egress_proxy
    if proxy is not None:
        # The user's proxy resolves names. Addresses are judged here, whoever connects to them.
        await _literal(services, sandbox, target.host)
        return Route(target, await _addresses(services, sandbox, proxy.host), proxy.port, socks=proxy)
    if policy.via is not None:
        await _literal(services, sandbox, target.host)
        host, port = policy.via
        credentials = services.proxy_login(Target(host, port).entry)
        return Route(target, await _addresses(services, sandbox, host), port, via=credentials)
    addresses = await _addresses(services, sandbox, target.host)
    for address in addresses:
        verdict = led_astray(policy, target.host, target.port, address)
        if verdict is not None:
            raise refusal_of(verdict)
    return Route(target, addresses, target.port)


async def _literal(services: Services, sandbox: Sandbox, host: Host) -> None:
    if not isinstance(host, Name):
        await _addresses(services, sandbox, host)


async def _addresses(services: Services, sandbox: Sandbox, host: Host) -> tuple[Address, ...]:
    """Return what a host stands for, when egress may connect to all of it. Raises Refused."""
    found = await _resolved(services, sandbox, host) if isinstance(host, Name) else (host,)
    own = services.own.now()
    for address in found:
        # One address that may not be reached spoils the answer: its zone is not to be trusted with the others.
        reason = reachable(sandbox.policy, address, own)
        if reason is not None:
            raise Refused(reason)
    return found


async def _resolved(services: Services, sandbox: Sandbox, name: Name) -> tuple[Address, ...]:
    loop = asyncio.get_running_loop()
    until, answer = sandbox.answers.get(name.text, (0.0, None))
    if answer is not None and until > loop.time():
        return answer.addresses
    try:
        # Not ended with this flow: others of the sandbox may wait for the same answer.
        answer = await asyncio.shield(sandbox.looking_up(name.text, services.resolver.resolve))
    except ResolveFailed:
        raise Refused(Reason.RESOLVE_FAILED) from None
    sandbox.remember(name.text, loop.time() + answer.ttl, answer)
    return answer.addresses


async def dial(services: Services, route: Route, *, tunnel: bool = True) -> tuple[Wire, Address]:
    """Connect, and return the connection with the address that it leads to. Raises Refused.

    Without a `tunnel` it leads to the corporate proxy, which is to be asked in its own way.
    """
    try:
        wire, address = await _first_of(services, route.addresses, route.port)
        if tunnel and not route.direct:
            try:
                wire = await _through(route, wire)
            except BaseException:
                wire.reset()
                raise
    except (OSError, Gone):
        raise Refused(Reason.CONNECT_FAILED) from None
    return wire, address


async def _through(route: Route, wire: Wire) -> Wire:
    if route.socks is not None:
        return await socks.connect(wire, route.socks, route.target)
    if route.via is not None:
        return await corporate.connect(wire, route.via, route.target)
    return wire


async def _first_of(services: Services, addresses: tuple[Address, ...], port: int) -> tuple[Wire, Address]:
    if len(addresses) == 1:
        return await _connected(services, addresses[0], port), addresses[0]
    waiting: dict[asyncio.Task[Wire], Address] = {}
    left = list(addresses)
    try:
        while left or waiting:
            if left:
                address = left.pop(0)
                waiting[asyncio.create_task(_connected(services, address, port))] = address
            done, _ = await asyncio.wait(
                waiting, timeout=_STAGGER_S if left else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                address = waiting.pop(task)
                if task.exception() is None:
                    return task.result(), address
        raise OSError("no address answers")
    finally:
        for task in waiting:
            task.add_done_callback(_discard)
            task.cancel()


def _discard(task: asyncio.Task[Wire]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().reset()


async def _connected(services: Services, address: Address, port: int) -> Wire:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        error = sock.connect_ex((str(address), port))
        if error not in (0, errno.EINPROGRESS):
            raise OSError(error, "the connection was not begun")
    except BaseException:
        sock.close()
        raise
    wire = Wire(services.poller, sock, asyncio.get_running_loop())
    try:
        await wire.connected()
    except BaseException:
        wire.reset()
        raise
    return wire
