"""New events appear in an open page by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from playwright.sync_api import expect

from tenants.models import Membership
from tests.browser.ledger import event, risky, seal

if TYPE_CHECKING:
    from tenants.models import User
    from tests.browser.console import Windows
    from tests.people import Person


def test_an_event_appears_when_it_is_sealed(windows: Windows, alice: Person, mallory: Person) -> None:
    page = windows.open(alice.user).open("/t/acme/audit")
    live = page.locator("#live")
    expect(live).to_have_text("Live")

    theirs, ours = risky(mallory.tenant), risky(alice.tenant, minutes_ago=0)
    seal(theirs, ours)

    expect(page.locator(f"#event-{ours.pk}")).to_be_visible()
    assert page.locator(f"#event-{theirs.pk}").count() == 0
    assert page.locator("#rows tr").first.get_attribute("id") == f"event-{ours.pk}"
    page.locator(f"#event-{ours.pk} .gh-row-link").click()
    expect(page.locator("#panel").get_by_role("heading", name="Why this score")).to_be_visible()


def test_only_what_the_filters_keep_appears(windows: Windows, alice: Person) -> None:
    page = windows.open(alice.user).open("/t/acme/audit?band=critical")
    expect(page.locator("#live")).to_have_text("Live")

    plain, critical = event(alice.tenant, minutes_ago=0), risky(alice.tenant, minutes_ago=0)
    seal(plain, critical)

    expect(page.locator(f"#event-{critical.pk}")).to_be_visible()
    assert page.locator(f"#event-{plain.pk}").count() == 0


def test_an_operator_sees_all_tenants_events(windows: Windows, olga: User, alice: Person, mallory: Person) -> None:
    page = windows.open(olga).open("/operator/audit")
    expect(page.locator("#live")).to_have_text("Live")

    both = event(alice.tenant, minutes_ago=0), event(mallory.tenant, minutes_ago=0)
    seal(*both)

    for one, slug in zip(both, ("acme", "evil-corp"), strict=True):
        expect(page.locator(f"#event-{one.pk}")).to_contain_text(slug)


def test_events_can_be_held_back(windows: Windows, alice: Person) -> None:
    page = windows.open(alice.user).open("/t/acme/audit")
    live = page.locator("#live")
    expect(live).to_have_text("Live")
    live.click()
    expect(live).to_have_text("Held back")

    held = event(alice.tenant, minutes_ago=0)
    seal(held)
    expect(live).to_have_text("Held back, 1 new")
    assert page.locator(f"#event-{held.pk}").count() == 0

    live.click()
    expect(page.locator(f"#event-{held.pk}")).to_be_visible()
    expect(live).to_have_text("Live")


def test_who_loses_their_place_gets_nothing_more(windows: Windows, bob: Person) -> None:
    page = windows.open(bob.user).open("/t/acme/audit")
    expect(page.locator("#live")).to_have_text("Live")
    Membership.everywhere().filter(user=bob.user).delete()

    secret = event(bob.tenant, minutes_ago=0)
    seal(secret)

    expect(page.locator("#live")).to_have_text("Not live")
    assert page.locator(f"#event-{secret.pk}").count() == 0


def test_an_older_page_stays_as_it_is(windows: Windows, alice: Person) -> None:
    for minutes in range(60):
        event(alice.tenant, minutes_ago=minutes)
    page = windows.open(alice.user).open("/t/acme/audit")
    page.get_by_role("link", name="Older events").click()
    expect(page.locator("#live")).to_have_text("Older page")
    assert page.locator("#rows tr").count() == 12
    page.get_by_role("link", name="Newest").click()
    expect(page.locator("#live")).to_have_text("Live")
