"""Edits between pauses: all there, every time, also when the pause comes by itself in the middle of much writing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.sdk.wire import Agent, Wire

_MEGABYTES = 200


@pytest.fixture(scope="module", params=["base", "base-process"])
def template(request: pytest.FixtureRequest) -> str:
    """Return the template that a test runs on, one of each tier."""
    return str(request.param)


def resume(wire: Wire, agent: Agent) -> None:
    """Let a paused sandbox go on."""
    assert wire.api("POST", f"/v2/sandboxes/{agent.id}/connect", {"timeout": 300}).status_code == 201


def test_five_rounds_of_edits(wire: Wire, agent: Agent) -> None:
    for number in range(5):
        agent.run(f"echo edit {number} >> edits.txt; head -c 1000000 /dev/urandom > blob; sha256sum blob > blob.sum")
        assert wire.api("POST", f"/sandboxes/{agent.id}/pause").status_code == 204
        resume(wire, agent)
        expected = "".join(f"edit {edit}\n" for edit in range(number + 1)) + "blob: OK\n"
        assert agent.run("cat edits.txt; sha256sum -c blob.sum")[0] == expected


def test_a_pause_right_after_much_writing(wire: Wire, template: str) -> None:
    agent = wire.create(template, timeout=300, autoPause=True)
    where = "/home/user/big"
    write = f"head -c {_MEGABYTES}M /dev/urandom > {where}; sha256sum {where} > sum; stat -c %s {where}"
    assert agent.run(write)[0] == f"{_MEGABYTES << 20}\n"
    assert wire.api("POST", f"/sandboxes/{agent.id}/timeout", {"timeout": 0}).status_code == 204
    deadline = time.monotonic() + 5
    while wire.api("GET", f"/sandboxes/{agent.id}").json()["state"] != "paused":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    resume(wire, agent)
    assert agent.run("sha256sum -c sum")[0] == f"{where}: OK\n"
    agent.kill()
