"""Cross-origin calls: the agent and the key-authenticated API are open to every origin.

That gives nothing away: no answer depends on cookies, the caller must already hold a token or a key.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sandboxes.gateway.reply import Reply, whole

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiohttp import web

    from sandboxes.gateway.http1 import Fields

OPEN_TO_ALL: Fields = [(b"Access-Control-Allow-Origin", b"*"), (b"Access-Control-Expose-Headers", b"*")]
_FIELD_NAMES = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z, ]{1,4096}")
# What authenticates a call or leads it to a sandbox. Calls with cookies can't be made after such an answer.
_KEY_FIELDS = (b"x-api-key", b"authorization", b"e2b-sandbox-id", b"x-access-token")


def is_preflight(request: web.BaseRequest) -> bool:
    """Say whether the request is a browser's question before a cross-origin call."""
    return request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers


def asks_for_key(fields: Iterable[tuple[bytes, bytes]]) -> bool:
    """Say whether a preflight announces a call that is authenticated by a key, not by cookies."""
    for name, value in fields:
        if name.lower() == b"access-control-request-headers":
            return any(key in value.lower() for key in _KEY_FIELDS)
    return False


def is_keyed_cross_origin(request: web.BaseRequest) -> bool:
    """Say whether a browser's cross-origin call carries an API key and no cookies."""
    headers = request.headers
    keyed = "X-API-KEY" in headers or "Authorization" in headers
    return keyed and "Origin" in headers and "Cookie" not in headers


def preflight(request: web.BaseRequest) -> Reply:
    """Allow the announced call."""
    wanted = b"*"
    for name, value in request.raw_headers:
        # `*` does not cover Authorization, so the asked names are repeated.
        if name.lower() == b"access-control-request-headers" and _FIELD_NAMES.fullmatch(value):
            wanted = value
    fields: Fields = [
        *OPEN_TO_ALL,
        (b"Access-Control-Allow-Methods", b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
        (b"Access-Control-Allow-Headers", wanted),
        (b"Access-Control-Max-Age", b"7200"),
        (b"Vary", b"Access-Control-Request-Headers"),
    ]
    return whole(request, 204, fields, b"")
