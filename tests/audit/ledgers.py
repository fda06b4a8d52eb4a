"""A tenant's chain as the tests of verification need it: real events, sealed and signed by the product."""

from __future__ import annotations

import base64
import dataclasses
import json
from typing import TYPE_CHECKING, Any

from django.db import transaction

from audit import checkpoints, sealing, signing
from audit.models import Chain, Checkpoint, Seal
from audit.recording import record
from audit.verification import checking
from corekit.actor import Actor

if TYPE_CHECKING:
    from pathlib import Path

    from audit.verification.findings import Finding, Report, Verdict
    from tenants.models import Tenant

AGENT = Actor(
    kind="api_key",
    id="a1b2c3d4e5f60718",
    name="Agent",
    tenant_id=None,
    scopes=frozenset(),
    origin="192.0.2.7",
    request_id="r" * 32,
)


@dataclasses.dataclass
class Ledger:
    """One chain, and its numbers as they were when nobody had touched them."""

    chain: str
    tenant: Tenant
    ids: dict[int, str] = dataclasses.field(default_factory=dict)
    hashes: dict[int, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, tenant: Tenant, events: int, *, signed: bool) -> Ledger:
        """Return a tenant's chain, filled up to so many events."""
        ledger = cls(tenant.id.hex, tenant)
        sealing.seal()
        ledger.add(events - Seal.objects.filter(chain=ledger.chain).count())
        if signed:
            ledger.sign()
        return ledger

    @property
    def size(self) -> int:
        """How many events it had."""
        return len(self.ids)

    def add(self, events: int) -> None:
        """Record and seal more events."""
        with transaction.atomic():
            for number in range(events):
                record(
                    "sandbox.created",
                    actor=AGENT,
                    object_type="sandbox",
                    object_id=f"i{number}",
                    tenant_id=self.tenant.id,
                    arguments={"template": "base", "timeout": 300 + number},
                    details={"template": "base", "timeout_ms": 300_000 + number},
                    risk=(number % 100, "because"),
                )
        sealing.seal()
        for seal in Seal.objects.filter(chain=self.chain).values_list("seq", "event_id", "hash"):
            self.ids[seal[0]], self.hashes[seal[0]] = seal[1:]

    def sign(self) -> None:
        """Sign a checkpoint over all of it, as after a minute."""
        Chain.objects.filter(pk=self.chain).update(checkpoint_at=None)
        assert checkpoints.sign_due()
        assert Checkpoint.objects.filter(chain=self.chain, size=self.size).exists()

    def anchor(self, folder: Path) -> Path:
        """Tell an anchor's folder of all checkpoints."""
        folder.mkdir(exist_ok=True)
        with (folder / f"{self.chain}.jsonl").open("w") as lines:
            rows = Checkpoint.objects.filter(chain=self.chain).order_by("pk").values_list("note", "leaves")
            for note, leaves in rows:
                lines.write(json.dumps({"note": note, "leaves": base64.b64encode(leaves).decode()}) + "\n")
        return folder

    def event_id(self, seq: int) -> str:
        """Return the event that had a number."""
        return self.ids[seq]

    def hash_of(self, seq: int) -> str:
        """Return the hash that a number had."""
        return self.hashes[seq]


@dataclasses.dataclass
class Outcome:
    """What a verification said about one chain."""

    report: Report
    chain: str

    @property
    def verdict(self) -> Verdict:
        """The verdict over all that was looked at."""
        return self.report.verdict

    @property
    def findings(self) -> list[Finding]:
        """What is wrong in the chain."""
        return [finding for chain in self.report.chains if chain.chain == self.chain for finding in chain.findings]

    @property
    def loose(self) -> list[Finding]:
        """What has no place in any chain."""
        return self.report.findings

    @property
    def first(self) -> Finding | None:
        """What the chain's verdict is about."""
        return next(chain.first for chain in self.report.chains if chain.chain == self.chain)

    @property
    def good_checkpoint(self) -> int:
        """The size of the last checkpoint that holds."""
        return next(chain.good_checkpoint for chain in self.report.chains if chain.chain == self.chain)

    @property
    def checked(self) -> int:
        """How many events were hashed."""
        return self.report.checked


def keys() -> list[bytes]:
    """Return the key that the tests trust."""
    return [signing.public_key()]


def verify(ledger: Ledger, *, everything: bool = False, anchors: Path | None = None, **more: Any) -> Outcome:
    """Verify one chain, or everything."""
    asked: dict[str, Any] = {"keys": keys(), "chains": [] if everything else [ledger.chain], "anchors": anchors} | more
    return Outcome(checking.verify(checking.Request(**asked)), ledger.chain)
