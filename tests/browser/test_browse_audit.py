"""Somebody looks for what happened: the list, its filters, one event, a sandbox's timeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.browser.ledger import SANDBOX, event, risky

if TYPE_CHECKING:
    from tenants.models import Tenant, User
    from tests.browser.console import Windows
    from tests.people import Person


def test_the_list_is_well_made_for_members(windows: Windows, alice: Person) -> None:
    for minutes in range(3):
        event(alice.tenant, minutes_ago=minutes)
    risky(alice.tenant)
    event(alice.tenant, "tenant.denied", outcome="refused", decision="deny", sandbox_id="", minutes_ago=7)
    windows.inspect("/t/acme/audit", alice.user)
    windows.inspect("/t/acme/audit?band=critical&code=command.*", alice.user)
    windows.inspect("/t/acme/audit?host=nowhere.example", alice.user)


def test_the_list_is_well_made_for_operators(windows: Windows, olga: User, alice: Person, mallory: Person) -> None:
    event(alice.tenant)
    risky(mallory.tenant)
    event(None, "node.registered", object_type="node", object_id="node-1", sandbox_id="")
    windows.inspect("/operator/audit", olga)
    windows.inspect("/t/acme/audit", olga)


def test_filters_live_in_the_url(windows: Windows, alice: Person) -> None:
    event(alice.tenant)
    risky(alice.tenant)
    page = windows.open(alice.user).open("/t/acme/audit")
    page.get_by_text("Critical", exact=True).click()
    page.wait_for_url("**/t/acme/audit?band=critical")
    assert page.locator("#rows tr").count() == 1
    page.get_by_label("Who").fill("Nobody")
    page.wait_for_url("**?actor=Nobody&band=critical")
    page.get_by_text("No matching events").wait_for()
    page.go_back()
    page.wait_for_url("**/t/acme/audit?band=critical")
    page.locator("#rows tr").first.wait_for()
    assert page.locator("#rows tr").count() == 1
    assert page.locator("#band-critical").is_checked()


def test_a_sandboxs_timeline_is_well_made(windows: Windows, alice: Person) -> None:
    risky(alice.tenant)
    event(alice.tenant, "sandbox.created", actor_name="Alice", minutes_ago=9)
    windows.inspect(f"/t/acme/audit/sandboxes/{SANDBOX}", alice.user)


def test_nothing_yet_says_what_will_be_here(windows: Windows, acme: Tenant, alice: Person) -> None:
    from audit.models import Event

    page = windows.open(alice.user).open("/t/acme/audit?code=no.such")
    assert page.get_by_text("No matching events").is_visible()
    assert Event.objects.filter(tenant_id=acme.pk).exists()
