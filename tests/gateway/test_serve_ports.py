"""What listens inside a sandbox is reached on its own host name, through the guest agent, and stays there."""

from __future__ import annotations

import asyncio
import re

import aiohttp
import pytest

from sandboxes.gateway.settings import Limits
from tests.gateway import doubles
from tests.gateway.place import ALICE, ALICE_KEY, Place, read_answer, until
from tests.gateway.sites import Site, end_of, upgraded

HOST = f"8080-{ALICE}.sbx.example"
CLOSED = {"sandboxId": ALICE, "message": "The sandbox is running but port is not open", "port": 8080, "code": 502}


@pytest.fixture
def site(place: Place) -> Site:
    """A server on port 8080 of Alice's sandbox."""
    site = Site()
    place.guest.open_port(8080, site)
    return site


async def test_it_serves_a_port_without_a_token(place: Place, site: Site) -> None:
    status, fields, body = await place.raw("GET /a%2Fb?c=%20d HTTP/1.1", Host=HOST, User_Agent="curl")

    assert (status, body) == (200, b"hello from inside")
    assert "content-security-policy" not in fields
    request = site.requests[0]
    assert (request.method, request.target) == ("GET", "/a%2Fb?c=%20d")
    assert request.get("Host") == HOST
    assert request.get("X-Forwarded-For") == "127.0.0.1"


async def test_it_serves_a_port_by_headers(place: Place, site: Site) -> None:
    headers = place.headers(port=8080, token="")
    async with place.http.post(f"{place.url}/x", data=b"y" * 100_000, headers=headers) as response:
        assert response.status == 200

    assert site.requests[0].body == b"y" * 100_000


async def test_a_connection_is_on_record_and_kept_for_the_same_caller(place: Place, site: Site) -> None:
    for _ in range(3):
        await place.raw("GET / HTTP/1.1", Host=HOST)
    await until(lambda: place.tap.of("port.connect", "result"))

    assert site.connections == 1
    (intent,) = place.tap.of("port.connect", "intent")
    assert (intent["origin"], intent["tool_name"], intent["details"]) == ("127.0.0.1", "connect_port", {"port": 8080})


async def test_a_closed_port_says_so(place: Place) -> None:
    status, _, body = await place.raw("GET / HTTP/1.1", Host=HOST)

    assert (status, body) == (502, CLOSED)
    await until(lambda: place.tap.of("port.connect", "result"))
    assert place.tap.of("port.connect", "result")[0]["outcome"] == "error"


async def test_a_person_sees_a_page(place: Place) -> None:
    status, fields, body = await place.raw(
        "GET / HTTP/1.1", Host=HOST, User_Agent="Mozilla/5.0", Accept="text/html", Sec_Fetch_Mode="navigate"
    )

    assert (status, fields["content-type"]) == (502, "text/html; charset=utf-8")
    assert b"The sandbox is running but port is not open" in body
    policy = fields["content-security-policy"].split("; ")
    assert policy[0] == "default-src 'none'"
    assert policy[1].startswith("style-src 'sha256-")
    assert policy[2:] == ["base-uri 'none'", "form-action 'none'", "sandbox"]
    assert not re.search(rb"https?:|<script|src=|href=", body)


@pytest.mark.parametrize(
    "more",
    [
        {"User_Agent": "Mozilla/5.0", "Sec_Fetch_Mode": "cors"},
        {"User_Agent": "Mozilla/5.0", "Accept": "application/json"},
        {"User_Agent": "python-httpx/0.28"},
        {},
    ],
)
async def test_a_program_reads_json(place: Place, more: dict[str, str]) -> None:
    _, _, body = await place.raw("GET / HTTP/1.1", Host=HOST, **more)

    assert body == CLOSED


@pytest.mark.parametrize("port", [53, 3128, 15001, 15053])
async def test_the_platforms_own_ports_are_closed(place: Place, port: int) -> None:
    place.guest.open_port(port, Site())

    status, _, body = await place.raw("GET / HTTP/1.1", Host=f"{port}-{ALICE}.sbx.example")

    assert (status, body) == (502, CLOSED | {"port": port})
    assert place.guest.requests == []


async def test_the_agents_port_is_never_dialled(place: Place) -> None:
    await place.raw("GET /health HTTP/1.1", Host=f"49983-{ALICE}.sbx.example")
    status, _, body = await place.raw("POST /init HTTP/1.1", Host=f"49983-{ALICE}.sbx.example", Content_Length="0")

    assert (status, body) == (404, {"message": "The requested path was not found", "path": "/init", "code": 404})
    assert place.guest.calls("CONNECT", "127.0.0.1:49983") == []


async def test_an_unknown_sandbox_is_not_found(place: Place) -> None:
    status, _, body = await place.raw("GET / HTTP/1.1", Host="8080-inobody.sbx.example")

    assert (status, body) == (502, {"sandboxId": "inobody", "message": "The sandbox was not found", "code": 502})


async def test_platform_credentials_stay_outside(place: Place, site: Site) -> None:
    key, token = "e2b_" + "0" * 40, doubles.token(ALICE, ALICE_KEY)
    await place.raw(
        "GET / HTTP/1.1",
        Host=HOST,
        Cookie=f"theme=dark; sessionid=1; csrftoken=2; __Host-gatehouse_session=3; mine={token}",
        X_API_Key=key,
        X_Access_Token=token,
        Authorization=f"Bearer {key}",
        X_Forwarded_For="1.2.3.4",
        X_Mine="yes",
    )
    await place.raw("GET / HTTP/1.1", Host=HOST, Cookie="theme=dark; sessionid=1", Authorization="Bearer users-own")

    first, second = site.requests
    assert not {"x-api-key", "x-access-token", "authorization", "cookie"} & first.names()
    assert (first.get("X-Mine"), first.get("X-Forwarded-For")) == ("yes", "127.0.0.1")
    assert (second.get("Cookie"), second.get("Authorization")) == ("theme=dark", "Bearer users-own")


async def test_its_own_host_may_set_cookies_for_itself_only(place: Place, site: Site) -> None:
    site.reply = doubles.answer(
        200,
        Set_Cookie="a=b; Domain=.sbx.example; Path=/; HttpOnly",
        Clear_Site_Data='"*"',
        Service_Worker_Allowed="/",
        Alt_Svc='h3=":443"',
        X_Own="kept",
    )

    _, fields, _ = await place.raw("GET / HTTP/1.1", Host=HOST)

    assert fields["set-cookie"] == "a=b; Path=/; HttpOnly"
    assert fields["x-own"] == "kept"
    assert not {"clear-site-data", "service-worker-allowed", "alt-svc"} & set(fields)


async def test_on_a_shared_host_it_can_set_nothing(place: Place, site: Site) -> None:
    site.reply = doubles.answer(
        200, Set_Cookie="sessionid=x", Content_Security_Policy="default-src *", Strict_Transport_Security="max-age=1"
    )
    headers = place.headers(port=8080, token="", Cookie="theme=dark")

    _, fields, _ = await place.raw("GET / HTTP/1.1", **headers)

    assert fields["content-security-policy"] == "sandbox"
    assert fields["x-content-type-options"] == "nosniff"
    assert not {"set-cookie", "strict-transport-security"} & set(fields)
    assert site.requests[0].get("Cookie") is None


async def test_websockets_pass(place: Place) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await doubles.read_head(reader)
        assert request is not None
        assert (request.get("Upgrade"), request.get("Connection")) == ("websocket", "Upgrade")
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: x\r\nSet-Cookie: a=b\r\n\r\nearly"
        )
        while data := await reader.read(1_000_000):
            writer.write(data)
            await writer.drain()

    place.guest.open_port(8080, echo)
    reader, writer = await upgraded(place, HOST)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"Sec-WebSocket-Accept: x" in head
    assert b"Set-Cookie" not in head
    assert await reader.readexactly(5) == b"early"

    payload = bytes(range(256)) * 20_000
    sending = asyncio.ensure_future(send_all(writer, payload))
    assert await reader.readexactly(len(payload)) == payload
    await sending
    place.edge.drop(ALICE)
    async with asyncio.timeout(1):
        assert await end_of(reader) == b""
    writer.close()


async def send_all(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Send data under flow control."""
    writer.write(data)
    await writer.drain()


async def test_a_websocket_ends_with_its_server_and_with_its_client(place: Place) -> None:
    ended = asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await doubles.read_head(reader)
        writer.write(b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        if await reader.read(3) == b"bye":
            return
        await reader.read()
        ended.set()

    place.guest.open_port(8080, accept)
    reader, writer = await upgraded(place, HOST)
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"bye")
    async with asyncio.timeout(1):
        assert await end_of(reader) == b""
    writer.close()

    reader, writer = await upgraded(place, HOST)
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"own")
    writer.close()
    async with asyncio.timeout(1):
        await ended.wait()


async def test_a_refused_websocket_is_an_ordinary_answer(place: Place, site: Site) -> None:
    site.reply = doubles.answer(403, b"no", Set_Cookie="a=b; Domain=x")

    reader, writer = await upgraded(place, HOST)
    status, fields, body = await read_answer(reader)
    writer.close()

    assert (status, body, fields["set-cookie"]) == (403, b"no", "a=b")


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 101 X\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n" + b"x" * 70_000,
        b"HTTP/0.9\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_a_502(place: Place, site: Site, reply: bytes) -> None:
    site.reply = reply

    status, _, body = await place.raw("GET / HTTP/1.1", Host=HOST)

    assert (status, body["message"]) == (502, "The sandbox is running but its answer is not valid HTTP")


async def test_an_answer_without_a_length_ends_with_the_connection(place: Place) -> None:
    async def old(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await doubles.read_head(reader)
        writer.write(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nold but whole")

    place.guest.open_port(8080, old)
    assert (await place.raw("GET / HTTP/1.1", Host=HOST))[2] == b"old but whole"
    assert (await place.raw("GET / HTTP/1.1", Host=HOST))[2] == b"old but whole"


async def test_events_pass_at_once(place: Place) -> None:
    proceed = asyncio.Event()

    async def events(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await doubles.read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + doubles.chunk(b"data: 1\n\n"))
        await proceed.wait()
        writer.write(doubles.chunk(b"data: 2\n\n") + b"0\r\n\r\n")

    place.guest.open_port(8080, events)
    async with place.http.get(f"{place.url}/", headers={"Host": HOST}) as response:
        assert await response.content.readany() == b"data: 1\n\n"
        proceed.set()
        assert await response.content.readany() == b"data: 2\n\n"


async def test_a_kept_connection_that_died_is_replaced(place: Place) -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await doubles.read_head(reader)
        writer.write(doubles.answer(200, b"ok"))
        await writer.drain()
        await doubles.read_head(reader)

    place.guest.open_port(8080, once)
    for _ in range(3):
        assert (await place.raw("GET / HTTP/1.1", Host=HOST))[2] == b"ok"


class TestBounds:
    """Only so many connections a sandbox, and some of them are its owner's."""

    @pytest.fixture
    def limits(self) -> Limits:
        """Allow four at a time, of which strangers may take three."""
        return Limits(drain_seconds=0.2, streams_per_sandbox=4)

    async def test_a_sandbox_takes_only_so_many_requests(self, place: Place) -> None:
        async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()

        place.guest.open_port(8080, hang)
        waiting = [asyncio.ensure_future(place.raw("GET / HTTP/1.1", Host=HOST)) for _ in range(3)]
        await until(lambda: len(place.gateway.services.table.get(ALICE).streams) == 3)  # type: ignore[union-attr]

        status, _, body = await place.raw("GET / HTTP/1.1", Host=HOST)
        assert status == 429
        assert body == {
            "sandboxId": ALICE,
            "message": "The sandbox has too many open connections",
            "connectionLimit": 4,
            "code": 429,
        }
        async with place.start({"process": {"cmd": "x"}}) as response:
            assert response.status == 200
        place.edge.drop(ALICE)
        assert [status for status, _, _ in await asyncio.gather(*waiting)] == [502] * 3


async def test_many_callers_do_not_keep_connections_for_ever(place: Place, site: Site) -> None:
    route = place.gateway.services.table.get(ALICE)
    assert route is not None
    await place.raw("GET / HTTP/1.1", Host=HOST)
    assert route.open_tunnels == 1

    route.prune(asyncio.get_running_loop().time() + 10)
    await until(lambda: route.open_tunnels == 0)
    assert route.tunnels == {}


async def test_aiohttp_reads_what_we_write(place: Place, site: Site) -> None:
    async with aiohttp.ClientSession() as other, other.head(f"{place.url}/", headers={"Host": HOST}) as response:
        assert response.status == 200
        assert response.headers["Content-Length"] == "17"
