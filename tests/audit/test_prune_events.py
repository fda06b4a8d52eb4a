"""Old events go by the tenant's retention: only what is anchored, only the bodies, and with a signed record."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from django.core.management import call_command

from audit import anchors, exports, retention, signing, verify_export
from audit.models import Event, LedgerPolicy, PruneRange, PruneRecord, Seal
from audit.recording import record
from audit.verification.findings import Verdict
from corekit import clock
from corekit.actor import SYSTEM
from corekit.errors import Forbidden, InvalidInput
from tests.audit import intruder
from tests.audit.ledgers import AGENT, Ledger, verify
from tests.factories import OPERATOR

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from tenants.models import Tenant
    from tests.people import Person

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def ledger(acme: Tenant, anchor_folder: Path) -> Ledger:
    """Return Acme's chain: six events that are signed and anchored, and two newer ones that are not."""
    ledger = Ledger.of(acme, 6, signed=True)
    anchors.deliver_all()
    ledger.add(2)
    return ledger


def later(days: int) -> datetime:
    return clock.now() + timedelta(days=days)


def left(ledger: Ledger) -> list[int]:
    """Return the numbers whose events are still there."""
    return [seq for seq, event_id in ledger.ids.items() if Event.objects.filter(pk=event_id).exists()]


def test_what_is_older_than_the_retention_goes(ledger: Ledger) -> None:
    assert retention.prune(ledger.chain, now=later(401)) == 6
    assert left(ledger) == [7, 8]
    assert Seal.objects.filter(chain=ledger.chain).count() == 8


def test_what_is_younger_stays(ledger: Ledger) -> None:
    assert retention.prune(ledger.chain, now=later(399)) == 0
    assert left(ledger) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert not PruneRecord.objects.exists()


def test_refused_acts_stay_longer(acme: Tenant, anchor_folder: Path) -> None:
    Ledger.of(acme, 3, signed=False)
    for _ in range(2):
        record("quota.refused", actor=AGENT, object_type="tenant", object_id="t", tenant_id=acme.id, outcome="refused")
    ledger = Ledger.of(acme, 6, signed=True)
    anchors.deliver_all()

    assert retention.prune(ledger.chain, now=later(401)) == 4
    assert left(ledger) == [4, 5]
    assert list(PruneRange.objects.order_by("first").values_list("first", "last")) == [(1, 3), (6, 6)]

    assert retention.prune(ledger.chain, now=later(801)) == 2
    assert left(ledger) == []


def test_the_record_is_signed_and_an_event(ledger: Ledger) -> None:
    retention.prune(ledger.chain, now=later(401))
    row = PruneRecord.objects.get()
    said = verify_export.read_prune_record(row.note, [signing.public_key()])
    assert said == (ledger.chain, [(1, 6)])
    event = Event.objects.get(code="audit.pruned")
    assert event.tenant_id == ledger.tenant.id
    assert event.details == {"first": 1, "last": 6, "events": 6, "rule": "400 days, refused acts 800 days"}


def test_the_chain_still_verifies(ledger: Ledger) -> None:
    retention.prune(ledger.chain, now=later(401))
    found = verify(ledger)
    assert found.verdict == Verdict.OK
    assert found.report.chains[0].pruned == 6


def test_an_export_of_the_rest_still_verifies(ledger: Ledger) -> None:
    retention.prune(ledger.chain, now=later(401))
    ledger.sign()
    lines = exports.export(actor=SYSTEM, query={"tenant_id": ledger.tenant.id}, form="jsonl", proven=True)
    report = verify_export.verify(lines, [signing.public_key()], complete=True)
    assert (report.verdict, report.events) == ("ok", 2)


def test_nothing_goes_before_an_anchor_has_it(acme: Tenant, anchor_folder: Path) -> None:
    ledger = Ledger.of(acme, 6, signed=True)
    assert retention.plan(ledger.chain, later(401)).refusal == "no checkpoint of it is anchored outside the database"
    assert retention.prune(ledger.chain, now=later(401)) == 0
    assert left(ledger) == [1, 2, 3, 4, 5, 6]


def test_batches_leave_nothing_behind(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 4)
    assert retention.prune(ledger.chain, now=later(401)) == 6
    assert PruneRecord.objects.count() == 2
    assert verify(ledger).verdict == Verdict.OK


def test_a_forged_record_is_none(ledger: Ledger) -> None:
    """Whoever writes the tables can add a record and a range and delete; the signature is what is missing."""
    retention.prune(ledger.chain, now=later(401))
    note = PruneRecord.objects.values_list("note", flat=True).get()
    intruder.run(
        "INSERT INTO audit_prunerecord (id, chain, note, key_id, events, at) SELECT 99, chain, %s, key_id, 1, at"
        " FROM audit_prunerecord",
        note.replace("range 1 6", "range 1 8"),
    )
    intruder.run(
        "INSERT INTO audit_prunerange (id, record_id, chain, first, last) VALUES (99, 99, %s, 8, 8)", ledger.chain
    )
    intruder.run("DELETE FROM audit_event WHERE id = %s", ledger.event_id(8))

    found = {(str(one.verdict), one.seq) for one in verify(ledger).findings}
    assert found == {("bad_signature", 0), ("pruned_without_record", 8)}


def test_a_record_of_another_chain_is_none_for_this_one(ledger: Ledger, evil_corp: Tenant) -> None:
    theirs = Ledger.of(evil_corp, 3, signed=True)
    retention.prune(ledger.chain, now=later(401))
    intruder.run("UPDATE audit_prunerecord SET chain = %s", theirs.chain)
    intruder.run("DELETE FROM audit_event WHERE id = %s", theirs.event_id(2))

    found = {(str(one.verdict), one.seq) for one in verify(theirs).findings}
    assert found == {("bad_signature", 0), ("missing", 2)}


def test_a_record_that_is_gone(ledger: Ledger) -> None:
    retention.prune(ledger.chain, now=later(401))
    intruder.run("DELETE FROM audit_prunerange")
    intruder.run("DELETE FROM audit_prunerecord")
    assert [(str(one.verdict), one.seq) for one in verify(ledger).findings] == [("missing", seq) for seq in range(1, 7)]


def test_the_command_only_shows_without_now(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    old = clock.now() - timedelta(days=500)
    intruder.run("UPDATE audit_event SET received_at = %s", old)
    call_command("audit_prune", "--tenant", "acme")
    assert capsys.readouterr().out.splitlines()[1].split() == [ledger.chain, "400/800", "6", "-"]
    assert left(ledger) == [1, 2, 3, 4, 5, 6, 7, 8]

    call_command("audit_prune", "--tenant", "acme", "--now")
    assert capsys.readouterr().out == f"{ledger.chain}: 6 events dropped\n"
    assert left(ledger) == [7, 8]


def test_operators_set_the_retention_of_a_tenant(ledger: Ledger) -> None:
    retention.set_retention(actor=OPERATOR, tenant_id=ledger.tenant.id, retention_days=30)
    assert retention.prune(ledger.chain, now=later(31)) == 6
    event = Event.objects.get(code="audit.policy_changed")
    assert event.details == {"before": {"retention_days": 400}, "after": {"retention_days": 30}}


@pytest.mark.parametrize("days", [{"retention_days": 29}, {"denied_retention_days": 36_501}, {"legal_hold": 30}])
def test_no_other_retention_is_taken(ledger: Ledger, days: dict[str, int]) -> None:
    with pytest.raises(InvalidInput):
        retention.set_retention(actor=OPERATOR, tenant_id=ledger.tenant.id, **days)
    assert not LedgerPolicy.objects.exists()
    assert not Event.objects.filter(code="audit.policy_changed").exists()


def test_a_tenant_does_not_set_its_own(ledger: Ledger, alice: Person) -> None:
    with pytest.raises(Forbidden):
        retention.set_retention(actor=alice.actor, tenant_id=ledger.tenant.id, retention_days=30)
    assert not LedgerPolicy.objects.exists()
