"""Requests whose end two readers could see in different places: one's next request is the other's body."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp.http import HttpVersion10, HttpVersion11

from sandboxes.gateway import upgrade

if TYPE_CHECKING:
    from aiohttp import web


def fault(request: web.BaseRequest) -> str | None:
    """Say why nobody can be sure where a request ends, although it was parsed; None for a sound one.

    What comes after such a request on its connection must not be read.
    """
    if request.version not in {HttpVersion11, HttpVersion10}:
        return "The request must be HTTP/1.1"
    coding = request.headers.get("Transfer-Encoding")
    if coding is not None and (coding.lower() != "chunked" or request.version != HttpVersion11):
        return "The only transfer coding is chunked, in HTTP/1.1"
    if upgrade.is_upgrade(request) and (coding is not None or int(request.headers.get("Content-Length", 0)) > 0):
        return "A request that switches protocols has no body"
    return None
