"""The operator's commands: `tenant`, `apikey` and `quota`."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

import pytest
from django.core.management import CommandError, call_command

from audit.models import Event
from corekit.errors import Unauthorized
from tenants import quota
from tenants.authentication import authenticate
from tenants.models import ApiKey, LimitRange, Tenant

if TYPE_CHECKING:
    from tests.people import Person


def run(*arguments: str) -> str:
    """Run a command and return what it prints; what it says beside goes elsewhere."""
    printed = io.StringIO()
    call_command(*arguments, stdout=printed, stderr=io.StringIO())
    return printed.getvalue()


def test_create_and_list_tenants(db: None) -> None:
    tenant_id = re.search(r"[0-9a-f]{32}", run("tenant", "create", "acme", "--name", "Acme Inc."))
    assert tenant_id is not None
    assert Tenant.objects.get(slug="acme").id.hex == tenant_id[0]
    assert run("tenant", "create", "other").startswith("created the tenant other")
    assert [line.split() for line in run("tenant", "list").splitlines()] == [
        ["slug", "name", "state", "id"],
        ["acme", "Acme", "Inc.", "active", tenant_id[0]],
        ["other", "other", "active", Tenant.objects.get(slug="other").id.hex],
    ]
    assert Event.objects.filter(code="tenant.created", actor_id__startswith="shell:").count() == 2


def test_suspend_and_activate(acme: Tenant, alice: Person) -> None:
    assert run("tenant", "suspend", "acme") == "the tenant acme is suspended\n"
    assert Tenant.objects.get().state == "suspended"
    with pytest.raises(CommandError, match="suspended"):
        run("tenant", "suspend", "acme")
    run("tenant", "activate", "acme")
    assert Tenant.objects.get().state == "active"


def test_a_key_is_printed_once_and_alone(acme: Tenant) -> None:
    key = run("apikey", "create", "--tenant", "acme", "--name", "ci").strip()
    assert re.fullmatch(r"e2b_[0-9a-f]{40}", key)
    assert authenticate(key, origin=None, request_id=None).tenant_id == acme.id.hex
    listed = run("apikey", "list", "--tenant", "acme")
    assert key not in listed
    assert f"{key[:8]}…" in listed


def test_a_key_can_be_narrow_and_short_lived(acme: Tenant) -> None:
    run("apikey", "create", "--tenant", "acme", "--name", "ci", "--scope", "sandboxes:read", "--days", "2")
    key = ApiKey.everywhere().get()
    assert key.scopes == ["sandboxes:read"]
    assert key.expires_at is not None
    assert (key.expires_at - key.created_at).days in {1, 2}
    assert "until 20" in run("apikey", "list")


def test_a_revoked_key_is_closed(acme: Tenant) -> None:
    text = run("apikey", "create", "--tenant", "acme", "--name", "ci").strip()
    key = ApiKey.everywhere().get()
    assert run("apikey", "revoke", key.id) == f"revoked the key {key.id} of acme\n"
    with pytest.raises(Unauthorized):
        authenticate(text, origin=None, request_id=None)
    assert "revoked" in run("apikey", "list")


def test_limits_are_shown_and_set(acme: Tenant) -> None:
    quota.reserve(tenant_id=acme.id, sandbox_id="i1", amounts=quota.Amounts(cpu_milli=500))
    run("quota", "set", "acme", "max_sandboxes=10", "sandbox.max_cpu_milli=4000")
    assert quota.usage(acme.id).allowed.sandboxes == 10
    assert LimitRange.everywhere().get().max_cpu_milli == 4000
    shown = [line.split() for line in run("quota", "show", "acme").splitlines()]
    assert ["max_sandboxes", "10", "1"] in shown
    assert ["sandbox.max_cpu_milli", "4000", "-"] in shown
    assert run("quota", "list").splitlines()[1].split() == ["acme", "1/10", "500/20000", "0/40960", "0/102400"]


def test_the_least_isolation_is_a_word_among_the_limits(acme: Tenant) -> None:
    run("quota", "set", "acme", "sandbox.min_tier=container")
    shown = [line.split() for line in run("quota", "show", "acme").splitlines()]
    assert ["sandbox.min_tier", "container", "-"] in shown
    with pytest.raises(CommandError, match="min_tier must be one of"):
        run("quota", "set", "acme", "sandbox.min_tier=vault", "max_sandboxes=1")
    assert LimitRange.everywhere().get(pk=acme.pk).min_tier == "container"
    assert quota.usage(acme.id).allowed.sandboxes == 50
    run("quota", "set", "acme", "sandbox.min_tier=")
    assert LimitRange.everywhere().get(pk=acme.pk).min_tier == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("tenant", "create", "A B"),
        ("tenant", "create", "acme"),
        ("tenant", "suspend", "nobody"),
        ("apikey", "create", "--tenant", "nobody", "--name", "ci"),
        ("apikey", "create", "--tenant", "acme", "--name", ""),
        ("apikey", "create", "--tenant", "acme", "--name", "ci", "--scope", "platform:write"),
        ("apikey", "create", "--tenant", "acme", "--name", "ci", "--days", "0"),
        ("apikey", "create", "--tenant", "acme", "--name", "ci", "--days", "99999999999"),
        ("apikey", "revoke", "0000000000000000"),
        ("quota", "show", "nobody"),
        ("quota", "set", "acme", "max_sandboxes"),
        ("quota", "set", "acme", "max_sandboxes=-1"),
        ("quota", "set", "acme", "max_sandboxes=1e9"),
        ("quota", "set", "acme", "used_sandboxes=0"),
        ("quota", "set", "acme", "max_sandboxes=1", "sandbox.max_cpu_milli=1"),
    ],
    ids=" ".join,
)
def test_mistakes_are_one_sentence_and_change_nothing(acme: Tenant, arguments: tuple[str, ...]) -> None:
    with pytest.raises(CommandError) as refused:
        run(*arguments)
    assert "\n" not in str(refused.value)
    assert Tenant.objects.count() == 1
    assert not ApiKey.everywhere().exists()
    assert quota.usage(acme.id).allowed.sandboxes == 50
