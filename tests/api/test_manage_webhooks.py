"""Tenants say over REST where their events go. Secrets are shown once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from audit.models import Delivery, DeliveryState, Event, Webhook
from tests.api.rest import Rest

if TYPE_CHECKING:
    from tests.sandboxes.fixtures import Caller

pytestmark = pytest.mark.django_db

URL = "https://hooks.example.com/gatehouse"


def test_make_one(rest: Rest, alice: Caller) -> None:
    made = rest.post("webhooks", {"url": URL, "codes": ["sandbox.ended", "quota.set"], "min_score": 50}, status=201)

    assert made["secret"].startswith("whsec_")
    shown = rest.get(f"webhooks/{made['id']}")
    assert "secret" not in shown
    assert (shown["url"], shown["codes"], shown["min_score"]) == (URL, ["quota.set", "sandbox.ended"], 50)
    assert made["secret"] not in Webhook.objects.get().secret
    event = Event.objects.get(code="webhook.created")
    assert (event.tenant_id, event.object_id) == (alice.tenant.pk, made["id"])


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"url": "http://hooks.example.com/"}, "url"),
        ({"url": "https://127.0.0.1/"}, "url"),
        ({"url": "https://169.254.169.254/"}, "url"),
        ({"url": "https://[::1]/"}, "url"),
        ({"url": "https://user:word@hooks.example.com/"}, "url"),
        ({"url": "https://hooks.example.com/#part"}, "url"),
        ({"url": "ftp://hooks.example.com/"}, "url"),
        ({"url": "https://höoks.example.com/"}, "url"),
        ({"url": "https://hooks.example.com:0/"}, "url"),
        ({"url": "https://hooks.example.com:99999/"}, "url"),
        ({"url": "hooks"}, "url"),
        ({}, "url"),
        ({"url": URL, "codes": ["no.such"]}, "codes"),
        ({"url": URL, "min_score": 101}, "min_score"),
        ({"url": URL, "secret": "mine"}, "secret"),
    ],
)
def test_refuse_what_makes_none(rest: Rest, body: dict[str, Any], field: str) -> None:
    assert rest.refused("POST", "webhooks", body) == (400, "invalid_input", field)
    assert not Webhook.objects.exists()


def test_refuse_the_twenty_first(rest: Rest) -> None:
    for _ in range(20):
        rest.post("webhooks", {"url": URL}, status=201)
    assert rest.refused("POST", "webhooks", {"url": URL})[:2] == (409, "conflict")


def test_change_switch_off_and_remove(rest: Rest) -> None:
    path = f"webhooks/{rest.post('webhooks', {'url': URL}, status=201)['id']}"

    changed = rest.call("PATCH", path, {"enabled": False, "description": "to the pager"}).json()

    assert (changed["enabled"], changed["description"]) == (False, "to the pager")
    assert Event.objects.get(code="webhook.changed").details == {"changed": ["description", "enabled"]}
    assert rest.call("DELETE", path).status_code == 204
    assert rest.refused("GET", path)[:2] == (404, "not_found")


def test_rotate_the_secret(rest: Rest) -> None:
    made = rest.post("webhooks", {"url": URL}, status=201)
    rotated = rest.post(f"webhooks/{made['id']}/rotate-secret")
    assert rotated["secret"] not in {"", made["secret"]}
    assert rotated["previous_until"] is not None


def test_send_a_test_and_see_it(rest: Rest) -> None:
    path = f"webhooks/{rest.post('webhooks', {'url': URL}, status=201)['id']}"
    sent = rest.post(f"{path}/test", status=202)
    assert rest.get(f"{path}/deliveries")["items"] == [sent]
    assert (sent["code"], sent["test"], sent["state"]) == ("webhook.test", True, "waiting")


def test_retry_only_what_was_given_up(rest: Rest) -> None:
    path = f"webhooks/{rest.post('webhooks', {'url': URL}, status=201)['id']}"
    sent = rest.post(f"{path}/test", status=202)
    retry = f"{path}/deliveries/{sent['id']}/retry"

    assert rest.refused("POST", retry, {})[:2] == (409, "conflict")
    Delivery.objects.update(state=DeliveryState.FAILED)
    assert rest.post(retry, status=202)["state"] == "waiting"


def test_developers_see_but_do_not_make(bob: Caller) -> None:
    rest = Rest(bob.secret)
    assert rest.get("webhooks")["items"] == []
    assert rest.refused("POST", "webhooks", {"url": URL})[:2] == (403, "forbidden")
    assert not Webhook.objects.exists()
