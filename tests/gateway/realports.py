"""Servers in a real sandbox, and connections to them through the public port."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from e2b import Sandbox

    from tests.live import Stack

_SERVER = Path(__file__).parent / "inside" / "server.py"


def listen(sandbox: Sandbox, address: str, port: int) -> None:
    """Start the server and return when it listens."""
    sandbox.files.write("/home/user/server.py", _SERVER.read_text())
    command = sandbox.commands.run(f"exec python3 server.py {address} {port}", background=True, timeout=0)
    for stdout, stderr, _ in command:
        assert stdout == "listening\n", stderr
        break
    command.disconnect()


class Port:
    """One kept-alive connection to one port of one sandbox."""

    def __init__(self, stack: Stack, sandbox: Sandbox, port: int = 8080) -> None:
        self.host = f"{port}-{sandbox.sandbox_id}.localhost:{stack.port}"
        self.connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def ask(self, method: str, target: str, body: Any = None, **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
        """Make a request; return the answer and its body."""
        self.connection.request(method, target, body, {"Host": self.host, **headers})
        answer = self.connection.getresponse()
        return answer, answer.read()

    def seen(self, method: str, target: str, body: Any = None, **headers: str) -> dict[str, Any]:
        """Make a request; return what the server saw of it."""
        answer, text = self.ask(method, target, body, **headers)
        assert answer.status == 200, text
        return dict(json.loads(text))
