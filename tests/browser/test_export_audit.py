"""What is filtered leaves the console as a file, and a proof for each event that is signed for."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

from playwright.sync_api import expect

from audit import checkpoints, sealing
from audit.models import Event
from tests.browser.ledger import event, risky

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tenants.models import User
    from tests.browser.console import Windows
    from tests.people import Person


def exported(page: Page, link: str) -> list[str]:
    """Return the lines of the file that a link downloads."""
    with page.expect_download() as download:
        page.get_by_role("link", name=link).click()
    return download.value.path().read_text(encoding="utf-8").splitlines()


def test_a_member_exports_what_matches_as_csv(windows: Windows, alice: Person, mallory: Person) -> None:
    event(alice.tenant)
    ours = risky(alice.tenant, actor_name="=1+1")
    risky(mallory.tenant)
    page = windows.open(alice.user).open("/t/acme/audit?band=critical")
    [row] = csv.DictReader(exported(page, "CSV"))
    assert (row["id"], row["risk_score"], row["actor_name"]) == (ours.pk, "88", "'=1+1")
    told = Event.objects.get(code="audit.exported")
    assert (told.tenant_id, told.actor_name, told.details["format"]) == (alice.tenant.pk, "Alice", "csv")


def test_an_export_with_proofs_names_its_checkpoint(windows: Windows, olga: User, alice: Person) -> None:
    made = risky(alice.tenant)
    sealing.seal()
    page = windows.open(olga).open("/t/acme/audit")
    lines: list[dict[str, Any]] = [json.loads(line) for line in exported(page, "JSON lines with proofs")]
    assert lines[0]["header"]["v"] == 1
    found = next(line for line in lines if line.get("event", {}).get("id") == made.pk)
    assert (found["chain"], len(found["hash"])) == (alice.tenant.pk.hex, 64)
    assert {line["event"]["tenant"] for line in lines if "event" in line} == {alice.tenant.pk.hex}
    told = Event.objects.get(code="audit.exported")
    assert (told.tenant_id, told.actor_name) == (alice.tenant.pk, "Olga")


def test_the_inclusion_proof_is_loaded_when_asked_for(windows: Windows, alice: Person) -> None:
    made = risky(alice.tenant)
    sealing.seal()
    assert checkpoints.sign_due()
    console = windows.open(alice.user)
    page = console.open("/t/acme/audit")
    page.locator(f"#event-{made.pk} .gh-row-link").click()
    page.get_by_role("link", name="Inclusion proof").click()
    text = page.locator("#panel .gh-proof-text pre")
    expect(text).to_be_visible()
    proof = json.loads(text.inner_text())
    assert (proof["event"]["id"], proof["proof"]["size"]) == (made.pk, 3)
    assert proof["checkpoint"].startswith("gatehouse/")
    assert console.accessibility() == []
    windows.inspect(f"/t/acme/audit/{made.pk}/proof", alice.user)


def test_an_unknown_form_is_refused(windows: Windows, alice: Person) -> None:
    console = windows.open(alice.user)
    page = console.open("/t/acme/audit/export?format=exe")
    expect(page.get_by_role("alert")).to_contain_text("An export is jsonl or csv.")
    console.complaints.clear()
