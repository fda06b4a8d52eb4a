"""Checkpoints reach the places outside the database: in order, each at least once, and what is there stays."""

from __future__ import annotations

import base64
import dataclasses
import ipaddress
import json
from typing import TYPE_CHECKING, Any, cast

import pytest

from audit import anchors, checkpoints, recording, sealing
from audit.models import AnchorPosition, Chain, Checkpoint, Event
from corekit.actor import SYSTEM
from tests.audit import receivers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, settings: Any) -> Path:
    """Where the anchor `directory` writes during the test."""
    found = tmp_path / "anchors"
    found.mkdir()
    settings.GATEHOUSE = dataclasses.replace(settings.GATEHOUSE, anchor_folder=found)
    return found


@pytest.fixture
def receiver(settings: Any) -> Iterator[receivers.Receiver]:
    """Somebody else's server, the only anchor of the test."""
    with receivers.running(receivers.Receiver()) as found:
        settings.GATEHOUSE = dataclasses.replace(
            settings.GATEHOUSE,
            anchors=("webhook",),
            anchor_webhook=found.url,
            webhook_networks=(ipaddress.ip_network("127.0.0.0/8"),),
        )
        yield found


def _sign(count: int = 1) -> list[Checkpoint]:
    """Make checkpoints of the platform's chain, each over one more event."""
    for _ in range(count):
        recording.record("audit.read", actor=SYSTEM, object_type="audit", object_id="all", tenant_id=None)
        sealing.seal()
        Chain.objects.update(checkpoint_at=None)
        checkpoints.sign_due()
    return cast("list[Checkpoint]", list(Checkpoint.objects.order_by("pk")))


def _lines(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / "platform.jsonl").read_text().splitlines()]


def _failures() -> list[str]:
    return [str(event.details["error"]) for event in Event.objects.filter(code="audit.anchor_failed").order_by("id")]


def _deliver_all_again() -> None:
    AnchorPosition.objects.update(checkpoint_id=0)
    anchors.deliver_all()


def test_each_checkpoint_is_a_line_with_its_hashes(folder: Path) -> None:
    made = _sign(2)

    assert anchors.deliver_all() == 2

    assert [line["note"] for line in _lines(folder)] == [one.note for one in made]
    assert [base64.b64decode(line["leaves"]) for line in _lines(folder)] == [bytes(one.leaves) for one in made]
    position = AnchorPosition.objects.get()
    assert (position.name, position.checkpoint_id, position.error) == ("directory", made[-1].pk, "")
    assert position.delivered_at is not None


def test_what_was_delivered_is_not_delivered_again(folder: Path) -> None:
    _sign()
    anchors.deliver_all()
    before = (folder / "platform.jsonl").read_bytes()

    assert anchors.deliver_all() == 0
    _sign()
    assert anchors.deliver_all() == 1

    assert (folder / "platform.jsonl").read_bytes().startswith(before)


def test_a_writer_that_was_killed_before_it_said_so_leaves_no_second_line(folder: Path) -> None:
    _sign()
    anchors.deliver_all()
    _deliver_all_again()
    assert len(_lines(folder)) == 1


@pytest.mark.parametrize("kept", [1, 20, -1])
def test_a_line_that_was_cut_off_is_written_to_its_end(folder: Path, kept: int) -> None:
    _sign(2)
    anchors.deliver_all()
    path = folder / "platform.jsonl"
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    path.write_bytes(whole[:first] + whole[first:][:kept])
    AnchorPosition.objects.update(checkpoint_id=Checkpoint.objects.order_by("pk").values_list("pk", flat=True)[0])

    anchors.deliver_all()

    assert path.read_bytes() == whole


def test_what_somebody_else_wrote_stays_and_is_closed_by_a_line_end(folder: Path) -> None:
    (folder / "platform.jsonl").write_bytes(b"not ours")
    (made,) = _sign()
    anchors.deliver_all()
    kept, line = (folder / "platform.jsonl").read_text().splitlines()
    assert (kept, json.loads(line)["note"]) == ("not ours", made.note)


def test_a_folder_that_is_gone_is_told_once_and_tried_until_it_is_back(folder: Path) -> None:
    made = _sign(2)
    folder.rename(folder.with_name("away"))
    assert anchors.deliver_all() == 0
    assert anchors.deliver_all() == 0
    error = f"{folder} can't be written: No such file or directory."
    assert _failures() == [error]
    assert AnchorPosition.objects.get().error == error

    folder.with_name("away").rename(folder)
    assert anchors.deliver_all() == 2
    assert AnchorPosition.objects.get().error == ""
    assert len(_lines(folder)) == len(made)

    folder.rename(folder.with_name("away"))
    _sign()
    anchors.deliver_all()
    assert _failures() == [error, error]


def test_a_link_in_place_of_the_file_is_not_followed(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.touch()
    (folder / "platform.jsonl").symlink_to(target)
    _sign()
    assert anchors.deliver_all() == 0
    assert target.read_bytes() == b""


def test_a_webhook_gets_each_checkpoint_in_order(receiver: receivers.Receiver, folder: Path) -> None:
    made = _sign(2)

    assert anchors.deliver_all() == 2

    assert [json.loads(message.body)["note"] for message in receiver.messages] == [one.note for one in made]
    assert [
        {name.lower(): value for name, value in one.headers.items()}["webhook-id"] for one in receiver.messages
    ] == [
        "platform-1",
        "platform-2",
    ]
    assert list(folder.iterdir()) == []


def test_a_webhook_that_refuses_gets_the_same_checkpoint_again(receiver: receivers.Receiver) -> None:
    _sign(2)
    receiver.status = 503
    assert anchors.deliver_all() == 0
    assert _failures() == ["the host answered 503"]

    receiver.status = 200
    assert anchors.deliver_all() == 2
    assert [json.loads(one.body)["note"] for one in receiver.messages][:2] == [
        json.loads(receiver.messages[0].body)["note"]
    ] * 2


def test_a_failing_anchor_holds_no_other_one_up(folder: Path, receiver: receivers.Receiver, settings: Any) -> None:
    settings.GATEHOUSE = dataclasses.replace(settings.GATEHOUSE, anchors=("webhook", "directory"))
    receiver.status = 500
    _sign(2)
    assert anchors.deliver_all() == 2
    assert len(_lines(folder)) == 2
    assert dict(AnchorPosition.objects.values_list("name", "error")) == {
        "directory": "",
        "webhook": "the host answered 500",
    }


def test_without_anchors_nothing_is_written(folder: Path, settings: Any) -> None:
    settings.GATEHOUSE = dataclasses.replace(settings.GATEHOUSE, anchors=())
    _sign()
    assert anchors.deliver_all() == 0
    assert list(folder.iterdir()) == []
