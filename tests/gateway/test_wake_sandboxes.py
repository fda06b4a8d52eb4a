"""A paused sandbox looks like none, unless its owner lets calls wake it: then one question to web does it for all."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import aiohttp
import pytest

from corekit import tokens
from sandboxes.gateway.settings import Limits
from tests.gateway import doubles
from tests.gateway.place import ALICE, ALICE_KEY, BOB_KEY, Place, until
from tests.gateway.sites import Site, end_of, upgraded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HOST = f"8080-{ALICE}.sbx.example"
NOT_FOUND = {"sandboxId": ALICE, "message": "The sandbox was not found", "code": 502}
REFUSED = {
    "sandboxId": ALICE,
    "message": "This sandbox can't be resumed with the credentials provided. Check your access token and try again.",
    "code": 403,
}
COMMAND = {"process": {"cmd": "x"}}
TRAFFIC = "0123456789abcdef" * 4


class Control(doubles.Server):
    """Web's internal listener. It resumes what it is asked to, or answers with `reply`."""

    place: Place
    reply: bytes | None = None
    wakes = True
    proceed: asyncio.Event | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer questions."""
        while request := await doubles.read_head(reader):
            request.body = await doubles.read_body(reader, request)
            self.requests.append(request)
            if self.proceed is not None:
                await self.proceed.wait()
            writer.write(self.reply or doubles.answer(200, b"{}", Content_Type="application/json"))
            await writer.drain()
            if self.reply is None and self.wakes:
                self.place.edge.put(self.place.edge.rows[ALICE] | {"state": "running"})


def refusal(status: int, message: str = "no", **fields: str) -> bytes:
    """Return an answer with which web refuses to resume."""
    body = json.dumps({"code": "refused", "message": message}).encode()
    return doubles.answer(status, body, Content_Type="application/json", **fields)


@pytest.fixture
def limits() -> Limits:
    """Wait only shortly for what never comes."""
    return Limits(drain_seconds=0.2, intent_seconds=0.3, resume_seconds=0.5)


@pytest.fixture
async def control(place: Place) -> AsyncIterator[Control]:
    """Web, ready to be asked."""
    async with Control(place.home / "run/internal.sock") as control:
        control.place = place
        yield control


@pytest.fixture
def site(place: Place) -> Site:
    """A server on port 8080 of Alice's sandbox."""
    site = Site()
    place.guest.open_port(8080, site)
    return site


async def paused(place: Place, **more: Any) -> None:
    """Let Alice's sandbox be paused; calls may wake it."""
    await place.change(state="paused", **{"auto_resume": True, **more})


async def command(place: Place, **headers: Any) -> tuple[int, Any]:
    """Run a command; return status and body."""
    async with place.start(COMMAND, **headers) as response:
        return response.status, (await response.json(content_type=None) if response.status >= 400 else None)


async def test_a_command_wakes_it(place: Place, control: Control) -> None:
    await paused(place)

    assert await command(place) == (200, None)

    (question,) = control.requests
    assert (question.method, question.target) == ("POST", f"/internal/v1/sandboxes/{ALICE}/resume")
    assert json.loads(question.body) == {"generation": 1}
    assert await command(place) == (200, None)
    assert len(control.requests) == 1


async def test_a_request_to_a_port_wakes_it(place: Place, control: Control, site: Site) -> None:
    await paused(place)

    status, _, body = await place.raw("POST / HTTP/1.1", b"x" * 100, Host=HOST, Content_Length="100")

    assert (status, body) == (200, b"hello from inside")
    assert site.requests[0].body == b"x" * 100


async def test_a_websocket_wakes_it(place: Place, control: Control) -> None:
    await paused(place)
    place.guest.open_port(8080, Site(b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"))

    reader, writer = await upgraded(place, HOST)
    assert (await reader.readline()).startswith(b"HTTP/1.1 101 ")
    writer.close()


async def test_the_owners_probe_wakes_it(place: Place, control: Control) -> None:
    await paused(place)

    async with place.http.get(f"{place.url}/health", headers=place.headers()) as response:
        assert response.status == 204


@pytest.mark.parametrize("host", ["localhost", f"49983-{ALICE}.sbx.example"])
async def test_a_signed_address_wakes_it_and_a_forged_one_does_not(place: Place, control: Control, host: str) -> None:
    await paused(place)
    place.guest.on("GET", "/files", doubles.answer(200, b"content"))
    signature = tokens.file_signature(doubles.token(ALICE, ALICE_KEY), "/a", "read", "", None)

    forged = await place.raw("GET /files?path=/b&signature=" + quote(signature, safe="") + " HTTP/1.1", Host=host)
    assert (forged[0], control.requests) == (401 if host == "localhost" else 403, [])
    genuine = await place.raw("GET /files?path=/a&signature=" + quote(signature, safe="") + " HTTP/1.1", Host=host)
    assert (genuine[0], genuine[2], len(control.requests)) == (200, b"content", 1)


async def test_many_calls_are_one_question(place: Place, control: Control, site: Site) -> None:
    await paused(place)
    control.proceed = asyncio.Event()
    calls: list[asyncio.Future[Any]] = [asyncio.ensure_future(command(place)) for _ in range(10)]
    calls += [asyncio.ensure_future(place.raw("GET / HTTP/1.1", Host=HOST)) for _ in range(10)]
    route = place.gateway.services.table.get(ALICE)
    assert route is not None
    await until(lambda: len(route.streams) == 20)
    control.proceed.set()

    assert {answer[0] for answer in await asyncio.gather(*calls)} == {200}
    assert len(control.requests) == 1


async def test_a_client_that_leaves_does_not_disturb_the_others(place: Place, control: Control) -> None:
    await paused(place)
    control.proceed = asyncio.Event()
    first, second = (asyncio.ensure_future(command(place)) for _ in range(2))
    await until(lambda: control.requests)
    first.cancel()
    control.proceed.set()

    assert await second == (200, None)


class TestWhoMayWake:
    """A call without a right never reaches web."""

    async def test_nobody_wakes_what_should_sleep(self, place: Place, control: Control) -> None:
        await paused(place, auto_resume=False)

        assert await command(place) == (502, NOT_FOUND)
        assert (await place.raw("GET / HTTP/1.1", Host=HOST))[2] == NOT_FOUND
        assert (await place.raw("GET /health HTTP/1.1", **place.headers()))[2] == NOT_FOUND
        assert control.requests == []

    @pytest.mark.parametrize("token", ["", "gh_wrong", doubles.token(ALICE, BOB_KEY), doubles.token("iother", BOB_KEY)])
    async def test_the_agent_asks_for_the_access_token(self, place: Place, control: Control, token: str) -> None:
        await paused(place)

        assert await command(place, token=token) == (403, REFUSED)
        status, _, body = await place.raw("GET /health HTTP/1.1", **place.headers(token=token))
        assert (status, body) == (403, REFUSED)
        status, _, body = await place.raw("GET /files?path=/a HTTP/1.1", **place.headers(token=token))
        assert (status, body) == (403, REFUSED)
        assert control.requests == []

    @pytest.mark.parametrize("token", ["", "wrong"])
    async def test_private_ports_ask_for_the_traffic_token(
        self, place: Place, control: Control, site: Site, token: str
    ) -> None:
        ingress = {"public": False, "traffic_token": TRAFFIC}
        await paused(place, ingress=ingress)

        assert (await place.raw("GET / HTTP/1.1", Host=HOST, E2b_Traffic_Access_Token=token))[2] == REFUSED
        assert control.requests == []
        assert (await place.raw("GET / HTTP/1.1", Host=HOST, E2b_Traffic_Access_Token=TRAFFIC))[0] == 200

    async def test_the_code_port_asks_for_the_access_token(self, place: Place, control: Control) -> None:
        await paused(place)

        headers = place.headers(port=49999, token="")
        async with place.http.post(f"{place.url}/execute", json={"code": "1"}, headers=headers) as response:
            assert (response.status, await response.json(content_type=None)) == (403, REFUSED)
        assert control.requests == []

    @pytest.mark.parametrize("path", ["/init", "/freeze", "/nothing"])
    async def test_a_path_that_leads_nowhere_wakes_nobody(self, place: Place, control: Control, path: str) -> None:
        await paused(place)

        assert (await place.raw(f"POST {path} HTTP/1.1", **place.headers(), Content_Length="0"))[0] == 404
        assert control.requests == []

    async def test_a_platform_port_wakes_nobody(self, place: Place, control: Control) -> None:
        await paused(place)

        assert (await place.raw("GET / HTTP/1.1", Host=f"3128-{ALICE}.sbx.example"))[0] == 502
        assert control.requests == []

    async def test_a_browsers_question_wakes_nobody(self, place: Place, control: Control) -> None:
        await paused(place)

        status, _, _ = await place.raw(
            "OPTIONS /files HTTP/1.1",
            Host=f"49983-{ALICE}.sbx.example",
            Origin="https://a",
            Access_Control_Request_Method="GET",
        )
        assert status == 204
        assert control.requests == []


class TestWhatWebSays:
    """Each refusal of web has its own answer."""

    @pytest.mark.parametrize(
        ("reply", "status", "message", "retry_after"),
        [
            (refusal(404), 502, "The sandbox was not found", None),
            (refusal(403), 403, REFUSED["message"], None),
            (refusal(409), 409, "The sandbox is still transitioning. Try again in a moment.", "1"),
            (refusal(429, "Ten sandboxes run already.", Retry_After="7"), 429, "Ten sandboxes run already.", "7"),
            (refusal(503), 503, "The control plane is not available at the moment", "1"),
            (refusal(500, Retry_After="soon"), 503, "The control plane is not available at the moment", "1"),
            (refusal(302), 503, "The control plane is not available at the moment", "1"),
            (
                doubles.answer(429, b"[]"),
                429,
                "The sandbox can't be resumed now: too many sandboxes are running. Try again later.",
                None,
            ),
            (b"nonsense\r\n\r\n", 503, "The control plane is not available at the moment", "1"),
            (doubles.answer(200, b"x" * 70_000), 503, "The control plane is not available at the moment", "1"),
        ],
    )
    async def test_it_is_passed_on(
        self, place: Place, control: Control, reply: bytes, status: int, message: str, retry_after: str | None
    ) -> None:
        await paused(place)
        control.reply = reply

        async with place.start(COMMAND) as response:
            assert response.status == status
            body = await response.json(content_type=None)
            assert body == {"sandboxId": ALICE, "message": message, "code": status}
            assert response.headers.get("Retry-After") == retry_after
        assert place.guest.calls("POST", "/process.Process/Start") == []
        assert place.tap.of("command.start", "intent") == []

    async def test_a_refusal_counts_for_a_second(self, place: Place, control: Control) -> None:
        await paused(place)
        control.reply = refusal(429)

        assert [(await command(place))[0] for _ in range(5)] == [429] * 5
        assert len(control.requests) == 1

    async def test_without_web_it_stays_asleep(self, place: Place) -> None:
        await paused(place)

        assert (await command(place))[0] == 503

    async def test_it_is_waited_for_only_so_long(self, place: Place, control: Control) -> None:
        await paused(place)
        control.wakes = False

        status, body = await command(place)

        assert (status, body["message"]) == (409, "The sandbox is still transitioning. Try again in a moment.")

    async def test_one_that_is_killed_meanwhile_is_not_found(self, place: Place, control: Control) -> None:
        await paused(place)
        control.wakes = False
        call = asyncio.ensure_future(command(place))
        await until(lambda: control.requests)
        place.edge.drop(ALICE)

        assert await call == (502, NOT_FOUND)


class TestPausing:
    """What is open ends at once when a sandbox is paused."""

    async def test_a_stream_is_cut(self, place: Place) -> None:
        async def start(request: doubles.Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await doubles.read_body(reader, request)
            writer.write(doubles.STREAM_HEAD + doubles.chunk(doubles.envelope({"event": {"start": {"pid": 1}}})))
            await reader.read()

        place.guest.on("POST", "/process.Process/Start", start)
        async with place.start(COMMAND) as response:
            await response.content.readany()
            await paused(place, auto_resume=False)
            async with asyncio.timeout(1):
                with pytest.raises(aiohttp.ClientError):
                    await response.read()
        async with place.http.get(f"{place.url}/health", headers=place.headers()) as probe:
            assert await probe.json(content_type=None) == NOT_FOUND
        await until(lambda: place.tap.of("command.start", "result"))
        assert place.tap.of("command.start", "result")[0]["details"]["reason"] == "sandbox_paused"

    async def test_a_call_without_an_answer_is_not_found(self, place: Place) -> None:
        asked = asyncio.Event()

        async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.set()
            await reader.read()

        place.guest.open_port(8080, hang)
        call = asyncio.ensure_future(place.raw("GET / HTTP/1.1", Host=HOST))
        await asked.wait()
        await paused(place)

        assert (await call)[2] == NOT_FOUND

    async def test_a_websocket_is_cut(self, place: Place) -> None:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await doubles.read_head(reader)
            writer.write(b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
            await reader.read()

        place.guest.open_port(8080, echo)
        reader, writer = await upgraded(place, HOST)
        await reader.readuntil(b"\r\n\r\n")
        await paused(place)
        async with asyncio.timeout(1):
            assert await end_of(reader) == b""
        writer.close()

    async def test_idle_connections_are_closed(self, place: Place, site: Site) -> None:
        await command(place)
        await place.raw("GET / HTTP/1.1", Host=HOST)
        route = place.gateway.services.table.get(ALICE)
        assert route is not None
        assert route.open_tunnels == 1

        await paused(place)

        await until(lambda: route.open_tunnels == 0)
        idle = route.pool.take()
        assert idle is None

    async def test_it_works_again_afterwards(self, place: Place, site: Site) -> None:
        for _ in range(3):
            await place.change(state="paused")
            assert (await place.raw("GET / HTTP/1.1", Host=HOST))[0] == 502
            await place.change()
            assert (await place.raw("GET / HTTP/1.1", Host=HOST))[0] == 200
            assert await command(place) == (200, None)
