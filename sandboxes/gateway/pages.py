"""What a person's browser shows in place of a sandbox's page: complete in itself, without scripts."""

from __future__ import annotations

import base64
import hashlib
import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiohttp import web

    from sandboxes.gateway.http1 import Fields

_BROWSER_MARKS = (b"mozilla/", b"opera/")
_SCRIPTED_FETCHES = {b"cors", b"no-cors", b"same-origin", b"websocket"}
_STYLE = (
    ":root{color-scheme:light dark;font:16px/1.5 system-ui,sans-serif}"
    "body{max-width:36rem;margin:20vh auto 0;padding:0 1.5rem}"
    "h1{font-size:1.25rem;margin:0 0 .5rem}"
    "p{margin:0;opacity:.75}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest())
FIELDS: Fields = [
    (b"Content-Type", b"text/html; charset=utf-8"),
    (
        b"Content-Security-Policy",
        b"default-src 'none'; style-src 'sha256-%b'; base-uri 'none'; form-action 'none'; sandbox" % _STYLE_HASH,
    ),
    (b"X-Content-Type-Options", b"nosniff"),
    (b"Referrer-Policy", b"no-referrer"),
    (b"Cache-Control", b"no-store"),
]


def is_navigation(request: web.BaseRequest) -> bool:
    """Say whether a person's browser asks for a page, rather than a program for data."""
    agent = accept = mode = b""
    for name, value in request.raw_headers:
        lowered = name.lower()
        if lowered == b"user-agent":
            agent = value.lower()
        elif lowered == b"accept":
            accept = value.lower()
        elif lowered == b"sec-fetch-mode":
            mode = value.lower()
    return (
        any(mark in agent for mark in _BROWSER_MARKS)
        and mode not in _SCRIPTED_FETCHES
        and b"application/json" not in accept
    )


def render(status: int, message: str, sandbox_id: str, port: int | None) -> bytes:
    """Return the page."""
    title = html.escape(message)
    where = f"Sandbox <code>{html.escape(sandbox_id)}</code>"
    if port is not None:
        where += f", port <code>{port}</code>"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{status} {title}</title><style>{_STYLE}</style></head>"
        f"<body><main><h1>{title}</h1><p>{where}</p></main></body></html>\n"
    ).encode()
