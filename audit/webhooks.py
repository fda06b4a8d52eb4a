"""What happens to webhooks: made, changed, rotated, tested, removed. Each act is an event of its tenant."""

from __future__ import annotations

import base64
import secrets
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import UUID

from django.db import transaction
from django.db.models import Max

from audit import outbound, registry, webhook_secrets
from audit.models import Delivery, DeliveryState, Seal, Webhook
from audit.recording import record
from corekit import clock, ids
from corekit.errors import Conflict, Forbidden, InvalidInput, NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.db.models import QuerySet

    from corekit.actor import Actor

READ, WRITE = "webhooks:read", "webhooks:write"
MAX_WEBHOOKS = 20
ROTATION = timedelta(hours=24)
"""For how long both secrets sign after a rotation."""
TEST_CODE = "webhook.test"


def webhooks_for(actor: Actor) -> QuerySet[Webhook]:
    """Return the webhooks that an actor may see. Raises Forbidden."""
    _require(actor, READ)
    return Webhook.visible_to(actor)


def webhook_for(actor: Actor, webhook_id: str, scope: str = READ) -> Webhook:
    """Return one webhook. Raises Forbidden or NotFound."""
    _require(actor, scope)
    found = Webhook.visible_to(actor).filter(pk=webhook_id).first() if ids.is_event_id(webhook_id) else None
    if found is None:
        raise NotFound("There is no such webhook.")
    return found


def create_webhook(
    *,
    actor: Actor,
    url: str,
    description: str = "",
    codes: Sequence[str] = (),
    min_score: int | None = None,
) -> tuple[Webhook, str]:
    """Make a webhook of the actor's tenant, or of the platform; return it with its secret, which is shown only now.

    It gets what is sealed from now on. Raises InvalidInput naming the field, Conflict when there are too many.
    """
    _require(actor, WRITE)
    tenant_id = UUID(actor.tenant_id) if actor.tenant_id else None
    if Webhook.objects.filter(tenant_id=tenant_id).count() >= MAX_WEBHOOKS:
        raise Conflict(f"There are {MAX_WEBHOOKS} webhooks already: remove one first.")
    secret = _new_secret()
    webhook = Webhook(
        tenant_id=tenant_id,
        url=_checked_url(url),
        description=description,
        codes=_checked_codes(codes),
        min_score=min_score,
        secret=webhook_secrets.encrypt(secret),
        position=Seal.objects.aggregate(last=Max("id"))["last"] or 0,
        created_by=actor.id[:64],
    )
    with transaction.atomic():
        webhook.save(force_insert=True)
        _record("webhook.created", actor, webhook, url=webhook.url, codes=webhook.codes)
    return webhook, secret


def update_webhook(*, actor: Actor, webhook: Webhook, **changes: Any) -> Webhook:
    """Change url, description, codes, min_score or enabled. Raises InvalidInput naming the field."""
    _require(actor, WRITE)
    if "url" in changes:
        changes["url"] = _checked_url(changes["url"])
    if "codes" in changes:
        changes["codes"] = _checked_codes(changes["codes"])
    if changes.get("enabled"):
        changes |= {"disabled_reason": "", "failing_since": None}
    changed = sorted(name for name, value in changes.items() if getattr(webhook, name) != value)
    if not changed:
        return webhook
    with transaction.atomic():
        for name, value in changes.items():
            setattr(webhook, name, value)
        webhook.save(update_fields=list(changes))
        _record("webhook.changed", actor, webhook, changed=changed)
    return webhook


def delete_webhook(*, actor: Actor, webhook: Webhook) -> None:
    """Remove a webhook with its deliveries."""
    _require(actor, WRITE)
    with transaction.atomic():
        _record("webhook.deleted", actor, webhook, url=webhook.url)
        webhook.delete()


def rotate_secret(*, actor: Actor, webhook: Webhook) -> str:
    """Give a webhook a new secret and return it; for a day the old one signs beside it."""
    _require(actor, WRITE)
    secret = _new_secret()
    with transaction.atomic():
        webhook.previous_secret, webhook.previous_until = webhook.secret, clock.now() + ROTATION
        webhook.secret = webhook_secrets.encrypt(secret)
        webhook.save(update_fields=["secret", "previous_secret", "previous_until"])
        _record("webhook.secret_rotated", actor, webhook)
    return secret


def send_test(*, actor: Actor, webhook: Webhook) -> Delivery:
    """Queue a test event for a webhook, whatever it listens to and whether or not it is enabled."""
    _require(actor, WRITE)
    with transaction.atomic():
        event = _record("webhook.test", actor, webhook)
        return Delivery.objects.create(webhook=webhook, event_id=event, code=TEST_CODE, test=True)


def retry_delivery(*, actor: Actor, delivery: Delivery) -> Delivery:
    """Queue a delivery that was given up once more. Raises Conflict when it waits or arrived."""
    _require(actor, WRITE)
    changed = Delivery.objects.filter(pk=delivery.pk, state=DeliveryState.FAILED).update(
        state=DeliveryState.WAITING, attempts=0, next_at=clock.now(), finished_at=None
    )
    if not changed:
        raise Conflict("Only a delivery that was given up can be sent again.")
    delivery.refresh_from_db()
    return delivery


def delivery_for(webhook: Webhook, delivery_id: str) -> Delivery:
    """Return one delivery of a webhook that the caller may see. Raises NotFound."""
    found = webhook.deliveries.filter(pk=delivery_id).first() if ids.is_event_id(delivery_id) else None
    if found is None:
        raise NotFound("There is no such delivery.")
    return found


def _new_secret() -> str:
    return "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidInput(f"This is not a URL: {error}.", field="url") from error
    if parts.scheme not in {"https", "http"} or not parts.hostname:
        raise InvalidInput("The URL must begin with https:// and name a host.", field="url")
    if parts.username or parts.password or parts.fragment:
        raise InvalidInput("The URL must not hold a user name, a password or a fragment.", field="url")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise InvalidInput("The URL must be printable ASCII: write the host in its xn-- form.", field="url")
    outbound.check_target(parts.scheme, parts.hostname, port)
    return url


def _checked_codes(codes: Sequence[str]) -> list[str]:
    for code in codes:
        if not registry.known(code):
            raise InvalidInput(f"There is no event code {code[:64]!r}.", field="codes")
    return sorted(set(codes))


def _record(code: str, actor: Actor, webhook: Webhook, **details: object) -> str:
    event = record(
        code,
        actor=actor,
        object_type="webhook",
        object_id=webhook.pk,
        tenant_id=webhook.tenant_id,
        details=details,
    )
    return event.pk


def _require(actor: Actor, scope: str) -> None:
    # The table of scopes lies above this app.
    if not actor.has(scope):
        raise Forbidden(f"This needs the scope {scope}.", scope=scope)
