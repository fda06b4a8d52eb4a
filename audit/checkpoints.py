"""Signed checkpoints: what the ledger holds at a moment, stated so that nobody can deny or change it later.

The text of one, before its signature:

    gatehouse/<installation>/<chain>
    <number of events>
    <base64 of the tree's root>
    previous <hash of the checkpoint before it; the first one has no such line>
    time <when it was signed>
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

import structlog
from django.db import connection, transaction
from django.db.models import F, Q

from audit import merkle, signing
from audit.models import Chain, Checkpoint, Seal
from corekit import clock

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

logger = structlog.get_logger("gatehouse.audit")

EVERY = 1000
"""So many events without a checkpoint are signed at once."""
AFTER = timedelta(seconds=60)
"""For so long new events of a chain may wait for its next checkpoint."""
_LOCK = 0x6761_7465_6C65_6467  # the ledger's one writer; any number that nobody else locks


class Said(NamedTuple):
    """What a checkpoint states."""

    chain: str
    size: int
    root: bytes
    previous: str
    """The hash of the checkpoint before it; empty in the first."""
    at: str


def take_turn() -> bool:
    """Become the one who writes seals and checkpoints until the transaction ends; say whether it worked."""
    if connection.vendor != "postgresql":
        # Whoever is in a transaction holds SQLite's only write lock.
        return True
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [_LOCK])
        return bool(cursor.fetchone()[0])


def sign_full(chains: Iterable[Chain]) -> None:
    """Sign the chains that have a thousand new events. Call it in the transaction that sealed them."""
    for chain in chains:
        if chain.size - chain.checkpoint_size >= EVERY and signing.can_sign():
            _sign(chain)


def sign_due() -> int:
    """Sign the chains whose new events have waited long enough; return how many were signed."""
    signed = 0
    long_ago = Q(checkpoint_at__isnull=True) | Q(checkpoint_at__lte=clock.now() - AFTER)
    due = Chain.objects.filter(long_ago, size__gt=F("checkpoint_size")).order_by("name").values_list("name", flat=True)
    for name in list(due) if signing.can_sign() else []:
        with transaction.atomic():
            if not take_turn():
                return signed
            chain = Chain.objects.get(pk=name)
            if chain.size > chain.checkpoint_size:
                signed += _sign(chain)
    return signed


def read(note: str, keys: Sequence[bytes]) -> Said | None:
    """Return what a signed note states; None unless one of the keys signed it and it is a checkpoint."""
    text = signing.open_note(note, keys)
    if text is None:
        return None
    lines = text[:-1].split("\n")
    try:
        more = dict(line.split(" ", 1) for line in lines[3:])
        root = base64.b64decode(lines[2], validate=True)
        size, chain = int(lines[1]), signing.chain_of(lines[0])
    except (ValueError, IndexError, binascii.Error):
        return None
    if not chain or size < 1 or str(size) != lines[1] or len(root) != 32:
        return None
    return Said(chain, size, root, more.get("previous", ""), more.get("time", ""))


def note_hash(note: str) -> str:
    """Return the hash by which the next checkpoint names this one."""
    return hashlib.sha256(note.encode()).hexdigest()


def _sign(chain: Chain) -> bool:
    """Sign all that a chain holds; say whether it was done. A chain with a hole is not vouched for."""
    new = Seal.objects.filter(chain=chain.name, seq__gt=chain.checkpoint_size, seq__lte=chain.size).order_by("seq")
    leaves = b"".join(bytes.fromhex(one) for one in new.values_list("hash", flat=True))
    if len(leaves) != 32 * (chain.size - chain.checkpoint_size):
        logger.critical("checkpoint_refused", chain=chain.name, size=chain.size, reason="seals are missing")
        return False
    tree = merkle.Frontier(chain.size, map(bytes.fromhex, chain.frontier))
    before = Checkpoint.objects.filter(chain=chain.name).order_by("-size").values_list("note", flat=True).first()
    now = clock.now()
    signing.register_key()
    lines = [signing.origin(chain.name), str(chain.size), base64.b64encode(tree.root()).decode()]
    if before is not None:
        lines.append(f"previous {note_hash(before)}")
    lines.append(f"time {clock.to_rfc3339(now)}")
    note, key_id = signing.sign_note("\n".join(lines) + "\n")
    Checkpoint(
        chain=chain.name, size=chain.size, root=tree.root().hex(), note=note, key_id=key_id, leaves=leaves, at=now
    ).save()
    Chain.objects.filter(pk=chain.name).update(checkpoint_size=chain.size, checkpoint_at=now)
    chain.checkpoint_size, chain.checkpoint_at = chain.size, now
    return True
