"""An address is no way around the names: raw ones are refused, and a listed name that leads inside leads nowhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.internet.namespaces import EGRESS_ADDRESS
from tests.internet.world import API, EVIL
from tests.security.conftest import any_runtime, transparent_only

if TYPE_CHECKING:
    from tests.security.outbound import Outbound

pytestmark = pytest.mark.asyncio(loop_scope="module")

METADATA = ("169.254.169.254", "100.100.100.200", "169.254.170.2", "168.63.129.16")
GET = "GET /latest/meta-data/ HTTP/1.1\\r\\nHost: {0}\\r\\nConnection: close\\r\\n\\r\\n"


@transparent_only
@pytest.mark.parametrize("port", [443, 80, 22, 5432])
async def test_a_raw_address(mallory: Outbound, port: int) -> None:
    assert await mallory.run(f"answer(direct('{EVIL}', {port}, b'x'))") in ("ECONNRESET", "")
    await mallory.refusals(("literal_ip", EVIL, port))
    mallory.reached_nothing()


@transparent_only
async def test_the_address_of_a_listed_name(mallory: Outbound) -> None:
    assert await mallory.run(f"answer(https('api.allowed.test', at='{API}'))") != ""
    await mallory.refusals(("literal_ip", API, 443))
    mallory.reached_nothing()


@any_runtime
async def test_a_raw_address_asked_of_the_proxy(mallory: Outbound) -> None:
    assert await mallory.run(f"answer(connect('{API}:443'))") == [403, "literal_ip"]
    await mallory.refusals(("literal_ip", API, 443))
    mallory.reached_nothing()


@any_runtime
@pytest.mark.parametrize(
    ("authority", "host"),
    [
        ("[::1]:443", "::1"),
        ("[::ffff:127.0.0.1]:443", "127.0.0.1"),
        ("[64:ff9b::7f00:1]:443", "64:ff9b::7f00:1"),
        ("[2002:7f00:1::]:443", "2002:7f00:1::"),
        ("[2606:4700:4700::1111]:443", "2606:4700:4700::1111"),
        ("127.0.0.1:443", "127.0.0.1"),
        (f"{EGRESS_ADDRESS}:443", EGRESS_ADDRESS),
    ],
)
async def test_addresses_of_both_families_asked_of_the_proxy(mallory: Outbound, authority: str, host: str) -> None:
    assert await mallory.run(f"answer(connect('{authority}'))") == [403, "literal_ip"]
    await mallory.refusals(("literal_ip", host, 443))
    mallory.reached_nothing()


@any_runtime
@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1", "resolved_private"),
        ("10.0.0.5", "resolved_private"),
        ("0.0.0.0", "resolved_private"),
        ("100.64.0.1", "resolved_private"),
        ("169.254.1.1", "resolved_private"),
        ("224.0.0.1", "resolved_private"),
        ("203.0.113.7", "resolved_private"),
        (EGRESS_ADDRESS, "resolved_private"),
        ("169.254.169.254", "metadata"),
        ("168.63.129.16", "metadata"),
    ],
)
async def test_a_listed_name_that_leads_inside(mallory: Outbound, address: str, reason: str) -> None:
    mallory.internet.zone.address("api.allowed.test", address)
    assert await mallory.run("answer(connect('api.allowed.test:443'))") == [403, reason]
    await mallory.refusals((reason, "api.allowed.test", 443))
    mallory.reached_nothing()


@any_runtime
@pytest.mark.parametrize("order", [(API, "10.0.0.5"), ("10.0.0.5", API)], ids=["public first", "private first"])
async def test_a_listed_name_that_leads_inside_and_outside(mallory: Outbound, order: tuple[str, str]) -> None:
    mallory.internet.zone.address("api.allowed.test", *order)
    assert await mallory.run("answer(connect('api.allowed.test:443'))") == [403, "resolved_private"]
    await mallory.refusals(("resolved_private", "api.allowed.test", 443))
    mallory.reached_nothing()


@any_runtime
async def test_a_name_that_leads_inside_from_the_second_question_on(mallory: Outbound) -> None:
    mallory.internet.zone.scripts["api.allowed.test"] = lambda asked: [("A", API if asked == 0 else "127.0.0.1")]
    program = (
        "said, sock = tunnel('api.allowed.test:443')\n"
        "answer([said, fetch(sock, 'api.allowed.test')[-5:], connect('api.allowed.test:443')])"
    )
    assert await mallory.run(program) == [[200], "est/\n", [403, "resolved_private"]]
    # One question for each flow, and what was checked is what was connected to.
    assert mallory.internet.zone.asked("api.allowed.test") == 2
    assert [one.address for one in mallory.internet.sites.connections] == [API]
    assert mallory.internet.own.connections == []
    await mallory.refusals(("resolved_private", "api.allowed.test", 443))


@any_runtime
@pytest.mark.parametrize("target", ["localhost", "db.corp.internal"])
async def test_an_alias_that_leads_inside(mallory: Outbound, target: str) -> None:
    mallory.internet.zone.address("db.corp.internal", "10.1.2.3")
    mallory.internet.zone.alias("api.allowed.test", target)
    assert await mallory.run("answer(connect('api.allowed.test:443'))") == [403, "resolved_private"]
    await mallory.refusals(("resolved_private", "api.allowed.test", 443))
    mallory.reached_nothing()


@transparent_only
async def test_a_hosts_file_of_the_sandbox_s_own(mallory: Outbound) -> None:
    await mallory.inside.shell(f"echo '{EVIL} api.allowed.test' >> /etc/hosts")
    program = (
        "resolved = [[info[4][0] for info in socket.getaddrinfo('api.allowed.test', 443, socket.AF_INET, 1)][0]]\n"
        "answer([resolved, https('api.allowed.test')])"
    )
    resolved, got = await mallory.run(program)
    if resolved == [EVIL]:
        assert got in ("ECONNRESET", "SSLEOFError", "ConnectionResetError")
        await mallory.refusals(("literal_ip", EVIL, 443))
        mallory.reached_nothing()
    else:
        # Where the file can't be written the name leads where egress says.
        assert mallory.internet.sites.at(EVIL) == []


@transparent_only
async def test_curl_with_an_address_of_its_own_for_a_listed_name(mallory: Outbound) -> None:
    done = await mallory.inside.shell(
        f"curl -sk --noproxy '*' --max-time 8 --resolve api.allowed.test:443:{EVIL} https://api.allowed.test/"
    )
    assert done.exit_code != 0
    await mallory.refusals(("literal_ip", EVIL, 443))
    mallory.reached_nothing()


@transparent_only
@pytest.mark.parametrize("address", METADATA)
async def test_a_metadata_service(mallory: Outbound, address: str) -> None:
    request = GET.format(address)
    assert await mallory.run(f"answer(direct('{address}', 80, b'{request}'))") in ("ECONNRESET", "")
    await mallory.refusals(("metadata", address, 80))
    mallory.reached_nothing()


@any_runtime
@pytest.mark.parametrize("host", [*METADATA, "metadata.google.internal", "[fd00:ec2::254]", "[::ffff:169.254.169.254]"])
async def test_a_metadata_service_asked_of_the_proxy(mallory: Outbound, host: str) -> None:
    plain = GET.format(host).replace("GET ", f"GET http://{host}")
    got = await mallory.run(f"answer([connect('{host}:80'), status_of(proxied(b'{plain}'))])")
    assert got == [[403, "metadata"], [403, "metadata"]]
    shown = {"[fd00:ec2::254]": "fd00:ec2::254", "[::ffff:169.254.169.254]": "169.254.169.254"}.get(host, host)
    await mallory.refusals(("metadata", shown, 80))
    mallory.reached_nothing()


@any_runtime
async def test_where_everything_is_open_only_the_public_internet_is(mallory: Outbound) -> None:
    mallory.internet.zone.address("inner.evil.test", "10.0.0.5")
    mallory.internet.zone.address("host.evil.test", EGRESS_ADDRESS)
    mallory.internet.zone.address("cloud.evil.test", "169.254.169.254")
    await mallory.change(version=2, layers=[{"name": "sandbox", "mode": "allow", "first": "deny", "egress": []}])
    refused = {
        "169.254.169.254:80": "metadata",
        "metadata.google.internal:80": "metadata",
        "cloud.evil.test:443": "metadata",
        "10.0.0.5:80": "literal_ip",
        "127.0.0.1:80": "literal_ip",
        "inner.evil.test:443": "resolved_private",
        "host.evil.test:443": "resolved_private",
        "localhost:443": "resolved_private",
    }
    got = await mallory.run(f"answer([connect(one) for one in {list(refused)}])")
    assert got == [[403, reason] for reason in refused.values()]
    mallory.reached_nothing()
    assert await mallory.run("answer([connect('evil.test:443'), connect('8.8.8.8:443')])") == [[200], [200]]


@any_runtime
async def test_own_host_by_its_public_address(mallory: Outbound) -> None:
    """The address is public, but the host's own: no rule opens it."""
    await mallory.change(f"{EGRESS_ADDRESS}:443", version=2, private=["0.0.0.0/0"])
    assert await mallory.run(f"answer(connect('{EGRESS_ADDRESS}:443'))") == [403, "resolved_private"]
    await mallory.refusals(("resolved_private", EGRESS_ADDRESS, 443))
    mallory.reached_nothing()


@transparent_only
async def test_the_host_and_its_neighbours(mallory: Outbound) -> None:
    own = (EGRESS_ADDRESS, "172.17.0.1", "10.0.0.1", "192.168.1.1")
    got = await mallory.run(f"answer([direct(host, port, b'x') for host in {own} for port in (22, 80, 443, 5432)])")
    assert set(got) <= {"ECONNRESET", ""}
    await mallory.refusals(*(("literal_ip", host, port) for host in own for port in (22, 80, 443, 5432)))
    mallory.reached_nothing()


@transparent_only
async def test_loopback_holds_nothing_but_the_guest_s_own(mallory: Outbound) -> None:
    got = await mallory.run("answer([direct('127.0.0.1', port, b'x') for port in (22, 80, 443, 5432, 8000)])")
    assert set(got) == {"ECONNREFUSED"}
    mallory.reached_nothing()
