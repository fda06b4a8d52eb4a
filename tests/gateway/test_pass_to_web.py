"""Everything that is no sandbox traffic goes to web, with what the gateway alone can know."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.gateway import doubles
from tests.gateway.place import Place, read_answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def seen(place: Place, first_line: str = "GET / HTTP/1.1", **headers: str) -> doubles.Request:
    """Send a request and return what web saw."""
    status, _, _ = await place.raw(first_line, **headers)
    assert status == 200
    return place.web.requests[-1]


async def test_it_passes_a_request(place: Place) -> None:
    async with place.http.put(
        f"{place.url}/v2/sandboxes/a%2Fb:c?x=%20", json={"a": 1}, headers={"X-API-KEY": "e2b_x", "lang_version": "3"}
    ) as response:
        answer: dict[str, Any] = await response.json()

    assert response.headers["Content-Type"] == "application/json"
    assert (answer["method"], answer["target"], answer["size"]) == ("PUT", "/v2/sandboxes/a%2Fb:c?x=%20", 8)
    assert ["X-API-KEY", "e2b_x"] in answer["fields"]
    assert ["lang_version", "3"] in answer["fields"]
    assert ["Host", f"127.0.0.1:{place.port}"] in answer["fields"]


async def test_it_says_who_the_caller_is_and_nobody_else_can(place: Place) -> None:
    request = await seen(
        place, X_Forwarded_For="6.6.6.6", Forwarded="for=6.6.6.6", X_Real_IP="6.6.6.6", X_Forwarded_Proto="https"
    )
    underscored = b"GET / HTTP/1.1\r\nHost: localhost\r\nX_Forwarded_For: 6.6.6.6\r\nRemote_User: root\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    writer.write(underscored)
    await read_answer(reader)
    writer.close()

    for one in (request, place.web.requests[-1]):
        assert [value for name, value in one.fields if "forwarded" in name.lower()] == ["127.0.0.1"]
        assert not {"forwarded", "x-real-ip", "remote_user", "x-forwarded-proto"} & one.names()


async def test_it_passes_a_sane_request_id_and_makes_one_otherwise(place: Place) -> None:
    assert (await seen(place, X_Request_Id="from-client-1")).get("X-Request-Id") == "from-client-1"
    made = (await seen(place, X_Request_Id="bad id <script>")).get("X-Request-Id")
    assert made is not None
    assert len(made) == 32
    assert len([name for name, _ in place.web.requests[-1].fields if name.lower() == "x-request-id"]) == 1


async def test_it_takes_a_trace_over_as_the_next_step_and_makes_one_otherwise(place: Place) -> None:
    given = f"00-{'a' * 32}-{'b' * 16}-01"
    for sent in (given, f"00-{'0' * 32}-{'b' * 16}-01", "nonsense", ""):
        async with place.http.get(f"{place.url}/x", headers={"traceparent": sent, "tracestate": "a=b"}):
            pass
    traces = [request.get("traceparent") or "" for request in place.web.requests]
    assert traces[0].startswith(f"00-{'a' * 32}-")
    assert not traces[0].endswith(f"{'b' * 16}-01")
    assert len({trace[3:35] for trace in traces}) == 4
    assert all(re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-01", trace) for trace in traces)
    assert place.web.requests[0].get("tracestate") is None


async def test_it_streams_bodies_both_ways(place: Place) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield b"x" * 20_000

    place.web.reply = doubles.STREAM_HEAD + doubles.chunk(b"y" * 100_000) * 10 + b"0\r\n\r\n"
    async with place.http.post(f"{place.url}/upload", data=pieces()) as response:
        assert await response.read() == b"y" * 1_000_000

    assert place.web.requests[0].body == b"x" * 1_000_000


async def test_one_hop_fields_do_not_pass(place: Place) -> None:
    request = await seen(place, Connection="keep-alive, X-Secret", X_Secret="1", TE="trailers", Keep_Alive="5")

    assert not {"x-secret", "te", "keep-alive", "connection"} & request.names()


async def test_websockets_pass(place: Place) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    writer.write(
        b"GET /ws/x HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n"
        b"Sec-WebSocket-Key: k\r\nOrigin: http://localhost\r\nCookie: sessionid=1\r\n\r\n"
    )
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    writer.write(b"frames")
    assert await reader.readexactly(6) == b"FRAMES"
    request = place.web.requests[-1]
    assert (request.get("Cookie"), request.get("Origin")) == ("sessionid=1", "http://localhost")
    writer.close()


async def test_web_away_is_a_503_in_json(place: Place) -> None:
    await place.web.stop()

    status, fields, body = await place.raw("GET /sandboxes HTTP/1.1")

    assert (status, fields["retry-after"]) == (503, "1")
    assert body == {
        "error_code": "unavailable",
        "message": "The control plane is not available at the moment",
        "code": 503,
    }
    await place.web.start()
    assert (await place.raw("GET /sandboxes HTTP/1.1"))[0] == 200


@pytest.mark.parametrize("lie", [b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"])
async def test_an_answer_that_is_not_http_is_a_503(place: Place, lie: bytes) -> None:
    place.web.reply = lie

    assert (await place.raw("GET / HTTP/1.1"))[0] == 503


async def test_sandboxes_go_on_while_web_is_away(place: Place) -> None:
    await place.web.stop()

    async with place.start({"process": {"cmd": "x"}}) as response:
        assert response.status == 200


async def test_a_browser_may_call_the_api_with_a_key(place: Place) -> None:
    ask = {"Origin": "https://app.example", "Access_Control_Request_Method": "POST"}
    status, fields, _ = await place.raw(
        "OPTIONS /v2/sandboxes HTTP/1.1", Access_Control_Request_Headers="content-type,x-api-key", **ask
    )
    assert (status, place.web.requests) == (204, [])
    assert fields["access-control-allow-origin"] == "*"
    assert fields["access-control-allow-headers"] == "content-type,x-api-key"

    _, fields, _ = await place.raw("GET /v2/sandboxes HTTP/1.1", Origin="https://app.example", X_API_KEY="e2b_x")
    assert fields["access-control-allow-origin"] == "*"


async def test_a_browser_may_not_read_the_console(place: Place) -> None:
    _, fields, _ = await place.raw("GET /console HTTP/1.1", Origin="https://evil.example", Cookie="sessionid=1")
    assert "access-control-allow-origin" not in fields
    _, fields, _ = await place.raw(
        "GET /console HTTP/1.1", Origin="https://evil.example", Cookie="sessionid=1", X_API_KEY="x"
    )
    assert "access-control-allow-origin" not in fields
    await place.raw("OPTIONS /console HTTP/1.1", Origin="https://evil.example", Access_Control_Request_Method="POST")
    assert place.web.requests[-1].method == "OPTIONS"


@pytest.mark.parametrize("path", ["/health", "/files", "/metrics"])
async def test_paths_that_the_agent_has_too_belong_to_web_without_routing_headers(place: Place, path: str) -> None:
    assert (await seen(place, f"GET {path} HTTP/1.1")).target == path
    assert place.guest.requests == []


@pytest.mark.parametrize("path", ["/health", "/files", "/process.Process/Start"])
async def test_the_agents_preflight_needs_no_token(place: Place, path: str) -> None:
    status, fields, _ = await place.raw(
        f"OPTIONS {path} HTTP/1.1",
        **place.headers(token=""),
        Origin="https://app.example",
        Access_Control_Request_Method="POST",
        Access_Control_Request_Headers="authorization, connect-protocol-version",
    )

    assert (status, fields["access-control-allow-origin"]) == (204, "*")
    assert fields["access-control-allow-headers"] == "authorization, connect-protocol-version"
    assert place.guest.requests == []
