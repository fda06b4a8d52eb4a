"""Takes the gateway's events: JSON lines in, one acknowledgement for each once it is on disk.

Every command waits for this, so that lines are taken where they arrive, without a task for each, and the
acknowledgements that one sync made leave in one write.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, cast

import structlog

from sandboxes.node.errors import BadRequest, GenerationConflict, NodeError, SpoolFull
from sandboxes.node.events import from_gateway, sandbox_of
from sandboxes.node.sockets import is_welcome

if TYPE_CHECKING:
    from sandboxes.node.events import Subject
    from sandboxes.node.keeper import Keeper

logger = structlog.get_logger()

MAX_LINE_BYTES = 64 * 1024
# Events of one connection that may be on their way to the disk at once.
_MAX_PENDING = 1_024


class Tap(asyncio.Protocol):
    """One connection of a gateway. A line that is too long ends it; a wrong one is refused alone."""

    def __init__(self, keeper: Keeper, uids: frozenset[int]) -> None:
        self._keeper = keeper
        self._uids = uids
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._pending = 0
        self._answers: list[bytes] = []
        self._choked = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Turn away whoever is not the gateway."""
        self._transport = cast("asyncio.Transport", transport)
        if not is_welcome(transport.get_extra_info("socket"), self._uids):
            self._transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Keep what was taken; nobody is there to be told."""
        self._transport = None

    def pause_writing(self) -> None:
        """Take no more lines from a gateway that does not read its answers."""
        self._choked = True
        self._throttle()

    def resume_writing(self) -> None:
        """Go on."""
        self._choked = False
        self._throttle()

    def _throttle(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if self._choked or self._pending >= _MAX_PENDING:
            self._transport.pause_reading()
        elif not self._transport.is_reading():
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Take the lines that are complete."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            if len(line) > MAX_LINE_BYTES:
                self._rest = line
                break
            self._take(line)
        if len(self._rest) > MAX_LINE_BYTES and self._transport is not None:
            logger.warning("tap_closed", reason="a line is too long")
            self._rest = b""
            self._transport.abort()
        self._throttle()

    def _take(self, line: bytes) -> None:
        number: int | None = None
        try:
            message = json.loads(line)
            if type(message["n"]) is not int:
                raise ValueError("n must be a whole number")
            number = message["n"]
            self._spool(number, message["event"])
        except NodeError as error:
            self._answer({"n": number, "ok": False, "code": _code_of(error)})
        except (ValueError, KeyError, TypeError, RecursionError):
            self._answer({"n": number, "ok": False, "code": "bad_event"})

    def _spool(self, number: int, body: Any) -> None:
        keeper = self._keeper
        sandbox_id, generation = sandbox_of(body)
        # An intent holds its act up; a result holds up nothing.
        lazy = body.get("phase") == "result"
        subject: Subject = (
            keeper.witnessed(sandbox_id, generation) if lazy else keeper.require(sandbox_id, generation).spec
        )

        def written(seq: int, refusal: SpoolFull | None) -> None:
            self._pending -= 1
            if refusal is None:
                self._answer({"n": number, "ok": True, "seq": seq})
            else:
                self._answer({"n": number, "ok": False, "code": refusal.code})
            self._throttle()

        try:
            keeper.spool.put(from_gateway(body, subject, keeper.node_id), written, lazy=lazy)
        except SpoolFull as refusal:
            if "sandbox" in refusal.details:
                keeper.report_overflow(subject)
            raise
        self._pending += 1

    def _answer(self, answer: dict[str, Any]) -> None:
        if not self._answers:
            asyncio.get_running_loop().call_soon(self._flush)
        self._answers.append(json.dumps(answer, separators=(",", ":")).encode() + b"\n")

    def _flush(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(b"".join(self._answers))
        self._answers.clear()


def _code_of(error: NodeError) -> str:
    if isinstance(error, BadRequest):
        return "bad_event"
    return "unknown_sandbox" if isinstance(error, GenerationConflict) else error.code
