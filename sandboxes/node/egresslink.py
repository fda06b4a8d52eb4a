"""The node's end of the control socket of egress: one JSON message a packet, a listener beside it as a descriptor."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Message = dict[str, Any]

_PACKET_BYTES = 1024 * 1024
# By asm-generic/socket.h: as SO_SNDBUF and SO_RCVBUF, for root without the host's ceiling.
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_AT_ONCE = 64
# Egress closes flows before it answers, which takes no time that anybody would wait for.
_PATIENCE_S = 4.0


class Lost(Exception):
    """The connection is gone, or egress does not answer; nobody knows what of the request was done."""


class Failed(Exception):
    """Egress can't do what it was asked for, and says why."""


class Session:
    """One connection to an egress process. All methods belong to one event loop."""

    def __init__(self, sock: socket.socket, heard: Callable[[Message], None]) -> None:
        self._sock = sock
        self._heard = heard
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Message]] = {}
        self._turn = asyncio.Lock()
        self.ended = asyncio.Event()
        self._held = False
        asyncio.get_running_loop().add_reader(sock, self._read)

    @classmethod
    def connect(cls, path: Path, heard: Callable[[Message], None]) -> Session:
        """Connect; what egress says by itself goes to `heard`. OSError when nobody is there."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            for option in (_SO_SNDBUFFORCE, _SO_RCVBUFFORCE):
                sock.setsockopt(socket.SOL_SOCKET, option, _PACKET_BYTES)
            sock.connect(str(path))
        except OSError:
            sock.close()
            raise
        return cls(sock, heard)

    async def ask(self, op: str, listener: socket.socket | None = None, **fields: Any) -> Message:
        """Return the answer to a request. Raises Failed, or Lost: then this connection is over."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self._send({"op": op, "n": number, **fields}, listener)
                said: Message = await answer
        except (TimeoutError, OSError) as error:
            self.close()
            raise Lost(str(error) or "egress does not answer") from error
        finally:
            del self._answers[number]
        if said["op"] != "done":
            raise Failed(str(said.get("reason")))
        return said

    async def tell(self, op: str, **fields: Any) -> None:
        """Send what needs no answer. Nothing happens when the connection is gone."""
        try:
            await self._send({"op": op, **fields}, None)
        except (OSError, Lost):
            self.close()

    async def _send(self, message: Message, listener: socket.socket | None) -> None:
        data = json.dumps(message, separators=(",", ":")).encode()
        descriptors = [] if listener is None else [listener.fileno()]
        async with self._turn:
            while True:
                if self.ended.is_set():
                    raise Lost("the connection to egress is gone")
                try:
                    socket.send_fds(self._sock, [data], descriptors)
                except BlockingIOError:
                    await self._writable()
                else:
                    return

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        writable = asyncio.Event()
        loop.add_writer(self._sock, writable.set)
        try:
            await writable.wait()
        finally:
            loop.remove_writer(self._sock)

    def _read(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                data = self._sock.recv(_PACKET_BYTES)
                message = json.loads(data) if data else None
            except BlockingIOError:
                return
            except (OSError, ValueError):
                message = None
            if not isinstance(message, dict):
                self.close()
                return
            self._take(message)
            if self._held or self.ended.is_set():
                return

    def hold(self) -> None:
        """Read no more for now; egress waits. Safe to repeat."""
        self._set_held(held=True)

    def go_on(self) -> None:
        """Read again. Safe to repeat."""
        self._set_held(held=False)

    def _set_held(self, *, held: bool) -> None:
        if held == self._held or self.ended.is_set():
            return
        self._held = held
        loop = asyncio.get_running_loop()
        if held:
            loop.remove_reader(self._sock)
        else:
            loop.add_reader(self._sock, self._read)

    def _take(self, message: Message) -> None:
        if message.get("op") not in ("done", "failed"):
            self._heard(message)
            return
        answer = self._answers.get(message.get("n", 0))
        if answer is not None and not answer.done():
            answer.set_result(message)

    def close(self) -> None:
        """Hang up; whoever waits for an answer hears that none comes. Safe to repeat."""
        if self.ended.is_set():
            return
        self.ended.set()
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._sock)
        with contextlib.suppress(ValueError, OSError):
            loop.remove_writer(self._sock)
        self._sock.close()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(ConnectionResetError("the connection to egress is gone"))
