"""Whoever has all rights on the database can change any row. Each way of doing so has its own verdict, with the row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.models import Event
from audit.verification.findings import Verdict
from tests.audit import intruder
from tests.audit.ledgers import Ledger, verify

if TYPE_CHECKING:
    from pathlib import Path

    from tenants.models import Tenant

pytestmark = pytest.mark.django_db(transaction=True)
EVENTS = 12
COLUMNS = [field.column for field in Event._meta.concrete_fields if field.column != "id"]


@pytest.fixture(params=["signed", "not signed yet"])
def ledger(request: pytest.FixtureRequest, acme: Tenant) -> Ledger:
    """Return Acme's chain of twelve events, under a checkpoint or not."""
    return Ledger.of(acme, EVENTS, signed=request.param == "signed")


@pytest.fixture
def signed(acme: Tenant) -> Ledger:
    """Return Acme's chain of twelve events under two checkpoints, of 8 and of 12."""
    ledger = Ledger.of(acme, 8, signed=True)
    ledger.add(4)
    ledger.sign()
    return ledger


def first_bad(ledger: Ledger, anchors: Path | None = None) -> tuple[str, int, str]:
    report = verify(ledger, anchors=anchors)
    first = report.first
    assert first is not None
    return str(report.verdict), first.seq, first.event_id


def test_an_untouched_chain_is_as_it_was_signed(ledger: Ledger) -> None:
    report = verify(ledger)
    assert (report.verdict, report.checked, report.findings) == (Verdict.OK, EVENTS, [])


@pytest.mark.parametrize("seq", [1, 6, EVENTS])
def test_an_edited_event(ledger: Ledger, seq: int) -> None:
    intruder.change("audit_event", ledger.event_id(seq), "actor_name", "Mallory")

    report = verify(ledger)

    assert report.first is not None
    assert (report.verdict, report.first.seq) == (Verdict.EDITED, seq)
    assert report.first.event_id == ledger.event_id(seq)
    assert report.first.expected == ledger.hash_of(seq)
    assert len(report.first.found) == 64
    assert report.first.found != ledger.hash_of(seq)


@pytest.mark.parametrize("column", COLUMNS)
def test_one_changed_byte_in_any_column(ledger: Ledger, column: str) -> None:
    intruder.flip_byte(ledger.event_id(5), column)
    assert first_bad(ledger) == ("edited", 5, ledger.event_id(5))


def test_an_event_under_another_id(ledger: Ledger) -> None:
    other = "f" * 32
    intruder.run("UPDATE audit_event SET id = %s WHERE id = %s", other, ledger.event_id(5))
    intruder.run("UPDATE audit_seal SET event_id = %s WHERE event_id = %s", other, ledger.event_id(5))
    assert first_bad(ledger) == ("edited", 5, other)


@pytest.mark.parametrize("seq", [1, 6, EVENTS])
def test_a_deleted_event(ledger: Ledger, seq: int) -> None:
    intruder.run("DELETE FROM audit_event WHERE id = %s", ledger.event_id(seq))
    assert first_bad(ledger) == ("missing", seq, ledger.event_id(seq))


@pytest.mark.parametrize("seq", [1, 6])
def test_an_event_deleted_with_its_seal(ledger: Ledger, seq: int) -> None:
    intruder.erase(ledger.event_id(seq))
    assert first_bad(ledger) == ("missing", seq, "")


def test_the_last_event_deleted_with_its_seal(ledger: Ledger) -> None:
    intruder.erase(ledger.event_id(EVENTS))
    assert first_bad(ledger) == ("tail_cut", EVENTS, "")


def test_a_cut_tail(ledger: Ledger) -> None:
    for seq in range(10, EVENTS + 1):
        intruder.erase(ledger.event_id(seq))
    assert first_bad(ledger) == ("tail_cut", 10, "")


def test_a_cut_tail_with_a_lowered_head(signed: Ledger) -> None:
    intruder.cut(signed, keep=10)
    assert first_bad(signed) == ("tail_cut", 11, "")


def test_a_cut_tail_with_checkpoints_and_head_gone_too(signed: Ledger, tmp_path: Path) -> None:
    """Only the anchor outside the database still knows."""
    anchors = signed.anchor(tmp_path / "anchors")
    intruder.cut(signed, keep=8)
    intruder.run("DELETE FROM audit_checkpoint WHERE size > 8")

    assert verify(signed).verdict == Verdict.OK
    assert first_bad(signed, anchors) == ("tail_cut", 9, "")


def test_a_whole_chain_that_is_gone(signed: Ledger, tmp_path: Path) -> None:
    anchors = signed.anchor(tmp_path / "anchors")
    intruder.cut(signed, keep=0)
    intruder.run("DELETE FROM audit_checkpoint WHERE chain = %s", signed.chain)
    intruder.run("DELETE FROM audit_chain WHERE name = %s", signed.chain)

    report = verify(signed, anchors=anchors, everything=True)
    assert report.first is not None
    assert (report.verdict, report.first.seq) == (Verdict.TAIL_CUT, 1)


@pytest.mark.parametrize(("one", "other"), [(3, 7), (3, 4), (1, EVENTS)])
@pytest.mark.parametrize("how", ["numbers", "events", "contents"])
def test_two_swapped_rows(ledger: Ledger, how: str, one: int, other: int) -> None:
    intruder.swap(ledger, how, one, other)
    verdict, seq, _ = first_bad(ledger)
    assert (verdict, seq) == ("reordered", one)


def test_an_event_put_in_without_a_number(ledger: Ledger) -> None:
    intruder.copy_event(ledger.event_id(5), "f" * 32, actor_name="Mallory")
    report = verify(ledger, everything=True)
    assert [(str(one.verdict), one.event_id) for one in report.loose] == [("inserted", "f" * 32)]


def test_a_copy_of_an_event(ledger: Ledger) -> None:
    intruder.copy_event(ledger.event_id(5), "f" * 32)
    report = verify(ledger, everything=True)
    assert [(str(one.verdict), one.event_id) for one in report.loose] == [("duplicated", "f" * 32)]


def test_a_copy_of_an_event_with_a_number(signed: Ledger) -> None:
    intruder.copy_event(signed.event_id(5), "f" * 32)
    intruder.make_room(signed, 6)
    intruder.seal(signed, 6, "f" * 32, signed.hash_of(5))
    assert first_bad(signed) == ("duplicated", 6, "f" * 32)


def test_an_event_put_in_between(signed: Ledger) -> None:
    intruder.copy_event(signed.event_id(5), "f" * 32, actor_name="Mallory")
    intruder.make_room(signed, 6)
    intruder.seal(signed, 6, "f" * 32, "ab" * 32)
    assert first_bad(signed) == ("inserted", 6, "f" * 32)


def test_an_event_put_behind_the_end(ledger: Ledger) -> None:
    intruder.copy_event(ledger.event_id(5), "f" * 32, actor_name="Mallory")
    intruder.seal(ledger, EVENTS + 1, "f" * 32, "ab" * 32)
    verdict, seq, _ = first_bad(ledger)
    assert (verdict, seq) == ("inserted", EVENTS + 1)


@pytest.mark.parametrize("first", [1, 5, EVENTS])
def test_a_rewritten_chain_under_old_checkpoints(signed: Ledger, first: int) -> None:
    intruder.change("audit_event", signed.event_id(first), "actor_name", "Mallory")
    intruder.chain_again(signed, first)

    report = verify(signed)

    assert report.first is not None
    assert (report.verdict, report.first.seq, report.first.event_id) == (
        *(Verdict.REWRITTEN, first),
        signed.event_id(first),
    )
    assert report.first.expected == signed.hash_of(first)
    assert report.good_checkpoint == (8 if first > 8 else 0)


def test_a_rewritten_chain_whose_checkpoints_were_made_to_fit(signed: Ledger, tmp_path: Path) -> None:
    """Roots and hashes beside the notes can be changed; the notes can't, and the anchor has the hashes too."""
    anchors = signed.anchor(tmp_path / "anchors")
    intruder.change("audit_event", signed.event_id(5), "actor_name", "Mallory")
    intruder.chain_again(signed, 5)
    intruder.run("UPDATE audit_checkpoint SET leaves = %s WHERE chain = %s", b"", signed.chain)

    assert first_bad(signed)[:2] == ("rewritten", 1)
    assert first_bad(signed, anchors) == ("rewritten", 5, signed.event_id(5))


def test_a_chain_without_one_event_closed_up_again(signed: Ledger) -> None:
    intruder.erase(signed.event_id(5))
    intruder.run("UPDATE audit_seal SET seq = -seq WHERE chain = %s AND seq > 5", signed.chain)
    intruder.run("UPDATE audit_seal SET seq = -seq - 1 WHERE chain = %s AND seq < 0", signed.chain)
    assert first_bad(signed)[:2] == ("missing", 5)


@pytest.mark.parametrize("column", ["size", "root", "leaves"])
def test_an_edited_checkpoint(signed: Ledger, column: str) -> None:
    value = {"size": 9, "root": "ab" * 32, "leaves": bytes(32 * 8)}[column]
    intruder.run(f"UPDATE audit_checkpoint SET {column} = %s WHERE chain = %s AND size = 8", value, signed.chain)  # noqa: S608
    assert first_bad(signed)[:2] == ("checkpoint_edited", 8)


def test_a_checkpoint_with_another_text(signed: Ledger) -> None:
    intruder.run("UPDATE audit_checkpoint SET note = replace(note, 'time 2', 'time 1') WHERE size = 12")
    assert first_bad(signed)[:2] == ("bad_signature", 12)


def test_a_checkpoint_of_another_key(signed: Ledger) -> None:
    other = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    report = verify(signed, keys=[other])
    assert report.first is not None
    assert (report.verdict, report.first.seq) == (Verdict.BAD_SIGNATURE, 8)


def test_a_lost_checkpoint(signed: Ledger, tmp_path: Path) -> None:
    anchors = signed.anchor(tmp_path / "anchors")
    intruder.run("DELETE FROM audit_checkpoint WHERE size = 8")
    assert first_bad(signed)[:2] == ("checkpoint_missing", 12)
    assert first_bad(signed, anchors)[:2] == ("checkpoint_missing", 8)


def test_an_anchor_that_lost_a_line(signed: Ledger, tmp_path: Path) -> None:
    anchors = signed.anchor(tmp_path / "anchors")
    file = anchors / f"{signed.chain}.jsonl"
    file.write_text(file.read_text().split("\n", 1)[1])
    assert first_bad(signed, anchors)[:2] == ("unanchored", 8)


def test_an_anchor_with_another_text(signed: Ledger, tmp_path: Path) -> None:
    anchors = signed.anchor(tmp_path / "anchors")
    file = anchors / f"{signed.chain}.jsonl"
    file.write_text(file.read_text().replace("time 2", "time 1", 1))
    assert first_bad(signed, anchors)[0] == "bad_signature"


def test_a_head_that_was_changed(ledger: Ledger) -> None:
    intruder.run("UPDATE audit_chain SET head = %s WHERE name = %s", "ab" * 32, ledger.chain)
    assert first_bad(ledger)[:2] == ("edited", EVENTS)


def test_a_head_that_was_set_back(ledger: Ledger) -> None:
    intruder.run("UPDATE audit_chain SET size = 10 WHERE name = %s", ledger.chain)
    assert first_bad(ledger)[:2] == ("inserted", 11)


def test_a_head_that_is_gone(ledger: Ledger) -> None:
    intruder.run("DELETE FROM audit_chain WHERE name = %s", ledger.chain)
    assert first_bad(ledger)[:2] == ("missing", EVENTS)


def test_a_seal_that_is_gone(ledger: Ledger) -> None:
    intruder.run("DELETE FROM audit_seal WHERE event_id = %s", ledger.event_id(5))
    report = verify(ledger, everything=True)
    assert first_bad(ledger) == ("missing", 5, ledger.event_id(5))
    assert report.loose == []


def test_a_seal_that_was_changed(signed: Ledger) -> None:
    intruder.run("UPDATE audit_seal SET hash = %s WHERE event_id = %s", "ab" * 32, signed.event_id(5))
    assert first_bad(signed) == ("edited", 5, signed.event_id(5))


def test_a_seal_with_an_impossible_number(ledger: Ledger) -> None:
    intruder.run("UPDATE audit_seal SET seq = 9000000000000000000 WHERE event_id = %s", ledger.event_id(EVENTS))
    verdicts = {(str(one.verdict), one.seq) for one in verify(ledger).findings}
    assert verdicts == {("tail_cut", EVENTS), ("inserted", 0)}


def test_an_event_that_vanished_before_it_had_a_number(ledger: Ledger) -> None:
    intruder.run("INSERT INTO audit_unsealed (event_id) VALUES (%s)", "f" * 32)
    report = verify(ledger, everything=True)
    assert [(str(one.verdict), one.event_id) for one in report.loose] == [("missing", "f" * 32)]
