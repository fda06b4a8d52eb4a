"""A node that ran sandboxes, hostile ones too, leaves the host as it found it: devices, mounts, groups, settings."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from sandboxes.node import cgroups
from tests.node.rig import EVIL_CORP, ROOT, leftovers, new_home, parent_group, running_node
from tests.security.inside import Inside

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.asyncio(loop_scope="module")

_SETTINGS = ("kernel", "fs", "net/core", "net/ipv4", "net/ipv6", "user", "vm")
_SETTABLE = stat.S_IRUSR | stat.S_IWUSR
_ACCOUNTS = ("/etc/subuid", "/etc/subgid", "/etc/fstab", "/etc/resolv.conf", "/etc/hosts")
# Where other tests that run beside these may mount something, and a node has no reason to.
_OTHERS = ("/tmp/", "/var/tmp/", f"{ROOT}/var/")
_GROUP_SETTINGS = ("cgroup.clone_children", "cgroup.subtree_control", "notify_on_release", "release_agent")

# Root inside tries to change what reaches further than its own sandbox.
_HARM = """
import glob
for path in glob.glob("/dev/*") + glob.glob("/proc/sys/kernel/*") + glob.glob("/proc/sys/net/ipv4/*"):
    attempt(lambda: os.chmod(path, 0o777))
    attempt(lambda: os.chown(path, 1000, 1000))
    if path.startswith("/proc"):
        attempt(lambda: open(path, "w").write("1"))
for number in (165, 166, 272, 308, 169, 164, 170, 246, 175):
    call(number, 0, 0, 0, 0, 0)
answer(None)
"""


@dataclass(frozen=True)
class Snapshot:
    """What of the host must not change, each part as a mapping of names to facts."""

    devices: dict[str, object]
    mounts: dict[str, object]
    groups: dict[str, object]
    settings: dict[str, object]
    accounts: dict[str, object]
    firewall: dict[str, object]
    links: dict[str, object]


def _facts(path: Path) -> tuple[int, ...]:
    found = path.lstat()
    return found.st_mode, found.st_uid, found.st_gid, found.st_rdev


def _devices() -> dict[str, object]:
    found: dict[str, object] = {}
    for directory, _directories, files in os.walk("/dev"):
        if not directory.startswith(("/dev/pts", "/dev/shm")):
            found |= {f"{directory}/{name}": _facts(Path(directory, name)) for name in files}
            found[directory] = _facts(Path(directory))
    return found


def _mounts() -> dict[str, object]:
    lines = (line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines())
    mine = (fields for fields in lines if not fields[4].startswith(_OTHERS))
    return {f"{fields[2]} {fields[4]}": (fields[3], fields[5:]) for fields in mine}


def _groups() -> dict[str, object]:
    found: dict[str, object] = {}
    for root in cgroups.detect().roots():
        found[str(root)] = _facts(Path(root))
        for path in Path(root).iterdir():
            if path.is_file():
                found[str(path)] = _facts(path)
                if path.name in _GROUP_SETTINGS:
                    found[f"{path} says"] = path.read_text()
    return found


def _settings() -> dict[str, object]:
    found: dict[str, object] = {}
    for part in _SETTINGS:
        for path in Path("/proc/sys", part).rglob("*"):
            if path.is_file() and path.lstat().st_mode & _SETTABLE == _SETTABLE:
                try:
                    found[str(path)] = path.read_text()
                except (OSError, UnicodeDecodeError):
                    continue
    return found


def _accounts() -> dict[str, object]:
    paths = [Path(name) for name in _ACCOUNTS]
    return {str(path): (_facts(path), path.read_bytes()) for path in paths if path.exists()}


def _firewall() -> dict[str, object]:
    found: dict[str, object] = {}
    for command in (["nft", "list", "ruleset"], ["iptables-save"], ["ip6tables-save"]):
        if shutil.which(command[0]):
            found[command[0]] = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return found


def _links() -> dict[str, object]:
    return {path.name: (path / "ifindex").read_text() for path in Path("/sys/class/net").iterdir()}


def take() -> Snapshot:
    """Look at the host."""
    return Snapshot(_devices(), _mounts(), _groups(), _settings(), _accounts(), _firewall(), _links())


@dataclass(frozen=True)
class Story:
    """The host before a node, while it ran sandboxes, and after it; `restless` changes by itself."""

    before: Snapshot
    meanwhile: Snapshot
    after: Snapshot
    restless: set[str]
    left: dict[str, list[str]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def story() -> Story:
    """Return what became of the host."""
    first = take()
    time.sleep(0.3)
    before = take()
    restless = {name for name, value in before.settings.items() if first.settings.get(name) != value}
    with new_home() as home:
        async with running_node(home, GATEHOUSE_POOL_SIZE="2") as running:
            for _ in range(3):
                inside = Inside(await running.start(tenant=EVIL_CORP))
                await inside.python(_HARM)
            meanwhile = take()
            await running.keeper.stop(inside.sandbox.spec.id, None)
        left = leftovers(home)
        parent = parent_group(home)
        own = [str(path) for root in parent.hierarchies.roots() if (path := root / parent.name).exists()]
        left |= {"parents": own} if own else {}
    return Story(before, meanwhile, take(), restless, left)


def _changes(old: dict[str, object], new: dict[str, object]) -> Iterator[str]:
    for name in old.keys() | new.keys():
        if old.get(name) != new.get(name):
            yield f"{name}: {old.get(name)} -> {new.get(name)}"


async def test_every_device_node_keeps_its_owner_and_mode(story: Story) -> None:
    for later in (story.meanwhile, story.after):
        kept = {name: later.devices.get(name) for name in story.before.devices}
        assert kept == story.before.devices
        new = later.devices.keys() - story.before.devices.keys()
        assert all(name.startswith("/dev/loop") for name in new)


async def test_the_mount_table_stays_the_same(story: Story) -> None:
    assert sorted(_changes(story.before.mounts, story.meanwhile.mounts)) == []
    assert sorted(_changes(story.before.mounts, story.after.mounts)) == []


async def test_the_roots_of_the_control_groups_stay_the_same(story: Story) -> None:
    assert sorted(_changes(story.before.groups, story.after.groups)) == []


async def test_no_setting_of_the_kernel_changes(story: Story) -> None:
    for later in (story.meanwhile, story.after):
        changed = _changes(story.before.settings, later.settings)
        assert [line for line in changed if line.partition(":")[0] not in story.restless] == []


async def test_users_and_uid_ranges_stay_the_same(story: Story) -> None:
    assert sorted(_changes(story.before.accounts, story.meanwhile.accounts)) == []
    assert sorted(_changes(story.before.accounts, story.after.accounts)) == []


async def test_the_firewall_is_not_touched(story: Story) -> None:
    assert sorted(_changes(story.before.firewall, story.meanwhile.firewall)) == []
    assert sorted(_changes(story.before.firewall, story.after.firewall)) == []


async def test_no_network_interface_comes_or_goes(story: Story) -> None:
    assert sorted(_changes(story.before.links, story.meanwhile.links)) == []
    assert sorted(_changes(story.before.links, story.after.links)) == []


async def test_a_stopped_node_leaves_nothing_of_any_sandbox(story: Story) -> None:
    assert story.left == {}
