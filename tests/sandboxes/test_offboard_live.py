"""Erase a tenant of a complete running system: its sandboxes are really gone from the host, the others go on."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.live import Stack

pytestmark = pytest.mark.stack


def call(stack: Stack, key: str, method: str, path: str, body: Any = None) -> Any:
    """Call the REST API through the gateway."""
    request = urllib.request.Request(
        f"{stack.url}/api/v1/{path}",
        data=None if body is None else json.dumps(body).encode(),
        method=method,
        headers={"X-API-KEY": key, "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read() or b"null")


def processes_of(stack: Stack, sandbox_id: str) -> list[str]:
    """Return what is left of a sandbox below the home: its name in any path."""
    return sorted(str(path) for path in stack.home.rglob(f"*{sandbox_id}*") if "spool" not in path.parts)


def test_running_and_paused_sandboxes_are_gone_and_others_live(stack: Stack) -> None:
    stack.manage("tenant", "create", "gone-corp")
    key = stack.manage("apikey", "create", "--tenant", "gone-corp", "--name", "k").stdout.strip()
    ours = call(stack, stack.key, "POST", "sandboxes", {})["id"]
    theirs = [call(stack, key, "POST", "sandboxes", {"metadata": {"of": "gone"}})["id"] for _ in range(2)]
    call(stack, key, "POST", f"sandboxes/{theirs[1]}/pause", {})

    refused = stack.manage("tenant", "offboard", "gone-corp", check=False)
    assert (refused.returncode, "write its slug" in refused.stderr) == (1, True)
    assert set(theirs) <= stack.live_ids()
    said = stack.manage("tenant", "offboard", "gone-corp", "--confirm", "gone-corp").stdout

    assert ["sandboxes", "2"] in [line.split() for line in said.splitlines()]
    assert stack.live_ids() & {*theirs, ours} == {ours}
    assert [processes_of(stack, sandbox_id) for sandbox_id in theirs] == [[], []]
    assert "gone-corp" not in stack.manage("tenant", "list").stdout
    assert "gone-corp" not in stack.manage("apikey", "list").stdout
    with pytest.raises(urllib.error.HTTPError, match="401"):
        call(stack, key, "GET", "me")
    assert call(stack, stack.key, "GET", f"sandboxes/{ours}")["state"] == "running"
    call(stack, stack.key, "DELETE", f"sandboxes/{ours}")


def test_the_worker_carries_out_what_the_command_had_to_leave(stack: Stack) -> None:
    stack.manage("tenant", "create", "left-corp")
    key = stack.manage("apikey", "create", "--tenant", "left-corp", "--name", "k").stdout.strip()
    made = call(stack, key, "POST", "sandboxes", {})["id"]
    script = (
        "from sandboxes import offboarding; from tenants.models import Tenant; from corekit.actor import SYSTEM;"
        "offboarding.offboard_tenant(actor=SYSTEM, tenant=Tenant.objects.get(slug='left-corp'), confirm='left-corp')"
    )
    stack.manage("shell", "-c", script)

    until = time.monotonic() + 40
    while "left-corp" in stack.manage("tenant", "list").stdout:
        assert time.monotonic() < until, stack.log.read_text()[-3000:]
        time.sleep(1)
    assert made not in stack.live_ids()
