"""The states of a tenant."""

from __future__ import annotations

from django.db import models

from corekit.states import StateTable


class TenantState(models.TextChoices):
    """A suspended tenant keeps its data, and its keys open nothing."""

    ACTIVE = "active", "Active"
    SUSPENDED = "suspended", "Suspended"


TENANT_STATES = StateTable({"active": {"suspended"}, "suspended": {"active"}}, initial=TenantState.ACTIVE, terminal=())
