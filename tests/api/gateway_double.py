"""A gateway that runs nothing: it takes one kind of call, remembers it, and answers as it was told."""

from __future__ import annotations

import base64
import contextlib
import json
import socketserver
import struct
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

from corekit import connect

if TYPE_CHECKING:
    from collections.abc import Callable

Json = dict[str, Any]


def wrote(name: str, data: bytes) -> Json:
    """Return the event of some output."""
    return {"event": {"data": {name: base64.b64encode(data).decode()}}}


def ended(code: int = 0) -> Json:
    """Return the event of a command's end."""
    return {"event": {"end": {"exitCode": code, "exited": True, "status": f"exit status {code}"}}}


STARTED: Json = {"event": {"start": {"pid": 7}}}
NEVER: Json = {"never": True}
"""In place of an event: nothing more comes, and the connection breaks."""


def error(code: str) -> Json:
    """Return the end of a stream that went wrong."""
    return {"error": {"code": code, "message": f"it is {code}"}}


@dataclass
class Call:
    """One command that was asked for."""

    headers: dict[str, str]
    command: list[str]


@dataclass
class GatewayDouble:
    """The double. `script` is what every command does; `meanwhile` is called while one runs."""

    script: list[Json] = field(default_factory=lambda: [STARTED, ended()])
    status: int = 200
    calls: list[Call] = field(default_factory=list)
    meanwhile: Callable[[], None] | None = None
    port: int = 0
    _server: Any = None

    def listen(self) -> GatewayDouble:
        """Start on a free port."""
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True


def _handler(double: GatewayDouble) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/process.Process/Start"
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert struct.unpack(">BI", body[:5]) == (0, len(body) - 5)
            process = json.loads(body[5:])["process"]
            double.calls.append(Call(dict(self.headers), [process["cmd"], *process["args"]]))
            if double.meanwhile is not None:
                double.meanwhile()
            self.send_response(double.status)
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            # Who asked may have given up.
            with contextlib.suppress(OSError):
                for message in double.script:
                    if message == NEVER:
                        return
                    self.wfile.write(connect.frame(message) if "event" in message else _end(message))
                if "error" not in double.script[-1]:
                    self.wfile.write(_end({}))

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def _end(message: Json) -> bytes:
    data = json.dumps(message).encode()
    return struct.pack(">BI", 2, len(data)) + data
