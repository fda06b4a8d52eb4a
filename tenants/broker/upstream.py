"""Connections to services: verified, to addresses that were looked at, and shared by nobody but one tenant's calls."""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections import OrderedDict
from typing import TYPE_CHECKING

import aiohttp
from django.conf import settings

from corekit import addresses
from corekit.checkedaddresses import CheckedConnector
from corekit.localaddresses import local_addresses

if TYPE_CHECKING:
    from pathlib import Path

    from tenants.broker.catalogue import Service

MAX_POOLS = 256
READ_S = 300.0
"""How long a service may say nothing."""
_CONNECT_S = 10.0
_SOCKET_S = 5.0
PIECE = 64 * 1024


class Upstreams:
    """One pool of connections for each service of a tenant, so that no answer can reach another tenant's caller."""

    def __init__(self, read_s: float = READ_S) -> None:
        self._pools: OrderedDict[tuple[object, ...], aiohttp.ClientSession] = OrderedDict()
        self._read_s = read_s
        self._closing: set[asyncio.Task[None]] = set()

    def session(self, tenant_id: object, service: Service) -> aiohttp.ClientSession:
        """Return the pool of a service; one that was not used for long gives way to a new one."""
        key = (str(tenant_id), service.name, service.base_url, service.private)
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = self._made(service)
            while len(self._pools) > MAX_POOLS:
                self._close_soon(self._pools.popitem(last=False)[1])
        self._pools.move_to_end(key)
        return pool

    def _made(self, service: Service) -> aiohttp.ClientSession:
        allowed = _may_be_private if service.private else _may_be_public
        return aiohttp.ClientSession(
            connector=CheckedConnector(allowed, keep=True, context=tls_context(settings.GATEHOUSE.broker_ca_file)),
            timeout=aiohttp.ClientTimeout(
                total=None, connect=_CONNECT_S, sock_connect=_SOCKET_S, sock_read=self._read_s
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            read_bufsize=PIECE,
            auto_decompress=False,
            trust_env=False,
        )

    def _close_soon(self, pool: aiohttp.ClientSession) -> None:
        # Calls that still run in it are cut: there are more services in use at once than there are pools.
        task = asyncio.get_running_loop().create_task(pool.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Close every connection."""
        pools, self._pools = list(self._pools.values()), OrderedDict()
        await asyncio.gather(*(pool.close() for pool in pools), *self._closing)


@functools.lru_cache(maxsize=4)
def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Return how services prove who they are. Raises OSError when the operator's authorities can't be read."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context


def _may_be_public(address: addresses.Address) -> bool:
    return addresses.is_public(address) and address not in local_addresses()


def _may_be_private(address: addresses.Address) -> bool:
    granted = settings.GATEHOUSE.broker_networks
    return addresses.is_public(address) or any(
        address in network for network in granted if network.version == address.version
    )
