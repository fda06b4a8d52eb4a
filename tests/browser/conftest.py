"""A browser, and web's real application on the test's database."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from django.conf import settings

from tenants.models import User
from tests.browser.console import Windows
from tests.conftest import SEED
from tests.servers import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

_CHROMIUM = "/usr/bin/chromium"
_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]
_READY_TIMEOUT_S = 60


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Return Debian's Chromium. It ends with the module: its event loop would stand in the way of async tests."""
    from playwright.sync_api import sync_playwright

    before = os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE")
    # Playwright keeps a loop in this thread; nothing else runs on it, so that queries may wait here.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=_CHROMIUM, args=_FLAGS)
        yield started
        started.close()
    if before is None:
        del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


@pytest.fixture(scope="session")
def web(django_db_setup: None, pytestconfig: pytest.Config) -> Iterator[str]:
    """Return the URL of web, which runs in a process of its own as in the product."""
    from django.db import connection

    port = free_port()
    names = ("NAME", "USER", "PASSWORD", "HOST", "PORT")
    given = {
        "port": port,
        "database": {name: str(connection.settings_dict[name]) for name in names},
        "home": str(settings.GATEHOUSE.home),
        "seed": SEED,
        "secret_key": settings.SECRET_KEY,
        "hashers": settings.PASSWORD_HASHERS,
    }
    program = [sys.executable, str(Path(__file__).with_name("server.py"))]
    # Leaving the block closes its input, with which it ends.
    with subprocess.Popen(program, stdin=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        server.stdin.write(json.dumps(given) + "\n")
        server.stdin.flush()
        _wait_until_ready(server, port)
        yield f"http://127.0.0.1:{port}"


def _wait_until_ready(server: subprocess.Popen[str], port: int) -> None:
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while time.monotonic() < deadline:
        assert server.poll() is None, "web ended"
        probe = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            probe.request("GET", "/health")
            if probe.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.1)
        finally:
            probe.close()
    raise AssertionError("web did not start")


@pytest.fixture
def windows(transactional_db: None, browser: Browser, web: str) -> Iterator[Windows]:
    """Return what opens windows. The browser must not have complained about any of them in the end."""
    opener = Windows(browser, web)
    yield opener
    complaints = [complaint for console in opener.opened for complaint in console.complaints]
    opener.close()
    assert complaints == []


@pytest.fixture
def olga(transactional_db: None) -> User:
    """Return Olga the operator."""
    return User.objects.create_superuser("olga", password="correct horse battery", first_name="Olga")
