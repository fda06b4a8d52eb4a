"""Lists: pages by keyset, a pinned number of queries, and the same cost with one row and with ten thousand."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from audit import operations
from audit.models import PLATFORM_CHAIN, Checkpoint, Delivery, Event, RiskSuppression, Verdict, Webhook
from corekit import clock
from sandboxes.models import Execution, Node, Sandbox, Template
from tenants.models import ApiKey, Bundle, Membership, NetworkPolicy, NetworkPolicyVersion, Tenant, User
from tenants.networks.presets import CLOSED
from tenants.secretmodels import Secret, SecretVersion
from tenants.tokenmodels import BrokerService, ScopedToken
from tests.api.rest import Operator, Rest, Route, routes
from tests.factories import OPERATOR

if TYPE_CHECKING:
    from datetime import datetime

    from tests.sandboxes.fixtures import Caller

pytestmark = pytest.mark.django_db

LISTS = [route for route in routes() if route.is_list]
# Beside the key or the session with its account: the object that the list hangs on, then the page.
QUERIES = {
    "tenants": 1,
    "nodes": 1,
    "operations": 1,
    "audit-events": 1,
    "audit-checkpoints": 1,
    "webhooks": 1,
    "webhooks/{webhook_id}/deliveries": 2,
    "risk-suppressions": 1,
    "verdicts": 1,
    "sandboxes": 1,
    "executions": 1,
    "templates": 1,
    "tenants/{tenant_id}/members": 2,
    "tenants/{tenant_id}/keys": 2,
    "sandboxes/{sandbox_id}/events": 2,
    "sandboxes/{sandbox_id}/tokens": 2,
    "services": 1,
    "network-policies": 1,
    "network-policies/{policy_id}/versions": 2,
    "network-bundles": 1,
    "secrets": 1,
    "secrets/{secret_id}/versions": 2,
}
MANY = 10_000
RISK: dict[str, object] = {
    "score": 0,
    "band": "low",
    "tier": "L0",
    "findings": [],
    "ruleset": "gatehouse-v1",
    "unassessable": None,
    "seed_v1": {"score": 30, "tier": "L0"},
}


def sandboxes(alice: Caller, base: Template, count: int) -> list[Sandbox]:
    """Insert running rows, one second apart, the newest last."""
    node, _ = Node.objects.get_or_create(pk="node-double")
    now = clock.now()
    rows = [
        Sandbox(
            id=f"i{number:020d}",
            tenant=alice.tenant,
            template=base,
            template_name=base.name,
            build_id="b-1",
            node=node,
            state="running",
            tier="container",
            profile="workstation",
            cpu_milli=1000,
            memory_mib=512,
            disk_mib=1024,
            pids=256,
            timeout_s=300,
            created_by=alice.key.pk,
            started_at=now + timedelta(seconds=number),
            end_at=now + timedelta(hours=1),
            metadata={"number": str(number)},
        )
        for number in range(count)
    ]
    return Sandbox.everywhere().bulk_create(rows, batch_size=500)


def fill(alice: Caller, base: Template, count: int) -> dict[str, str]:
    """Add rows to every list of Acme, and return ids for the paths."""
    tenant = alice.tenant
    rows = sandboxes(alice, base, count)
    for number in range(count):
        Tenant.objects.create(name=f"t{number}", slug=f"t{number}")
        Node.objects.create(pk=f"node-{number}")
        user = User.objects.create(username=f"u{number}")
        Membership(tenant=tenant, user=user, role="viewer").save()
        ApiKey(tenant=tenant, name=f"k{number}", hash=f"h{number}", prefix="e2b_").save()
        Execution(tenant=tenant, tier="process", floor="process", timeout_s=30, until=clock.now(), risk=RISK).save(
            force_insert=True
        )
        Template.objects.create(tenant=tenant, name=f"own-{number}", build_id="b")
        operations.begin(
            actor=OPERATOR, kind="t", object_type="t", object_id=str(number), tenant_id=tenant.pk, progress={}
        )
        Event(
            tenant_id=tenant.pk,
            code="sandbox.started",
            actor_kind="node",
            actor_id="n",
            actor_name="n",
            object_type="sandbox",
            object_id=rows[0].pk,
            sandbox_id=rows[0].pk,
        ).save()
    webhook = fill_ledger(alice, count)
    policy = fill_networks(alice, count)
    fill_tokens(alice, rows[0].pk, count)
    return {
        "tenant_id": tenant.pk.hex,
        "sandbox_id": rows[0].pk,
        "webhook_id": webhook.pk,
        "policy_id": policy.pk,
        "secret_id": fill_secrets(alice, count).pk,
    }


def fill_networks(alice: Caller, count: int) -> NetworkPolicy:
    """Add rows to the lists of network policies and bundles; return the policy that has versions."""
    for number in range(count):
        policy = NetworkPolicy.objects.create(tenant=alice.tenant, name=f"n{number}", spec=CLOSED)
        Bundle.objects.create(name=f"b{number}")
    for number in range(count):
        NetworkPolicyVersion.objects.create(policy=policy, version=number + 1, spec=CLOSED)
    return policy


def fill_secrets(alice: Caller, count: int) -> Secret:
    """Add rows to the lists of secrets; return the secret that has versions."""
    for number in range(count):
        secret = Secret(tenant=alice.tenant, name=f"s{number}", vault="embedded")
        secret.save(force_insert=True)
    for number in range(count):
        SecretVersion.objects.create(secret=secret, number=number + 1)
    return secret


def fill_tokens(alice: Caller, sandbox_id: str, count: int) -> None:
    """Add rows to the lists of a sandbox's tokens and of services."""
    now = clock.now()
    for number in range(count):
        ScopedToken(
            tenant=alice.tenant,
            sandbox_id=sandbox_id,
            generation=1,
            secret_name="s0",
            secret_id="sec_0",
            service="openai",
            not_before=now,
            expires_at=now + timedelta(seconds=300),
            created_by=alice.key.pk,
        ).save(force_insert=True)
        BrokerService.objects.create(tenant=alice.tenant, name=f"v{number}", base_url="https://api.example.com")


def fill_ledger(alice: Caller, count: int) -> Webhook:
    """Add rows to the lists of checkpoints, of risk and of webhooks; return the webhook that has deliveries."""
    tenant_id, now = alice.tenant.pk, clock.now()
    for number in range(1, count + 1):
        webhook = Webhook.objects.create(tenant_id=tenant_id, url="https://hooks.example.com/", created_by="alice")
        for chain in (tenant_id.hex, PLATFORM_CHAIN):
            Checkpoint(chain=chain, size=number, root="5e" * 32, note="note", key_id="k", leaves=b"", at=now).save()
        RiskSuppression.objects.create(
            tenant_id=tenant_id, rule=f"py.rule.{number}", note="known", until=now, created_by="alice"
        )
        Verdict.objects.create(tenant_id=tenant_id, event_id=f"e{number}", action="flag", score=80, threshold=75)
    for number in range(count):
        Delivery.objects.create(webhook=webhook, event_id=f"e{number}", code="quota.set")
    return webhook


@pytest.mark.parametrize("route", LISTS, ids=str)
@pytest.mark.parametrize("count", [2, 9])
def test_every_list_costs_the_same_whatever_it_shows(
    olga: Operator, rest: Rest, alice: Caller, base: Template, route: Route, count: int
) -> None:
    path = route.path.format(**fill(alice, base, count))
    callers: list[tuple[Rest, int]] = [(olga, 2), (rest, 1)]
    for caller, authentication in callers if route.path != "nodes" else callers[:1]:
        assert caller.get(path)["items"]
        with CaptureQueriesContext(connection) as captured:
            caller.get(path)
        # An operator's look at the audit is itself an event.
        noted = 1 if caller is olga and route.path == "audit-events" else 0
        reads = [one["sql"] for one in captured if one["sql"].split()[0] not in {"SAVEPOINT", "RELEASE"}]
        assert len(reads) == QUERIES[route.path] + authentication + noted, reads


@pytest.mark.parametrize("route", LISTS, ids=str)
def test_every_list_is_paged_without_gaps_or_repeats(
    olga: Operator, rest: Rest, alice: Caller, base: Template, route: Route
) -> None:
    path = route.path.format(**fill(alice, base, 9))
    # An operator's look at the audit is itself an event, and the list grows while it is read.
    caller = rest if route.path == "audit-events" else olga
    whole = caller.get(f"{path}?limit=100")
    assert whole["next"] is None

    pages, cursor = [], ""
    while True:
        page = caller.get(f"{path}?limit=4{cursor}")
        pages.append(page["items"])
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"

    assert [one for page in pages for one in page] == whole["items"]
    assert all(len(page) == 4 for page in pages[:-1])
    assert 1 <= len(pages[-1]) <= 4


@pytest.mark.parametrize("route", LISTS, ids=str)
@pytest.mark.parametrize("limit", ["0", "101", "-1", "x", "1.5", "", "99999999999999999999999"])
def test_a_limit_out_of_range_is_named(olga: Operator, alice: Caller, base: Template, route: Route, limit: str) -> None:
    path = route.path.format(**fill(alice, base, 1))
    assert olga.refused("get", f"{path}?limit={limit}") == (400, "invalid_input", "limit")


def forged(*parts: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "%00",
        "ä",
        "A" * 2000,
        forged(),
        forged("-started_at", "id"),
        forged("-started_at", "id", "2026-01-01T00:00:00+00:00"),
        forged("-started_at", "id", "2026-01-01T00:00:00", "i1"),
        forged("-started_at", "id", "yesterday", "i1"),
        forged("-started_at", "id", "0001-01-01T00:00:00+23:00", "i1"),
        forged("-started_at", "id", "2026-01-01T00:00:00+00:00", "a\x00b"),
        forged("-started_at", "id", "2026-01-01T00:00:00+00:00", 5),
        forged("tenant__slug", "id", "x", "i1"),
        forged("started_at", "-id", "2026-01-01T00:00:00+00:00", "i1"),
        base64.urlsafe_b64encode(b"[" * 700).decode(),
        base64.urlsafe_b64encode(b"{}").decode(),
        base64.urlsafe_b64encode(b"\xff\xfe").decode(),
    ],
)
def test_a_cursor_that_the_list_did_not_give_out_is_refused(rest: Rest, cursor: str) -> None:
    assert rest.refused("get", f"sandboxes?cursor={cursor}") == (400, "invalid_input", "cursor")


def test_a_strangers_cursor_opens_nothing(rest: Rest, mallorys_rest: Rest, alice: Caller, base: Template) -> None:
    sandboxes(alice, base, 2)
    cursor = rest.get("sandboxes?limit=1")["next"]

    assert mallorys_rest.get(f"sandboxes?cursor={cursor}") == {"items": [], "next": None}


def test_what_comes_and_goes_shifts_no_page(rest: Rest, alice: Caller, base: Template) -> None:
    rows = sandboxes(alice, base, 6)
    first = rest.get("sandboxes?limit=3")
    assert [one["id"] for one in first["items"]] == [row.pk for row in (rows[5], rows[4], rows[3])]

    Sandbox.everywhere().filter(pk=rows[4].pk).delete()
    second = rest.get(f"sandboxes?limit=3&cursor={first['next']}")
    assert [one["id"] for one in second["items"]] == [row.pk for row in (rows[2], rows[1], rows[0])]


def test_a_page_of_ten_thousand_costs_what_a_page_of_a_hundred_costs(
    olga: Operator, rest: Rest, alice: Caller, base: Template
) -> None:
    if connection.vendor != "sqlite":
        # Only the embedded database counts its steps; a clock would measure the machine's other work too.
        return
    rows = sandboxes(alice, base, MANY)
    first = rest.get("sandboxes?limit=1&order=asc")["next"]
    middle = rest.get(f"sandboxes?limit=1&started_before={iso(rows[MANY // 2].started_at)}")["next"]
    paths = [
        "sandboxes?",
        f"sandboxes?order=asc&cursor={first}&",
        f"sandboxes?cursor={middle}&",
        "sandboxes?state=any&",
    ]
    many = {(type(caller), path): steps(caller, f"{path}limit=50") for caller in (rest, olga) for path in paths}
    Sandbox.everywhere().filter(pk__in=[row.pk for row in rows[200:]]).delete()
    few = max(steps(caller, "sandboxes?limit=50") for caller in (rest, olga))

    assert {path: count for path, count in many.items() if count > 1.2 * few} == {}


def iso(at: datetime) -> str:
    """Return a time for a query."""
    return at.isoformat().replace("+", "%2B")


def steps(caller: Rest, path: str) -> int:
    """Return how many hundreds of steps the database took for a page."""
    counted = [0]

    def count() -> int:
        counted[0] += 1
        return 0

    caller.get(path)
    connection.connection.set_progress_handler(count, 100)
    try:
        assert len(caller.get(path)["items"]) == 50
    finally:
        connection.connection.set_progress_handler(None, 0)
    return counted[0]


def test_no_page_is_sorted_by_the_database(olga: Operator, alice: Caller, rest: Rest) -> None:
    if connection.vendor != "sqlite":
        # A server sorts the few rows of a test, whatever indexes there are.
        return
    for caller in (rest, olga):
        for path in ("sandboxes", "sandboxes?order=asc", "sandboxes?state=any", "audit-events", "operations"):
            with CaptureQueriesContext(connection) as captured:
                caller.get(path)
            with connection.cursor() as cursor:
                cursor.execute("EXPLAIN QUERY PLAN " + captured.captured_queries[-1]["sql"])
                plan = [row[3] for row in cursor.fetchall()]
            assert not [step for step in plan if "TEMP B-TREE" in step], (path, plan)
