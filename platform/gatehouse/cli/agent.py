"""The inside of a sandbox: its guest agent's protocol (E2B envd), through the public URL."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from corekit import connect
from gatehouse.cli.errors import NOT_FOUND, TIMED_OUT, CliError, from_answer
from gatehouse.cli.transport import Link, raise_for_error, read_json

if TYPE_CHECKING:
    import http.client
    from collections.abc import Iterator, Mapping

    from gatehouse.cli.transport import Body, Place

    Json = dict[str, Any]

_PING_S = 50
CHUNK = 256 * 1024


class Agent:
    """One sandbox's commands and files. Every method raises CliError."""

    def __init__(self, place: Place, access: Mapping[str, Any], *, user: str | None = None) -> None:
        self.place = place
        self.user = user
        self._headers = {str(name): str(value) for name, value in access["headers"].items()}
        self._calls = Link(place)

    def start(
        self,
        command: list[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bool = False,
        size: tuple[int, int] | None = None,
        timeout_s: float | None = None,
    ) -> Process:
        """Start a command, on a terminal of `size` (columns, rows) if given, and return it once it runs."""
        body: Json = {"process": {"cmd": command[0], "args": command[1:], "envs": dict(env or {})}, "stdin": stdin}
        if cwd is not None:
            body["process"]["cwd"] = cwd
        if size is not None:
            body["pty"] = _screen(size)
        headers = {"Keepalive-Ping-Interval": str(_PING_S)}
        if timeout_s is not None:
            headers["Connect-Timeout-Ms"] = str(int(timeout_s * 1000))
        # It may be silent for as long as it likes.
        link = Link(self.place, timeout=None)
        response = link.send(
            "POST",
            "/process.Process/Start",
            connect.frame(body),
            self._rpc_headers("application/connect+json") | headers,
        )
        raise_for_error(response)
        return Process(self, response)

    def call(self, method: str, body: Json) -> Json:
        """Call a method that answers once."""
        return self._call(self._calls, method, body)

    def call_apart(self, method: str, body: Json) -> None:
        """The same on a connection of its own, from a signal handler."""
        link = Link(self.place)
        try:
            self._call(link, method, body)
        finally:
            link.close()

    def _call(self, link: Link, method: str, body: Json) -> Json:
        data = json.dumps(body).encode()
        found: Json = read_json(link.send("POST", f"/{method}", data, self._rpc_headers("application/json"))) or {}
        return found

    def _rpc_headers(self, kind: str) -> dict[str, str]:
        headers = self._headers | {"Content-Type": kind, "Connect-Protocol-Version": "1"}
        if self.user is not None:
            headers["Authorization"] = "Basic " + base64.b64encode(f"{self.user}:".encode()).decode()
        return headers

    def stat(self, path: str) -> Json:
        """Return what lies at a path."""
        found: Json = self.call("filesystem.Filesystem/Stat", {"path": path})["entry"]
        return found

    def list(self, path: str) -> list[Json]:
        """Return what a folder holds."""
        found: list[Json] = self.call("filesystem.Filesystem/ListDir", {"path": path, "depth": 1}).get("entries", [])
        return found

    def make_folder(self, path: str) -> None:
        """Make a folder unless it is there."""
        try:
            self.call("filesystem.Filesystem/MakeDir", {"path": path})
        except CliError as error:
            if "exist" not in error.message:
                raise

    def read(self, path: str) -> Iterator[bytes]:
        """Yield a file's bytes."""
        link = Link(self.place)
        response = link.send("GET", self._file(path), None, self._headers)
        raise_for_error(response)
        left = int(response.getheader("Content-Length") or -1)
        while block := response.read(CHUNK):
            left -= len(block)
            yield block
        link.close()
        if left > 0:
            raise CliError("The connection broke within the file: try again.")

    def write(self, path: str, body: Body, *, size: int | None = None) -> None:
        """Write a file, and the folders above it."""
        headers = self._headers | {"Content-Type": "application/octet-stream"}
        if size is not None:
            headers["Content-Length"] = str(size)
        link = Link(self.place)
        read_json(link.send("POST", self._file(path), body, headers))
        link.close()

    def _file(self, path: str) -> str:
        return "/files?" + urlencode({"path": path} | ({"username": self.user} if self.user is not None else {}))


class Process:
    """A command that runs. `code` is its exit code once its output has ended."""

    def __init__(self, agent: Agent, response: http.client.HTTPResponse) -> None:
        self.agent = agent
        self.code: int | None = None
        self._response = response
        self._events = self._read_events()
        self.pid = self._first_pid()

    def _first_pid(self) -> int:
        for event in self._events:
            if "start" in event:
                return int(event["start"]["pid"])
        raise CliError("The command did not start.")

    def output(self) -> Iterator[tuple[str, bytes]]:
        """Yield what it writes as (stdout, stderr or pty, bytes), to its end."""
        for event in self._events:
            for name, data in event.get("data", {}).items():
                yield name, base64.b64decode(data)
            if "end" in event:
                self.code = connect.exit_code(event["end"])
        if self.code is None:
            raise CliError("The connection broke before the command ended; it may still run.")

    def send(self, data: bytes, *, kind: str = "stdin") -> None:
        """Send input."""
        encoded = base64.b64encode(data).decode()
        self.agent.call("process.Process/SendInput", {"process": {"pid": self.pid}, "input": {kind: encoded}})

    def close_stdin(self) -> None:
        """Let it read the end of its input."""
        self.agent.call("process.Process/CloseStdin", {"process": {"pid": self.pid}})

    def signal(self, name: str) -> None:
        """Send SIGTERM or SIGKILL."""
        body = {"process": {"pid": self.pid}, "signal": f"SIGNAL_{name}"}
        self.agent.call_apart("process.Process/SendSignal", body)

    def resize(self, size: tuple[int, int]) -> None:
        """Change the size of its terminal."""
        self.agent.call_apart("process.Process/Update", {"process": {"pid": self.pid}, "pty": _screen(size)})

    def _read_events(self) -> Iterator[Json]:
        try:
            for message in connect.messages(self._response.read):
                yield message.get("event", {})
        except connect.BadFrame as error:
            raise CliError(f"The sandbox sent what can't be read: {error}.") from error
        except connect.StreamError as error:
            raise _stream_error(error) from error


def _stream_error(error: connect.StreamError) -> CliError:
    if error.code == "deadline_exceeded":
        return CliError("The command took longer than --timeout and was killed.", status=TIMED_OUT)
    found = from_answer(400, {"message": str(error)})
    return CliError(found.message, status=NOT_FOUND) if error.code in {"not_found", "invalid_argument"} else found


def _screen(size: tuple[int, int]) -> Json:
    return {"size": {"cols": size[0], "rows": size[1]}}
