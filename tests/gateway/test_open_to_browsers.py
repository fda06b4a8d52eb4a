"""Browsers may call agent and API from every origin; what a server on its own host name allows is its own matter."""

from __future__ import annotations

import pytest

from tests.gateway import doubles
from tests.gateway.place import ALICE, Place
from tests.gateway.sites import Site

ORIGIN = "https://app.example"
AGENT = f"49983-{ALICE}.sbx.example"


async def preflight(place: Place, path: str, host: str, wanted: str) -> tuple[int, dict[str, str]]:
    """Ask as a browser does before a call."""
    status, fields, _ = await place.raw(
        f"OPTIONS {path} HTTP/1.1",
        Host=host,
        Origin=ORIGIN,
        Access_Control_Request_Method="POST",
        Access_Control_Request_Headers=wanted,
    )
    return status, fields


@pytest.mark.parametrize(
    ("path", "host", "wanted"),
    [
        ("/process.Process/Start", AGENT, "connect-protocol-version,x-access-token"),
        ("/files?path=/a", AGENT, "x-access-token"),
        ("/process.Process/Start", "localhost", "content-type,e2b-sandbox-id,e2b-sandbox-port,x-access-token"),
        ("/execute", "localhost", "content-type,e2b-sandbox-id,e2b-sandbox-port"),
        ("/v2/sandboxes", "localhost", "content-type,x-api-key"),
        ("/v2/sandboxes", "api.sbx.example", "authorization"),
    ],
)
async def test_a_browser_may_call(place: Place, path: str, host: str, wanted: str) -> None:
    status, fields = await preflight(place, path, host, wanted)

    assert status == 204
    assert fields["access-control-allow-origin"] == "*"
    assert fields["access-control-allow-headers"] == wanted
    assert {"GET", "POST", "PUT", "PATCH", "DELETE"} <= set(fields["access-control-allow-methods"].split(", "))
    assert "access-control-allow-credentials" not in fields
    assert place.web.requests == []


async def test_a_browser_reads_that_a_sandbox_is_gone(place: Place) -> None:
    assert (await preflight(place, "/health", "49983-inobody.sbx.example", "x-access-token"))[0] == 204

    status, fields, _ = await place.raw("GET /health HTTP/1.1", Host="49983-inobody.sbx.example", Origin=ORIGIN)

    assert (status, fields["access-control-allow-origin"]) == (502, "*")


@pytest.mark.parametrize(
    ("first_line", "headers", "status"),
    [
        ("GET /health HTTP/1.1", {}, 204),
        ("GET /metrics HTTP/1.1", {"X_Access_Token": "wrong"}, 401),
        ("POST /init HTTP/1.1", {"Content_Length": "0"}, 404),
    ],
)
async def test_the_agents_answers_are_open(place: Place, first_line: str, headers: dict[str, str], status: int) -> None:
    found, fields, _ = await place.raw(first_line, Host=AGENT, Origin=ORIGIN, **headers)

    assert (found, fields["access-control-allow-origin"]) == (status, "*")


async def test_a_server_on_its_own_host_decides_itself(place: Place) -> None:
    site = Site(
        doubles.answer(204, Access_Control_Allow_Origin="https://mine", Access_Control_Allow_Credentials="true")
    )
    place.guest.open_port(8080, site)

    status, fields = await preflight(place, "/x", f"8080-{ALICE}.sbx.example", "x-mine")

    assert (status, fields["access-control-allow-origin"]) == (204, "https://mine")
    assert fields["access-control-allow-credentials"] == "true"
    assert site.requests[0].method == "OPTIONS"
    assert site.requests[0].get("Access-Control-Request-Headers") == "x-mine"

    site.reply = doubles.answer(200)
    _, fields, _ = await place.raw("GET / HTTP/1.1", Host=f"8080-{ALICE}.sbx.example", Origin=ORIGIN)
    assert not [name for name in fields if name.startswith("access-control-")]


async def test_on_a_shared_host_it_decides_nothing(place: Place) -> None:
    site = Site(
        doubles.answer(200, Access_Control_Allow_Origin="https://evil", Access_Control_Allow_Credentials="true")
    )
    place.guest.open_port(8080, site)

    _, fields, _ = await place.raw("GET / HTTP/1.1", **place.headers(port=8080), Origin=ORIGIN)

    assert fields["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in fields


async def test_a_keyed_call_of_the_api_is_open_and_one_with_cookies_is_not(place: Place) -> None:
    async def allowed(**headers: str) -> str | None:
        _, fields, _ = await place.raw("GET /v2/sandboxes HTTP/1.1", Origin=ORIGIN, **headers)
        return fields.get("access-control-allow-origin")

    assert await allowed(X_API_KEY="e2b_x") == "*"
    assert await allowed(Authorization="Bearer x") == "*"
    assert await allowed(X_API_KEY="e2b_x", Cookie="sessionid=1") is None
    assert await allowed() is None
