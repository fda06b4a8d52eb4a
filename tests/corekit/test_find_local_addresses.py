"""The addresses of this machine are those of the caller's network namespace."""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from corekit.localaddresses import local_addresses

if TYPE_CHECKING:
    from corekit.addresses import Address


def _by_ip() -> set[Address]:
    links = json.loads(subprocess.run(["ip", "-j", "addr"], check=True, capture_output=True, text=True).stdout)
    return {ipaddress.ip_address(one["local"]) for link in links for one in link["addr_info"]}


def test_they_are_those_that_the_system_knows() -> None:
    assert local_addresses() == _by_ip()
    assert ipaddress.ip_address("127.0.0.1") in local_addresses()


def test_another_namespace_has_others() -> None:
    program = "from corekit.localaddresses import local_addresses; print(*sorted(map(str, local_addresses())))"
    script = 'ip link set lo up; ip addr add 45.79.1.1/24 dev lo; ip addr add 2600:3c00::1/64 dev lo nodad; exec "$@"'
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", script, "sh", sys.executable, "-c", program],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
    )
    assert done.stdout.split() == ["127.0.0.1", "2600:3c00::1", "45.79.1.1", "::1"]
