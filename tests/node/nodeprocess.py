"""A node in a process of its own, for tests that kill it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.node import guestcalls, rig

if TYPE_CHECKING:
    from pathlib import Path

_READY_S = 30.0


async def call(socket_path: Path, method: str, path: str, body: object = None) -> tuple[int, Any]:
    """Make one call of the internal API; return its status and its JSON."""
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    reader, writer = await asyncio.open_unix_connection(str(socket_path))
    try:
        head = f"{method} {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\nContent-Length: {len(data)}\r\n\r\n"
        writer.write(head.encode() + data)
        answer = await reader.read()
    finally:
        writer.close()
    if not answer:
        raise ConnectionError("the node hung up without an answer")
    head_bytes, _, payload = answer.partition(b"\r\n\r\n")
    return int(head_bytes.split()[1]), json.loads(payload)


@dataclass
class NodeProcess:
    """`python -m sandboxes.node` on a home of its own. Its log is in `<home>/node.log`."""

    home: Path
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start it and return when it answers."""
        environment = {
            "PATH": os.environ["PATH"],
            "GATEHOUSE_HOME": str(self.home),
            "GATEHOUSE_NODE_GATEWAY": "0",
            "GATEHOUSE_NODE_EGRESS": "0",
            "GATEHOUSE_POOL_SIZE": "0",
        }
        with (self.home / "node.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sandboxes.node"], env=environment | self.environment, stderr=log, cwd=rig.ROOT
            )
        await rig.eventually(self._is_ready, within_s=_READY_S)

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        return self.log().count('"node_ready"') > self._starts

    _starts: int = 0

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it by a signal and wait until it is gone."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait()
            self.process = None
            self._starts = self.log().count('"node_ready"')

    def log(self) -> str:
        """Return all that it has logged."""
        return (self.home / "node.log").read_text()

    async def call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Make one call of its internal API."""
        return await call(self.home / "run" / "node.sock", method, path, body)

    async def start_sandbox(self, sandbox_id: str, **changes: Any) -> dict[str, Any]:
        """Start a small sandbox of Acme's and return the node's answer."""
        status, answer = await self.call("POST", "/v1/sandboxes", rig.request(sandbox_id, **changes))
        assert status == 201, answer
        return dict(answer)

    async def rows(self) -> dict[str, dict[str, Any]]:
        """Return the node's sandboxes by id."""
        _status, answer = await self.call("GET", "/v1/sandboxes")
        return {row["id"]: row for row in answer["sandboxes"]}

    async def events(self, sandbox_id: str) -> list[dict[str, Any]]:
        """Return the sandbox's events that are not acknowledged."""
        _status, answer = await self.call("GET", "/v1/events?limit=2000")
        return [event for event in answer["events"] if event["sandbox"] == sandbox_id]

    def state(self, sandbox_id: str) -> dict[str, Any]:
        """Return what the node keeps on disk about a sandbox that runs."""
        path = self.home / "node" / "sandboxes" / sandbox_id / "state.json"
        return dict(json.loads(path.read_bytes()))

    async def run(self, sandbox_id: str, command: str, *, user: str = "user") -> guestcalls.Result:
        """Run a shell command line in a sandbox."""
        slot = self.state(sandbox_id)["runtime"]["slot"]
        return await guestcalls.run(str(self.home / "run" / "guests" / str(slot) / "guest.sock"), command, user=user)

    async def stop_all(self) -> None:
        """End every sandbox."""
        running = [name for name, row in (await self.rows()).items() if row["state"] != "ended"]
        await asyncio.gather(*(self.call("DELETE", f"/v1/sandboxes/{name}") for name in running))
