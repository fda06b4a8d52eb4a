"""One event in full: why it has its score, what is known of it, and its place in the chain."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from audit.models import Checkpoint, SigningKey, Verdict
from corekit import clock
from tests.browser.console import NARROW
from tests.browser.ledger import SANDBOX, event, risky, seal

if TYPE_CHECKING:
    from tests.browser.console import Windows
    from tests.people import Person


def test_the_page_of_an_event_is_well_made(windows: Windows, alice: Person) -> None:
    made = risky(alice.tenant, request_id="r1", token_id="tok-1", host="index.example", outcome="ok")
    seal(made)
    windows.inspect(f"/t/acme/audit/{made.pk}", alice.user)


def test_the_panel_says_why_an_event_has_its_score(windows: Windows, alice: Person) -> None:
    made = risky(alice.tenant)
    console = windows.open(alice.user)
    page = console.open("/t/acme/audit")
    page.locator(f"#event-{made.pk} .gh-row-link").click()

    panel = page.locator("#panel")
    expect(panel.get_by_role("heading", name="Why this score")).to_be_visible()
    findings = panel.locator(".gh-finding")
    assert findings.count() == 2
    heaviest = findings.first
    expect(heaviest).to_contain_text("Runs code that it makes at run time")
    expect(heaviest).to_contain_text("py.exec.dynamic")
    expect(heaviest).to_contain_text("weight 60")
    expect(heaviest.locator("mark")).to_have_text("exec(b64decode(payload))")
    expect(heaviest.locator(".gh-snippet-line")).to_have_text("3")
    scores = panel.locator(".gh-score")
    expect(scores.first).to_contain_text("88")
    expect(scores.nth(1)).to_contain_text("seed-v1, for comparison: exec, network")
    page.wait_for_timeout(400)
    assert console.accessibility() == []
    assert page.url.endswith("/t/acme/audit")

    page.keyboard.press("Escape")
    expect(panel).to_be_hidden()


def test_a_snippet_is_text_and_never_markup(windows: Windows, alice: Person) -> None:
    made = risky(alice.tenant, actor_name="<b>Bob</b>")
    finding = made.risk_findings[0] | {"snippet": "</pre><script>alert(1)</script>", "message": "<img src=x>"}
    hostile = risky(alice.tenant, risk_findings=[finding], object_name="<i>x</i>")
    page = windows.open(alice.user).open(f"/t/acme/audit/{hostile.pk}")
    expect(page.locator("mark")).to_have_text("</pre><script>alert(1)</script>")
    assert page.locator("main script, main img, main b").count() == 0


def test_the_place_in_the_chain_can_be_copied(windows: Windows, alice: Person) -> None:
    first, second = risky(alice.tenant), risky(alice.tenant)
    seal(first, second)
    SigningKey.objects.create(id="k1", public_key="ab" * 32)
    Checkpoint.objects.create(
        chain=alice.tenant.pk.hex, size=2, root="cd" * 32, note="the note", key_id="k1", leaves=b"", at=clock.now()
    )
    page = windows.open(alice.user).open(f"/t/acme/audit/{second.pk}")
    proof = page.locator("section[aria-labelledby=proof]")
    expect(proof).to_contain_text("2 of this tenant's chain")
    expect(proof).to_contain_text("covers the first 2")
    copied = {button.get_attribute("data-copy") for button in proof.get_by_role("button").all()}
    assert {f"{2:064x}", f"{1:064x}", "the note"} <= copied


def test_what_is_not_sealed_yet_says_so(windows: Windows, alice: Person) -> None:
    page = windows.open(alice.user).open(f"/t/acme/audit/{event(alice.tenant).pk}")
    expect(page.locator("section[aria-labelledby=proof]")).to_contain_text("Not sealed yet")


def test_a_fact_leads_to_other_events_like_it(windows: Windows, alice: Person) -> None:
    made = risky(alice.tenant, host="index.example")
    event(alice.tenant, host="example.org")
    page = windows.open(alice.user).open(f"/t/acme/audit/{made.pk}")
    page.get_by_role("link", name="Others with this: Host").click()
    page.wait_for_url("**/t/acme/audit?host=index.example")
    assert page.locator("#rows tr").count() == 1
    page.get_by_role("link", name="Clear filters").click()
    page.wait_for_url("**/t/acme/audit")


def test_a_verdict_is_shown_with_its_event(windows: Windows, alice: Person) -> None:
    made = risky(alice.tenant)
    Verdict.objects.create(
        tenant_id=alice.tenant.pk, event_id=made.pk, sandbox_id=SANDBOX, action="pause", score=88, threshold=80
    )
    page = windows.open(alice.user).open(f"/t/acme/audit/{made.pk}")
    expect(page.locator(".gh-verdict")).to_contain_text("score 88 met the threshold 80")


def test_an_analyst_overrides_a_verdict_with_a_note(windows: Windows, alice: Person) -> None:
    made = risky(alice.tenant)
    verdict = Verdict.objects.create(
        tenant_id=alice.tenant.pk, event_id=made.pk, sandbox_id=SANDBOX, action="pause", score=88, threshold=80
    )
    windows.inspect(f"/t/acme/audit/verdicts/{verdict.pk}/override", alice.user)
    console = windows.open(alice.user)
    page = console.open(f"/t/acme/audit/{made.pk}")
    page.get_by_role("link", name="Override").click()
    page.get_by_label("Why it does not hold").fill("A known test.")
    assert console.accessibility() == []
    page.get_by_role("button", name="Override the verdict").click()
    box = page.locator(f"#verdict-{verdict.pk}")
    expect(box).to_contain_text("Overridden")
    expect(box).to_contain_text("A known test.")
    expect(box.get_by_role("link", name="Override")).to_have_count(0)
    verdict.refresh_from_db()
    assert verdict.state == "overridden"


def test_all_fields_are_there_for_who_wants_them(windows: Windows, alice: Person) -> None:
    made = risky(alice.tenant)
    page = windows.open(alice.user).open(f"/t/acme/audit/{made.pk}")
    page.get_by_text("All fields").click()
    shown = json.loads(page.locator(".gh-json").inner_text())
    assert (shown["id"], shown["risk_score"], shown["risk_seed"]["score"]) == (made.pk, 88, 70)


@pytest.mark.parametrize("size", [None, NARROW])
def test_an_id_is_copied(windows: Windows, alice: Person, size: dict[str, int] | None) -> None:
    made = event(alice.tenant)
    console = windows.open(alice.user, size=size)
    page = console.open("/t/acme/audit")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=windows.url)
    page.locator(f"#event-{made.pk} .gh-copy").click()
    expect(page.locator(".gh-toast")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == SANDBOX
