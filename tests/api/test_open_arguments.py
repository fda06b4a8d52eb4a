"""Copies of arguments are kept for tenants that want it, and opened with a scope of its own, a reason and an event."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from audit import argument_copies
from audit.models import ArgumentCopy, Event, LedgerPolicy
from audit.recording import record_node_event
from corekit import clock, sealedbox
from corekit.fingerprint import canonical
from corekit.ids import new_event_id
from tests.api.rest import Operator, Rest

if TYPE_CHECKING:
    from tests.sandboxes.fixtures import Caller

pytestmark = pytest.mark.django_db

ARGUMENTS = {"cmd": "/bin/bash", "args": ["-l", "-c", "cat /etc/shadow"]}
REASON = {"reason": "incident 4711"}


def keep(rest: Rest) -> None:
    """Let Acme keep copies."""
    answer = rest.call("PUT", "audit-argument-copies", {"keep": True})
    assert answer.json() == {"keep": True, "days": 14}


def happen(caller: Caller, *, copy: bytes | None = None) -> Event:
    """Collect one command as the gateway reports it, with the copy that it made."""
    key = argument_copies.public_key(caller.tenant.pk.hex)
    box = copy if copy is not None else sealedbox.seal(bytes.fromhex(key), canonical(ARGUMENTS)) if key else b""
    event: dict[str, Any] = {
        "id": new_event_id(),
        "at": clock.epoch_ms(),
        "node_id": "n1",
        "sandbox": "i1",
        "generation": 1,
        "code": "command.start",
        "phase": "intent",
        "tool_name": "exec_code",
        "args_copy": base64.b64encode(box).decode(),
    }
    record_node_event(event, tenant_id=caller.tenant.pk)
    return Event.objects.get(pk=event["id"])


def test_open_what_was_kept(rest: Rest, alice: Caller) -> None:
    keep(rest)
    event = happen(alice)

    assert rest.post(f"audit-events/{event.pk}/arguments", REASON) == {"arguments": ARGUMENTS}

    opened = Event.objects.get(code="audit.arguments_opened")
    assert (opened.object_id, opened.details, opened.actor_id) == (event.pk, REASON, alice.key.pk)
    assert opened.tenant_id == alice.tenant.pk


def test_nothing_is_kept_without_the_wish(rest: Rest, alice: Caller) -> None:
    event = happen(alice, copy=sealedbox.seal(sealedbox.public_key(bytes(32)), b"{}"))
    assert argument_copies.public_key(alice.tenant.pk.hex) == ""
    assert not ArgumentCopy.objects.exists()
    assert rest.refused("POST", f"audit-events/{event.pk}/arguments", REASON)[:2] == (404, "not_found")


def test_the_database_holds_no_word_of_them(rest: Rest, alice: Caller) -> None:
    keep(rest)
    happen(alice)
    assert b"shadow" not in bytes(ArgumentCopy.objects.get().ciphertext)


def test_a_changed_copy_opens_nothing(rest: Rest, alice: Caller) -> None:
    keep(rest)
    event = happen(alice, copy=b"x" * 80)
    assert rest.refused("POST", f"audit-events/{event.pk}/arguments", REASON)[:2] == (404, "not_found")


def test_copies_are_erased_in_time(rest: Rest, alice: Caller) -> None:
    keep(rest)
    event = happen(alice)
    ArgumentCopy.objects.update(expires_at=clock.now() - timedelta(seconds=1))

    assert rest.refused("POST", f"audit-events/{event.pk}/arguments", REASON)[:2] == (404, "not_found")
    assert argument_copies.erase_expired() == 1


def test_a_copy_comes_once(rest: Rest, alice: Caller) -> None:
    keep(rest)
    event = happen(alice)
    again = {"id": event.pk, "at": 1, "node_id": "n1", "code": "command.start", "args_copy": "AAAA"}
    assert record_node_event(again, tenant_id=alice.tenant.pk) is False
    assert ArgumentCopy.objects.count() == 1


@pytest.mark.parametrize("reason", ["", "   ", "x" * 501])
def test_refuse_without_a_reason(rest: Rest, alice: Caller, reason: str) -> None:
    keep(rest)
    event = happen(alice)
    assert rest.refused("POST", f"audit-events/{event.pk}/arguments", {"reason": reason}) == (
        400,
        "invalid_input",
        "reason",
    )
    assert not Event.objects.filter(code="audit.arguments_opened").exists()


def test_developers_open_nothing_and_wish_nothing(rest: Rest, alice: Caller, bob: Caller) -> None:
    keep(rest)
    event, bobs = happen(alice), Rest(bob.secret)
    assert bobs.refused("POST", f"audit-events/{event.pk}/arguments", REASON)[:2] == (403, "forbidden")
    assert bobs.refused("PUT", "audit-argument-copies", {"keep": False})[:2] == (403, "forbidden")
    assert not Event.objects.filter(code="audit.arguments_opened").exists()
    assert LedgerPolicy.objects.get().keep_arguments is True


@pytest.mark.parametrize(
    ("body", "field"), [({"keep": "yes"}, "keep"), ({"keep": True, "days": 91}, "days"), ({}, "keep")]
)
def test_refuse_wishes_that_are_none(rest: Rest, body: dict[str, Any], field: str) -> None:
    assert rest.refused("PUT", "audit-argument-copies", body) == (400, "invalid_input", field)
    assert not LedgerPolicy.objects.exists()


def test_operators_name_a_tenant_and_leave_a_trace_with_it(olga: Operator, rest: Rest, alice: Caller) -> None:
    keep(rest)
    event = happen(alice)
    assert olga.refused("GET", "audit-argument-copies") == (400, "invalid_input", "tenant_id")
    assert olga.get(f"audit-argument-copies?tenant_id={alice.tenant.pk}") == {"keep": True, "days": 14}

    assert olga.post(f"audit-events/{event.pk}/arguments", REASON)["arguments"] == ARGUMENTS

    assert Event.objects.get(code="audit.arguments_opened").tenant_id == alice.tenant.pk
