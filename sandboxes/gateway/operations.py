"""What the agent offers to the outside: an allow-list. Every path that is not here answers 404."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

AGENT_PORT = 49983


class Shape(enum.Enum):
    """How an operation's bodies look on the wire."""

    PROBE = "probe"  # no body, no token
    READ = "read"  # no body
    DOWNLOAD = "download"
    UPLOAD = "upload"
    UNARY = "unary"  # one JSON message each way
    SERVER_STREAM = "server_stream"  # one envelope in, many out
    CLIENT_STREAM = "client_stream"  # many envelopes in, one out


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that a client may ask the agent for.

    `code` is the audit event's code and `tool` its tool name; an operation without a code leaves no event,
    because it neither reads nor changes anything of the sandbox's.
    """

    method: str
    path: str
    shape: Shape
    code: str | None = None
    tool: str = ""
    rpc: bool = False
    details: dict[str, object] = field(default_factory=dict)


def _rpc(path: str, code: str | None, tool: str = "", shape: Shape = Shape.UNARY, **details: object) -> Operation:
    return Operation("POST", path, shape, code, tool, rpc=True, details=details)


_ALL = (
    Operation("GET", "/health", Shape.PROBE),
    Operation("GET", "/metrics", Shape.READ),
    Operation("GET", "/envs", Shape.READ),
    Operation("GET", "/files", Shape.DOWNLOAD, "file.read", "read_file"),
    Operation("POST", "/files", Shape.UPLOAD, "file.write", "write_file"),
    Operation("POST", "/files/compose", Shape.UNARY, "file.write", "write_file", details={"operation": "compose"}),
    _rpc("/process.Process/Start", "command.start", "exec_code", Shape.SERVER_STREAM),
    _rpc("/process.Process/Connect", "command.connect", "connect_command", Shape.SERVER_STREAM),
    _rpc("/process.Process/SendInput", "command.input", "send_input"),
    _rpc("/process.Process/StreamInput", "command.input", "send_input", Shape.CLIENT_STREAM),
    _rpc("/process.Process/CloseStdin", "command.input", "send_input", operation="close_stdin"),
    _rpc("/process.Process/Update", "command.update", "resize_terminal"),
    _rpc("/process.Process/SendSignal", "command.signal", "send_signal"),
    _rpc("/process.Process/List", "command.list", "list_commands"),
    _rpc("/filesystem.Filesystem/Stat", "file.stat", "stat_file"),
    _rpc("/filesystem.Filesystem/ListDir", "file.list", "list_files"),
    _rpc("/filesystem.Filesystem/MakeDir", "file.mkdir", "make_directory"),
    _rpc("/filesystem.Filesystem/Move", "file.move", "move_file"),
    _rpc("/filesystem.Filesystem/Remove", "file.remove", "remove_file"),
    _rpc("/filesystem.Filesystem/WatchDir", "file.watch", "watch_files", Shape.SERVER_STREAM),
    _rpc("/filesystem.Filesystem/CreateWatcher", "file.watch", "watch_files"),
    _rpc("/filesystem.Filesystem/GetWatcherEvents", None),
    _rpc("/filesystem.Filesystem/RemoveWatcher", None),
)
_BY_CALL = {(one.method, one.path): one for one in _ALL}


def find(method: str, path: str) -> Operation | None:
    """Return the operation of a call, or None when the outside may not make it."""
    return _BY_CALL.get((method, path))
