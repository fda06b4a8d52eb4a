"""Before anybody gets a sandbox the node looks at what it really is; one that differs from its promise is killed."""

from __future__ import annotations

import dataclasses
import statistics
import textwrap
import time
from typing import TYPE_CHECKING, Any

import pytest

from sandboxes.node import attestation, expectation
from sandboxes.node.cgroups import Cgroup
from sandboxes.node.errors import GenerationConflict, StartFailed
from tests.node import rig
from tests.node.nodeprocess import call
from tests.node.slips import _no_slip, assert_told, node, refused, slip

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sandboxes.node.sandbox import Sandbox
    from tests.node.rig import Rig

pytestmark = pytest.mark.asyncio(loop_scope="module")

__all__ = ["_no_slip", "node", "slip"]
KINDS = [("container", "workstation"), ("container", "hardened"), ("process", "hardened")]


async def ask(node: Rig, method: str, path: str, body: object = None) -> tuple[int, Any]:
    """Make a call of the internal API."""
    return await call(node.home / "run" / "node.sock", method, path, body)


def facts_of(sandbox: Sandbox) -> attestation.Facts:
    return attestation.read(sandbox.state["pid"], sandbox.runtime.cgroup(sandbox.state))


# --- what is kept


@pytest.mark.parametrize(("tier", "profile"), KINDS)
async def test_a_sandbox_is_what_it_should_be(clean_node: Rig, tier: str, profile: str) -> None:
    sandbox = await clean_node.start(tier=tier, profile=profile)
    facts = facts_of(sandbox)
    assert attestation.mismatches(facts, expectation.expected(sandbox.spec, sandbox.state)) == []
    assert facts.as_json() == sandbox.attestation


async def test_the_facts_are_the_kernel_s(clean_node: Rig) -> None:
    sandbox = await clean_node.start()
    facts = facts_of(sandbox)
    base = 0x7000_0000 + sandbox.state["slot"] * 65_536
    assert (facts.uids, facts.uid_map) == ((base,) * 4, ((0, base, 65_536),))
    assert facts.capabilities == {"CapInh": 0, "CapPrm": 0x405FB, "CapEff": 0x405FB, "CapBnd": 0x405FB, "CapAmb": 0}
    assert (facts.no_new_privs, facts.seccomp_mode, facts.seccomp_filters) == (False, 2, 1)
    assert (facts.shared, facts.interfaces, facts.strays, facts.outside) == ((), ("lo",), (), ())
    assert vars(facts.limits) == {"memory_bytes": 256 << 20, "swap_bytes": 0, "pids": 128, "cpu_milli": 2000}
    assert facts.processes == (sandbox.state["pid"],)
    assert facts.rlimits["RLIMIT_CORE"] == 0


@pytest.mark.parametrize(("tier", "bounding"), [("container", 0x1), ("process", 0x0)])
async def test_those_of_a_hardened_one_are_tighter(clean_node: Rig, tier: str, bounding: int) -> None:
    sandbox = await clean_node.start(tier=tier, profile="hardened")
    facts = facts_of(sandbox)
    assert facts.uids == (0x7000_0000 + sandbox.state["slot"] * 65_536 + 1000,) * 4
    assert (facts.capabilities, facts.no_new_privs) == (
        {"CapInh": 0, "CapPrm": 0, "CapEff": 0, "CapBnd": bounding, "CapAmb": 0},
        True,
    )
    mounts = {mount.point: mount.options for mount in facts.mounts}
    assert {"ro", "nodev", "nosuid"} <= mounts["/"]
    assert {"noexec", "nodev", "nosuid"} <= mounts["/tmp"]


async def test_the_api_shows_them(clean_node: Rig) -> None:
    sandbox = await clean_node.start("alice")
    status, shown = await ask(clean_node, "GET", "/v1/sandboxes/alice")
    assert (status, shown["attestation"]) == (200, sandbox.attestation)
    assert shown["attestation"]["namespaces"] == ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"]
    assert shown["attestation"]["seccomp"] == {"mode": 2, "filters": 1}


async def test_they_are_kept_with_the_sandbox(clean_node: Rig) -> None:
    sandbox = await clean_node.start()
    kept = clean_node.keeper.store.load()
    assert [state["attestation"] for _, _, state in kept if state] == [sandbox.attestation]


async def test_looking_takes_a_moment(clean_node: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    sandbox = await clean_node.start()
    group = sandbox.runtime.cgroup(sandbox.state)
    took = []
    for _ in range(100):
        begun = time.process_time()
        expectation.attest(sandbox.spec, sandbox.state, group)
        took.append((time.process_time() - begun) * 1_000)
    with capsys.disabled():
        print(f"\nattestation: {statistics.median(took):.2f} ms of the processor")  # noqa: T201


async def test_children_of_the_first_process_count(clean_node: Rig) -> None:
    sandbox = await clean_node.start()
    await clean_node.run(sandbox, "setsid -f sleep 100; setsid -f sleep 100")
    facts = facts_of(sandbox)
    assert (len(facts.processes), facts.strays) == (3, ())
    assert sorted(facts.processes) == clean_node.pids(sandbox)


async def test_a_sandbox_that_ended_is_told_from_one_that_differs(clean_node: Rig) -> None:
    sandbox = await clean_node.start()
    group, state = sandbox.runtime.cgroup(sandbox.state), sandbox.state
    await clean_node.keeper.stop(sandbox.spec.id, None)
    with pytest.raises(StartFailed) as caught:
        expectation.attest(sandbox.spec, state, group)
    assert caught.value.details == {"reason": "guest_gone"}


# --- what is refused: each start below is made wrong in fact, and what the kernel then says is caught

SLIPS = {
    "a capability more": (
        """
        for name in ('bounding', 'permitted', 'effective'):
            config['process']['capabilities'][name] += ['CAP_SYS_ADMIN']
        """,
        ["CapPrm: expected 00000000000405fb, found 00000000002405fb", "CapBnd: expected 00000000000405fb, found"],
    ),
    "a capability that only waits": (
        "config['process']['capabilities']['bounding'] += ['CAP_MKNOD']",
        ["CapBnd: expected 00000000000405fb, found 00000000080405fb"],
    ),
    "capabilities that programs inherit": (
        "for name in ('inheritable', 'ambient'): config['process']['capabilities'][name] = ['CAP_CHOWN']",
        [
            "CapInh: expected 0000000000000000, found 0000000000000001",
            "CapAmb: expected 0000000000000000, found 0000000000000001",
        ],
    ),
    "no seccomp filter": (
        "del config['linux']['seccomp']",
        ["seccomp mode: expected 2, found 0", "seccomp filters: expected at least 1, found 0"],
    ),
    "another user": (
        "config['process']['user'] = {'uid': 1000, 'gid': 1000}",
        ["user ids: expected", "group ids: expected"],
    ),
    "a further group": (
        "config['process']['user']['additionalGids'] = [5]",
        ["further groups: expected (), found ("],
    ),
    "no new privileges where sudo must work": (
        "config['process']['noNewPrivileges'] = True",
        ["no_new_privs: expected False, found True"],
    ),
    "a neighbour's ids": (
        """
        mapping = config['linux']['uidMappings'][0]
        mapping['size'] *= 2
        config['linux']['gidMappings'] = config['linux']['uidMappings']
        config['linux']['namespaces'] = [{'type': n['type']} for n in config['linux']['namespaces']]
        """,
        ["uid map: expected ((0, 1", "gid map: expected ((0, 1"],
    ),
    "the host's network": (
        """
        import ctypes
        zygote = open(f'/proc/{os.getppid()}/stat').read().split()[3]
        assert ctypes.CDLL(None).setns(os.open(f'/proc/{zygote}/ns/net', os.O_RDONLY), 0) == 0
        """,
        ["net namespace: expected one of its own, found the node's", "network interfaces: expected ('lo',), found"],
    ),
    "the host's names": (
        """
        config['linux']['namespaces'] = [n for n in config['linux']['namespaces'] if n['type'] != 'uts']
        del config['hostname']
        """,
        ["uts namespace: expected one of its own, found the node's"],
    ),
    "the host's queues": (
        """
        config['linux']['namespaces'] = [n for n in config['linux']['namespaces'] if n['type'] != 'ipc']
        config['mounts'] = [m for m in config['mounts'] if m['type'] != 'mqueue']
        """,
        [
            "ipc namespace: expected one of its own, found the node's",
            "mount on /dev/mqueue: expected mqueue, found none",
        ],
    ),
    "the host's view of control groups": (
        "config['linux']['namespaces'] = [n for n in config['linux']['namespaces'] if n['type'] != 'cgroup']",
        ["cgroup namespace: expected one of its own, found the node's"],
    ),
    "a link to elsewhere": (
        """
        import subprocess
        subprocess.run(['ip', 'link', 'add', 'veth0', 'type', 'veth', 'peer', 'name', 'veth1'], check=True)
        """,
        ["network interfaces: expected ('lo',), found ('lo', 'veth1', 'veth0')"],
    ),
    "a part of the host": (
        """
        mount = {'destination': '/mnt', 'type': 'bind', 'source': '/usr/share', 'options': ['bind', 'ro']}
        config['mounts'].append(mount)
        """,
        ["mount on /mnt: expected none, found"],
    ),
    "a part of the host where nothing is looked for": (
        """
        mount = {'destination': '/proc/fs', 'type': 'bind', 'source': '/usr/share', 'options': ['bind']}
        config['mounts'].append(mount)
        """,
        ["mount on /proc/fs: expected none, found"],
    ),
    "the root of somebody else": (
        """
        import subprocess
        layers = f'nodev,lowerdir={os.getcwd()}/guest:{os.getcwd()}/lower'
        subprocess.run(['mount', '-t', 'overlay', '-o', layers, 'overlay', 'rootfs'], check=True)
        """,
        ["mount on /: expected layers of its own, found ro,lowerdir=/"],
    ),
    "a root that takes devices": (
        """
        import subprocess
        subprocess.run(['mount', '-o', 'remount,bind,dev', 'rootfs'], check=True)
        """,
        ["mount on /: expected nodev, found relatime,rw"],
    ),
    "a writable /sys": (
        "[m for m in config['mounts'] if m['destination'] == '/sys'][0]['options'] = ['mode=755']",
        ["mount on /sys: expected nodev,noexec,nosuid,ro, found relatime,rw"],
    ),
    "no cover over the host's settings": (
        "config['linux']['readonlyPaths'] = []",
        ["/proc/sys: expected it covered, found it open"],
    ),
    "no cover over what tells of the host": (
        "config['linux']['maskedPaths'] = []",
        ["/proc/keys: expected it covered, found it open", "/proc/kallsyms: expected it covered, found it open"],
    ),
    "a descriptor of a directory of the host": (
        """
        os.dup2(os.open('/', os.O_RDONLY), 9)
        sys.argv = [a.replace('--preserve-fds=1', '--preserve-fds=7') for a in sys.argv]
        """,
        ["descriptors that lead outside: expected (), found ('9 -> /',)"],
    ),
    "another working directory": (
        "config['process']['cwd'] = '/tmp'",
        ["working directory: expected the root directory, found another"],
    ),
    "one control group less": (
        "open([l.split()[4] for l in open('/proc/self/mountinfo') if ' - cgroup' in l and '/memory' in l][0]"
        " + '/cgroup.procs', 'w').write('0')",
        ["processes in only one of control group and pid namespace: expected (), found ("],
    ),
}


@pytest.mark.parametrize("what", SLIPS)
async def test_a_runtime_that_slips_gives_nobody_a_sandbox(clean_node: Rig, slip: Path, what: str) -> None:
    code, sentences = SLIPS[what]
    slip.write_text(textwrap.dedent(code))
    assert_told(await refused(clean_node, rig.new_id()), sentences)


HARDENED_SLIPS = {
    "a capability more": (
        "config['process']['capabilities']['bounding'] += ['CAP_SETUID']",
        ["CapBnd: expected 0000000000000001, found 0000000000000081"],
    ),
    "new privileges": (
        "config['process']['noNewPrivileges'] = False",
        ["no_new_privs: expected True, found False"],
    ),
    "root": (
        "config['process']['user'] = {'uid': 0, 'gid': 0}",
        ["user ids: expected", "group ids: expected"],
    ),
    "programs in /tmp": (
        """
        import subprocess
        subprocess.run(['mount', '-o', 'remount,bind,exec,nosuid,nodev', 'rootfs/tmp'], check=True)
        """,
        ["mount on /tmp: expected noexec, found nodev,nosuid,relatime,rw"],
    ),
    "a root that is written to": (
        """
        import subprocess
        subprocess.run(['mount', '-o', 'remount,bind,rw,nosuid,nodev', 'rootfs'], check=True)
        config['root']['readonly'] = False
        """,
        ["mount on /: expected ro, found nodev,nosuid,relatime,rw"],
    ),
    "no home of its own": (
        """
        import subprocess
        subprocess.run(['umount', 'rootfs/home/user'], check=True)
        """,
        ["mount on /home/user: expected overlay, found none"],
    ),
}


@pytest.mark.parametrize("what", HARDENED_SLIPS)
async def test_a_hardened_container_that_is_not_one_is_caught(clean_node: Rig, slip: Path, what: str) -> None:
    code, sentences = HARDENED_SLIPS[what]
    slip.write_text(textwrap.dedent(code))
    assert_told(await refused(clean_node, rig.new_id(), profile="hardened"), sentences)


JAIL_SLIPS = {
    "no call filter": (
        "at = sys.argv.index('--seccomp'); del sys.argv[at:at + 2]",
        ["seccomp mode: expected 2, found 0"],
    ),
    "a capability": (
        "at = sys.argv.index('--chdir'); sys.argv[at:at] = ['--cap-add', 'CAP_CHOWN']",
        ["CapBnd: expected 0000000000000000, found 0000000000000001"],
    ),
    "the host's queues": (
        "sys.argv.remove('--unshare-ipc'); at = sys.argv.index('--mqueue'); del sys.argv[at:at + 2]",
        ["ipc namespace: expected one of its own, found the node's"],
    ),
    "the host's view of control groups": (
        "sys.argv.remove('--unshare-cgroup')",
        ["cgroup namespace: expected one of its own, found the node's"],
    ),
    "a part of the host": (
        "at = sys.argv.index('--chdir'); sys.argv[at:at] = ['--ro-bind', '/usr/share', '/mnt']",
        ["mount on /mnt: expected none, found"],
    ),
    "nothing covered": (
        "first = sys.argv.index('--proc') + 2; del sys.argv[first:sys.argv.index('--chdir')]",
        ["/proc/keys: expected it covered, found it open"],
    ),
}


@pytest.mark.parametrize("what", JAIL_SLIPS)
async def test_a_jail_that_is_open_is_caught(clean_node: Rig, slip: Path, what: str) -> None:
    code, sentences = JAIL_SLIPS[what]
    slip.write_text(code)
    assert_told(await refused(clean_node, rig.new_id(), tier="process", profile="hardened"), sentences)


async def test_one_difference_is_one_sentence(clean_node: Rig, slip: Path) -> None:
    slip.write_text("config['process']['noNewPrivileges'] = True")
    assert await refused(clean_node, rig.new_id()) == ["no_new_privs: expected False, found True"]


LIMITS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "memory": (
        lambda limits: dataclasses.replace(limits, memory_bytes=512 << 20),
        "limit memory_bytes: expected 268435456, found 536870912",
    ),
    "pids": (lambda limits: dataclasses.replace(limits, pids=4096), "limit pids: expected 128, found 4096"),
    "cpu": (lambda limits: dataclasses.replace(limits, cpu_milli=3000), "limit cpu_milli: expected 2000, found 3000"),
}


@pytest.mark.parametrize("which", LIMITS)
async def test_a_limit_that_is_not_in_force_is_caught(
    clean_node: Rig, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    change, sentence = LIMITS[which]
    limit = Cgroup.limit
    monkeypatch.setattr(Cgroup, "limit", lambda self, limits: limit(self, change(limits)))
    assert await refused(clean_node, rig.new_id()) == [sentence]


async def test_a_group_without_limits_is_caught(clean_node: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cgroup, "limit", lambda _self, _limits: None)
    found = await refused(clean_node, rig.new_id())
    assert found[0] == "limit memory_bytes: expected 268435456, found None"
    assert "limit pids: expected 128, found None" in found
    assert "limit cpu_milli: expected 2000, found None" in found


async def test_resource_limits_may_be_lower_but_never_higher(clean_node: Rig) -> None:
    sandbox = await clean_node.start()
    wanted = expectation.expected(sandbox.spec, sandbox.state)
    facts = facts_of(sandbox)
    higher = dataclasses.replace(facts, rlimits={**facts.rlimits, "RLIMIT_NPROC": None, "RLIMIT_CORE": 1})
    assert attestation.mismatches(higher, wanted) == [
        "RLIMIT_CORE: expected at most 0, found 1",
        "RLIMIT_NPROC: expected at most 128, found unlimited",
    ]
    lower = dataclasses.replace(facts, rlimits={**facts.rlimits, "RLIMIT_NPROC": 10})
    assert attestation.mismatches(lower, wanted) == []


async def test_another_process_with_the_same_number_is_not_the_sandbox(clean_node: Rig) -> None:
    sandbox = await clean_node.start()
    wanted = expectation.expected(sandbox.spec, sandbox.state)
    assert wanted.start_time is not None
    later = dataclasses.replace(facts_of(sandbox), start_time=wanted.start_time + 1)
    assert attestation.mismatches(later, wanted) == [
        f"start time: expected {wanted.start_time}, found {wanted.start_time + 1}"
    ]


async def test_what_was_quarantined_stays_ended(clean_node: Rig, slip: Path) -> None:
    slip.write_text("del config['linux']['seccomp']")
    await refused(clean_node, "mallory")
    status, shown = await ask(clean_node, "GET", "/v1/sandboxes/mallory")
    assert (status, shown["state"], shown["reason"]) == (200, "ended", "quarantined")
    slip.write_text("")
    with pytest.raises(GenerationConflict):
        await clean_node.start("mallory")


async def test_the_internal_api_says_why(clean_node: Rig, slip: Path) -> None:
    slip.write_text("del config['linux']['seccomp']")
    status, answer = await ask(clean_node, "POST", "/v1/sandboxes", rig.request("trent"))
    assert (status, answer["error"]["code"], answer["error"]["details"]) == (
        500,
        "start_failed",
        {"reason": "quarantined"},
    )
    assert "seccomp mode: expected 2, found 0" in answer["error"]["message"]
    slip.write_text("")
    assert (await clean_node.start()).attestation
