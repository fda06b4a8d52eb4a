"""Only addresses of the public internet are public, however they are written."""

from __future__ import annotations

import ipaddress

import pytest

from corekit.addresses import METADATA, NEVER, SPECIAL, is_never_reached, is_public, meant

# IANA's special-purpose registries: the blocks that are not globally reachable, or not so on their own. Besides them
# multicast, which has a registry of its own, and what RFC 3879 deprecated.
IANA = (
    ("0.0.0.0/8", "this network"),
    ("10.0.0.0/8", "private use"),
    ("100.64.0.0/10", "shared address space"),
    ("127.0.0.0/8", "loopback"),
    ("169.254.0.0/16", "link local"),
    ("172.16.0.0/12", "private use"),
    ("192.0.0.0/24", "IETF protocol assignments"),
    ("192.0.0.0/29", "IPv4 service continuity"),
    ("192.0.0.8/32", "dummy address"),
    ("192.0.0.170/31", "NAT64/DNS64 discovery"),
    ("192.0.2.0/24", "documentation"),
    ("192.88.99.0/24", "deprecated 6to4 relays"),
    ("192.168.0.0/16", "private use"),
    ("198.18.0.0/15", "benchmarking"),
    ("198.51.100.0/24", "documentation"),
    ("203.0.113.0/24", "documentation"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
    ("255.255.255.255/32", "limited broadcast"),
    ("::1/128", "loopback"),
    ("::/128", "unspecified"),
    ("64:ff9b::/96", "translation to IPv4"),
    ("64:ff9b:1::/48", "local translation to IPv4"),
    ("100::/64", "discard only"),
    ("100:0:0:1::/64", "dummy prefix"),
    ("2001::/23", "IETF protocol assignments"),
    ("2001::/32", "Teredo"),
    ("2001:2::/48", "benchmarking"),
    ("2001:10::/28", "deprecated ORCHID"),
    ("2001:db8::/32", "documentation"),
    ("2002::/16", "6to4"),
    ("3fff::/20", "documentation"),
    ("5f00::/16", "segment routing"),
    ("fc00::/7", "unique local"),
    ("fe80::/10", "link local"),
    ("fec0::/10", "deprecated site local"),
    ("ff00::/8", "multicast"),
)
# Special blocks of the same registries that are parts of the public internet.
IANA_GLOBAL = ("192.31.196.0/24", "192.52.193.0/24", "192.175.48.0/24", "2620:4f:8000::/48")


@pytest.mark.parametrize("text", ["1.1.1.1", "93.184.215.14", "2606:4700:4700::1111", "::ffff:1.1.1.1"])
def test_public(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize(
    "text",
    [
        *("0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.31.255.255", "192.168.1.1"),
        *("192.0.2.1", "198.18.0.1", "198.51.100.7", "203.0.113.7", "224.0.0.1", "255.255.255.255"),
        *("168.63.129.16", "100.100.100.200", "::", "::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254"),
        *("64:ff9b::7f00:1", "2002:7f00:1::", "fec0::1", "fe80::1", "fd00::1", "ff02::1", "3fff::1", "5f00::1"),
    ],
)
def test_not_public(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("block", [block for block, _ in IANA])
def test_no_address_of_ianas_special_blocks_is_public(block: str) -> None:
    network = ipaddress.ip_network(block)
    first, last = int(network.network_address), int(network.broadcast_address)
    kind = type(network.network_address)
    for number in {first, last, (first + last) // 2}:
        assert not is_public(kind(number))


@pytest.mark.parametrize("block", IANA_GLOBAL)
def test_global_blocks_of_the_registries_are_public(block: str) -> None:
    network = ipaddress.ip_network(block)
    assert is_public(network.network_address)
    assert is_public(network.broadcast_address)


def test_the_table_has_nothing_else_but_what_clouds_serve() -> None:
    known = {ipaddress.ip_network(block) for block, _ in IANA} | {ipaddress.ip_network("::ffff:0:0/96")}
    added = {str(network) for network in SPECIAL if network not in known}
    assert added == {"168.63.129.16/32", "100.100.100.200/32", "fd00:ec2::254/128"}


@pytest.mark.parametrize("network", SPECIAL)
def test_the_edges_of_the_table(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> None:
    kind = type(network.network_address)
    # A mapped address is judged as the one that is meant.
    if str(network) == "::ffff:0:0/96":
        return
    assert not is_public(network.network_address)
    assert not is_public(network.broadcast_address)
    for beside in (int(network.network_address) - 1, int(network.broadcast_address) + 1):
        if 0 <= beside < 2**network.max_prefixlen:
            address = kind(beside)
            assert is_public(address) != any(
                meant(address) in one for one in SPECIAL if one.version == meant(address).version
            )


@pytest.mark.parametrize(
    "text",
    [
        *("::ffff:10.0.0.1", "::ffff:127.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::169.254.169.254"),
        *("2002:7f00:1::", "2002:a9fe:a9fe::", "2002:0a00:0001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2"),
        *("64:ff9b::8.8.8.8", "2002:808:808::", "64:ff9b:1::7f00:1"),
    ],
)
def test_addresses_that_carry_another_are_not_public(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))


def test_what_is_never_reached_is_special_and_has_all_metadata_services() -> None:
    assert set(NEVER) <= set(SPECIAL)
    assert all(is_never_reached(address) for address in METADATA)
    assert is_never_reached(ipaddress.ip_address("::ffff:127.0.0.1"))
    assert not any(is_never_reached(ipaddress.ip_address(text)) for text in ("10.0.0.1", "fd00::1", "100.64.0.1"))
