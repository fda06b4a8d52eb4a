"""What a sandbox may reach: what every layer allows, no operator denies, and no address leads inside."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corekit.netrules.decide import judge, led_astray, may_resolve, reachable
from corekit.netrules.hosts import Name, canonical
from corekit.netrules.policy import NOTHING, Policy
from corekit.netrules.reasons import Reason

if TYPE_CHECKING:
    import random

R = (
    "api.allowed.test:443",
    "pypi.allowed.test:443",
    "*.wild.allowed.test:443",
    "plain.allowed.test:80",
    "db.allowed.test:5432",
)
ALL = {"tls", "http", "ws", "tcp"}


def layer(*egress: str, mode: str = "deny", first: str = "deny", name: str = "tenant") -> dict[str, Any]:
    return {"name": name, "mode": mode, "first": first, "egress": list(egress)}


def policy(*layers: dict[str, Any], **changes: Any) -> Policy:
    document: dict[str, Any] = {
        "version": 1,
        "layers": list(layers),
        "deny": [],
        "private": [],
        "dns": True,
        "via": None,
        "egress_proxy": None,
        "limits": {"flows": 256, "new_per_s": 50, "bytes_out": None, "idle_s": 300},
        "tls": {"sni": "require", "ech": "deny"},
        "rules": [],
        "placeholders": [],
    }
    return Policy.parse(document | changes)


def test_a_listed_name_passes_and_the_rule_is_told() -> None:
    verdict = judge(policy(layer(*R)), Name("api.allowed.test"), 443)
    assert verdict.allowed
    assert (verdict.reason, verdict.rule, verdict.layer) == (None, "api.allowed.test:443", "tenant")
    assert verdict.protocols == {"tls"}


@pytest.mark.parametrize(
    ("host", "port", "protocols"),
    [
        (b"API.Allowed.TEST", 443, {"tls"}),
        (b"api.allowed.test.", 443, {"tls"}),
        (b"a.wild.allowed.test", 443, {"tls"}),
        (b"a.b.wild.allowed.test", 443, {"tls"}),
        (b"plain.allowed.test", 80, {"http"}),
        (b"db.allowed.test", 5432, ALL),
    ],
)
def test_allowed(host: bytes, port: int, protocols: set[str]) -> None:
    verdict = judge(policy(layer(*R)), canonical(host), port)
    assert verdict.allowed
    assert verdict.protocols == protocols


@pytest.mark.parametrize(
    ("host", "port", "reason"),
    [
        (b"evil.test", 443, Reason.NO_RULE),
        (b"evil-api.allowed.test", 443, Reason.NO_RULE),
        (b"xapi.allowed.test", 443, Reason.NO_RULE),
        (b"api.allowed.test.evil.test", 443, Reason.NO_RULE),
        (b"allowed.test", 443, Reason.NO_RULE),
        (b"wild.allowed.test", 443, Reason.NO_RULE),
        (b"evilwild.allowed.test", 443, Reason.NO_RULE),
        (b"wild.allowed.test.evil.test", 443, Reason.NO_RULE),
        (b"api.allowed.test", 22, Reason.PORT),
        (b"api.allowed.test", 8443, Reason.PORT),
        (b"a.wild.allowed.test", 80, Reason.PORT),
        (b"45.79.1.10", 443, Reason.LITERAL_IP),
        (b"127.0.0.1", 443, Reason.LITERAL_IP),
        (b"[::1]", 443, Reason.LITERAL_IP),
        (b"[::ffff:127.0.0.1]", 443, Reason.LITERAL_IP),
        (b"[64:ff9b::7f00:1]", 443, Reason.LITERAL_IP),
        (b"[2002:7f00:1::]", 443, Reason.LITERAL_IP),
        (b"169.254.169.254", 80, Reason.METADATA),
        (b"[::ffff:169.254.169.254]", 80, Reason.METADATA),
        (b"[fd00:ec2::254]", 80, Reason.METADATA),
        (b"169.254.170.2", 80, Reason.METADATA),
        (b"100.100.100.200", 80, Reason.METADATA),
        (b"168.63.129.16", 80, Reason.METADATA),
        (b"metadata.google.internal", 80, Reason.METADATA),
        (b"Metadata.Google.Internal.", 80, Reason.METADATA),
    ],
)
def test_denied(host: bytes, port: int, reason: Reason) -> None:
    verdict = judge(policy(layer(*R)), canonical(host), port)
    assert not verdict.allowed
    assert verdict.reason == reason
    assert verdict.protocols == frozenset()


def test_nothing_passes_without_rules() -> None:
    for nothing in (NOTHING, policy(), policy(layer()), policy(layer(mode="allow"), layer())):
        assert judge(nothing, Name("api.allowed.test"), 443).reason == Reason.NO_RULE
        assert judge(nothing, ip_address("1.1.1.1"), 443).reason == Reason.LITERAL_IP


def test_every_layer_must_allow() -> None:
    narrowed = policy(
        layer("api.allowed.test:443", "evil.test:443", name="sandbox"), layer(*R, name="tenant", mode="deny")
    )
    allowed = judge(narrowed, Name("api.allowed.test"), 443)
    assert (allowed.allowed, allowed.rule, allowed.layer) == (True, "api.allowed.test:443", "sandbox")
    for name, at in (("evil.test", "tenant"), ("pypi.allowed.test", "sandbox")):
        refused = judge(narrowed, Name(name), 443)
        assert (refused.allowed, refused.reason, refused.layer) == (False, Reason.NO_RULE, at)


def test_layers_narrow_what_is_spoken() -> None:
    opaque = layer("db.allowed.test:443/tcp", name="sandbox")
    assert judge(policy(opaque, layer("db.allowed.test:443")), Name("db.allowed.test"), 443).protocols == {"tls"}
    refused = judge(
        policy(layer("db.allowed.test:443/http"), layer("db.allowed.test:443")), Name("db.allowed.test"), 443
    )
    assert (refused.allowed, refused.reason) == (False, Reason.NO_RULE)
    both = policy(layer("plain.allowed.test:80", "plain.allowed.test:80/ws"))
    assert judge(both, Name("plain.allowed.test"), 80).protocols == {"http", "ws"}


def test_a_denying_entry_wins_over_those_that_allow() -> None:
    rules = policy(layer("*.wild.allowed.test:443", "!secret.wild.allowed.test:443"))
    refused = judge(rules, Name("secret.wild.allowed.test"), 443)
    assert (refused.allowed, refused.reason, refused.rule) == (False, Reason.NO_RULE, "!secret.wild.allowed.test:443")
    assert judge(rules, Name("other.wild.allowed.test"), 443).allowed
    assert not judge(policy(layer("!evil.test:443", mode="allow")), Name("evil.test"), 443).allowed


def test_where_allowing_comes_first_a_listed_host_passes_though_denied() -> None:
    e2b = policy(layer("1.1.1.1:1-65535", "!0.0.0.0/0:1-65535", mode="allow", first="allow"))
    assert judge(e2b, ip_address("1.1.1.1"), 53).allowed
    assert judge(e2b, ip_address("1.0.0.1"), 53).reason == Reason.LITERAL_IP
    assert judge(e2b, Name("api.allowed.test"), 443).allowed


def test_what_the_operator_denies_wins_over_everything() -> None:
    rules = policy(layer("evil.example:443", mode="allow", first="allow"), deny=["*.example:1-65535", "1.1.1.0/24:*"])
    refused = judge(rules, Name("evil.example"), 443)
    assert (refused.allowed, refused.reason, refused.rule) == (False, Reason.OPERATOR_DENY, "*.example:1-65535")
    assert judge(rules, ip_address("1.1.1.1"), 443).reason == Reason.OPERATOR_DENY
    assert judge(rules, Name("good.test"), 443).allowed


def test_allow_means_every_name_and_every_public_address() -> None:
    open_to_all = policy(layer(mode="allow"))
    assert judge(open_to_all, Name("anything.test"), 443).protocols == {"tls", "ws"}
    assert judge(open_to_all, Name("anything.test"), 80).protocols == {"http", "ws"}
    assert judge(open_to_all, Name("anything.test"), 22).protocols == ALL
    assert judge(open_to_all, ip_address("1.1.1.1"), 443).protocols == ALL
    for text in ("10.0.0.1", "127.0.0.1", "fd00::1", "203.0.113.1"):
        assert judge(open_to_all, ip_address(text), 443).reason == Reason.LITERAL_IP
    for said in (b"169.254.169.254", b"metadata.google.internal", b"[fd00:ec2::254]"):
        assert judge(open_to_all, canonical(said), 80).reason == Reason.METADATA


def test_a_private_address_needs_an_entry_and_a_grant() -> None:
    rules = policy(layer("10.20.0.7:5432", "10.30.0.7:5432"), private=["10.20.0.0/16"])
    assert judge(rules, ip_address("10.20.0.7"), 5432).allowed
    assert not judge(rules, ip_address("10.20.0.8"), 5432).allowed
    assert reachable(rules, ip_address("10.20.0.7"), ()) is None
    assert reachable(rules, ip_address("10.30.0.7"), ()) == Reason.RESOLVED_PRIVATE


def test_no_grant_opens_the_host_or_a_metadata_service() -> None:
    everything = policy(layer(mode="allow"), private=["0.0.0.0/0", "::/0"])
    own = {ip_address("45.79.0.1"), ip_address("10.0.0.1")}
    for text in (
        "127.0.0.1",
        "0.0.0.0",
        "169.254.1.1",
        "224.0.0.1",
        "::1",
        "fe80::1",
        "::ffff:127.0.0.1",
        "2002:7f00:1::",
    ):
        assert reachable(everything, ip_address(text), own) == Reason.RESOLVED_PRIVATE
    for text in ("169.254.169.254", "::ffff:169.254.169.254", "168.63.129.16", "fd00:ec2::254", "100.100.100.200"):
        assert reachable(everything, ip_address(text), own) == Reason.METADATA
    for text in ("45.79.0.1", "10.0.0.1", "::ffff:10.0.0.1"):
        assert reachable(everything, ip_address(text), own) == Reason.RESOLVED_PRIVATE
    for text in ("10.0.0.2", "fd00::2", "100.64.0.1"):
        assert reachable(everything, ip_address(text), own) is None


@pytest.mark.parametrize("text", ["10.0.0.5", "127.0.0.1", "0.0.0.0", "64:ff9b::a00:5", "2002:a00:5::", "fd00::1"])
def test_a_name_that_leads_inside_is_not_connected_to(text: str) -> None:
    assert reachable(policy(layer(*R)), ip_address(text), ()) == Reason.RESOLVED_PRIVATE


def test_public_addresses_are_connected_to() -> None:
    for text in ("45.79.1.10", "1.1.1.1", "2606:4700:4700::1111"):
        assert reachable(policy(layer(*R)), ip_address(text), ()) is None


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("api.allowed.test", True),
        ("deep.down.wild.allowed.test", True),
        ("db.allowed.test", True),
        ("wild.allowed.test", False),
        ("6578.evil.test", False),
        ("allowed.test", False),
    ],
)
def test_a_name_is_resolved_when_a_port_of_it_may_be_reached(name: str, allowed: bool) -> None:  # noqa: FBT001
    verdict = may_resolve(policy(layer(*R)), Name(name))
    assert verdict.allowed == allowed
    assert verdict.reason == (None if allowed else Reason.DNS_DENIED)


def test_a_name_is_not_resolved_when_layers_allow_different_ports() -> None:
    apart = policy(layer("api.allowed.test:1-100", name="sandbox"), layer("api.allowed.test:101-200"))
    assert may_resolve(apart, Name("api.allowed.test")).reason == Reason.DNS_DENIED
    touching = policy(layer("api.allowed.test:1-100", name="sandbox"), layer("api.allowed.test:100-200"))
    assert may_resolve(touching, Name("api.allowed.test")).allowed
    cut = policy(layer("api.allowed.test:1-100", "!api.allowed.test:1-99"))
    assert may_resolve(cut, Name("api.allowed.test")).allowed
    gone = policy(layer("api.allowed.test:1-100", "!api.allowed.test:1-50", "!*.allowed.test:51-65535"))
    assert may_resolve(gone, Name("api.allowed.test")).reason == Reason.DNS_DENIED


def test_resolving_is_refused_where_the_policy_says_no_dns() -> None:
    assert may_resolve(policy(layer(*R), dns=False), Name("api.allowed.test")).reason == Reason.DNS_DENIED


def test_a_metadata_name_is_not_resolved_and_the_reason_says_so() -> None:
    assert may_resolve(policy(layer(mode="allow")), Name("metadata.google.internal")).reason == Reason.METADATA
    denied = policy(layer(mode="allow"), deny=["evil.test:*"])
    assert may_resolve(denied, Name("evil.test")).reason == Reason.OPERATOR_DENY


HOSTS = ("api.allowed.test", "a.wild.allowed.test", "wild.allowed.test", "evil.test")
ENTRIES = tuple(
    f"{deny}{host}:{ports}"
    for deny in ("", "!")
    for host in (*HOSTS, "*.wild.allowed.test", "*.allowed.test", "1.1.1.1", "1.1.0.0/16", "0.0.0.0/0")
    for ports in ("443", "1-1024", "80/ws", "1000-2000")
)
some_layer = st.builds(
    lambda egress, mode, first: layer(*egress, mode=mode, first=first),
    st.lists(st.sampled_from(ENTRIES), max_size=6),
    st.sampled_from(["deny", "allow"]),
    st.sampled_from(["deny", "allow"]),
)
some_host = st.sampled_from([*map(Name, HOSTS), *map(ip_address, ("1.1.1.1", "1.1.2.3", "9.9.9.9", "10.0.0.1"))])
some_port = st.sampled_from([22, 80, 443, 1024, 1500, 65_535])


@given(st.lists(some_layer, max_size=3), st.lists(st.sampled_from(ENTRIES), max_size=3), some_host, some_port)
def test_nothing_passes_that_a_layer_alone_refuses(
    layers: list[dict[str, Any]], deny: list[str], host: Any, port: int
) -> None:
    allowed = judge(policy(*layers, deny=deny), host, port).allowed
    alone = [judge(policy(one), host, port) for one in layers]
    if allowed:
        assert layers
        assert all(verdict.allowed for verdict in alone)
        assert not any(judge(policy(layer(entry.lstrip("!"))), host, port).allowed for entry in deny)
    # With the layer that refuses, adding any other changes nothing.
    if any(not verdict.allowed for verdict in alone):
        assert not allowed


@given(some_layer, some_host, some_port, st.randoms(use_true_random=False))
def test_the_order_of_entries_means_nothing(one: dict[str, Any], host: Any, port: int, chance: random.Random) -> None:
    shuffled = [*one["egress"], *one["egress"][:1]]
    chance.shuffle(shuffled)
    assert judge(policy(one), host, port) == judge(policy(one | {"egress": shuffled}), host, port)


@given(st.lists(some_layer, min_size=1, max_size=2), st.sampled_from(HOSTS))
def test_a_name_is_resolved_exactly_when_some_port_passes(layers: list[dict[str, Any]], name: str) -> None:
    rules = policy(*layers)
    passing = any(
        judge(rules, Name(name), port).allowed for port in (1, 79, 80, 81, 443, 444, 1000, 1025, 2001, 65_535)
    )
    assert may_resolve(rules, Name(name)).allowed == passing


SHOP, INSIDE, OUTSIDE = Name("api.allowed.test"), ip_address("45.79.7.7"), ip_address("45.80.7.7")


def test_a_name_may_lead_where_no_rule_denies_the_address() -> None:
    rules = policy(layer("api.allowed.test:443", "!45.79.0.0/16:443"), deny=["45.81.0.0/16:443"])
    assert led_astray(rules, SHOP, 443, OUTSIDE) is None
    assert led_astray(rules, SHOP, 80, INSIDE) is None


def test_a_denied_network_denies_the_names_that_lead_into_it() -> None:
    verdict = led_astray(policy(layer("api.allowed.test:443", "!45.79.0.0/16:443")), SHOP, 443, INSIDE)
    assert verdict is not None
    assert (verdict.allowed, verdict.reason, verdict.layer) == (False, Reason.NO_RULE, "tenant")
    assert verdict.rule == "!45.79.0.0/16:443"


def test_an_operator_s_network_denies_them_whatever_else_allows_them() -> None:
    rules = policy(layer("api.allowed.test:443", first="allow"), deny=["45.79.0.0/16:1-65535"])
    verdict = led_astray(rules, SHOP, 443, INSIDE)
    assert verdict is not None
    assert verdict.reason is Reason.OPERATOR_DENY


def test_where_what_is_allowed_wins_a_name_of_its_own_may_lead_anywhere() -> None:
    rules = policy(layer("api.allowed.test:443", "!45.79.0.0/16:1-65535", mode="allow", first="allow"))
    assert led_astray(rules, SHOP, 443, INSIDE) is None
    other = led_astray(rules, Name("other.test"), 443, INSIDE)
    assert other is not None
    assert other.reason is Reason.NO_RULE
