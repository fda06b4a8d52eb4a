"""A plain HTTP client of the E2B protocol on one kept-alive connection: no SDK, no retries, nothing but the wire."""

from __future__ import annotations

import base64
import json
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import http.client

if TYPE_CHECKING:
    from collections.abc import Iterator

_END_OF_STREAM = 0x02
_ENVELOPE_HEAD = 5


class Wire:
    """Talks to a gateway, or straight to a guest agent, over the connection that it is given."""

    def __init__(self, connection: http.client.HTTPConnection, key: str = "") -> None:
        self._connection = connection
        self._key = key
        self._headers: dict[str, str] = {}
        self.sandbox_id = ""

    def create(self, template: str = "base", timeout_s: int = 300) -> str:
        """Create a sandbox and aim all further calls at it; return its id."""
        body = json.dumps({"templateID": template, "timeout": timeout_s, "metadata": {}, "envVars": {}})
        headers = {"X-API-KEY": self._key, "Content-Type": "application/json"}
        answer = json.loads(self._call("POST", "/v2/sandboxes", body.encode(), headers, 201))
        self.sandbox_id = answer["sandboxID"]
        self._headers = {
            "E2b-Sandbox-Id": self.sandbox_id,
            "E2b-Sandbox-Port": "49983",
            "X-Access-Token": answer["envdAccessToken"],
        }
        return self.sandbox_id

    def kill(self) -> None:
        """End the sandbox."""
        self._call("DELETE", f"/sandboxes/{self.sandbox_id}", None, {"X-API-KEY": self._key}, 204)

    def run(self, command: str, *arguments: str) -> int:
        """Run a program to its end and return how many bytes it wrote to stdout."""
        request = json.dumps({"process": {"cmd": command, "args": list(arguments)}, "stdin": False}).encode()
        headers = {**self._headers, "Content-Type": "application/connect+json"}
        body = struct.pack(">BI", 0, len(request)) + request
        self._connection.request("POST", "/process.Process/Start", body, headers)
        response = self._connection.getresponse()
        written, exit_code = 0, None
        message: dict[str, Any] = {}
        for message in _messages(response.read()):
            event = message.get("event", {})
            if "data" in event and "stdout" in event["data"]:
                written += len(base64.b64decode(event["data"]["stdout"]))
            if "end" in event:
                exit_code = event["end"].get("exitCode", 0)
        if exit_code != 0 or "error" in message:
            raise RuntimeError(f"{command} ended with {exit_code}: {message}")
        return written

    def upload(self, path: str, data: bytes) -> None:
        """Write a file."""
        headers = {**self._headers, "Content-Type": "application/octet-stream"}
        self._call("POST", f"/files?path={path}", data, headers, 200)

    def download(self, path: str) -> bytes:
        """Read a file."""
        return self._call("GET", f"/files?path={path}", None, self._headers, 200)

    def _call(self, method: str, path: str, body: bytes | None, headers: dict[str, Any], expected: int) -> bytes:
        self._connection.request(method, path, body, headers)
        response = self._connection.getresponse()
        content = response.read()
        if response.status != expected:
            raise RuntimeError(f"{method} {path}: {response.status} {content[:500]!r}")
        return content


def _messages(stream: bytes) -> Iterator[dict[str, Any]]:
    """Yield the messages of a whole stream, the end of the stream last."""
    position, flags = 0, 0
    while position < len(stream):
        flags, size = struct.unpack_from(">BI", stream, position)
        position += _ENVELOPE_HEAD + size
        yield json.loads(stream[position - size : position])
    if not flags & _END_OF_STREAM:
        raise RuntimeError("the stream was cut")
