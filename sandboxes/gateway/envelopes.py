"""Connect's framing: one flag byte, four bytes of length, the message."""

from __future__ import annotations

import json

HEADER = 5
_KEPT_TAIL = 4096
_KEPT_HEAD = 256


class BadEnvelope(Exception):
    """The bytes are not one uncompressed envelope."""


def only_message(body: bytes) -> bytes:
    """Return the message of a body that is exactly one envelope. Raises BadEnvelope."""
    if len(body) < HEADER:
        raise BadEnvelope("the request has no message")
    if body[0] != 0:
        raise BadEnvelope("compressed messages are not supported")
    if int.from_bytes(body[1:HEADER], "big") != len(body) - HEADER:
        raise BadEnvelope("the request must be exactly one message")
    return body[HEADER:]


def first_length(start: bytes) -> int | None:
    """Return the size of the first envelope, header included; None while the header is incomplete.

    Raises BadEnvelope when it is no plain message.
    """
    if start and start[0] != 0:
        raise BadEnvelope("compressed messages are not supported")
    return HEADER + int.from_bytes(start[1:HEADER], "big") if len(start) >= HEADER else None


class Ending:
    """Notes how a stream begins and ends while its bytes pass, at a fixed cost for each piece.

    Only the first and the last bytes are kept. What they say is the guest's word and is marked as such.
    """

    __slots__ = ("_head", "_tail")

    def __init__(self) -> None:
        self._head = b""
        self._tail = b""

    def observe(self, piece: bytes) -> None:
        """Take the next bytes of the stream."""
        if len(self._head) < _KEPT_HEAD:
            self._head += piece[: _KEPT_HEAD - len(self._head)]
        if len(piece) >= _KEPT_TAIL:
            self._tail = piece[-_KEPT_TAIL:]
        else:
            self._tail = (self._tail + piece)[-_KEPT_TAIL:]

    def facts(self) -> dict[str, object]:
        """Return pid, exit code, status and error code as far as the stream told them."""
        found: dict[str, object] = {}
        start = _inner(_message_at(self._head, 0), "start")
        if isinstance(start.get("pid"), int):
            found["pid"] = start["pid"]
        last, before = self._last_messages()
        end = _inner(before, "end")
        if end:
            code = end.get("exitCode", 0)
            found["exit_code"] = code if isinstance(code, int) else None
            found["status"] = str(end.get("status", ""))[:64]
        error = last.get("error")
        if isinstance(error, dict):
            found["error_code"] = str(error.get("code", ""))[:64]
        found["ended"] = bool(end) or bool(last)
        return found

    def _last_messages(self) -> tuple[dict[str, object], dict[str, object]]:
        """Return the end-stream message and the message before it, empty where they can't be found."""
        tail = self._tail
        at = len(tail)
        while (at := tail.rfind(b"\x02\x00\x00", 0, at + 2)) >= 0:
            if at + HEADER + int.from_bytes(tail[at + 1 : at + HEADER], "big") == len(tail):
                break
        if at < 0:
            return {}, {}
        last = _message_at(tail, at) or {"complete": True}
        start = at
        while (start := tail.rfind(b"\x00\x00\x00", 0, start + 2)) >= 0:
            if start + HEADER + int.from_bytes(tail[start + 1 : start + HEADER], "big") == at:
                return last, _message_at(tail, start)
        return last, {}


def _message_at(data: bytes, at: int) -> dict[str, object]:
    size = int.from_bytes(data[at + 1 : at + HEADER], "big")
    body = data[at + HEADER : at + HEADER + size]
    if len(data) - at < HEADER or len(body) != size:
        return {}
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}


def _inner(message: dict[str, object], name: str) -> dict[str, object]:
    event = message.get("event")
    inner = event.get(name) if isinstance(event, dict) else None
    return inner if isinstance(inner, dict) else {}
