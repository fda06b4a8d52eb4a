"""The audit's tables."""

from __future__ import annotations

from audit.models.events import (
    EGRESS_CODES,
    AppendOnly,
    Band,
    Decision,
    Event,
    EventQuerySet,
    ImmutableError,
    Outcome,
    Phase,
)
from audit.models.ledger import (
    PLATFORM_CHAIN,
    AnchorPosition,
    ArgumentCopy,
    Chain,
    Checkpoint,
    LedgerPolicy,
    Producer,
    PruneRange,
    PruneRecord,
    Seal,
    SigningKey,
    Unsealed,
)
from audit.models.operations import Operation, OperationState
from audit.models.risk import RiskLevel, RiskPolicy, RiskSuppression, Verdict, VerdictAction, VerdictState
from audit.models.webhooks import Delivery, DeliveryState, Webhook

__all__ = [
    "EGRESS_CODES",
    "PLATFORM_CHAIN",
    "AnchorPosition",
    "AppendOnly",
    "ArgumentCopy",
    "Band",
    "Chain",
    "Checkpoint",
    "Decision",
    "Delivery",
    "DeliveryState",
    "Event",
    "EventQuerySet",
    "ImmutableError",
    "LedgerPolicy",
    "Operation",
    "OperationState",
    "Outcome",
    "Phase",
    "Producer",
    "PruneRange",
    "PruneRecord",
    "RiskLevel",
    "RiskPolicy",
    "RiskSuppression",
    "Seal",
    "SigningKey",
    "Unsealed",
    "Verdict",
    "VerdictAction",
    "VerdictState",
    "Webhook",
]
