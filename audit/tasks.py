"""What the worker does for the ledger again and again. Rows are the truth: a task only says "look again"."""

from __future__ import annotations

from celery import shared_task

from audit import anchors, argument_copies, checkpoints, deliveries, producers, retention, sealing
from audit.verification import regular

DELIVERING_S = 20.0
"""For how long a run sends to webhooks before it leaves the rest to the next one."""


@shared_task(name="audit.seal")  # type: ignore[untyped-decorator]
def seal() -> None:
    """Number the events that wait and sign the chains that are due. Each second."""
    sealing.seal()
    checkpoints.sign_due()


@shared_task(name="audit.anchor")  # type: ignore[untyped-decorator]
def anchor() -> None:
    """Write new checkpoints to the anchors outside the database. Each second, beside slower work."""
    anchors.deliver_all()


@shared_task(name="audit.heartbeat")  # type: ignore[untyped-decorator]
def heartbeat() -> None:
    """Record that the audit is alive, how many events it holds, and who fell silent. Each minute."""
    producers.beat()


@shared_task(name="audit.deliver")  # type: ignore[untyped-decorator]
def deliver() -> None:
    """Send sealed events to the webhooks that want them. Each second."""
    deliveries.queue_new()
    deliveries.deliver_due(budget_s=DELIVERING_S)


@shared_task(name="audit.forget_deliveries")  # type: ignore[untyped-decorator]
def forget_deliveries() -> None:
    """Delete what the delivery log holds of the last month and before. Each hour."""
    deliveries.forget_old()


@shared_task(name="audit.erase_arguments")  # type: ignore[untyped-decorator]
def erase_arguments() -> None:
    """Erase the copies of arguments whose time is over. Each hour."""
    argument_copies.erase_expired()


@shared_task(name="audit.verify")  # type: ignore[untyped-decorator]
def verify() -> None:
    """Verify what is new of every chain, and everything once a day. Each hour."""
    regular.look_again()


@shared_task(name="audit.prune")  # type: ignore[untyped-decorator]
def prune() -> None:
    """Drop what is older than its tenant's retention. A few times a day, so that a restart makes no day go by."""
    retention.prune_all()
