"""Under gVisor nothing inside meets the host's kernel, files or sockets, and a crafted template leads nowhere."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from sandboxes.node.errors import StartFailed
from sandboxes.node.runtimes import gvisor
from tests.internet.world import PLAIN
from tests.node.rig import EVIL_CORP, new_home, open_network, running_node
from tests.security.inside import Inside

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.internet.world import Internet
    from tests.node.rig import Rig

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOM = {"cpu_milli": 2000, "memory_mib": 384, "disk_mib": 64, "pids": 256}
CORE_PATTERN = Path("/proc/sys/kernel/core_pattern")
# What the host's kernel would answer these, were it asked by somebody without rights, is not what is seen here.
CALLS = {
    "keyctl": (250, "EACCES ENOSYS EPERM"),
    "bpf": (321, "ENOSYS EPERM"),
    "userfaultfd": (323, "ENOSYS EPERM"),
    "io_uring_setup": (425, "EINVAL ENOSYS EPERM"),
    "perf_event_open": (298, "ENODEV ENOSYS EPERM"),
    "kexec_load": (246, "ENOSYS EPERM"),
    "init_module": (175, "ENOSYS EPERM"),
    "open_by_handle_at": (304, "ENOTSUP ENOSYS EPERM"),
    "name_to_handle_at": (303, "ENOTSUP ENOSYS EPERM"),
    "fsopen": (430, "ENOSYS EPERM"),
    "open_tree": (428, "ENOSYS EPERM"),
    "iopl": (172, "ENOSYS EPERM"),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(one_internet: Internet) -> AsyncIterator[Rig]:
    """Return a node that has runsc, and egress in the test internet."""
    assert gvisor.version() is not None, "runsc is missing: `make test` installs it"
    with new_home() as home:
        async with running_node(home, GATEHOUSE_NODE_EGRESS="1", **one_internet.settings()) as running:
            yield running
            await running.stop_all()


async def start(node: Rig, **changes: Any) -> Inside:
    return Inside(await node.start(tenant=EVIL_CORP, runtime="runsc", resources=ROOM, **changes), "root")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["no network", "a way out"])
async def mallory(request: pytest.FixtureRequest, node: Rig) -> Inside:
    """Return root of a sandbox under gVisor: that it has a way out opens nothing else."""
    return await start(node, **(open_network() if request.param == "a way out" else {}))


async def test_calls_that_reach_deep_into_a_kernel_reach_none(mallory: Inside) -> None:
    numbers = {name: number for name, (number, _) in CALLS.items()}
    got = await mallory.python(f"answer({{name: call(number, 0, 0, 0, 0, 0) for name, number in {numbers}.items()}})")
    assert {name: said for name, said in got.items() if said not in CALLS[name][1].split()} == {}


async def test_what_it_mounts_it_may_not(mallory: Inside) -> None:
    got = await mallory.python("answer([call(165, b'none', b'/tmp', b'tmpfs', 0, 0), call(166, b'/run/gatehouse', 2)])")
    assert got == ["EPERM", "EPERM"]


async def test_namespaces_that_it_makes_are_gvisor_s_own(mallory: Inside) -> None:
    before = Path(f"/proc/{mallory.pid}/ns/user").readlink()
    await mallory.shell("unshare -U sleep 0")
    assert Path(f"/proc/{mallory.pid}/ns/user").readlink() == before
    assert (await mallory.shell("unshare -Urm mount -t tmpfs none /tmp && ls /run/gatehouse")).exit_code != 0


async def test_settings_of_the_host_are_not_there_to_change(mallory: Inside) -> None:
    before = CORE_PATTERN.read_text()
    await mallory.shell("echo '|/tmp/x' > /proc/sys/kernel/core_pattern; echo h > /proc/sysrq-trigger")
    assert CORE_PATTERN.read_text() == before
    told = await mallory.text("cat /proc/version /proc/mounts /proc/cmdline; uname -a")
    for secret in (os.uname().release, "/dev/loop", "/dev/vda", "lowerdir", "gatehouse-"):
        assert secret not in told
    assert (await mallory.text("cat /proc/sys/kernel/hostname")).startswith("sandbox-")


async def test_no_descriptor_leads_outside(mallory: Inside) -> None:
    program = """
found = {}
for number in range(3, 64):
    try:
        found[number] = os.listdir(f"/proc/self/fd/{number}")
    except OSError:
        continue
answer(found)
"""
    assert await mallory.python(program) == {}
    for number in range(7, 21):
        done = await mallory.shell(f"cd /proc/self/fd/{number} && ls ../../..")
        assert done.exit_code != 0, number


async def test_no_socket_of_the_host_can_be_reached(mallory: Inside, node: Rig) -> None:
    sockets = await mallory.text("find / -xdev -type s 2>/dev/null; true")
    assert set(sockets.split()) <= {"/run/gatehouse/guest.sock"}
    # On file systems of their own: what its agent made, and what the node made for it.
    mounted = await mallory.text("ls /run/gatehouse/; ls /opt/gatehouse/egress/ 2>/dev/null; true")
    own = {"guest.sock", "egress.sock", "ca-bundle.pem"} if mallory.sandbox.spec.network.document else {"guest.sock"}
    assert set(mounted.split()) <= own
    hosts = [
        str(node.home / "run" / name) for name in ("node.sock", "edge.sock", "egress.sock", "egress/0/egress.sock")
    ]
    hosts += ["/opt/gatehouse/egress/../../../run/egress.sock", "/run/gatehouse/../../egress/0/egress.sock"]
    program = f"""
said = []
for path in {hosts} + ["/var/run/docker.sock", "/run/containerd/containerd.sock"]:
    with socket.socket(socket.AF_UNIX) as probe:
        said.append(attempt(lambda: probe.connect(path)))
answer(said)
"""
    assert set(await mallory.python(program)) == {"ENOENT"}


async def test_of_the_host_s_directories_the_gofer_sees_the_two_private_ones(mallory: Inside) -> None:
    pids = mallory.sandbox.runtime.cgroup(mallory.sandbox.state).pids()
    (gofer,) = [pid for pid in pids if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"runsc-gofer\0")]
    rows = [line.split() for line in Path(f"/proc/{gofer}/mountinfo").read_text().splitlines()]
    slot = mallory.sandbox.state["slot"]
    way = {("/opt/gatehouse/egress", f"/{slot}", True)} if mallory.sandbox.spec.network.document else set()
    found = {(row[4], row[3], "ro" in row[5].split(",")) for row in rows if row[4] not in ("/", "/run/gatehouse")}
    assert found == way
    assert [row[3].rpartition("/run/guests/")[2] for row in rows if row[4] == "/run/gatehouse"] == [str(slot)]


async def test_its_way_out_leads_to_egress_and_to_no_neighbour(node: Rig, internet: Internet) -> None:
    inside = await start(node, **open_network("plain.allowed.test:80"))
    neighbour = await start(node, **open_network())
    assert await inside.text("curl -sS http://plain.allowed.test/") == "served plain.allowed.test/\n"
    assert "no_rule" in await neighbour.text("curl -sS http://plain.allowed.test/")
    for attempt in (
        "touch /opt/gatehouse/egress/x",
        "rm /opt/gatehouse/egress/egress.sock",
        "umount /opt/gatehouse/egress",
    ):
        assert (await inside.shell(attempt)).exit_code != 0, attempt
    said = await inside.python(
        "answer([attempt(lambda: socket.create_connection((one, 443), 5)) for one in "
        "('8.8.8.8', '169.254.169.254', '10.0.0.1')])"
    )
    assert set(said) == {"EHOSTUNREACH"}
    assert [one.address for one in internet.sites.connections] == [PLAIN]


async def test_an_abstract_socket_of_the_host_is_another_world_s(mallory: Inside) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0gatehouse-test-abstract")
        listener.listen(1)
        program = """
with socket.socket(socket.AF_UNIX) as probe:
    answer(attempt(lambda: probe.connect("\\0gatehouse-test-abstract")))
"""
        assert await mallory.python(program) == "ECONNREFUSED"


async def test_processes_of_the_host_and_of_neighbours_are_not_seen(mallory: Inside, node: Rig) -> None:
    neighbour = await start(node)
    await neighbour.shell("setsid -f sleep 4242")
    seen = await mallory.text("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert "4242" not in seen
    assert str(node.home) not in seen
    assert "runsc" not in seen


async def test_devices_are_not_there(mallory: Inside) -> None:
    present = await mallory.text(
        "for name in kvm mem kmem port vda loop0 loop-control; do test -e /dev/$name && echo $name; done; true"
    )
    assert present == ""
    # A node can be made in the memory of gVisor's kernel, which knows no device behind it.
    assert (await mallory.shell("mknod /tmp/disk b 254 0; head -c 1 /tmp/disk")).exit_code != 0


# --- templates


@pytest.fixture
def crafted(node: Rig) -> Iterator[Path]:
    """Return the root of a template `crafted` with next to nothing in it."""
    root = node.home / "templates" / "crafted" / "rootfs"
    for name in ("dev", "proc", "sys", "etc", "tmp", "run", "opt"):
        (root / name).mkdir(parents=True)
    (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    yield root
    shutil.rmtree(root.parent)


@pytest.fixture
def victim(node: Rig) -> Iterator[Path]:
    """Return a directory of the host in which everybody may write; nothing of a sandbox may appear in it."""
    path = node.home / "victim"
    path.mkdir()
    path.chmod(0o777)
    yield path
    assert list(path.iterdir()) == []
    path.rmdir()


async def test_a_plain_template_starts(node: Rig, crafted: Path) -> None:
    inside = await start(node, build="crafted")
    await node.keeper.stop(inside.sandbox.spec.id, None)


@pytest.mark.parametrize("place", ["run", "dev", "proc", "sys", "tmp", "etc"])
@pytest.mark.parametrize("climb", ["", "../../../../../../../.."], ids=["absolute", "relative"])
async def test_a_place_that_is_a_link_leads_nowhere(
    node: Rig, crafted: Path, victim: Path, place: str, climb: str
) -> None:
    shutil.rmtree(crafted / place)
    (crafted / place).symlink_to(f"{climb}{victim}")
    with contextlib.suppress(StartFailed):
        inside = await start(node, build="crafted")
        await node.keeper.stop(inside.sandbox.spec.id, None)


@pytest.mark.parametrize("name", ["dev/null", "dev/console", "dev/pts"])
async def test_a_device_that_is_a_link_changes_no_setting(node: Rig, crafted: Path, name: str) -> None:
    before = CORE_PATTERN.read_text()
    (crafted / name).symlink_to("/proc/sys/kernel/core_pattern")
    with contextlib.suppress(StartFailed):
        inside = await start(node, build="crafted")
        await node.keeper.stop(inside.sandbox.spec.id, None)
    assert CORE_PATTERN.read_text() == before
