"""The node starts the gateway as its own user, without a network, and again when it dies; it survives the node."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sandboxes.node import linux, services
from sandboxes.node.services import GatewayService, bind_public
from tests.node import rig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from sandboxes.node.config import NodeConfig

# Stands in for the gateway: tells each caller who it is, notes its starts, and does what its directory says.
STAND_IN = """#!/usr/bin/python3
import json, os, pathlib, signal, socket, sys
here = pathlib.Path({here!r})
with (here / "starts").open("a") as starts:
    starts.write("started\\n")
if (here / "dies").exists():
    sys.exit(1)
if (here / "deaf").exists():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
status = pathlib.Path("/proc/self/status").read_text()
facts = {{
    "pid": os.getpid(), "uids": os.getresuid(), "gids": os.getresgid(), "groups": os.getgroups(), "cwd": os.getcwd(),
    "arguments": sys.argv[1:], "environment": dict(os.environ), "umask": oct(os.umask(0o022)),
    "status": dict(line.split(":\\t", 1) for line in status.splitlines() if ":\\t" in line),
    "interfaces": [name for _, name in socket.if_nameindex()],
    "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + name)),
}}
listener = socket.socket(fileno=int(os.environ["GATEHOUSE_LISTEN_FD"]))
while True:
    connection, _ = listener.accept()
    connection.sendall(json.dumps(facts).encode())
    connection.close()
"""
NOBODY = pwd.getpwnam("nobody")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a home with a stand-in for the gateway, which runs as `nobody`."""
    with tempfile.TemporaryDirectory(prefix="gh-", dir="/tmp") as name:
        home = Path(name)
        home.chmod(0o755)
        (home / "run").mkdir()
        (home / "notes").mkdir()
        (home / "notes").chmod(0o777)
        program = home / "gateway"
        program.write_text(STAND_IN.format(here=str(home / "notes")))
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))
        monkeypatch.setattr(services, "_user", lambda _name: NOBODY)
        yield home


@pytest.fixture
def config(here: Path) -> NodeConfig:
    """Return the settings of a node with a gateway on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return replace(rig.config_for(here), port=port, serve_gateway=True)


@contextlib.asynccontextmanager
async def watching(config: NodeConfig, *, end_gateway: bool = True) -> AsyncIterator[GatewayService]:
    """Run the service."""
    service = GatewayService(config)
    service.start()
    try:
        yield service
    finally:
        await service.stop(end=end_gateway)


async def ask(config: NodeConfig) -> dict[str, Any]:
    """Return what the gateway on the public port says about itself."""
    async with asyncio.timeout(rig.PATIENCE_S):
        reader, writer = await asyncio.open_connection(config.bind, config.port)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
    return dict(json.loads(answer))


def kill(earlier: GatewayService) -> None:
    """Kill the gateway that an earlier node started, and bury it as the supervisor of that node would."""
    assert earlier._process is not None
    earlier._process.kill()
    earlier._process.wait()


def starts(here: Path) -> int:
    """Return how often the gateway was started."""
    notes = here / "notes" / "starts"
    return notes.read_text().count("started") if notes.exists() else 0


async def test_it_runs_as_its_own_user_and_with_nothing_of_root_s(
    config: NodeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DJANGO_SECRET_KEY", "tulip")
    monkeypatch.setenv("GATEHOUSE_DOMAIN", "sandboxes.example.test")
    async with watching(config):
        facts = await ask(config)
    assert (facts["uids"], facts["gids"]) == ([NOBODY.pw_uid] * 3, [NOBODY.pw_gid] * 3)
    assert facts["groups"] in ([], [NOBODY.pw_gid])
    assert (facts["cwd"], facts["umask"], facts["arguments"]) == ("/", "0o77", ["-m", "sandboxes.gateway"])
    for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(facts["status"][name], 16) == 0
    assert facts["status"]["NoNewPrivs"] == "1"


async def test_it_gets_only_what_it_needs(config: NodeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_SECRET_KEY", "tulip")
    monkeypatch.setenv("DATABASE_URL", "postgres://tulip")
    monkeypatch.setenv("GATEHOUSE_DOMAIN", "sandboxes.example.test")
    async with watching(config):
        facts = await ask(config)
    environment = facts["environment"]
    listener = int(environment.pop("GATEHOUSE_LISTEN_FD"))
    assert facts["descriptors"] == [0, 1, 2, listener]
    assert environment.pop("GATEHOUSE_HOME") == str(config.home)
    assert environment.pop("GATEHOUSE_PORT") == str(config.port)
    assert environment.pop("GATEHOUSE_DOMAIN") == "sandboxes.example.test"
    assert set(environment) <= {"PATH", "LANG", "GATEHOUSE_LOG_LEVEL", "VIRTUAL_ENV", "LC_CTYPE"}
    assert "tulip" not in str(facts)


async def test_it_has_no_network_but_the_public_listener(config: NodeConfig) -> None:
    async with watching(config):
        assert (await ask(config))["interfaces"] == ["lo"]


async def test_it_is_started_again_when_it_dies(config: NodeConfig, here: Path) -> None:
    async with watching(config):
        first = (await ask(config))["pid"]
        os.kill(first, signal.SIGKILL)
        await rig.eventually(lambda: not rig.is_alive(first))
        # The node holds the listener, so that callers wait instead of being refused.
        second = (await ask(config))["pid"]
        assert second != first
        assert (here / "run" / "gateway.json").stat().st_mode & 0o777 == 0o600
        note = json.loads((here / "run" / "gateway.json").read_text())
        assert note == {
            "pid": second,
            "start_time": linux.process_start_time(second),
            "boot_id": linux.boot_id(),
        }
    assert starts(here) == 2


async def test_one_that_can_not_live_is_tried_less_and_less_often(config: NodeConfig, here: Path) -> None:
    (here / "notes" / "dies").touch()
    async with watching(config):
        await rig.eventually(lambda: starts(here) >= 2)
        await asyncio.sleep(0.7)
        assert starts(here) <= 5
        (here / "notes" / "dies").unlink()
        assert (await ask(config))["pid"] > 0


async def test_it_outlives_the_node_and_the_next_one_takes_it_back(config: NodeConfig, here: Path) -> None:
    async with watching(config, end_gateway=False) as earlier:
        first = (await ask(config))["pid"]
    assert (await ask(config))["pid"] == first
    async with watching(config):
        assert (await ask(config))["pid"] == first
        assert starts(here) == 1
        kill(earlier)
        await rig.eventually(lambda: starts(here) == 2)
        second = (await ask(config))["pid"]
        assert second != first
    assert not rig.is_alive(second)


async def test_it_ends_with_the_node(config: NodeConfig) -> None:
    async with watching(config):
        pid = (await ask(config))["pid"]
    assert not rig.is_alive(pid)
    assert pid not in rig.children_of(os.getpid())
    bind_public(config.bind, config.port).close()


async def test_one_that_does_not_want_to_end_is_killed(
    config: NodeConfig, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services, "_STOP_TIMEOUT_S", 0.1)
    (here / "notes" / "deaf").touch()
    async with watching(config):
        pid = (await ask(config))["pid"]
    assert not rig.is_alive(pid)


async def test_a_note_that_does_not_fit_is_not_trusted(config: NodeConfig, here: Path) -> None:
    stranger = subprocess.Popen(["sleep", "1000"])
    try:
        start_time = linux.process_start_time(stranger.pid)
        assert start_time is not None
        fitting = {"pid": stranger.pid, "start_time": start_time, "boot_id": linux.boot_id()}
        for count, note in enumerate(
            [
                "garbage",
                "[]",
                json.dumps({"pid": stranger.pid}),
                json.dumps(fitting | {"start_time": start_time + 1}),
                json.dumps(fitting | {"boot_id": "another-boot"}),
                json.dumps(fitting | {"pid": 2**22 - 1}),
            ],
            start=1,
        ):
            (here / "run" / "gateway.json").write_text(note)
            async with watching(config):
                assert (await ask(config))["pid"] != stranger.pid
            assert starts(here) == count
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


async def test_a_program_that_is_missing_does_not_end_the_node(
    config: NodeConfig, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watching(config):
        pid = (await ask(config))["pid"]
        with monkeypatch.context() as patch:
            patch.setattr(GatewayService, "_confinement", lambda _self: ("/nonexistent/unshare",))
            os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(0.3)
        assert (await ask(config))["pid"] != pid
    assert starts(here) == 2


async def test_a_port_that_is_taken_meanwhile_does_not_end_the_node(config: NodeConfig, here: Path) -> None:
    async with watching(config, end_gateway=False) as earlier:
        first = (await ask(config))["pid"]
    async with watching(config):
        kill(earlier)
        with bind_public(config.bind, config.port):
            await asyncio.sleep(0.3)
        await rig.eventually(lambda: starts(here) == 2)
        assert (await ask(config))["pid"] != first


async def test_a_port_that_is_taken_ends_the_start_with_one_sentence(config: NodeConfig, here: Path) -> None:
    with bind_public(config.bind, config.port), pytest.raises(SystemExit) as ended:
        GatewayService(config).start()
    assert str(ended.value) == (
        f"Port {config.port} on 127.0.0.1 can't be used (Address already in use): "
        "stop what uses it, or set GATEHOUSE_PORT."
    )
    assert starts(here) == 0


async def test_a_missing_user_ends_the_start_with_one_sentence(
    config: NodeConfig, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(GatewayService, "user", "gatehouse-nobody-has-this-name")
    with pytest.raises(SystemExit) as ended:
        GatewayService(config).start()
    assert str(ended.value) == ("The user gatehouse-nobody-has-this-name is missing: run `manage.py bootstrap`.")
    assert starts(here) == 0
