"""Unix listeners of the node: owned by root, open to one group, and asked for the caller's user id each time."""

from __future__ import annotations

import os
import socket
import stat
from typing import TYPE_CHECKING

from sandboxes.node.linux import peer_uid

if TYPE_CHECKING:
    from pathlib import Path

# The kernel's limit for a socket's path, its final zero byte included.
_MAX_PATH_BYTES = 108


def listen(path: Path, gid: int) -> socket.socket:
    """Return a listening unix socket at `path` that root and the group `gid` may connect to."""
    if len(os.fsencode(path)) >= _MAX_PATH_BYTES:
        raise SystemExit(f"{path} is too long for a socket: set GATEHOUSE_HOME to a directory with a shorter name.")
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    os.chown(path, 0, gid)
    path.chmod(stat.S_IRUSR | stat.S_IWUSR | stat.S_IRGRP | stat.S_IWGRP)
    listener.listen(512)
    listener.setblocking(False)  # noqa: FBT003 - the standard library's own signature
    return listener


def is_welcome(connection: object, uids: frozenset[int]) -> bool:
    """Tell whether the process at the other end of an asyncio transport's socket runs as one of `uids`."""
    # asyncio hands out a wrapper that allows reading options only.
    return peer_uid(connection) in uids  # type: ignore[arg-type]
