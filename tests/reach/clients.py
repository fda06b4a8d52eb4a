"""Programs that fetch a page, as users write them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.reach import luggage
from tests.reach.conftest import AS_IT_IS

if TYPE_CHECKING:
    from tests.reach.conftest import Alice


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


async def run_line(alice: Alice, client: Client, url: str) -> str:
    """Return the command for a URL, once the sandbox has what it needs."""
    if client.brings and (await alice.run(f"test -e .has-{client.brings}")).exit_code:
        await alice.bring(getattr(luggage, client.brings)())
        await alice.text(f"touch .has-{client.brings}")
    return client.command.replace("URL", url)
