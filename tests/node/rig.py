"""A home for a node, a node in this process, and what of it is left on the host afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandboxes.node import cgroups, linux
from sandboxes.node.__main__ import Node
from sandboxes.node.config import NodeConfig
from sandboxes.node.spec import Spec, parse_spec
from tests.node import guestcalls

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from sandboxes.node.keeper import Keeper
    from sandboxes.node.sandbox import Sandbox

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = ROOT / "var" / "templates"
ACME = "ac" * 16
EVIL_CORP = "ec" * 16
PATIENCE_S = 10.0
# Each way to isolate that a sandbox can be asked for, as changes to `request`.
WORLDS: dict[str, dict[str, str]] = {
    "container": {"tier": "container", "profile": "workstation"},
    "hardened": {"tier": "container", "profile": "hardened"},
    "process": {"tier": "process", "profile": "hardened"},
}


def base_build() -> str:
    """Return the id of the current build of the template `base`."""
    return (TEMPLATES / "base.current").read_text().strip()


def request(sandbox_id: str, **changes: Any) -> dict[str, Any]:
    """Return the body that asks for a small sandbox of Acme's."""
    return {
        "id": sandbox_id,
        "generation": 1,
        "tenant": ACME,
        "build": base_build(),
        "tier": "container",
        "profile": "workstation",
        "resources": {"cpu_milli": 2000, "memory_mib": 256, "disk_mib": 64, "pids": 128},
        "env": {},
        "template_id": "base",
        "ttl_ms": 300_000,
        "access_key": "a1" * 32,
        "audit_key": "a2" * 32,
        "audit_key_id": "",
        "copies_key": "",
        "grants": {},
        "runtime": "",
        "on_timeout": "kill",
        "auto_resume": False,
        "ingress": {"public": True, "traffic_token": "", "mask_host": "", "https_ports": [], "ports": None},
        "network": {"mode": "none", "document": None},
    } | changes


def document(*rules: str, version: int = 1, **changes: Any) -> dict[str, Any]:
    """Return a network document that allows what the rules name."""
    return {
        "version": version,
        "layers": [{"name": "sandbox", "mode": "deny", "first": "deny", "egress": list(rules)}],
        "deny": [],
        "private": [],
        "dns": True,
        "via": None,
        "egress_proxy": None,
        "limits": {"flows": 256, "new_per_s": 50, "bytes_out": None, "idle_s": 300},
        "tls": {"sni": "require", "ech": "deny"},
        "rules": [],
        "placeholders": [],
    } | changes


def open_network(*rules: str, version: int = 1, **changes: Any) -> dict[str, Any]:
    """Return what asks for a way out that leads to what the rules name."""
    return {"network": {"mode": "open", "document": document(*rules, version=version, **changes)}}


def spec(sandbox_id: str, **changes: Any) -> Spec:
    """Return the same request as the keeper takes it."""
    return parse_spec(request(sandbox_id, **changes))


def new_id() -> str:
    """Return a sandbox id that no other test uses."""
    return "i" + secrets.token_hex(10)


@contextlib.contextmanager
def new_home(*, default_pool: bool = False) -> Iterator[Path]:
    """Make a home with the template `base`; afterwards nothing of any node that used it is left on the host.

    Without `default_pool` the node learns of no current template, so that its pool starts empty.
    """
    home = Path(tempfile.mkdtemp(prefix="gh-", dir="/tmp"))
    home.chmod(0o755)
    for name in ("run", "templates"):
        (home / name).mkdir(mode=0o755)
    (home / "templates" / base_build()).symlink_to(TEMPLATES / base_build())
    if default_pool:
        shutil.copyfile(TEMPLATES / "base.current", home / "templates" / "base.current")
    try:
        yield home
    finally:
        sweep_host(home)


def config_for(home: Path, **environment: str) -> NodeConfig:
    """Return the settings of a node without a gateway and, unless told otherwise, without egress and a pool."""
    return NodeConfig.from_env(
        {
            "GATEHOUSE_HOME": str(home),
            "GATEHOUSE_NODE_GATEWAY": "0",
            "GATEHOUSE_NODE_EGRESS": "0",
            "GATEHOUSE_POOL_SIZE": "0",
        }
        | environment
    )


def parent_group(home: Path) -> cgroups.CgroupParent:
    """Return the control group below which all sandboxes of this home live."""
    return cgroups.CgroupParent(config_for(home).cgroup_name, cgroups.detect())


def sweep_host(home: Path) -> None:
    """Remove all that a node left, whatever happened to it."""
    parent = parent_group(home)
    parent.sweep(lambda _name: False)
    for root in parent.hierarchies.roots():
        with contextlib.suppress(FileNotFoundError):
            (root / parent.name).rmdir()
    with contextlib.suppress(OSError):
        linux.unmount(str(home / "run" / "egress"))
    shutil.rmtree(home, ignore_errors=True)


def processes_of(home: Path) -> list[int]:
    """Return the living processes in any sandbox of this home, as the host numbers them."""
    parent = parent_group(home)
    found: set[int] = set()
    for name in parent.names():
        found.update(parent.group(name).pids())
    return sorted(pid for pid in found if is_alive(pid))


def is_alive(pid: int) -> bool:
    """Tell whether the process runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def children_of(pid: int) -> list[int]:
    """Return the children of a process's main thread, zombies too."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def command_line(pid: int) -> str:
    """Return the process's arguments, separated by spaces; empty when it is gone or a zombie."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def open_descriptors() -> int:
    """Return how many descriptors this process has."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def loop_devices_of(home: Path) -> list[str]:
    """Return the loop devices that are backed by a file of this home."""
    found = []
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if backing.read_text().startswith(f"{home}/"):
                found.append(backing.parts[3])
    return sorted(found)


def leftovers(home: Path) -> dict[str, list[str]]:
    """Return everything on the host that belongs to a sandbox or prepared member of this home, by kind."""
    mounts = Path("/proc/self/mountinfo").read_text()
    node = home / "node"
    found = {
        "groups": sorted(parent_group(home).names()),
        "processes": [str(pid) for pid in processes_of(home)],
        "members": _names(node / "members"),
        "runtime": _names(node / "runtime"),
        "stored": _names(node / "sandboxes"),
        "sockets": _names(home / "run" / "guests"),
        "doors": _names(home / "run" / "egress"),
        "mounts": [line for line in mounts.splitlines() if f"{home}/" in line and f" {home}/run/egress " not in line],
        "loops": loop_devices_of(home),
    }
    return {kind: names for kind, names in found.items() if names}


def _names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir()) if directory.is_dir() else []


async def eventually(condition: Callable[[], Any], *, within_s: float = PATIENCE_S) -> None:
    """Return when the condition holds; fail with its last value when it does not in time."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline, value
        await asyncio.sleep(0.005)


@dataclass
class Rig:
    """A node that runs in this process."""

    home: Path
    node: Node
    handed_over: bool = False

    @property
    def keeper(self) -> Keeper:
        """The node's keeper."""
        return self.node.keeper

    async def start(self, sandbox_id: str | None = None, **changes: Any) -> Sandbox:
        """Start a small sandbox of Acme's."""
        return await self.keeper.start(spec(sandbox_id or new_id(), **changes))

    async def run(self, sandbox: Sandbox, command: str, *, user: str = "user") -> guestcalls.Result:
        """Run a shell command line in the sandbox."""
        return await guestcalls.run(sandbox.runtime.socket_path(sandbox.state), command, user=user)

    def events(self, sandbox_id: str) -> list[dict[str, Any]]:
        """Return the sandbox's events that are not acknowledged."""
        return [event for event in self.keeper.spool.after(0, 10**6) if event["sandbox"] == sandbox_id]

    def codes(self, sandbox_id: str) -> list[str]:
        """Return the codes of these events, oldest first."""
        return [event["code"] for event in self.events(sandbox_id)]

    def pids(self, sandbox: Sandbox) -> list[int]:
        """Return the sandbox's processes, as the host numbers them."""
        return sandbox.runtime.cgroup(sandbox.state).pids()

    async def stop_all(self) -> None:
        """End every sandbox and wait until nothing of them is left."""
        keeper = self.keeper
        await asyncio.gather(*(keeper.stop(name, None) for name in [*keeper.starting, *keeper.sandboxes]))
        await self.is_clean()

    async def is_clean(self) -> None:
        """Return when nothing of any sandbox is left on the host; fail when something stays."""
        with contextlib.suppress(AssertionError):
            await eventually(lambda: leftovers(self.home) == {} and self.node.maker._slots.used == 0)
        assert (leftovers(self.home), self.node.maker._slots.used) == ({}, 0)

    async def hand_over(self) -> None:
        """Stop this node as a restart does: its sandboxes live on, for the next one to adopt."""
        await self.node.stop(end_services=True)
        # In a process of its own these would have gone with it.
        for runtime in (self.node.container, self.node.process):
            for member in runtime._running.values():
                member.log.close()
        self.handed_over = True

    def use_guest(self, script: str) -> None:
        """Give the sandboxes that are started from now on another guest agent: a script for sh or python3."""
        first, _, rest = script.partition("\n")
        # In a jail an agent first says that it is enclosed, and closes what set the jail up.
        said = {
            "#!/bin/sh": '[ "$1" != enclose ] || echo >&4; exec 4>&- 5>&- 6>&-',
            "#!/usr/bin/python3": "import os, sys; 'enclose' in sys.argv and os.write(4, b'1'); os.closerange(4, 9)",
        }.get(first, "")
        path = self.home / "other-guest"
        path.write_text(f"{first}\n{said}\n{rest}")
        self.node.maker.prepare_store(path)

    def use_real_guest(self) -> None:
        """Give the sandboxes that are started from now on the real guest agent again."""
        self.node.maker.prepare_store(ROOT / "sandboxes" / "guest" / "bin" / "gatehouse-guest")


@contextlib.asynccontextmanager
async def running_node(home: Path, **environment: str) -> AsyncIterator[Rig]:
    """Run a node in this process; ends it and its sandboxes afterwards."""
    linux.set_child_subreaper()
    umask = os.umask(0o077)
    rig = Rig(home, Node(config_for(home, **environment)))
    try:
        await rig.node.start()
        yield rig
    finally:
        os.umask(umask)
        if not rig.handed_over:
            await _end(rig)


async def _end(rig: Rig) -> None:
    with contextlib.suppress(Exception):
        await asyncio.gather(*(rig.keeper.stop(name, None) for name in list(rig.keeper.sandboxes)))
    await rig.node.stop(end_services=True)
