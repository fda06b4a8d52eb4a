"""One rule of a network policy: each form that is taken, and a sentence that helps for each that is not."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corekit.netrules.entries import RuleError, Suffix, parse_entry
from corekit.netrules.hosts import Name


def test_a_name_and_its_port() -> None:
    entry = parse_entry("API.OpenAI.com:443")
    assert entry.text == "api.openai.com:443"
    assert entry.shown == "API.OpenAI.com:443"
    assert (entry.deny, entry.host, entry.ports, entry.protocol) == (False, Name("api.openai.com"), (443, 443), "tls")


@pytest.mark.parametrize(
    ("said", "text", "protocol"),
    [
        ("plain.allowed.test:80", "plain.allowed.test:80", "http"),
        ("db.allowed.test:5432", "db.allowed.test:5432", "tcp"),
        ("api.allowed.test:443/tls", "api.allowed.test:443", "tls"),
        ("api.allowed.test:443/tcp", "api.allowed.test:443/tcp", "tcp"),
        ("api.allowed.test:8443/tls", "api.allowed.test:8443/tls", "tls"),
        ("plain.allowed.test:80/ws", "plain.allowed.test:80/ws", "ws"),
        ("api.allowed.test.:443", "api.allowed.test:443", "tls"),
        ("münchen.test:443", "xn--mnchen-3ya.test:443", "tls"),
        ("api.allowed.test:8000-8080", "api.allowed.test:8000-8080", "tcp"),
        ("api.allowed.test:1-1024", "api.allowed.test:1-1024", "auto"),
        ("api.allowed.test:80-80", "api.allowed.test:80", "http"),
        ("*.wild.allowed.test:443", "*.wild.allowed.test:443", "tls"),
        ("!*.wild.allowed.test:*", "!*.wild.allowed.test:1-65535", "auto"),
        ("1.1.1.1:443", "1.1.1.1:443", "tcp"),
        ("1.1.1.1/32:443", "1.1.1.1:443", "tcp"),
        ("10.0.0.0/8:5432", "10.0.0.0/8:5432", "tcp"),
        ("10.0.0.0/8:443/tls", "10.0.0.0/8:443/tls", "tls"),
        ("!0.0.0.0/0:1-65535", "!0.0.0.0/0:1-65535", "tcp"),
        ("[2606:4700::1111]:443", "[2606:4700::1111]:443", "tcp"),
        ("[2606:4700:0::1111]:443", "[2606:4700::1111]:443", "tcp"),
        ("[2606:4700::/32]:443", "[2606:4700::/32]:443", "tcp"),
        ("[::ffff:1.1.1.1]:443", "1.1.1.1:443", "tcp"),
    ],
)
def test_canonical_form(said: str, text: str, protocol: str) -> None:
    entry = parse_entry(said)
    assert (entry.text, entry.protocol) == (text, protocol)
    assert parse_entry(text, any_port=True) == parse_entry(said, any_port=True).__class__(
        text, text, entry.deny, entry.host, entry.ports, entry.protocol
    )


def test_each_port_of_a_range_has_its_usual_protocol() -> None:
    entry = parse_entry("api.allowed.test:1-1024")
    assert [entry.protocol_at(port) for port in (22, 80, 443)] == ["tcp", "http", "tls"]


def test_hosts_of_rules() -> None:
    assert parse_entry("*.wild.allowed.test:443").host == Suffix("wild.allowed.test")
    assert parse_entry("1.1.1.0/24:443").host == ip_network("1.1.1.0/24")
    assert parse_entry("1.1.1.1:443").host == ip_network("1.1.1.1")


def test_all_ports_are_an_operators_to_give() -> None:
    assert parse_entry("api.allowed.test:*", any_port=True).ports == (1, 65_535)
    for text in ("api.allowed.test:*", "api.allowed.test:1-65535"):
        with pytest.raises(RuleError, match=r"^Only an operator allows all ports: write the port that is meant"):
            parse_entry(text)


def test_what_was_stored_stays_a_rule_when_a_suffix_becomes_public() -> None:
    assert parse_entry("*.co.uk:443", stored=True).text == "*.co.uk:443"


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("*:443", "A wildcard stands for whole labels at the beginning: write it like *.example.com."),
        ("*.*:443", "A wildcard stands for whole labels at the beginning: write it like *.example.com."),
        ("**.allowed.test:443", "A wildcard stands for whole labels at the beginning: write it like *.example.com."),
        ("a.*.b.test:443", "A wildcard stands for whole labels at the beginning: write it like *.example.com."),
        ("*foo.test:443", "A wildcard stands for whole labels at the beginning: write it like *.example.com."),
        ("foo.*:443", "A wildcard stands for whole labels at the beginning: write it like *.example.com."),
        ("*.test:443", "*.test is too much: a wildcard has two labels behind it at least, like *.example.com."),
        ("*.com.:443", "*.com is too much: a wildcard has two labels behind it at least, like *.example.com."),
        ("*.co.uk:443", "*.co.uk is too much: everybody can have a name below co.uk."),
        ("*.github.io:443", "*.github.io is too much: everybody can have a name below github.io."),
        ("*.10.0.0.1:443", "A wildcard stands before a name: for addresses write a network like 192.0.2.0/24."),
        ("api.allowed.test", "'api.allowed.test' names no port: write it like api.example.com:443."),
        (
            "https://api.allowed.test",
            "'https://api.allowed.test' is a URL: write host and port, like api.example.com:443.",
        ),
        ("https://a.test:443", "'https://a.test:443' is a URL: write host and port, like api.example.com:443."),
        ("", "'' names no port: write it like api.example.com:443."),
        ("::1:443", "'::1:443' is no rule: an IPv6 address stands in brackets, like [2001:db8::1]:443."),
        (
            "api.allowed.test:0",
            "'0' is no port: it is a number from 1 to 65535. Write one like 443, or a range like 8000-8080.",
        ),
        ("api.allowed.test:80-79", "The range 80-79 ends before it begins."),
        ("api.allowed.test:443/udp", "/udp is no protocol: write one of tls, http, ws, tcp."),
        ("api.allowed.test:443/", "/ is no protocol: write one of tls, http, ws, tcp."),
        ("api.allowed.test:443/auto", "/auto is no protocol: write one of tls, http, ws, tcp."),
        ("10.1.2.3/8:443", "'10.1.2.3/8' is not in the usual form: write 10.0.0.0/8."),
        ("10.0.0.0/255.0.0.0:443", "'10.0.0.0/255.0.0.0' is not in the usual form: write 10.0.0.0/8."),
        ("[10.0.0.0/8]:443", "An IPv6 network stands in brackets, an IPv4 network does not."),
        ("[::ffff:10.0.0.0/104]:443", "'[::ffff:10.0.0.0/104]' stands for IPv4 addresses: write those."),
        ("10.0.0.0/33:443", "'10.0.0.0/33' is no network: write it like 192.0.2.0/24 or [2001:db8::/32]."),
        ("127.1:443", "'127.1' is no address in its usual form, like 192.0.2.1."),
        ("127.0.0.1:80", "127.0.0.1 leads to the host itself or its cloud provider: nobody reaches it."),
        ("[::1]:80", "[::1] leads to the host itself or its cloud provider: nobody reaches it."),
        ("169.254.169.254:80", "169.254.169.254 leads to the host itself or its cloud provider: nobody reaches it."),
        ("[fd00:ec2::254]:80", "[fd00:ec2::254] leads to the host itself or its cloud provider: nobody reaches it."),
        (
            "metadata.google.internal:80",
            "metadata.google.internal is a cloud provider's metadata service, which nobody reaches.",
        ),
    ],
)
def test_a_rule_that_cannot_be_meant(said: str, advice: str) -> None:
    with pytest.raises(RuleError) as error:
        parse_entry(said)
    assert str(error.value) == advice


@pytest.mark.parametrize(
    "said",
    [
        *(" api.allowed.test:443", "api.allowed.test:443 ", "api.allowed.test :443", "!!api.allowed.test:443", "!:443"),
        *(
            "api.allowed.test:443\n",
            "api\0.allowed.test:443",
            "api。allowed。test:443",
            "a@b.test:443",
            "*.:443",
            "[]:443",
        ),
        *(
            "api.allowed.test:443:443",
            "api.allowed.test:44٣",
            "[fe80::1%eth0]:443",
            "a.test:443/TLS",
            "a" * 500 + ":443",
        ),
    ],
)
def test_no_rule(said: str) -> None:
    with pytest.raises(RuleError):
        parse_entry(said, any_port=True)


def test_what_nobody_reaches_may_be_denied() -> None:
    assert parse_entry("!169.254.169.254:80").text == "!169.254.169.254:80"
    assert parse_entry("!*.test:443").text == "!*.test:443"
    assert parse_entry("!metadata.google.internal:1-65535").deny


some_text = st.text(st.sampled_from("abZ09.*!:-/[]@ tlshcpw_é"), max_size=40)
some_form = st.builds(
    "{}{}{}:{}{}".format,
    st.sampled_from(["", "!"]),
    st.sampled_from(["", "*.", "[", "a."]),
    st.sampled_from(
        ["a.test", "xn--mnchen-3ya.test", "münchen.test", "10.0.0.0/8", "1.1.1.1", "2001:db8::/32]", "::1]"]
    ),
    st.sampled_from(["443", "80", "1-65535", "*", "80-443", "0", "2-1"]),
    st.sampled_from(["", "/tls", "/http", "/ws", "/tcp", "/x", "/"]),
)


@given(some_text | some_form)
def test_the_canonical_form_is_itself_a_rule_that_means_the_same(text: str) -> None:
    try:
        entry = parse_entry(text, any_port=True)
    except RuleError:
        return
    again = parse_entry(entry.text, any_port=True)
    assert (again.text, again.host, again.ports, again.protocol) == (
        entry.text,
        entry.host,
        entry.ports,
        entry.protocol,
    )
    assert entry.text.isascii()
