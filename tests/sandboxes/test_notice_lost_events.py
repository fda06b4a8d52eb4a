"""What a node lost before it was collected leaves a hole in its numbers, and that is an event."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from audit import producers
from audit.models import Event, Producer
from sandboxes import events, node_client
from sandboxes.models import Node

if TYPE_CHECKING:
    from sandboxes.models import Template
    from tests.sandboxes.fixtures import Caller
    from tests.sandboxes.node_double import NodeDouble

pytestmark = pytest.mark.django_db


def _collect() -> None:
    events.collect(node_client.local_node())


def _gaps() -> list[tuple[str, dict[str, object]]]:
    return [(event.object_id, event.details) for event in Event.objects.filter(code="audit.gap").order_by("id")]


def _name() -> str:
    return f"node:{Node.objects.get().pk}"


def test_events_that_follow_each_other_are_no_news(node: NodeDouble, base: Template, alice: Caller) -> None:
    alice.create()
    _collect()
    node.emit("limit.pids", None)
    _collect()
    assert _gaps() == []


def test_a_node_is_heard_with_every_collection(node: NodeDouble, base: Template, alice: Caller) -> None:
    producers.forget_said()
    alice.create()
    _collect()
    assert Producer.objects.get().pk == _name()


def test_an_event_that_the_spool_lost_is_told(node: NodeDouble, base: Template, alice: Caller) -> None:
    alice.create()
    _collect()
    taken = Node.objects.get().events_upto
    lost = node.emit("limit.pids", None)
    node.emit("limit.pids", None)
    node.events.remove(lost)

    _collect()
    _collect()

    assert _gaps() == [(_name(), {"expected": taken + 1, "got": taken + 2})]


def test_a_spool_that_began_anew_is_told(node: NodeDouble, base: Template, alice: Caller) -> None:
    alice.create()
    _collect()
    Node.objects.update(events_upto=40)

    _collect()

    assert _gaps() == [(_name(), {"expected": 41, "got": 1})]
