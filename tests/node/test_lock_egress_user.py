"""The kernel's own rules for the user of egress: public addresses, its name servers, what was granted, nothing else.

Everything happens in a network namespace of the test's own, where all these addresses are on `lo`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import os
import pwd
import socket
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sandboxes.node import linux
from sandboxes.node.nft import Nft
from sandboxes.node.secondlock import SecondLock
from tests.node.rig import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

NAME = "gatehouse_egress_test"
NOBODY, DAEMON = pwd.getpwnam("nobody").pw_uid, pwd.getpwnam("daemon").pw_uid
GROUP, OTHER_GROUP = 0x6F00_0001, 0x6F00_0002
PUBLIC, PUBLIC_6 = "45.79.1.1", "2600:3c00::1"
PRIVATE, OTHER_PRIVATE, PRIVATE_6 = "10.20.0.5", "192.168.7.7", "fd12::5"
METADATA, LOOPBACK = "169.254.169.254", "127.0.0.1"
METADATA_6, LOOPBACK_6 = "fd00:ec2::254", "::1"
RESOLVER = "10.0.0.53"
ALL = (PUBLIC, PUBLIC_6, PRIVATE, OTHER_PRIVATE, PRIVATE_6, METADATA, LOOPBACK, METADATA_6, LOOPBACK_6, RESOLVER)
PORT = 8443
# Says of each address and port whether a connection is refused by nobody listening, which means that it may be made.
PROBE = """
import concurrent.futures, json, socket, sys
def attempt(place):
    with socket.socket(socket.AF_INET6 if ":" in place[0] else socket.AF_INET) as probe:
        probe.settimeout(10)
        try:
            probe.connect(tuple(place))
        except ConnectionRefusedError:
            return "open"
        except OSError:
            return "shut"
places = json.loads(sys.argv[1])
with concurrent.futures.ThreadPoolExecutor(len(places)) as threads:
    said = threads.map(attempt, places)
print(json.dumps({f"{address} {port}": one for (address, port), one in zip(places, said)}))
"""


@pytest.fixture(scope="module")
def namespace() -> Iterator[Path]:
    """Return a network namespace that has all these addresses and no link."""
    name = f"gh-lock-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        run = ["ip", "-n", name]
        subprocess.run([*run, "link", "set", "lo", "up"], check=True)
        for address in ALL:
            if address not in (LOOPBACK, LOOPBACK_6):
                length = 128 if ":" in address else 32
                nodad = ["nodad"] if ":" in address else []
                subprocess.run([*run, "addr", "add", f"{address}/{length}", "dev", "lo", *nodad], check=True)
        yield Path("/run/netns", name)
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


@contextlib.asynccontextmanager
async def locked(namespace: Path, *, remove: bool = True) -> AsyncIterator[SecondLock]:
    lock = SecondLock(NAME, NOBODY, GROUP, [ipaddress.ip_address(RESOLVER)], namespace)
    await lock.start()
    assert lock.is_shut
    try:
        yield lock
    finally:
        await lock.stop(remove=remove)


def reached(namespace: Path, uid: int, *places: tuple[str, int], gid: int = GROUP) -> dict[str, str]:
    """Return which places a user may connect to."""
    become = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--"]
    command = ["nsenter", f"--net={namespace}", "--", *become, "/usr/bin/python3", "-c", PROBE, json.dumps(places)]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def verdicts(namespace: Path, uid: int = NOBODY, gid: int = GROUP) -> dict[str, str]:
    said = reached(namespace, uid, *((one, PORT) for one in ALL), gid=gid)
    return {place.split()[0]: verdict for place, verdict in said.items()}


def tables(namespace: Path) -> list[str]:
    """Return the names of the tables in the namespace."""
    told: list[str] = []

    def ask() -> None:
        linux.enter_network_namespace(str(namespace))
        told.extend(line.split()[-1] for line in Nft().run("list tables").splitlines())

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return told


def nft(namespace: Path, *words: str) -> None:
    subprocess.run(["nsenter", f"--net={namespace}", "--", "nft", *words], check=True, capture_output=True)


async def test_the_public_internet_may_be_reached_and_nothing_special(namespace: Path) -> None:
    async with locked(namespace):
        assert verdicts(namespace) == dict.fromkeys(ALL, "shut") | {PUBLIC: "open", PUBLIC_6: "open"}
    assert tables(namespace) == []


async def test_name_servers_may_be_asked_and_nothing_else_of_them(namespace: Path) -> None:
    async with locked(namespace):
        assert reached(namespace, NOBODY, (RESOLVER, 53), (RESOLVER, 54), (PRIVATE, 53)) == {
            f"{RESOLVER} 53": "open",
            f"{RESOLVER} 54": "shut",
            f"{PRIVATE} 53": "shut",
        }


@pytest.mark.parametrize(("uid", "gid"), [(0, GROUP), (DAEMON, GROUP), (NOBODY, OTHER_GROUP)])
async def test_nobody_else_notices_anything(namespace: Path, uid: int, gid: int) -> None:
    # The same user in another group is the egress of another node on this host.
    async with locked(namespace):
        assert verdicts(namespace, uid, gid) == dict.fromkeys(ALL, "open")


async def test_what_is_granted_may_be_reached_until_it_is_taken_back(namespace: Path) -> None:
    shut = dict.fromkeys(ALL, "shut") | {PUBLIC: "open", PUBLIC_6: "open"}
    granted = frozenset(map(ipaddress.ip_network, ("10.20.0.0/16", "10.20.0.0/24", "fd12::/64")))
    async with locked(namespace) as lock:
        await lock.grant(granted)
        assert verdicts(namespace) == shut | {PRIVATE: "open", PRIVATE_6: "open"}
        await lock.grant(frozenset())
        assert verdicts(namespace) == shut


async def test_some_addresses_nobody_can_grant(namespace: Path) -> None:
    async with locked(namespace) as lock:
        await lock.grant(frozenset(map(ipaddress.ip_network, ("0.0.0.0/0", "::/0"))))
        found = verdicts(namespace)
    assert {one for one, said in found.items() if said == "shut"} == {METADATA, LOOPBACK, METADATA_6, LOOPBACK_6}


CHANGES = {
    "all tables are flushed": ("flush", "ruleset"),
    "the table is deleted": ("delete", "table", "inet", NAME),
    "a chain is emptied": ("flush", "chain", "inet", NAME, "egress"),
    "a rule is put before": ("insert", "rule", "inet", NAME, "egress", "accept"),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_who_takes_the_rules_away_finds_them_again(namespace: Path, change: str) -> None:
    async with locked(namespace) as lock:
        await lock.grant(frozenset([ipaddress.ip_network("10.20.0.0/16")]))
        before = verdicts(namespace)
        assert before[METADATA] == "shut"
        nft(namespace, *CHANGES[change])
        await eventually(lambda: verdicts(namespace) == before)


async def test_tables_of_others_are_left_alone(namespace: Path) -> None:
    nft(namespace, "add", "table", "inet", "firewall")
    async with locked(namespace):
        assert tables(namespace) == ["firewall", NAME]
    assert tables(namespace) == ["firewall"]
    nft(namespace, "delete", "table", "inet", "firewall")


async def test_a_node_that_is_started_again_takes_the_rules_over(namespace: Path) -> None:
    async with locked(namespace, remove=False):
        pass
    assert tables(namespace) == [NAME]
    async with locked(namespace):
        assert tables(namespace) == [NAME]
        assert verdicts(namespace)[METADATA] == "shut"


async def test_the_host_s_own_filter_is_not_touched(namespace: Path) -> None:
    before = Nft().run("list tables")
    async with locked(namespace):
        assert NAME not in Nft().run("list tables")
    assert NAME not in before


async def test_a_host_without_a_filter_goes_on_without(namespace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_self: Nft, _commands: str) -> Any:
        raise OSError("libnftables.so.1 is missing")

    monkeypatch.setattr(Nft, "run", missing)
    lock = SecondLock(NAME, NOBODY, GROUP, [], namespace)
    await lock.start()
    assert not lock.is_shut
    await lock.grant(frozenset([ipaddress.ip_network("10.20.0.0/16")]))
    await lock.stop(remove=True)


async def test_nothing_of_it_holds_a_namespace_that_is_to_go(namespace: Path) -> None:
    async with locked(namespace):
        held = threading.active_count()
    assert threading.active_count() < held
    await asyncio.sleep(0)
    with socket.socket():
        assert tables(namespace) == []
