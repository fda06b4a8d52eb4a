"""Connect's streaming frames as a caller reads and writes them: a flag byte, four bytes of length, a JSON message."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

MAX_MESSAGE = 64 * 1024 * 1024
_END_OF_STREAM = 2
_HEADER = struct.Struct(">BI")
_SIGNALS = {
    "hangup": 1,
    "interrupt": 2,
    "quit": 3,
    "illegal instruction": 4,
    "aborted": 6,
    "bus error": 7,
    "floating point exception": 8,
    "killed": 9,
    "segmentation fault": 11,
    "terminated": 15,
    "CPU time limit exceeded": 24,
    "file size limit exceeded": 25,
    "bad system call": 31,
}


class BadFrame(Exception):
    """The stream holds what is no frame of JSON, or too long a one."""


class StreamError(Exception):
    """The stream ended with an error; `code` is Connect's word for it."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(str(error.get("message") or error.get("code") or ""))
        self.code = str(error.get("code") or "")


def frame(message: Mapping[str, Any]) -> bytes:
    """Return one message as a request's body."""
    data = json.dumps(message).encode()
    return _HEADER.pack(0, len(data)) + data


def messages(read: Callable[[int], bytes]) -> Iterator[dict[str, Any]]:
    """Yield a stream's messages to its end; `read` returns that many bytes, fewer only where it breaks off.

    Raises StreamError when it ends with one, and BadFrame. A stream that merely breaks off ends here.
    """
    while len(head := read(_HEADER.size)) == _HEADER.size:
        flags, length = _HEADER.unpack(head)
        if length > MAX_MESSAGE:
            raise BadFrame(f"a message of {length} bytes is too long")
        message = _parsed(read(length))
        if flags & _END_OF_STREAM:
            if error := message.get("error"):
                raise StreamError(error)
            return
        yield message


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        message = json.loads(data or b"{}")
    except (ValueError, RecursionError) as error:
        raise BadFrame("a message is not JSON") from error
    if not isinstance(message, dict):
        raise BadFrame("a message is not an object")
    return message


def exit_code(end: Mapping[str, Any]) -> int:
    """Return the exit code of a process event's `end` as a shell would: a signal's number above 128."""
    status = str(end.get("status", ""))
    if status.startswith("signal: "):
        name = status.removeprefix("signal: ").removesuffix(" (core dumped)")
        return 128 + _SIGNALS.get(name, 0)
    return int(end.get("exitCode", 0)) & 0xFF
