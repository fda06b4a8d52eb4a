"""A value in the environment, in arguments, headers, URLs and files of a sandbox stands in no log and no database."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.live import Stack
    from tests.sdk.wire import Wire


@pytest.fixture(scope="module", params=["base", "base-process"])
def template(request: pytest.FixtureRequest) -> str:
    """Return the template that a test runs on, one of each tier."""
    return str(request.param)


def holders(home: Path, value: str) -> list[str]:
    """Return the files of the home that hold the value, but for what a sandbox itself and its node's store keep."""
    own = ("members", "runtime", "disks", "sandboxes")
    found = []
    for folder, folders, names in os.walk(home):
        if folder == str(home / "node"):
            folders[:] = [name for name in folders if name not in own]
        for path in (Path(folder, name) for name in names):
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and value.encode() in path.read_bytes():
                    found.append(path.relative_to(home).as_posix())
    return found


def test_it_is_nowhere(wire: Wire, template: str, roomy_stack: Stack) -> None:
    value = f"canary{secrets.token_hex(12)}"
    agent = wire.create(template, envVars={"API_KEY": value})
    agent.run(f"echo {value}; curl -s http://user:{value}@127.0.0.1:1/?token={value}; true")
    agent.call("GET", "/files", params={"path": f"/home/user/{value}"}, headers={"Authorization": f"Basic {value}"})
    upload = {"Content-Type": "application/octet-stream"}
    agent.call("POST", "/files", params={"path": "secret.txt"}, content=value.encode(), headers=upload)
    host = f"8080-{agent.id}.localhost"
    wire.http.get(f"/{value}?key={value}", headers={"Host": host, "Cookie": value})
    agent.run("kill -SEGV $$")
    time.sleep(3)  # the events of all this are collected every second
    assert agent.run("echo $API_KEY")[0] == f"{value}\n"
    agent.kill()
    assert holders(roomy_stack.home, value) == []


def test_the_tokens_of_a_sandbox_are_nowhere_either(wire: Wire, template: str, roomy_stack: Stack) -> None:
    agent = wire.create(template)
    agent.run("true")
    time.sleep(2)
    assert holders(roomy_stack.home, agent.created["envdAccessToken"]) == []
    assert holders(roomy_stack.home, wire.key) == []
    agent.kill()
