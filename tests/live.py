"""A complete running Gatehouse for tests: the commands of the README on a home and a port of their own."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import servers

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
_READY_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 30.0


class UnixConnection(http.client.HTTPConnection):
    """An HTTP connection over a unix socket."""

    def __init__(self, path: Path, timeout: float = 60.0) -> None:
        super().__init__("node", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket's path."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


@dataclass
class Stack:
    """One running Gatehouse. `key` belongs to the tenant `default`."""

    home: Path
    port: int
    environment: dict[str, str]
    command: tuple[str, ...] = (str(ROOT / "manage.py"), "up")
    key: str = ""
    process: subprocess.Popen[bytes] | None = None
    log: Path = field(default=Path())

    @property
    def url(self) -> str:
        """The one public URL."""
        return f"http://localhost:{self.port}"

    @property
    def sdk(self) -> dict[str, Any]:
        """The options that point an E2B SDK here."""
        return {"api_key": self.key, "api_url": self.url, "sandbox_url": self.url}

    def manage(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a management command and return what it printed."""
        command = [sys.executable, str(ROOT / "manage.py"), *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, cwd=ROOT, check=False)
        if check and done.returncode != 0:
            raise AssertionError(f"manage.py {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
        return done

    def bootstrap(self) -> None:
        """Make database, tenant and key, as `make run` does before it starts anything."""
        printed = self.manage("bootstrap").stdout
        self.key = re.findall(r"^export E2B_API_KEY=(\S+)$", printed, re.MULTILINE)[0]

    def start(self) -> None:
        """Start all processes and return when the API answers."""
        self.log = self.home / "up.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self.command],
                env=self.environment,
                cwd=ROOT,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"Gatehouse did not start:\n{self.log.read_text()[-6000:]}")
            time.sleep(0.05)

    def answers(self, path: str = "/health") -> bool:
        """Tell whether web answers through the gateway."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def rest(self, method: str, path: str, body: Any = None) -> Any:
        """Call the REST API with `key` and return the answer. Raises HTTPError."""
        request = urllib.request.Request(
            f"{self.url}/api/v1/{path}",
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={"X-API-KEY": self.key, "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or b"null")

    def node(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Ask the node's internal API, as root may."""
        connection = UnixConnection(self.home / "run" / "node.sock")
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None)
            answer = connection.getresponse()
            return json.loads(answer.read())
        finally:
            connection.close()

    def live_ids(self) -> set[str]:
        """Return the sandboxes that really run, as the node sees them."""
        rows = self.node("GET", "/v1/sandboxes")["sandboxes"]
        return {row["id"] for row in rows if row["state"] != "ended"}

    def pid_of(self, service: str) -> int:
        """Return the pid of `node`, `web`, `worker`, `gateway` or `egress` of this stack."""
        if service in ("gateway", "egress"):
            return int(json.loads((self.home / "run" / f"{service}.json").read_text())["pid"])
        deadline = time.monotonic() + 10
        # Right after the stack answers, a service may still be between its fork and its program.
        while (pid := self._find(service)) is None:
            assert time.monotonic() < deadline, f"{service} does not run"
            time.sleep(0.05)
        return pid

    def _find(self, service: str) -> int | None:
        word = {"node": "sandboxes.node", "web": "serve", "worker": "worker"}[service]
        assert self.process is not None
        for pid in servers.children_of(self.process.pid):
            with contextlib.suppress(OSError):
                if word in Path(f"/proc/{pid}/cmdline").read_text().split("\0"):
                    return pid
        return None

    def kill(self, service: str) -> None:
        """End a service the hard way."""
        os.kill(self.pid_of(service), signal.SIGKILL)

    def wait_until_answers(self, timeout_s: float = 30.0) -> None:
        """Return when web and node are there again."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                if self.answers():
                    self.node("GET", "/v1/health")
                    return
            time.sleep(0.05)
        raise AssertionError(f"Gatehouse did not come back:\n{self.log.read_text()[-6000:]}")

    def stop(self) -> None:
        """End every sandbox, then every process of this stack."""
        if self.process is None:
            return
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            for sandbox_id in self.live_ids():
                self.node("DELETE", f"/v1/sandboxes/{sandbox_id}")
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        self.process = None


def templates_of_this_checkout() -> Path:
    """Return where `make test` has built the template; fails with what to do when it has not."""
    path = ROOT / "var" / "templates"
    assert (path / "base.current").exists(), "The template is missing: run `make test`, which builds it first."
    return path


@contextlib.contextmanager
def running_stack(*, command: tuple[str, ...] | None = None, **variables: str) -> Iterator[Stack]:
    """Run a fresh Gatehouse with its own home, port and database; everything of it is gone afterwards.

    `command` takes the place of `manage.py up`; `variables` are added to the environment.
    """
    home = Path(tempfile.mkdtemp(prefix="gatehouse-", dir="/var/tmp"))
    home.chmod(0o755)
    (home / "templates").symlink_to(templates_of_this_checkout())
    port = servers.free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("E2B_", "DJANGO_"))},
        "GATEHOUSE_HOME": str(home),
        "GATEHOUSE_PORT": str(port),
        # Asking this machine's package clients takes seconds; a test that needs their hosts asks itself.
        "GATEHOUSE_BUNDLES_DISCOVER": "off",
        **servers.set_of_its_own(os.environ, port),
        **variables,
    }
    stack = Stack(home, port, environment)
    if command is not None:
        stack.command = command
    try:
        stack.bootstrap()
        stack.start()
        yield stack
    finally:
        stack.stop()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """One Gatehouse for all tests of a run that drive a complete system."""
    with running_stack() as running:
        yield running
