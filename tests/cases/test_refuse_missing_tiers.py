"""A host without a tool: what needs it is refused with cause and mend, everything else works, nothing is downgraded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.live import running_stack
from tests.sdk.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.live import Stack

_ABSENT = {"base-process": "bubblewrap", "base-gvisor": "runsc"}


@pytest.fixture(scope="module")
def bare_stack() -> Iterator[Stack]:
    """Return a Gatehouse that finds every program of this host but bubblewrap and runsc."""
    with running_stack(command=("-m", "tests.cases.without_programs", "bwrap", "runsc")) as stack:
        yield stack


@pytest.mark.parametrize("template", _ABSENT)
def test_it_says_what_is_missing_and_how_to_get_it(bare_stack: Stack, template: str) -> None:
    with Wire(bare_stack.url, bare_stack.key) as wire:
        answer = wire.api("POST", "/v2/sandboxes", {"templateID": template})
        listed = wire.api("GET", "/v2/sandboxes").json()
    assert (answer.status_code, answer.json().get("code")) == (409, 409), answer.text
    body = answer.json()
    assert _ABSENT[template] in body["message"]
    assert "install" in (body["message"] + body.get("details", {}).get("fix", "")).lower()
    assert listed == []


def test_what_needs_neither_works(bare_stack: Stack) -> None:
    with Wire(bare_stack.url, bare_stack.key) as wire:
        agent = wire.create("base")
        assert agent.run("echo here")[0] == "here\n"
        agent.kill()
