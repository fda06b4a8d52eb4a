"""Give events of the way out their risk, from what the same sandbox's ledger says of the time before."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING

from audit import cleaning
from audit.models import Event
from audit.risk.flows import CLOSED, CODES, DENIED, DNS_DENIED, SENT_S, WRONG_S, Flow, Recent

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MOST_BEFORE = 400
"""So many earlier flows of each kind are looked at, the latest ones."""
_NOTEWORTHY_BYTES = 64 * 1024
_WINDOWS = (((DENIED, DNS_DENIED), WRONG_S), ((CLOSED,), SENT_S))


def judge_flows(events: Sequence[Event]) -> None:
    """Fill in the risk of new events that are flows, before they are inserted."""
    by_sandbox: defaultdict[str, list[Event]] = defaultdict(list)
    for event in events:
        if event.code in CODES and event.sandbox_id and _may_matter(event):
            by_sandbox[event.sandbox_id].append(event)
    for sandbox_id, flows in by_sandbox.items():
        _judge(flows, _before(sandbox_id, flows))


def _may_matter(event: Event) -> bool:
    return event.code != CLOSED or _whole(event.details.get("bytes_out")) >= _NOTEWORTHY_BYTES


def _judge(events: Iterable[Event], before: Iterable[Flow]) -> None:
    recent = Recent(before)
    for event in events:
        assessment = recent.assess(_flow(event))
        if assessment is not None:
            for name, value in cleaning.assessed(assessment).items():
                setattr(event, name, value)


def _before(sandbox_id: str, new: Sequence[Event]) -> list[Flow]:
    """Return the flows of a sandbox that count beside the new ones, oldest first."""
    earliest = min(event.at for event in new)
    kinds = {event.code for event in new}
    found: list[Event] = []
    for codes, window_s in _WINDOWS:
        if kinds & set(codes):
            rows = Event.objects.filter(
                sandbox_id=sandbox_id, code__in=codes, at__gte=earliest - timedelta(seconds=window_s)
            )
            fields = ("id", "code", "at", "reason", "host", "details")
            found += rows.only(*fields).order_by("-at", "-id")[:MOST_BEFORE]
    return [_flow(event) for event in sorted(found, key=lambda event: (event.at, event.pk))]


def _flow(event: Event) -> Flow:
    details = event.details
    return Flow(
        code=event.code,
        at=event.at.timestamp(),
        reason=event.reason,
        host=event.host,
        count=max(1, _whole(details.get("count"))),
        bytes_in=_whole(details.get("bytes_in")),
        bytes_out=_whole(details.get("bytes_out")),
    )


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0
