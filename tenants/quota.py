"""Quotas as reservations: reserve before a sandbox starts, commit when it runs, park while it is paused, release
when it is gone.

Each step is one conditional statement on the counters with the reservation's row in the same transaction, so that
whatever races or dies, the counters equal the sum of the reservations. All steps may stand inside a caller's
transaction.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from django.db import IntegrityError, transaction

from corekit import clock
from corekit.errors import Conflict, InvalidInput, NotFound, QuotaExceeded, RateLimited
from tenants import counters
from tenants.models import LimitRange, Quota, Reservation, ReservationState

if TYPE_CHECKING:
    from collections.abc import Collection

_USERS_NAMED = 5
_UNITS = {
    "sandboxes": ("{} sandboxes", 1),
    "cpu_milli": ("{:g} CPU", 1000),
    "memory_mib": ("{} MiB of memory", 1),
    "disk_mib": ("{} MiB of disk", 1),
    "request_cpu_milli": ("{:g} CPU of requests", 1000),
    "request_memory_mib": ("{} MiB of memory requests", 1),
}


@dataclass(frozen=True, slots=True)
class Amounts:
    """One sandbox's share: thousandths of a CPU and MiB. Requests are the part that is promised, not just allowed."""

    sandboxes: int = 1
    cpu_milli: int = 0
    memory_mib: int = 0
    disk_mib: int = 0
    request_cpu_milli: int = 0
    request_memory_mib: int = 0


RESOURCES = counters.RESOURCES


@dataclass(frozen=True, slots=True)
class Resources:
    """What one sandbox gets, after the tenant's limit range was applied; `min_tier` "" leaves the tier free."""

    cpu_milli: int
    memory_mib: int
    disk_mib: int
    request_cpu_milli: int
    request_memory_mib: int
    min_tier: str = ""

    def amounts(self) -> Amounts:
        """Return what these resources take from the quota."""
        return Amounts(sandboxes=1, **{name: getattr(self, name) for name in RESOURCES if name != "sandboxes"})


@dataclass(frozen=True, slots=True)
class Usage:
    """A tenant's limits and what is used of them."""

    used: Amounts
    allowed: Amounts
    max_lifetime_s: int
    creates_per_minute: int


def _quota(tenant_id: str | UUID) -> Quota:
    quota = Quota.everywhere().filter(tenant_id=tenant_id).first()
    if quota is None:
        raise NotFound("There is no such tenant.")
    return quota


def reserve(*, tenant_id: str | UUID, sandbox_id: str, amounts: Amounts) -> None:
    """Take a sandbox's share, or raise QuotaExceeded and take nothing.

    Raises Conflict when the sandbox holds a reservation already.
    """
    wanted, owner = asdict(amounts), _uuid(tenant_id)
    try:
        with transaction.atomic():
            if not counters.take(owner, wanted):
                raise _refusal(owner, wanted)
            Reservation(sandbox_id=sandbox_id, tenant_id=owner, **wanted).save(force_insert=True)
    except IntegrityError as error:
        raise Conflict("This sandbox holds a reservation already.") from error


def _uuid(tenant_id: str | UUID) -> UUID:
    return tenant_id if isinstance(tenant_id, UUID) else UUID(tenant_id)


def _refusal(tenant_id: UUID, wanted: dict[str, int], *, asked_for: str = "") -> QuotaExceeded:
    """Say which limit refused, how much of it is used and by what."""
    quota = _quota(tenant_id)
    for name, amount in wanted.items():
        used, allowed = getattr(quota, f"used_{name}"), getattr(quota, f"max_{name}")
        if amount and used + amount > allowed:
            users = list(
                Reservation.everywhere()
                .filter(tenant_id=tenant_id, **{f"{name}__gt": 0})
                .exclude(sandbox_id=asked_for)
                .order_by(f"-{name}", "created_at", "sandbox_id")
                .values_list("sandbox_id", flat=True)[:_USERS_NAMED]
            )
            return QuotaExceeded(
                f"The quota allows {_say(name, allowed)} at a time; {_say(name, used)} are in use"
                f"{' by ' + ', '.join(users) if users else ''}, and this needs {_say(name, amount)} more.",
                limit=name,
                allowed=allowed,
                used=used,
                requested=amount,
                used_by=users,
            )
    # On a server that lets others write meanwhile, the room came back between the two statements.
    return QuotaExceeded("The quota was used up a moment ago.", should_retry=True, retry_after=1)


def _say(name: str, amount: int) -> str:
    template, divisor = _UNITS[name]
    text = template.format(amount / divisor if divisor > 1 else amount)
    return text.removesuffix("es") if text == "1 sandboxes" else text


def commit(sandbox_id: str) -> None:
    """Mark a reservation as in use. Again is harmless. Raises NotFound when it was released meanwhile."""
    rows = Reservation.everywhere().filter(sandbox_id=sandbox_id)
    if not rows.update(state=ReservationState.COMMITTED):
        raise NotFound("The sandbox holds no reservation.")


def park(sandbox_id: str) -> bool:
    """Give back a paused sandbox's share of concurrency and CPU; its memory and disk stay reserved.

    Again is harmless; says whether this call did it.
    """
    with transaction.atomic():
        return counters.park(sandbox_id)


def unpark(sandbox_id: str) -> None:
    """Take again what `park` gave back, or raise QuotaExceeded and take nothing. Again is harmless."""
    with transaction.atomic():
        taken = counters.unpark(sandbox_id)
        if taken is None:
            return
        owner, wanted, had_room = taken
        if not had_room:
            raise _refusal(owner, wanted, asked_for=sandbox_id)


def release(sandbox_id: str) -> bool:
    """Give a sandbox's share back, exactly once, whoever calls how often; say whether this call did it."""
    with transaction.atomic():
        return counters.give_back(sandbox_id)


def sweep(live_ids: Collection[str], *, older_than_s: float) -> list[str]:
    """Release every reservation of no live sandbox that is older than some seconds; return the sandboxes' ids.

    The age protects creates that are under way: their reservation comes before their sandbox.
    """
    cutoff = clock.now() - timedelta(seconds=older_than_s)
    old = Reservation.everywhere().filter(created_at__lt=cutoff).values_list("sandbox_id", flat=True)
    leaked = sorted(set(old) - set(live_ids))
    return [sandbox_id for sandbox_id in leaked if release(sandbox_id)]


def usage(tenant_id: str | UUID) -> Usage:
    """Return a tenant's limits and counters. Raises NotFound."""
    quota = _quota(tenant_id)
    return Usage(
        used=Amounts(**{name: getattr(quota, f"used_{name}") for name in RESOURCES}),
        allowed=Amounts(**{name: getattr(quota, f"max_{name}") for name in RESOURCES}),
        max_lifetime_s=quota.max_lifetime_s,
        creates_per_minute=quota.creates_per_minute,
    )


def take_create_permit(tenant_id: str | UUID) -> None:
    """Count one create against the tenant's rate, or raise RateLimited.

    A minute's worth may come at once; after that they are let through evenly spaced. One UPDATE: the row holds the
    time at which the tenant's creates, evenly spaced, would be used up.
    """
    # Whoever waited for another's statement knows an older time than the row does: with the time after it the answer is
    # what it would have been without the wait.
    for _ in range(2):
        now_us = time.time_ns() // 1000
        if counters.take_turn(_uuid(tenant_id), now_us):
            return
    quota = _quota(tenant_id)
    wait_us = quota.next_create_us + counters.MINUTE_US // quota.creates_per_minute - counters.MINUTE_US - now_us
    raise RateLimited(
        f"The tenant may create {quota.creates_per_minute} sandboxes a minute.",
        retry_after=max(1, -(-wait_us // 1_000_000)),
        limit="creates_per_minute",
        allowed=quota.creates_per_minute,
    )


def resolve_resources(
    tenant_id: str | UUID,
    *,
    cpu_milli: int | None = None,
    memory_mib: int | None = None,
    disk_mib: int | None = None,
) -> Resources:
    """Return what a sandbox gets: what was asked for within the tenant's limit range, else its defaults.

    Raises InvalidInput that names the field out of range.
    """
    limits = LimitRange.everywhere().filter(tenant_id=tenant_id).first()
    if limits is None:
        raise NotFound("There is no such tenant.")
    asked = {"cpu_milli": cpu_milli, "memory_mib": memory_mib, "disk_mib": disk_mib}
    got = {name: _within(limits, name, value) for name, value in asked.items()}
    return Resources(
        **got,
        request_cpu_milli=min(limits.default_request_cpu_milli, got["cpu_milli"]),
        request_memory_mib=min(limits.default_request_memory_mib, got["memory_mib"]),
        min_tier=limits.min_tier,
    )


def _within(limits: LimitRange, name: str, value: int | None) -> int:
    if value is None:
        return int(getattr(limits, f"default_{name}"))
    low, high = getattr(limits, f"min_{name}"), getattr(limits, f"max_{name}")
    if not low <= value <= high:
        raise InvalidInput(f"{name} must be from {low} to {high}, not {value}.", field=name, min=low, max=high)
    return value
