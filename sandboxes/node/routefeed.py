"""What the gateway must know to reach the sandboxes: a snapshot, then every change, to each listener."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from sandboxes.node.spec import Spec

Route = dict[str, Any]

_PING_S = 10.0
# A gateway that does not read for this many changes is cut off; it connects again and gets a snapshot.
_MAX_UNREAD = 10_000


def route(spec: Spec, socket_path: str, state: str) -> Route:
    """Return the line that makes a sandbox known; a full replacement each time. Only `running` ones are reachable."""
    return {
        "op": "put",
        "id": spec.id,
        "generation": spec.generation,
        "tenant": spec.tenant,
        "socket": socket_path,
        "access_key": spec.access_key,
        "audit_key": spec.audit_key,
        "audit_key_id": spec.audit_key_id,
        "copies_key": spec.copies_key,
        "tier": spec.tier,
        "grants": spec.grants,
        "state": state,
        "auto_resume": spec.auto_resume,
        "ingress": asdict(spec.ingress),
        "network": spec.network_mode != "none",
    }


class RouteFeed:
    """Keeps the current routes and tells every listener about changes, in order."""

    def __init__(self) -> None:
        self._routes: dict[str, Route] = {}
        self._listeners: set[asyncio.Queue[Route | None]] = set()

    def put(self, spec: Spec, socket_path: str, *, state: str = "running") -> None:
        """Make a sandbox known, or change who may reach it; the gateway ends the streams of a `paused` one."""
        self._routes[spec.id] = route(spec, socket_path, state)
        self._tell(self._routes[spec.id])

    def drop(self, sandbox_id: str) -> None:
        """Make a sandbox unreachable; the gateway ends its open streams."""
        gone = self._routes.pop(sandbox_id, None)
        if gone is not None:
            self._tell({"op": "drop", "id": sandbox_id, "generation": gone["generation"]})

    def _tell(self, line: Route) -> None:
        for queue in tuple(self._listeners):
            if queue.qsize() >= _MAX_UNREAD:
                self._listeners.discard(queue)
                queue.put_nowait(None)
            else:
                queue.put_nowait(line)

    async def listen(self) -> AsyncGenerator[bytes]:
        """Yield JSON lines: the snapshot, `synced`, then changes, with a `ping` when it is quiet."""
        queue: asyncio.Queue[Route | None] = asyncio.Queue()
        snapshot = [*self._routes.values(), {"op": "synced"}]
        self._listeners.add(queue)
        try:
            for line in snapshot:
                yield _encode(line)
            while True:
                try:
                    async with asyncio.timeout(_PING_S):
                        change = await queue.get()
                except TimeoutError:
                    change = {"op": "ping"}
                if change is None:
                    return
                yield _encode(change)
        finally:
            self._listeners.discard(queue)

    def close(self) -> None:
        """Hang up on every listener."""
        for queue in tuple(self._listeners):
            queue.put_nowait(None)


def _encode(line: Route) -> bytes:
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"
