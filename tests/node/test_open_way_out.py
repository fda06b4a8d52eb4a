"""A sandbox with a policy has one way out, which is there before it runs, changes while it runs and ends with it."""

from __future__ import annotations

import asyncio
import os
import pwd
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from corekit.localaddresses import local_addresses
from sandboxes.node.errors import EgressUnavailable, GenerationConflict, NetworkFixed, UnknownSandbox
from sandboxes.node.slots import uid_base
from tests.internet.world import DB, EVIL, PLAIN, RESOLVER
from tests.node import rig
from tests.node.rig import WORLDS, document, eventually, open_network
from tests.node.tunnels import Tunnel, echo, fetch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sandboxes.node.sandbox import Sandbox
    from tests.internet.world import Internet
    from tests.node.rig import Rig

pytestmark = pytest.mark.asyncio(loop_scope="module")

RULES = ("plain.allowed.test:80", "db.allowed.test:5432")
ROOM = {"cpu_milli": 2000, "memory_mib": 384, "disk_mib": 64, "pids": 256}
WAYS: dict[str, dict[str, Any]] = {
    **WORLDS,
    "runc": {"runtime": "runc"},
    "runsc": {"runtime": "runsc", "resources": ROOM},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(one_internet: Internet) -> AsyncIterator[Rig]:
    """Return a node whose egress is in the test internet."""
    with rig.new_home() as home:
        async with rig.running_node(home, GATEHOUSE_NODE_EGRESS="1", **one_internet.settings()) as running:
            yield running


async def reaches(node: Rig, sandbox: Sandbox, url: str = "http://plain.allowed.test/") -> bool:
    return await fetch(node, sandbox, url) == f"served {url.split('/')[2]}/"


def denials(node: Rig, sandbox: Sandbox) -> list[tuple[str | None, str]]:
    return [
        (event["details"]["host"], event["reason"])
        for event in node.events(sandbox.spec.id)
        if event["code"] == "egress.denied"
    ]


@pytest.mark.parametrize("world", WAYS)
async def test_what_its_policy_names_is_reached_and_nothing_else(
    clean_node: Rig, internet: Internet, world: str
) -> None:
    sandbox = await clean_node.start(**(WAYS[world] | open_network(*RULES)))
    assert await reaches(clean_node, sandbox)
    assert "no_rule" in await fetch(clean_node, sandbox, "http://evil.test/")
    assert [(one.address, one.requests[0].headers["host"]) for one in internet.sites.connections] == [
        (PLAIN, "plain.allowed.test")
    ]
    await eventually(lambda: denials(clean_node, sandbox) == [("evil.test", "no_rule")])
    assert internet.sites.at(EVIL) == []


@pytest.mark.parametrize("world", WORLDS)
async def test_programs_that_know_no_proxy_are_led_to_it(clean_node: Rig, internet: Internet, world: str) -> None:
    sandbox = await clean_node.start(**(WORLDS[world] | open_network(*RULES)))
    assert await echo(clean_node, sandbox, "db.allowed.test", 5432) == "5.2 database ready\nhello"
    assert await echo(clean_node, sandbox, EVIL, 5432) == "ConnectionResetError"
    assert [(one.address, one.port) for one in internet.sites.connections] == [(DB, 5432)]
    await eventually(lambda: denials(clean_node, sandbox) == [(EVIL, "literal_ip")])


UDP = """
import socket
for address in ("8.8.8.8", "127.0.0.1", "255.255.255.255"):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.settimeout(2)
        try:
            probe.connect((address, 9))
            probe.send(b"x")
            probe.recv(1)
        except OSError as error:
            print(address, type(error).__name__)
for family, address in ((socket.AF_INET6, "2001:4860:4860::8888"), (socket.AF_INET6, "fe80::1")):
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.connect((address, 443, 0, 1))
        except OSError as error:
            print(address, error.strerror)
"""


@pytest.mark.parametrize("world", WORLDS)
async def test_nothing_else_leads_anywhere_and_is_refused_at_once(
    clean_node: Rig, internet: Internet, world: str
) -> None:
    sandbox = await clean_node.start(**(WORLDS[world] | open_network(*RULES)))
    done = await clean_node.run(sandbox, f"python3 -c '{UDP}'")
    assert done.stdout.splitlines() == [
        "8.8.8.8 PermissionError",
        "127.0.0.1 ConnectionRefusedError",
        "255.255.255.255 PermissionError",
        "2001:4860:4860::8888 Network is unreachable",
        "fe80::1 Network is unreachable",
    ]
    assert internet.packets == []


@pytest.mark.parametrize("world", WORLDS)
async def test_a_sandbox_talks_to_itself_as_ever(clean_node: Rig, world: str) -> None:
    sandbox = await clean_node.start(**(WORLDS[world] | open_network()))
    command = "cd /tmp && (python3 -m http.server 80 >/dev/null 2>&1 &) ; for i in $(seq 50); do "
    command += "curl -sS -o /dev/null http://127.0.0.1/ && echo up && break; sleep 0.1; done"
    assert (await clean_node.run(sandbox, command)).stdout == "up\n"


# --- what the sandbox sees of it


@pytest.mark.parametrize("world", WAYS)
async def test_it_sees_its_own_directory_which_it_can_not_change(clean_node: Rig, world: str) -> None:
    root = "user" if WAYS[world].get("profile") == "hardened" else "root"
    sandbox = await clean_node.start(**(WAYS[world] | open_network(*RULES)))
    attempts = "cd /opt/gatehouse/egress; for try in 'touch x' 'rm -f egress.sock ca-bundle.pem' 'mv egress.sock y'"
    attempts += " 'chmod 0 egress.sock'"
    done = await clean_node.run(sandbox, f"{attempts}; do $try 2>/dev/null && echo did $try; done; true", user=root)
    assert done.stdout == ""
    slot = sandbox.runtime.slot(sandbox.state)
    door = clean_node.home / "run" / "egress" / str(slot)
    assert sorted(entry.name for entry in door.iterdir()) == ["ca-bundle.pem", "egress.sock"]
    assert (door / "egress.sock").stat().st_mode & 0o777 == 0o666
    table = (await clean_node.run(sandbox, "cat /proc/self/mountinfo")).stdout
    assert "/opt/gatehouse/egress" in table
    assert str(clean_node.home) not in table
    name = "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/opt/gatehouse/egress/egress.sock'); "
    done = await clean_node.run(sandbox, f'python3 -c "{name}print(s.getpeername())"')
    assert str(clean_node.home) not in done.stdout
    assert done.stdout.strip() in ("egress.sock", "/opt/gatehouse/egress/egress.sock", "")


@pytest.mark.parametrize("world", WORLDS)
async def test_the_resolver_is_ours_and_stays_so(clean_node: Rig, world: str) -> None:
    root = "user" if world != "container" else "root"
    sandbox = await clean_node.start(**(WORLDS[world] | open_network()))
    done = await clean_node.run(sandbox, "echo nameserver 8.8.8.8 > /etc/resolv.conf; cat /etc/resolv.conf", user=root)
    assert done.stdout.splitlines()[0] == "nameserver 127.0.0.1"


async def test_the_proxy_is_in_its_environment_unless_its_owner_says_otherwise(clean_node: Rig) -> None:
    sandbox = await clean_node.start(env={"https_proxy": "http://elsewhere:1"}, **open_network())
    done = await clean_node.run(sandbox, "env | grep -i proxy | sort")
    assert done.stdout.splitlines() == [
        "HTTPS_PROXY=http://127.0.0.1:3128",
        "HTTP_PROXY=http://127.0.0.1:3128",
        "NO_PROXY=localhost,127.0.0.1,::1",
        "http_proxy=http://127.0.0.1:3128",
        "https_proxy=http://elsewhere:1",
        "no_proxy=localhost,127.0.0.1,::1",
    ]


@pytest.mark.parametrize("world", WORLDS)
async def test_without_a_policy_there_is_no_trace_of_a_way_out(clean_node: Rig, internet: Internet, world: str) -> None:
    sandbox = await clean_node.start(**WORLDS[world])
    done = await clean_node.run(sandbox, "env | grep -ci proxy; ls /opt/gatehouse/egress; grep -c egress /proc/mounts")
    assert done.stdout.split() == ["0", "0"]
    assert await echo(clean_node, sandbox, EVIL, 5432) == "OSError"
    assert internet.packets == []
    with pytest.raises(NetworkFixed) as refusal:
        await clean_node.keeper.set_network(sandbox.spec.id, 1, document(*RULES), None)
    assert (refusal.value.status, refusal.value.code) == (409, "network_fixed")
    assert await echo(clean_node, sandbox, EVIL, 5432) == "OSError"


# --- changes


async def test_another_policy_counts_once_the_answer_is_there(clean_node: Rig, internet: Internet) -> None:
    sandbox = await clean_node.start(**open_network(*RULES))
    name = sandbox.spec.id
    async with Tunnel(clean_node, sandbox, "db.allowed.test", 5432) as tunnel:
        assert await tunnel.say("first") == "first"
        assert await clean_node.keeper.set_network(name, 1, document(RULES[0], version=2), (8000,)) == 2
        assert await tunnel.ended()
    # Its name may be known for a while longer.
    assert await echo(clean_node, sandbox, "db.allowed.test", 5432) in ("ConnectionResetError", "gaierror")
    assert len(internet.sites.at(DB)) == 1
    assert await reaches(clean_node, sandbox)
    assert clean_node.keeper.ways.version(name) == 2
    assert sandbox.spec.ingress.ports == (8000,)
    stored = next(spec for found, spec, _ in clean_node.keeper.store.load() if found == name)
    assert stored == sandbox.spec
    closed = await _event(clean_node, sandbox, "egress.closed")
    assert (closed["decision"], closed["details"]["host"], closed["details"]["address"]) == (
        "allow",
        "db.allowed.test",
        DB,
    )
    assert (closed["tenant"], closed["tier"], closed["node_id"]) == (rig.ACME, "container", clean_node.keeper.node_id)


async def test_a_flow_that_keeps_its_right_goes_on(clean_node: Rig) -> None:
    sandbox = await clean_node.start(**open_network(*RULES))
    async with Tunnel(clean_node, sandbox, "db.allowed.test", 5432) as tunnel:
        assert await clean_node.keeper.set_network(sandbox.spec.id, 1, document(RULES[1], version=2), None) == 2
        assert await tunnel.say("second") == "second"


async def test_an_older_policy_that_comes_late_changes_nothing(clean_node: Rig) -> None:
    sandbox = await clean_node.start(**open_network(*RULES, version=5))
    assert await clean_node.keeper.set_network(sandbox.spec.id, 1, document(version=4), ()) == 5
    assert await reaches(clean_node, sandbox)
    assert sandbox.spec.ingress.ports is None


async def test_a_policy_is_a_sandbox_s_of_one_generation(clean_node: Rig) -> None:
    sandbox = await clean_node.start(**open_network(*RULES))
    with pytest.raises(GenerationConflict):
        await clean_node.keeper.set_network(sandbox.spec.id, 2, document(version=2), None)
    with pytest.raises(UnknownSandbox):
        await clean_node.keeper.set_network("nobody", 1, document(version=2), None)
    assert clean_node.keeper.ways.version(sandbox.spec.id) == 1


# --- pauses and the end


async def test_a_pause_closes_all_flows_and_what_goes_on_opens_new_ones(clean_node: Rig, internet: Internet) -> None:
    sandbox = await clean_node.start(**open_network(*RULES))
    name = sandbox.spec.id
    async with Tunnel(clean_node, sandbox, "db.allowed.test", 5432) as tunnel:
        assert await tunnel.say("first") == "first"
        await clean_node.keeper.pause(name, 1)
        await eventually(lambda: internet.sites.at(DB)[0].closed)
        assert (await _event(clean_node, sandbox, "egress.closed"))["outcome"] is not None
        assert await clean_node.keeper.set_network(name, 1, document(*RULES, version=2), None) == 2
        await clean_node.keeper.resume(name, 1, 60_000)
        assert await tunnel.ended()
    assert await reaches(clean_node, sandbox)


async def test_with_the_sandbox_its_way_out_ends(clean_node: Rig, internet: Internet) -> None:
    sandbox = await clean_node.start(**open_network(*RULES))
    name, slot = sandbox.spec.id, sandbox.runtime.slot(sandbox.state)
    async with Tunnel(clean_node, sandbox, "db.allowed.test", 5432) as tunnel:
        assert await tunnel.say("first") == "first"
        await clean_node.keeper.stop(name, 1)
    await eventually(lambda: internet.sites.at(DB)[0].closed)
    await eventually(lambda: not (clean_node.home / "run" / "egress" / str(slot)).exists())
    assert clean_node.keeper.ways.version(name) is None
    # It is known of all the same what became of the flow.
    await _event(clean_node, sandbox, "egress.closed")


async def test_an_end_is_acknowledged_before_its_last_flow_is_told_of(clean_node: Rig) -> None:
    sandbox = await clean_node.start(**open_network(*RULES))
    await clean_node.keeper.stop(sandbox.spec.id, 1)
    clean_node.keeper.acknowledge(clean_node.keeper.spool.last_seq)
    subject = clean_node.keeper.ways.subject(sandbox.spec.id, 1)
    assert subject is not None
    assert (subject.tenant, subject.tier) == (rig.ACME, "container")
    assert clean_node.keeper.ways.subject(sandbox.spec.id, 2) is None


# --- egress away


async def test_it_dies_and_all_works_again_by_itself(clean_node: Rig, internet: Internet) -> None:
    sandbox = await clean_node.start(**open_network(*RULES))
    pid = clean_node.node.egress.running_pid()
    assert pid is not None
    async with Tunnel(clean_node, sandbox, "db.allowed.test", 5432) as tunnel:
        assert await tunnel.say("first") == "first"
        os.kill(pid, signal.SIGKILL)
        assert await tunnel.ended()
    await eventually(lambda: clean_node.keeper.ways.version(sandbox.spec.id) == 1)
    assert clean_node.node.egress.running_pid() not in (None, pid)
    assert await reaches(clean_node, sandbox)
    assert "no_rule" in await fetch(clean_node, sandbox, "http://evil.test/")
    assert internet.sites.at(EVIL) == []


async def test_it_hangs_and_nobody_waits_for_ever(clean_node: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = await clean_node.start(**open_network(*RULES))
    pid = clean_node.node.egress.running_pid()
    assert pid is not None
    monkeypatch.setattr("sandboxes.node.ways._PATIENCE_S", 0.3)
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(EgressUnavailable) as refusal:
            await clean_node.keeper.set_network(sandbox.spec.id, 1, document(version=2), None)
        assert (refusal.value.status, refusal.value.code) == (503, "egress_unavailable")
        with pytest.raises(EgressUnavailable):
            await clean_node.start("nobody", **open_network(*RULES))
        assert "nobody" not in clean_node.keeper.sandboxes
    finally:
        os.kill(pid, signal.SIGCONT)
    # What was wished meanwhile counts from now on.
    await eventually(lambda: clean_node.keeper.ways.version(sandbox.spec.id) == 2)
    assert "no_rule" in await fetch(clean_node, sandbox, "http://plain.allowed.test/")


async def test_a_node_without_egress_starts_nothing_that_needs_it() -> None:
    with rig.new_home() as home:
        async with rig.running_node(home) as other:
            with pytest.raises(EgressUnavailable):
                await other.start("alice", **open_network(*RULES))
            assert other.codes("alice") == ["sandbox.ended"]
            assert other.events("alice")[0]["details"]["cause"] == "egress_unavailable"
            await other.is_clean()


# --- the second lock


def locked(node: Rig, internet: Internet) -> str:
    """Return the rules for the user of egress, empty when there are none."""
    command = ["ip", "netns", "exec", internet.netns, "nft", "list", "table", "inet", node.node.config.lock_name]
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout


async def test_what_an_operator_granted_is_open_for_as_long_as_a_policy_needs_it(
    clean_node: Rig, internet: Internet
) -> None:
    config = clean_node.node.config
    who = f"meta skuid {config.egress_uid} meta skgid {config.egress_gid} jump egress"
    assert who in locked(clean_node, internet).replace('"gatehouse-egress"', str(config.egress_uid))
    sandbox = await clean_node.start(**open_network(*RULES, private=["10.20.0.0/16"]))
    assert "ip daddr 10.20.0.0/16 accept" in locked(clean_node, internet)
    other = document(*RULES, version=2, private=["10.30.0.0/16"])
    await clean_node.keeper.set_network(sandbox.spec.id, 1, other, None)
    assert "ip daddr 10.30.0.0/16 accept" in locked(clean_node, internet)
    assert "10.20" not in locked(clean_node, internet)
    await clean_node.keeper.stop(sandbox.spec.id, 1)
    assert "10.30" not in locked(clean_node, internet)


async def test_who_takes_it_away_finds_it_again(clean_node: Rig, internet: Internet) -> None:
    before = locked(clean_node, internet)
    subprocess.run(["ip", "netns", "exec", internet.netns, "nft", "flush", "ruleset"], check=True)
    await eventually(lambda: locked(clean_node, internet) == before)
    assert clean_node.keeper.ways.is_locked


# --- the process


async def test_it_runs_as_its_own_user_without_a_right_in_the_network_that_it_was_given(
    clean_node: Rig, one_internet: Internet
) -> None:
    pid = clean_node.node.egress.running_pid()
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    uid = clean_node.node.config.egress_uid
    assert status["Uid"].split() == [str(uid)] * 4
    assert status["Gid"].split() == [str(clean_node.node.config.egress_gid)] * 4
    # Its user's own, by which it reaches the sockets of web.
    assert status["Groups"].split() == [str(pwd.getpwnam("gatehouse-egress").pw_gid)]
    assert {status[name] for name in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
    assert uid < uid_base(0)
    network = Path(f"/run/netns/{one_internet.netns}").stat()
    assert Path(f"/proc/{pid}/ns/net").stat().st_ino == network.st_ino
    entries = [entry for entry in Path(f"/proc/{pid}/environ").read_text().split("\0") if entry]
    told = dict(entry.split("=", 1) for entry in entries)
    assert {name for name in told if "KEY" in name or "SECRET" in name or "DATABASE" in name} == set()
    # From its own namespace it could not see these.
    assert set(told["GATEHOUSE_EGRESS_OWN"].split(",")) == set(map(str, local_addresses()))
    assert told["GATEHOUSE_EGRESS_RESOLVERS"] == RESOLVER


async def _event(node: Rig, sandbox: Sandbox, code: str) -> dict[str, Any]:
    def found() -> list[dict[str, Any]]:
        return [event for event in node.events(sandbox.spec.id) if event["code"] == code]

    await eventually(found)
    await asyncio.sleep(0)
    return found()[0]
