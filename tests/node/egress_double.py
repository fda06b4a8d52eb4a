"""Stands in for egress at its control socket, to say what the real one never would."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import uuid
from typing import TYPE_CHECKING, Any

from sandboxes.node.services import listen_for_node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

Message = dict[str, Any]

_PACKET = 1024 * 1024
# By asm-generic/socket.h. Egress would wait; the double says all at once.
_SO_SNDBUFFORCE = 32


def event(sandbox: str, **changes: Any) -> Message:
    """Return what egress tells of one refused flow."""
    return {
        "id": uuid.uuid4().hex,
        "sandbox": sandbox,
        "generation": 1,
        "code": "egress.denied",
        "phase": "fact",
        "decision": "deny",
        "reason": "no_rule",
        "outcome": "refused",
        "duration_ms": 0.5,
        "details": {"host": "evil.test", "port": 443, "via": "proxy", "count": 1},
    } | changes


class EgressDouble:
    """Answers every request with `done`, unless `refuse` gives a reason, and remembers what it was told.

    `told` are the messages of all connections; each has `listener`, whether a socket came with it.
    """

    def __init__(self, path: Path) -> None:
        self._listener = listen_for_node(path)
        self._listener.settimeout(0)
        self._node: socket.socket | None = None
        self._next_seq = 1
        self.told: list[Message] = []
        self.connections = 0
        self.refuse: Callable[[Message], str | None] = lambda _message: None

    async def serve(self) -> None:
        """Take one node after the other."""
        loop = asyncio.get_running_loop()
        while True:
            self._node, _ = await loop.sock_accept(self._listener)
            self._node.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 4 * _PACKET)
            self.connections += 1
            while await self._obey(self._node):
                pass
            self._node.close()

    async def _obey(self, node: socket.socket) -> bool:
        readable = asyncio.Event()
        asyncio.get_running_loop().add_reader(node, readable.set)
        try:
            await readable.wait()
        finally:
            asyncio.get_running_loop().remove_reader(node)
        data, descriptors, _, _ = socket.recv_fds(node, _PACKET, 4)
        if not data:
            return False
        message = json.loads(data) | {"listener": bool(descriptors)}
        for descriptor in descriptors:
            os.close(descriptor)
        self.told.append(message)
        if "n" in message:
            reason = self.refuse(message)
            answer = {"op": "done"} if reason is None else {"op": "failed", "reason": reason}
            node.send(json.dumps(answer | {"n": message["n"]}).encode())
        return True

    def tell(self, *events: Message) -> int:
        """Tell of events and return the number of the last one."""
        assert self._node is not None
        numbered = [{"seq": seq, **one} for seq, one in enumerate(events, self._next_seq)]
        self._next_seq += len(events)
        self._node.send(json.dumps({"op": "events", "events": numbered}).encode())
        return self._next_seq - 1

    def say(self, data: bytes) -> None:
        """Say anything."""
        assert self._node is not None
        self._node.send(data)

    def hang_up(self) -> None:
        """End the connection."""
        assert self._node is not None
        self._node.shutdown(socket.SHUT_RDWR)

    def ops(self) -> list[str]:
        """Return what was asked, in order."""
        return [message["op"] for message in self.told]

    def acked(self) -> int:
        """Return up to which number events were taken."""
        return max((message["upto"] for message in self.told if message["op"] == "acked"), default=0)

    def puts(self, sandbox: str) -> list[Message]:
        """Return what was told of a sandbox."""
        return [message for message in self.told if message["op"] == "put" and message["id"] == sandbox]

    def close(self) -> None:
        """Go away."""
        self._listener.close()
        if self._node is not None:
            self._node.close()


@contextlib.asynccontextmanager
async def standing_in(path: Path) -> AsyncIterator[EgressDouble]:
    """Run one at the control socket."""
    double = EgressDouble(path)
    task = asyncio.create_task(double.serve())
    try:
        yield double
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        double.close()
