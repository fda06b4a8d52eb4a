"""The back office shows tenants and audit to operators, and changes neither behind the actions' back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.apps import apps
from django.contrib import admin
from django.test import Client

from audit.models import Event
from tenants import quota
from tenants.models import ApiKey, User

if TYPE_CHECKING:
    from tests.people import Person

SHOWN = [model for model in apps.get_models() if model._meta.app_label in {"tenants", "audit"}]


@pytest.fixture
def olga(db: None) -> Client:
    """Return Olga the operator's browser."""
    client = Client()
    client.force_login(User.objects.create_superuser("olga", password="x" * 20))
    return client


@pytest.mark.parametrize("model", SHOWN, ids=lambda model: model._meta.label)
def test_every_list_opens(olga: Client, alice: Person, mallory: Person, model: type[Event]) -> None:
    alice.key()
    quota.reserve(tenant_id=alice.tenant.id, sandbox_id="i1", amounts=quota.Amounts())
    assert admin.site.is_registered(model)
    answer = olga.get(f"/admin/{model._meta.app_label}/{model._meta.model_name}/")
    assert answer.status_code == 200


def test_keys_show_nothing_that_opens(olga: Client, alice: Person) -> None:
    key = alice.key()
    stored = ApiKey.everywhere().get()
    page = olga.get(f"/admin/tenants/apikey/{stored.pk}/change/").content.decode()
    assert stored.prefix in page
    assert stored.hash not in page
    assert key not in page


def test_audit_rows_cannot_be_edited(olga: Client, alice: Person) -> None:
    event = Event.objects.first()
    assert event is not None
    assert olga.get("/admin/audit/event/add/").status_code == 403
    assert olga.post(f"/admin/audit/event/{event.pk}/delete/", {"post": "yes"}).status_code == 403
    assert olga.post(f"/admin/audit/event/{event.pk}/change/", {"code": "x"}).status_code == 403


def test_strangers_are_sent_to_the_door(alice: Person) -> None:
    client = Client()
    assert client.get("/admin/audit/event/").status_code == 302
    client.force_login(alice.user)
    assert client.get("/admin/audit/event/").status_code == 302
