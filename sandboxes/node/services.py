"""The unprivileged services that the node starts and watches. They outlive it: a new node takes them back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import signal
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import structlog

from corekit.localaddresses import local_addresses
from sandboxes.node import pidnotes

if TYPE_CHECKING:
    from pathlib import Path

    from sandboxes.node.config import NodeConfig

logger = structlog.get_logger()

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 5.0
_STOP_TIMEOUT_S = 5.0
_UNPRIVILEGED = ("setpriv", "--no-new-privs", "--bounding-set=-all")
_OWN = "GATEHOUSE_EGRESS_OWN"
_PASSED_ON = ("PATH", "LANG", "GATEHOUSE_LOG_LEVEL", "VIRTUAL_ENV")


class Service(ABC):
    """Keeps one process running as a user of its own. What it listens on is the node's and outlives the process."""

    name: ClassVar[str]
    module: ClassVar[str]
    listener_variable: ClassVar[str]
    passed_on: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: NodeConfig) -> None:
        self._config = config
        self._note = config.run / f"{self.name}.json"
        self._listener: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None
        # The one that this process started; of one that an earlier node started only the pid is known.
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def user(self) -> str:
        """The account that it runs as."""
        return f"gatehouse-{self.name}"

    @abstractmethod
    def _listen(self) -> socket.socket:
        """Return what the process listens on; exits with one sentence when that can't be had."""

    @abstractmethod
    def _confinement(self) -> tuple[str, ...]:
        """Return the command that enters the network of the process and starts the rest of its arguments in it."""

    def _environment(self) -> dict[str, str]:
        """Return the variables that only this service gets."""
        return {}

    def start(self) -> None:
        """Take back a process that is still there, else begin to listen; then watch in the background.

        Exits with one sentence when the service's user is missing, or its listener can't be had.
        """
        _user(self.user)
        pid = self.running_pid()
        if pid is None:
            self._listener = self._listen()
        self._task = asyncio.create_task(self._watch(pid), name=self.name)

    async def stop(self, *, end: bool) -> None:
        """Stop watching; `end` also ends the process."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        pid = self.running_pid()
        if end and pid is not None:
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

    def running_pid(self) -> int | None:
        """Return the process that this or an earlier node started, if it still runs."""
        return pidnotes.running(self._note)

    async def _watch(self, pid: int | None) -> None:
        pause = _FIRST_PAUSE_S
        while True:
            began = asyncio.get_running_loop().time()
            try:
                await _gone(self._spawn() if pid is None else pid)
                logger.error("service_ended", service=self.name)
            except (OSError, SystemExit) as error:
                # The sandboxes need their node, whatever is wrong with the ways in and out of them.
                logger.error("service_not_started", service=self.name, error=str(error))
            self._bury()
            pid = None
            lived = asyncio.get_running_loop().time() - began
            pause = _FIRST_PAUSE_S if lived > _LONGEST_PAUSE_S else min(pause * 2, _LONGEST_PAUSE_S)
            await asyncio.sleep(pause)

    def _bury(self) -> None:
        if self._process is not None and self._process.poll() is not None:
            self._process = None

    def _group(self, user: pwd.struct_passwd) -> int:
        return user.pw_gid

    def _more_groups(self, user: pwd.struct_passwd) -> str:
        return "--clear-groups"

    def _spawn(self) -> int:
        if self._listener is None:
            self._listener = self._listen()
        user = _user(self.user)
        environment = {name: os.environ[name] for name in (*_PASSED_ON, *self.passed_on) if name in os.environ}
        environment |= {
            "GATEHOUSE_HOME": str(self._config.home),
            self.listener_variable: str(self._listener.fileno()),
            **self._environment(),
        }
        groups = (self._more_groups(user), f"--regid={self._group(user)}")
        become = (*_UNPRIVILEGED, *groups, f"--reuid={user.pw_uid}", "--")
        # Not the event loop's own child: the pidfd tells of its end, also of one that an earlier node started.
        self._process = subprocess.Popen(
            [*self._confinement(), *become, sys.executable, "-m", self.module],
            stdin=subprocess.DEVNULL,
            env=environment,
            pass_fds=[self._listener.fileno()],
            umask=0o077,
            start_new_session=True,
            cwd="/",
        )
        pid = self._process.pid
        pidnotes.write(self._note, pid)
        logger.info("service_started", service=self.name, pid=pid)
        return pid


class GatewayService(Service):
    """The way in."""

    name = "gateway"
    module = "sandboxes.gateway"
    listener_variable = "GATEHOUSE_LISTEN_FD"
    passed_on = ("GATEHOUSE_DOMAIN",)

    def _listen(self) -> socket.socket:
        return bind_public(self._config.bind, self._config.port)

    def _confinement(self) -> tuple[str, ...]:
        # The gateway connects to unix sockets only, so it has no network but the public listener that it is handed.
        # Connections made from here would show the host's interfaces to whoever holds their other end: a guest agent.
        return ("unshare", "--net", "--")

    def _environment(self) -> dict[str, str]:
        return {"GATEHOUSE_PORT": str(self._config.port)}


class EgressService(Service):
    """The way out."""

    name = "egress"
    module = "sandboxes.egress"
    listener_variable = "GATEHOUSE_EGRESS_CONTROL_FD"
    passed_on = (
        "GATEHOUSE_EGRESS_IPV6",
        "GATEHOUSE_EGRESS_CA_FILE",
        _OWN,
    )

    def _listen(self) -> socket.socket:
        return listen_for_node(self._config.egress_socket)

    def _group(self, user: pwd.struct_passwd) -> int:
        return self._config.egress_gid

    def _more_groups(self, user: pwd.struct_passwd) -> str:
        # By its user's own it reaches the sockets of web and the logins of proxies.
        return f"--groups={user.pw_gid}"

    def _environment(self) -> dict[str, str]:
        # As decided here: the second lock lets these be asked, and no others.
        variables = {
            "GATEHOUSE_EGRESS_RESOLVERS": ",".join(map(str, self._config.egress_resolvers)),
            "GATEHOUSE_BROKER_SOCKET": str(self._config.run / "broker.sock"),
        }
        if self._config.egress_namespace is not None:
            # From there it would not see which addresses are this host's.
            own = {*map(str, local_addresses()), *os.environ.get(_OWN, "").replace(",", " ").split()}
            variables[_OWN] = ",".join(sorted(own))
        return variables

    def _confinement(self) -> tuple[str, ...]:
        namespace = self._config.egress_namespace
        return () if namespace is None else ("nsenter", f"--net={namespace}", "--")


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


def listen_for_node(path: Path) -> socket.socket:
    """Return egress's control socket, to which root alone may connect."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen(8)
    return listener


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
