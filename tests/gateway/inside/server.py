"""A server for the inside of a sandbox, standard library only: it speaks every form of HTTP/1.1 that a port may see."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import json
import sys

_WEBSOCKET = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_connections = itertools.count(1)


def chunk(data: bytes) -> bytes:
    """Return one chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


async def read_body(reader: asyncio.StreamReader, fields: dict[str, str]) -> tuple[int, str]:
    """Read a request's body; return its size and hash."""
    digest, size = hashlib.sha256(), 0
    if fields.get("transfer-encoding") == "chunked":
        while left := int(await reader.readline(), 16):
            digest.update(await reader.readexactly(left))
            size += left
            await reader.readexactly(2)
        while (await reader.readline()).strip():
            pass
    left = int(fields.get("content-length", 0))
    while left:
        piece = await reader.read(min(left, 1 << 16))
        digest.update(piece)
        size += len(piece)
        left -= len(piece)
    return size, digest.hexdigest()


async def echo_frames(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send WebSocket messages back until one says `bye`; then close with 4001."""
    while True:
        first, second = await reader.readexactly(2)
        size = second & 127
        if size == 126:
            size = int.from_bytes(await reader.readexactly(2), "big")
        elif size == 127:
            size = int.from_bytes(await reader.readexactly(8), "big")
        mask = await reader.readexactly(4)
        masked = await reader.readexactly(size)
        repeated = (mask * (size // 4 + 1))[:size]
        data = (int.from_bytes(masked, "big") ^ int.from_bytes(repeated, "big")).to_bytes(size, "big")
        if first & 15 == 8:
            writer.write(b"\x88" + bytes([size]) + data)
            return
        if data == b"bye":
            writer.write(b"\x88\x02" + (4001).to_bytes(2, "big"))
            return
        if size > 65_535:
            length = b"\x7f" + size.to_bytes(8, "big")
        elif size > 125:
            length = b"\x7e" + size.to_bytes(2, "big")
        else:
            length = bytes([size])
        writer.write(bytes([first]) + length + data)
        await writer.drain()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection."""
    number = next(_connections)
    try:
        while True:
            block = await reader.readuntil(b"\r\n\r\n")
            first, *lines = block.decode("latin-1").rstrip("\r\n").split("\r\n")
            method, target, _ = first.split(" ")
            fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            if fields.get("upgrade", "").lower() == "websocket":
                key = fields["sec-websocket-key"].encode() + _WEBSOCKET
                accept = base64.b64encode(hashlib.sha1(key, usedforsecurity=False).digest())
                writer.write(
                    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept
                )
                await echo_frames(reader, writer)
                break
            size, digest = await read_body(reader, fields)
            about = {"method": method, "target": target, "fields": fields, "size": size, "sha256": digest}
            await answer(writer, method, target, json.dumps({**about, "connection": number}).encode())
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def answer(writer: asyncio.StreamWriter, method: str, target: str, about: bytes) -> None:
    """Answer in the form that the path asks for."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
    match target.partition("?")[0]:
        case "/events":
            writer.write(head.replace(b"plain", b"event-stream") + b"Transfer-Encoding: chunked\r\n\r\n")
            for count in range(3):
                writer.write(chunk(b"data: %d\n\n" % count))
                await writer.drain()
                await asyncio.sleep(0.3)
            writer.write(b"0\r\n\r\n")
        case "/trailers":
            writer.write(head + b"Trailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(b"with trailers"))
            writer.write(b"0\r\nX-Sum: 1\r\n\r\n")
        case "/hints":
            writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + head + b"Content-Length: 4\r\n\r\nlate")
        case "/nothing":
            writer.write(b"HTTP/1.1 204 No Content\r\nX-Mine: yes\r\n\r\n")
        case "/same":
            writer.write(b'HTTP/1.1 304 Not Modified\r\nETag: "1"\r\nContent-Length: 17\r\n\r\n')
        case "/big":
            writer.write(head + b"Content-Length: 104857600\r\n\r\n")
            for _ in range(1600):
                writer.write(bytes(65536))
                await writer.drain()
        case _:
            writer.write(head + b"Content-Length: %d\r\n\r\n" % len(about) + (b"" if method == "HEAD" else about))


async def main() -> None:
    """Listen on the address and port of the command line."""
    server = await asyncio.start_server(serve, sys.argv[1], int(sys.argv[2]))
    sys.stdout.write("listening\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
