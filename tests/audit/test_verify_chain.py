"""`manage.py audit_verify`: what it prints, its status, and that it bears any state of the tables."""

from __future__ import annotations

import dataclasses
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection

from audit import signing
from audit.models import Chain, Event
from audit.recording import record
from audit.verification import parallel
from audit.verification.findings import Verdict
from corekit.actor import SYSTEM
from tests.audit import intruder
from tests.audit.ledgers import Ledger, verify

if TYPE_CHECKING:
    from pathlib import Path

    from tenants.models import Tenant

pytestmark = pytest.mark.django_db(transaction=True)
SQLITE = connection.vendor == "sqlite"


@pytest.fixture
def ledger(acme: Tenant) -> Ledger:
    """Return Acme's chain of six events, signed."""
    return Ledger.of(acme, 6, signed=True)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Return status and output of the command."""
    try:
        call_command("audit_verify", *arguments)
        status = 0
    except SystemExit as error:
        status = int(error.code or 0)
    except CommandError as error:
        return error.returncode, str(error)
    return status, capsys.readouterr().out


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    status, text = run(capsys, "--json", *arguments)
    found: dict[str, Any] = json.loads(text)
    return status, found


def test_an_untouched_ledger_ends_with_0(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    status, text = run(capsys)
    assert status == 0
    assert f"{ledger.chain}  ok  6 events, 6 checked, 0 pruned, last checkpoint that holds: 6" in text
    assert text.splitlines()[-1].startswith("ok: ")


def test_an_edit_ends_with_1_and_names_the_row(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    intruder.change("audit_event", ledger.event_id(4), "actor_name", "Mallory")
    status, text = run(capsys, "--tenant", "acme")
    assert status == 1
    assert f"edited  number 4, event {ledger.event_id(4)}: the event was changed" in text
    assert f"expected {ledger.hash_of(4)}" in text
    assert "last checkpoint that holds: none" in text


def test_a_missing_event_ends_with_2(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    intruder.run("DELETE FROM audit_event WHERE id = %s", ledger.event_id(4))
    status, found = said(capsys, "--chain", ledger.chain)
    assert (status, found["verdict"]) == (2, "missing")
    assert found["chains"][0]["first_bad"] == {
        "verdict": "missing",
        "seq": 4,
        "event_id": ledger.event_id(4),
        "expected": ledger.hash_of(4),
        "found": ledger.hash_of(4),
        "note": "the event is gone, its seal is there",
    }


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--tenant", "nobody"], "There is no tenant nobody"),
        (["--tenant", "acme", "--chain", "platform"], "not both"),
        (["--key", "xyz"], "The public key can't be read"),
        (["--key", "abcd"], "A public key is 32 bytes"),
        (["--checkpoint", "/nowhere/at/all"], "No such file"),
    ],
)
def test_what_cannot_be_checked_as_asked_ends_with_3(
    ledger: Ledger, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    status, text = run(capsys, *arguments)
    assert status == 3
    assert sentence in text


def test_without_any_key_it_does_not_say_that_all_is_well(
    ledger: Ledger, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "GATEHOUSE", dataclasses.replace(settings.GATEHOUSE, ledger_key_text=None))
    status, text = run(capsys)
    assert status == 3
    assert "There is no public key" in text


def test_another_key_is_not_believed(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    other = Ed25519PrivateKey.generate().public_key().public_bytes_raw().hex()
    assert said(capsys, "--key", other)[1]["verdict"] == "bad_signature"
    assert said(capsys, "--key", other, "--key", signing.public_key().hex())[0] == 0


def test_one_note_that_somebody_kept_is_enough(
    ledger: Ledger, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    note = tmp_path / "note"
    note.write_text(intruder.read("SELECT note FROM audit_checkpoint WHERE chain = %s", ledger.chain))
    intruder.cut(ledger, keep=4)
    intruder.run("DELETE FROM audit_checkpoint WHERE chain = %s", ledger.chain)
    intruder.run("UPDATE audit_chain SET checkpoint_size = 0 WHERE name = %s", ledger.chain)
    assert said(capsys, "--chain", ledger.chain)[0] == 0
    status, found = said(capsys, "--chain", ledger.chain, "--checkpoint", str(note))
    assert (status, found["chains"][0]["first_bad"]["seq"]) == (2, 5)


def test_a_part_of_a_chain(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    intruder.change("audit_event", ledger.event_id(2), "actor_name", "Mallory")
    assert said(capsys, "--chain", ledger.chain, "--from", "3", "--to", "5")[1]["checked"] == 3
    assert said(capsys, "--chain", ledger.chain, "--from", "3")[0] == 0
    assert said(capsys, "--chain", ledger.chain, "--to", "5")[0] == 1


def test_the_result_is_noted_beside_the_chain(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys)
    chain = Chain.objects.get(pk=ledger.chain)
    assert (chain.verified_as, chain.verified_size) == ("ok", 6)
    assert chain.verified_at is not None


def test_a_bad_result_is_an_event_once(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    intruder.change("audit_event", ledger.event_id(4), "actor_name", "Mallory")
    run(capsys)
    run(capsys)
    assert Chain.objects.get(pk=ledger.chain).verified_as == "edited"
    event = Event.objects.get(code="audit.verification_failed")
    assert event.tenant_id == ledger.tenant.id
    assert event.details == {"verdict": "edited", "seq": 4, "event": ledger.event_id(4), "checkpoint": 0}


def test_events_may_be_added_meanwhile(ledger: Ledger) -> None:
    stop = threading.Event()

    def add() -> None:
        while not stop.is_set():
            ledger.add(1)
        connection.close()

    adding = threading.Thread(target=add)
    adding.start()
    try:
        verdicts = {verify(ledger, everything=True).verdict for _ in range(20)}
    finally:
        stop.set()
        adding.join()
    assert verdicts == {Verdict.OK}


def test_several_processes_find_the_same(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger.add(20)
    ledger.sign()
    monkeypatch.setattr(parallel, "WORTH_IT", 1)
    monkeypatch.setattr(parallel, "STRETCH", 4)
    assert verify(ledger, jobs=2).verdict == Verdict.OK

    intruder.change("audit_event", ledger.event_id(9), "actor_name", "Mallory")
    intruder.erase(ledger.event_id(16))
    intruder.erase(ledger.event_id(17))

    alone, together = verify(ledger, jobs=1), verify(ledger, jobs=2)
    assert together.findings == alone.findings
    assert [(str(one.verdict), one.seq) for one in alone.findings] == [("edited", 9), ("missing", 16), ("missing", 17)]


GARBAGE = [
    ("audit_event", "details", "{not json"),
    ("audit_event", "details", "[" * 100_000),
    ("audit_event", "details", '{"x": NaN}'),
    ("audit_event", "at", "yesterday"),
    ("audit_event", "tenant_id", "nobody"),
    ("audit_event", "risk_score", "high"),
    ("audit_event", "duration_ms", "long"),
    ("audit_event", "actor_name", b"\xff\xfe"),
    ("audit_event", "origin", "::nowhere"),
    ("audit_seal", "hash", "short"),
    ("audit_seal", "hash", b"\x00\xff"),
    ("audit_seal", "seq", "five"),
    ("audit_seal", "seq", -5),
    ("audit_seal", "seq", 0),
    ("audit_seal", "seq", 0.4),
    ("audit_seal", "event_id", "nothing"),
    ("audit_seal", "chain", "nobody's"),
    ("audit_chain", "size", "many"),
    ("audit_chain", "size", 2**62),
    ("audit_chain", "size", -1),
    ("audit_chain", "head", "x"),
    ("audit_chain", "name", "nobody's"),
    ("audit_checkpoint", "note", "no note"),
    ("audit_checkpoint", "note", "\n\n\N{EM DASH} x !!!\n"),
    ("audit_checkpoint", "size", "many"),
    ("audit_checkpoint", "leaves", "text"),
    ("audit_checkpoint", "leaves", b"\x00"),
    ("audit_checkpoint", "chain", "nobody's"),
]


@pytest.mark.parametrize(("table", "column", "value"), GARBAGE, ids=lambda value: str(value)[:12])
def test_garbage_in_a_column_gets_a_verdict(
    ledger: Ledger, capsys: pytest.CaptureFixture[str], table: str, column: str, value: object
) -> None:
    key = {"audit_event": "id", "audit_seal": "event_id"}.get(table)
    where = (
        f"{key} = '{ledger.event_id(3)}'"
        if key
        else f"{'name' if table == 'audit_chain' else 'chain'} = '{ledger.chain}'"
    )
    before = intruder.read(f"SELECT {column} FROM {table} WHERE {where}")  # noqa: S608
    if not intruder.force(f"UPDATE {table} SET {column} = %s WHERE {where}", value):  # noqa: S608
        # PostgreSQL's types refuse what SQLite takes.
        assert not SQLITE
        assert intruder.read(f"SELECT {column} FROM {table} WHERE {where}") == before  # noqa: S608
        return
    status, _ = said(capsys)
    assert status in {1, 2}


@pytest.mark.parametrize(
    "table",
    [
        "audit_event",
        "audit_seal",
        "audit_chain",
        "audit_checkpoint",
        "audit_unsealed",
        "audit_prunerecord",
        "audit_prunerange",
    ],
)
def test_a_table_that_is_gone_gets_a_verdict(ledger: Ledger, capsys: pytest.CaptureFixture[str], table: str) -> None:
    with intruder.without_table(table):
        status, _ = said(capsys, "--no-anchors")
    assert status in {1, 2}


@pytest.mark.parametrize("table", ["audit_event", "audit_seal", "audit_chain", "audit_checkpoint"])
def test_a_table_that_is_empty_gets_a_verdict(ledger: Ledger, capsys: pytest.CaptureFixture[str], table: str) -> None:
    intruder.run(f"DELETE FROM {table}")  # noqa: S608
    status, _ = said(capsys, "--no-anchors")
    assert status in {1, 2}


def test_waiting_events_are_counted_and_are_no_fault(ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> None:
    record("tenant.suspended", actor=SYSTEM, object_type="tenant", object_id="t", tenant_id=ledger.tenant.id)
    status, found = said(capsys)
    assert (status, found["waiting"]) == (0, 1)
