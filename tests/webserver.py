"""A real web server on its sockets, in a thread of the test."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import uvicorn

from gatehouse.management.commands.serve import configuration

if TYPE_CHECKING:
    from pathlib import Path

    from gatehouse.installation import Installation


class Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self.path = path

    def connect(self) -> None:
        """Open the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(10)
        self.sock.connect(str(self.path))


class Web:
    """A web server as `manage.py serve` runs it."""

    def __init__(self, installation: Installation) -> None:
        self.public, self.internal = installation.web_socket, installation.internal_socket
        self.broker = installation.broker_socket
        self.sockets = [_bind(path) for path in (self.public, self.internal, self.broker)]
        self.server = uvicorn.Server(configuration(str(self.public)))
        self.thread = threading.Thread(target=self.server.run, args=(self.sockets,), daemon=True)
        self.thread.start()
        while not self.server.started:
            assert self.thread.is_alive()
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop serving."""
        self.server.should_exit = True
        self.thread.join(10)

    def ask(self, path: str, body: Any = None, *, method: str = "POST", at: Path | None = None) -> tuple[int, Any]:
        """Send a request to the internal listener, or to another, and return status and parsed answer."""
        connection = Connection(at or self.internal)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, data, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        self.headers = dict(answer.getheaders())
        connection.close()
        return answer.status, json.loads(content) if content else None


def _bind(path: Path) -> socket.socket:
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    return listener
