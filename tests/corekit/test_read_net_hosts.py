"""One host for what was said: the forms that have one meaning are taken, all others are refused."""

# ruff: noqa: RUF001 -- characters that look like others are what this is about
from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corekit.netrules.hosts import (
    BadHost,
    Name,
    canonical,
    canonical_authority,
    canonical_port,
    canonical_text,
    mixed_scripts,
    written,
)


@pytest.mark.parametrize(
    ("said", "name"),
    [
        (b"api.allowed.test", "api.allowed.test"),
        (b"API.Allowed.TEST", "api.allowed.test"),
        (b"api.allowed.test.", "api.allowed.test"),
        (b"xn--mnchen-3ya.test", "xn--mnchen-3ya.test"),
        (b"XN--Mnchen-3YA.test", "xn--mnchen-3ya.test"),
        (b"_acme.allowed.test", "_acme.allowed.test"),
        # Hyphens in third and fourth place mean nothing without `xn`, and are in use.
        (b"r3---sn-5hne.cdn.test", "r3---sn-5hne.cdn.test"),
        (b"localhost", "localhost"),
        (b"1.2.3.4.example", "1.2.3.4.example"),
        (b"0x7f.example", "0x7f.example"),
        (b"a" * 63 + b".test", "a" * 63 + ".test"),
        (b".".join([b"a" * 49] * 5) + b".", ".".join(["a" * 49] * 5)),
    ],
)
def test_name(said: bytes, name: str) -> None:
    assert canonical(said) == Name(name)


@pytest.mark.parametrize(
    "said",
    [
        *(b"", b".", b"..", b"api.allowed.test..", b".api.allowed.test", b"api..allowed.test"),
        *(b"api.allowed.test\x00.evil.test", b"api.allowed.test\x00", b"api.allowed.test ", b" api.allowed.test"),
        *(b"api%2eallowed%2etest", b"api.allowed.test%00", b"api.allowed.test,evil.test", b"api.allowed.test;evil"),
        *(b"api.allowed.test@evil.test", b"api.allowed.test/evil", b"api.allowed.test\\evil", b"evil.test#x"),
        *(b"api.allowed.test\r\nHost: evil.test", b"api.allowed.test\t", b"api.allowed.test\x7f", b"*.allowed.test"),
        *(
            "api。allowed。test".encode(),
            "api\u00ad.allowed.test".encode(),
            "ⅇvil.test".encode(),
            "münchen.test".encode(),
        ),
        *("①②⑦.⓪.⓪.①".encode(), b"\xff.test", b"-api.test", b"api-.test"),
        *(b"a" * 64 + b".test", b".".join([b"a" * 49] * 5) + b".long.", b"a." * 128),
        *(b"xn--.test", b"xn--a.test", b"xn--zzzzzzzzzz99999.test", b"xn--api-.test", b"xn--example.test"),
        *(b"0x7f.1", b"2130706433", b"127.1", b"0177.0.0.1", b"0x7f000001", b"017700000001", b"127.0.0.0x1", b"1.2.3"),
        *(b"127.0.0.1.", b"256.1.1.1", b"1.2.3.4.5", b"01.2.3.4", b"0xa9fea9fe", b"2852039166", b"0251.0376.0251.0376"),
        *(
            b"[127.0.0.1]",
            b"::1",
            b"[::1",
            b"::1]",
            b"[fe80::1%25eth0]",
            b"[fe80::1%eth0]",
            b"[]",
            b"[::g]",
            b"[[::1]]",
        ),
    ],
)
def test_form_with_more_than_one_meaning(said: bytes) -> None:
    with pytest.raises(BadHost):
        canonical(said)


@pytest.mark.parametrize(
    ("said", "address"),
    [
        (b"203.0.113.10", IPv4Address("203.0.113.10")),
        (b"127.0.0.1", IPv4Address("127.0.0.1")),
        (b"[::1]", IPv6Address("::1")),
        (b"[2606:4700:4700::1111]", IPv6Address("2606:4700:4700::1111")),
        (b"[2606:4700:4700:0:0:0:0:1111]", IPv6Address("2606:4700:4700::1111")),
        # What is connected to is the IPv4 address, and so that is judged.
        (b"[::ffff:127.0.0.1]", IPv4Address("127.0.0.1")),
        (b"[::FFFF:a9fe:a9fe]", IPv4Address("169.254.169.254")),
        (b"[64:ff9b::7f00:1]", IPv6Address("64:ff9b::7f00:1")),
        (b"[2002:7f00:1::]", IPv6Address("2002:7f00:1::")),
    ],
)
def test_address(said: bytes, address: IPv4Address | IPv6Address) -> None:
    assert canonical(said) == address


def test_a_persons_name_is_stored_as_a_labels() -> None:
    assert canonical_text("münchen.test") == Name("xn--mnchen-3ya.test")
    assert canonical_text("MÜNCHEN.Test.") == Name("xn--mnchen-3ya.test")
    assert canonical_text("mu\u0308nchen.test") == Name("xn--mnchen-3ya.test")
    assert canonical_text("xn--mnchen-3ya.test") == Name("xn--mnchen-3ya.test")


@pytest.mark.parametrize(
    "said",
    [
        "api。allowed。test",
        "api\u00ad.allowed.test",
        "ⅇvil.test",
        "①②⑦.⓪.⓪.①",
        "１２７.0.0.1",
        "a\u200db.test",
        "😀.test",
    ],
)
def test_nothing_that_only_resembles_a_letter_is_mapped(said: str) -> None:
    with pytest.raises(BadHost):
        canonical_text(said)


def test_host_and_port() -> None:
    assert canonical_authority(b"API.allowed.test.:443") == (Name("api.allowed.test"), 443)
    assert canonical_authority(b"[::1]:65535") == (IPv6Address("::1"), 65_535)


@pytest.mark.parametrize(
    "said",
    [
        *(b"api.allowed.test", b"api.allowed.test:", b":443", b"api.allowed.test:0", b"api.allowed.test:99999"),
        *(b"api.allowed.test:443abc", b"api.allowed.test:+443", b"api.allowed.test: 443", b"api.allowed.test:0443"),
        *(b"api.allowed.test:443:443", b"::1:443", b"[::1]", b"a:b@api.allowed.test:443", b"api.allowed.test:4_43"),
        "api.allowed.test:４４３".encode(),
    ],
)
def test_no_host_and_port(said: bytes) -> None:
    with pytest.raises(BadHost):
        canonical_authority(said)


def test_an_error_shows_what_was_said_harmlessly() -> None:
    with pytest.raises(BadHost, match=r"^'api\\n\\x1b\[31m' is no host name\.$"):
        canonical(b"api\n\x1b[31m")
    with pytest.raises(BadHost) as error:
        canonical(b"a" * 100_000)
    assert len(str(error.value)) < 120


@pytest.mark.parametrize(
    "said",
    [
        "аpi.example.test",
        "exаmple.test",
        "xn--exmple-4nf.test",
        "аррӏе.test",
        "οοο.test",
        "!*.gοοgle.test:443",
        "paypaӏ.test",
    ],
)
def test_a_name_that_may_look_like_another(said: str) -> None:
    assert mixed_scripts(said)


@pytest.mark.parametrize(
    "said",
    [
        *("api.example.test", "münchen.test", "пример.test", "παράδειγμα.test", "例え.test", "東京タワー.test"),
        *(
            "xn--mnchen-3ya.test",
            "r3---sn-5hne.cdn.test",
            "10.0.0.0/8:443",
            "[2001:db8::1]:443",
            "*.wild.test:80/ws",
            "",
        ),
    ],
)
def test_a_name_of_one_script(said: str) -> None:
    assert not mixed_scripts(said)


@given(st.text(st.sampled_from("aZ09-_.xn:[]%*é。①"), max_size=40))
def test_canonical_is_idempotent(text: str) -> None:
    try:
        host = canonical_text(text)
    except BadHost:
        return
    assert canonical(written(host).encode()) == canonical_text(written(host)) == host


@given(st.binary(max_size=300))
def test_any_bytes_are_a_host_or_refused(raw: bytes) -> None:
    try:
        host = canonical(raw)
    except BadHost:
        return
    assert written(host).isascii()
    assert raw.isascii()


@given(st.integers(1, 65_535))
def test_ports_have_one_form(port: int) -> None:
    assert canonical_port(str(port)) == port
    for other in (f"0{port}", f"+{port}", f" {port}", f"{port} ", f"{port + 65_536}", f"{port}\n"):
        with pytest.raises(BadHost):
            canonical_port(other)
