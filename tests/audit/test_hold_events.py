"""A legal hold keeps everything of a tenant, whatever its retention says, until it is lifted."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from django.core.management import CommandError, call_command

from audit import anchors, retention
from audit.models import Event, LedgerPolicy
from corekit import clock
from corekit.errors import Forbidden, InvalidInput
from tests.audit.ledgers import Ledger
from tests.factories import OPERATOR

if TYPE_CHECKING:
    from pathlib import Path

    from tenants.models import Tenant
    from tests.people import Person

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def ledger(acme: Tenant, anchor_folder: Path) -> Ledger:
    """Return Acme's chain of four events, signed and anchored."""
    ledger = Ledger.of(acme, 4, signed=True)
    anchors.deliver_all()
    return ledger


def prune(ledger: Ledger) -> int:
    return retention.prune(ledger.chain, now=clock.now() + timedelta(days=1000))


def test_nothing_goes_under_hold(ledger: Ledger) -> None:
    retention.set_hold(actor=OPERATOR, tenant_id=ledger.tenant.id, note="Case 7")
    assert prune(ledger) == 0
    assert retention.plan(ledger.chain).refusal == "legal hold: Case 7"
    assert Event.objects.filter(pk__in=ledger.ids.values()).count() == 4


def test_it_goes_when_the_hold_is_lifted(ledger: Ledger) -> None:
    retention.set_hold(actor=OPERATOR, tenant_id=ledger.tenant.id, note="Case 7")
    retention.lift_hold(actor=OPERATOR, tenant_id=ledger.tenant.id)
    assert prune(ledger) == 4


def test_both_are_events_of_the_tenant(ledger: Ledger) -> None:
    retention.set_hold(actor=OPERATOR, tenant_id=ledger.tenant.id, note="Case 7")
    retention.set_hold(actor=OPERATOR, tenant_id=ledger.tenant.id, note="Case 7")
    retention.lift_hold(actor=OPERATOR, tenant_id=ledger.tenant.id)
    events = Event.objects.filter(code__startswith="audit.hold", tenant_id=ledger.tenant.id).order_by("at", "id")
    assert [(one.code, one.actor_name, one.details) for one in events] == [
        ("audit.hold_set", "Olga", {"note": "Case 7"}),
        ("audit.hold_lifted", "Olga", {}),
    ]


@pytest.mark.parametrize("note", ["", "  ", "x" * 501])
def test_a_hold_says_what_it_is_for(ledger: Ledger, note: str) -> None:
    with pytest.raises(InvalidInput):
        retention.set_hold(actor=OPERATOR, tenant_id=ledger.tenant.id, note=note)
    assert not LedgerPolicy.objects.exists()


def test_a_tenant_neither_sets_nor_lifts_it(ledger: Ledger, alice: Person) -> None:
    retention.set_hold(actor=OPERATOR, tenant_id=ledger.tenant.id, note="Case 7")
    with pytest.raises(Forbidden):
        retention.lift_hold(actor=alice.actor, tenant_id=ledger.tenant.id)
    with pytest.raises(Forbidden):
        retention.set_hold(actor=alice.actor, tenant_id=ledger.tenant.id, note="mine")
    assert retention.policy_of(ledger.chain).hold_note == "Case 7"


def test_the_command_sets_and_lifts_it(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("audit_prune", "--tenant", "acme", "--hold", "Case 7")
    assert "legal hold: Case 7" in capsys.readouterr().out
    call_command("audit_prune", "--tenant", "acme", "--lift-hold")
    assert "legal hold" not in capsys.readouterr().out


def test_the_command_needs_the_tenant_for_it(ledger: Ledger) -> None:
    with pytest.raises(CommandError, match="Name the tenant"):
        call_command("audit_prune", "--hold", "Case 7")
    assert not LedgerPolicy.objects.exists()
