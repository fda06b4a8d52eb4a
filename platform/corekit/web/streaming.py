"""Answers of any size, made line by line."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import StreamingHttpResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from django.http import HttpRequest

_LINES = 200


def streamed(request: HttpRequest, lines: Iterator[str], content_type: str, filename: str) -> StreamingHttpResponse:
    """Return lines as a file to download.

    A server of either kind would read the other kind of iterator to its end before it sends anything.
    """
    content: Any = _async_chunks(lines) if isinstance(request, ASGIRequest) else _chunks(lines)
    answer = StreamingHttpResponse(content, content_type=f"{content_type}; charset=utf-8")
    answer["Content-Disposition"] = f'attachment; filename="{filename}"'
    answer["Cache-Control"] = "no-store"
    return answer


def _chunks(lines: Iterator[str]) -> Iterator[bytes]:
    while chunk := "".join(islice(lines, _LINES)):
        yield chunk.encode()


async def _async_chunks(lines: Iterator[str]) -> AsyncIterator[bytes]:
    take = sync_to_async(lambda: "".join(islice(lines, _LINES)))
    while chunk := await take():
        yield chunk.encode()
