"""No other way to write a host leads anywhere: a name is allowed as itself, or it is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.internet.world import API, MUNICH, WILD
from tests.security.conftest import any_runtime, gvisor_only, transparent_only

if TYPE_CHECKING:
    from tests.security.outbound import Outbound

pytestmark = pytest.mark.asyncio(loop_scope="module")


@any_runtime
async def test_a_listed_name_is_reached_through_the_proxy(mallory: Outbound) -> None:
    answer = await mallory.run(
        "said, sock = tunnel('api.allowed.test:443')\nanswer([said, fetch(sock, 'api.allowed.test')])"
    )
    assert answer[0] == [200]
    assert answer[1].endswith("served api.allowed.test/\n")
    event = await mallory.passed()
    details = event["details"]
    assert (event["decision"], details["host"], details["port"]) == ("allow", "api.allowed.test", 443)
    assert (details["sni"], details["address"], details["rule"]) == ("api.allowed.test", API, "api.allowed.test:443")
    assert details["via"] == "proxy"
    assert details["bytes_out"] > 300
    assert details["bytes_in"] > 300


@transparent_only
async def test_the_proxy_has_a_name_of_its_own(mallory: Outbound) -> None:
    program = (
        "PROXY = ('proxy.internal', 8080)\nsaid, sock = tunnel('api.allowed.test:443')\n"
        "answer([said, fetch(sock, 'api.allowed.test')[-5:], connect('evil.test:443')])"
    )
    assert await mallory.run(program) == [[200], "est/\n", [403, "no_rule"]]
    assert (await mallory.passed())["details"]["host"] == "api.allowed.test"
    await mallory.refusals(("no_rule", "evil.test", 443))


@any_runtime
@pytest.mark.parametrize(
    ("authority", "name", "address"),
    [
        ("API.Allowed.TEST:443", "api.allowed.test", API),
        ("api.allowed.test.:443", "api.allowed.test", API),
        ("a.wild.allowed.test:443", "a.wild.allowed.test", WILD),
        ("a.b.wild.allowed.test:443", "a.b.wild.allowed.test", WILD),
        ("xn--mnchen-3ya.test:443", "xn--mnchen-3ya.test", MUNICH),
    ],
)
async def test_a_form_that_means_a_listed_name_is_that_name(
    mallory: Outbound, authority: str, name: str, address: str
) -> None:
    program = f"said, sock = tunnel({authority!r})\nanswer([said, greet(sock, hello({name!r}))])"
    assert await mallory.run(program) == [[200], 22]
    details = (await mallory.passed())["details"]
    assert (details["host"], details["address"]) == (name, address)


@any_runtime
async def test_one_rule_is_told_for_all_forms_of_a_name(mallory: Outbound) -> None:
    program = "answer([connect(a)[0] for a in ('api.allowed.test:443', 'API.ALLOWED.TEST.:443')])"
    assert await mallory.run(program) == [200, 200]
    mallory.reached_nothing()


@any_runtime
@pytest.mark.parametrize(
    ("authority", "host"),
    [
        ("evil.test:443", "evil.test"),
        ("evil-api.allowed.test:443", "evil-api.allowed.test"),
        ("xapi.allowed.test:443", "xapi.allowed.test"),
        ("api.allowed.test.evil.test:443", "api.allowed.test.evil.test"),
        ("wild.allowed.test:443", "wild.allowed.test"),
        ("evilwild.allowed.test:443", "evilwild.allowed.test"),
        ("allowed.test:443", "allowed.test"),
    ],
)
async def test_a_name_that_only_contains_a_listed_one(mallory: Outbound, authority: str, host: str) -> None:
    assert await mallory.run(f"answer(connect({authority!r}))") == [403, "no_rule"]
    await mallory.refusals(("no_rule", host, 443))
    mallory.reached_nothing()
    mallory.asked_nobody()


@any_runtime
@pytest.mark.parametrize("port", [22, 8443, 25, 80])
async def test_another_port_of_a_listed_name(mallory: Outbound, port: int) -> None:
    assert await mallory.run(f"answer(connect('api.allowed.test:{port}'))") == [403, "port"]
    await mallory.refusals(("port", "api.allowed.test", port))
    mallory.reached_nothing()


BAD = {
    "port zero": b"api.allowed.test:0",
    "port too large": b"api.allowed.test:99999",
    "port with letters": b"api.allowed.test:443abc",
    "port with a sign": b"api.allowed.test:+443",
    "no port": b"api.allowed.test",
    "two dots behind": b"api.allowed.test..:443",
    "dot before": b".api.allowed.test:443",
    "NUL": b"api.allowed.test\x00.evil.test:443",
    "NUL as SOCKS would send it": b"evil.test\x00.wild.allowed.test:443",
    "percent encoding": b"api%2eallowed%2etest:443",
    "percent NUL": b"api.allowed.test%00:443",
    "comma": b"api.allowed.test,evil.test:443",
    "user": b"api.allowed.test@evil.test:443",
    "slash": b"api.allowed.test/evil.test:443",
    "backslash": b"api.allowed.test\\evil.test:443",
    "full-width dot": "api。allowed。test:443".encode(),
    "soft hyphen": "api.al\u00adlowed.test:443".encode(),
    "double-struck letter": "ap\u2148.allowed.test:443".encode(),
    "letters that are no ASCII": "münchen.test:443".encode(),
    "no punycode": b"xn--zzzzzzzzzz99999.test:443",
    "hexadecimal": b"0x7f.1:443",
    "one number": b"2130706433:443",
    "two numbers": b"127.1:443",
    "octal": b"0177.0.0.1:443",
    "circled digits": "①②⑦.⓪.⓪.①:443".encode(),
    "zone": b"[fe80::1%25eth0]:443",
}


@transparent_only
@pytest.mark.parametrize("authority", BAD.values(), ids=BAD)
async def test_a_form_with_more_than_one_meaning(mallory: Outbound, authority: bytes) -> None:
    answer = await mallory.run(f"answer(connect({authority!r}))")
    # What is no HTTP at all, as a NUL in it, is refused before it is read as a host.
    assert answer[0] == 400
    assert answer[1] in ("bad_host", "not_http", "smuggling")
    await mallory.refusals((answer[1], None, None))
    mallory.reached_nothing()
    mallory.asked_nobody()


@gvisor_only
async def test_none_of_these_forms_leads_anywhere_under_gvisor(mallory: Outbound) -> None:
    got = await mallory.run(f"answer([connect(authority) for authority in {list(BAD.values())!r}])")
    assert {status for status, _ in got} == {400}
    assert {reason for _, reason in got} <= {"bad_host", "not_http", "smuggling"}
    await mallory.refusals(*((reason, None, None) for reason in {reason for _, reason in got}))
    mallory.reached_nothing()
    mallory.asked_nobody()
