"""Which host a TLS client greets, without decrypting anything.

OpenSSL reads the greeting; a scan of our own finds the encrypted one (ECH), which OpenSSL does not show. Both must find
the same name: where they could differ, nothing passes.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass

_HANDSHAKE = 0x16
_CLIENT_HELLO = 1
_SERVER_NAME = 0
_PROTOCOLS = 16
_ECH = 0xFE0D
_RECORD_HEAD = 5
_MOST_IN_RECORD = 16 * 1024
_PRINTABLE = re.compile(rb"[\x21-\x7e]+")
_BEFORE_SESSION = 34  # version and random


class NotTls(Exception):
    """The bytes are no TLS greeting."""


class BadName(Exception):
    """The greeting names something that can be no host."""


@dataclass(frozen=True, slots=True)
class Hello:
    """What a greeting says."""

    sni: bytes | None
    ech: bool
    protocols: tuple[bytes, ...] = ()


class _Bytes:
    """Reads fields of a message; NotTls where it is too short."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def rest(self) -> bytes:
        return self.take(len(self._data) - self._at)

    def take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise NotTls
        taken = self._data[self._at : end]
        self._at = end
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> _Bytes:
        return _Bytes(self.take(self.number(size)))


def looks_like_tls(first: int) -> bool:
    """Tell by the first byte whether a TLS greeting may follow."""
    return first == _HANDSHAKE


def read_hello(data: bytes) -> Hello | None:
    """Return what the greeting says, None while it is incomplete. Raises NotTls and BadName."""
    message = _message_of(data)
    if message is None:
        return None
    hello = _extensions_of(message)
    if hello.sni is not None and not _PRINTABLE.fullmatch(hello.sni):
        raise BadName
    if hello.sni != _peek.name_in(data):
        raise NotTls
    return hello


def _message_of(data: bytes) -> bytes | None:
    """Return the body of the handshake message, put together from its records."""
    message = b""
    at = 0
    while at < len(data):
        head = data[at : at + _RECORD_HEAD]
        if head[0] != _HANDSHAKE or (len(head) > 1 and head[1] != 3):
            raise NotTls
        if len(head) < _RECORD_HEAD:
            return None
        size = int.from_bytes(head[3:5], "big")
        if not 0 < size <= _MOST_IN_RECORD:
            raise NotTls
        at += _RECORD_HEAD
        message += data[at : at + size]
        if message[0:1] not in (b"", bytes([_CLIENT_HELLO])):
            raise NotTls
        wanted = 4 + int.from_bytes(message[1:4], "big")
        if len(message) >= 4 and len(message) >= wanted:
            if len(message) > wanted:
                raise NotTls
            return message[4:]
        at += size
    return None


def _extensions_of(message: bytes) -> Hello:
    hello = _Bytes(message)
    hello.take(_BEFORE_SESSION)
    hello.vector(1)  # session id
    hello.vector(2)  # cipher suites
    hello.vector(1)  # compression methods
    seen: dict[int, _Bytes] = {}
    extensions = hello.vector(2) if hello else _Bytes(b"")
    while extensions:
        kind = extensions.number(2)
        if kind in seen:
            raise NotTls
        seen[kind] = extensions.vector(2)
    if hello:
        raise NotTls
    return Hello(_name_of(seen.get(_SERVER_NAME)), _ECH in seen, _protocols_of(seen.get(_PROTOCOLS)))


def _name_of(extension: _Bytes | None) -> bytes | None:
    if extension is None:
        return None
    names = extension.vector(2)
    kind, name = names.number(1), names.vector(2)
    if kind != 0 or names or extension:
        raise NotTls
    return name.rest()


def _protocols_of(extension: _Bytes | None) -> tuple[bytes, ...]:
    """Return what the client would speak inside of TLS; nothing where it doesn't say."""
    if extension is None:
        return ()
    listed, found = extension.vector(2), []
    while listed:
        found.append(listed.vector(1).rest())
    return tuple(found)


class _Peek:
    """A TLS server that never answers; its context is made once."""

    def __init__(self) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.sni_callback = self._saw
        self._name: str | None = None
        self._called = False

    def _saw(self, peer: ssl.SSLSocket | ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> int:
        self._name, self._called = name, True
        return int(ssl.AlertDescription.ALERT_DESCRIPTION_UNRECOGNIZED_NAME)

    def name_in(self, data: bytes) -> bytes | None:
        incoming = ssl.MemoryBIO()
        incoming.write(data)
        self._called = False
        server = self._context.wrap_bio(incoming, ssl.MemoryBIO(), server_side=True)
        try:
            server.do_handshake()
        except ssl.SSLError:
            if self._called:
                return None if self._name is None else self._name.encode("ascii")
        raise NotTls


_peek = _Peek()
