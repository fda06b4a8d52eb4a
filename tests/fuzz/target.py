"""A gateway process between doubles: Alice's sandbox, and Mallory's, at which everything bad is aimed or comes from."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.gateway import doubles
from tests.gateway.place import ALICE, ALICE_KEY, MALLORY, MALLORY_KEY, request_bytes
from tests.gateway.process import start
from tests.gateway.sites import Site

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator

_PATIENCE_S = 0.25
_TICK_S = 0.02


@dataclass
class Target:
    """A gateway process between doubles: Alice's sandbox, and Mallory's, at which the garbage is aimed."""

    process: asyncio.subprocess.Process
    address: tuple[str, int]
    alice: doubles.Guest
    mallory: doubles.Guest
    site: Site
    web: doubles.Web
    tap: doubles.Tap
    said: list[bytes]

    def resident_kib(self) -> int:
        """Return how much memory the gateway holds."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0])

    async def send(self, data: bytes, dice: random.Random) -> None:
        """Send bytes in a few pieces, end in one of several ways, and take what comes."""
        reader, writer = await asyncio.open_connection(*self.address)
        try:
            with contextlib.suppress(OSError):
                for _ in range(dice.randrange(3)):
                    cut = dice.randrange(len(data) + 1)
                    writer.write(data[:cut])
                    data = data[cut:]
                    await asyncio.sleep(0)
                writer.write(data)
                match dice.randrange(4):
                    case 0:
                        writer.write_eof()
                    case 1:
                        return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_PATIENCE_S):
                        while await reader.read(65_536):
                            pass
        finally:
            writer.transport.abort()


@contextlib.asynccontextmanager
async def surrounded(tmp_path: Path) -> AsyncIterator[Target]:
    """Start everything."""
    run = tmp_path / "run"
    edge, tap, web = doubles.Edge(run / "edge.sock"), doubles.Tap(run / "tap.sock"), doubles.Web(run / "web.sock")
    alice, mallory = doubles.Guest(run / "alice.sock"), doubles.Guest(run / "mallory.sock")
    edge.rows[ALICE] = doubles.row(ALICE, alice.path, {ALICE_KEY: None})
    edge.rows[MALLORY] = doubles.row(MALLORY, mallory.path, {MALLORY_KEY: None})
    site = Site()
    mallory.open_port(8080, site)
    said: list[bytes] = []
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(256)
        async with edge, tap, web, alice, mallory:
            process = await start(tmp_path, sock, GATEHOUSE_DOMAIN="sbx.example", GATEHOUSE_LOG_LEVEL="WARNING")
            assert process.stderr is not None
            listening = asyncio.ensure_future(listen(process.stderr, said))
            target = Target(process, sock.getsockname(), alice, mallory, site, web, tap, said)
            await until_reachable(target)
            yield target
            if process.returncode is None:
                process.terminate()
            await process.wait()
            await listening


async def until_reachable(target: Target) -> None:
    """Return once the gateway knows its sandboxes: it then says of a stranger that it is unknown, not to wait."""
    host = "49983-inobody.sbx.example"
    head = b"HTTP/1.1 503 "
    while head.startswith(b"HTTP/1.1 503 "):
        reader, writer = await asyncio.open_connection(*target.address)
        writer.write(request_bytes("POST /process.Process/List HTTP/1.1", b"{}", Host=host, Content_Length="2"))
        head = await reader.readuntil(b"\r\n\r\n")
        writer.close()


async def listen(stream: asyncio.StreamReader, said: list[bytes]) -> None:
    """Keep what the gateway says."""
    while line := await stream.readline():
        said.append(line)


async def neighbour(target: Target, stop: asyncio.Event) -> tuple[int, float]:
    """Follow a stream of Alice's that ticks; return how many ticks came, all in order, and the longest silence."""

    async def ticks(request: doubles.Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await doubles.read_body(reader, request)
        writer.write(doubles.STREAM_HEAD)
        number = 0
        while not stop.is_set():
            writer.write(doubles.chunk(doubles.envelope({"tick": number})))
            await writer.drain()
            number += 1
            await asyncio.sleep(_TICK_S)
        writer.write(doubles.chunk(doubles.envelope({}, 2)) + b"0\r\n\r\n")

    target.alice.on("POST", "/process.Process/Start", ticks)
    reader, writer = await asyncio.open_connection(*target.address)
    body = doubles.envelope({"process": {"cmd": "x"}})
    fields = {"X_Access_Token": doubles.token(ALICE, ALICE_KEY), "Content_Type": "application/connect+json"}
    host = f"49983-{ALICE}.sbx.example"
    writer.write(
        request_bytes("POST /process.Process/Start HTTP/1.1", body, Host=host, Content_Length=str(len(body)), **fields)
    )
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    loop = asyncio.get_running_loop()
    count, silence, heard = 0, 0.0, loop.time()
    while size := int(await reader.readline(), 16):
        data = (await reader.readexactly(size + 2))[:-2]
        silence, heard = max(silence, loop.time() - heard), loop.time()
        while data:
            length = int.from_bytes(data[1:5], "big")
            message, data = data[: 5 + length], data[5 + length :]
            assert message in {doubles.envelope({"tick": count}), doubles.envelope({}, 2)}
            count += message[0] == 0
    writer.close()
    return count, silence
