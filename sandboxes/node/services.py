"""The unprivileged services that the node starts and watches. They outlive it: a new node takes them back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import structlog

from sandboxes.node import linux
from sandboxes.node.store import write_private

if TYPE_CHECKING:
    from pathlib import Path

    from sandboxes.node.config import NodeConfig

logger = structlog.get_logger()

_USER = "gatehouse-gateway"
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 5.0
_STOP_TIMEOUT_S = 5.0
# The gateway connects to unix sockets only, so it has no network but the public listener that it is handed. Connections
# made from here would show the host's interfaces to whoever holds their other end: a guest agent.
_CONFINED = ("unshare", "--net", "--", "setpriv", "--clear-groups", "--no-new-privs", "--bounding-set=-all")
_PASSED_ON = ("PATH", "LANG", "GATEHOUSE_DOMAIN", "GATEHOUSE_LOG_LEVEL", "VIRTUAL_ENV")


def bind_public(address: str, port: int) -> socket.socket:
    """Return the listening public socket; exits with one sentence when the port is taken."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
    except OSError as error:
        listener.close()
        raise SystemExit(
            f"Port {port} on {address} can't be used ({error.strerror}): stop what uses it, or set GATEHOUSE_PORT."
        ) from None
    listener.listen(1024)
    return listener


class GatewayService:
    """Keeps one gateway process running as user gatehouse-gateway."""

    def __init__(self, config: NodeConfig) -> None:
        self._config = config
        self._note = config.run / "gateway.json"
        self._listener: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None
        # The one that this process started; of one that an earlier node started only the pid is known.
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Take back a gateway that is still there, else bind the port; then watch in the background.

        Exits with one sentence when the port is taken or the gateway's user is missing.
        """
        _user(_USER)
        pid = self._running_pid()
        if pid is None:
            self._listener = bind_public(self._config.bind, self._config.port)
        self._task = asyncio.create_task(self._watch(pid), name="gateway")

    async def stop(self, *, end_gateway: bool) -> None:
        """Stop watching; `end_gateway` also ends the process."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        pid = self._running_pid()
        if end_gateway and pid is not None:
            os.kill(pid, signal.SIGTERM)
            try:
                async with asyncio.timeout(_STOP_TIMEOUT_S):
                    await _gone(pid)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                await _gone(pid)
            self._bury()
        if self._listener is not None:
            self._listener.close()

    def _running_pid(self) -> int | None:
        try:
            note = json.loads(self._note.read_bytes())
            pid, start_time, boot_id = int(note["pid"]), int(note["start_time"]), note["boot_id"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if boot_id != linux.boot_id():
            return None
        return pid if linux.process_start_time(pid) == start_time else None

    async def _watch(self, pid: int | None) -> None:
        pause = _FIRST_PAUSE_S
        while True:
            began = asyncio.get_running_loop().time()
            try:
                await _gone(self._spawn() if pid is None else pid)
                logger.error("gateway_ended")
            except (OSError, SystemExit) as error:
                # The sandboxes need their node, whatever is wrong with the way in to them.
                logger.error("gateway_not_started", error=str(error))
            self._bury()
            pid = None
            lived = asyncio.get_running_loop().time() - began
            pause = _FIRST_PAUSE_S if lived > _LONGEST_PAUSE_S else min(pause * 2, _LONGEST_PAUSE_S)
            await asyncio.sleep(pause)

    def _bury(self) -> None:
        if self._process is not None and self._process.poll() is not None:
            self._process = None

    def _spawn(self) -> int:
        if self._listener is None:
            self._listener = bind_public(self._config.bind, self._config.port)
        user = _user(_USER)
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        environment |= {
            "GATEHOUSE_HOME": str(self._config.home),
            "GATEHOUSE_PORT": str(self._config.port),
            "GATEHOUSE_LISTEN_FD": str(self._listener.fileno()),
        }
        command = [*_CONFINED, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--"]
        # Not the event loop's own child: the pidfd tells of its end, also of one that an earlier node started.
        self._process = subprocess.Popen(
            [*command, sys.executable, "-m", "sandboxes.gateway"],
            stdin=subprocess.DEVNULL,
            env=environment,
            pass_fds=[self._listener.fileno()],
            umask=0o077,
            start_new_session=True,
            cwd="/",
        )
        pid = self._process.pid
        note = {"pid": pid, "start_time": linux.process_start_time(pid), "boot_id": linux.boot_id()}
        write_private(self._note, json.dumps(note).encode())
        logger.info("gateway_started", pid=pid)
        return pid


def _user(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise SystemExit(f"The user {name} is missing: run `manage.py bootstrap`.") from None


async def _gone(pid: int) -> None:
    """Return when the process has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(pidfd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


def guest_binary(root: Path) -> Path:
    """Return the guest agent; exits with one sentence when it was not built."""
    path = root / "sandboxes" / "guest" / "bin" / "gatehouse-guest"
    if not path.is_file():
        raise SystemExit("The guest agent is missing: run `make guest`.")
    return path
