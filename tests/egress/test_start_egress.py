"""What egress is told when it starts, and what it refuses to start with."""

from __future__ import annotations

import os
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sandboxes.egress.settings import from_environment
from tests.egress.place import document
from tests.live import ROOT

if TYPE_CHECKING:
    from tests.egress.conftest import Place

HOME = {"GATEHOUSE_HOME": "/var/lib/gatehouse"}


def test_reads_its_settings() -> None:
    found = from_environment(
        {
            **HOME,
            "GATEHOUSE_EGRESS_RESOLVERS": "45.79.0.53, 2001:db8::53",
            "GATEHOUSE_EGRESS_CONTROL_FD": "7",
            "GATEHOUSE_BROKER_SOCKET": "/var/lib/gatehouse/run/broker.sock",
            "GATEHOUSE_EGRESS_IPV6": "1",
            "GATEHOUSE_EGRESS_OWN": "192.0.2.1,2001:db8::1",
        }
    )
    assert found.resolvers == (("45.79.0.53", 53), ("2001:db8::53", 53))
    assert found.control_fd == 7
    assert found.broker_socket == Path("/var/lib/gatehouse/run/broker.sock")
    assert found.ipv6
    assert found.own == {ip_address("192.0.2.1"), ip_address("2001:db8::1")}
    assert found.control_socket == Path("/var/lib/gatehouse/run/egress.sock")
    assert found.proxy_logins == Path("/var/lib/gatehouse/egress/via.json")


def test_does_without_what_it_is_not_told() -> None:
    found = from_environment(HOME)
    assert found.control_fd is None
    assert found.broker_socket is None
    assert not found.ipv6
    assert found.own == frozenset()


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"GATEHOUSE_HOME": " "}, "GATEHOUSE_HOME"),
        ({"GATEHOUSE_EGRESS_RESOLVERS": "dns.example"}, "GATEHOUSE_EGRESS_RESOLVERS"),
        ({"GATEHOUSE_EGRESS_CONTROL_FD": "2"}, "GATEHOUSE_EGRESS_CONTROL_FD"),
        ({"GATEHOUSE_EGRESS_CONTROL_FD": "x"}, "GATEHOUSE_EGRESS_CONTROL_FD"),
        ({"GATEHOUSE_EGRESS_OWN": "host"}, "GATEHOUSE_EGRESS_OWN"),
    ],
)
def test_refuses_settings_that_it_can_not_read(changed: dict[str, str], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        from_environment({**HOME, **changed})


def test_says_in_a_sentence_why_it_does_not_start() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sandboxes.egress"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "egress: GATEHOUSE_HOME must name the folder that holds run/\n"


async def test_obeys_root_alone(place: Place) -> None:
    path = place.process.control_path
    path.parent.chmod(0o755)
    path.chmod(0o666)
    says = (
        "import socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.connect('egress.sock'); "
        "print(s.recv(100))"
    )
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--clear-groups", "/usr/bin/python3", "-c", says],
        cwd=path.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    path.chmod(0o600)
    assert done.stdout == "b''\n", done.stderr
    # The node that was there is still the one that is obeyed.
    assert (await place.node.put(document(version=2)))["version"] == 2
