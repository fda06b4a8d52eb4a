"""The JavaScript client sends its bodies in chunks, without a length."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from sandboxes.models import Template
    from tests.sandboxes.fixtures import Caller
    from tests.sandboxes.node_double import NodeDouble

pytestmark = pytest.mark.django_db(transaction=True)


async def send(path: str, key: str, *chunks: bytes) -> tuple[int, Any]:
    """Send a POST in chunks to the application as uvicorn does; return status and body."""
    from gatehouse.asgi import application

    headers = [
        (b"host", b"localhost"),
        (b"content-type", b"application/json"),
        (b"transfer-encoding", b"chunked"),
        (b"x-api-key", key.encode()),
    ]
    scope: Any = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": None,
        "server": ("localhost", 8000),
    }
    waiting = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    waiting.append({"type": "http.request", "body": b"", "more_body": False})
    sent: list[Any] = []

    async def receive() -> Any:
        if not waiting:
            # The client stays; Django stops listening once it has answered.
            await asyncio.Event().wait()
        return waiting.pop(0)

    async def answer(message: Any) -> None:
        sent.append(message)

    await application(scope, receive, answer)
    body = b"".join(message.get("body", b"") for message in sent)
    return sent[0]["status"], json.loads(body) if body else None


async def test_a_create_in_chunks(node: NodeDouble, base: Template, alice: Caller) -> None:
    status, body = await send("/v2/sandboxes", alice.secret, b'{"templateID":', b'"base","timeout":7}')

    assert (status, body["alias"]) == (201, "base")
    assert node.running()[0].spec["ttl_ms"] == 7000


async def test_an_empty_body_in_chunks(node: NodeDouble, alice: Caller) -> None:
    status, body = await send("/v2/sandboxes", alice.secret)

    assert (status, body["field"]) == (400, "templateID")


async def test_a_huge_body_in_chunks(node: NodeDouble, alice: Caller) -> None:
    status, body = await send("/v2/sandboxes", alice.secret, *[b"x" * 1_000_000] * 5)

    assert (status, body["code"]) == (413, 413)
    assert node.calls == []
