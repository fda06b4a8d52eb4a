"""Only addresses of the public internet are public, however they are written."""

from __future__ import annotations

import ipaddress

import pytest

from corekit.addresses import is_public


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
