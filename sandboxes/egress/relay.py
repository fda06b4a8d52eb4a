"""Bytes both ways between two sockets, without a task and without a buffer of its own for each direction.

One read goes out by one write. What the other side does not take is kept, and nothing more is read until it is gone: a
flow holds at most one read's worth of memory, and only while it is stuck.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sandboxes.egress.wire import Gone

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandboxes.egress.wire import Wire

_PIECE = 256 * 1024
# The event loop calls one reader at a time, and each empties the buffer before it returns.
_buffer = bytearray(_PIECE)
_view = memoryview(_buffer)


class _Direction:
    """From one socket to the other."""

    __slots__ = ("_count", "_done", "_loop", "_rest", "_sink", "_sink_fd", "_source", "_source_fd", "ended")

    def __init__(self, source: Wire, sink: Wire, count: Callable[[int], bool], done: Callable[[str | None], None]):
        self._loop = asyncio.get_running_loop()
        self._source, self._sink = source.sock, sink.sock
        # Kept, because a closed socket does not know its number any more.
        self._source_fd, self._sink_fd = source.sock.fileno(), sink.sock.fileno()
        self._count = count
        self._done = done
        self._rest = memoryview(b"")
        self.ended = False

    def start(self) -> None:
        self._loop.add_reader(self._source_fd, self._read)

    def stop(self) -> None:
        self._loop.remove_reader(self._source_fd)
        self._loop.remove_writer(self._sink_fd)

    def _read(self) -> None:
        try:
            size = self._source.recv_into(_buffer)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._done("reset")
            return
        if not size:
            self._end()
        elif not self._count(size):
            self._done("limit")
        else:
            self._write(_view[:size])

    def _end(self) -> None:
        self.ended = True
        self._loop.remove_reader(self._source_fd)
        try:
            self._sink.shutdown(1)
        except OSError:
            self._done("reset")
        else:
            self._done(None)

    def _write(self, data: memoryview) -> None:
        try:
            sent = self._sink.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._done("reset")
            return
        if sent < len(data):
            self._rest = memoryview(bytes(data[sent:]))
            self._loop.remove_reader(self._source_fd)
            self._loop.add_writer(self._sink_fd, self._go_on)

    def _go_on(self) -> None:
        try:
            sent = self._sink.send(self._rest)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._done("reset")
            return
        self._rest = self._rest[sent:]
        if not self._rest:
            self._loop.remove_writer(self._sink_fd)
            self._loop.add_reader(self._source_fd, self._read)


async def relay(client: Wire, server: Wire, count_out: Callable[[int], bool], count_in: Callable[[int], bool]) -> str:
    """Pass everything on until both sides have ended; return how it ended: done, reset or limit.

    What was read ahead goes first. The counters are asked before bytes go on; False ends the flow.
    """
    for source, sink, count in ((client, server, count_out), (server, client, count_in)):
        ahead = source.take()
        if ahead:
            if not count(len(ahead)):
                return "limit"
            try:
                await sink.send(ahead)
            except Gone:
                return "reset"
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def done(how: str | None) -> None:
        if how is None and outwards.ended and inwards.ended:
            how = "done"
        if how is not None and not ended.done():
            outwards.stop()
            inwards.stop()
            ended.set_result(how)

    outwards = _Direction(client, server, count_out, done)
    inwards = _Direction(server, client, count_in, done)
    try:
        outwards.start()
        inwards.start()
        return await ended
    finally:
        outwards.stop()
        inwards.stop()
