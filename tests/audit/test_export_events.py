"""An export is a file that proves itself: its events, their places, their proofs, and the checkpoints."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from audit import exports
from audit.models import Event
from audit.recording import record
from corekit.actor import SYSTEM, Actor
from corekit.errors import Forbidden
from tests.audit.ledgers import AGENT, Ledger

if TYPE_CHECKING:
    from tenants.models import Tenant

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def ledger(acme: Tenant) -> Ledger:
    """Return Acme's chain: nine events under two checkpoints, and one more that none covers."""
    ledger = Ledger.of(acme, 5, signed=True)
    ledger.add(4)
    ledger.sign()
    ledger.add(1)
    return ledger


def lines(ledger: Ledger, **more: Any) -> list[dict[str, Any]]:
    query = {"tenant_id": ledger.tenant.id} | more.pop("query", {})
    return [json.loads(line) for line in exports.export(actor=SYSTEM, query=query, form="jsonl", **more)]


def rows(ledger: Ledger) -> list[dict[str, str]]:
    text = "".join(exports.export(actor=SYSTEM, query={"tenant_id": ledger.tenant.id}, form="csv"))
    return list(csv.DictReader(io.StringIO(text)))


def test_it_holds_every_event_in_the_order_of_the_chain(ledger: Ledger) -> None:
    found = [line for line in lines(ledger) if "event" in line]
    assert [(line["seq"], line["event"]["id"], line["hash"]) for line in found] == [
        (seq, ledger.event_id(seq), ledger.hash_of(seq)) for seq in range(1, 11)
    ]
    assert [line["prev"] for line in found] == ["00" * 32, *(ledger.hash_of(seq) for seq in range(1, 10))]


def test_each_checkpoint_comes_before_the_first_event_that_needs_it(ledger: Ledger) -> None:
    kinds = [next(name for name in ("header", "checkpoint", "event", "end") if name in one) for one in lines(ledger)]
    assert kinds == ["header", "checkpoint", *["event"] * 5, "checkpoint", *["event"] * 5, "end"]


def test_what_no_checkpoint_covers_yet_has_no_proof(ledger: Ledger) -> None:
    found = [line["proof"] for line in lines(ledger) if "event" in line]
    assert [proof["size"] for proof in found[:-1]] == [5, 5, 5, 5, 5, 9, 9, 9, 9]
    assert found[-1] is None


def test_it_can_leave_out_what_is_not_proven(ledger: Ledger) -> None:
    found = lines(ledger, proven=True)
    assert [line["seq"] for line in found if "event" in line] == list(range(1, 10))
    assert found[-1] == {"end": {"events": 9}}


def test_an_event_without_a_number_comes_last(ledger: Ledger) -> None:
    record("tenant.suspended", actor=SYSTEM, object_type="tenant", object_id="t", tenant_id=ledger.tenant.id)
    last = [line for line in lines(ledger) if "event" in line][-1]
    assert last["event"]["code"] == "tenant.suspended"
    assert (last["seq"], last["hash"], last["prev"], last["proof"]) == (None, None, None, None)


def test_filters_are_told_in_the_header(ledger: Ledger) -> None:
    found = lines(ledger, query={"code": "sandbox.created"})
    assert found[0]["header"]["filters"] == {"code": "sandbox.created"}
    assert {line["event"]["code"] for line in found if "event" in line} == {"sandbox.created"}


def test_the_export_is_an_event_and_not_among_its_own(ledger: Ledger) -> None:
    told = lines(ledger, query={"code": "sandbox.created"})
    event = Event.objects.get(code="audit.exported")
    assert (event.tenant_id, event.actor_name) == (ledger.tenant.id, "Gatehouse")
    assert event.details == {
        "format": "jsonl",
        "filters": ["code"],
        "events": len([line for line in told if "event" in line]),
    }
    assert event.pk not in {line["event"]["id"] for line in told if "event" in line}


def test_nobody_exports_without_the_scope(ledger: Ledger) -> None:
    stranger = Actor(kind="api_key", id="k", name="k", tenant_id=ledger.tenant.id.hex, scopes=frozenset())
    with pytest.raises(Forbidden):
        exports.export(actor=stranger, query={}, form="jsonl")
    assert not Event.objects.filter(code="audit.exported").exists()


def test_a_table_has_a_row_for_each_event(ledger: Ledger) -> None:
    found = rows(ledger)
    assert [(row["seq"], row["id"]) for row in found] == [(str(seq), ledger.event_id(seq)) for seq in range(1, 11)]
    assert (found[-1]["actor_name"], found[-1]["origin"], found[-1]["risk_score"]) == ("Agent", "192.0.2.7", "0")
    assert found[-1]["at"].endswith("Z")
    assert json.loads(found[-1]["details"]) == {"template": "base", "timeout_ms": 300_000}


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1+1", "@SUM(A1)", "\tx", "\rx", " =1+1", "'=1"])
def test_no_text_becomes_a_formula(ledger: Ledger, text: str) -> None:
    record("tenant.suspended", actor=AGENT, object_type="tenant", object_id=text, tenant_id=ledger.tenant.id)
    last = rows(ledger)[-1]
    assert last["object_id"] == (text if text.startswith("'") else f"'{text}")
