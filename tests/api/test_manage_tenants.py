"""Tenants, members, keys and quotas over REST, as a tenant's own people use them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from audit.models import Event
from corekit import clock
from tenants.models import ApiKey, Membership, Quota, Tenant, User
from tenants.policy import DEFAULT_KEY_SCOPES
from tests.api.rest import Operator, Rest
from tests.factories import user

if TYPE_CHECKING:
    from tests.sandboxes.fixtures import Caller
    from tests.sandboxes.node_double import NodeDouble

pytestmark = pytest.mark.django_db


@pytest.fixture
def here(alice: Caller) -> str:
    """Return the path of Acme."""
    return f"tenants/{alice.tenant.pk.hex}"


def test_a_tenant_sees_itself(rest: Rest, alice: Caller, here: str) -> None:
    tenant = rest.get(here)
    assert {name: tenant[name] for name in ("id", "slug", "name", "state")} == {
        "id": alice.tenant.pk.hex,
        "slug": "acme",
        "name": "Acme",
        "state": "active",
    }
    assert rest.get("tenants") == {"items": [tenant], "next": None}
    assert rest.get("me")["tenant"] == tenant["id"]


@pytest.mark.parametrize("path", ["", "/suspend", "/activate", "/offboard"])
def test_a_tenant_does_not_manage_itself(rest: Rest, here: str, path: str) -> None:
    body = {"confirm": "acme"} if path == "/offboard" else {}
    answer = rest.call("post", f"{here}{path}" if path else "tenants", body or {"slug": "more"})
    assert answer.status_code == 403
    assert Tenant.objects.get().state == "active"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "slug"),
        ({"slug": "UPPER"}, "slug"),
        ({"slug": "-x"}, "slug"),
        ({"slug": "x" * 64}, "slug"),
        ({"slug": 5}, "slug"),
        ({"slug": None}, "slug"),
        ({"slug": "x", "name": ""}, "name"),
        ({"slug": "x", "name": "a\u0007b"}, "name"),
        ({"slug": "x", "state": "active"}, "state"),
    ],
)
def test_a_tenant_that_is_asked_for_wrongly(olga: Operator, body: Any, field: str) -> None:
    assert olga.refused("post", "tenants", body) == (400, "invalid_input", field)
    assert not Tenant.objects.exists()


def test_a_slug_that_is_taken(olga: Operator, alice: Caller) -> None:
    assert olga.refused("post", "tenants", {"slug": "acme"}) == (409, "conflict", "slug")


def test_members_come_change_and_go(rest: Rest, here: str) -> None:
    carol = user("Carol")
    made = rest.post(f"{here}/members", {"username": "carol", "role": "viewer"}, status=201)
    assert (made["user_id"], made["username"], made["role"]) == (carol.pk, "carol", "viewer")

    changed = rest.call("patch", f"{here}/members/{carol.pk}", {"role": "admin"}).json()
    assert changed == made | {"role": "admin"}
    assert changed in rest.get(f"{here}/members")["items"]
    assert rest.call("delete", f"{here}/members/{carol.pk}").status_code == 204

    assert rest.refused("get", f"{here}/members/{carol.pk}") == (404, "not_found", None)
    assert User.objects.filter(pk=carol.pk).exists()
    codes = Event.objects.filter(object_type="user", object_id=str(carol.pk)).order_by("at").values_list("code")
    assert [code for (code,) in codes] == ["member.added", "member.role_changed", "member.removed"]


def test_a_member_that_cannot_be_added(rest: Rest, here: str) -> None:
    user("Carol")
    for body, expected in (
        ({"username": "nobody", "role": "viewer"}, (400, "invalid_input", "username")),
        ({"username": "carol", "role": "king"}, (400, "invalid_input", "role")),
        ({"username": "carol"}, (400, "invalid_input", "role")),
        ({"username": "alice", "role": "viewer"}, (409, "conflict", "user")),
    ):
        assert rest.refused("post", f"{here}/members", body) == expected
    assert Membership.everywhere().count() == 1


def test_the_last_owner_stays(rest: Rest, here: str) -> None:
    owner = Membership.everywhere().get().user_id
    assert rest.refused("delete", f"{here}/members/{owner}")[:2] == (409, "conflict")
    assert rest.refused("patch", f"{here}/members/{owner}", {"role": "viewer"})[:2] == (409, "conflict")
    assert Membership.everywhere().get().role == "owner"


def test_a_members_id_beyond_all_numbers_is_unknown(rest: Rest, here: str) -> None:
    assert rest.refused("get", f"{here}/members/{10**40}") == (404, "not_found", None)


def test_a_key_is_shown_once(rest: Rest, here: str) -> None:
    made = rest.post(f"{here}/keys", {"name": "agent"}, status=201)
    assert Rest(made["key"]).get("me")["scopes"] == sorted(DEFAULT_KEY_SCOPES)

    shown = rest.get(f"{here}/keys/{made['id']}")
    assert "key" not in shown
    assert "hash" not in shown
    assert made["key"] not in rest.call("get", f"{here}/keys").content.decode()
    assert shown["prefix"] == made["key"][:8]
    assert rest.call("delete", f"{here}/keys/{made['id']}").status_code == 204
    assert rest.call("delete", f"{here}/keys/{made['id']}").status_code == 204
    assert Rest(made["key"]).refused("get", "me") == (401, "unauthorized", None)
    assert rest.get(f"{here}/keys/{made['id']}")["revoked_at"] is not None


def test_a_key_gets_no_more_than_its_maker_has(bob: Caller, here: str) -> None:
    assert Rest(bob.secret).refused("post", f"{here}/keys", {"name": "x"}) == (403, "forbidden", None)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, (400, "invalid_input", "name")),
        ({"name": "x", "scopes": []}, (400, "invalid_input", "scopes")),
        ({"name": "x", "scopes": ["nonsense"]}, (400, "invalid_input", "scopes")),
        ({"name": "x", "scopes": ["platform:write"]}, (400, "invalid_input", "scopes")),
        ({"name": "x", "scopes": ["*"]}, (400, "invalid_input", "scopes")),
        ({"name": "x", "scopes": "sandboxes:read"}, (400, "invalid_input", "scopes")),
        ({"name": "x", "scopes": [5]}, (400, "invalid_input", "scopes.0")),
        ({"name": "x", "expires_at": "2020-01-01T00:00:00Z"}, (400, "invalid_input", "expires_at")),
        ({"name": "x", "expires_at": "tomorrow"}, (400, "invalid_input", "expires_at")),
    ],
)
def test_a_key_that_is_asked_for_wrongly(rest: Rest, here: str, body: Any, expected: tuple[int, str, str]) -> None:
    assert rest.refused("post", f"{here}/keys", body) == expected
    assert ApiKey.everywhere().count() == 1


def test_a_key_expires(rest: Rest, here: str) -> None:
    at = clock.now() + timedelta(hours=1)
    made = rest.post(f"{here}/keys", {"name": "x", "expires_at": at.isoformat()}, status=201)
    assert ApiKey.everywhere().get(pk=made["id"]).expires_at == at


def test_quota_and_usage(rest: Rest, alice: Caller, here: str, node: NodeDouble, base: Any) -> None:
    alice.create()
    found = rest.get(f"{here}/quota")
    assert found["used"] == {
        "sandboxes": 1,
        "cpu_milli": 1000,
        "memory_mib": 512,
        "disk_mib": 1024,
        "request_cpu_milli": 100,
        "request_memory_mib": 128,
    }
    assert found["limits"]["max_sandboxes"] == 50
    assert found["limits"]["creates_per_minute"] == 600
    assert rest.get(f"{here}/limit-range")["max_cpu_milli"] == 2000


def test_an_operator_sets_the_quota(olga: Operator, rest: Rest, here: str) -> None:
    assert rest.refused("patch", f"{here}/quota", {"max_sandboxes": 500}) == (403, "forbidden", None)

    answer = olga.call("patch", f"{here}/quota", {"max_sandboxes": 7, "creates_per_minute": 10})
    assert answer.status_code == 200, answer.content
    assert answer.json()["limits"]["max_sandboxes"] == 7
    changed = olga.call("patch", f"{here}/limit-range", {"max_cpu_milli": 4000}).json()
    assert changed["max_cpu_milli"] == rest.get(f"{here}/limit-range")["max_cpu_milli"] == 4000
    assert Quota.everywhere().get().max_sandboxes == 7


@pytest.mark.parametrize("value", [-1, 1e12, 10**12, "abc", None, True, 1.5, [], {}])
def test_a_limit_that_is_none_is_named_with_its_range(olga: Operator, here: str, value: Any) -> None:
    answer = olga.call("patch", f"{here}/quota", {"max_sandboxes": value})
    assert answer.status_code == 400
    assert answer.json()["field"] == "max_sandboxes"
    assert "from 0 to 1000000000" in answer.json()["detail"]
    assert Quota.everywhere().get().max_sandboxes == 50


def test_bounds_that_contradict_each_other(olga: Operator, here: str) -> None:
    assert olga.refused("patch", f"{here}/limit-range", {"max_cpu_milli": 1})[:2] == (400, "invalid_input")


def test_an_operator_sets_the_least_isolation(olga: Operator, rest: Rest, here: str) -> None:
    assert rest.get(f"{here}/limit-range")["min_tier"] == ""
    assert rest.refused("patch", f"{here}/limit-range", {"min_tier": ""}) == (403, "forbidden", None)

    assert olga.call("patch", f"{here}/limit-range", {"min_tier": "container"}).json()["min_tier"] == "container"
    assert olga.refused("patch", f"{here}/limit-range", {"min_tier": "vault"}) == (400, "invalid_input", "min_tier")
    assert olga.refused("patch", f"{here}/limit-range", {"min_tier": 3}) == (400, "invalid_input", "min_tier")
    assert rest.get(f"{here}/limit-range")["min_tier"] == "container"
    assert olga.call("patch", f"{here}/limit-range", {"min_tier": ""}).json()["min_tier"] == ""


def test_erasing_a_tenant_is_an_operation(olga: Operator, here: str, node: NodeDouble) -> None:
    assert olga.refused("post", f"{here}/offboard", {"confirm": "other"}) == (400, "invalid_input", "confirm")
    assert olga.refused("post", f"{here}/offboard", {}) == (400, "invalid_input", "confirm")

    begun = olga.post(f"{here}/offboard", {"confirm": "acme"}, status=202)

    assert (begun["type"], begun["state"], begun["object"]["id"]) == ("tenant.offboard", "running", here[8:])
    assert olga.get(f"operations/{begun['id']}") == begun
    assert olga.get("operations")["items"] == [begun]
    assert olga.post(f"{here}/offboard", {"confirm": "acme"}, status=202)["id"] == begun["id"]
    assert olga.get(here)["state"] == "offboarding"
    assert olga.refused("post", f"{here}/activate", {}) == (409, "conflict", None)
