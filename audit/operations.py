"""Long tasks as rows: begun once, worked on by whoever holds the lease, finished once."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.db import IntegrityError, models, transaction

from audit.models import Operation, OperationState
from corekit import clock, ids
from corekit.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from corekit.actor import Actor

LEASE = timedelta(seconds=60)
"""For how long nobody else takes a task over from one who says nothing: longer than any of its steps."""


def begin(
    *, actor: Actor, kind: str, object_type: str, object_id: str, tenant_id: UUID | None, progress: Mapping[str, Any]
) -> tuple[Operation, bool]:
    """Return the running operation of this kind on this object and whether it is new."""
    operation = Operation(
        tenant_id=tenant_id,
        type=kind,
        object_type=object_type,
        object_id=object_id,
        progress=dict(progress),
        actor_kind=actor.kind,
        actor_id=actor.id[:64],
        actor_name=actor.name[:200],
    )
    try:
        with transaction.atomic():
            operation.save(force_insert=True)
    except IntegrityError:
        running = Operation.objects.filter(
            type=kind, object_type=object_type, object_id=object_id, state=OperationState.RUNNING
        )
        return running.get(), False
    return operation, True


def running(kind: str) -> list[Operation]:
    """Return the operations of a kind that somebody has to work on, oldest first."""
    return list(Operation.objects.filter(type=kind, state=OperationState.RUNNING).order_by("created_at", "id"))


class Lease:
    """The right to work on an operation. Every step is written under it; who lost it may write nothing more."""

    def __init__(self, operation: Operation) -> None:
        self.operation = operation
        self._holder = ids.new_event_id()

    def take(self) -> bool:
        """Take the operation if nobody works on it; say whether it is ours."""
        now = clock.now()
        free = models.Q(leased_until__isnull=True) | models.Q(leased_until__lte=now)
        taken = Operation.objects.filter(free, pk=self.operation.pk, state=OperationState.RUNNING).update(
            leased_by=self._holder, leased_until=now + LEASE, updated_at=now
        )
        if taken:
            self.operation.refresh_from_db()
        return bool(taken)

    def write(self, progress: Mapping[str, Any], *, error: str = "") -> None:
        """Write how far it is, and hold the lease on. Raises Conflict when somebody else took it."""
        now = clock.now()
        self._update(progress=dict(progress), error=error[:500], leased_until=now + LEASE, updated_at=now)

    def let_go(self, error: str = "") -> None:
        """Leave the rest to whoever comes next, and say why."""
        self._update(error=error[:500], leased_by="", leased_until=None, updated_at=clock.now())

    def succeed(self, result: Mapping[str, Any]) -> None:
        """Finish it. Raises Conflict when somebody else took it."""
        now = clock.now()
        self._update(
            state=OperationState.SUCCEEDED,
            result=dict(result),
            error="",
            leased_by="",
            leased_until=None,
            updated_at=now,
            finished_at=now,
        )

    def _update(self, **values: Any) -> None:
        mine = Operation.objects.filter(pk=self.operation.pk, leased_by=self._holder, state=OperationState.RUNNING)
        if not mine.update(**values):
            raise Conflict("Somebody else works on this operation by now.")
        for name, value in values.items():
            setattr(self.operation, name, value)
