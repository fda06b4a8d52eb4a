"""Takes the gateway's events: JSON lines in, one acknowledgement for each once it is on disk."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import structlog

from sandboxes.node.errors import BadRequest, GenerationConflict, NodeError, SpoolFull
from sandboxes.node.events import from_gateway, sandbox_of
from sandboxes.node.sockets import is_welcome

if TYPE_CHECKING:
    from sandboxes.node.keeper import Keeper

logger = structlog.get_logger()

MAX_LINE_BYTES = 64 * 1024
# Events of one connection that may be on their way to the disk at once.
_MAX_PENDING = 1_024


class Answers:
    """Acknowledgements on their way back: those that one sync made leave in one write."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._waiting: list[bytes] = []

    async def send(self, line: bytes) -> None:
        """Let a line leave with the others of this turn of the loop, and wait while the gateway does not read."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self.flush)
        self._waiting.append(line)
        # A gateway that does not read its answers stops its own lines, not the node.
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()

    def flush(self) -> None:
        """Write what waits."""
        if self._waiting and not self._writer.is_closing():
            self._writer.write(b"".join(self._waiting))
        self._waiting.clear()


class Tap:
    """One handler per connection; events of one connection share the disk's next sync."""

    def __init__(self, keeper: Keeper, uids: frozenset[int]) -> None:
        self._keeper = keeper
        self._uids = uids

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection until it closes or breaks the protocol."""
        if not is_welcome(writer.get_extra_info("socket"), self._uids):
            writer.close()
            return
        pending: set[asyncio.Task[None]] = set()
        room = asyncio.Semaphore(_MAX_PENDING)
        answers = Answers(writer)
        try:
            while line := await reader.readline():
                await room.acquire()
                task = asyncio.create_task(self._answer(line, answers))
                pending.add(task)
                task.add_done_callback(pending.discard)
                task.add_done_callback(lambda _: room.release())
        except (ValueError, ConnectionError) as error:
            logger.warning("tap_closed", error=str(error))
        finally:
            if pending:
                await asyncio.wait(pending)
            answers.flush()
            writer.close()

    async def _answer(self, line: bytes, answers: Answers) -> None:
        number: int | None = None
        answer: dict[str, Any]
        try:
            message = json.loads(line)
            if type(message["n"]) is not int:
                raise ValueError("n must be a whole number")
            number = message["n"]
            answer = {"n": number, "ok": True, "seq": await self._append(message["event"])}
        except NodeError as error:
            answer = {"n": number, "ok": False, "code": _code_of(error)}
        except (ValueError, KeyError, TypeError, RecursionError):
            answer = {"n": number, "ok": False, "code": "bad_event"}
        await answers.send(json.dumps(answer, separators=(",", ":")).encode() + b"\n")

    async def _append(self, body: Any) -> int:
        keeper = self._keeper
        sandbox_id, generation = sandbox_of(body)
        if body.get("phase") == "result":
            subject = keeper.witnessed(sandbox_id, generation)
        else:
            subject = keeper.require(sandbox_id, generation).spec
        try:
            # An intent holds its act up; a result holds up nothing.
            lazy = body.get("phase") == "result"
            return await keeper.spool.append(from_gateway(body, subject, keeper.node_id), lazy=lazy)
        except SpoolFull as refusal:
            if "sandbox" in refusal.details:
                keeper.report_overflow(subject)
            raise


def _code_of(error: NodeError) -> str:
    if isinstance(error, BadRequest):
        return "bad_event"
    return "unknown_sandbox" if isinstance(error, GenerationConflict) else error.code
