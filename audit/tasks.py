"""What the worker does for the ledger again and again. Rows are the truth: a task only says "look again"."""

from __future__ import annotations

from celery import shared_task

from audit import checkpoints, producers, sealing


@shared_task(name="audit.seal")  # type: ignore[untyped-decorator]
def seal() -> None:
    """Number the events that wait and sign the chains that are due. Each second."""
    sealing.seal()
    checkpoints.sign_due()


@shared_task(name="audit.heartbeat")  # type: ignore[untyped-decorator]
def heartbeat() -> None:
    """Record that the audit is alive, how many events it holds, and who fell silent. Each minute."""
    producers.beat()
