"""Sandboxes over REST: create, list, extend, pause, resume, kill, and what is known about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from sandboxes import events
from sandboxes.api.serializers import SandboxSerializer
from sandboxes.models import Sandbox
from sandboxes.node_client import local_node
from tests.api.rest import Rest
from tests.sandboxes.fixtures import assert_counters_equal_reality, used

if TYPE_CHECKING:
    from sandboxes.models import Template
    from tests.sandboxes.fixtures import Caller
    from tests.sandboxes.node_double import NodeDouble

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _started(node: NodeDouble, base: Template) -> None:
    """Let every test here have a node and the template base."""


def test_create_answers_the_sandbox_and_the_way_in(rest: Rest, alice: Caller, node: NodeDouble) -> None:
    made = rest.post(
        "sandboxes",
        {
            "template": "base",
            "timeout": 60,
            "profile": "hardened",
            "runtime": "runc",
            "limits": {"cpu_milli": 250, "memory_mib": 256, "disk_mib": 300},
            "lifecycle": {"on_timeout": "pause", "auto_resume": True},
            "ingress": {"public": False, "mask_host": "inner.example:${PORT}", "https_ports": [8443]},
            "metadata": {"job": "7"},
            "env": {"TOKEN": "very-secret"},
        },
        status=201,
    )

    assert (made["state"], made["tier"], made["profile"], made["runtime"]) == (
        *("running", "container", "hardened", "runc"),
    )
    assert made["limits"] == {"cpu_milli": 250, "memory_mib": 256, "disk_mib": 300, "pids": 256}
    assert made["lifecycle"] == {"on_timeout": "pause", "auto_resume": True}
    assert made["ingress"] == {"public": False, "mask_host": "inner.example:${PORT}", "https_ports": [8443]}
    assert (made["metadata"], made["timeout"], made["created_by"]) == ({"job": "7"}, 60, alice.key.pk)
    way = made["access"]
    assert way["token"].startswith(f"gh_{alice.key.pk}_")
    assert way["headers"] == {
        "E2b-Sandbox-Id": made["id"],
        "E2b-Sandbox-Port": "49983",
        "X-Access-Token": way["token"],
    }
    assert (way["url"], way["port_url"], len(way["traffic_token"])) == ("http://localhost:8000", None, 64)
    spec = node.guests[made["id"]].spec
    assert (spec["env"], spec["ttl_ms"], spec["on_timeout"]) == ({"TOKEN": "very-secret"}, 60_000, "pause")


def test_an_answer_is_exactly_what_the_schema_says(rest: Rest) -> None:
    made = rest.post("sandboxes", {"metadata": {"a": "b"}, "ingress": {"https_ports": [8443]}}, status=201)
    shown = rest.get(f"sandboxes/{made['id']}")
    row = Sandbox.everywhere().get(pk=made["id"])
    fields = SandboxSerializer(row).fields

    assert list(shown) == [*fields, "risk"]
    assert list(made) == [*fields, "access"]
    for name, field in fields.items():
        value = field.get_attribute(row)
        assert shown[name] == (None if value is None else field.to_representation(value)), name


def test_env_is_in_no_answer_and_no_row(rest: Rest) -> None:
    made = rest.call("post", "sandboxes", {"env": {"TOKEN": "very-secret"}})
    assert made.status_code == 201
    shown = made.content.decode() + str(Sandbox.everywhere().values().get())
    for path in ("sandboxes", f"sandboxes/{made.json()['id']}", "audit-events"):
        shown += rest.call("get", path).content.decode()
    assert "very-secret" not in shown


def test_everything_has_a_default(rest: Rest) -> None:
    made = rest.post("sandboxes", status=201)
    assert (made["template"], made["timeout"], made["ingress"]["public"]) == ("base", 300, True)
    assert made["access"]["traffic_token"] is None


@pytest.mark.parametrize(
    ("body", "field"),
    [
        *(({"timeout": value}, "timeout") for value in (0, -1, 1e12, 10**12, "abc", "60", None, True, 1.5, [60])),
        ({"template": ""}, "template"),
        ({"template": 5}, "template"),
        ({"tier": "moon"}, "tier"),
        ({"tier": "process"}, "tier"),
        ({"profile": "soft"}, "profile"),
        ({"runtime": "lxc"}, "runtime"),
        ({"limits": {"cpu_milli": 0}}, "limits.cpu_milli"),
        ({"limits": {"cpu_milli": "1"}}, "limits.cpu_milli"),
        ({"limits": {"gpu": 1}}, "limits.gpu"),
        ({"limits": {"cpu_milli": 99_999}}, "cpu_milli"),
        ({"limits": []}, "limits"),
        ({"lifecycle": {"on_timeout": "sleep"}}, "lifecycle.on_timeout"),
        ({"lifecycle": {"auto_resume": "yes"}}, "lifecycle.auto_resume"),
        ({"ingress": {"public": 1}}, "ingress.public"),
        ({"ingress": {"mask_host": "a b"}}, "ingress.mask_host"),
        ({"ingress": {"https_ports": [0]}}, "ingress.https_ports.0"),
        ({"ingress": {"https_ports": [49983]}}, "ingress.https_ports"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"metadata": {"": "x"}}, "metadata"),
        ({"metadata": []}, "metadata"),
        ({"env": {"1A": "x"}}, "env"),
        ({"env": {"A": None}}, "env.A"),
        ({"env": "A=1"}, "env"),
    ],
    ids=str,
)
def test_what_is_wrong_is_named_and_nothing_is_made(
    rest: Rest, alice: Caller, node: NodeDouble, body: Any, field: str
) -> None:
    assert rest.refused("post", "sandboxes", body) == (400, "invalid_input", field)
    assert (Sandbox.everywhere().count(), used(alice.tenant), node.count()["start"]) == (0, 0, 0)


def test_an_error_about_env_does_not_repeat_its_value(rest: Rest) -> None:
    answer = rest.call("post", "sandboxes", {"env": {"A": ["very-secret"]}})
    assert answer.status_code == 400
    assert "very-secret" not in answer.content.decode()


def test_a_quota_that_is_used_up(rest: Rest, alice: Caller) -> None:
    from tenants import actions
    from tests.factories import OPERATOR

    actions.set_quota(actor=OPERATOR, tenant=alice.tenant, max_sandboxes=1)
    rest.post("sandboxes", status=201)
    answer = rest.call("post", "sandboxes", {})
    assert (answer.status_code, answer.json()["code"]) == (429, "quota_exceeded")
    assert answer.json()["details"]["limit"] == "sandboxes"
    assert answer["Should-Retry"] == "false"


def test_a_tier_that_the_host_does_not_have(rest: Rest, node: NodeDouble) -> None:
    node.refuse("start", 409, "tier_unavailable", "no KVM here", fix="use a host with KVM")
    answer = rest.call("post", "sandboxes", {"tier": "microvm"})
    assert (answer.status_code, answer.json()["code"]) == (409, "tier_unavailable")
    assert answer.json()["details"] == {"fix": "use a host with KVM"}


def test_a_node_that_is_away_is_said_with_when_to_come_back(rest: Rest, node: NodeDouble) -> None:
    rest.post("sandboxes", status=201)
    node.die()
    answer = rest.call("post", "sandboxes", {})
    assert (answer.status_code, answer["Retry-After"], answer.json()["retry_after"]) == (503, "1", 1)


def test_a_repeated_create_with_a_key_is_the_same_sandbox(rest: Rest, node: NodeDouble) -> None:
    rest.headers["Idempotency-Key"] = "job-7"
    made = [rest.call("post", "sandboxes", {"timeout": 60}).json()["id"] for _ in range(2)]
    assert made[0] == made[1]
    answer = rest.call("post", "sandboxes", {"timeout": 61})
    assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_request_mismatch")
    assert node.count()["start"] == 1


def test_filters(rest: Rest) -> None:
    one = rest.post("sandboxes", {"metadata": {"a&b": "ü="}}, status=201)["id"]
    two = rest.post("sandboxes", {"profile": "hardened"}, status=201)["id"]
    rest.post(f"sandboxes/{two}/pause")
    gone = rest.post("sandboxes", status=201)
    assert rest.call("delete", f"sandboxes/{gone['id']}").status_code == 204

    def ids(query: str) -> set[str]:
        return {row["id"] for row in rest.get(f"sandboxes?{query}")["items"]}

    assert ids("") == ids("state=live") == {one, two}
    assert ids("state=running") == {one}
    assert ids("state=paused") == {two}
    assert ids("state=ended") == {gone["id"]}
    assert ids("state=any") == {one, two, gone["id"]}
    assert ids("metadata=" + quote(f"{quote('a&b')}={quote('ü=')}")) == {one}
    assert ids("metadata=a%3Db") == set()
    assert ids("template=base&tier=container") == {one, two}
    assert ids("template=other") == ids("tier=microvm") == set()
    assert ids("started_since=2126-01-01T00:00:00Z") == set()
    assert ids("started_before=2126-01-01T00:00:00Z") == {one, two}
    assert rest.refused("get", "sandboxes?state=asleep") == (400, "invalid_input", "state")
    assert rest.refused("get", "sandboxes?started_since=now") == (400, "invalid_input", "started_since")
    assert rest.get(f"sandboxes/{gone['id']}")["end_reason"] == "killed"


def test_extend_never_shortens(rest: Rest) -> None:
    made = rest.post("sandboxes", {"timeout": 1000}, status=201)
    path = f"sandboxes/{made['id']}"

    assert rest.post(f"{path}/extend", {"timeout": 10})["end_at"] == made["end_at"]
    assert rest.post(f"{path}/extend", {"timeout": 2000})["end_at"] > made["end_at"]
    for value in (0, -1, 1e12, 10**12, "abc", None):
        assert rest.refused("post", f"{path}/extend", {"timeout": value}) == (400, "invalid_input", "timeout")
    assert rest.refused("post", f"{path}/extend", {}) == (400, "invalid_input", "timeout")


def test_pause_and_resume(rest: Rest, alice: Caller, node: NodeDouble) -> None:
    path = f"sandboxes/{rest.post('sandboxes', status=201)['id']}"

    paused = rest.post(f"{path}/pause")
    assert (paused["state"], paused["paused_at"] is not None, used(alice.tenant)) == ("paused", True, 0)
    assert rest.refused("post", f"{path}/pause", {}) == (409, "conflict", None)
    assert rest.refused("post", f"{path}/extend", {"timeout": 60}) == (409, "conflict", None)

    woken = rest.post(f"{path}/resume", {"timeout": 100})
    assert (woken["state"], woken["paused_at"], used(alice.tenant)) == ("running", None, 1)
    assert woken["access"]["token"]
    assert rest.refused("post", f"{path}/resume", {}) == (409, "conflict", None)
    assert_counters_equal_reality(alice.tenant, node)


def test_kill(rest: Rest, alice: Caller, node: NodeDouble) -> None:
    path = f"sandboxes/{rest.post('sandboxes', status=201)['id']}"

    assert rest.call("delete", path).status_code == 204
    assert rest.refused("delete", path) == (404, "not_found", None)
    assert (node.running(), used(alice.tenant)) == ([], 0)
    for verb in ("pause", "resume", "access"):
        assert rest.refused("post", f"{path}/{verb}", {}) == (404, "not_found", None)


def test_another_key_of_the_tenant_gets_a_token_of_its_own(rest: Rest, bob: Caller, node: NodeDouble) -> None:
    made = rest.post("sandboxes", status=201)

    opened = Rest(bob.secret).post(f"sandboxes/{made['id']}/access")

    assert opened["access"]["token"].startswith(f"gh_{bob.key.pk}_")
    assert bob.key.pk in node.guests[made["id"]].grants


def test_who_may_only_look_gets_no_token(rest: Rest, vera: Caller, node: NodeDouble) -> None:
    made = rest.post("sandboxes", status=201)
    viewer = Rest(vera.secret)

    assert "access" not in viewer.get(f"sandboxes/{made['id']}")
    for verb in ("access", "pause", "resume"):
        assert viewer.refused("post", f"sandboxes/{made['id']}/{verb}", {}) == (403, "forbidden", None)
    assert viewer.refused("delete", f"sandboxes/{made['id']}") == (403, "forbidden", None)
    assert viewer.refused("post", "sandboxes", {}) == (403, "forbidden", None)
    assert node.guests[made["id"]].state == "running"


def test_attestation_is_what_the_node_read(rest: Rest, node: NodeDouble) -> None:
    made = rest.post("sandboxes", status=201)
    found = rest.get(f"sandboxes/{made['id']}/attestation")
    assert (found["sandbox"], found["tier"], found["profile"]) == (made["id"], "container", "workstation")
    assert isinstance(found["facts"], dict)
    rest.call("delete", f"sandboxes/{made['id']}")
    assert rest.refused("get", f"sandboxes/{made['id']}/metrics")[0] == 404


def test_metrics_are_the_samples_of_a_window(rest: Rest, node: NodeDouble) -> None:
    made = rest.post("sandboxes", status=201)
    guest = node.guests[made["id"]]
    sample = {
        "cpu_usec": 10,
        "memory_bytes": 20,
        "memory_cache_bytes": 5,
        "disk_used_bytes": 30,
        "cpu_milli": 1000,
        "memory_mib": 512,
        "disk_mib": 1024,
        "pids": 3,
        "oom_kills": 0,
    }
    guest.samples[:] = [{**sample, "at": at} for at in (1_700_000_000_000, 1_700_000_005_000)]

    window = "start=2023-11-14T22:13:20Z&end=2023-11-14T22:13:22Z"
    [only] = rest.get(f"sandboxes/{made['id']}/metrics?{window}")["samples"]

    assert only["at"] == "2023-11-14T22:13:20Z"
    assert (only["memory_bytes"], only["cpu_milli"]) == (20, 1000)
    assert rest.refused("get", f"sandboxes/{made['id']}/metrics?start=x") == (400, "invalid_input", "start")


def test_events_are_the_sandboxs_own_in_order(rest: Rest, node: NodeDouble) -> None:
    made, other = (rest.post("sandboxes", status=201)["id"] for _ in range(2))
    rest.post(f"sandboxes/{made}/pause")
    events.collect(local_node())

    found = rest.get(f"sandboxes/{made}/events?order=asc")["items"]

    assert {event["object"]["id"] for event in found} == {made}
    assert sorted(event["code"] for event in found) == [
        *("sandbox.created", "sandbox.paused", "sandbox.pausing", "sandbox.started"),
    ]
    assert found[0]["message"] == f"Alice's key created the sandbox {made}."
    assert rest.get(f"sandboxes/{made}/events?code=sandbox.pausing")["items"] == [
        event for event in found if event["code"] == "sandbox.pausing"
    ]
    assert other


def test_templates_are_shown(rest: Rest, base: Template) -> None:
    [only] = rest.get("templates")["items"]
    assert (only["id"], only["name"], only["tenant"], only["tier"]) == (base.pk, "base", None, "container")
    assert rest.get(f"templates/{base.pk}") == only
