"""A sandbox whose way out is another than was promised is handed out to nobody."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import pytest

from tests.node import rig
from tests.node.rig import WORLDS, open_network
from tests.node.slips import _no_slip, assert_told, node, refused, slip

if TYPE_CHECKING:
    from pathlib import Path

    from sandboxes.node.spec import Spec
    from tests.node.rig import Rig

pytestmark = pytest.mark.asyncio(loop_scope="module")

__all__ = ["_no_slip", "node", "slip"]

DOOR = "/opt/gatehouse/egress"
SLIPS: dict[str, tuple[str, list[str]]] = {
    "another directory": (
        "run('mount', '--bind', 'empty', 'rootfs/opt/gatehouse/egress')",
        [f"part that is mounted on {DOOR}: expected /", f"mount on {DOOR}: expected noexec,ro, found"],
    ),
    "a directory that can be written to": (
        "run('mount', '-o', 'remount,bind,rw,nosuid,nodev,noexec', 'rootfs/opt/gatehouse/egress')",
        [f"mount on {DOOR}: expected ro, found nodev,noexec,nosuid,relatime,rw"],
    ),
    "no directory": ("run('umount', 'rootfs/opt/gatehouse/egress')", [f"mount on {DOOR}: expected tmpfs, found none"]),
    "a resolver of its own": (
        "run('umount', 'rootfs/etc/resolv.conf')",
        ["mount on /etc/resolv.conf: expected tmpfs, found none"],
    ),
    "a route to elsewhere": (
        "run('/usr/sbin/ip', 'route', 'add', '10.0.0.0/8', 'dev', 'lo')",
        ["further routes: expected [], found ['10.0.0.0/8"],
    ),
    "no route to its agent": (
        "run('/usr/sbin/ip', 'route', 'del', 'local', '0.0.0.0/0', 'dev', 'lo')",
        ["missing routes: expected [], found ['0.0.0.0/0 host LOCAL']"],
    ),
    "another interface": (
        "run('/usr/sbin/ip', 'link', 'add', 'out', 'type', 'veth', 'peer', 'name', 'in')",
        ["network interfaces: expected ('lo',), found ('lo', 'in', 'out')"],
    ),
}


@pytest.fixture(autouse=True)
def _unserved(clean_node: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let sandboxes start without egress, which nothing here is about."""

    async def opened(_spec: Spec, _slot: int) -> None:
        return

    monkeypatch.setattr(clean_node.keeper.ways, "open", opened)


def wrong(slip: Path, code: str) -> None:
    slip.write_text(
        textwrap.dedent(
            f"""
            import subprocess
            def run(*command):
                subprocess.run(command, check=True)
            {code}
            """
        )
    )


@pytest.mark.parametrize("world", WORLDS)
async def test_what_was_promised_is_found(clean_node: Rig, world: str) -> None:
    sandbox = await clean_node.start(**(WORLDS[world] | open_network()))
    shown: dict[str, Any] = sandbox.attestation
    assert shown["interfaces"] == ["lo"]
    assert "0.0.0.0/0 host LOCAL" in shown["routes"]
    found = [mount.split()[0] for mount in shown["mounts"]]
    assert (found.count(DOOR), found.count("/etc/resolv.conf")) == (1, 1)


@pytest.mark.parametrize("what", SLIPS)
async def test_what_differs_is_caught(clean_node: Rig, slip: Path, what: str) -> None:
    code, sentences = SLIPS[what]
    wrong(slip, code)
    assert_told(await refused(clean_node, rig.new_id(), **open_network()), sentences)


async def test_without_a_policy_none_of_it_may_be_there(clean_node: Rig, slip: Path) -> None:
    wrong(slip, "run('mount', '--bind', 'empty', 'rootfs/opt/gatehouse/egress')")
    assert_told(await refused(clean_node, rig.new_id()), [f"mount on {DOOR}: expected none, found tmpfs"])
    wrong(slip, "run('/usr/sbin/ip', 'route', 'add', 'local', '0.0.0.0/0', 'dev', 'lo')")
    assert_told(
        await refused(clean_node, rig.new_id()), ["further routes: expected [], found ['0.0.0.0/0 host LOCAL']"]
    )
