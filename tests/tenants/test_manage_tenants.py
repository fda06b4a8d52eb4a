"""Operators make tenants and set what they may use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from audit.models import Event
from corekit.errors import Conflict, Forbidden, InvalidInput
from tenants import actions, quota
from tenants.models import LimitRange, Quota, Tenant
from tests.factories import OPERATOR

if TYPE_CHECKING:
    from tests.people import Person


def test_a_new_tenant_has_the_commissions_numbers(acme: Tenant) -> None:
    usage = quota.usage(acme.id)
    assert usage.allowed == quota.Amounts(
        sandboxes=50,
        cpu_milli=20_000,
        memory_mib=40_960,
        disk_mib=102_400,
        request_cpu_milli=10_000,
        request_memory_mib=20_480,
    )
    assert usage.used == quota.Amounts(sandboxes=0)
    assert (usage.max_lifetime_s, usage.creates_per_minute) == (86_400, 600)
    limits = LimitRange.everywhere().get(pk=acme.pk)
    assert (limits.default_cpu_milli, limits.min_cpu_milli, limits.max_cpu_milli) == (500, 50, 2000)
    assert (limits.default_memory_mib, limits.min_memory_mib, limits.max_memory_mib) == (512, 64, 2048)
    assert (limits.default_disk_mib, limits.max_disk_mib) == (1024, 10_240)
    assert (limits.default_request_cpu_milli, limits.default_request_memory_mib) == (100, 128)


def test_creating_is_in_the_audit(acme: Tenant) -> None:
    event = Event.objects.get(code="tenant.created")
    assert (event.actor_id, event.object_id, event.details) == (
        "operator",
        acme.id.hex,
        {"name": "Acme", "slug": "acme"},
    )


def test_a_taken_slug_is_refused(acme: Tenant) -> None:
    with pytest.raises(Conflict) as refused:
        actions.create_tenant(actor=OPERATOR, name="Other", slug="acme")
    assert refused.value.field == "slug"
    assert Tenant.objects.count() == Quota.everywhere().count() == 1


@pytest.mark.parametrize("slug", ["", "A", "-a", "a-", "a b", "a\n", "ü", "a" * 64, "../a", None])
def test_bad_slugs_are_refused(db: None, slug: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        actions.create_tenant(actor=OPERATOR, name="Acme", slug=slug)
    assert refused.value.field == "slug"


def test_an_owner_is_no_operator(alice: Person) -> None:
    with pytest.raises(Forbidden):
        actions.create_tenant(actor=alice.actor, name="Mine", slug="mine")
    with pytest.raises(Forbidden):
        actions.set_quota(actor=alice.actor, tenant=alice.tenant, max_sandboxes=1000)
    with pytest.raises(Forbidden):
        actions.set_limit_range(actor=alice.actor, tenant=alice.tenant, max_cpu_milli=64_000)
    with pytest.raises(Forbidden):
        actions.set_tenant_state(actor=alice.actor, tenant=alice.tenant, state="suspended")


def test_limits_change_and_counters_do_not(acme: Tenant) -> None:
    quota.reserve(tenant_id=acme.id, sandbox_id="i1", amounts=quota.Amounts(cpu_milli=500))
    actions.set_quota(actor=OPERATOR, tenant=acme, max_sandboxes=10, max_cpu_milli=1000)
    usage = quota.usage(acme.id)
    assert (usage.allowed.sandboxes, usage.allowed.cpu_milli) == (10, 1000)
    assert (usage.used.sandboxes, usage.used.cpu_milli) == (1, 500)
    event = Event.objects.get(code="quota.set")
    assert event.details == {
        "before": {"max_sandboxes": 50, "max_cpu_milli": 20_000},
        "after": {"max_sandboxes": 10, "max_cpu_milli": 1000},
    }


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        ({"used_sandboxes": 0}, "used_sandboxes"),
        ({"next_create_us": 0}, "next_create_us"),
        ({"max_sandboxes": -1}, "max_sandboxes"),
        ({"max_sandboxes": 10**12}, "max_sandboxes"),
        ({"max_sandboxes": True}, "max_sandboxes"),
        ({"max_sandboxes": "10"}, "max_sandboxes"),
        ({"creates_per_minute": 0}, "creates_per_minute"),
    ],
)
def test_bad_limits_are_refused(acme: Tenant, limits: dict[str, int], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        actions.set_quota(actor=OPERATOR, tenant=acme, **limits)
    assert refused.value.field == field
    assert quota.usage(acme.id).allowed.sandboxes == 50


def test_bounds_must_be_in_order(acme: Tenant) -> None:
    with pytest.raises(InvalidInput, match="max_cpu_milli"):
        actions.set_limit_range(actor=OPERATOR, tenant=acme, max_cpu_milli=100)
    actions.set_limit_range(actor=OPERATOR, tenant=acme, max_cpu_milli=4000, default_cpu_milli=1000)
    assert quota.resolve_resources(acme.id).cpu_milli == 1000


def test_suspending_twice_is_a_conflict(acme: Tenant) -> None:
    stale = Tenant.objects.get(pk=acme.pk)
    actions.set_tenant_state(actor=OPERATOR, tenant=acme, state="suspended")
    for tenant in (acme, stale):
        with pytest.raises(Conflict):
            actions.set_tenant_state(actor=OPERATOR, tenant=tenant, state="suspended")
    assert Event.objects.filter(code="tenant.suspended").count() == 1
