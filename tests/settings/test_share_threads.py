"""Requests borrow threads that live on: as many as needed, never more than the limit, none lost."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.urls import path

from gatehouse.asgi import MAX_THREADS, Handler

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

seen: list[str] = []


def slow(request: HttpRequest) -> HttpResponse:
    seen.append(threading.current_thread().name)
    time.sleep(0.05)
    return HttpResponse(threading.current_thread().name)


urlpatterns = [path("slow", slow)]

SCOPE: dict[str, Any] = {
    "type": "http",
    "asgi": {"version": "3.0"},
    "http_version": "1.1",
    "method": "GET",
    "path": "/slow",
    "raw_path": b"/slow",
    "query_string": b"",
    "headers": [(b"host", b"localhost")],
    "client": None,
    "server": ("localhost", 80),
    "scheme": "http",
}


@pytest.fixture
def handler(settings: Any) -> Handler:
    settings.ROOT_URLCONF = __name__
    seen.clear()
    return Handler()


async def get(handler: Handler, *, leave: bool = False) -> str:
    """Send one request and return the answer's body; a client that leaves gets none."""
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": b"", "more_body": False}]
    body: list[bytes] = []

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        if not leave:
            await asyncio.sleep(60)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        body.append(message.get("body", b""))

    call: Callable[..., Awaitable[None]] = handler.__call__
    await call(SCOPE | {"state": {}}, receive, send)
    return b"".join(body).decode()


async def test_one_after_the_other_share_one_thread(handler: Handler) -> None:
    assert {await get(handler) for _ in range(5)} == {"request-1_0"}


async def test_at_the_same_time_each_has_its_own_up_to_the_limit(handler: Handler) -> None:
    answers = await asyncio.gather(*(get(handler) for _ in range(MAX_THREADS * 2)))
    assert len(answers) == MAX_THREADS * 2
    assert len(set(answers)) == MAX_THREADS


async def test_clients_that_leave_cost_no_thread(handler: Handler) -> None:
    for _ in range(3):
        await asyncio.gather(*(get(handler, leave=True) for _ in range(MAX_THREADS)))
    answers = await asyncio.gather(*(get(handler) for _ in range(MAX_THREADS)))
    assert all(answers)
    assert set(seen) <= {f"request-{number}_0" for number in range(1, MAX_THREADS + 1)}
