"""The protocol without an SDK: calls of the control plane and of the agent as plain HTTP."""

from __future__ import annotations

import base64
import json
import struct
from typing import TYPE_CHECKING, Any, Self

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_END_OF_STREAM = 2
_HEAD = 5


def envelope(message: Any, flags: int = 0) -> bytes:
    """Return a message as it travels in a stream."""
    body = json.dumps(message).encode()
    return struct.pack(">BI", flags, len(body)) + body


def messages(stream: Iterable[bytes]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield flags and message of each envelope as it arrives."""
    held = b""
    for piece in stream:
        held += piece
        while len(held) >= _HEAD:
            flags, size = struct.unpack_from(">BI", held)
            if len(held) < _HEAD + size:
                break
            yield flags, json.loads(held[_HEAD : _HEAD + size])
            held = held[_HEAD + size :]
    assert held == b"", "the stream was cut"


class Wire:
    """One client of one Gatehouse."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url
        self.key = key
        self.http = httpx.Client(base_url=url, timeout=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def api(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """Call the control plane."""
        return self.http.request(method, path, json=body, headers={"X-API-KEY": self.key, **headers})

    def create(self, template: str = "base", **body: Any) -> Agent:
        """Create a sandbox and return its agent."""
        answer = self.api("POST", "/v2/sandboxes", {"templateID": template, "timeout": 120, **body})
        assert answer.status_code == 201, answer.text
        return Agent(self, answer.json())


class Agent:
    """The agent of one sandbox, as its owner calls it."""

    def __init__(self, wire: Wire, created: dict[str, Any]) -> None:
        self.wire = wire
        self.created = created
        self.id: str = created["sandboxID"]
        self.route = {"E2b-Sandbox-Id": self.id, "E2b-Sandbox-Port": "49983"}
        self.headers = {**self.route, "X-Access-Token": created["envdAccessToken"]}

    def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Make a plain HTTP call with the sandbox's token."""
        headers = {**self.headers, **options.pop("headers", {})}
        return self.wire.http.request(method, path, headers=headers, **options)

    def rpc(self, name: str, message: Any, **headers: str) -> httpx.Response:
        """Make a unary call."""
        fields = {"Content-Type": "application/json", "Connect-Protocol-Version": "1", **headers}
        return self.call("POST", f"/{name}", content=json.dumps(message).encode(), headers=fields)

    def stream(self, name: str, message: Any, **headers: str) -> list[tuple[int, dict[str, Any]]]:
        """Make a streaming call and return all that it said."""
        answer = self.call(
            "POST",
            f"/{name}",
            content=envelope(message),
            headers={"Content-Type": "application/connect+json", **headers},
        )
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/connect+json"), answer.text
        return list(messages([answer.content]))

    def run(self, command: str, **headers: str) -> tuple[str, dict[str, Any]]:
        """Run a shell line; return its stdout and the end event, or the error where there is none."""
        said = self.stream("process.Process/Start", shell(command), **headers)
        output = b"".join(
            base64.b64decode(message["event"]["data"].get("stdout", ""))
            for flags, message in said
            if not flags and "data" in message["event"]
        )
        ends = [message["event"]["end"] for flags, message in said if not flags and "end" in message["event"]]
        assert said[-1][0] == _END_OF_STREAM
        return output.decode(), ends[0] if ends else said[-1][1]["error"]

    def kill(self) -> None:
        """End the sandbox."""
        self.wire.api("DELETE", f"/sandboxes/{self.id}")


def shell(command: str, **changes: Any) -> dict[str, Any]:
    """Return a Start request for a shell line."""
    return {"process": {"cmd": "/bin/bash", "args": ["-l", "-c", command]}, "stdin": False} | changes
