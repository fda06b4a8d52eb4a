"""The node's end of its zygote: starts it, gives it orders, ends it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandboxes.node.order import Order


class Zygote:
    """The small process that forks members; started on first use and again when it died."""

    def __init__(self) -> None:
        self._channel: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        # Many may give the first order at once.
        self._turn = asyncio.Lock()

    async def order(self, order: Order, stdin_fd: int, output_fd: int) -> None:
        """Ask for one member that lives on the two descriptors."""
        async with self._turn:
            try:
                channel = self._channel or self._start()
                socket.send_fds(channel, [order.pack()], [stdin_fd, output_fd])
            except (BrokenPipeError, ConnectionResetError):
                await self.stop()
                socket.send_fds(self._start(), [order.pack()], [stdin_fd, output_fd])

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "sandboxes.node.zygote", str(theirs.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], process_group=0)
        self._channel = ours
        return ours

    async def stop(self) -> None:
        """End the zygote; members that wait go with their own pipes."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None:
            await asyncio.to_thread(self._process.wait)
            # What it forked is ours to bury now, and all of it is in its process group.
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-self._process.pid, os.WNOHANG)[0]:
                    pass
            self._process = None
