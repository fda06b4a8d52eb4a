"""The internal listener: a real server on two sockets, and callers that the kernel names."""

from __future__ import annotations

import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest

from audit.models import Event
from corekit import clock
from sandboxes.models import Sandbox
from tenants import actions as tenant_actions
from tests.factories import OPERATOR
from tests.sandboxes.fixtures import alice, assert_counters_equal_reality, base, node, used
from tests.webserver import Connection, Web

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandboxes.models import Template
    from tests.sandboxes.fixtures import Caller
    from tests.sandboxes.node_double import NodeDouble

__all__ = ["alice", "base", "node"]

pytestmark = pytest.mark.django_db(transaction=True)
NOBODY = 65534


@pytest.fixture
def web(node: NodeDouble, settings: Any) -> Iterator[Web]:
    """Web as `manage.py serve` runs it."""
    running = Web(settings.GATEHOUSE)
    yield running
    running.stop()


def sleeping(who: Caller, **body: Any) -> str:
    """Create a paused sandbox that traffic wakes; return its id."""
    made = who.create(**({"autoResume": {"enabled": True}} | body))
    sandbox_id = str(made["sandboxID"])
    assert who.call("POST", f"/sandboxes/{sandbox_id}/pause").status_code == 204
    return sandbox_id


def resume(web: Web, sandbox_id: str, generation: object = 1) -> tuple[int, Any]:
    return web.ask(f"/internal/v1/sandboxes/{sandbox_id}/resume", {"generation": generation})


def test_traffic_wakes_a_paused_sandbox(web: Web, node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = sleeping(alice, timeout=60)
    before = clock.epoch_ms()

    assert resume(web, sandbox_id) == (200, {})

    guest = node.guests[sandbox_id]
    assert guest.state == "running"
    assert 300_000 <= guest.end_at - before < 305_000
    event = Event.objects.get(code="sandbox.resuming")
    assert (event.actor_kind, event.actor_id, event.tenant_id) == ("system", "gateway", alice.tenant.pk)
    assert event.details == {"timeout_ms": 300_000, "reason": "traffic"}
    assert_counters_equal_reality(alice.tenant, node)


def test_it_goes_on_for_as_long_as_it_was_made_for(web: Web, node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = sleeping(alice, timeout=900)

    assert resume(web, sandbox_id) == (200, {})

    assert node.guests[sandbox_id].end_at - clock.epoch_ms() > 890_000


def test_one_that_runs_stays_as_it_is(web: Web, node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = str(alice.create(autoResume={"enabled": True}, timeout=60)["sandboxID"])
    end_at = node.guests[sandbox_id].end_at

    assert resume(web, sandbox_id) == (200, {})

    assert node.guests[sandbox_id].end_at == end_at
    assert not Event.objects.filter(code="sandbox.resuming").exists()


def test_one_that_was_paused_a_moment_ago_goes_on(web: Web, node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = str(alice.create(autoPause=True, autoResume={"enabled": True})["sandboxID"])
    node.expire(sandbox_id)

    assert resume(web, sandbox_id) == (200, {})

    assert node.guests[sandbox_id].state == "running"
    assert_counters_equal_reality(alice.tenant, node)


def test_many_requests_at_once_wake_it_once(web: Web, node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = sleeping(alice)
    answers: list[int] = []
    threads = [threading.Thread(target=lambda: answers.append(resume(web, sandbox_id)[0])) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert answers == [200] * 12
    assert Event.objects.filter(code="sandbox.resuming").count() == 1
    assert_counters_equal_reality(alice.tenant, node)


def test_one_that_traffic_does_not_wake_is_409(web: Web, node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = sleeping(alice, autoResume=None)

    status, body = resume(web, sandbox_id)

    assert (status, body["code"], body["error_code"]) == (409, 409, "conflict")
    assert node.guests[sandbox_id].state == "paused"


def test_a_suspended_tenants_is_409(web: Web, node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = sleeping(alice)
    tenant_actions.set_tenant_state(actor=OPERATOR, tenant=alice.tenant, state="suspended")

    assert resume(web, sandbox_id)[0] == 409
    assert node.guests[sandbox_id].state == "paused"


def test_without_quota_it_is_429_and_stays_paused(web: Web, node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = sleeping(alice)
    tenant_actions.set_quota(actor=OPERATOR, tenant=alice.tenant, max_sandboxes=0)

    status, body = resume(web, sandbox_id)

    assert (status, body["error_code"], web.headers["should-retry"]) == (429, "quota_exceeded", "false")
    assert (Sandbox.everywhere().get().state, used(alice.tenant)) == ("paused", 0)
    assert Event.objects.get(code="quota.refused").tenant_id == alice.tenant.pk


def test_without_the_node_it_is_503(web: Web, node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = sleeping(alice)
    node.die()

    status, body = resume(web, sandbox_id)

    assert (status, body["error_code"], web.headers["retry-after"]) == (503, "node_unavailable", "1")


@pytest.mark.parametrize("generation", [2, 7])
def test_another_generation_is_404(web: Web, node: NodeDouble, base: Template, alice: Caller, generation: int) -> None:
    assert resume(web, sleeping(alice), generation)[0] == 404


def test_an_unknown_or_ended_one_is_404(web: Web, node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = sleeping(alice)
    alice.call("DELETE", f"/sandboxes/{sandbox_id}")

    assert resume(web, sandbox_id)[0] == resume(web, "i00000000000000000000")[0] == 404


@pytest.mark.parametrize("body", [b"", b"{", b"[]", {}, {"generation": "1"}, {"generation": True}, {"generation": 0}])
def test_a_malformed_body_is_400(web: Web, db: None, body: Any) -> None:
    assert web.ask("/internal/v1/sandboxes/i1/resume", body)[0] == 400


def test_a_large_body_is_413(web: Web, db: None) -> None:
    assert web.ask("/internal/v1/sandboxes/i1/resume", b" " * 5000)[0] == 413


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/internal/v1/sandboxes/i1/resume", 405),
        ("POST", "/internal/v1/sandboxes/i1/pause", 404),
        ("POST", "/v2/sandboxes", 404),
        ("GET", "/health", 404),
    ],
)
def test_the_internal_listener_serves_nothing_else(web: Web, db: None, method: str, path: str, status: int) -> None:
    assert web.ask(path, {}, method=method)[0] == status


def test_the_public_listener_does_not_serve_it(web: Web, node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = sleeping(alice)

    status, _ = web.ask(f"/internal/v1/sandboxes/{sandbox_id}/resume", {"generation": 1}, at=web.public)

    assert (status, node.guests[sandbox_id].state) == (404, "paused")
    assert web.ask("/health", method="GET", at=web.public)[0] == 200


@pytest.mark.parametrize("listener", ["internal", "broker"])
def test_a_stranger_of_this_host_gets_no_answer(web: Web, db: None, listener: str) -> None:
    path: Path = getattr(web, listener)
    for opened, mode in ((path.parent.parent, 0o755), (path.parent, 0o755), (path, 0o666)):
        opened.chmod(mode)
    code = (
        "import socket\n"
        "s = socket.socket(socket.AF_UNIX)\n"
        "s.settimeout(10)\n"
        f"s.connect({str(path)!r})\n"
        "try:\n"
        "    s.sendall(b'GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')\n"
        "    print(len(s.recv(100)))\n"
        "except (ConnectionError, BrokenPipeError):\n"
        "    print(0)\n"
    )

    asked = subprocess.run(
        ["/usr/bin/python3", "-c", code], user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True, check=False
    )

    assert (asked.stdout, asked.stderr) == (b"0\n", b"")
    assert web.ask("/", method="GET", at=path)[0] in (401, 404)


@pytest.mark.parametrize("listener", ["internal", "broker"])
def test_no_live_events_come_by_the_listeners_of_other_processes(web: Web, db: None, listener: str) -> None:
    connection = Connection(getattr(web, listener))
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    connection.request("GET", "/ws/audit", headers=upgrade | {"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="})

    assert connection.getresponse().status == 403
    connection.close()
