"""`python -m sandboxes.node`: the keeper of one host. Runs as root, imports no Django, holds no database credential."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import resource
import secrets
import signal
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog
import uvloop
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from corekit import logs
from sandboxes.node import cgroups, hostfacts, hostsettings, linux
from sandboxes.node.admission import Admission
from sandboxes.node.api import control_app, edge_app
from sandboxes.node.config import NodeConfig
from sandboxes.node.flows import Flows
from sandboxes.node.images import BlankDisks, Templates
from sandboxes.node.keeper import Keeper
from sandboxes.node.members import MemberMaker
from sandboxes.node.routefeed import RouteFeed
from sandboxes.node.runtimes.container import ContainerRuntime
from sandboxes.node.runtimes.process import ProcessRuntime
from sandboxes.node.secondlock import SecondLock
from sandboxes.node.services import EgressService, GatewayService, guest_binary
from sandboxes.node.slots import Slots
from sandboxes.node.sockets import listen
from sandboxes.node.spec import Recipe, Resources
from sandboxes.node.spool import Spool
from sandboxes.node.store import Store, write_private
from sandboxes.node.tap import Tap
from sandboxes.node.trust import Trust
from sandboxes.node.ways import Ways

logger = structlog.get_logger()

# Who asks for a jail first need not wait either; whoever asks for more makes the pool prepare more.
_FEW = 2
_ROOT = Path(__file__).resolve().parents[2]


def _node_id(config: NodeConfig) -> str:
    path = config.store / "node_id"
    # Empty after a host that crashed right after the first start.
    if not path.exists() or not path.read_text().strip():
        write_private(path, secrets.token_hex(8).encode())
    return path.read_text().strip()


def _default_recipes(config: NodeConfig) -> list[Recipe]:
    """Return what is likely to be asked for first: each current template with its own defaults."""
    recipes = []
    for pointer in sorted(config.templates.glob("*.current")):
        build = pointer.read_text().strip()
        try:
            manifest = json.loads((config.templates / build / "manifest.json").read_bytes())
            defaults = manifest["resources"]
            recipes.append(Recipe(build, "container", "workstation", Resources(**defaults), network="transparent"))
        except (OSError, ValueError, KeyError, TypeError):
            logger.warning("template_unreadable", build=build)
    return recipes


class Node:
    """Everything that one node process runs."""

    def __init__(self, config: NodeConfig) -> None:
        self.config = config
        config.run.mkdir(parents=True, exist_ok=True)
        config.store.mkdir(parents=True, exist_ok=True, mode=0o700)
        config.store.chmod(0o700)
        self._lock = _lock(config.store)
        hierarchies = cgroups.detect()
        self._parent = cgroups.CgroupParent(config.cgroup_name, hierarchies)
        self._parent.prepare()
        disks = BlankDisks(config.store)
        disks.prepare()
        templates = Templates(config.templates)
        self.maker = MemberMaker(config, self._parent, Slots(), templates, disks)
        self.maker.prepare_store(guest_binary(_ROOT))
        self.container = ContainerRuntime(self.maker, hierarchies, config.pool_size)
        self.process = ProcessRuntime(self.maker, hierarchies, config.pool_size)
        self.spool = Spool(config.store / "spool")
        self.spool.open()
        store = Store(config.store)
        store.prepare()
        self._second_lock = _second_lock(config) if config.serve_egress else None
        trust = Trust(self.maker.doors, templates)
        self.keeper = Keeper(
            node_id=_node_id(config),
            store=store,
            spool=self.spool,
            feed=RouteFeed(),
            admission=Admission(
                config.store,
                memory_overcommit=config.memory_overcommit,
                disk_overcommit=config.disk_overcommit,
            ),
            runtimes={"container": self.container, "process": self.process},
            ways=Ways(config.egress_socket, self.maker.doors, trust, self._second_lock),
        )
        self.flows = Flows(self.keeper)
        self.gateway = GatewayService(config)
        self.egress = EgressService(config)
        self._runners: list[web.AppRunner] = []
        self._tap: asyncio.Server | None = None

    async def start(self) -> None:
        """Adopt what still runs, then open the doors."""
        await self.keeper.adopt()
        config = self.config
        if self._second_lock is not None:
            await self._second_lock.start()
            self.egress.start()
        self.flows.start()
        self.keeper.ways.start()
        await self._serve(control_app(self.keeper, config.control_uids), "node.sock", config.control_gid)
        await self._serve(edge_app(self.keeper, config.gateway_uids), "edge.sock", config.gateway_gid)
        self._tap = await asyncio.get_running_loop().create_unix_server(
            lambda: Tap(self.keeper, config.gateway_uids), sock=listen(config.run / "tap.sock", config.gateway_gid)
        )
        for recipe in _default_recipes(config):
            self.container.warm(recipe)
            self.process.warm(replace(recipe, tier="process", profile="hardened"), _FEW)
        self.container.pool.start()
        self.process.pool.start()
        if config.serve_gateway:
            self.gateway.start()
        logger.info("node_ready", node_id=self.keeper.node_id, sandboxes=len(self.keeper.sandboxes))
        _tell_supervisor()

    async def _serve(self, app: web.Application, name: str, gid: int) -> None:
        runner = web.AppRunner(app, access_log=None, keepalive_timeout=3600, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        await web.SockSite(runner, listen(self.config.run / name, gid)).start()
        self._runners.append(runner)

    async def stop(self, *, end_services: bool) -> None:
        """Close the doors. Sandboxes go on running; the next node adopts them."""
        self.keeper.feed.close()
        await self.gateway.stop(end=end_services)
        for runner in self._runners:
            await runner.cleanup()
        if self._tap is not None:
            self._tap.close()
        await self.keeper.close()
        await self.egress.stop(end=end_services)
        await self.keeper.ways.stop()
        await self.flows.stop()
        if self._second_lock is not None:
            await self._second_lock.stop(remove=end_services)
        await self.container.pool.stop()
        await self.process.pool.stop()
        await self.maker.stop()
        self._parent.remove_if_empty()
        await self.spool.close()
        os.close(self._lock)


def _second_lock(config: NodeConfig) -> SecondLock:
    return SecondLock(
        config.lock_name, config.egress_uid, config.egress_gid, config.egress_resolvers, config.egress_namespace
    )


def _lock(store: Path) -> int:
    """Return a descriptor that keeps every other node out of the store until it is closed or this process is gone."""
    handle = os.open(store / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise SystemExit(f"Another node already keeps {store.parent}: stop it, or set GATEHOUSE_HOME.") from None
    return handle


def _tell_supervisor() -> None:
    """Say READY=1 to a supervisor that listens on NOTIFY_SOCKET (the protocol of sd_notify(3))."""
    path = os.environ.get("NOTIFY_SOCKET")
    if path:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.connect("\0" + path[1:] if path.startswith("@") else path)
            notify.send(b"READY=1")


async def run(config: NodeConfig) -> None:
    """Run a node until SIGTERM or SIGINT."""
    linux.set_child_subreaper()
    # Each sandbox and each caller takes a few; the usual 1,024 would do for some hundreds.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    node = Node(config)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    await node.start()
    await stopped.wait()
    await node.stop(end_services=True)


def _shorten(record: logging.LogRecord) -> bool:
    """Let a request that is no HTTP be one line in the log: what it held may be secret, and comes in any number."""
    failure = record.exc_info[1] if record.exc_info else None
    if isinstance(failure, (HttpProcessingError, web.RequestPayloadError)):
        record.msg, record.args, record.exc_info = "request_malformed", (), None
        record.levelno, record.levelname = logging.WARNING, "WARNING"
    # A caller that went away before it had its answer is nothing to tell of.
    return not isinstance(failure, ConnectionError)


def main() -> Any:
    """Check what a node needs, then run it."""
    if os.geteuid() != 0:
        raise SystemExit("The node must run as root: it makes namespaces, control groups and mounts.")
    logs.configure("node", os.environ.get("GATEHOUSE_LOG_LEVEL", "INFO"))
    logging.getLogger("aiohttp.server").addFilter(_shorten)
    os.umask(0o077)
    config = NodeConfig.from_env()
    if (reason := hostsettings.refusal(hostfacts.settings_of(config.home))) is not None:
        raise SystemExit(f"This host would undo the isolation of sandboxes: {reason}")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(config))


if __name__ == "__main__":
    main()
