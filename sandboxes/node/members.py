"""One prepared sandbox: made ahead of time, handed out once, never used again."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from sandboxes.node import linux
from sandboxes.node.cgroups import Cgroup, CgroupParent, Limits
from sandboxes.node.doors import Doors
from sandboxes.node.errors import StartFailed
from sandboxes.node.forking import Zygote
from sandboxes.node.logpipe import LogPipe
from sandboxes.node.order import DOOR_PLACE, Order
from sandboxes.node.runtimes import oci
from sandboxes.node.slots import UIDS_PER_SLOT, Slots, uid_base

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandboxes.node.config import NodeConfig
    from sandboxes.node.images import BlankDisks, Templates
    from sandboxes.node.spec import Recipe

logger = structlog.get_logger()

_MIB = 1024 * 1024
_PREPARE_TIMEOUT_S = 20.0
_BLOCK_BYTES_PER_S = 256 * _MIB
_OPEN_FILES = 16_384
_PIPE_DEFAULT_BYTES = 60_000


@dataclass(frozen=True)
class Identity:
    """What only one member has: its slot, the host uid that is root inside, its names. `stage` is where its root is."""

    slot: int
    uid_base: int
    hostname: str
    machine_id: str
    stage: str
    cgroup_name: str


@dataclass(frozen=True)
class Launch:
    """How a runtime starts the first process of one member. Fields are explained at `Order`.

    `fifo` is where that process waits to be let go; without one it is the guest agent already and waits for its
    configuration. `config` is written to config.json. `pids` is how many processes and threads of the host the sandbox
    takes for those that it may have.
    """

    kind: str
    command: tuple[str, ...]
    config: str = ""
    fifo: Path | None = None
    syscall_filter: str = ""
    hidden_mounts: tuple[str, ...] = ()
    manages_cgroups: bool = False
    pids: int | None = None


@dataclass
class Member:
    """A prepared sandbox. `device` is its disk as `major:minor`, `pid` its first process as the host numbers it."""

    recipe: Recipe
    slot: int
    directory: Path
    cgroup: Cgroup
    stdin_fd: int
    log: LogPipe
    device: str = ""
    pid: int = 0
    fifo: Path | None = None
    fifo_fd: int = -1

    @property
    def waiting(self) -> bool:
        """Whether it still waits; a member whose shell died has closed its output."""
        return not self.log.closed.done()

    def hand_out(self, guest_config: dict[str, object]) -> None:
        """Let the guest agent start, with its configuration on stdin.

        A container's first process waits at its runtime's fifo: crun's for a byte to read, runc's for somebody who
        reads. A descriptor for both, with a byte in it, is what either runtime's `start` command comes down to.
        `close_fifo` follows when the guest answers.
        """
        payload = json.dumps(guest_config).encode()
        if len(payload) > _PIPE_DEFAULT_BYTES:
            fcntl.fcntl(self.stdin_fd, fcntl.F_SETPIPE_SZ, len(payload))
        # Nobody may read before the fifo is written: a write that waited for room would stop the whole node.
        os.set_blocking(self.stdin_fd, False)
        with contextlib.suppress(BrokenPipeError):  # the log then says why it died
            if os.write(self.stdin_fd, payload) < len(payload):
                raise StartFailed("The guest's configuration is too large for its pipe.", reason="configuration")
        self.close_stdin()
        if self.fifo is not None:
            self.fifo_fd = os.open(self.fifo, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            os.write(self.fifo_fd, b"0")

    def close_fifo(self) -> None:
        """Drop the fifo once it has served. Safe to repeat."""
        if self.fifo_fd >= 0:
            os.close(self.fifo_fd)
            self.fifo_fd = -1

    def close_stdin(self) -> None:
        """Hang up. Safe to repeat."""
        if self.stdin_fd >= 0:
            os.close(self.stdin_fd)
            self.stdin_fd = -1


class MemberMaker:
    """Makes members and takes them apart again; owns slots, disks and control groups of every tier that has them."""

    def __init__(
        self, config: NodeConfig, parent: CgroupParent, slots: Slots, templates: Templates, disks: BlankDisks
    ) -> None:
        self._config = config
        self._parent = parent
        self._slots = slots
        self._templates = templates
        self._disks = disks
        self._zygote = Zygote()
        self._stage = _stage_outside(config.home)
        # Slots of the sandboxes that this node found running.
        self._adopted: set[int] = set()
        self._guest_layer = config.store / "guest-layer"
        self.doors = Doors(config.doors)
        self._members = config.store / "members"
        # Where the OCI runtime keeps its own notes.
        self.states = config.store / "runtime"

    def prepare_store(self, guest_binary: Path) -> None:
        """Make the directories and the layer that carries the guest agent into every sandbox."""
        for directory in (self._members, self.states, self._guest_layer):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self._config.run / "guests").mkdir(parents=True, exist_ok=True)
        os.chown(self._config.run / "guests", 0, self._config.gateway_gid)
        (self._config.run / "guests").chmod(0o750)
        self.doors.open()
        target = self._guest_layer / oci.GUEST_PATH.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        door = self._guest_layer / DOOR_PLACE
        door.mkdir(exist_ok=True)
        for directory in (self._guest_layer, *target.parents[:2], door):
            directory.chmod(0o755)
        fresh = target.with_name("guest.new")
        shutil.copyfile(guest_binary, fresh)
        fresh.chmod(0o755)
        # Replaced, not rewritten: running sandboxes keep the file that they started with.
        fresh.replace(target)

    async def make(self, recipe: Recipe, launch: Callable[[Identity], Launch]) -> Member:
        """Prepare one member, which `launch` says how to start.

        Raises StartFailed, UnknownBuild or NoRoom; on failure nothing is left behind.
        """
        rootfs = self._templates.rootfs(recipe.build)
        member, stdin_fd, output_fd = self._begin(recipe)
        try:
            try:
                identity = self._identity(member)
                how = launch(identity)
                member.fifo = how.fifo
                order = await asyncio.to_thread(self._lay_out, member, identity, rootfs, how)
                await self._zygote.order(order, stdin_fd, output_fd)
            finally:
                os.close(stdin_fd)
                os.close(output_fd)
            await self._await_ready(member)
            if how.manages_cgroups:  # runc adds the devices that it thinks a container should have
                member.cgroup.limit_devices()
        except BaseException as error:
            await self.discard(member)
            if isinstance(error, TimeoutError | OSError):
                raise StartFailed(f"A sandbox could not be prepared: {error!r}", reason="prepare") from error
            raise
        return member

    def _begin(self, recipe: Recipe) -> tuple[Member, int, int]:
        """Return an empty member and the far ends of its stdin and its output."""
        slot = self._slots.take()
        try:
            stdin_read, stdin_write = os.pipe2(os.O_CLOEXEC)
            output_read, output_write = os.pipe2(os.O_CLOEXEC)
        except OSError as error:
            self._slots.release(slot)
            raise StartFailed(f"A sandbox could not be prepared: {error!r}", reason="prepare") from error
        group, log = self._parent.group(str(slot)), LogPipe(output_read)
        member = Member(recipe, slot, self._members / str(slot), group, stdin_write, log)
        return member, stdin_read, output_write

    async def _await_ready(self, member: Member) -> None:
        async with asyncio.timeout(_PREPARE_TIMEOUT_S):
            word, _, rest = (await asyncio.shield(member.log.verdict)).partition(" ")
        if word != "ready":
            words = member.log.text[-500:].strip() or rest
            raise StartFailed(f"A sandbox could not be prepared: {words}", reason="prepare")
        member.pid = _first_process(member.cgroup)
        member.device = rest
        member.cgroup.limit_block_io(_BLOCK_BYTES_PER_S, rest)

    def _identity(self, member: Member) -> Identity:
        machine_id = secrets.token_hex(16)
        return Identity(
            slot=member.slot,
            uid_base=uid_base(member.slot),
            hostname=f"sandbox-{machine_id[:8]}",
            machine_id=machine_id,
            stage=self._stage,
            cgroup_name=member.cgroup.name,
        )

    def _lay_out(self, member: Member, identity: Identity, rootfs: Path, how: Launch) -> Order:
        recipe, pids = member.recipe, how.pids or member.recipe.resources.pids
        shutil.rmtree(member.directory, ignore_errors=True)
        member.directory.mkdir(mode=0o700)
        self._disks.copy(recipe.resources.disk_mib, member.directory / "disk.img")
        self._parent.create(str(member.slot))
        member.cgroup.limit(Limits(recipe.resources.cpu_milli, recipe.resources.memory_mib * _MIB, pids))
        (member.directory / "config.json").write_text(how.config)
        socket_path = self.socket_path(member.slot)
        socket_path.parent.mkdir(exist_ok=True)
        os.chown(socket_path.parent, 0, self._config.gateway_gid)
        socket_path.parent.chmod(0o750)
        door = "" if recipe.network == "none" else str(self.doors.make(member.slot))
        return Order(
            kind=how.kind,
            profile=recipe.profile,
            directory=str(member.directory),
            stage=self._stage,
            template_root=str(rootfs),
            guest_layer=str(self._guest_layer),
            socket_path=str(socket_path),
            socket_gid=self._config.gateway_gid,
            uid_base=identity.uid_base,
            uid_count=UIDS_PER_SLOT,
            hostname=identity.hostname,
            machine_id=identity.machine_id,
            hidden_mounts=how.hidden_mounts,
            cgroup_files=tuple(member.cgroup.join_files()),
            limits={
                "RLIMIT_NPROC": pids,
                "RLIMIT_NOFILE": _OPEN_FILES,
                "RLIMIT_FSIZE": recipe.resources.disk_mib * _MIB,
                "RLIMIT_CORE": 0,
            },
            command=how.command,
            syscall_filter=how.syscall_filter,
            network=recipe.network,
            door=door,
        )

    def socket_path(self, slot: int) -> Path:
        """Return where the guest agent of a slot listens."""
        return self._config.run / "guests" / str(slot) / "guest.sock"

    def group(self, slot: int) -> Cgroup:
        """Return the control group of a slot."""
        return self._parent.group(str(slot))

    def directory(self, slot: int) -> Path:
        """Return the private directory of a slot."""
        return self._members / str(slot)

    def notes(self, slot: int) -> Path:
        """Return where an OCI runtime keeps its notes of a slot."""
        return self.states / f"slot-{slot}"

    async def discard(self, member: Member) -> None:
        """End a member and remove all that was made for it."""
        member.close_stdin()
        member.close_fifo()
        member.log.close()
        await self.remove(member.slot)

    async def remove(self, slot: int) -> None:
        """Kill what still runs in a slot, remove its files and give the slot back.

        A slot whose control group can't be removed, because something in it does not die, is not given back: nobody
        else may get its uids.
        """
        self._adopted.discard(slot)
        if await asyncio.to_thread(self._remove, slot):
            self._slots.release(slot)
        else:
            logger.error("slot_not_released", slot=slot)

    def _remove(self, slot: int) -> bool:
        group = self._parent.group(str(slot))
        pids = group.pids()
        with contextlib.suppress(FileNotFoundError):
            group.kill()
        empty = group.destroy(patience_s=2.0)
        for pid in pids:
            linux.reap(pid, patience_s=1.0)
        # None of these can be written by a guest: its disk was mounted only in its own mount namespace.
        shutil.rmtree(self._members / str(slot), ignore_errors=True)
        shutil.rmtree(self.notes(slot), ignore_errors=True)
        shutil.rmtree(self.socket_path(slot).parent, ignore_errors=True)
        self.doors.remove(slot)
        return empty

    def adopt(self, slot: int) -> None:
        """Keep a slot for a sandbox that this node found running."""
        self._slots.claim(slot)
        self._adopted.add(slot)

    async def sweep(self) -> list[str]:
        """After all adoptions: remove every slot that no adopted sandbox owns; return what was found."""
        found = set(self._parent.names())
        for directory in (self._members, self._config.run / "guests"):
            found.update(entry.name for entry in directory.iterdir())
        found.update(self.doors.names())
        keep = {self.notes(slot).name for slot in self._adopted}
        for entry in self.states.iterdir():
            if entry.name not in keep:
                shutil.rmtree(entry, ignore_errors=True)
        strays = sorted(name for name in found if name.isdigit() and int(name) not in self._adopted)
        for name in strays:
            if not await asyncio.to_thread(self._remove, int(name)):
                self._slots.claim(int(name))
        return strays

    async def stop(self) -> None:
        """End the zygote."""
        await self._zygote.stop()
        self.doors.close()


def _stage_outside(home: Path) -> str:
    """Return a directory of every Linux host that does not lead to `home`: each member covers it for itself."""
    candidates = (Path(name) for name in ("/mnt", "/media", "/srv", "/opt"))
    found = next((path for path in candidates if path.is_dir() and not home.is_relative_to(path)), None)
    if found is None:
        raise SystemExit("One of the directories /mnt, /media, /srv or /opt must exist.")
    return str(found)


def _first_process(group: Cgroup) -> int:
    """Return the host's number of the container's pid 1."""
    # Not from a pid file, which the guest of a running container may have outlived.
    first = [pid for pid in group.pids() if linux.is_first_of_pid_namespace(pid)]
    if not first:
        raise StartFailed("The container ended at once.", reason="guest_gone")
    # gVisor makes a namespace in the namespace; the outer one came first.
    return min(first, key=lambda pid: linux.process_start_time(pid) or 0)


def process_matches(pid: int, start_time: int, group: Cgroup) -> bool:
    """Tell whether `pid` is still the process that was started: same start time, in the sandbox's own group."""
    return linux.process_start_time(pid) == start_time and pid in group.pids()
