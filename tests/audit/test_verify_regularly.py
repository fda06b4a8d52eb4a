"""The worker verifies on its own: what is new each hour, everything once a day."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from audit.models import Chain
from audit.verification import regular
from tests.audit import intruder
from tests.audit.ledgers import Ledger

if TYPE_CHECKING:
    from pathlib import Path

    from tenants.models import Tenant

pytestmark = pytest.mark.django_db(transaction=True)
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
NIGHT = datetime(2026, 5, 1, regular.EVERYTHING_AT, tzinfo=UTC)


@pytest.fixture
def ledger(acme: Tenant, anchor_folder: Path) -> Ledger:
    """Return Acme's chain of four events, signed and once found good."""
    ledger = Ledger.of(acme, 4, signed=True)
    regular.look_again(NOON)
    assert badge(ledger) == ("ok", 4)
    return ledger


def badge(ledger: Ledger) -> tuple[str, int]:
    chain = Chain.objects.get(pk=ledger.chain)
    return chain.verified_as, chain.verified_size


def test_what_is_new_is_found_within_the_hour(ledger: Ledger) -> None:
    ledger.add(3)
    intruder.change("audit_event", ledger.event_id(6), "actor_name", "Mallory")
    regular.look_again(NOON)
    assert badge(ledger) == ("edited", 7)


def test_what_is_old_is_found_within_the_day(ledger: Ledger) -> None:
    intruder.change("audit_event", ledger.event_id(2), "actor_name", "Mallory")
    regular.look_again(NOON)
    assert badge(ledger) == ("ok", 4)
    regular.look_again(NIGHT)
    assert badge(ledger) == ("edited", 4)


def test_a_chain_that_was_bad_is_looked_at_from_its_beginning(ledger: Ledger) -> None:
    intruder.change("audit_event", ledger.event_id(2), "actor_name", "Mallory")
    regular.look_again(NIGHT)
    ledger.add(1)
    regular.look_again(NOON)
    # The alarm has a number too.
    assert badge(ledger) == ("edited", 6)
