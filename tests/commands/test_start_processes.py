"""The commands that start one process each: what they become, with which environment and settings."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import socket
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connections

from corekit import ownmemory
from gatehouse.celery import app
from gatehouse.management.commands import serve, worker
from tests import factories
from tests.conftest import VAULT_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenants.models import Tenant


class ReplacedError(Exception):
    """Stands for the moment when the process becomes another program."""


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str], dict[str, str]]]:
    """What execve was asked for."""
    calls: list[tuple[str, list[str], dict[str, str]]] = []

    def execve(path: str, arguments: list[str], environment: dict[str, str]) -> None:
        calls.append((path, arguments, environment))
        raise ReplacedError

    monkeypatch.setattr(os, "execve", execve)
    return calls


def test_up_becomes_the_supervisor(executed: list[tuple[str, list[str], dict[str, str]]]) -> None:
    with pytest.raises(ReplacedError):
        call_command("up")

    path, arguments, environment = executed[0]
    assert (path, arguments) == (sys.executable, [sys.executable, "-m", "sandboxes.node.supervisor"])
    assert environment["PYTHONPATH"].split(":") == [str(settings.BASE_DIR), str(settings.BASE_DIR / "platform")]
    assert environment["PYTHONSAFEPATH"] == "1"


def test_node_becomes_the_keeper_without_any_credential(
    executed: list[tuple[str, list[str], dict[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = ("DATABASE_URL", "DATABASE_URL_FILE", "REDIS_URL", "GATEHOUSE_SEED", "GATEHOUSE_SECRET_KEY")
    for name in (*secrets, "GATEHOUSE_LEDGER_KEY", "GATEHOUSE_VAULT_KEY", "AZURE_CLIENT_SECRET", "IDENTITY_HEADER"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("GATEHOUSE_PORT", "9000")
    with pytest.raises(ReplacedError):
        call_command("node")

    _, arguments, environment = executed[0]
    assert arguments == [sys.executable, "-m", "sandboxes.node"]
    assert "secret" not in environment.values()
    assert environment["GATEHOUSE_PORT"] == "9000"


def test_web_keeps_connections_longer_than_the_gateway() -> None:
    config = serve.configuration("/run/web.sock")

    assert config.app == "gatehouse.asgi:application"
    assert config.timeout_keep_alive >= 620
    assert config.access_log is False
    assert config.proxy_headers is False
    assert config.server_header is False
    assert config.timeout_graceful_shutdown == 10


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The paths of the sockets that web would serve, for each time that it would."""
    ran: list[list[str]] = []

    def run(_server: uvicorn.Server, sockets: list[socket.socket]) -> None:
        ran.append([one.getsockname() for one in sockets])
        for one in sockets:
            one.close()

    monkeypatch.setattr(uvicorn.Server, "run", run)
    return ran


@pytest.fixture
def run_folder(settings: Any) -> Iterator[Path]:
    """The folder of the sockets, with a short name because a socket's path is."""
    with tempfile.TemporaryDirectory(prefix="gh-") as home:
        settings.GATEHOUSE = dataclasses.replace(settings.GATEHOUSE, home=Path(home))
        settings.GATEHOUSE.run.mkdir()
        yield settings.GATEHOUSE.run


def bound(path: Path) -> int:
    """Return the descriptor of a socket at a path; whoever gets it closes it."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    return listener.detach()


def test_web_serves_what_it_is_given(served: list[list[str]], run_folder: Path) -> None:
    public, internal, broker = (run_folder / f"{name}.sock" for name in ("web", "internal", "broker"))
    call_command("serve", f"--fd={bound(public)}", f"--internal-fd={bound(internal)}", f"--broker-fd={bound(broker)}")

    assert served == [[str(public), str(internal), str(broker)]]


def test_web_makes_what_it_is_not_given(served: list[list[str]], run_folder: Path) -> None:
    for _ in range(2):
        call_command("serve", f"--uds={run_folder / 'other.sock'}")

    assert served == [[str(run_folder / f"{name}.sock") for name in ("other", "internal", "broker")]] * 2


@pytest.mark.parametrize("option", ["internal-fd", "broker-fd"])
def test_web_takes_no_other_socket_for_a_guarded_one(served: list[list[str]], run_folder: Path, option: str) -> None:
    fd = bound(run_folder / "strange.sock")
    with pytest.raises(CommandError, match="must be at"):
        call_command("serve", f"--uds={run_folder / 'web.sock'}", f"--{option}={fd}")

    assert served == []


def test_web_refuses_a_descriptor_that_is_no_socket(served: list[list[str]], run_folder: Path) -> None:
    with (run_folder / "file").open("w") as plain, pytest.raises(CommandError, match="is no socket"):
        call_command("serve", f"--fd={plain.fileno()}")

    assert served == []


@pytest.fixture
def as_web(settings: Any, run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let this process be web, but for its memory, which other tests look into; return its key file."""
    monkeypatch.setattr(ownmemory, "keep_private", lambda: None)
    monkeypatch.setattr(connections, "close_all", lambda: None)
    settings.GATEHOUSE = dataclasses.replace(settings.GATEHOUSE, service="web", vault_key_text=None)
    settings.GATEHOUSE.keys.mkdir()
    path: Path = settings.GATEHOUSE.vault_key_file
    path.write_text(VAULT_KEY)
    return path


def test_web_tries_its_vault_before_it_serves(
    db: None, as_web: Path, run_folder: Path, served: list[list[str]], log_lines: list[Any]
) -> None:
    call_command("serve", f"--uds={run_folder / 'web.sock'}")

    assert len(served) == 1
    assert [line for line in log_lines if line["log_level"] == "error"] == []


def test_web_serves_what_needs_no_secret_and_says_what_is_wrong(
    acme: Tenant, as_web: Path, run_folder: Path, served: list[list[str]], log_lines: list[Any]
) -> None:
    factories.secret(acme, "openai-key", "sk-acme")
    as_web.write_text(hashlib.sha256(b"another").hexdigest())

    call_command("serve", f"--uds={run_folder / 'web.sock'}")

    assert len(served) == 1
    (told,) = [line for line in log_lines if line["log_level"] == "error"]
    assert (told["event"], told["fix"]) == ("vault_self_test_failed", "put it back beside the newest one")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("00" * 32, "that anybody would try first"),
        ("ab", "that is no key"),
        (hashlib.sha256(settings.SECRET_KEY.encode()).hexdigest(), "another one of this installation"),
    ],
    ids=["guessed", "short", "derived"],
)
def test_web_does_not_serve_with_a_master_key_that_protects_nothing(
    as_web: Path, run_folder: Path, served: list[list[str]], text: str, said: str
) -> None:
    as_web.write_text(text)
    with pytest.raises(CommandError, match=said):
        call_command("serve", f"--uds={run_folder / 'web.sock'}")
    assert served == []


def test_web_does_not_serve_with_vaults_that_can_not_be_meant_so(
    as_web: Path, run_folder: Path, settings: Any, served: list[list[str]]
) -> None:
    file = run_folder / "vaults.toml"
    file.write_text('[embedded]\nkind = "azure_key_vault"\n')
    settings.GATEHOUSE = dataclasses.replace(settings.GATEHOUSE, vaults_file=file)
    with pytest.raises(CommandError, match="'embedded' can't be the name of a vault"):
        call_command("serve", f"--uds={run_folder / 'web.sock'}")
    assert served == []


@pytest.mark.parametrize("arguments", [[], ["--fd=x"], ["--fd=3", "--uds=/run/web.sock"]])
def test_web_needs_exactly_one_place_to_listen(arguments: list[str]) -> None:
    with pytest.raises(CommandError):
        call_command("serve", *arguments)


@pytest.fixture
def pools(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The pools that were started, without starting any."""
    started: list[dict[str, Any]] = []

    class Pool:
        def __init__(self, **options: Any) -> None:
            started.append(options)

        def start(self) -> None:
            """Return at once."""

    monkeypatch.setattr(app, "Worker", Pool)
    monkeypatch.setattr(worker, "_run_clock", lambda: started.append({"clock": True}))
    return started


def test_the_work_pool_alone_has_no_clock(pools: list[dict[str, Any]]) -> None:
    call_command("worker", "--pool=work")

    assert [(options["queues"], options["pool"]) for options in pools] == [(["work"], "threads")]


def test_the_control_pool_brings_the_clock(pools: list[dict[str, Any]]) -> None:
    call_command("worker", "--pool=control")

    assert {"clock": True} in pools
    assert [options["queues"] for options in pools if "queues" in options] == [["control"]]


def test_an_unknown_pool_is_refused(pools: list[dict[str, Any]]) -> None:
    with pytest.raises(CommandError):
        call_command("worker", "--pool=play")

    assert pools == []
