"""Verifies the ledger on its own: what is new, and once a day everything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from audit.models import Chain
from audit.verification import badges, checking
from audit.verification.findings import Verdict
from corekit import clock

if TYPE_CHECKING:
    from datetime import datetime

EVERYTHING_AT = 3
"""The hour (UTC) at which nothing is taken for granted."""


def look_again(now: datetime | None = None) -> None:
    """Verify what came since each chain was last found good, and note the result. Call it once an hour."""
    everything = (now or clock.now()).hour == EVERYTHING_AT
    if everything:
        badges.note(checking.verify(_request()))
        return
    for name, size, verdict in Chain.objects.order_by("name").values_list("name", "verified_size", "verified_as"):
        # Of a chain that was not good, no part is known to be.
        known = size if verdict == Verdict.OK else 0
        badges.note(checking.verify(_request(name, first=known + 1)))


def _request(*chains: str, first: int = 1) -> checking.Request:
    return checking.Request(
        keys=checking.trusted_keys(None),
        chains=chains,
        first=first,
        anchors=checking.anchor_folder(),
        # A worker's processes have no children of their own.
        jobs=1,
    )
