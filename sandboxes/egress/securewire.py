"""A connection whose TLS ends here, for whoever reads and writes what was inside: the same methods as `Wire` has."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import TYPE_CHECKING

from sandboxes.egress.wire import Gone

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandboxes.egress.wire import Wire

_PIECE = 64 * 1024


class TlsBroken(Gone):
    """The other end does not go on with TLS; `alert` is what OpenSSL calls its reason."""

    def __init__(self, error: ssl.SSLError) -> None:
        super().__init__(error.reason or str(error))
        self.error = error

    @property
    def alert(self) -> str:
        """Return the reason in OpenSSL's words, like TLSV1_ALERT_UNKNOWN_CA."""
        return self.error.reason or ""


class SecureWire:
    """Plain bytes over a wire that carries TLS. Nothing is sent or read before `handshake`."""

    __slots__ = ("_encrypted", "_flushing", "_is_server", "_received", "_tls", "_wire", "ahead")

    def __init__(self, wire: Wire, context: ssl.SSLContext, *, server_name: str | None = None) -> None:
        """Take the wire. With a `server_name` this end is the client, and wants that name proved."""
        self._wire = wire
        self._is_server = server_name is None
        self._received, self._encrypted = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._received, self._encrypted, server_side=self._is_server, server_hostname=server_name
        )
        # Two who flush at once would mix up their records.
        self._flushing = asyncio.Lock()
        self.ahead = bytearray()

    async def handshake(self) -> None:
        """Come to an understanding. Raises TlsBroken, and Gone when the other end leaves."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                if not await self._fill():
                    raise Gone("the other end left the handshake") from None
            except ssl.SSLError as error:
                # The alert that says why.
                with contextlib.suppress(Gone):
                    await self._flush()
                raise TlsBroken(error) from None
            else:
                await self._flush()
                return

    async def _flush(self) -> None:
        async with self._flushing:
            if self._encrypted.pending:
                await self._wire.send(self._encrypted.read())

    async def _fill(self) -> bool:
        """Take in more of what the other end sent; False at the end of it."""
        data = self._wire.take() or await self._wire.receive()
        if data:
            self._received.write(data)
        else:
            self._received.write_eof()
        return bool(data)

    async def more(self) -> bool:
        """Read on behind the bytes that are there; False at the end of the stream. Raises Gone."""
        data = await self.receive()
        self.ahead += data
        return bool(data)

    async def receive(self) -> bytes:
        """Return the next bytes, empty at their end. Raises Gone: also for an end that TLS did not announce.

        A client may leave without a word: where its requests end, they say themselves.
        """
        while True:
            try:
                return self._tls.read(_PIECE)
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError) as error:
                if self._is_server or isinstance(error, ssl.SSLZeroReturnError):
                    return b""
                raise Gone("the connection was cut off") from None
            except ssl.SSLError as error:
                raise TlsBroken(error) from None

    def is_quiet(self) -> bool:
        """Tell whether the connection stands and nothing has come on it but what TLS says for itself."""
        try:
            while data := self._wire.sock.recv(_PIECE):
                self._received.write(data)
                if self._received.pending > _PIECE:
                    return False
        except BlockingIOError:
            return self._says_nothing()
        except OSError:
            pass
        return False

    def _says_nothing(self) -> bool:
        try:
            self._tls.read(1)
        except ssl.SSLWantReadError:
            return True
        except ssl.SSLError:
            pass
        return False

    def take(self) -> bytes:
        """Return and forget what was read ahead."""
        data = bytes(self.ahead)
        self.ahead.clear()
        return data

    async def send(self, data: bytes) -> None:
        """Write all of it. Raises Gone."""
        view = memoryview(data)
        while view:
            try:
                view = view[self._tls.write(view[:_PIECE]) :]
            except ssl.SSLError as error:
                raise TlsBroken(error) from None
            await self._flush()

    def send_at_once(self, data: bytes) -> None:
        """Write what the socket takes without waiting. Raises OSError."""
        with contextlib.suppress(ssl.SSLError):
            self._tls.write(data)
        self._wire.send_at_once(self._encrypted.read())

    @property
    def hangup(self) -> Callable[[], object] | None:
        """Told when the other end has closed both directions, while somebody waits for something else."""
        return self._wire.hangup

    @hangup.setter
    def hangup(self, told: Callable[[], object] | None) -> None:
        """Have somebody told of it, or nobody any more."""
        self._wire.hangup = told

    def close(self) -> None:
        """End the connection in good order. Safe to repeat."""
        if self._wire.open:
            with contextlib.suppress(ssl.SSLError, OSError):
                try:
                    self._tls.unwrap()
                finally:
                    # The end is announced; nobody waits for the answer.
                    self._wire.send_at_once(self._encrypted.read())
            self._wire.close()

    def reset(self) -> None:
        """End the connection at once. Safe to repeat."""
        self._wire.reset()
