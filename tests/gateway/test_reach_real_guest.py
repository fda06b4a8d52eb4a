"""The real guest agent behind the gateway: commands, input, files, ports, byte for byte."""

from __future__ import annotations

import asyncio
import base64
import getpass
import hashlib
import io
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from tests.gateway import doubles
from tests.gateway.place import ALICE, ALICE_KEY, Place, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

GUEST = Path(__file__).resolve().parents[2] / "sandboxes/guest/bin/gatehouse-guest"

# The agent finds its listener at descriptor 3.
AS_DESCRIPTOR_3 = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.execv(sys.argv[2], sys.argv[2:])"


@pytest.fixture
def real_guest(tmp_path: Path) -> Iterator[Path]:
    """Run the guest agent as this user on a socket, as the node would; return the socket's path."""
    assert GUEST.is_file(), "The guest agent is missing: run `make guest`."
    path = tmp_path / "real-guest.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(128)
        configuration = json.dumps(
            {
                "sandbox_id": ALICE,
                "template_id": "base",
                "env": {"FROM_CREATE": "yes"},
                "default_user": getpass.getuser(),
            }
        )
        process = subprocess.Popen(
            [sys.executable, "-c", AS_DESCRIPTOR_3, str(listener.fileno()), str(GUEST)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[listener.fileno()],
        )
        assert process.stdin is not None
        process.stdin.write(configuration.encode())
        process.stdin.close()
    yield path
    process.kill()
    process.wait()


@pytest.fixture
async def real(place: Place, real_guest: Path) -> Place:
    """Alice's sandbox with the real agent in it."""
    place.edge.put(doubles.row(ALICE, real_guest, {ALICE_KEY: None}))
    await until(lambda: place.gateway.services.table.get(ALICE).socket == str(real_guest))  # type: ignore[union-attr]
    return place


def shell(command: str, **more: object) -> dict[str, object]:
    """Return a Start message that runs a shell command."""
    return {"process": {"cmd": "/bin/sh", "args": ["-c", command]}, "stdin": False, **more}


def messages(body: bytes) -> list[dict[str, Any]]:
    """Take a stream apart."""
    found = []
    while body:
        size = int.from_bytes(body[1:5], "big")
        found.append(json.loads(body[5 : 5 + size]))
        body = body[5 + size :]
    return found


def output(body: bytes, name: str = "stdout") -> bytes:
    """Return what a command printed."""
    events = [message.get("event", {}) for message in messages(body)]
    return b"".join(base64.b64decode(event["data"].get(name, "")) for event in events if "data" in event)


async def run(place: Place, command: str) -> bytes:
    """Run a command to its end."""
    async with place.start(shell(command)) as response:
        assert response.status == 200
        return bytes(await response.read())


async def test_it_runs_commands(real: Place) -> None:
    body = await run(real, "printf 'a\\n\\n\\nb'; printf oops >&2; echo $FROM_CREATE; exit 3")

    assert output(body) == b"a\n\n\nbyes\n"
    assert output(body, "stderr") == b"oops"
    end = messages(body)[-2]["event"]["end"]
    assert (end["exitCode"], end["status"]) == (3, "exit status 3")
    await until(lambda: real.tap.of("command.start", "result"))
    details = real.tap.of("command.start", "result")[0]["details"]
    assert details["guest_reported"] == {
        "pid": messages(body)[0]["event"]["start"]["pid"],
        "exit_code": 3,
        "status": "exit status 3",
        "ended": True,
    }


async def test_big_output_arrives_whole(real: Place) -> None:
    body = await run(
        real, f"{sys.executable} -c 'import os; os.write(1, bytes(range(256))*4); print(\"x\"*20_000_000)'"
    )

    assert (
        hashlib.sha256(output(body)).hexdigest()
        == hashlib.sha256(bytes(range(256)) * 4 + b"x" * 20_000_000 + b"\n").hexdigest()
    )


async def test_input_streams_in(real: Place) -> None:
    async with real.start(shell("cat; echo done", stdin=True)) as response:
        start = await response.content.readexactly(5)
        first = json.loads(await response.content.readexactly(int.from_bytes(start[1:], "big")))
        pid = first["event"]["start"]["pid"]

        async def envelopes() -> AsyncIterator[bytes]:
            yield doubles.envelope({"start": {"process": {"pid": pid}}})
            for text in (b"one\n", b"two\n"):
                data = base64.b64encode(text).decode()
                yield doubles.envelope({"data": {"input": {"stdin": data}}})

        async with real.http.post(
            f"{real.url}/process.Process/StreamInput",
            data=envelopes(),
            headers=real.headers(Content_Type="application/connect+json"),
        ) as sent:
            assert (sent.status, messages(await sent.read())) == (200, [{}, {}])
        async with real.rpc("process.Process/CloseStdin", {"process": {"pid": pid}}) as closed:
            assert closed.status == 200
        assert output(await response.read()) == b"one\ntwo\ndone\n"

    await until(lambda: len(real.tap.of("command.input", "result")) == 2)
    streamed = real.tap.of("command.input", "result")[0]
    assert len(streamed["details"]["input_hash"]) == 64


async def test_files_go_in_and_out(real: Place, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    form = aiohttp.FormData(quote_fields=False)
    for name in ("one.bin", "two.bin"):
        form.add_field("file", io.BytesIO(data), filename=str(tmp_path / name))
    async with real.http.post(f"{real.url}/files", data=form, headers=real.headers()) as response:
        assert response.status == 200
        assert [one["path"] for one in await response.json(content_type=None)] == [
            str(tmp_path / "one.bin"),
            str(tmp_path / "two.bin"),
        ]
    async with real.http.get(f"{real.url}/files?path={tmp_path}/two.bin", headers=real.headers()) as response:
        assert response.status == 200
        assert await response.read() == data
    async with real.rpc("filesystem.Filesystem/Stat", {"path": f"{tmp_path}/none"}) as response:
        assert (response.status, (await response.json())["code"]) == (404, "not_found")


async def test_a_server_inside_is_reached(real: Place) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await doubles.read_head(reader):
            writer.write(doubles.answer(200, b"inside"))
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        for _ in range(2):
            assert (await real.raw("GET / HTTP/1.1", Host=f"{port}-{ALICE}.sbx.example"))[2] == b"inside"
        real.gateway.services.table.drop(ALICE)
    real.edge.put(real.edge.rows[ALICE])
    await real.routes(1)
    assert len(real.tap.of("port.connect", "intent")) == 1

    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = unused.getsockname()[1]
    status, _, body = await real.raw("GET / HTTP/1.1", Host=f"{closed}-{ALICE}.sbx.example")
    assert (status, body["message"]) == (502, "The sandbox is running but port is not open")


async def test_an_unknown_user_is_told(real: Place) -> None:
    async with real.start(shell("true"), Authorization="Basic bm9ib2R5LWhlcmU6") as response:
        (end,) = messages(await response.read())
    assert end["error"]["code"] == "unauthenticated"
    await until(lambda: real.tap.of("command.start", "result"))
    assert real.tap.of("command.start", "result")[0]["outcome"] == "error"
