"""The one question that the node asks a guest agent: are you there?"""

from __future__ import annotations

import asyncio

_REQUEST = b"GET /health HTTP/1.1\r\nHost: guest\r\nConnection: close\r\n\r\n"
_MAX_ANSWER_BYTES = 4_096


async def answers(socket_path: str) -> bool:
    """Ask for /health and wait for as long as the caller's patience lasts.

    True only for an HTTP answer 200 or 204. The listener exists before the guest does, so that the question is simply
    answered the moment the guest is up: nothing is polled.
    """
    try:
        reader, writer = await asyncio.open_unix_connection(socket_path, limit=_MAX_ANSWER_BYTES)
    except OSError:  # the guest and its listener are gone already
        return False
    try:
        writer.write(_REQUEST)
        line = await reader.readline()
    except (OSError, ValueError):
        return False
    finally:
        writer.close()
    return line.startswith((b"HTTP/1.1 204", b"HTTP/1.1 200"))
