"""Ordinary programs reach an allowed host with nothing set up by the user, whether or not they know of a proxy."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest

from tests.internet.world import API
from tests.node.rig import eventually
from tests.reach.clients import every_client, run_line
from tests.reach.conftest import both_ways

if TYPE_CHECKING:
    from tests.reach.clients import Client
    from tests.reach.conftest import Alice

pytestmark = pytest.mark.asyncio(loop_scope="module")


@every_client
@both_ways
async def test_an_allowed_host_is_reached(alice: Alice, client: Client, way: str) -> None:
    line = await run_line(alice, client, "https://api.allowed.test/hello")
    alice.internet.zone.address("api.allowed.test", API)
    assert await alice.text(line, way=way) == "served api.allowed.test/hello\n"
    await eventually(lambda: alice.flows("egress.closed"))
    (flow,) = alice.flows("egress.closed")
    via = "proxy" if client.uses_proxy(way) else "transparent"
    assert (flow["host"], flow["port"], flow["via"], flow["address"]) == ("api.allowed.test", 443, via, API)
    assert [one.sni for one in alice.internet.sites.connections] == ["api.allowed.test"]
    assert alice.flows("egress.denied") == []


@every_client
@both_ways
async def test_another_host_is_refused_in_words_of_the_program_and_recorded(
    alice: Alice, client: Client, way: str
) -> None:
    # Repeats of one denial would be one event.
    host = f"{secrets.token_hex(4)}.evil.test"
    line = await run_line(alice, client, f"https://{host}/hello")
    done = await alice.run(line, way=way)
    assert done.exit_code not in (None, 0)
    assert done.stdout == ""
    told = client.refused if client.uses_proxy(way) else client.unknown
    assert told.replace("HOST", host) in done.stderr, done.stderr
    code, reason = ("egress.denied", "no_rule") if client.uses_proxy(way) else ("egress.dns_denied", "dns_denied")
    assert (await alice.refusal(code, host))["reason"] == reason


async def test_a_name_has_an_address_for_every_way_to_ask(alice: Alice) -> None:
    for ask in ("getent ahosts", "getent ahostsv4", "getent hosts"):
        assert (await alice.text(f"{ask} api.allowed.test")).startswith("198.18."), ask
    assert (await alice.run("getent ahostsv6 api.allowed.test")).exit_code == 2
    assert (await alice.run("getent hosts evil.test")).exit_code == 2


async def test_the_address_of_a_name_has_that_name(alice: Alice) -> None:
    address = (await alice.text("getent hosts api.allowed.test")).split()[0]
    assert (await alice.text(f"getent hosts {address}")).split() == [address, "api.allowed.test"]


async def test_the_alias_of_the_proxy_is_the_proxy(alice: Alice) -> None:
    line = "curl -sS -x http://proxy.internal:8080 https://api.allowed.test/hello"
    assert await alice.text(line) == "served api.allowed.test/hello\n"
    denied = await alice.run(line.replace("api.allowed", "evil"))
    assert "CONNECT tunnel failed, response 403" in denied.stderr
