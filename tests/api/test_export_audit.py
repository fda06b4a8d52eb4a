"""The ledger over REST: exports of what is filtered, proofs, checkpoints and the state of a chain."""

from __future__ import annotations

import base64
import csv
import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from audit import sealing, signing, verify_export
from audit.models import Event
from tests.audit.ledgers import Ledger

if TYPE_CHECKING:
    from tests.api.rest import Operator, Rest
    from tests.sandboxes.fixtures import Caller

pytestmark = pytest.mark.django_db


@pytest.fixture
def ledger(alice: Caller) -> Ledger:
    """Return Acme's chain, signed: how its people and keys came to be, and some sandboxes."""
    return Ledger.of(alice.tenant, 8, signed=True)


def text_of(answer: Any) -> str:
    assert answer.status_code == 200
    return b"".join(answer.streaming_content).decode()


def lines_of(answer: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text_of(answer).splitlines()]


def test_a_tenant_exports_its_own_events_and_can_check_them(rest: Rest, ledger: Ledger, mallory: Caller) -> None:
    answer = rest.call("GET", "audit-events/export")
    assert answer["Content-Type"] == "application/x-ndjson; charset=utf-8"
    assert answer["Content-Disposition"] == 'attachment; filename="audit.jsonl"'

    text = text_of(answer)

    report = verify_export.verify(iter(text.splitlines()), [signing.public_key()], complete=True)
    assert (report.verdict, report.events, report.unproven) == ("ok", 8, 0)
    assert mallory.tenant.id.hex not in text


def test_the_lists_filters_are_those_of_the_export(rest: Rest, ledger: Ledger) -> None:
    found = lines_of(rest.call("GET", "audit-events/export?code=sandbox.created&risk_at_least=2"))
    assert {line["event"]["risk"]["score"] for line in found if "event" in line} == {2, 3, 4}
    assert found[0]["header"]["filters"] == {"code": "sandbox.created", "risk_at_least": "2"}


def test_a_spreadsheet_gets_csv(rest: Rest, ledger: Ledger) -> None:
    answer = rest.call("GET", "audit-events/export?format=csv")
    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(text_of(answer))))
    assert [row["seq"] for row in rows] == [str(seq) for seq in range(1, 9)]


def test_an_export_is_an_event_of_the_tenant(rest: Rest, ledger: Ledger, alice: Caller) -> None:
    text_of(rest.call("GET", "audit-events/export?format=csv"))
    event = Event.objects.get(code="audit.exported")
    assert (event.tenant_id, event.details["format"]) == (alice.tenant.id, "csv")


def test_an_operator_exports_one_tenants_events(olga: Operator, ledger: Ledger) -> None:
    found = lines_of(olga.call("GET", f"audit-events/export?tenant_id={ledger.chain}"))
    assert {line["chain"] for line in found if "event" in line} == {ledger.chain}
    assert str(Event.objects.get(code="audit.exported").tenant_id) == str(ledger.tenant.id)


def test_another_tenants_events_stay_out(mallorys_rest: Rest, ledger: Ledger) -> None:
    found = lines_of(mallorys_rest.call("GET", f"audit-events/export?tenant_id={ledger.chain}"))
    assert [line for line in found if "event" in line] == []
    assert Event.objects.get(code="audit.exported").tenant_id != ledger.tenant.id


@pytest.mark.parametrize(
    ("query", "field"),
    [("format=xml", "format"), ("limit=5", "limit"), ("order=asc", "order"), ("risk_at_least=x", "risk_at_least")],
)
def test_what_it_does_not_know_is_refused(rest: Rest, ledger: Ledger, query: str, field: str) -> None:
    assert rest.refused("GET", f"audit-events/export?{query}")[::2] == (400, field)
    assert not Event.objects.filter(code="audit.exported").exists()


def test_an_event_is_proven(rest: Rest, ledger: Ledger) -> None:
    found = rest.get(f"audit-events/{ledger.event_id(3)}/proof")
    note = verify_export.read_checkpoint(found["checkpoint"], [signing.public_key()])
    path = [base64.b64decode(step) for step in found["proof"]["path"]]
    assert note is not None
    assert (found["seq"], note.chain, note.size) == (3, ledger.chain, 8)
    assert verify_export.root_from_proof(bytes.fromhex(found["hash"]), 2, 8, path) == note.root


def test_an_event_that_is_not_sealed_has_no_proof(rest: Rest, ledger: Ledger) -> None:
    newest = Event.objects.exclude(pk__in=ledger.ids.values()).filter(tenant_id=ledger.tenant.id)
    assert not newest.exists()
    text_of(rest.call("GET", "audit-events/export"))
    assert rest.refused("GET", f"audit-events/{newest.get().pk}/proof")[:2] == (404, "not_found")


def test_nobody_gets_the_proof_of_another_tenants_event(mallorys_rest: Rest, ledger: Ledger) -> None:
    assert mallorys_rest.refused("GET", f"audit-events/{ledger.event_id(3)}/proof")[:2] == (404, "not_found")


def test_the_checkpoints_are_listed_newest_first(rest: Rest, ledger: Ledger) -> None:
    ledger.add(1)
    ledger.sign()
    items = rest.get("audit-checkpoints")["items"]
    assert [(one["chain"], one["size"]) for one in items] == [(ledger.chain, 9), (ledger.chain, 8)]
    assert verify_export.read_checkpoint(items[0]["note"], [signing.public_key()]) is not None


def test_the_state_of_the_chain(rest: Rest, ledger: Ledger) -> None:
    found = rest.get("audit-chain")
    assert (found["name"], found["size"], found["head"]) == (ledger.chain, 8, ledger.hash_of(8))
    assert (found["verified_as"], found["checkpoint"]["size"]) == ("", 8)


def test_operators_see_any_chain_and_tenants_their_own(olga: Operator, mallorys_rest: Rest, ledger: Ledger) -> None:
    olga.get("audit-events")
    sealing.seal()
    assert olga.get("audit-chain")["name"] == "platform"
    assert olga.get(f"audit-chain?tenant_id={ledger.chain}")["name"] == ledger.chain
    assert mallorys_rest.refused("GET", f"audit-chain?tenant_id={ledger.chain}")[:2] == (404, "not_found")
    assert mallorys_rest.get(f"audit-checkpoints?tenant_id={ledger.chain}")["items"] == []
