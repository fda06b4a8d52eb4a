"""The gateway as a process of its own, as the node starts it."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket

ROOT = Path(__file__).resolve().parents[2]


async def start(home: Path, sock: socket.socket | None, **more: str) -> asyncio.subprocess.Process:
    """Start the gateway's own process."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}",
        "GATEHOUSE_HOME": str(home),
        **more,
    }
    descriptors: tuple[int, ...] = ()
    if sock is not None:
        environment["GATEHOUSE_LISTEN_FD"] = str(sock.fileno())
        descriptors = (sock.fileno(),)
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "sandboxes.gateway",
        env=environment,
        pass_fds=descriptors,
        cwd="/",
        stderr=asyncio.subprocess.PIPE,
    )
