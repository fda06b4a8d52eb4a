"""TLS greetings as clients send them, and as some should not."""

from __future__ import annotations

import ssl


def greeting(name: str | None) -> bytes:
    """Return OpenSSL's greeting for a host."""
    context = ssl.create_default_context()
    context.check_hostname = name is not None
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a greeting alone finished the handshake")


def _split(data: bytes) -> tuple[bytes, bytes]:
    """Return what stands before the extensions (without their length), and the extensions."""
    at = 5 + 4 + 34
    at += 1 + data[at]
    at += 2 + int.from_bytes(data[at : at + 2], "big")
    at += 1 + data[at]
    return data[9:at], data[at + 2 :]


def _joined(before: bytes, extensions: bytes) -> bytes:
    body = before + len(extensions).to_bytes(2, "big") + extensions
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message


def with_extension(data: bytes, kind: int, content: bytes) -> bytes:
    """Return the greeting with one more extension in front."""
    before, extensions = _split(data)
    extra = kind.to_bytes(2, "big") + len(content).to_bytes(2, "big") + content
    return _joined(before, extra + extensions)


def named(raw: bytes) -> bytes:
    """Return a greeting whose server name is these bytes, whatever they are."""
    entry = b"\0" + len(raw).to_bytes(2, "big") + raw
    return with_extension(greeting(None), 0, len(entry).to_bytes(2, "big") + entry)


def encrypted(outer: str) -> bytes:
    """Return a greeting whose true name is encrypted (ECH) behind this one."""
    return with_extension(greeting(outer), 0xFE0D, b"\0" + bytes(40))


def in_two_records(data: bytes, at: int) -> bytes:
    """Return the same greeting, cut into two records after so many bytes of it."""
    message = data[5:]
    parts = message[:at], message[at:]
    return b"".join(b"\x16\x03\x01" + len(part).to_bytes(2, "big") + part for part in parts)
