"""The commands that start one process each: what they become, with which environment and settings."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest
import uvicorn
from django.conf import settings
from django.core.management import CommandError, call_command

from gatehouse.celery import app
from gatehouse.management.commands import serve, worker


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
    for name in ("DATABASE_URL", "DATABASE_URL_FILE", "REDIS_URL", "GATEHOUSE_SEED", "GATEHOUSE_SECRET_KEY"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("GATEHOUSE_PORT", "9000")
    with pytest.raises(ReplacedError):
        call_command("node")

    _, arguments, environment = executed[0]
    assert arguments == [sys.executable, "-m", "sandboxes.node"]
    assert "secret" not in environment.values()
    assert environment["GATEHOUSE_PORT"] == "9000"


def test_web_keeps_connections_longer_than_the_gateway() -> None:
    config = serve.configuration(fd=7, uds=None)

    assert config.app == "gatehouse.asgi:application"
    assert (config.fd, config.uds) == (7, None)
    assert config.timeout_keep_alive >= 620
    assert config.access_log is False
    assert config.proxy_headers is False
    assert config.server_header is False
    assert config.timeout_graceful_shutdown == 10


def test_web_serves_what_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[uvicorn.Config] = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda server: ran.append(server.config))
    call_command("serve", "--fd=9")

    assert [config.fd for config in ran] == [9]


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
