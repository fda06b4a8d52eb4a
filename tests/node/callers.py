"""Connects to the node's doors as another user of the host."""

from __future__ import annotations

import ast
import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

NOBODY = 65534
# Connects to the path that it is given, sends a request and says what came back.
CALLER = """
import socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.settimeout(20)
connection.connect(sys.argv[1])
data = b""
try:
    connection.sendall(sys.argv[2].encode())
    while chunk := connection.recv(65536):
        data += chunk
    print(repr(data))
except (BrokenPipeError, ConnectionResetError):
    print(repr(data))
"""


async def call_as(uid: int, path: Path, request: str) -> bytes:
    """Send a request as another user and return all that came back."""
    process = await asyncio.create_subprocess_exec(
        *("/usr/bin/python3", "-c", CALLER, str(path), request),
        user=uid,
        group=uid,
        extra_groups=[],
        stdout=asyncio.subprocess.PIPE,
    )
    printed, _ = await process.communicate()
    return bytes(ast.literal_eval(printed.decode()))
