"""HTTP to places that tenants name: to public addresses only, resolved once, without redirects.

The address that was checked is the one that is connected to, so that a name can't change its meaning in between.
"""

from __future__ import annotations

import ipaddress
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp
from django.conf import settings

from corekit import addresses
from corekit.checkedaddresses import CheckedConnector, in_words
from corekit.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Mapping

TIMEOUT_S = 10.0
"""For everything that belongs to one call: the name, the connection, TLS and the answer's head."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How a call went: a status, or an error as one sentence without internal addresses."""

    status: int | None
    error: str
    duration_ms: float

    @property
    def ok(self) -> bool:
        """Say whether it was taken."""
        return self.status is not None and 200 <= self.status < 300


def check_target(scheme: str, host: str, port: int | None) -> None:
    """Refuse what never will be called, before it is stored. Raises InvalidInput; names are resolved at each call."""
    literal = _literal(host)
    if literal is not None and not _allowed(literal):
        raise InvalidInput("The URL must lead to a public address.", field="url")
    if scheme != "https" and (literal is None or addresses.is_public(literal)):
        raise InvalidInput("The URL must begin with https://.", field="url")
    if port == 0:
        raise InvalidInput("The URL has no usable port.", field="url")


async def post(url: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float = TIMEOUT_S) -> Answer:
    """Send a POST and return how it went; it never raises for what the other side does. The answer's body is left."""
    began = time.perf_counter()
    status, error = None, ""
    try:
        async with (
            _session(timeout_s) as session,
            session.post(url, data=body, headers=headers, allow_redirects=False) as answer,
        ):
            status = answer.status
    except (OSError, aiohttp.ClientError, TimeoutError, ValueError) as problem:
        error = in_words(problem)
    return Answer(status, error, round((time.perf_counter() - began) * 1000, 3))


def _session(timeout_s: float) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=CheckedConnector(_allowed, keep=False),
        timeout=aiohttp.ClientTimeout(total=timeout_s),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
    )


def _literal(host: str) -> addresses.Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _allowed(address: addresses.Address) -> bool:
    granted = settings.GATEHOUSE.webhook_networks
    return addresses.is_public(address) or any(
        address in network for network in granted if network.version == address.version
    )
