"""Bytes both ways between two sockets, without a task and without a buffer of its own for each direction.

One read goes out by one write. What the other side does not take is kept, and nothing more is read until it is gone: a
flow holds at most one read's worth of memory, and only while it is stuck. Where much comes at once, the kernel moves it
through a pipe, and it is never copied.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from typing import TYPE_CHECKING, ClassVar

from sandboxes.egress.poller import READ, WRITE

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandboxes.egress.wire import Wire

_PIECE = 256 * 1024
# After so many reads others have their turn.
_READS_IN_TURN = 4
# Whoever reads empties the buffer before anybody else runs.
_buffer = bytearray(_PIECE)
_view = memoryview(_buffer)
# A read of this size is followed by more, most of the time.
_MUCH = 32 * 1024
# The system lets an ordinary user have so many pages in pipes; these are far fewer.
_PIPES = 24
_PIPE_SIZE = 1024 * 1024


class _Pipe:
    """What the kernel moves bytes through. Empty whenever nobody holds it."""

    idle: ClassVar[list[_Pipe]] = []
    made: ClassVar[int] = 0

    def __init__(self) -> None:
        self.out, self.into = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.fcntl(self.into, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
        self.holds = 0

    @classmethod
    def take(cls) -> _Pipe | None:
        """Return one that is idle, None when all are in use."""
        if cls.idle:
            return cls.idle.pop()
        if cls.made >= _PIPES:
            return None
        try:
            pipe = cls()
        except OSError:
            return None
        cls.made += 1
        return pipe

    def give_back(self) -> None:
        """Let others have it; one that still holds bytes is thrown away with them."""
        if self.holds:
            os.close(self.out)
            os.close(self.into)
            type(self).made -= 1
        else:
            self.idle.append(self)


class _Direction:
    """From one socket to the other."""

    __slots__ = ("_count", "_pipe", "_relay", "_rest", "_sink", "_source", "ended")

    def __init__(self, relay: Relay, source: Wire, sink: Wire, count: Callable[[int], bool]) -> None:
        self._relay = relay
        self._source, self._sink = source.sock, sink.sock
        self._count = count
        self._rest = memoryview(source.take())
        self._pipe: _Pipe | None = None
        self.ended = False

    def begin(self) -> None:
        """Pass on what was read ahead."""
        if self._rest and not self._count(len(self._rest)):
            self._relay.end("limit")
        else:
            self.pump()

    def pump(self) -> None:
        """Pass on what is there until one of the sockets has had enough."""
        if self.ended or self._relay.over:
            return
        try:
            self._pump()
        except BlockingIOError:
            return
        except OSError:
            self._relay.end("reset")

    def _pump(self) -> None:
        for _ in range(_READS_IN_TURN):
            while self._rest:
                self._rest = self._rest[self._sink.send(self._rest) :]
            size = self._move() if self._pipe is not None else self._copy()
            if size is None:
                return
            if size >= _MUCH and self._pipe is None:
                self._pipe = _Pipe.take()
        # There may be more, and no edge would tell.
        self._relay.loop.call_soon(self.pump)

    def _copy(self) -> int | None:
        size = self._source.recv_into(_buffer)
        if not self._goes_on(size):
            return None
        self._pass(size)
        return size

    def _move(self) -> int | None:
        pipe = self._pipe
        assert pipe is not None  # noqa: S101 - asked for by the caller
        if not pipe.holds:
            try:
                pipe.holds = os.splice(self._source.fileno(), pipe.into, _PIPE_SIZE)
            except BlockingIOError:
                self.stop()
                raise
            if not self._goes_on(pipe.holds):
                return None
        while pipe.holds:
            pipe.holds -= os.splice(pipe.out, self._sink.fileno(), pipe.holds)
        return 0

    def _goes_on(self, size: int) -> bool:
        if not size:
            self.ended = True
            self.stop()
            self._sink.shutdown(1)
            self._relay.half_ended()
        elif not self._count(size):
            self._relay.end("limit")
        else:
            return True
        return False

    def stop(self) -> None:
        """Let others have the pipe."""
        if self._pipe is not None:
            self._pipe.give_back()
            self._pipe = None

    def _pass(self, size: int) -> None:
        sent = 0
        try:
            sent = self._sink.send(_view[:size])
        finally:
            if sent < size:
                self._rest = memoryview(bytes(_view[sent:size]))


class Relay:
    """Between a client and a server."""

    def __init__(
        self, client: Wire, server: Wire, count_out: Callable[[int], bool], count_in: Callable[[int], bool]
    ) -> None:
        """Take both wires. The counters are asked before bytes go on; False ends the flow."""
        self.loop = asyncio.get_running_loop()
        self.over = False
        self._ended: asyncio.Future[str] = self.loop.create_future()
        self._client, self._server = client, server
        self._outwards = _Direction(self, client, server, count_out)
        self._inwards = _Direction(self, server, client, count_in)

    async def run(self) -> str:
        """Pass everything on until both sides have ended; return how it ended: done, reset or limit."""
        self._client.tell(self._client_told)
        self._server.tell(self._server_told)
        try:
            self._outwards.begin()
            self._inwards.begin()
            return await self._ended
        finally:
            self.over = True
            self._outwards.stop()
            self._inwards.stop()

    def _client_told(self, what: int) -> None:
        if what & READ:
            self._outwards.pump()
        if what & WRITE:
            self._inwards.pump()

    def _server_told(self, what: int) -> None:
        if what & READ:
            self._inwards.pump()
        if what & WRITE:
            self._outwards.pump()

    def half_ended(self) -> None:
        """One side has said everything; the other one may go on."""
        if self._outwards.ended and self._inwards.ended:
            self.end("done")

    def end(self, how: str) -> None:
        """Pass nothing on any more."""
        self.over = True
        if not self._ended.done():
            self._ended.set_result(how)
