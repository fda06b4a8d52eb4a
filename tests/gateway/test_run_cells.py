"""Port 49999 runs code: what may run asks for the token, and every cell is on record."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from audit.risk.assessor import assess
from tests.gateway import doubles
from tests.gateway.place import ALICE, ALICE_KEY, Place, until
from tests.gateway.sites import Site

HOST = f"49999-{ALICE}.sbx.example"


@pytest.fixture
def site(place: Place) -> Site:
    """The interpreter of Alice's sandbox."""
    site = Site()
    place.guest.open_port(49999, site)
    return site


async def test_it_runs_a_cell(place: Place, site: Site) -> None:
    place.guest.open_port(49999, site)
    headers = place.headers(port=49999)

    async with place.http.post(f"{place.url}/execute", json={"code": "print(1)"}, headers=headers) as response:
        assert response.status == 200
    await until(lambda: place.tap.of("command.start", "result"))

    (intent,) = place.tap.of("command.start", "intent")
    assert (intent["tool_name"], intent["key_id"]) == ("exec_code", ALICE_KEY)
    assert intent["details"] == {"port": 49999, "code_cell": True}
    assert intent["args_shape"] == {"code": "text(8)"}
    assert (intent["risk_band"], intent["risk_tier"]) == ("low", assess(b"print(1)", "python").tier)
    assert json.loads(site.requests[0].body) == {"code": "print(1)"}
    assert site.requests[0].get("X-Access-Token") is None


@pytest.mark.parametrize(
    ("cell", "language"),
    [
        ({"code": "import os; os.system('id')"}, "python"),
        ({"code": "import os; os.system('id')", "language": "python"}, "python"),
        ({"code": "rm -rf ~", "language": "bash"}, "bash"),
        ({"code": "print(1)", "language": "brainfuck"}, "brainfuck"),
        ({"code": ["print(1)"]}, ""),
        ({}, ""),
    ],
)
async def test_a_cell_is_judged_before_it_runs(place: Place, site: Site, cell: dict[str, Any], language: str) -> None:
    async with place.http.post(f"{place.url}/execute", json=cell, headers=place.headers(port=49999)) as response:
        assert response.status == 200
    (intent,) = place.tap.of("command.start", "intent")
    expected = assess(str(cell.get("code")).encode(), language)
    assert sorted(intent["risk_reasons"]) == sorted({found.rule for found in expected.findings})
    assert intent["risk_tier"] == expected.tier >= "L2"


@pytest.mark.parametrize("token", ["", "gh_wrong"])
async def test_a_stranger_is_refused(place: Place, site: Site, token: str) -> None:
    place.guest.open_port(49999, site)
    headers = place.headers(port=49999, token=token)

    async with place.http.post(f"{place.url}/execute", json={"code": "print(1)"}, headers=headers) as response:
        assert response.status == 401
    assert site.requests == []
    assert place.tap.of("command.start", "intent") == []


async def test_a_cell_that_is_not_json_is_refused(place: Place, site: Site) -> None:
    place.guest.open_port(49999, site)

    async with place.http.post(f"{place.url}/execute", data=b"print(1)", headers=place.headers(port=49999)) as response:
        assert response.status == 400
    assert site.requests == []


async def test_a_client_that_leaves_interrupts_the_cell(place: Place) -> None:
    interrupted = asyncio.Event()

    async def kernel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await doubles.read_head(reader)
        assert request is not None
        await doubles.read_body(reader, request)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + doubles.chunk(b"{}\n"))
        await reader.read()
        interrupted.set()

    place.guest.open_port(49999, kernel)
    async with place.http.post(
        f"{place.url}/execute", json={"code": "x"}, headers=place.headers(port=49999)
    ) as response:
        await response.content.readany()
        response.close()
    async with asyncio.timeout(1):
        await interrupted.wait()


@pytest.mark.parametrize(
    "call",
    [
        "GET /health",
        "GET /contexts",
        "POST /contexts",
        "POST /contexts/0a1b-2c_3/restart",
        "DELETE /contexts/0a1b-2c_3",
        "GET /contexts?x=1",
        "OPTIONS /execute",
    ],
)
async def test_calls_about_contexts_need_no_token(place: Place, site: Site, call: str) -> None:
    status, _, _ = await place.raw(f"{call} HTTP/1.1", Host=HOST, Content_Length="0")

    assert status == 200
    assert [f"{request.method} {request.target}" for request in site.requests] == [call]


@pytest.mark.parametrize(
    "call",
    [
        "POST /execute",
        "POST //execute",
        "POST /execute/",
        "POST /%65xecute",
        "POST /contexts/../execute",
        "POST /contexts/%2e%2e/execute",
        "POST /contexts/a/restart/../../../execute",
        "POST /CONTEXTS",
        "PUT /contexts",
        "DELETE /contexts",
        "GET /contexts/",
        "GET /",
        "PROPFIND /execute",
    ],
)
async def test_everything_else_needs_it(place: Place, site: Site, call: str) -> None:
    assert (await place.raw(f"{call} HTTP/1.1", Host=HOST, Content_Length="0"))[0] == 401
    assert site.connections == 0


async def test_other_spellings_are_on_record_too(place: Place, site: Site) -> None:
    token = doubles.token(ALICE, ALICE_KEY)
    body = b'{"code":"1"}'

    for path in ("/%65xecute", "//execute"):
        await place.raw(f"POST {path} HTTP/1.1", body, Host=HOST, X_Access_Token=token, Content_Length=str(len(body)))

    await until(lambda: len(place.tap.of("command.start", "result")) == 2)
    assert [event["args_shape"] for event in place.tap.of("command.start", "intent")] == [{"code": "text(1)"}] * 2


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_it_can_not_send_a_client_with_its_token_elsewhere(place: Place, site: Site, status: int) -> None:
    site.reply = doubles.answer(status, Location="https://evil.example/execute")

    async with place.http.post(
        f"{place.url}/execute", json={"code": "1"}, headers=place.headers(port=49999), allow_redirects=False
    ) as response:
        assert response.status == 502
        assert (await response.json(content_type=None))["message"] == (
            "The sandbox is running but its answer leads to another host"
        )
