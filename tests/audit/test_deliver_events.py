"""Sealed events reach webhooks: signed, once each, tried again with growing pauses, never at a private address."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import ipaddress
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.conf import settings as django_settings

from audit import deliveries, outbound, sealing, webhooks
from audit.models import Delivery, DeliveryState, Event, Seal, Webhook
from audit.recording import record
from corekit import clock
from tests.audit.receivers import Receiver, closing, dripping, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.people import Person

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _loopback_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    granted = dataclasses.replace(django_settings.GATEHOUSE, webhook_networks=(ipaddress.ip_network("127.0.0.0/8"),))
    monkeypatch.setattr(django_settings, "GATEHOUSE", granted)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Return a server that takes everything."""
    with running(Receiver()) as server:
        yield server


def happen(person: Person, code: str = "quota.set", **options: Any) -> Event:
    """Record and seal one event of a person's tenant."""
    event = record(code, actor=person.actor, object_type="tenant", object_id="x", tenant_id=person.tenant.pk, **options)
    sealing.seal()
    return event


def deliver() -> int:
    """Do what the worker does each second."""
    deliveries.queue_new()
    return deliveries.deliver_due(budget_s=5)


def make(person: Person, url: str, **options: Any) -> tuple[Webhook, str]:
    """Make a webhook after all that happened so far was sealed."""
    sealing.seal()
    made = webhooks.create_webhook(actor=person.actor, url=url, **options)
    sealing.seal()
    return made


def due_now() -> None:
    """Let the pauses be over."""
    Delivery.objects.filter(state=DeliveryState.WAITING).update(next_at=clock.now() - timedelta(seconds=1))


def test_an_event_arrives_signed(alice: Person, receiver: Receiver) -> None:
    _, secret = make(alice, receiver.url)
    event = happen(alice)

    assert deliver() == 1

    (message,) = receiver.messages
    assert message.path == "/hook?team=a"
    body = json.loads(message.body)
    assert body["type"] == "quota.set"
    assert body["data"]["id"] == event.pk
    assert body["seal"] == Seal.objects.filter(event_id=event.pk).values("chain", "seq", "hash").get()
    assert message.headers["webhook-id"] == event.pk
    signed = f"{event.pk}.{message.headers['webhook-timestamp']}.".encode() + message.body
    key = base64.b64decode(secret.removeprefix("whsec_"))
    expected = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    assert message.headers["webhook-signature"] == f"v1,{expected}"
    row = Delivery.objects.get()
    assert (row.state, row.attempts, row.status, row.error) == ("delivered", 1, 200, "")


def test_nothing_arrives_twice(alice: Person, receiver: Receiver) -> None:
    make(alice, receiver.url)
    happen(alice)

    assert [deliver(), deliver(), deliver()] == [1, 0, 0]
    assert len(receiver.messages) == 1


def test_only_what_was_asked_for(alice: Person, mallory: Person, receiver: Receiver) -> None:
    make(alice, receiver.url, codes=["tenant.suspended"])
    happen(alice, "quota.set")
    happen(mallory, "tenant.suspended")
    wanted = happen(alice, "tenant.suspended")

    deliver()

    assert [message.headers["webhook-id"] for message in receiver.messages] == [wanted.pk]


def test_only_what_is_risky_enough(alice: Person, receiver: Receiver) -> None:
    make(alice, receiver.url, min_score=50)
    happen(alice, risk=(49, "close"))
    risky = happen(alice, risk=(50, "enough"))

    deliver()

    assert [message.headers["webhook-id"] for message in receiver.messages] == [risky.pk]


def test_both_secrets_sign_after_a_rotation(alice: Person, receiver: Receiver) -> None:
    webhook, _ = make(alice, receiver.url)
    webhooks.rotate_secret(actor=alice.actor, webhook=webhook)
    happen(alice)

    deliver()

    assert receiver.messages[0].headers["webhook-signature"].count("v1,") == 2
    Webhook.objects.update(previous_until=clock.now() - timedelta(seconds=1))
    happen(alice)
    deliver()
    assert receiver.messages[1].headers["webhook-signature"].count("v1,") == 1


def test_a_failure_is_tried_again_later(alice: Person, receiver: Receiver) -> None:
    make(alice, receiver.url)
    happen(alice)
    receiver.status = 503

    before = clock.now()
    deliver()

    row = Delivery.objects.get()
    assert (row.state, row.attempts, row.status, row.error) == ("waiting", 1, 503, "the host answered 503")
    assert timedelta(seconds=9) <= row.next_at - before <= timedelta(seconds=20)
    assert deliver() == 0
    receiver.status = 200
    due_now()
    assert deliver() == 1
    assert Delivery.objects.get().state == DeliveryState.DELIVERED
    assert Webhook.objects.get().failing_since is None


def test_the_last_failure_gives_up(alice: Person, receiver: Receiver) -> None:
    make(alice, receiver.url)
    happen(alice)
    receiver.status = 500

    for _ in range(len(deliveries.PAUSES_S) + 1):
        due_now()
        assert deliver() == 1

    row = Delivery.objects.get()
    assert (row.state, row.attempts) == ("failed", 8)
    due_now()
    assert deliver() == 0


def test_given_up_ones_can_be_sent_again(alice: Person, receiver: Receiver) -> None:
    make(alice, receiver.url)
    happen(alice)
    deliveries.queue_new()
    Delivery.objects.update(state=DeliveryState.FAILED, attempts=8)

    webhooks.retry_delivery(actor=alice.actor, delivery=Delivery.objects.get())
    deliver()

    assert Delivery.objects.get().state == DeliveryState.DELIVERED


def test_a_webhook_that_fails_for_days_is_switched_off(alice: Person, receiver: Receiver) -> None:
    make(alice, receiver.url)
    happen(alice)
    receiver.status = 500
    Webhook.objects.update(failing_since=clock.now() - timedelta(days=4))

    deliver()

    webhook = Webhook.objects.get()
    assert (webhook.enabled, webhook.disabled_reason) == (False, "It failed for 3 days.")
    assert Event.objects.filter(code="webhook.disabled", tenant_id=alice.tenant.pk).count() == 1


def test_a_test_reaches_a_disabled_webhook_and_is_not_repeated(alice: Person, receiver: Receiver) -> None:
    webhook, _ = make(alice, receiver.url)
    webhooks.update_webhook(actor=alice.actor, webhook=webhook, enabled=False)
    receiver.status = 500

    webhooks.send_test(actor=alice.actor, webhook=webhook)
    deliver()

    assert json.loads(receiver.messages[0].body)["type"] == "webhook.test"
    assert Delivery.objects.get(test=True).state == DeliveryState.FAILED


def test_no_redirect_is_followed(alice: Person, receiver: Receiver) -> None:
    with running(Receiver()) as other:
        make(alice, receiver.url)
        receiver.status, receiver.headers = 307, {"Location": other.url}
        happen(alice)
        deliver()
        assert other.messages == []
    assert Delivery.objects.get().error == "the host answered 307"


@pytest.mark.parametrize(
    ("url", "granted"),
    [
        ("http://127.0.0.1:{port}/", False),
        ("http://localhost:{port}/", False),
        ("http://[::ffff:127.0.0.1]:{port}/", False),
        ("http://localhost:{port}/", True),
    ],
)
async def test_private_addresses_are_never_called(
    monkeypatch: pytest.MonkeyPatch, receiver: Receiver, url: str, *, granted: bool
) -> None:
    if not granted:
        monkeypatch.setattr(
            django_settings, "GATEHOUSE", dataclasses.replace(django_settings.GATEHOUSE, webhook_networks=())
        )

    answer = await outbound.post(url.format(port=receiver.port), b"{}", {})

    assert len(receiver.messages) == (1 if granted else 0)
    assert answer.ok is granted
    if not granted:
        assert answer.error == "the host does not lead to a public address"


async def test_who_never_ends_an_answer_is_left_in_time(receiver: Receiver) -> None:
    receiver.instead = dripping
    answer = await outbound.post(receiver.url, b"{}", {}, timeout_s=0.3)
    assert answer.error == "the host did not answer in time"


async def test_who_closes_is_a_failure(receiver: Receiver) -> None:
    receiver.instead = closing
    answer = await outbound.post(receiver.url, b"{}", {})
    assert answer.error == "the host closed the connection"


async def test_a_name_that_is_not_there_is_a_failure() -> None:
    answer = await outbound.post("https://nowhere.invalid/", b"{}", {})
    assert answer.error == "the host's name can't be resolved"
