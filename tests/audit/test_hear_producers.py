"""Who writes events is heard again and again: what was lost on the way, and who fell silent, is an event itself."""

from __future__ import annotations

from datetime import timedelta

import pytest

from audit import producers, sealing
from audit.models import Event, Producer
from corekit import clock

pytestmark = pytest.mark.django_db

NAME = "node:n1"


@pytest.fixture(autouse=True)
def _new_process() -> None:
    producers.forget_said()


def _told(code: str) -> list[tuple[str, dict[str, object]]]:
    found = Event.objects.filter(code=code).order_by("received_at", "id")
    return [(event.object_id, event.details) for event in found]


def _silent_for(time: timedelta) -> str:
    at = clock.now() - time
    Producer.objects.filter(pk=NAME).update(heard_at=at)
    return clock.to_rfc3339(at)


def test_a_heartbeat_tells_how_many_events_of_each_producer_are_sealed() -> None:
    producers.count({"web": 3, NAME: 5})
    producers.count({"web": 4})
    producers.beat()
    assert _told("audit.heartbeat") == [("audit", {"producers": {NAME: 5, "web": 7}})]


def test_the_heartbeat_stands_in_the_platforms_chain_and_counts_itself() -> None:
    producers.beat()
    sealing.seal()
    producers.beat()
    first, second = Event.objects.filter(code="audit.heartbeat").order_by("received_at", "id")
    assert (first.tenant_id, first.actor_kind) == (None, "system")
    assert second.details == {"producers": {first.producer: 1}}


def test_numbers_that_follow_each_other_are_no_news() -> None:
    producers.check_numbers(NAME, after=4, numbers=[5, 6, 7])
    assert _told("audit.gap") == []


def test_each_hole_in_the_numbers_is_told() -> None:
    producers.check_numbers(NAME, after=4, numbers=[6, 7, 10])
    assert _told("audit.gap") == [(NAME, {"expected": 5, "got": 6}), (NAME, {"expected": 8, "got": 10})]


def test_numbers_that_come_again_are_no_hole() -> None:
    producers.check_numbers(NAME, after=4, numbers=[3, 4, 5, 5, 4, 6])
    assert _told("audit.gap") == []


def test_a_producer_that_was_never_heard_begins_where_it_begins() -> None:
    producers.check_numbers(NAME, after=0, numbers=[7, 8])
    assert _told("audit.gap") == []


def test_a_node_that_is_not_heard_for_minutes_is_told_once() -> None:
    producers.hear(NAME)
    _silent_for(timedelta(minutes=2, seconds=50))
    producers.beat()
    assert _told("audit.producer_silent") == []

    at = _silent_for(timedelta(minutes=3, seconds=1))
    producers.beat()
    producers.beat()
    assert _told("audit.producer_silent") == [(NAME, {"heard_at": at})]


def test_a_node_that_is_heard_again_is_told_too() -> None:
    producers.hear(NAME)
    at = _silent_for(timedelta(minutes=4))
    producers.beat()

    producers.forget_said()
    producers.hear(NAME)
    producers.beat()
    producers.beat()

    assert _told("audit.producer_back") == [(NAME, {"silent_since": at})]
    assert Producer.objects.get(pk=NAME).silent_since is None


def test_a_process_that_writes_only_when_asked_is_not_silent() -> None:
    producers.count({"web": 1})
    Producer.objects.update(heard_at=clock.now() - timedelta(days=1))
    producers.beat()
    assert _told("audit.producer_silent") == []


def test_signs_of_life_are_written_down_now_and_then_only() -> None:
    producers.hear(NAME)
    first = Producer.objects.get(pk=NAME).heard_at
    producers.hear(NAME)
    assert Producer.objects.get(pk=NAME).heard_at == first
    producers.forget_said()
    producers.hear(NAME)
    assert Producer.objects.get(pk=NAME).heard_at > first
