"""Every route, from the table of URLs itself, tried by somebody of another tenant: a new route can't be forgotten."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from audit import operations
from audit.models import Delivery, Event, Operation, RiskSuppression, Verdict, Webhook
from corekit import clock
from corekit.ids import new_event_id, new_key_id, new_sandbox_id
from sandboxes.models import Execution, Sandbox, Template, new_template_id
from tenants.models import (
    ApiKey,
    Bundle,
    LimitRange,
    Membership,
    NetworkPolicy,
    NetworkPolicyVersion,
    PlatformNetwork,
    Quota,
    Tenant,
    TenantNetwork,
)
from tenants.networks.presets import CLOSED
from tenants.secretmodels import SealedValue, Secret, new_secret_id
from tenants.tokenmodels import BrokerService, ScopedToken
from tests import factories
from tests.api.rest import Rest, Route, problem, routes
from tests.factories import OPERATOR

if TYPE_CHECKING:
    from tests.people import Person
    from tests.sandboxes.fixtures import Caller
    from tests.sandboxes.node_double import NodeDouble

pytestmark = pytest.mark.django_db

ROUTES = routes()
WITH_IDS = [route for route in ROUTES if route.parameters]
LISTS = [route for route in ROUTES if route.is_list and not route.parameters]
# What a call needs so that nothing but whose object it is can be at fault.
BODIES: dict[str, Any] = {
    "post tenants": {"slug": "another"},
    "post tenants/{tenant_id}/members": {"username": "mallory", "role": "viewer"},
    "patch tenants/{tenant_id}/members/{user_id}": {"role": "admin"},
    "post tenants/{tenant_id}/keys": {"name": "mine"},
    "patch tenants/{tenant_id}/quota": {"max_sandboxes": 1},
    "patch tenants/{tenant_id}/limit-range": {"max_cpu_milli": 1000},
    "put risk-policy": {"flag_at": 50, "pause_at": None, "refuse_at": None},
    "post risk-suppressions": {
        "rule": "sh.x",
        "note": "mine",
        "until": clock.to_rfc3339(clock.now() + timedelta(days=1)),
    },
    "post verdicts/{verdict_id}/override": {"note": "mine"},
    "post audit-events/{event_id}/arguments": {"reason": "curious"},
    "put audit-argument-copies": {"keep": False},
    "post webhooks": {"url": "https://hooks.example.com/"},
    "post sandboxes/{sandbox_id}/extend": {"timeout": 60},
    "put sandboxes/{sandbox_id}/network": {"policy": "restricted"},
    "post tenants/{tenant_id}/offboard": {"confirm": "acme"},
    "post sandboxes/{sandbox_id}/tokens": {"secret": "openai-key", "service": "openai"},
    "post services": {"name": "mine", "base_url": "https://api.vendor.com"},
    "put services/{service_id}": {"version": 1, "base_url": "https://evil.example"},
    "post executions": {"code": "print(1)"},
    "post network-policies": {"name": "mine"},
    "post network-replay": {"policy": "restricted"},
    "put network-policies/{policy_id}": {"version": 1, "mode": "allow"},
    "put network-bundles/{bundle_name}": {"entries": ["evil.example:443"]},
    "put network-deny-list": {"deny": []},
    "patch tenants/{tenant_id}/network": {"default": "isolated"},
    "post secrets": {"name": "mine", "value": "mine"},
    "post secrets/{secret_id}/versions": {"value": "mine"},
}
WINDOW = timedelta(minutes=5)
DENIALS = ("sandbox.denied", "tenant.denied")
OPERATORS_ONLY = {"nodes", "nodes/{node_id}", "network-bundles/{bundle_name}"}


@pytest.fixture
def theirs(node: NodeDouble, base: Template, alice: Caller) -> dict[str, str]:
    """Return the id of one object of Acme for every parameter of a path."""
    tenant = alice.tenant
    operation, _ = operations.begin(
        actor=OPERATOR, kind="test", object_type="tenant", object_id="x", tenant_id=tenant.pk, progress={}
    )
    member = Membership.everywhere().get(tenant=tenant)
    sandbox_id = str(alice.create()["sandboxID"])
    execution = Execution(tenant=tenant, tier="process", floor="process", timeout_s=30, until=clock.now())
    execution.save(force_insert=True)
    webhook = Webhook.objects.create(tenant_id=tenant.pk, url="https://hooks.example.com/", created_by="alice")
    return {
        "tenant_id": tenant.pk.hex,
        "user_id": str(member.user_id),
        "key_id": alice.key.pk,
        "sandbox_id": sandbox_id,
        "token_id": token(tenant, sandbox_id),
        "service_id": BrokerService.objects.create(tenant=tenant, name="private", base_url="https://x.vendor.com").pk,
        "execution_id": execution.pk,
        "event_id": Event.objects.filter(tenant_id=tenant.pk).first().pk,  # type: ignore[union-attr]
        "operation_id": operation.pk,
        "webhook_id": webhook.pk,
        "suppression_id": str(
            RiskSuppression.objects.create(
                pk=987_654_321, tenant_id=tenant.pk, rule="sh.x", note="x", until=clock.now(), created_by="alice"
            ).pk
        ),
        "verdict_id": Verdict.objects.create(
            tenant_id=tenant.pk, event_id=new_event_id(), action="flag", score=80, threshold=75
        ).pk,
        "delivery_id": Delivery.objects.create(webhook=webhook, event_id="e1", code="quota.set").pk,
        "template_id": Template.objects.create(tenant=tenant, name="private", build_id="b-2").pk,
        "node_id": "node-double",
        "policy_id": NetworkPolicy.objects.create(tenant=tenant, name="private", spec=CLOSED).pk,
        "bundle_name": Bundle.objects.create(name="mirror", entries=["index.example:443"]).pk,
        "secret_id": factories.secret(tenant, "openai-key", "sk-acme").pk,
    }


def token(tenant: Tenant, sandbox_id: str) -> str:
    """Return the id of a new scoped token."""
    now = clock.now()
    made = ScopedToken(
        tenant=tenant, hash="0" * 64, sandbox_id=sandbox_id, generation=1, not_before=now, expires_at=now + WINDOW
    )
    made.save(force_insert=True)
    return made.pk


def unknown() -> dict[str, str]:
    """Return ids of the right form that nothing has."""
    return {
        "tenant_id": new_event_id(),
        "user_id": "999999",
        "key_id": new_key_id(),
        "sandbox_id": new_sandbox_id(),
        "token_id": new_key_id(),
        "service_id": new_event_id(),
        "execution_id": new_event_id(),
        "event_id": new_event_id(),
        "operation_id": new_event_id(),
        "webhook_id": new_event_id(),
        "suppression_id": "999999",
        "verdict_id": new_event_id(),
        "delivery_id": new_event_id(),
        "template_id": new_template_id(),
        "node_id": "node-unknown",
        "policy_id": new_event_id(),
        "bundle_name": "unknown",
        "secret_id": new_secret_id(),
    }


def world() -> list[Any]:
    """Return all rows that a call could change, but for the events that say that it was refused."""
    owned = (ApiKey, Membership, Quota, LimitRange, Sandbox, Execution, TenantNetwork, Secret, SealedValue, ScopedToken)
    kept: list[list[Any]] = [list(model.everywhere().order_by("pk").values()) for model in owned]
    for rows in kept:
        for row in rows:
            dict.pop(row, "last_used_at", None)
    plain: tuple[Any, ...] = (
        Tenant.objects,
        Operation.objects,
        Event.objects.exclude(code__in=DENIALS),
        Template.objects,
    )
    plain += (RiskSuppression.objects.all(), Verdict.objects.all())
    plain += (NetworkPolicy.objects, NetworkPolicyVersion.objects, Bundle.objects, PlatformNetwork.objects)
    plain += (BrokerService.objects,)
    return [*kept, *(list(rows.order_by("pk").values()) for rows in plain)]


def seen(answer: Any, ids: dict[str, str]) -> tuple[int, Any, dict[str, str]]:
    """Return what a caller can tell apart, without the ids that they sent themselves."""
    headers = {
        name: value
        for name, value in answer.items()
        if name.lower() not in {"x-request-id", "traceparent", "content-length"}
    }
    found = answer.content.decode().replace(answer["X-Request-Id"], "<request>")
    for value in ids.values():
        found = found.replace(f'"{value}"', "<id>")
    return answer.status_code, found, headers


@pytest.mark.parametrize("route", WITH_IDS, ids=str)
def test_another_tenants_object_answers_like_an_unknown_one(
    mallorys_rest: Rest, theirs: dict[str, str], route: Route
) -> None:
    body, nothing = BODIES.get(str(route).lower(), {} if route.method != "get" else None), unknown()
    before = world()

    answer = mallorys_rest.call(route.method, route.path.format(**theirs), body)

    assert answer.status_code == (403 if route.path in OPERATORS_ONLY else 404), answer.content
    assert problem(answer)["code"] == ("forbidden" if route.path in OPERATORS_ONLY else "not_found")
    expected = mallorys_rest.call(route.method, route.path.format(**nothing), body)
    assert seen(answer, theirs) == seen(expected, nothing)
    assert world() == before


@pytest.mark.parametrize("route", [one for one in WITH_IDS if one.path.startswith(("tenants/", "sandboxes/"))], ids=str)
def test_who_asks_for_another_tenants_object_is_recorded_with_a_risk(
    mallory: Caller, mallorys_rest: Rest, theirs: dict[str, str], route: Route
) -> None:
    body, nothing = BODIES.get(str(route).lower(), {} if route.method != "get" else None), unknown()
    parameter = route.parameters[0]
    for ids in (theirs, nothing):
        mallorys_rest.call(route.method, route.path.format(**ids), body)

    rows = Event.objects.filter(code__in=DENIALS).order_by("at")
    kind = parameter.removesuffix("_id")
    assert list(rows.values_list("code", "object_id", "tenant_id", "actor_id", "outcome", "risk_score")) == [
        (f"{kind}.denied", ids[parameter], mallory.tenant.pk, mallory.key.pk, "refused", 60)
        for ids in (theirs, nothing)
    ]


@pytest.mark.parametrize("route", [route for route in WITH_IDS if len(route.parameters) > 1], ids=str)
def test_another_tenants_object_is_not_found_under_the_own_tenant(
    mallory: Caller, mallorys_rest: Rest, theirs: dict[str, str], route: Route
) -> None:
    body = BODIES.get(str(route).lower(), {} if route.method != "get" else None)
    here = {"tenant_id": mallory.tenant.pk.hex}
    before = world()

    answer = mallorys_rest.call(route.method, route.path.format(**theirs | here), body)

    expected = mallorys_rest.call(route.method, route.path.format(**unknown() | here), body)
    assert answer.status_code == 404
    assert seen(answer, theirs) == seen(expected, unknown())
    assert world() == before


@pytest.mark.parametrize("route", LISTS, ids=str)
def test_no_list_shows_anything_of_another_tenant(mallorys_rest: Rest, theirs: dict[str, str], route: Route) -> None:
    answer = mallorys_rest.call("get", route.path)

    assert answer.status_code == (403 if route.path in OPERATORS_ONLY else 200)
    shown = answer.content.decode()
    # A small number may be in anything, and bundles are everybody's to name.
    private = {name: value for name, value in theirs.items() if name not in {"user_id", "bundle_name"}}
    assert [value for value in private.values() if value in shown] == []
    for value in (theirs["tenant_id"],):
        filtered = mallorys_rest.call("get", f"{route.path}?tenant_id={value}")
        assert filtered.status_code in {400, 403} or filtered.json()["items"] == []


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_without_a_key_every_route_is_401(db: None, route: Route) -> None:
    nobody = Rest(None)
    assert nobody.refused(route.method, route.path.format(**unknown())) == (401, "unauthorized", None)
    forged = Rest("e2b_" + "0" * 40)
    assert forged.refused(route.method, route.path.format(**unknown())) == (401, "unauthorized", None)


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_a_suspended_tenants_key_opens_nothing(alice: Caller, rest: Rest, route: Route) -> None:
    Tenant.objects.filter(pk=alice.tenant.pk).update(state="suspended")

    assert rest.refused(route.method, route.path.format(**unknown())) == (403, "forbidden", None)


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_a_key_without_scopes_may_do_nothing(alice: Caller, theirs: dict[str, str], route: Route) -> None:
    if route.path == "me":
        return
    ApiKey.everywhere().filter(pk=alice.key.pk).update(scopes=[])
    body = BODIES.get(str(route).lower(), {} if route.method != "get" else None)
    before = world()

    answer = Rest(alice.secret).call(route.method, route.path.format(**theirs), body)

    assert (answer.status_code, problem(answer)["code"]) == (403, "forbidden")
    assert world() == before


def test_a_revoked_key_is_refused_by_the_next_call(alice: Caller, rest: Rest) -> None:
    assert rest.get("me")["id"] == alice.key.pk
    ApiKey.everywhere().filter(pk=alice.key.pk).update(revoked_at="2026-01-01T00:00:00Z")

    assert rest.refused("get", "me") == (401, "unauthorized", None)


def test_a_removed_member_is_refused_by_the_next_call(bob: Person, rest: Rest) -> None:
    tenant = rest.get("me")["tenant"]
    user_id = next(one["user_id"] for one in rest.get(f"tenants/{tenant}/members")["items"] if one["username"] == "bob")

    assert rest.call("delete", f"tenants/{tenant}/members/{user_id}").status_code == 204

    assert rest.refused("get", f"tenants/{tenant}/members/{user_id}") == (404, "not_found", None)
