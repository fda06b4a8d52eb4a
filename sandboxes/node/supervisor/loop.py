"""Keeps a handful of processes running: one thread, no polling once everything is ready."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sandboxes.node import linux
from sandboxes.node.supervisor import SetupError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_FIRST_DELAY_S = 0.1
_LONGEST_DELAY_S = 10.0
# A process that ran this long counts as healthy: its next restart is quick again.
_HEALTHY_S = 30.0
# So often a process may fail before it was ever ready; then the cause is not chance.
_FAILED_STARTS = 3
_READY_POLL_S = 0.02
_SLOW_START_S = 30.0
_SLOW_POLL_S = 0.5
_PR_SET_NO_NEW_PRIVS = 38
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True)
class Account:
    """Whom a process becomes. `groups` are its supplementary groups."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


@dataclass(frozen=True)
class Service:
    """One process to keep. `after` names services that must be ready first; `patience_s` is the time to stop."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    directory: str
    account: Account | None = None
    descriptors: tuple[int, ...] = ()
    umask: int = 0o022
    after: tuple[str, ...] = ()
    is_ready: Callable[[], bool] = lambda: True
    patience_s: float = 10.0


@dataclass
class _Child:
    service: Service
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    delay_s: float = _FIRST_DELAY_S
    failed_starts: int = 0
    start_at: float | None = 0.0
    was_ready: bool = False


def _become(account: Account | None, supervisor: int) -> None:
    """Run in the new process after its user was changed, for a change of user clears the death signal."""
    linux.set_parent_death_signal(signal.SIGTERM)
    if os.getppid() != supervisor:
        os._exit(1)
    if account is not None:
        # Not for root's node: sandboxes inherit the flag, and sudo inside them would stop working.
        ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def start(service: Service) -> subprocess.Popen[bytes]:
    """Start a service's process as its user, in a session of its own, without any descriptor but those listed."""
    account, supervisor = service.account, os.getpid()
    try:
        return subprocess.Popen(
            service.command,
            cwd=service.directory,
            env=dict(service.environment),
            stdin=subprocess.DEVNULL,
            pass_fds=service.descriptors,
            start_new_session=True,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=account.groups if account else None,
            umask=service.umask,
            preexec_fn=lambda: _become(account, supervisor),
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise SetupError(f"{service.name} cannot be started: {error}.") from error


@dataclass
class Supervisor:
    """Starts services, restarts what dies and stops all when asked. Use once.

    `after` of each service rules the order of starting; they are stopped in the order given.
    """

    services: Sequence[Service]
    say: Callable[[str], None]
    on_ready: Callable[[float], None] = lambda _seconds: None
    is_ready: Callable[[], bool] = lambda: True
    _children: dict[str, _Child] = field(default_factory=dict)
    _stopping: bool = False
    _hurry: bool = False
    _announced: bool = False
    _slow: bool = False

    def run(self) -> int:
        """Keep the services until SIGTERM or SIGINT; return 0 then, and 1 when one of them can't be started."""
        started = time.monotonic()
        self._children = {service.name: _Child(service) for service in self.services}
        linux.set_child_subreaper()
        with _wakeup() as wakeup:
            try:
                while not self._stopping:
                    self._start_due()
                    self._announce(started)
                    _wait(wakeup, self._next_event())
                    self._handle_signals(wakeup)
                    self._reap()
            except SetupError as error:
                self.say(str(error))
                self._stop_all(wakeup)
                return 1
            self._stop_all(wakeup)
        return 0

    def _start_due(self) -> None:
        now = time.monotonic()
        for child in self._children.values():
            if child.start_at is None or now < child.start_at:
                continue
            if not all(self._children[name].was_ready for name in child.service.after):
                continue
            child.started_at, child.start_at = now, None
            try:
                child.process = start(child.service)
            except SetupError as error:
                if not child.was_ready:
                    raise
                self._schedule(child, str(error))

    def _announce(self, started: float) -> None:
        """Look at those that are not ready yet, and tell once that all are."""
        if self._announced:
            return
        for child in self._children.values():
            if child.process is not None and not child.was_ready:
                child.was_ready = child.service.is_ready()
        now = time.monotonic()
        if all(child.was_ready for child in self._children.values()) and self.is_ready():
            self._announced = True
            self.on_ready(now - started)
        elif now - started > _SLOW_START_S and not self._slow:
            waiting = [name for name, child in self._children.items() if not child.was_ready]
            self.say(f"still waiting for {', '.join(waiting) or 'the public port'}; its messages are above.")
            self._slow = True

    def _next_event(self) -> float | None:
        """Return in how many seconds something is due, or None when only a signal can change anything."""
        if not self._announced:
            return _SLOW_POLL_S if self._slow else _READY_POLL_S
        due = [child.start_at for child in self._children.values() if child.start_at is not None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _handle_signals(self, wakeup: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            for number in wakeup.recv(64):
                if number in _STOP_SIGNALS:
                    self._hurry = self._stopping
                    self._stopping = True

    def _reap(self) -> None:
        """Take the status of every ended child; orphans of a dead node end here too and are only let go."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for child in self._children.values():
                if child.process is not None and child.process.pid == pid:
                    self._ended(child, os.waitstatus_to_exitcode(status))

    def _ended(self, child: _Child, code: int) -> None:
        assert child.process is not None  # noqa: S101 - the caller found it by its process
        child.process.returncode = code
        child.process = None
        if self._stopping:
            return
        name, how = child.service.name, f"signal {-code}" if code < 0 else f"exit status {code}"
        if not child.was_ready:
            child.failed_starts += 1
            if child.failed_starts >= _FAILED_STARTS:
                raise SetupError(f"{name} fails to start ({how}): its messages above say why.")
        if time.monotonic() - child.started_at > _HEALTHY_S:
            child.delay_s = _FIRST_DELAY_S
        self._schedule(child, f"{name} ended ({how})")

    def _schedule(self, child: _Child, reason: str) -> None:
        self.say(f"{reason.rstrip('.')}; starting it again in {child.delay_s:.1f} s.")
        child.start_at = time.monotonic() + child.delay_s
        child.delay_s = min(child.delay_s * 2, _LONGEST_DELAY_S)

    def _stop_all(self, wakeup: socket.socket) -> None:
        self._stopping = True
        for child in self._children.values():
            self._stop(child, wakeup)

    def _stop(self, child: _Child, wakeup: socket.socket) -> None:
        process = child.process
        if process is None:
            return
        os.kill(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + child.service.patience_s
        while child.process is not None and not self._hurry and time.monotonic() < deadline:
            _wait(wakeup, max(0.0, deadline - time.monotonic()))
            self._handle_signals(wakeup)
            self._reap()
        if child.process is not None:
            self.say(f"{child.service.name} did not stop in time and was killed.")
            os.kill(process.pid, signal.SIGKILL)
            while child.process is not None:
                _wait(wakeup, 1.0)
                self._handle_signals(wakeup)
                self._reap()


@contextlib.contextmanager
def _wakeup() -> Iterator[socket.socket]:
    """Yield a socket that becomes readable with the number of each signal that arrives."""
    reader, writer = socket.socketpair()
    reader.settimeout(0)
    writer.settimeout(0)
    for number in (*_STOP_SIGNALS, signal.SIGCHLD):
        signal.signal(number, lambda _number, _frame: None)
    previous = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(previous)
        reader.close()
        writer.close()


def _wait(wakeup: socket.socket, seconds: float | None) -> None:
    select.select([wakeup], [], [], seconds)
