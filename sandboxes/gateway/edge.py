"""The node's feed of routes: read for ever, reconnect with a growing pause, keep the table meanwhile."""

from __future__ import annotations

import asyncio
import json
import random
from typing import TYPE_CHECKING

from corekit import ids
from corekit.logs import logger
from sandboxes.gateway import http1, ingress, upstream

if TYPE_CHECKING:
    from pathlib import Path

    from sandboxes.gateway.routes import RouteTable

_REQUEST = b"GET /v1/routes HTTP/1.1\r\nHost: node\r\nAccept: application/x-ndjson\r\n\r\n"
_SILENCE_SECONDS = 25.0
_MAX_LINE = 1024 * 1024
_LONGEST_PAUSE = 2.0


class BadLine(Exception):
    """The node sent a line that is not one of the contract's."""


class RouteFeed:
    """Keeps a RouteTable equal to the node's."""

    def __init__(self, table: RouteTable, socket: Path) -> None:
        self._table = table
        self._socket = socket
        self._seen: set[str] | None = None

    async def run(self) -> None:
        """Follow the feed until cancelled."""
        pause = 0.05
        while True:
            try:
                await self._follow()
            except (upstream.UpstreamError, http1.BadAnswer, BadLine) as error:
                logger.warning("routes_feed_lost", reason=str(error), sandboxes=len(self._table))
            if self._seen is None:
                pause = 0.05
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311  (spreads reconnects)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _follow(self) -> None:
        connection = await upstream.connect(self._socket, seconds=5.0)
        self._seen = set()
        try:
            connection.begin()
            connection.write(_REQUEST)
            head = await connection.read_head("GET", seconds=5.0)
            if head.status != 200:
                raise BadLine(f"the node answered {head.status}")
            rest = b""
            while pieces := await connection.read_body(_SILENCE_SECONDS):
                lines = (rest + b"".join(pieces)).split(b"\n")
                rest = lines.pop()
                if len(rest) > _MAX_LINE:
                    raise BadLine("a line is too long")
                for line in lines:
                    if line.strip():
                        self.apply(line)
        finally:
            connection.close()

    def apply(self, line: bytes) -> None:
        """Apply one line. Raises BadLine."""
        try:
            row = json.loads(line)
            match row["op"]:
                case "ping":
                    return
                case "synced":
                    self._table.keep_only(self._seen or set())
                    self._seen = None
                    logger.info("routes_synced", sandboxes=len(self._table))
                case "drop":
                    self._table.drop(_sandbox_id(row), int(row["generation"]))
                case "put":
                    self._put(row)
                case other:
                    raise BadLine(f"unknown operation {other!r}")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadLine(f"a line is malformed: {type(error).__name__}") from error

    def _put(self, row: dict[str, object]) -> None:
        sandbox_id = _sandbox_id(row)
        state = row.get("state", "running")
        if state not in {"running", "paused"}:
            self._table.drop(sandbox_id)
            return
        grants = row["grants"]
        if not isinstance(grants, dict):
            raise TypeError("grants")
        self._table.put(
            sandbox_id=sandbox_id,
            generation=int(str(row["generation"])),
            tenant=str(row["tenant"]),
            socket=str(row["socket"]),
            access_key=bytes.fromhex(str(row["access_key"])),
            audit_key=bytes.fromhex(str(row["audit_key"])),
            expiries={str(key): None if at is None else int(at) for key, at in grants.items()},
            ingress=ingress.parse(row.get("ingress")),
            running=state == "running",
            auto_resume=row.get("auto_resume") is True,
            audit_key_id=str(row.get("audit_key_id") or ""),
            tier=str(row.get("tier") or ""),
            copies_key=bytes.fromhex(str(row.get("copies_key") or "")),
            network=row.get("network") is True,
        )
        if self._seen is not None:
            self._seen.add(sandbox_id)


def _sandbox_id(row: dict[str, object]) -> str:
    sandbox_id = row["id"]
    if not ids.is_sandbox_id(sandbox_id):
        raise ValueError("id")
    return str(sandbox_id)
