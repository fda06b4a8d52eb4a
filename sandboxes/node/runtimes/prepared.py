"""What the tiers share whose sandboxes are prepared members: hand-out, end, adoption. Contract: `base.Runtime`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from sandboxes.node import doors, freezing, guestclient, linux
from sandboxes.node.errors import StartFailed, TierUnavailable
from sandboxes.node.members import Identity, Launch, Member, MemberMaker, process_matches
from sandboxes.node.order import DNS_PORT, DOOR_PLACE, PROXY_PORT, TRANSPARENT_PORT
from sandboxes.node.pool import Pool
from sandboxes.node.runtimes.base import Availability, Exit, State

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sandboxes.node.cgroups import Cgroup, Stats
    from sandboxes.node.spec import Recipe, Spec

_START_TIMEOUT_S = 15.0
_SIGNALLED = 128
_PROXY = f"http://127.0.0.1:{PROXY_PORT}"
_DIRECT = "localhost,127.0.0.1,::1"
# Programs disagree on which of the two spellings counts.
_PROXY_VARIABLES = {
    spelling(name): value
    for name, value in (("http_proxy", _PROXY), ("https_proxy", _PROXY), ("no_proxy", _DIRECT))
    for spelling in (str.lower, str.upper)
}
# Libraries that bring authorities of their own would know neither those that the template has from its host, nor the
# sandbox's own, which comes and goes with its header rules.
_TRUST_VARIABLES = dict.fromkeys(
    (
        *("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_CERT"),
        *("NODE_EXTRA_CA_CERTS", "AWS_CA_BUNDLE", "DENO_CERT"),
    ),
    f"/{DOOR_PLACE}/{doors.BUNDLE}",
)


class PreparedRuntime(ABC):
    """Starts sandboxes from a pool of prepared members. A tier adds how a member's first process comes up."""

    tier: ClassVar[str]
    profiles: ClassVar[tuple[str, ...]]

    def __init__(self, maker: MemberMaker, availability: Availability, pool_size: int) -> None:
        self._maker = maker
        self._availability = availability
        self._boot_id = linux.boot_id()
        self.pool = Pool(pool_size, self._make, maker.discard)
        # Logs of the sandboxes that this process started: the end of one's output says why it died.
        self._running: dict[int, Member] = {}

    @abstractmethod
    def _launch(self, recipe: Recipe, identity: Identity) -> Launch:
        """Return how the first process of one member is started. Called only where the tier is available."""

    def probe(self) -> Availability:
        """Tell what was found out at the start of the node."""
        return self._availability

    def warm(self, recipe: Recipe, count: int | None = None) -> None:
        """Begin to prepare sandboxes of a recipe; `count` of them, or as many as the pool may hold."""
        if self._availability.available:
            self.pool.warm(recipe, count)

    async def _make(self, recipe: Recipe) -> Member:
        if not self._availability.available:
            raise TierUnavailable(
                f"{self._availability.reason} {self._availability.fix}", tier=self.tier, fix=self._availability.fix
            )
        return await self._maker.make(recipe, lambda identity: self._launch(recipe, identity))

    async def start(self, spec: Spec, open_way: Callable[[int], Awaitable[None]]) -> State:
        """Hand a prepared member out under the sandbox's id and wait until its guest agent answers."""
        if spec.profile not in self.profiles:
            raise TierUnavailable(
                f"Profile {spec.profile} is not available at tier {self.tier}; use {' or '.join(self.profiles)}.",
                tier=self.tier,
            )
        member = await self.pool.take(spec.recipe)
        try:
            way = asyncio.ensure_future(open_way(member.slot))
            try:
                member.hand_out(_guest_config(spec))
                await self._await_guest(member)
                await way
            finally:
                way.cancel()
                await asyncio.gather(way, return_exceptions=True)
            state = self._describe(member)
        except BaseException:
            await self._maker.discard(member)
            raise
        member.close_fifo()
        self._running[member.slot] = member
        return state

    async def _await_guest(self, member: Member) -> None:
        answer = asyncio.ensure_future(guestclient.answers(str(self._maker.socket_path(member.slot))))
        member.log.closed.add_done_callback(lambda _: answer.cancel())
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                await asyncio.wait({answer})
            if answer.cancelled() or not answer.result():
                raise StartFailed(f"The sandbox did not start: {_last_words(member)}", reason="guest_silent")
        except TimeoutError:
            raise StartFailed(
                f"The guest agent did not answer within {_START_TIMEOUT_S:.0f} s: {_last_words(member)}",
                reason="guest_timeout",
            ) from None
        finally:
            answer.cancel()

    def _describe(self, member: Member) -> State:
        start_time = linux.process_start_time(member.pid)
        if start_time is None:
            raise StartFailed("The sandbox ended at once.", reason="guest_gone")
        return {"slot": member.slot, "pid": member.pid, "start_time": start_time, "boot_id": self._boot_id}

    async def wait(self, state: State) -> Exit:
        """Wait on a pidfd; afterwards the control group tells whether memory ran out."""
        pid = state["pid"]
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return self._exit_of(state)
        if linux.process_start_time(pid) != state["start_time"]:
            os.close(pidfd)
            return self._exit_of(state)
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()
        loop.add_reader(pidfd, gone.set)
        try:
            await gone.wait()
        finally:
            loop.remove_reader(pidfd)
            os.close(pidfd)
        # Only a sandbox that this process started is its child; an adopted one is reaped by the supervisor.
        with contextlib.suppress(ChildProcessError):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found and not _was_killed(status):
                return Exit(out_of_memory=False, last_words=self._last_words(state))
        return self._exit_of(state)

    def _exit_of(self, state: State) -> Exit:
        return Exit(out_of_memory=self.stats(state).oom_kills > 0, last_words=self._last_words(state))

    def _last_words(self, state: State) -> str:
        member = self._running.get(state["slot"])
        return "" if member is None else _last_words(member)

    async def pause(self, state: State) -> None:
        """Freeze the control group."""
        await freezing.freeze(self.cgroup(state))

    async def resume(self, state: State) -> None:
        """Thaw the control group."""
        await freezing.thaw(self.cgroup(state))

    async def stop(self, state: State) -> None:
        """Kill the control group; the pid namespace goes with its first process."""
        group = self.cgroup(state)
        with contextlib.suppress(FileNotFoundError):
            group.kill()
        await self.wait(state)

    async def discard(self, state: State) -> None:
        """Remove control groups, disk, socket and the runtime's own notes."""
        member = self._running.pop(state["slot"], None)
        if member is not None:
            member.log.close()
        await self._maker.remove(state["slot"])

    def adopt(self, state: State) -> bool:
        """Take a sandbox back when pid, start time, boot and control group all still agree."""
        if state.get("boot_id") != self._boot_id:
            return False
        if not process_matches(state["pid"], state["start_time"], self.cgroup(state)):
            return False
        self._maker.adopt(state["slot"])
        return True

    async def sweep(self) -> list[str]:
        """Remove the slots of members and sandboxes that nobody owns."""
        return await self._maker.sweep()

    def cgroup(self, state: State) -> Cgroup:
        """Return the sandbox's control group."""
        return self._maker.group(state["slot"])

    def stats(self, state: State) -> Stats:
        """Read the control group's counters."""
        return self.cgroup(state).stats()

    def disk_used_bytes(self, state: State) -> int:
        """Return the blocks that the sandbox's disk image takes on the host."""
        try:
            return (self._maker.directory(state["slot"]) / "disk.img").stat().st_blocks * 512
        except FileNotFoundError:
            return 0

    def slot(self, state: State) -> int:
        """Return the slot that the sandbox has for as long as anything of it is left."""
        return int(state["slot"])

    def socket_path(self, state: State) -> str:
        """Return the guest's listener as the gateway reaches it."""
        return str(self._maker.socket_path(state["slot"]))


def _was_killed(status: int) -> bool:
    """Tell whether the kernel or the node ended the first process. gVisor's says so for the one that it waits for."""
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status) == signal.SIGKILL
    return os.WEXITSTATUS(status) >= _SIGNALLED


def _guest_config(spec: Spec) -> dict[str, object]:
    config: dict[str, object] = {
        "sandbox_id": spec.id,
        "template_id": spec.template_id,
        "env": spec.env if spec.network_mode == "none" else _PROXY_VARIABLES | _TRUST_VARIABLES | spec.env,
        "default_user": "user",
        # The agent keeps a share of it for itself.
        "max_processes": spec.resources.pids,
        "memory_mib": spec.resources.memory_mib,
        "cpus": -(-spec.resources.cpu_milli // 1000),
        "network": _guest_network(spec.network_mode),
    }
    if spec.profile == "hardened":
        config["only_user"] = "user"
    return config


def _guest_network(mode: str) -> dict[str, object]:
    if mode == "none":
        return {"mode": mode}
    ports = {"proxy_port": PROXY_PORT, "transparent_port": TRANSPARENT_PORT, "dns_port": DNS_PORT}
    return {"mode": mode, "socket": f"/{DOOR_PLACE}/{doors.SOCKET}", **ports}


def _last_words(member: Member) -> str:
    return member.log.text.strip().splitlines()[-1][:300] if member.log.text.strip() else "no output"
