"""The same ways around the same list, through egress and through Debian's squid: egress is never the weaker one.

The table of what both do is a page of the documentation; this test holds it to the truth.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.egress import nets, squid
from tests.egress.attempts import ATTEMPTS, MARK
from tests.egress.place import BOB, Client, Socket, document
from tests.egress.servers import certificate, echo
from tests.live import ROOT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from tests.egress.attempts import Attempt
    from tests.egress.conftest import Place
    from tests.egress.servers import Server

    Open = Callable[[], Awaitable[Client]]

PAGE = ROOT / "docs" / "explanation" / "egress-compared.md"
_PATIENCE_S = 2.5
SPECIAL = [
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"),
    *("192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
    *("224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32", "100.100.100.200/32", "::/128", "::1/128", "64:ff9b::/96"),
    *("2001::/23", "2002::/16", "fc00::/7", "fe80::/10", "ff00::/8", f"{nets.OWN}/32"),
]
# What of the list can be said in squid's words: names with ports, no special address, and that a greeting names one of
# the hosts that may be reached by TLS.
RULES = f"""
acl CONNECT method CONNECT
acl special dst {" ".join(SPECIAL)}
acl tls_named dstdomain api.allowed.test pypi.allowed.test
acl tls_below dstdom_regex ^[^/]+\\.wild\\.allowed\\.test$
acl tls_port port 443
acl plain_named dstdomain plain.allowed.test
acl plain_port port 80
acl db_named dstdomain db.allowed.test
acl db_port port 5432
acl plain_http proto HTTP
http_access deny special
http_access allow CONNECT tls_named tls_port
http_access allow CONNECT tls_below tls_port
http_access allow CONNECT db_named db_port
http_access allow CONNECT plain_named plain_port
http_access allow !CONNECT plain_http plain_named plain_port
http_access deny all
acl greeting at_step SslBump1
acl greeted ssl::server_name api.allowed.test pypi.allowed.test
acl greeted_below ssl::server_name_regex ^[^/]+\\.wild\\.allowed\\.test$
ssl_bump splice db_port
ssl_bump peek greeting
ssl_bump splice greeted
ssl_bump splice greeted_below
ssl_bump terminate all
on_unsupported_protocol tunnel db_port
on_unsupported_protocol respond all
via off
"""


def _configuration(directory: Path) -> str:
    certificate(directory, "squid.test")
    bundle = directory / "squid.test.pem"
    bundle.chmod(0o644)
    return f"http_port 127.0.0.1:{squid.PORT} ssl-bump generate-host-certificates=off tls-cert={bundle}\n{RULES}"


async def _world(place: Place) -> list[Server]:
    found = [await place.server(nets.API, port, echo) for port in (22, 80, 443, 5432, 8443)]
    found += [await place.server(nets.EVIL, port, echo) for port in (80, 443)]
    found += [await place.server(nets.INTERNAL, 5432, echo), await place.server(nets.LINK_LOCAL, 80, echo)]
    found += [await place.server(nets.LINK_LOCAL, 5432, echo)]
    for address in ("127.0.0.1", nets.OWN):
        # What listens beside the proxy itself.
        server = type(found[0])(echo)
        await server.start(place.outside, address, 5432)
        place.servers.append(server)
        found.append(server)
    return found


def _seen(servers: list[Server]) -> bool:
    return any(MARK in server.received for server in servers)


async def _passes(attempt: Attempt, servers: list[Server], open_proxy: Open) -> bool:
    for server in servers:
        server.received.clear()
    client = await open_proxy()
    client.send(attempt.request)
    with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
        if attempt.inside:
            async with asyncio.timeout(3):
                head = await client.reader.readuntil(b"\r\n\r\n")
            if head.split(b" ")[1] == b"200":
                client.send(attempt.inside)
        # Until the proxy ends it, or a server has seen the mark.
        async with asyncio.timeout(_PATIENCE_S):
            while await client.reader.read(65536) and not _seen(servers):
                pass
    seen = _seen(servers)
    client.close()
    with contextlib.suppress(OSError):
        await client.writer.wait_closed()
    return seen


async def _through_egress(place: Place, servers: list[Server]) -> dict[str, bool]:
    found = {}
    for number, attempt in enumerate(ATTEMPTS):
        # A sandbox of its own, so that no address is known from the attempt before.
        sandbox = Socket(place.directory / f"{number}.sock")
        ident = f"{BOB}{number}"
        await place.node.put(document(limits={"idle_s": 5}), ident=ident, listener=sandbox.listener)
        with _zone(place, attempt):
            found[attempt.name] = await _passes(attempt, servers, sandbox.connect)
        await place.node.ask("drop", id=ident, generation=place.node.generation)
        await sandbox.close()
    return found


async def _through_squid(place: Place, servers: list[Server], directory: Path) -> dict[str, bool]:
    found = {}

    async def connect() -> Client:
        sock = nets.socket_in(place.outside)
        sock.settimeout(0)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", squid.PORT))
        return Client(*await asyncio.open_connection(sock=sock))

    with squid.running(directory, place.outside, _configuration(directory) + "positive_dns_ttl 1 second\n"):
        for attempt in ATTEMPTS:
            with _zone(place, attempt):
                found[attempt.name] = await _passes(attempt, servers, connect)
    return found


@contextlib.contextmanager
def _zone(place: Place, attempt: Attempt) -> Iterator[None]:
    before = dict(place.names.zone)
    place.names.ttl = 0
    place.names.zone.update({"wild.allowed.test": [nets.API], "evilwild.allowed.test": [nets.API], **attempt.zone})
    yield
    place.names.zone = before


def _page(ours: dict[str, bool], theirs: dict[str, bool]) -> str:
    version = subprocess.run([str(squid.PROGRAM), "-v"], capture_output=True, text=True, check=True).stdout.split()[3]
    words = {True: "passes", False: "refused"}
    rows = [f"| {one.name} | {words[ours[one.name]]} | {words[theirs[one.name]]} |" for one in ATTEMPTS]
    weaker = [one for one in ATTEMPTS if not one.may and theirs[one.name] and not ours[one.name]]
    return "\n".join(
        [
            "# Egress beside squid",
            "",
            f"The same ways around the same list of hosts, through egress and through Debian's squid {version} with",
            "the nearest configuration that it has: names with ports, no special address, TLS greetings peeked at.",
            "The first five are allowed and show that both lists mean the same; nothing else should pass.",
            "",
            "| attempt | egress | squid |",
            "| --- | --- | --- |",
            *rows,
            "",
            f"Squid lets {len(weaker)} of them through; requests that could be read in two ways it repairs first,",
            "where egress refuses them. The test `tests/egress/test_compare_squid.py` keeps this page.",
            "",
        ]
    )


async def test_is_never_weaker_than_squid(place: Place) -> None:
    assert squid.PROGRAM is not None, "squid-openssl is missing; deploy/prepare.py installs it"
    servers = await _world(place)
    ours = await _through_egress(place, servers)
    assert {name: passed for name, passed in ours.items() if passed} == {one.name: True for one in ATTEMPTS if one.may}
    # Squid drops its rights, and must be able to write there afterwards.
    with tempfile.TemporaryDirectory(prefix="gatehouse-squid-", dir="/var/tmp") as directory:
        theirs = await _through_squid(place, servers, Path(directory))
    assert all(theirs[one.name] for one in ATTEMPTS if one.may), theirs
    page = _page(ours, theirs)
    if not PAGE.exists():
        PAGE.write_text(page)
    assert PAGE.read_text() == page, f"{PAGE} is out of date: delete it and run this test again"
