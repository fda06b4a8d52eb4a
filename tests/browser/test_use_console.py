"""The console's habits: the chart, the keyboard, the switcher, and what is shown when something fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

from playwright.sync_api import expect

from tests.browser.console import NARROW
from tests.browser.ledger import event, risky

if TYPE_CHECKING:
    from tenants.models import User
    from tests.browser.console import Windows
    from tests.people import Person


def test_the_chart_counts_each_band(windows: Windows, alice: Person) -> None:
    risky(alice.tenant)
    risky(alice.tenant, minutes_ago=300)
    event(alice.tenant, risk_score=10, risk_band="low")
    risky(alice.tenant, minutes_ago=60 * 30)
    page = windows.open(alice.user).open("/t/acme/audit")
    expect(page.locator("#risk canvas")).to_be_visible()
    assert page.locator("#risk-legend").inner_text().split() == [
        "1",
        "low",
        "0",
        "medium",
        "0",
        "high",
        "2",
        "critical",
    ]
    assert "highest score 88" in str(page.locator("#risk").get_attribute("aria-label"))

    page.get_by_label("Time", exact=True).select_option("7d")
    page.wait_for_url("**?within=7d")
    expect(page.locator("#risk-legend")).to_contain_text("3 critical")


def test_a_chart_of_nothing_says_so(windows: Windows, alice: Person) -> None:
    page = windows.open(alice.user).open("/t/acme/audit")
    expect(page.locator("#risk")).to_have_text("Nothing with a score in this time.")


def test_the_keyboard_leads_everywhere(windows: Windows, alice: Person) -> None:
    first, second = event(alice.tenant, minutes_ago=-2), event(alice.tenant, minutes_ago=-1)
    page = windows.open(alice.user).open("/t/acme/audit")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("j")
    page.keyboard.press("j")
    expect(page.locator(f"#event-{second.pk} .gh-row-link")).to_be_focused()
    page.keyboard.press("k")
    expect(page.locator(f"#event-{first.pk} .gh-row-link")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#panel")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#panel")).to_be_hidden()
    page.keyboard.press("/")
    expect(page.get_by_label("Event code")).to_be_focused()
    page.keyboard.type("t?")
    expect(page.locator("#help")).to_be_hidden()
    page.wait_for_url("**?code=t%3F")
    expect(page.locator("#events")).to_contain_text("No matching events")
    page.locator("h1").click()
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#help")).to_be_hidden()


def test_switching_the_tenant_keeps_the_section(windows: Windows, olga: User, alice: Person, mallory: Person) -> None:
    page = windows.open(olga).open("/t/acme/audit")
    page.get_by_role("button", name="Acme").click()
    page.get_by_role("link", name="Evil Corp").click()
    page.wait_for_url("**/t/evil-corp/audit")
    page.get_by_role("button", name="Evil Corp").click()
    page.get_by_role("link", name="Platform").click()
    page.wait_for_url("**/operator/audit")


def test_a_narrow_screen_has_the_menu_behind_a_button(windows: Windows, alice: Person) -> None:
    console = windows.open(alice.user, size=NARROW)
    page = console.open("/t/acme/audit")
    expect(page.get_by_role("link", name="Audit", exact=True)).to_be_hidden()
    page.get_by_role("button", name="Menu").click()
    expect(page.get_by_role("link", name="Audit", exact=True)).to_be_visible()
    page.wait_for_timeout(500)
    assert (console.accessibility(), console.overflow()) == ([], 0)


def test_a_lost_connection_is_said_where_the_answer_would_be(windows: Windows, alice: Person) -> None:
    event(alice.tenant)
    console = windows.open(alice.user)
    page = console.open("/t/acme/audit")
    page.context.set_offline(True)
    page.get_by_text("Critical", exact=True).click()
    expect(page.locator("#events")).to_contain_text("Gatehouse did not answer")
    page.context.set_offline(False)
    page.locator("#events [data-retry]").click()
    expect(page.locator("#events")).to_contain_text("No matching events")
    console.complaints.clear()


def test_a_filter_that_is_wrong_is_said_in_place(windows: Windows, alice: Person) -> None:
    console = windows.open(alice.user)
    page = console.open("/t/acme/audit?cursor=nonsense")
    expect(page.get_by_role("alert")).to_contain_text("did not give out this cursor")
    console.complaints.clear()


def test_an_ended_session_leads_to_the_door(windows: Windows, alice: Person) -> None:
    console = windows.open(alice.user)
    page = console.open("/t/acme/audit")
    page.context.clear_cookies()
    page.get_by_text("Critical", exact=True).click()
    page.wait_for_url("**/accounts/login/**")
    console.complaints.clear()


def test_nothing_works_less_without_scripts_but_what_needs_them(windows: Windows, alice: Person) -> None:
    risky(alice.tenant)
    event(alice.tenant)
    page = windows.without_scripts(alice.user)
    page.goto(windows.url + "/t/acme/audit")
    page.get_by_label("Who").fill("Alice's key")
    page.get_by_role("button", name="Apply").click()
    assert "actor=Alice" in page.url
    assert page.locator("#rows tr").count() == 2
    page.locator(".gh-row-link").first.click()
    assert page.get_by_role("heading", name="Event", exact=True).is_visible()
