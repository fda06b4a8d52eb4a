"""A key that is revoked, a tenant that is suspended: the next request is refused within a second, open streams end."""

from __future__ import annotations

import re
import secrets
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.sdk.wire import Wire, envelope, shell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.live import Stack
    from tests.sdk.wire import Agent

_WITHIN_S = 1.0


@dataclass
class Stranger:
    """A tenant of its own with one key and one sandbox."""

    stack: Stack
    slug: str
    wire: Wire
    agent: Agent

    def follow(self) -> threading.Event:
        """Open a stream; the event is set when it ends."""
        ended, open_ = threading.Event(), threading.Event()
        headers = {**self.agent.headers, "Content-Type": "application/connect+json"}

        def act() -> None:
            with httpx.Client(base_url=self.wire.url, timeout=30) as client:
                request = envelope(shell("echo open; sleep 60"))
                with client.stream("POST", "/process.Process/Start", content=request, headers=headers) as answer:
                    try:
                        for _ in answer.iter_raw():
                            open_.set()
                    except httpx.HTTPError:
                        pass
            ended.set()

        threading.Thread(target=act, daemon=True).start()
        assert open_.wait(10)
        return ended


@pytest.fixture(params=["base", "base-process"])
def stranger(request: pytest.FixtureRequest, roomy_stack: Stack) -> Iterator[Stranger]:
    """Return a tenant that the test may shut out."""
    slug = f"s-{secrets.token_hex(4)}"
    roomy_stack.manage("tenant", "create", slug)
    printed = roomy_stack.manage("apikey", "create", f"--tenant={slug}", "--name=only").stdout
    key = re.findall(r"e2b_\w+", printed)[0]
    with Wire(roomy_stack.url, key) as wire:
        yield Stranger(roomy_stack, slug, wire, wire.create(str(request.param)))


def refused(stranger: Stranger, began: float, statuses: set[int]) -> None:
    """Check that control plane and data plane refuse, and did so soon after `began`."""
    ask: list[Callable[[], httpx.Response]] = [
        lambda: stranger.wire.api("GET", f"/sandboxes/{stranger.agent.id}"),
        lambda: stranger.wire.api("POST", "/v2/sandboxes", {"templateID": "base"}),
        lambda: stranger.agent.call("GET", "/envs"),
        lambda: stranger.agent.rpc("process.Process/List", {}),
    ]
    for call in ask:
        while (answer := call()).status_code not in statuses:
            assert time.monotonic() - began < _WITHIN_S, (answer.request.url, answer.status_code)


def test_a_revoked_key(stranger: Stranger) -> None:
    ended = stranger.follow()
    rows = stranger.stack.manage("apikey", "list", f"--tenant={stranger.slug}").stdout
    key_id = next(line.split()[0] for line in rows.splitlines() if " only" in line)
    stranger.stack.manage("apikey", "revoke", key_id)
    began = time.monotonic()
    assert ended.wait(_WITHIN_S)
    refused(stranger, began, {401, 403})


def test_a_suspended_tenant(stranger: Stranger) -> None:
    ended = stranger.follow()
    stranger.stack.manage("tenant", "suspend", stranger.slug)
    began = time.monotonic()
    assert ended.wait(_WITHIN_S + 1)
    refused(stranger, began + 1, {401, 403, 502})
