"""What the ledger holds is signed again and again, so that nobody can change it later without being seen."""

from __future__ import annotations

import base64
import dataclasses
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.db import connection
from django.db.models import F

from audit import appendonly, checkpoints, merkle, recording, sealing, signing
from audit.models import Chain, Checkpoint, Seal, SigningKey
from corekit.actor import SYSTEM

if TYPE_CHECKING:
    from tenants.models import Tenant

pytestmark = pytest.mark.django_db

STRANGER = bytes(32)


def _record(count: int) -> None:
    for _ in range(count):
        recording.record("audit.read", actor=SYSTEM, object_type="audit", object_id="all", tenant_id=None)


def _seal(count: int) -> None:
    _record(count)
    sealing.seal()


def _checkpoints(chain: str = "platform") -> list[Checkpoint]:
    return cast("list[Checkpoint]", list(Checkpoint.objects.filter(chain=chain).order_by("size")))


def _leaves(chain: str = "platform") -> list[bytes]:
    return [
        bytes.fromhex(one) for one in Seal.objects.filter(chain=chain).order_by("seq").values_list("hash", flat=True)
    ]


def _read(checkpoint: Checkpoint) -> checkpoints.Said:
    said = checkpoints.read(checkpoint.note, [signing.public_key()])
    assert said is not None
    return said


def _wait(by: timedelta) -> None:
    """Let the last checkpoints be older by some time."""
    Chain.objects.exclude(checkpoint_at=None).update(checkpoint_at=F("checkpoint_at") - by)


@pytest.fixture
def without_key(settings: Any, tmp_path: Any) -> None:
    """Run as a process that can't read the key, as web does."""
    settings.GATEHOUSE = dataclasses.replace(settings.GATEHOUSE, ledger_key_text=None, home=tmp_path)


def test_a_chain_with_new_events_is_signed() -> None:
    _seal(3)

    assert checkpoints.sign_due() == 1

    (made,) = _checkpoints()
    root = merkle.root_of(_leaves())
    assert (made.size, made.root, made.key_id) == (3, root.hex(), signing.key_id(signing.public_key()))
    assert bytes(made.leaves) == b"".join(_leaves())
    assert _read(made)[:4] == ("platform", 3, root, "")
    chain = Chain.objects.get(pk="platform")
    assert (chain.checkpoint_size, chain.checkpoint_at) == (3, made.at)


def test_the_note_has_the_form_that_others_can_check() -> None:
    _seal(1)
    checkpoints.sign_due()
    (made,) = _checkpoints()

    text, _, signature = made.note.partition("\n\n")
    origin, size, root, time = text.split("\n")
    dash, signer, blob = signature.removesuffix("\n").split(" ")

    name = signing.key_id(signing.public_key())
    assert (origin, signer, dash) == (f"gatehouse/{name}/platform", f"gatehouse/{name}", "—")
    assert (size, base64.b64decode(root), time) == ("1", _leaves()[0], f"time {_read(made).at}")
    public = Ed25519PrivateKey.from_private_bytes(bytes.fromhex("5e" * 32)).public_key()
    public.verify(base64.b64decode(blob)[4:], f"{text}\n".encode())


def test_each_checkpoint_names_the_one_before_and_holds_the_hashes_since() -> None:
    _seal(2)
    checkpoints.sign_due()
    _wait(timedelta(seconds=60))
    _seal(3)
    checkpoints.sign_due()

    first, second = _checkpoints()
    assert _read(second)[:4] == ("platform", 5, merkle.root_of(_leaves()), checkpoints.note_hash(first.note))
    assert bytes(second.leaves) == b"".join(_leaves()[2:])


def test_new_events_wait_for_at_most_a_minute() -> None:
    _seal(1)
    checkpoints.sign_due()
    _seal(1)
    assert checkpoints.sign_due() == 0
    _wait(timedelta(seconds=60))
    assert checkpoints.sign_due() == 1
    assert checkpoints.sign_due() == 0
    assert [one.size for one in _checkpoints()] == [1, 2]


def test_many_new_events_do_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "EVERY", 5)
    monkeypatch.setitem(sealing.BATCH, connection.vendor, 2)
    _seal(13)
    assert [one.size for one in _checkpoints()] == [6, 12]


def test_each_chain_is_signed_on_its_own(acme: Tenant) -> None:
    _seal(2)
    assert checkpoints.sign_due() == 2
    assert _read(_checkpoints(acme.pk.hex)[0]).chain == acme.pk.hex


def test_the_public_key_is_kept_once() -> None:
    _seal(1)
    checkpoints.sign_due()
    _wait(timedelta(seconds=60))
    _seal(1)
    checkpoints.sign_due()
    public = signing.public_key()
    assert list(SigningKey.objects.values_list("id", "public_key")) == [(signing.key_id(public), public.hex())]


def test_a_new_key_signs_on_under_the_ledgers_name(settings: Any) -> None:
    _seal(1)
    checkpoints.sign_due()
    name, old = signing.installation_id(), signing.public_key()
    settings.GATEHOUSE = dataclasses.replace(settings.GATEHOUSE, ledger_key_text="7a" * 32)
    _wait(timedelta(seconds=60))
    _seal(1)
    checkpoints.sign_due()

    first, second = _checkpoints()
    assert signing.installation_id() == name
    assert checkpoints.read(first.note, [old]) is not None
    assert checkpoints.read(second.note, [old]) is None
    assert checkpoints.read(second.note, [old, signing.public_key()]) is not None


def test_a_chain_with_a_hole_is_not_vouched_for() -> None:
    _seal(3)
    appendonly.remove(connection)
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM audit_seal WHERE chain = 'platform' AND seq = 2")
    appendonly.install(connection)

    assert checkpoints.sign_due() == 0
    assert _checkpoints() == []


@pytest.mark.usefixtures("without_key")
def test_without_the_key_events_are_numbered_and_nothing_is_signed() -> None:
    _record(3)
    assert sealing.seal() == 3
    assert checkpoints.sign_due() == 0
    assert not Checkpoint.objects.exists()
    assert not SigningKey.objects.exists()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("\n3\n", "\n4\n"),
        ("/platform\n", "/other\n"),
        ("time 2", "time 3"),
        ("\n\n— ", "\nmore text\n\n— "),
        ("— gatehouse/", "— elsewhere/"),
        ("\n\n— ", "\n\n- "),
        ("=\n", "\n"),
    ],
)
def test_a_changed_note_is_not_believed(old: str, new: str) -> None:
    _seal(3)
    checkpoints.sign_due()
    note = _checkpoints()[0].note
    assert checkpoints.read(note, [signing.public_key()]) is not None
    assert old in note
    assert checkpoints.read(note.replace(old, new, 1), [signing.public_key()]) is None


def test_a_note_of_another_key_is_not_believed() -> None:
    _seal(1)
    checkpoints.sign_due()
    stranger = Ed25519PrivateKey.from_private_bytes(STRANGER).public_key().public_bytes_raw()
    assert checkpoints.read(_checkpoints()[0].note, [stranger]) is None
    assert checkpoints.read(_checkpoints()[0].note, []) is None


@pytest.mark.parametrize("note", ["", "\n\n", "text", "gatehouse/x/platform\n1\nroot\n\n— x !\n", "a\n\n—\n"])
def test_what_is_no_note_is_not_believed(note: str) -> None:
    assert checkpoints.read(note, [signing.public_key()]) is None


@pytest.mark.parametrize(
    "text",
    [
        "gatehouse/x/platform\nprune\n",
        "gatehouse/x/platform\n-1\n" + "A" * 43 + "=\n",
        "gatehouse/x/platform\n01\n" + "A" * 43 + "=\n",
        "gatehouse/x/platform\n1\nAAAA\n",
        "elsewhere/x/platform\n1\n" + "A" * 43 + "=\n",
    ],
)
def test_what_was_signed_but_is_no_checkpoint_is_not_read_as_one(text: str) -> None:
    note, _ = signing.sign_note(text)
    assert signing.open_note(note, [signing.public_key()]) == text
    assert checkpoints.read(note, [signing.public_key()]) is None
