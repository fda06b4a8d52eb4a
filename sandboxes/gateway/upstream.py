"""Connections to guests and to web: one exchange at a time over a unix socket, kept alive between them."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from typing import TYPE_CHECKING, cast

from sandboxes.gateway import http1

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

_HIGH_WATER = 256 * 1024
_MAX_INTERIM = 8
HEAD_SECONDS = 30.0  # for a whole head, once its first byte is there
_IDLE_KEPT = 32
_CONNECT_PAUSE = 0.02


def _trusting_context() -> ssl.SSLContext:
    """Return a context for servers inside sandboxes: their certificates are their own, and nobody is between."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


_TLS = _trusting_context()


class UpstreamError(Exception):
    """The other side is away, went away, or fell silent."""


class ConnectFailed(UpstreamError):
    """Nobody accepts on the socket: the process behind it is gone or not there yet."""


class Disconnected(UpstreamError):
    """The connection ended before the answer did. `early`: not one byte of an answer had come."""

    def __init__(self, message: str, *, early: bool = False) -> None:
        super().__init__(message)
        self.early = early


class NoTls(UpstreamError):
    """The other side should speak TLS and does not."""


class Silent(UpstreamError):
    """Nothing came for longer than the limit."""


class Connection(asyncio.Protocol):
    """One connection. Use: `write` a request, `read_head`, then `pour` the body, or `read_body` until it is empty.

    Everything that the other side sends beyond the answer it owes makes the connection unusable.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._received: deque[bytes] = deque()
        self._buffered = 0
        self._reading_paused = False
        self._ended = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._writing_paused = False
        self._in_exchange = False
        self._left: int | None = 0
        self._chunks: http1.ChunkedDecoder | None = None
        self._kept_alive = False
        self._crowded = False
        self._has_room = True
        self._reset = False
        self._heard = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._sink: Callable[[list[bytes]], bool] | None = None
        self.sending = False  # while a request body is on its way, the other side may be silent
        self.reused = False
        self.on_lost: Callable[[], None] | None = None
        self.idle_since = 0.0

    # --- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)

    def data_received(self, data: bytes) -> None:
        """Keep what came; a peer that speaks out of turn is cut off."""
        if not self._in_exchange:
            self.close()
            return
        self._received.append(data)
        self._buffered += len(data)
        self._heard = self._loop.time()
        if self._sink is not None and self._waiter is not None:
            try:
                if self._pour_at_hand(self._sink):
                    return
            except Exception as error:  # noqa: BLE001  (raised again where the body is waited for)
                self.fail(error)
                return
        if self._buffered > _HIGH_WATER and not self._reading_paused and self._transport is not None:
            self._reading_paused = True
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        """Note the end; asyncio closes the transport."""
        self._ended = True
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end and free every waiter."""
        self._ended = True
        self._reset = exc is not None
        self._transport = None
        self._wake()
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        if self.on_lost is not None:
            self.on_lost()

    def pause_writing(self) -> None:
        """Make `drain` wait."""
        self._writing_paused = True

    def resume_writing(self) -> None:
        """Let `drain` go on."""
        self._writing_paused = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- our side

    @property
    def writing_paused(self) -> bool:
        """Whether the send buffer is full."""
        return self._writing_paused

    @property
    def alive(self) -> bool:
        """Whether the connection can still carry a request."""
        return self._transport is not None and not self._ended and self._error is None

    def begin(self) -> None:
        """Start an exchange: from here on the other side may speak."""
        self._in_exchange = True

    async def start_tls(self, server_name: str | None, seconds: float) -> None:
        """Speak TLS from here on, whoever the other side says it is. Raises NoTls."""
        if self._transport is None or self._received:
            raise NoTls("the other side spoke before its turn")
        try:
            transport = await self._loop.start_tls(
                self._transport, self, _TLS, server_hostname=server_name, ssl_handshake_timeout=seconds
            )
        except (OSError, ValueError) as error:
            # A client may have put what is no name into its Host.
            raise NoTls("the handshake failed") from error
        if transport is None:
            raise NoTls("the connection ended in the handshake")
        self.connection_made(transport)

    def write(self, data: bytes) -> None:
        """Send bytes; silently nothing when the connection is gone (reading will say so)."""
        if self._transport is not None and self._error is None:
            self._transport.write(data)

    async def drain(self, seconds: float) -> None:
        """Wait until the send buffer has room. Raises Disconnected, Silent, or what `fail` was given."""
        if self._writing_paused and self._transport is not None:
            self._writable = self._loop.create_future()
            timer = self._loop.call_later(seconds, self.fail, Silent("nothing was taken in time"))
            try:
                await self._writable
            finally:
                timer.cancel()
                self._writable = None
        if self._error is not None:
            raise self._error
        if self._transport is None:
            raise Disconnected("the connection was closed while sending")

    async def _wait(self, seconds: float) -> None:
        """Wait for more bytes or the end, at most so long."""
        waiter = self._waiter = self._loop.create_future()
        self._heard = self._loop.time()
        self._timer = self._loop.call_later(seconds, self._expire, seconds)
        try:
            await waiter
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self._waiter = None
        if self._error is not None:
            raise self._error

    def _expire(self, seconds: float) -> None:
        left = self._heard + seconds - self._loop.time()
        if self.sending or left > 0.001:
            self._timer = self._loop.call_later(seconds if self.sending else left, self._expire, seconds)
        else:
            self.fail(Silent("nothing came in time"))

    def _take(self) -> bytes:
        data = self._received.popleft()
        self._buffered -= len(data)
        if self._reading_paused and self._buffered < _HIGH_WATER // 2 and self._transport is not None:
            self._reading_paused = False
            self._transport.resume_reading()
        return data

    def _put_back(self, data: bytes) -> None:
        if data:
            self._received.appendleft(data)
            self._buffered += len(data)

    async def read_head(self, method: str, *, seconds: float, upgrade: bool = False) -> http1.AnswerHead:
        """Read the final head of the answer.

        Interim answers are skipped, 101 is final only when an upgrade was asked for. Raises BadAnswer,
        Disconnected, Silent, or what `fail` was given.
        """
        for _ in range(_MAX_INTERIM):
            head = http1.parse_head(await self._head_block(seconds), method=method)
            if head.status >= 200 or (head.status == 101 and upgrade):
                self._left = head.length
                self._chunks = http1.ChunkedDecoder() if head.chunked else None
                self._kept_alive = head.keep_alive
                return head
            if head.status == 101:
                break
        raise http1.BadAnswer("the answer has no final head")

    async def _head_block(self, seconds: float) -> bytes:
        if self._error is not None:
            raise self._error
        block = b""
        deadline: float | None = None
        while True:
            while not self._received:
                if self._ended:
                    raise Disconnected("the connection ended before the answer", early=not block)
                left = seconds if deadline is None else deadline - self._loop.time()
                await self._wait(max(0.0, left))
            # Once a head has begun it has a short time in all, however slowly its bytes drip.
            deadline = deadline or self._loop.time() + min(seconds, HEAD_SECONDS)
            searched = max(0, len(block) - 3)
            block += self._take()
            stop = block.find(b"\r\n\r\n", searched)
            if stop >= 0 and stop <= http1.MAX_HEAD:
                self._put_back(block[stop + 4 :])
                return block[:stop]
            if len(block) > http1.MAX_HEAD:
                raise http1.BadAnswer("the head is too long")

    async def read_body(self, seconds: float) -> list[bytes]:
        """Return the next pieces of the body, or an empty list at its proper end.

        Raises BadAnswer, Disconnected when it ends too early, Silent, or what `fail` was given.
        """
        if self._crowded:
            # Very small chunks: the others' turn first.
            self._crowded = False
            await asyncio.sleep(0)
        while True:
            if self._error is not None:
                raise self._error
            pieces = self._body_at_hand()
            if pieces or self.body_complete:
                return pieces
            if self._ended and not self._received:
                self._end_here()
                return []
            if self._received:
                await asyncio.sleep(0)
            else:
                await self._wait(seconds)

    async def pour(
        self, sink: Callable[[list[bytes]], bool], room: Callable[[float], Awaitable[None]], seconds: float
    ) -> None:
        """Hand the body to `sink` as it comes, until its proper end.

        Pieces go straight from the socket's callback to the sink, so that nobody has to be woken for each. A sink
        that returns False gets no more until `room` has returned. Raises what `read_body` raises, and what the
        sink or `room` raises.
        """
        self._sink = sink
        try:
            while True:
                if self._error is not None:
                    raise self._error
                self._pour_at_hand(sink)
                if self.body_complete:
                    return
                if not self._has_room:
                    await room(seconds)
                    self._has_room = True
                elif self._crowded:
                    # Very small chunks: the others' turn first.
                    self._crowded = False
                    await asyncio.sleep(0)
                elif self._ended and not self._received:
                    self._end_here()
                    return
                else:
                    await self._wait(seconds)
        finally:
            self._sink = None

    def _pour_at_hand(self, sink: Callable[[list[bytes]], bool]) -> bool:
        """Hand over what is there; say whether `pour` may go on sleeping."""
        pieces = self._body_at_hand()
        if pieces:
            self._has_room = sink(pieces)
        return self._has_room and not self._crowded and not self.body_complete

    def _end_here(self) -> None:
        """Take the connection's end as the body's, if that is how it ends. Raises Disconnected."""
        if self._chunks is not None or self._left is not None or self._reset:
            raise Disconnected("the connection ended inside the answer")
        self._left = 0

    def _body_at_hand(self) -> list[bytes]:
        pieces: list[bytes] = []
        chunks = self._chunks
        while self._received and not self.body_complete:
            data = self._take()
            if chunks is not None:
                rest = chunks.feed(data, pieces)
                if rest:
                    self._put_back(rest)
                    self._crowded = not chunks.finished
                    break
            elif self._left is None:
                pieces.append(data)
            elif len(data) <= self._left:
                self._left -= len(data)
                pieces.append(data)
            else:
                pieces.append(data[: self._left])
                self._put_back(data[self._left :])
                self._left = 0
        return pieces

    @property
    def has_received(self) -> bool:
        """Whether bytes are waiting to be read."""
        return bool(self._received)

    @property
    def body_complete(self) -> bool:
        """Whether the whole body of the current answer was read."""
        return self._chunks.finished if self._chunks is not None else self._left == 0

    async def read_raw(self, seconds: float) -> bytes:
        """Return whatever came, after an upgrade; nothing at the end. Raises Silent or what `fail` gave."""
        while not self._received:
            if self._error is not None:
                raise self._error
            if self._ended:
                return b""
            await self._wait(seconds)
        return self._take()

    def finish(self) -> bool:
        """End the exchange and say whether the connection may carry another one."""
        self._in_exchange = False
        self.reused = True
        return self.alive and self._kept_alive and self.body_complete and not self._received

    def fail(self, error: Exception) -> None:
        """End the connection at once; whoever waits on it gets this error."""
        if self._error is None:
            self._error = error
        self._wake()
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Close the connection; sent bytes still go out."""
        self._in_exchange = False
        if self._transport is not None:
            self._transport.close()


async def connect(path: Path | str, *, seconds: float) -> Connection:
    """Open a connection to a unix socket. Raises ConnectFailed, also when it takes too long."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    try:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    _, connection = await loop.create_unix_connection(Connection, str(path))
                except BlockingIOError:
                    # The listener's queue is full, which only waiting can cure.
                    if loop.time() >= deadline:
                        raise
                    await asyncio.sleep(_CONNECT_PAUSE)
                else:
                    return connection
    except (OSError, TimeoutError) as error:
        raise ConnectFailed("nobody accepts connections on the socket") from error


class Idle:
    """Connections that wait for their next exchange, all to the same place."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._idle: list[Connection] = []
        self._closed = False

    def take(self) -> Connection | None:
        """Return a connection that is still alive, ready for one exchange."""
        while self._idle:
            connection = self._idle.pop()
            if connection.alive:
                connection.begin()
                return connection
        return None

    def release(self, connection: Connection, *, sent_whole: bool) -> None:
        """Give a connection back after an exchange; it is closed unless it is clean."""
        clean = connection.finish()
        if clean and sent_whole and not self._closed and len(self._idle) < _IDLE_KEPT:
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle.append(connection)
        else:
            connection.close()

    def prune(self, now: float) -> bool:
        """Close what was idle for too long; say whether anything is left."""
        for connection in [one for one in self._idle if now - one.idle_since > self._seconds]:
            self._idle.remove(connection)
            connection.close()
        return bool(self._idle)

    def close(self) -> None:
        """Close every idle connection and keep none from now on."""
        self._closed = True
        self.clear()

    def clear(self) -> None:
        """Close every idle connection."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()


class Pool(Idle):
    """Idle connections to one unix socket, and new ones when none is idle."""

    def __init__(self, path: Path | str, *, connect_seconds: float, idle_seconds: float) -> None:
        super().__init__(idle_seconds)
        self._path = path
        self._connect_seconds = connect_seconds

    async def acquire(self) -> Connection:
        """Return a connection, kept or new, ready for one exchange. Raises ConnectFailed."""
        return self.take() or await self.fresh()

    async def fresh(self) -> Connection:
        """Return a new connection, ready for one exchange. Raises ConnectFailed."""
        connection = await connect(self._path, seconds=self._connect_seconds)
        connection.begin()
        return connection
