"""Notes beside each chain how its last verification went, and raises the alarm when one finds something."""

from __future__ import annotations

from typing import TYPE_CHECKING

from audit.models import PLATFORM_CHAIN, Chain
from audit.recording import record
from audit.verification.findings import Verdict
from corekit import clock, ids
from corekit.actor import SYSTEM

if TYPE_CHECKING:
    from audit.verification.findings import ChainReport, Report


def note(report: Report) -> None:
    """Write down what came of a verification that went to the end of its chains.

    What a chain was found to be is an event of its tenant, and the platform's, when it wasn't found so before.
    """
    for chain in report.chains:
        row = Chain.objects.filter(pk=chain.chain)
        before = row.values_list("verified_as", flat=True).first()
        if before is None:
            continue
        word = str(chain.verdict)
        row.update(verified_size=chain.size, verified_at=clock.now(), verified_as=word)
        if chain.verdict is not Verdict.OK and before != word:
            _alarm(chain)


def _alarm(chain: ChainReport) -> None:
    first = chain.first
    record(
        "audit.verification_failed",
        actor=SYSTEM,
        object_type="audit",
        object_id=chain.chain,
        tenant_id=chain.chain if chain.chain != PLATFORM_CHAIN and ids.is_event_id(chain.chain) else None,
        outcome="error",
        details={
            "verdict": str(chain.verdict),
            "seq": first.seq if first else 0,
            "event": first.event_id if first else "",
            "checkpoint": chain.good_checkpoint,
        },
    )
