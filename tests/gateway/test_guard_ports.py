"""The owner of a sandbox decides who reaches its ports, and what its servers see of the way."""

from __future__ import annotations

import asyncio
import json
import ssl
from typing import TYPE_CHECKING, Any

import pytest

from sandboxes.gateway import ingress
from sandboxes.gateway.edge import BadLine, RouteFeed
from sandboxes.gateway.routes import RouteTable
from sandboxes.gateway.settings import Limits
from tests.gateway import doubles
from tests.gateway.place import ALICE, ALICE_KEY, Place, until
from tests.gateway.sites import Site, upgraded

if TYPE_CHECKING:
    from pathlib import Path

HOST = f"8080-{ALICE}.sbx.example"
TRAFFIC = "0123456789abcdef" * 4
PRIVATE = {"public": False, "traffic_token": TRAFFIC}
MISSING = "Sandbox is secured with traffic access token. Token header 'e2b-traffic-access-token' is missing"
INVALID = "Sandbox is secured with traffic access token. Provided token in header 'e2b-traffic-access-token' is invalid"


@pytest.fixture
def site(place: Place) -> Site:
    """A server on port 8080 of Alice's sandbox."""
    site = Site()
    place.guest.open_port(8080, site)
    return site


class TestPrivatePorts:
    """Without public traffic each request to a port carries the traffic token."""

    @pytest.mark.parametrize("name", ["e2b-traffic-access-token", "E2B-Traffic-Access-Token"])
    async def test_the_token_opens_them_and_stays_outside(self, place: Place, site: Site, name: str) -> None:
        await place.change(ingress=PRIVATE)

        assert (await place.raw("GET / HTTP/1.1", Host=HOST, **{name: TRAFFIC}))[0] == 200
        assert (await place.raw("GET / HTTP/1.1", **place.headers(port=8080, **{name: TRAFFIC})))[0] == 200
        for request in site.requests:
            assert TRAFFIC not in str(request.fields)

    @pytest.mark.parametrize(("token", "message"), [("", MISSING), ("x", INVALID), (TRAFFIC[:-1], INVALID)])
    async def test_without_it_they_are_closed(self, place: Place, site: Site, token: str, message: str) -> None:
        await place.change(ingress=PRIVATE)

        status, fields, body = await place.raw("GET / HTTP/1.1", Host=HOST, E2B_Traffic_Access_Token=token)

        assert (status, body) == (403, {"sandboxId": ALICE, "message": message, "code": 403})
        assert fields["content-type"] == "application/json; charset=utf-8"
        assert site.connections == 0
        await until(lambda: place.tap.of("port.connect", "fact"))
        assert place.tap.of("port.connect", "fact")[0]["outcome"] == "refused"

    @pytest.mark.parametrize("port", [1, 53, 3128, 8081, 49999])
    async def test_no_other_port_tells_anything(self, place: Place, port: int) -> None:
        await place.change(ingress=PRIVATE)

        status, _, body = await place.raw("GET /contexts HTTP/1.1", Host=f"{port}-{ALICE}.sbx.example")

        assert (status, body["message"]) == (403, MISSING)

    async def test_the_access_token_does_not_open_them(self, place: Place, site: Site) -> None:
        await place.change(ingress=PRIVATE)

        assert (await place.raw("GET / HTTP/1.1", **place.headers(port=8080)))[0] == 403

    async def test_the_agent_needs_only_its_own_token(self, place: Place) -> None:
        await place.change(ingress=PRIVATE)

        async with place.start({"process": {"cmd": "x"}}) as response:
            assert response.status == 200
        async with place.start({"process": {"cmd": "x"}}, token="", E2b_Traffic_Access_Token=TRAFFIC) as response:
            assert response.status == 401

    async def test_cells_need_both_tokens(self, place: Place, site: Site) -> None:
        await place.change(ingress=PRIVATE)
        place.guest.open_port(49999, site)

        async def run(**headers: str) -> int:
            async with place.http.post(f"{place.url}/execute", json={"code": "1"}, headers=headers) as response:
                return response.status

        assert await run(**place.headers(port=49999)) == 403
        assert await run(**place.headers(port=49999, token="", E2b_Traffic_Access_Token=TRAFFIC)) == 401
        assert await run(**place.headers(port=49999, E2b_Traffic_Access_Token=TRAFFIC)) == 200

    async def test_a_websocket_needs_it_too(self, place: Place, site: Site) -> None:
        await place.change(ingress=PRIVATE)

        reader, writer = await upgraded(place, HOST)
        assert (await reader.readline()).startswith(b"HTTP/1.1 403 ")
        writer.close()

    async def test_a_person_sees_a_page(self, place: Place) -> None:
        await place.change(ingress=PRIVATE)

        status, fields, _ = await place.raw(
            "GET / HTTP/1.1", Host=HOST, User_Agent="Mozilla/5.0", Sec_Fetch_Mode="navigate"
        )

        assert (status, fields["content-type"]) == (403, "text/html; charset=utf-8")

    async def test_private_without_a_token_is_closed_to_everybody(self, place: Place, site: Site) -> None:
        await place.change(ingress={"public": False})

        assert (await place.raw("GET / HTTP/1.1", Host=HOST, E2b_Traffic_Access_Token="x"))[0] == 403

    async def test_what_was_open_ends_when_ports_become_private(self, place: Place) -> None:
        asked = asyncio.Event()

        async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.set()
            await reader.read()

        place.guest.open_port(8080, hang)
        waiting = asyncio.ensure_future(place.raw("GET / HTTP/1.1", Host=HOST))
        await asked.wait()
        await place.change(ingress=PRIVATE)

        assert (await waiting)[0] == 401


class TestServedPorts:
    """A network policy may name the ports that are reached at all."""

    async def test_a_port_of_the_list_is_reached(self, place: Place, site: Site) -> None:
        await place.change(ingress={"ports": [3000, 8080]})

        assert (await place.raw("GET / HTTP/1.1", Host=HOST))[0] == 200

    @pytest.mark.parametrize("ports", [[], [3000]])
    async def test_any_other_answers_as_a_closed_one(self, place: Place, site: Site, ports: list[int]) -> None:
        await place.change(ingress={"ports": ports})

        status, _, body = await place.raw("GET / HTTP/1.1", Host=HOST)

        closed = {"sandboxId": ALICE, "message": "The sandbox is running but port is not open", "port": 8080}
        assert (status, body) == (502, closed | {"code": 502})
        assert place.guest.requests == []

    async def test_a_list_does_not_replace_the_token(self, place: Place, site: Site) -> None:
        await place.change(ingress=PRIVATE | {"ports": [8080]})

        assert (await place.raw("GET / HTTP/1.1", Host=HOST))[0] == 403
        assert (await place.raw("GET / HTTP/1.1", Host=HOST, E2B_Traffic_Access_Token=TRAFFIC))[0] == 200

    async def test_the_agent_is_reached_under_an_empty_list(self, place: Place) -> None:
        await place.change(ingress={"ports": []})

        async with place.start({"process": {"cmd": "x"}}) as response:
            assert response.status == 200

    async def test_what_was_open_ends_when_its_port_leaves_the_list(self, place: Place, site: Site) -> None:
        assert (await place.raw("GET / HTTP/1.1", Host=HOST))[0] == 200

        await place.change(ingress={"ports": []})

        assert (await place.raw("GET / HTTP/1.1", Host=HOST))[0] == 502

    @pytest.mark.parametrize("ports", ["all", [0], [65536], ["80"], {}])
    def test_a_list_that_is_none_is_refused(self, ports: object) -> None:
        with pytest.raises(ValueError, match="ports"):
            ingress.parse({"ports": ports})


class TestHostMask:
    """A server may be told another host name than the public one."""

    async def test_it_sees_the_mask(self, place: Place, site: Site) -> None:
        await place.change(ingress={"mask_host": "${PORT}-app.example.com:81"})

        await place.raw("GET / HTTP/1.1", Host=HOST, X_Forwarded_Host="evil.example")

        request = site.requests[0]
        assert request.get("Host") == "8080-app.example.com:81"
        assert request.get("X-Forwarded-Host") == HOST

    async def test_a_websocket_sees_it_too(self, place: Place) -> None:
        await place.change(ingress={"mask_host": "localhost"})
        site = Site()
        place.guest.open_port(8080, site)

        reader, writer = await upgraded(place, HOST)
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

        assert site.requests[0].get("Host") == "localhost"

    async def test_without_one_it_sees_the_public_name(self, place: Place, site: Site) -> None:
        await place.raw("GET / HTTP/1.1", Host=HOST, X_Forwarded_Host="evil.example")

        assert site.requests[0].get("Host") == HOST
        assert site.requests[0].get("X-Forwarded-Host") is None


class TestTlsPorts:
    """Ports that speak TLS themselves are spoken to in TLS; nobody stands between, so nothing is verified."""

    @pytest.fixture
    def secured(self, place: Place, tmp_path: Path) -> Any:
        """Open a port whose server speaks TLS with a certificate of its own; return what it was asked for by name."""
        names: list[str | None] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*doubles.certificate(tmp_path))
        context.sni_callback = lambda _, name, __: names.append(name)

        async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await writer.start_tls(context)
            await Site()(reader, writer)

        place.guest.open_port(8443, speak)
        return names

    async def test_they_are_reached(self, place: Place, secured: list[str | None]) -> None:
        await place.change(ingress={"https_ports": [8443]})

        host = f"8443-{ALICE}.sbx.example"
        for _ in range(2):
            assert (await place.raw("GET / HTTP/1.1", Host=host))[2] == b"hello from inside"
        assert secured == [host]

    async def test_what_does_not_speak_it_says_so(self, place: Place) -> None:
        async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(100)
            writer.write(doubles.answer(400, b"HTTP, please"))

        place.guest.open_port(8080, plain)
        await place.change(ingress={"https_ports": [8080]})

        status, _, body = await place.raw("GET / HTTP/1.1", Host=HOST)

        assert (status, body["message"]) == (502, "The sandbox is running but its port does not speak TLS")
        assert body["port"] == 8080

    @pytest.mark.parametrize("rest", ["..x", "." + "x" * 70])
    async def test_a_host_that_is_no_name_is_no_fault(self, place: Place, secured: list[str | None], rest: str) -> None:
        await place.change(ingress={"https_ports": [8443]})

        assert (await place.raw("GET / HTTP/1.1", Host=f"8443-{ALICE}{rest}"))[0] == 502
        assert (await place.raw("GET / HTTP/1.1", Host=f"8443-{ALICE}.sbx.example"))[0] == 200

    async def test_other_ports_stay_plain(self, place: Place, site: Site) -> None:
        await place.change(ingress={"https_ports": [8443]})

        assert (await place.raw("GET / HTTP/1.1", Host=HOST))[0] == 200


def test_missing_rules_are_those_of_a_new_sandbox() -> None:
    assert ingress.parse(None) == ingress.parse({}) == ingress.OPEN


@pytest.mark.parametrize(
    "rules",
    [
        [],
        {"public": "no"},
        {"traffic_token": 1},
        {"mask_host": "a\r\nX: y"},
        {"mask_host": "ü.example"},
        {"https_ports": [0]},
        {"https_ports": [True]},
        {"https_ports": {"8443": 1}},
    ],
)
def test_rules_that_make_no_sense_are_refused(rules: object, tmp_path: Path) -> None:
    line = doubles.row(ALICE, tmp_path, {ALICE_KEY: None}, ingress=rules)

    with pytest.raises(BadLine):
        RouteFeed(RouteTable(Limits()), tmp_path).apply(json.dumps(line).encode())
