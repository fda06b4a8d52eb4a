"""Operators use the API with the console's session: under our own host name, with the CSRF token, as staff only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from audit.models import Event
from tenants.models import Tenant
from tests.api.rest import Operator, Rest, problem

if TYPE_CHECKING:
    from tests.sandboxes.fixtures import Caller
    from tests.sandboxes.node_double import NodeDouble

pytestmark = pytest.mark.django_db


def test_an_operator_sees_all_tenants(olga: Operator, alice: Caller, mallory: Caller) -> None:
    me = olga.get("me")
    assert me == {"kind": "user", "id": str(olga.user.pk), "name": "olga", "tenant": None, "scopes": ["*"]}
    assert [tenant["slug"] for tenant in olga.get("tenants")["items"]] == ["acme", "evil-corp"]
    assert olga.get(f"tenants/{alice.tenant.pk.hex}/quota")["used"]["sandboxes"] == 0


def test_an_operator_makes_and_suspends_a_tenant(olga: Operator) -> None:
    made = olga.post("tenants", {"slug": "new", "name": "New Ltd"}, status=201)
    assert (made["slug"], made["name"], made["state"]) == ("new", "New Ltd", "active")

    assert olga.post(f"tenants/{made['id']}/suspend")["state"] == "suspended"
    assert olga.refused("post", f"tenants/{made['id']}/suspend", {}) == (409, "conflict", None)
    assert olga.post(f"tenants/{made['id']}/activate")["state"] == "active"
    assert list(Event.objects.filter(object_id=made["id"]).order_by("at").values_list("code", "actor_name")) == [
        ("tenant.created", "olga"),
        ("tenant.suspended", "olga"),
        ("tenant.activated", "olga"),
    ]


def test_an_operator_sees_nodes_and_everybodys_sandboxes(
    olga: Operator, node: NodeDouble, base: Any, alice: Caller, mallory: Caller
) -> None:
    for who in (alice, mallory):
        who.create()

    assert [one["id"] for one in olga.get("nodes")["items"]] == ["node-double"]
    assert olga.get("nodes/node-double")["version"]
    assert len(olga.get("sandboxes")["items"]) == 2
    [only] = olga.get(f"sandboxes?tenant_id={alice.tenant.pk.hex}")["items"]
    assert only["tenant"] == alice.tenant.pk.hex
    assert olga.get(f"sandboxes/{only['id']}")["id"] == only["id"]


def test_an_operator_pauses_and_ends_anybodys_sandbox_but_does_not_enter_it(
    olga: Operator, node: NodeDouble, base: Any, alice: Caller
) -> None:
    made = alice.create()["sandboxID"]

    assert olga.post(f"sandboxes/{made}/pause")["state"] == "paused"
    woken = olga.post(f"sandboxes/{made}/resume", {"timeout": 60})
    assert (woken["state"], woken["access"]["token"], woken["access"]["traffic_token"]) == ("running", None, None)
    assert olga.post(f"sandboxes/{made}/access")["access"]["token"] is None
    assert olga.call("delete", f"sandboxes/{made}").status_code == 204

    assert node.running() == []
    told = Event.objects.filter(object_id=made, actor_name="olga").values_list("code", "tenant_id")
    assert set(told) == {(f"sandbox.{what}", alice.tenant.pk) for what in ("pausing", "resuming", "killed")}
    assert olga.refused("post", "sandboxes", {}) == (400, "invalid_input", "tenant")


def test_changes_need_the_csrf_token(olga: Operator) -> None:
    for headers in ({}, {"X-CSRFToken": "x" * 64}):
        olga.headers = headers
        assert olga.refused("post", "tenants", {"slug": "new"}) == (403, "forbidden", "X-CSRFToken")
    assert not Tenant.objects.exists()
    assert olga.get("tenants")["items"] == []


def test_changes_from_another_origin_are_refused(olga: Operator) -> None:
    answer = olga.call("post", "tenants", {"slug": "new"}, Origin="https://evil.example")
    assert (answer.status_code, problem(answer)["field"]) == (403, "X-CSRFToken")
    assert not Tenant.objects.exists()


def test_an_account_that_is_no_staff_is_nobody(db: None) -> None:
    assert Operator(is_staff=False).refused("get", "me") == (401, "unauthorized", None)


@pytest.mark.parametrize("change", [{"is_active": False}, {"is_staff": False}])
def test_who_is_no_operator_any_more_is_refused_by_the_next_call(olga: Operator, change: dict[str, bool]) -> None:
    for name, value in change.items():
        setattr(olga.user, name, value)
    olga.user.save()

    assert olga.refused("get", "me") == (401, "unauthorized", None)


def test_an_old_cookie_is_dead_after_signing_out_or_a_new_password(olga: Operator) -> None:
    olga.user.set_password("another long password")
    olga.user.save()
    assert olga.refused("get", "me") == (401, "unauthorized", None)

    olga.client.force_login(olga.user)
    cookie = olga.client.cookies["session"].value
    olga.client.logout()
    olga.client.cookies["session"] = cookie
    assert olga.refused("get", "me") == (401, "unauthorized", None)


def test_a_key_goes_before_a_session(olga: Operator, alice: Caller) -> None:
    olga.headers["X-API-KEY"] = alice.secret
    assert olga.get("me")["kind"] == "api_key"


def test_a_call_with_a_key_never_looks_at_sessions(rest: Rest, django_assert_num_queries: Any) -> None:
    rest.get("me")
    with django_assert_num_queries(1):
        rest.get("me")


def test_the_e2b_paths_know_no_sessions(olga: Operator) -> None:
    assert olga.client.get("/v2/sandboxes").status_code == 401
