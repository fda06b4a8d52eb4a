"""With gVisor a sandbox has a kernel of its own; the gateway, the limits and the end are those of every other."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import socket
import stat
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from sandboxes.node import sentry
from sandboxes.node.cgroups import Cgroup
from sandboxes.node.errors import Quarantined, StartFailed, TierUnavailable
from sandboxes.node.runtimes import gvisor
from tests.node import rig
from tests.node.nodeprocess import NodeProcess
from tests.node.slips import open_directory

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from sandboxes.node.sandbox import Sandbox
    from tests.node.rig import Rig

pytestmark = pytest.mark.asyncio(loop_scope="module")

# The kernel of the sandbox takes some twenty megabytes of it.
ROOM = {"cpu_milli": 2000, "memory_mib": 384, "disk_mib": 64, "pids": 64}
SLOT_UIDS = 65_536


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node() -> AsyncIterator[Rig]:
    """Return a node that has runsc beside crun."""
    assert gvisor.version() is not None, "runsc is missing: `make test` installs it"
    with rig.new_home() as home:
        async with rig.running_node(home) as running:
            yield running


async def start(node: Rig, sandbox_id: str | None = None, **changes: Any) -> Sandbox:
    """Start a sandbox under gVisor."""
    return await node.start(sandbox_id, runtime="runsc", **({"resources": ROOM} | changes))


def uids_of(pid: int) -> set[int]:
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("Uid:"))
    return {int(word) for word in line.split()[1:]}


async def test_it_is_an_offer_and_not_the_default(clean_node: Rig) -> None:
    found = clean_node.node.container.probe()
    assert (found.available, next(iter(found.runtimes)), list(found.runtimes)[-1]) == (True, "crun", "runsc")
    assert clean_node.node.container._command()[0].endswith("/crun")


async def test_the_kernel_is_gvisor_s(clean_node: Rig) -> None:
    sandbox = await start(clean_node)
    told = await clean_node.run(sandbox, "cat /proc/version; dmesg | head -1")
    assert told.stdout.splitlines()[0].startswith("Linux version 4.4.0 ")
    assert told.stdout.splitlines()[1].endswith("Starting gVisor...")
    assert os.uname().release not in told.stdout


async def test_commands_users_variables_and_files_work(clean_node: Rig) -> None:
    sandbox = await start(clean_node, env={"NAME": "alice"})
    done = await clean_node.run(sandbox, "echo $NAME; id -un; pwd; echo x > file; cat file; exit 3")
    assert (done.exit_code, done.stdout, done.stderr) == (3, "alice\nuser\n/home/user\nx\n", "")
    done = await clean_node.run(sandbox, "id -un; echo y > /etc/made; cat /etc/made /etc/hostname", user="root")
    assert done.stdout.startswith("root\ny\nsandbox-")


async def test_terminals_work(clean_node: Rig) -> None:
    sandbox = await start(clean_node)
    process = {"cmd": "/bin/bash", "args": ["-c", "tty; stty size"]}
    message = json.dumps({"process": process, "pty": {"size": {"rows": 24, "cols": 80}}}).encode()
    reader, writer = await asyncio.open_unix_connection(sandbox.runtime.socket_path(sandbox.state))
    writer.write(
        b"POST /process.Process/Start HTTP/1.1\r\nHost: guest\r\nConnection: close\r\n"
        b"Content-Type: application/connect+json\r\nConnect-Protocol-Version: 1\r\n"
        + f"Content-Length: {len(message) + 5}\r\n\r\n".encode()
        + struct.pack(">BI", 0, len(message))
        + message
    )
    answer = await reader.read()
    writer.close()
    for line in (b"/dev/pts/0\r\n", b"24 80\r\n"):
        assert base64.b64encode(line) in answer, answer


async def test_the_gateway_finds_what_it_always_finds(clean_node: Rig) -> None:
    sandbox = await start(clean_node)
    listener = Path(sandbox.runtime.socket_path(sandbox.state))
    gid = clean_node.node.config.gateway_gid
    for path, kind, mode in ((listener.parent, stat.S_ISDIR, 0o750), (listener, stat.S_ISSOCK, 0o660)):
        info = path.lstat()
        assert (kind(info.st_mode), stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) == (True, mode, 0, gid)
    assert [entry.name for entry in listener.parent.iterdir()] == ["guest.sock"]


async def test_nobody_inside_can_touch_the_listener(clean_node: Rig) -> None:
    sandbox = await start(clean_node)
    listener = Path(sandbox.runtime.socket_path(sandbox.state))
    before = [path.lstat() for path in (listener, listener.parent)]
    tries = [
        "rm /run/gatehouse/guest.sock",
        "mv /run/gatehouse/guest.sock /tmp/x",
        "ln -sf /etc/passwd /run/gatehouse/guest.sock",
        "touch /run/gatehouse/more",
        "rmdir /run/gatehouse",
        "mv /run/gatehouse /run/away",
        "umount /run/gatehouse",
    ]
    for command in tries:
        assert (await clean_node.run(sandbox, command, user="root")).exit_code != 0, command
    # This version of gVisor takes a change of mode or owner that the host refused for done.
    await clean_node.run(sandbox, "chmod 777 /run/gatehouse; chown user /run/gatehouse", user="root")
    dial = "import socket; socket.socket(socket.AF_UNIX).connect('/run/gatehouse/guest.sock')"
    assert "PermissionError" in (await clean_node.run(sandbox, f'python3 -c "{dial}"')).stderr
    assert [path.lstat() for path in (listener, listener.parent)] == before
    assert [entry.name for entry in listener.parent.iterdir()] == ["guest.sock"]
    assert (await clean_node.run(sandbox, "echo on")).stdout == "on\n"


@pytest.mark.parametrize(
    "agent",
    ['ln -s /etc/passwd "$2"', 'mkdir "$2"', 'echo x > "$2"', 'ln -s /etc/passwd "${2%/*}/other"'],
    ids=["link", "directory", "file", "other name"],
)
async def test_an_agent_that_makes_something_else_gets_nothing_touched(clean_node: Rig, agent: str) -> None:
    before = Path("/etc/passwd").stat()
    clean_node.use_guest(f"#!/bin/sh\n{agent}\nsleep 100\n")
    with pytest.raises(StartFailed, match=r"is no listener|something else than its listener"):
        await start(clean_node)
    clean_node.use_real_guest()
    after = Path("/etc/passwd").stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    await clean_node.is_clean()


async def test_an_agent_that_ends_at_once_is_told(clean_node: Rig) -> None:
    clean_node.use_guest("#!/bin/sh\nexit 1\n")
    with pytest.raises(StartFailed):
        await start(clean_node)
    clean_node.use_real_guest()
    await clean_node.is_clean()


async def test_a_directory_is_sealed_before_it_is_looked_at(tmp_path: Path) -> None:
    door = tmp_path / "door"
    door.mkdir()
    os.chown(door, 64_001, 64_001)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(door / "guest.sock"))
    os.chown(door / "guest.sock", 64_001, 64_001)
    handle = os.open(door, os.O_RDONLY | os.O_DIRECTORY)
    sentry.seal(handle, "guest.sock", 64_002)
    os.close(handle)
    found = [
        (path.lstat().st_uid, path.lstat().st_gid, oct(path.lstat().st_mode)) for path in (door, door / "guest.sock")
    ]
    assert found == [(0, 64_002, "0o40750"), (0, 64_002, "0o140660")]


async def test_there_is_no_network_but_its_own_lo(clean_node: Rig) -> None:
    sandbox = await start(clean_node)
    devices = await clean_node.run(sandbox, "tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '")
    assert devices.stdout == "lo\n"
    code = """
import socket
for family, kind in ((1, 1), (2, 1), (10, 1), (17, 3), (38, 5), (40, 1)):
    try: socket.socket(family, kind)
    except OSError as error: print(family, error.errno)
    else: print(family, 'made')
with socket.socket() as probe:
    try: probe.connect(('192.0.2.2', 80))
    except OSError as error: print(error.errno)
"""
    done = await clean_node.run(sandbox, f'python3 -c "{code}"')
    assert done.stdout.split("\n")[:-1] == ["1 made", "2 made", "10 made", "17 1", "38 97", "40 97", "113"]


async def test_the_disk_is_bounded_and_makes_no_devices(clean_node: Rig) -> None:
    sandbox = await start(clean_node)
    command = "head -c 200M /dev/zero > /big; wc -c < /big; mknod /node c 1 3; test -e /dev/kvm || echo none"
    done = await clean_node.run(sandbox, command, user="root")
    size, kvm = done.stdout.split()
    assert (int(size) < 64 << 20, kvm) == (True, "none")
    assert "No space left on device" in done.stderr or "File too large" in done.stderr
    assert "Operation not permitted" in done.stderr


async def test_what_stands_between_it_and_the_host_has_uids_of_its_own(clean_node: Rig) -> None:
    sandbox = await start(clean_node)
    base = 0x7000_0000 + sandbox.state["slot"] * SLOT_UIDS
    pids = clean_node.pids(sandbox)
    assert len(pids) >= 4
    assert set.union(*map(uids_of, pids)) == {base, base + 65_534}
    shown = sandbox.attestation
    assert shown["limits"] == {"memory_bytes": 384 << 20, "swap_bytes": 0, "pids": 64 + 16 * 64, "cpu_milli": 2000}
    for name, uid, id_map in (
        ("runsc-sandbox", base + 65_534, [[65_534, base + 65_534, 1]]),
        ("runsc-gofer", base, [[0, base, SLOT_UIDS]]),
    ):
        facts = shown[name]
        assert (facts["uid"], facts["uid_map"], facts["interfaces"]) == (uid, id_map, ["lo"])
        assert (facts["no_new_privs"], facts["seccomp"]["mode"]) == (True, 2)
        assert facts["namespaces"] == ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"]
    assert [mount.split()[:2] for mount in shown["runsc-sandbox"]["mounts"]] == [["/", "tmpfs"]]
    assert [mount.split()[0] for mount in shown["runsc-gofer"]["mounts"]] == ["/", "/run/gatehouse"]


async def test_a_runtime_that_only_says_that_it_is_gvisor_is_caught(
    clean_node: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_directory() as directory:
        (directory / "runsc").write_text(
            "#!/bin/sh\n"
            "mkdir rootfs/run/gatehouse && mount --bind channel rootfs/run/gatehouse && mount --rbind /dev rootfs/dev\n"
            "exec chroot rootfs /opt/gatehouse/guest listen /run/gatehouse/guest.sock\n"
        )
        (directory / "runsc").chmod(0o755)
        monkeypatch.setenv("PATH", f"{directory}:/usr/sbin:/usr/bin:/sbin:/bin")
        with pytest.raises(Quarantined) as caught:
            await start(clean_node, "mallory")
    assert caught.value.mismatches == [
        "runsc-sandbox: expected a process, found none",
        "runsc-gofer: expected a process, found none",
    ]
    assert clean_node.codes("mallory") == ["sandbox.quarantined", "sandbox.ended"]
    await clean_node.is_clean()


async def test_limits_that_are_not_in_force_are_caught(clean_node: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cgroup, "limit", lambda _self, _limits: None)
    with pytest.raises(Quarantined) as caught:
        await start(clean_node)
    assert "limit memory_bytes: expected 402653184, found None" in caught.value.mismatches
    await clean_node.is_clean()


async def test_too_much_memory_ends_this_sandbox_alone(clean_node: Rig) -> None:
    sandbox, other = await start(clean_node, "bob"), await start(clean_node)
    with pytest.raises((ConnectionError, OSError)):
        await clean_node.run(sandbox, "python3 -c 'x = bytearray(900 << 20)'")
    await rig.eventually(lambda: clean_node.codes("bob")[-1:] == ["sandbox.ended"])
    assert clean_node.events("bob")[-1]["details"]["reason"] == "out_of_memory"
    assert (await clean_node.run(other, "echo on")).stdout == "on\n"


async def test_too_many_processes_are_refused(clean_node: Rig) -> None:
    sandbox = await start(clean_node)
    forks = "import os, time\nwhile True: os.fork() or time.sleep(1000)"
    assert "BlockingIOError" in (await clean_node.run(sandbox, f'python3 -c "{forks}"')).stderr
    assert (await clean_node.run(sandbox, "echo on", user="root")).stdout == "on\n"
    assert (sandbox.ending, sandbox.runtime.stats(sandbox.state).pids_refused) == (None, 0)


async def test_as_many_processes_as_were_granted_fit(clean_node: Rig) -> None:
    sandbox = await start(clean_node)
    # A user has what was granted without the agent's share; the shell and what it waits with take two.
    command = (
        "for i in $(seq 44); do setsid -f sleep 100; done; until [ $(pgrep -xc sleep) = 44 ]; do :; done; echo all"
    )
    assert (await clean_node.run(sandbox, command)).stdout == "all\n"


async def test_it_stands_still_and_goes_on(clean_node: Rig) -> None:
    sandbox = await start(clean_node)
    await clean_node.run(sandbox, "echo kept > note")
    await clean_node.keeper.pause(sandbox.spec.id, 1)
    await clean_node.keeper.resume(sandbox.spec.id, 1, 300_000)
    assert (await clean_node.run(sandbox, "cat note")).stdout == "kept\n"


async def test_stopping_leaves_nothing(clean_node: Rig) -> None:
    sandbox = await start(clean_node)
    await clean_node.run(sandbox, "setsid -f sleep 1000; setsid -f bash -c 'trap \"\" TERM; sleep 1000'")
    pids = clean_node.pids(sandbox)
    assert await clean_node.keeper.stop(sandbox.spec.id, 1) == "killed"
    assert not any(rig.is_alive(pid) for pid in pids)
    await clean_node.is_clean()


async def test_a_stopped_pause_leaves_nothing_either(clean_node: Rig) -> None:
    sandbox = await start(clean_node)
    await clean_node.keeper.pause(sandbox.spec.id, 1)
    assert await clean_node.keeper.stop(sandbox.spec.id, 1) == "killed"
    await clean_node.is_clean()


async def test_it_has_no_hardened_profile(clean_node: Rig) -> None:
    with pytest.raises(TierUnavailable) as caught:
        await start(clean_node, profile="hardened")
    assert caught.value.message == "Profile hardened is not available with runtime runsc; use workstation."
    assert caught.value.details["fix"]
    await clean_node.is_clean()


async def test_a_host_without_it_says_what_to_install() -> None:
    with pytest.MonkeyPatch.context() as patch, rig.new_home() as home:
        patch.setattr(gvisor, "version", lambda: None)
        async with rig.running_node(home) as bare:
            with pytest.raises(TierUnavailable) as caught:
                await start(bare)
            assert caught.value.message == "Runtime runsc is not available on this node."
            assert caught.value.details["fix"].startswith("Install runsc on the node")
            assert (await bare.start()).attestation


async def test_members_wait_for_a_request_like_any_other() -> None:
    with rig.new_home() as home:
        async with rig.running_node(home, GATEHOUSE_POOL_SIZE="1") as pooled:
            await start(pooled)
            await rig.eventually(lambda: sum(pooled.node.container.pool.counts.values()) == 1)
            member = next(iter(pooled.node.container.pool._shelves.values())).members[0]
            sandbox = await start(pooled)
            assert sandbox.state["pid"] == member.pid
            assert (await pooled.run(sandbox, "echo here")).stdout == "here\n"


# --- the node's death


@pytest.fixture
def process(node_home: Path) -> Iterator[NodeProcess]:
    """Return a node that is not started yet; it is gone afterwards."""
    process = NodeProcess(node_home)
    yield process
    process.kill()


async def test_it_outlives_the_node(process: NodeProcess) -> None:
    await process.start()
    await process.start_sandbox("alice", runtime="runsc", resources=ROOM)
    await process.run("alice", "echo kept > note; setsid -f sleep 1000")
    state = process.state("alice")["runtime"]
    process.kill(signal.SIGKILL)
    assert (await process.run("alice", "cat note; pgrep -xc sleep")).stdout == "kept\n1\n"

    await process.start()
    assert process.state("alice")["runtime"] == state
    assert (await process.run("alice", "cat note; pgrep -xc sleep")).stdout == "kept\n1\n"
    await process.stop_all()
    await rig.eventually(lambda: rig.leftovers(process.home) == {})


async def test_orphans_of_a_start_that_nobody_finished_are_swept(process: NodeProcess) -> None:
    await process.start()
    await process.start_sandbox("alice", runtime="runsc", resources=ROOM)
    process.kill(signal.SIGKILL)
    pids = rig.processes_of(process.home)
    names = {rig.command_line(pid).split()[0] for pid in pids if rig.command_line(pid)}
    assert {"runsc-sandbox", "runsc-gofer"} <= names
    (process.home / "node" / "sandboxes" / "alice" / "state.json").unlink()

    await process.start()
    await rig.eventually(lambda: rig.leftovers(process.home) == {})
    assert not any(rig.is_alive(pid) for pid in pids)
