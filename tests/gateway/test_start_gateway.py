"""The gateway starts from its environment, takes a bound socket, and ends cleanly at SIGTERM."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sandboxes.gateway.settings import from_environment
from tests.gateway import doubles
from tests.gateway.place import ALICE, ALICE_KEY, read_answer, request_bytes
from tests.gateway.process import ROOT, start

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_it_reads_its_environment() -> None:
    settings = from_environment(
        {
            "GATEHOUSE_HOME": "/srv/gatehouse",
            "GATEHOUSE_DOMAIN": "Gate.Example.",
            "GATEHOUSE_LISTEN_FD": "7",
            "GATEHOUSE_BIND": "::",
            "GATEHOUSE_PORT": "9000",
        }
    )

    assert settings.edge_socket == Path("/srv/gatehouse/run/edge.sock")
    assert settings.tap_socket == Path("/srv/gatehouse/run/tap.sock")
    assert settings.web_socket == Path("/srv/gatehouse/run/web.sock")
    assert (settings.domain, settings.listen_fd, settings.bind, settings.port) == ("gate.example", 7, "::", 9000)


def test_it_has_defaults() -> None:
    settings = from_environment({"GATEHOUSE_HOME": "/h"})

    assert (settings.domain, settings.listen_fd, settings.bind, settings.port) == ("", None, "127.0.0.1", 8000)


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({}, "GATEHOUSE_HOME must name the folder that holds run/"),
        (
            {"GATEHOUSE_HOME": "/h", "GATEHOUSE_PORT": "0"},
            "GATEHOUSE_PORT must be a whole number from 1 to 65535, not '0'",
        ),
        (
            {"GATEHOUSE_HOME": "/h", "GATEHOUSE_LISTEN_FD": "x"},
            "GATEHOUSE_LISTEN_FD must be a whole number from 3 to 65535, not 'x'",
        ),
    ],
)
def test_it_says_what_is_wrong(environ: dict[str, str], sentence: str) -> None:
    with pytest.raises(ValueError, match="GATEHOUSE") as caught:
        from_environment(environ)
    assert str(caught.value) == sentence


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    """A bound public socket, as the node hands it over."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(16)
        yield sock


async def test_it_serves_on_the_socket_it_was_given_and_drains_at_sigterm(tmp_path: Path, sock: socket.socket) -> None:
    run = tmp_path / "run"
    edge, tap = doubles.Edge(run / "edge.sock"), doubles.Tap(run / "tap.sock")
    guest, web = doubles.Guest(run / "guest.sock"), doubles.Web(run / "web.sock")
    edge.rows[ALICE] = doubles.row(ALICE, guest.path, {ALICE_KEY: None})
    proceed = asyncio.Event()

    async def command(request: doubles.Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await doubles.read_body(reader, request)
        writer.write(doubles.STREAM_HEAD + doubles.chunk(doubles.envelope({"event": {"start": {"pid": 1}}})))
        await proceed.wait()
        writer.write(doubles.chunk(doubles.envelope({}, 2)) + b"0\r\n\r\n")

    guest.on("POST", "/process.Process/Start", command)
    async with edge, tap, guest, web:
        process = await start(tmp_path, sock)
        assert process.stderr is not None
        while json.loads(line := await process.stderr.readline())["event"] != "routes_synced":
            assert line
        reader, writer = await asyncio.open_connection(*sock.getsockname())
        body = doubles.envelope({"process": {"cmd": "x"}})
        headers = {
            "E2b_Sandbox_Id": ALICE,
            "E2b_Sandbox_Port": "49983",
            "X_Access_Token": doubles.token(ALICE, ALICE_KEY),
            "Content_Type": "application/connect+json",
            "Content_Length": str(len(body)),
        }
        writer.write(request_bytes("POST /process.Process/Start HTTP/1.1", body, **headers))
        await reader.readuntil(b"start")

        process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.1)
        proceed.set()
        assert (await reader.read()).endswith(doubles.envelope({}, 2) + b"\r\n0\r\n\r\n")
        async with asyncio.timeout(5):
            assert await process.wait() == 0
        lines = [json.loads(one) for one in (await process.stderr.read()).splitlines()]
        writer.close()

    (execution,) = [one for one in lines if one["event"] == "tool_execution"]
    assert execution.keys() >= {
        "sandbox_id",
        "tool_name",
        "args_hash",
        "result_status",
        "duration_ms",
        "timestamp",
        "risk_score",
    }
    assert (execution["sandbox_id"], execution["result_status"]) == (ALICE, "ok")
    assert len(tap.of("command.start", "result")) == 1


async def test_it_does_not_wait_for_an_idle_client(tmp_path: Path, sock: socket.socket) -> None:
    web = doubles.Web(tmp_path / "run/web.sock")
    async with web:
        process = await start(tmp_path, sock)
        reader, writer = await asyncio.open_connection(*sock.getsockname())
        writer.write(request_bytes("GET / HTTP/1.1"))
        assert (await read_answer(reader))[0] == 200

        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(3):
            assert await process.wait() == 0
        writer.close()


@pytest.mark.parametrize("more", [{"GATEHOUSE_PORT": "nonsense"}, {"GATEHOUSE_LISTEN_FD": "999"}])
async def test_it_ends_with_one_sentence_when_it_can_not_start(tmp_path: Path, more: dict[str, str]) -> None:
    process = await start(tmp_path, None, **more)

    _, said = await process.communicate()

    assert process.returncode == 1
    assert said.count(b"\n") == 1
    assert said.startswith(b"gateway: ")


async def test_it_says_that_the_port_is_taken(tmp_path: Path, sock: socket.socket) -> None:
    process = await start(tmp_path, None, GATEHOUSE_PORT=str(sock.getsockname()[1]))

    _, said = await process.communicate()

    assert process.returncode == 1
    assert b"Address already in use" in said


def test_it_loads_no_django() -> None:
    """The unprivileged way in holds no database code."""
    code = "import sys, sandboxes.gateway.__main__; sys.exit('django' in sys.modules)"
    status = os.spawnve(
        os.P_WAIT,
        sys.executable,
        [sys.executable, "-c", code],
        {"PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}"},
    )

    assert status == 0
