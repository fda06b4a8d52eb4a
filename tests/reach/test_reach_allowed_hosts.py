"""Ordinary programs reach an allowed host with nothing set up by the user, whether or not they know of a proxy."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.internet.world import API
from tests.node.rig import eventually
from tests.reach import luggage
from tests.reach.conftest import AS_IT_IS, both_ways

if TYPE_CHECKING:
    from tests.reach.conftest import Alice

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True)
class Client:
    """A command that prints the page at URL, and what it says when it can't.

    `unknown` are its words when there is no such name, `refused` those when the proxy refuses; a client without them
    does not look for a proxy.
    """

    command: str
    unknown: str
    refused: str = ""
    brings: str = ""

    def uses_proxy(self, way: str) -> bool:
        """Tell whether it goes through the proxy."""
        return bool(self.refused) and way == AS_IT_IS


_NO_ADDRESS = "Name or service not known"
_FORBIDDEN = "Tunnel connection failed: 403 Forbidden (network policy: no_rule, add HOST:443)"
_AIOHTTP = """PYTHONPATH=libraries python3 -c '
import aiohttp, asyncio, socket
async def main():
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ARGUMENTS)) as session:
        async with session.get("URL") as response:
            print(await response.text(), end="")
asyncio.run(main())'"""
CLIENTS = {
    "curl": Client("curl -sS URL", "Could not resolve host: HOST", "CONNECT tunnel failed, response 403"),
    "urllib": Client(
        """python3 -c 'import urllib.request as u; print(u.urlopen("URL").read().decode(), end="")'""",
        _NO_ADDRESS,
        _FORBIDDEN,
    ),
    "requests": Client(
        """PYTHONPATH=libraries python3 -c 'import requests; print(requests.get("URL").text, end="")'""",
        _NO_ADDRESS,
        _FORBIDDEN,
        brings="python_libraries",
    ),
    "aiohttp": Client(_AIOHTTP.replace("ARGUMENTS", ""), _NO_ADDRESS, brings="python_libraries"),
    "aiohttp on IPv4": Client(
        _AIOHTTP.replace("ARGUMENTS", "family=socket.AF_INET"), _NO_ADDRESS, brings="python_libraries"
    ),
    "Node's fetch": Client(
        """programs/node -e 'fetch("URL").then((r) => r.text()).then((text) => process.stdout.write(text))'""",
        "ENOTFOUND",
        brings="node_and_npm",
    ),
    "Go": Client("programs/fetch URL", "no such host", "Forbidden", brings="go_program"),
}
every_client = pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS)


async def _run_line(alice: Alice, client: Client, url: str) -> str:
    if client.brings and (await alice.run(f"test -e .has-{client.brings}")).exit_code:
        await alice.bring(getattr(luggage, client.brings)())
        await alice.text(f"touch .has-{client.brings}")
    return client.command.replace("URL", url)


@every_client
@both_ways
async def test_an_allowed_host_is_reached(alice: Alice, client: Client, way: str) -> None:
    line = await _run_line(alice, client, "https://api.allowed.test/hello")
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
    line = await _run_line(alice, client, f"https://{host}/hello")
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
