"""Runs commands in a sandbox by speaking to its guest agent, as the gateway does."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_PATIENCE_S = 30.0


@dataclass(frozen=True)
class Result:
    """How a command ended: `exit_code` is -1 after a signal, `error` says why the guest refused to run it."""

    exit_code: int | None
    stdout: str
    stderr: str
    error: str | None = None


async def run(socket_path: str, command: str, *, user: str = "user", cwd: str = "") -> Result:
    """Run a shell command line and wait for its end. ConnectionError when the guest goes away meanwhile."""
    reader, writer = await asyncio.open_unix_connection(socket_path)
    try:
        async with asyncio.timeout(_PATIENCE_S):
            writer.write(_request(command, user, cwd))
            answer = await reader.read()
    finally:
        writer.close()
    return _result(answer)


def _request(command: str, user: str, cwd: str) -> bytes:
    process = {"cmd": "/bin/bash", "args": ["-c", command]} | ({"cwd": cwd} if cwd else {})
    message = json.dumps({"process": process, "stdin": False}).encode()
    body = struct.pack(">BI", 0, len(message)) + message
    credentials = base64.b64encode(f"{user}:".encode()).decode()
    head = (
        "POST /process.Process/Start HTTP/1.1\r\nHost: guest\r\nConnection: close\r\n"
        f"Authorization: Basic {credentials}\r\nContent-Type: application/connect+json\r\n"
        f"Connect-Protocol-Version: 1\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _result(answer: bytes) -> Result:
    head, _, body = answer.partition(b"\r\n\r\n")
    if b"chunked" in head.lower():
        body = b"".join(_chunks(body))
    out = {"stdout": b"", "stderr": b""}
    exit_code = error = None
    for message in _messages(body):
        event = message.get("event", {})
        for name, text in event.get("data", {}).items():
            out[name] += base64.b64decode(text)
        if "end" in event:
            exit_code = event["end"].get("exitCode", 0)
        if "error" in message:
            error = message["error"].get("message") or message["error"]["code"]
    if exit_code is None and error is None:
        raise ConnectionError(f"the guest hung up: {answer[-300:]!r}")
    return Result(exit_code, out["stdout"].decode(), out["stderr"].decode(), error)


def _chunks(body: bytes) -> Iterator[bytes]:
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size or b"0", 16)
        if length == 0:
            return
        yield body[:length]
        body = body[length + 2 :]


def _messages(body: bytes) -> Iterator[dict[str, Any]]:
    while len(body) >= 5:
        _flags, length = struct.unpack_from(">BI", body)
        yield json.loads(body[5 : 5 + length])
        body = body[5 + length :]
