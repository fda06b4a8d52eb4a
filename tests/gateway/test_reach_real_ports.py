"""Servers in a real sandbox, reached from outside: wherever they listen and whatever form of HTTP they speak."""

from __future__ import annotations

import hashlib
import json
import time
from typing import TYPE_CHECKING

import aiohttp
import pytest
from e2b import Sandbox

from tests.gateway.realports import Port, listen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.live import Stack

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def sandbox(stack: Stack) -> Iterator[Sandbox]:
    """A sandbox with a server on port 8080."""
    sandbox = Sandbox.create(timeout=300, **stack.sdk)
    listen(sandbox, "127.0.0.1", 8080)
    yield sandbox
    sandbox.kill()


@pytest.fixture
def port(stack: Stack, sandbox: Sandbox) -> Iterator[Port]:
    """Port 8080 of the sandbox."""
    with Port(stack, sandbox) as port:
        yield port


@pytest.mark.parametrize(
    ("number", "address"), [(9001, "127.0.0.1"), (9002, "0.0.0.0"), (9003, "localhost"), (9004, "::1"), (9005, "::")]
)
def test_it_is_reached_wherever_it_listens(stack: Stack, sandbox: Sandbox, number: int, address: str) -> None:
    listen(sandbox, address, number)

    with Port(stack, sandbox, number) as port:
        assert port.seen("GET", "/")["method"] == "GET"


def test_a_closed_port_says_so(stack: Stack, sandbox: Sandbox) -> None:
    with Port(stack, sandbox, 9999) as port:
        answer, body = port.ask("GET", "/")

    message = "The sandbox is running but port is not open"
    assert answer.status == 502
    assert json.loads(body) == {"sandboxId": sandbox.sandbox_id, "message": message, "port": 9999, "code": 502}


@pytest.mark.parametrize("target", ["/a%2Fb/%2e%2e/c?q=%2F&r=a+b&s=%20&&t", "/%F0%9F%98%80?a=b?c=d", "//x//y/./z/../w"])
def test_the_target_stays_as_it_is(port: Port, target: str) -> None:
    assert port.seen("GET", target)["target"] == target


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "GET"])
def test_a_body_passes_with_every_method(port: Port, method: str) -> None:
    body = b"{}" * 50_000

    seen = port.seen(method, "/", body)

    assert (seen["method"], seen["size"]) == (method, len(body))
    assert seen["sha256"] == hashlib.sha256(body).hexdigest()


def test_a_chunked_body_passes(port: Port) -> None:
    assert port.seen("POST", "/", iter([b"a" * 1000, b"b" * 200_000]))["size"] == 201_000


def test_the_host_stays_as_it_is(port: Port) -> None:
    assert port.seen("GET", "/")["fields"]["host"] == port.host


def test_a_connection_is_used_again(port: Port) -> None:
    assert len({port.seen("GET", "/")["connection"] for _ in range(5)}) == 1


def test_head_has_a_length_and_no_body(port: Port) -> None:
    answer, body = port.ask("HEAD", "/")

    assert (answer.status, body) == (200, b"")
    assert int(answer.headers["Content-Length"]) > 0
    assert port.seen("GET", "/")["method"] == "GET"


def test_answers_without_a_body_have_none(port: Port) -> None:
    nothing, body = port.ask("GET", "/nothing")
    assert (nothing.status, body, nothing.headers["X-Mine"]) == (204, b"", "yes")
    assert not {"content-length", "transfer-encoding"} & {name.lower() for name in nothing.headers}

    same, body = port.ask("GET", "/same")
    assert (same.status, body, same.headers["ETag"]) == (304, b"", '"1"')
    assert port.seen("GET", "/")["method"] == "GET"


def test_early_hints_and_trailers_disturb_nobody(port: Port) -> None:
    assert port.ask("GET", "/hints")[1] == b"late"
    assert port.ask("GET", "/trailers")[1] == b"with trailers"
    assert port.seen("GET", "/")["method"] == "GET"


def test_big_bodies_pass_both_ways(port: Port) -> None:
    piece, count = b"x" * 1_000_000, 100
    digest = hashlib.sha256()
    for _ in range(count):
        digest.update(piece)
    seen = port.seen("POST", "/", (piece for _ in range(count)))
    assert (seen["size"], seen["sha256"]) == (100_000_000, digest.hexdigest())

    answer, body = port.ask("GET", "/big")
    assert (answer.status, len(body)) == (200, 104_857_600)


def test_events_pass_unbuffered(port: Port) -> None:
    port.connection.request("GET", "/events", headers={"Host": port.host})
    answer = port.connection.getresponse()
    arrivals = []
    for count in range(3):
        assert answer.readline() == b"data: %d\n" % count
        assert answer.readline() == b"\n"
        arrivals.append(time.monotonic())
    answer.read()

    assert arrivals[1] - arrivals[0] > 0.2
    assert arrivals[2] - arrivals[1] > 0.2


@pytest.fixture
async def websocket(port: Port) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A WebSocket to the server."""
    url = f"http://127.0.0.1:{port.connection.port}/ws"
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(url, headers={"Host": port.host}, max_msg_size=0) as websocket,
    ):
        yield websocket


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 3_000_000])
async def test_a_websocket_carries_every_size(websocket: aiohttp.ClientWebSocketResponse, size: int) -> None:
    await websocket.send_bytes(b"\0" * size)
    await websocket.send_str("text")

    assert await websocket.receive_bytes() == b"\0" * size
    assert await websocket.receive_str() == "text"


async def test_its_server_closes_it(websocket: aiohttp.ClientWebSocketResponse) -> None:
    await websocket.send_str("bye")
    message = await websocket.receive()

    assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 4001)


async def test_its_client_closes_it(websocket: aiohttp.ClientWebSocketResponse) -> None:
    assert await websocket.close(code=4002)
    assert websocket.close_code == 4002
