"""Events on their way to webhooks: queued in the order of sealing, signed, sent, tried again with growing pauses.

The signature is that of Standard Webhooks: `webhook-id`, `webhook-timestamp`, `webhook-signature`. A receiver may get
an event twice (its id is the same) and events out of order (`seq` tells).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import random
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import structlog
from asgiref.sync import sync_to_async
from django.db import transaction
from django.db.models import F, Max, Q

from audit import canonical, outbound, webhook_secrets
from audit.models import Delivery, DeliveryState, Event, Seal, Webhook
from audit.recording import record
from corekit import clock
from corekit.actor import SYSTEM

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = structlog.get_logger("audit.deliveries")

PAUSES_S = (10, 60, 300, 1800, 7200, 21_600, 43_200)
"""The pause after each failed attempt; after the last one the delivery is given up."""
GIVE_UP_AFTER = timedelta(days=3)
"""A webhook that failed for so long is switched off."""
LEASE = timedelta(seconds=60)
"""How long a delivery belongs to whoever took it: longer than any attempt."""
BATCH = 500
AT_ONCE = 16
_KEEP = timedelta(days=30)
_running = threading.Lock()


def queue_new() -> int:
    """Queue what was sealed since the last time for the webhooks that want it; return how many deliveries."""
    last = Seal.objects.aggregate(last=Max("id"))["last"] or 0
    behind = Webhook.objects.filter(enabled=True, position__lt=last).order_by("pk")
    return sum(_queue(webhook, last) for webhook in behind)


def _queue(webhook: Webhook, last: int) -> int:
    seals = Seal.objects.filter(id__gt=webhook.position, id__lte=last).order_by("id")
    if webhook.tenant_id is not None:
        seals = seals.filter(chain=webhook.tenant_id.hex)
    found = list(seals.values_list("id", "event_id")[:BATCH])
    # A full batch is not all: the next run goes on behind it.
    position = found[-1][0] if len(found) == BATCH else last
    wanted = _wanted(webhook, [event_id for _, event_id in found])
    with transaction.atomic():
        moved = Webhook.objects.filter(pk=webhook.pk, position=webhook.position).update(position=position)
        if not moved:
            return 0
        Delivery.objects.bulk_create(
            [Delivery(webhook=webhook, event_id=event_id, code=code) for event_id, code in wanted],
            ignore_conflicts=True,
        )
    return len(wanted)


def _wanted(webhook: Webhook, event_ids: Sequence[str]) -> list[tuple[str, str]]:
    # What is said of deliveries would be delivered, and said again.
    events = Event.objects.filter(pk__in=event_ids).exclude(object_type="webhook")
    if webhook.codes:
        events = events.filter(code__in=webhook.codes)
    if webhook.min_score is not None:
        events = events.filter(risk_score__gte=webhook.min_score)
    return list(events.order_by("pk").values_list("pk", "code"))


def deliver_due(*, budget_s: float) -> int:
    """Send what is due, many at a time, until nothing is or the budget is spent; return how many were tried.

    One run at a time in a process: slow receivers must not take every thread of the worker.
    """
    if not _running.acquire(blocking=False):
        return 0
    try:
        return asyncio.run(_deliver_due(time.monotonic() + budget_s))
    finally:
        _running.release()


async def _deliver_due(until: float) -> int:
    tried = 0
    while time.monotonic() < until:
        taken = await sync_to_async(_take)()
        if not taken:
            break
        await asyncio.gather(*(_deliver(delivery) for delivery in taken))
        tried += len(taken)
    return tried


def _take() -> list[Delivery]:
    """Take due deliveries: whoever raises the count of attempts first has them."""
    now = clock.now()
    due = Delivery.objects.filter(
        Q(webhook__enabled=True) | Q(test=True), state=DeliveryState.WAITING, next_at__lte=now
    )
    taken = []
    for delivery in due.select_related("webhook").order_by("next_at", "pk")[:AT_ONCE]:
        claimed = Delivery.objects.filter(
            pk=delivery.pk, state=DeliveryState.WAITING, attempts=delivery.attempts, next_at=delivery.next_at
        ).update(attempts=F("attempts") + 1, next_at=now + LEASE)
        if claimed:
            delivery.attempts += 1
            taken.append(delivery)
    return taken


async def _deliver(delivery: Delivery) -> None:
    message = await sync_to_async(_message)(delivery)
    if message is None:
        answer = outbound.Answer(None, "the event was pruned before it could be sent", 0.0)
        await sync_to_async(_finish)(delivery, answer, DeliveryState.FAILED)
        return
    body, headers = message
    answer = await outbound.post(delivery.webhook.url, body, headers)
    await sync_to_async(_conclude)(delivery, answer)


def _message(delivery: Delivery) -> tuple[bytes, dict[str, str]] | None:
    """Return body and headers, or None when the event is there no more."""
    event = Event.objects.filter(pk=delivery.event_id).first()
    if event is None:
        return None
    seal = Seal.objects.filter(event_id=event.pk).values("chain", "seq", "hash").first()
    body = json.dumps({"type": event.code, "data": canonical.document(event), "seal": seal}).encode()
    return body, signed_headers(delivery.webhook, event.pk, body, clock.epoch_ms() // 1000)


def signed_headers(webhook: Webhook, message_id: str, body: bytes, at_s: int) -> dict[str, str]:
    """Return the headers that sign one message: with the secret, and with the one before it until it runs out."""
    secrets = [webhook.secret]
    if webhook.previous_secret and webhook.previous_until and webhook.previous_until > clock.now():
        secrets.append(webhook.previous_secret)
    signed = f"{message_id}.{at_s}.".encode() + body
    signatures = (f"v1,{_signature(webhook_secrets.decrypt(secret), signed)}" for secret in secrets)
    return {
        "Content-Type": "application/json",
        "User-Agent": "Gatehouse-Webhooks",
        "webhook-id": message_id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": " ".join(signatures),
    }


def _signature(secret: str, signed: bytes) -> str:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    return base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


def _conclude(delivery: Delivery, answer: outbound.Answer) -> None:
    if answer.ok:
        _finish(delivery, answer, DeliveryState.DELIVERED)
        Webhook.objects.filter(pk=delivery.webhook_id).exclude(failing_since=None).update(failing_since=None)
    elif delivery.test or delivery.attempts > len(PAUSES_S):
        _finish(delivery, answer, DeliveryState.FAILED)
        _note_failure(delivery)
    else:
        pause = PAUSES_S[delivery.attempts - 1] * random.uniform(0.9, 1.1)  # noqa: S311  (spreads load, hides nothing)
        _update(delivery, answer, next_at=clock.now() + timedelta(seconds=pause))
        _note_failure(delivery)


def _finish(delivery: Delivery, answer: outbound.Answer, state: str) -> None:
    _update(delivery, answer, state=state, finished_at=clock.now())


def _update(delivery: Delivery, answer: outbound.Answer, **more: Any) -> None:
    error = answer.error or ("" if answer.ok else f"the host answered {answer.status}")
    Delivery.objects.filter(pk=delivery.pk, attempts=delivery.attempts).update(
        status=answer.status, error=error, duration_ms=answer.duration_ms, **more
    )


def _note_failure(delivery: Delivery) -> None:
    """Remember since when a webhook fails; switch it off when that is too long ago."""
    if delivery.test:
        return
    now = clock.now()
    Webhook.objects.filter(pk=delivery.webhook_id, failing_since=None).update(failing_since=now)
    with transaction.atomic():
        reason = f"It failed for {GIVE_UP_AFTER.days} days."
        off = Webhook.objects.filter(
            pk=delivery.webhook_id, enabled=True, failing_since__lte=now - GIVE_UP_AFTER
        ).update(enabled=False, disabled_reason=reason)
        if off:
            record(
                "webhook.disabled",
                actor=SYSTEM,
                object_type="webhook",
                object_id=delivery.webhook_id,
                tenant_id=delivery.webhook.tenant_id,
                details={"reason": reason},
            )


def forget_old() -> int:
    """Delete finished deliveries from more than 30 days ago; return how many."""
    old = Delivery.objects.exclude(state=DeliveryState.WAITING).filter(finished_at__lt=clock.now() - _KEEP)
    return old.delete()[0]
