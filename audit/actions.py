"""What the audit does about itself: say who read it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from audit.recording import record

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from corekit.actor import Actor


def note_reading(*, actor: Actor, tenant_id: UUID | None, filters: Sequence[str]) -> None:
    """Write that an operator reads the audit, for the tenant to see when it is about one tenant alone."""
    record(
        "audit.read",
        actor=actor,
        object_type="audit",
        object_id=tenant_id.hex if tenant_id else "all",
        tenant_id=tenant_id,
        details={"filters": list(filters)},
    )
