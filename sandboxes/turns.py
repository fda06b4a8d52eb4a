"""The turn of who writes: one for the whole process, also for what sandboxes and tenants write together."""

from __future__ import annotations

from tenants.turns import write

__all__ = ["write"]
