"""Whatever ends, starts again, changes hands or runs full: at no moment does more pass than the policy says."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.internet.world import API, DB, EVIL, PYPI
from tests.node.rig import ACME, WORLDS, eventually, open_network
from tests.security.conftest import any_runtime, transparent_only
from tests.security.inside import Inside
from tests.security.outbound import RULES, Outbound

if TYPE_CHECKING:
    from tests.internet.world import Internet
    from tests.node.rig import Rig

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Holds a tunnel until it ends, and says how it ended.
# It says a word once it is ready to hear how the tunnel ends; the server may say it again.
HOLD = (
    "said, sock = tunnel('db.allowed.test:5432'); sock.recv(100); sock.settimeout(60); sock.sendall(b'1')\n"
    "answer(outcome_of(lambda: b''.join(iter(lambda: sock.recv(1), b''))[1:].decode()))"
)


def holds(mallory: Outbound) -> bool:
    """Tell whether a tunnel is held."""
    return any(one.received for one in mallory.internet.sites.at(DB))


async def neighbour(mallory: Outbound, *rules: str) -> Outbound:
    """Start a sandbox of Acme's beside Mallory's."""
    sandbox = await mallory.rig.start(tenant=ACME, **(WORLDS["container"] | open_network(*rules)))
    return Outbound(mallory.rig, mallory.internet, Inside(sandbox, "root"))


def kill_egress(rig: Rig) -> int:
    pid = rig.node.egress.running_pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    return pid


async def served_again(rig: Rig, pid: int) -> None:
    """Return once another egress knows all policies."""
    await eventually(lambda: rig.node.egress.running_pid() not in (None, pid) and rig.keeper.ways.is_served)


@any_runtime
async def test_a_policy_that_is_tightened_ends_an_open_tunnel(mallory: Outbound) -> None:
    held = asyncio.create_task(mallory.run(HOLD))
    await eventually(lambda: holds(mallory))
    await mallory.change("api.allowed.test:443", version=2)
    # The change is answered when the flow is closed.
    await eventually(lambda: mallory.internet.sites.at(DB)[0].closed)
    assert await held in ("ECONNRESET", "")
    event = await mallory.passed()
    assert (event["reason"], event["details"]["closed"], event["details"]["host"]) == (
        "policy_closed",
        "policy_closed",
        "db.allowed.test",
    )
    assert await mallory.run("answer(connect('db.allowed.test:5432'))") == [403, "no_rule"]


@any_runtime
async def test_what_stays_allowed_stays_open(mallory: Outbound) -> None:
    held = asyncio.create_task(mallory.run(HOLD))
    await eventually(lambda: holds(mallory))
    await mallory.change("db.allowed.test:5432", version=2)
    await mallory.change("db.allowed.test:5432", "evil.test:443", version=3)
    assert not held.done()
    assert not mallory.internet.sites.at(DB)[0].closed
    await mallory.change("api.allowed.test:443", version=4)
    await held


@any_runtime
async def test_a_policy_that_is_loosened_counts_from_the_next_flow(mallory: Outbound) -> None:
    assert await mallory.run("answer(connect('evil.test:443'))") == [403, "no_rule"]
    await mallory.change(*RULES, "evil.test:443", version=2)
    assert await mallory.run("answer(connect('evil.test:443'))") == [200]
    program = "said, sock = tunnel('evil.test:443')\nanswer(fetch(sock, 'evil.test')[-5:])"
    assert await mallory.run(program) == "est/\n"


# Her clock is compared with the host's, and gVisor has one of its own.
@transparent_only
async def test_policies_that_are_swapped_while_she_tries_all_the_time(mallory: Outbound) -> None:
    program = (
        "tries, end = [], time.monotonic() + 4\n"
        "while time.monotonic() < end:\n"
        "    began = time.monotonic(); said = connect('evil.test:443'); tries.append([began, time.monotonic(), said])\n"
        "answer(tries)"
    )
    trying = asyncio.create_task(mallory.run(program))
    shut: list[tuple[float, float]] = []
    version = 1
    while not trying.done():
        await mallory.change(*RULES, "evil.test:443", version=(version := version + 1))
        await mallory.change(*RULES, version=(version := version + 1))
        began = time.monotonic()
        await asyncio.sleep(0.02)
        shut.append((began, time.monotonic()))
    tries = await trying
    passed = [(began, ended) for began, ended, said in tries if said == [200]]
    assert passed, "nothing ever passed, so nothing is shown"
    assert not [one for one in passed for begin, end in shut if begin < one[0] and one[1] < end]


@transparent_only
async def test_names_follow_the_policy(mallory: Outbound) -> None:
    # The guest agent remembers for half a second what it was told of a name.
    program = (
        "def resolved(): return outcome_of(lambda: socket.getaddrinfo('evil.test', 443)[0][4][0][:6])\n"
        "end = time.monotonic() + 5\n"
        "while resolved() not in wanted and time.monotonic() < end: time.sleep(0.05)\n"
        "answer(resolved() in wanted)"
    )
    nowhere, somewhere = "wanted = ('no address',)\n", "wanted = ('198.18', '198.19')\n"
    assert await mallory.run(nowhere + program)
    await mallory.change("evil.test:443", version=2)
    assert await mallory.run(somewhere + program)
    await mallory.change("api.allowed.test:443", version=3)
    assert await mallory.run(nowhere + program)
    mallory.asked_nobody()


@transparent_only
async def test_an_address_that_was_handed_out_means_nothing_once_its_name_is_not_allowed(mallory: Outbound) -> None:
    address = await mallory.run("answer(socket.getaddrinfo('pypi.allowed.test', 443)[0][4][0])")
    await mallory.change("api.allowed.test:443", version=2)
    assert await mallory.run(f"answer(https('pypi.allowed.test', at='{address}'))") in ("ECONNRESET", "SSLEOFError")
    mallory.reached_nothing()
    assert {one["reason"] for one in mallory.recorded("egress.denied")} <= {"no_rule", "literal_ip"}


@transparent_only
async def test_the_next_one_gets_its_own_policy_and_no_address_of_the_last_one(mallory: Outbound) -> None:
    address = await mallory.run("answer(socket.getaddrinfo('api.allowed.test', 443)[0][4][0])")
    spec = mallory.sandbox.spec
    await mallory.rig.keeper.stop(spec.id, None)
    changes = {"tier": spec.tier, "profile": spec.profile}
    sandbox = await mallory.rig.start(tenant=ACME, **(changes | open_network("pypi.allowed.test:443")))
    acme = Outbound(mallory.rig, mallory.internet, Inside(sandbox, mallory.inside.user))
    got = await acme.run(
        f"old = https('api.allowed.test', at='{address}')\n"
        "answer([connect('api.allowed.test:443'), old, https('pypi.allowed.test')[-5:]])"
    )
    assert got[0] == [403, "no_rule"]
    assert "served" not in got[1]
    assert got[2] == "est/\n"
    assert {one.address for one in mallory.internet.sites.connections} == {PYPI}
    await mallory.rig.keeper.stop(sandbox.spec.id, None)


@any_runtime
async def test_egress_is_killed(mallory: Outbound) -> None:
    held = asyncio.create_task(mallory.run(HOLD))
    await eventually(lambda: holds(mallory))
    pid = kill_egress(mallory.rig)
    assert await held in ("ECONNRESET", "")
    # Until another one knows the policies nobody is served; a connection waits or is refused, and nothing passes.
    program = (
        "end = time.monotonic() + 30\n"
        "seen = set()\n"
        "while time.monotonic() < end and [200] not in [list(one) for one in seen if isinstance(one, tuple)]:\n"
        "    evil, good = connect('evil.test:443'), connect('api.allowed.test:443')\n"
        "    assert evil != [200], evil\n"
        "    seen.add(tuple(good) if isinstance(good, list) else good)\n"
        "answer(sorted(map(str, seen)))"
    )
    assert "(200,)" in await mallory.run(program)
    await served_again(mallory.rig, pid)
    assert mallory.internet.sites.at(EVIL) == []


@any_runtime
async def test_egress_stands_still(mallory: Outbound) -> None:
    pid = mallory.rig.node.egress.running_pid()
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        got = await mallory.run("LIMIT = 2\nanswer([connect('api.allowed.test:443'), connect('evil.test:443')])")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert [200] not in got
    mallory.internet.sites.connections.clear()
    assert await mallory.run("answer(connect('api.allowed.test:443'))") == [200]


def tables(internet: Internet) -> list[str]:
    listed = subprocess.run(
        ["ip", "netns", "exec", internet.netns, "nft", "list", "tables"], capture_output=True, text=True, check=True
    )
    return sorted(listed.stdout.splitlines())


def reach_as_egress(mallory: Outbound, host: str) -> bool:
    """Tell whether the user of egress, in its group, gets an answer of a host, by curl instead of by egress."""
    group = mallory.rig.node.config.egress_gid
    become = ["setpriv", "--reuid=gatehouse-egress", f"--regid={group}", "--clear-groups"]
    command = [
        "ip",
        "netns",
        "exec",
        mallory.internet.netns,
        *become,
        "curl",
        "-s",
        "--max-time",
        "4",
        f"http://{host}/",
    ]
    return b"served" in subprocess.run(command, capture_output=True, check=False).stdout


@pytest.mark.parametrize("mallory", ["container"], indirect=True)
async def test_the_second_lock_holds_without_the_first(mallory: Outbound) -> None:
    """A slip of egress reaches nothing that is not public: the kernel refuses its user."""
    internet = mallory.internet

    def reach(host: str) -> asyncio.Future[bool]:
        return asyncio.get_running_loop().run_in_executor(None, reach_as_egress, mallory, host)

    assert await reach(API)
    for host in ("10.0.0.5", "169.254.169.254", "127.0.0.1", "192.168.1.1", "100.100.100.200", "168.63.129.16"):
        assert not await reach(host)
    assert {one.address for one in internet.sites.connections} == {API}
    assert internet.own.connections == []


@pytest.mark.parametrize("mallory", ["container"], indirect=True)
async def test_the_second_lock_is_put_back(mallory: Outbound) -> None:
    before = tables(mallory.internet)
    assert len(before) == 1
    remove = ["ip", "netns", "exec", mallory.internet.netns, "nft", "delete", *before[0].split()]
    subprocess.run(remove, check=True)
    await eventually(lambda: tables(mallory.internet) == before)
    # Nothing of egress's own judgement hung on it.
    assert await mallory.run("answer(connect('10.0.0.5:80'))") == [403, "literal_ip"]
    mallory.reached_nothing()


@any_runtime
async def test_half_open_connections_are_limited_and_a_neighbour_notices_nothing(mallory: Outbound) -> None:
    acme = await neighbour(mallory, "api.allowed.test:443")
    program = (
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)\n"
        "kept, refused = [], 0\n"
        "for number in range(10_000):\n"
        "    try:\n"
        "        sock = socket.create_connection(PROXY, 1); kept.append(sock)\n"
        "        sock.sendall(b'CONNECT api.allowed.test:443 HTTP/1.1\\r\\nX: ')\n"
        "    except OSError:\n"
        "        refused += 1\n"
        "        if refused > 50: break\n"
        "answer(len(kept))"
    )
    flood = asyncio.create_task(mallory.run(program))
    fetched = 0
    while not flood.done() or fetched < 5:
        program = "said, sock = tunnel('api.allowed.test:443')\nanswer([said, fetch(sock, 'api.allowed.test')[-5:]])"
        assert await acme.run(program) == [[200], "est/\n"]
        fetched += 1
    assert await flood > 0
    await acme.rig.keeper.stop(acme.sandbox.spec.id, None)
    assert await mallory.inside.still_works()
    # Once they are gone she has all her flows again.
    again = "answer(outcome_of(lambda: tunnel('api.allowed.test:443')[0]))"
    for _ in range(30):
        if await mallory.run(again) == [200]:
            return
    pytest.fail(str(await mallory.run(again)))


@any_runtime
async def test_more_flows_than_the_policy_gives(mallory: Outbound) -> None:
    limits = {"flows": 4, "new_per_s": None, "bytes_out": None, "idle_s": 300}
    await mallory.change(*RULES, version=2, limits=limits)
    program = (
        "kept = [tunnel('db.allowed.test:5432') for _ in range(6)]\n"
        "said = [one[0] for one in kept]\n"
        "for one in kept: one[1].close()\n"
        "answer(said)"
    )
    assert await mallory.run(program) == [[200]] * 4 + [[429, "limit"]] * 2
    await eventually(lambda: len(mallory.recorded("egress.closed")) == 4)
    assert "limit" in {one["reason"] for one in mallory.recorded("egress.denied")}
    assert await mallory.run("answer(connect('db.allowed.test:5432'))") == [200]


@any_runtime
async def test_more_bytes_than_the_policy_gives(mallory: Outbound) -> None:
    limits = {"flows": 16, "new_per_s": None, "bytes_out": 100_000, "idle_s": 300}
    await mallory.change(*RULES, version=2, limits=limits)
    program = (
        "said, sock = tunnel('db.allowed.test:5432')\n"
        "def push():\n"
        "    sock.sendall(b'x' * 10_000)\n"
        "    while sock.recv(65536): sock.sendall(b'x' * 10_000)\n"
        "answer(outcome_of(push))"
    )
    assert await mallory.run(program) in ("ECONNRESET", "EPIPE", None)
    event = await mallory.passed()
    assert (event["reason"], event["details"]["closed"]) == ("limit", "limit")
    assert event["details"]["bytes_out"] <= 100_000
    # Another flow has nothing left to send, either.
    assert await mallory.run(program) in ("ECONNRESET", "EPIPE", None)
    assert sum(one.count for one in mallory.internet.sites.at(DB)) <= 100_000


@any_runtime
async def test_an_allowed_service_of_many_is_allowed_by_its_name_alone(mallory: Outbound) -> None:
    """Whose upload it is can't be seen in TLS; how much it is can, and is recorded."""
    program = (
        "said, sock = tunnel('pypi.allowed.test:443')\n"
        "with context_of().wrap_socket(sock, server_hostname='pypi.allowed.test') as tls:\n"
        "    tls.sendall(b'POST /upload/mallory HTTP/1.1\\r\\nHost: pypi.allowed.test\\r\\n'\n"
        "                b'Content-Length: 50000\\r\\nConnection: close\\r\\n\\r\\n' + b's' * 50000)\n"
        "    answer(all_of(tls).decode()[-11:])"
    )
    assert await mallory.run(program) == "took 50000\n"
    assert (await mallory.passed())["details"]["bytes_out"] > 50_000


@any_runtime
async def test_the_socket_is_her_own_and_stays_where_it_is(mallory: Outbound) -> None:
    program = (
        "place = '/opt/gatehouse/egress'\n"
        "def move(): os.rename(place + '/egress.sock', place + '/other')\n"
        "def make(): open(place + '/new', 'w')\n"
        "def remove(): os.unlink(place + '/egress.sock')\n"
        "mounts = [line.split()[3] for line in open('/proc/self/mountinfo') if line.split()[4] == place]\n"
        "def trust(): os.replace(place + '/egress.sock', place + '/ca-bundle.pem')\n"
        "tried = [attempt(act) for act in (move, make, remove, trust)]\n"
        "answer([os.listdir(place), tried, mounts, os.path.exists(place + '/../0')])"
    )
    listed, attempts, mounts, other = await mallory.run(program)
    assert sorted(listed) == ["ca-bundle.pem", "egress.sock"]
    assert set(attempts) <= {"EROFS", "EACCES", "EPERM"}
    assert all(len(one.strip("/").split("/")) == 1 for one in mounts)
    assert other is False


@any_runtime
async def test_what_she_says_to_the_socket_herself_is_judged_the_same(mallory: Outbound) -> None:
    program = (
        "def speak(request):\n"
        "    with socket.socket(socket.AF_UNIX) as sock:\n"
        "        sock.settimeout(LIMIT); sock.connect('/opt/gatehouse/egress/egress.sock'); sock.sendall(request)\n"
        "        return status_of(head_of(sock))\n"
        "via = b'HTTP/1.0\\r\\nGatehouse-Via: transparent\\r\\n'\n"
        "answer([outcome_of(lambda: speak(one)) for one in (\n"
        "    b'CONNECT evil.test:443 ' + via + b'\\r\\n',\n"
        f"    b'CONNECT {EVIL}:443 ' + via + b'\\r\\n',\n"
        "    b'CONNECT 169.254.169.254:80 ' + via + b'\\r\\n',\n"
        "    b'CONNECT evil.test:443 ' + via + b'Gatehouse-Sandbox-Id: iother\\r\\n\\r\\n',\n"
        "    b'GET /v1/names/evil.test HTTP/1.0\\r\\n\\r\\n',\n"
        "    b'GET /v1/names/api.allowed.test HTTP/1.0\\r\\n\\r\\n',\n"
        "    b'GET /v1/names/%00 HTTP/1.0\\r\\n\\r\\n',\n"
        "    b'POST /v1/policy HTTP/1.0\\r\\n\\r\\n',\n"
        ")])"
    )
    got = await mallory.run(program)
    assert got[:5] == [
        [403, "no_rule"],
        [403, "literal_ip"],
        [403, "metadata"],
        [403, "no_rule"],
        [403, "dns_denied"],
    ]
    assert got[5] == [204]
    assert got[6] == [400, "bad_host"]
    assert got[7][0] == 400
    mallory.reached_nothing()
    mallory.asked_nobody()


@pytest.mark.parametrize("world", ["process", "container"])
async def test_a_sandbox_without_a_network_has_nothing_to_attack(way_out: Rig, internet: Internet, world: str) -> None:
    sandbox = await way_out.start(tenant=ACME, **WORLDS[world])
    isolated = Outbound(way_out, internet, Inside(sandbox, "root" if sandbox.spec.profile == "workstation" else "user"))
    program = (
        f"hosts = ('{EVIL}', '{API}', '169.254.169.254', '198.18.0.5', '10.0.0.1')\n"
        "links = [line.split(':')[0].strip() for line in open('/proc/net/dev').readlines()[2:]]\n"
        "places = os.listdir('/opt/gatehouse/egress') if os.path.exists('/opt/gatehouse/egress') else []\n"
        "proxies = [name for name in os.environ if name.lower().endswith('_proxy')]\n"
        "answer([links, places, proxies, [direct(host, 443) for host in hosts], direct('api.allowed.test', 443),\n"
        "        connect('api.allowed.test:443')])"
    )
    links, places, proxies, addresses, name, proxy = await isolated.run(program)
    assert (links, places, proxies) == (["lo"], [], [])
    assert set(addresses) == {"ENETUNREACH"}
    assert (name, proxy) == ("no address", "ECONNREFUSED")
    isolated.reached_nothing()
    isolated.asked_nobody()
    await way_out.keeper.stop(sandbox.spec.id, None)


@pytest.mark.parametrize("mallory", ["container"], indirect=True)
async def test_a_private_range_is_open_as_long_as_it_is_granted_and_only_where_a_rule_says(mallory: Outbound) -> None:
    internet = mallory.internet
    internet.zone.address("db.corp.test", "10.20.0.8")
    rules = ("10.20.0.7:5432", "10.30.0.7:5432", "db.corp.test:5432", "169.254.169.254:80")
    program = (
        "answer([connect(one) for one in ('10.20.0.7:5432', 'db.corp.test:5432', '10.20.0.9:5432', '10.30.0.7:5432',"
        " '169.254.169.254:80')])"
    )
    await mallory.change(*rules, version=2, private=["10.20.0.0/16"])
    assert await mallory.run(program) == [
        [200],
        [200],
        [403, "literal_ip"],
        [403, "resolved_private"],
        [403, "metadata"],
    ]
    assert {one.address for one in internet.sites.connections} == {"10.20.0.7", "10.20.0.8"}
    internet.sites.connections.clear()
    await mallory.change(*rules, version=3)
    got = await mallory.run(program)
    assert got[:2] == [[403, "resolved_private"]] * 2
    assert internet.sites.connections == []
    # The kernel has forgotten the grant as well.
    loop = asyncio.get_running_loop()
    for _ in range(40):
        if not await loop.run_in_executor(None, reach_as_egress, mallory, "10.20.0.7"):
            return
    pytest.fail("the kernel still lets egress's user reach what is not granted any more")
