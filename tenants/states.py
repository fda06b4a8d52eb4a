"""The states of a tenant."""

from __future__ import annotations

from django.db import models

from corekit.states import StateTable


class TenantState(models.TextChoices):
    """A suspended tenant keeps its data, and its keys open nothing. One that is offboarding is being erased."""

    ACTIVE = "active", "Active"
    SUSPENDED = "suspended", "Suspended"
    OFFBOARDING = "offboarding", "Offboarding"


TENANT_STATES = StateTable(
    {"active": {"suspended", "offboarding"}, "suspended": {"active", "offboarding"}},
    initial=TenantState.ACTIVE,
    terminal={TenantState.OFFBOARDING},
)
