"""The ledger: events in numbered chains, signed checkpoints of them, and what was pruned."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from audit.models.events import AppendOnly, AppendOnlyQuerySet

CHAIN_LENGTH = 32
PLATFORM_CHAIN = "platform"


class Unsealed(models.Model):
    """An event that waits for its number. A trigger adds the row with the event, the sealer takes it away."""

    event_id = models.CharField(max_length=32)

    def __str__(self) -> str:
        return self.event_id


class Chain(models.Model):
    """The head of one chain: a tenant's (its id in 32 hex) or the platform's.

    `frontier` are the hashes of the perfect subtrees of RFC 6962's tree over the first `size` leaves, largest first,
    so that the next root costs no walk.
    """

    name = models.CharField(primary_key=True, max_length=CHAIN_LENGTH)
    size = models.BigIntegerField(default=0)
    head = models.CharField(max_length=64, blank=True, default="")
    frontier = models.JSONField(default=list)
    sealed_at = models.DateTimeField(null=True)
    checkpoint_size = models.BigIntegerField(default=0)
    checkpoint_at = models.DateTimeField(null=True)
    verified_size = models.BigIntegerField(default=0)
    verified_at = models.DateTimeField(null=True)
    verified_as = models.CharField(max_length=32, blank=True, default="")

    def __str__(self) -> str:
        return self.name


class Seal(AppendOnly):
    """The place of one event in its chain. `id` grows in the order of sealing over all chains: the live feed's cursor.

    `hash` is SHA-256 over a zero byte, the domain, chain, number, the hash before it and the event's canonical form,
    which makes it a leaf of RFC 6962's tree. It stays when the event is pruned.
    """

    chain = models.CharField(max_length=CHAIN_LENGTH)
    seq = models.BigIntegerField()
    event_id = models.CharField(max_length=32, unique=True)
    hash = models.CharField(max_length=64)

    objects = AppendOnlyQuerySet.as_manager()

    class Meta:
        constraints = (models.UniqueConstraint(fields=("chain", "seq"), name="audit_seal_gapless"),)

    def __str__(self) -> str:
        return f"{self.chain} {self.seq}"


class SigningKey(AppendOnly):
    """A public key that signed checkpoints. The private one is a file that only the worker reads."""

    id = models.CharField(primary_key=True, max_length=16)
    public_key = models.CharField(max_length=64)
    created_at = models.DateTimeField(default=timezone.now)

    objects = AppendOnlyQuerySet.as_manager()

    def __str__(self) -> str:
        return self.id


class Checkpoint(AppendOnly):
    """A signed statement: the first `size` events of a chain have this root.

    `note` is the signed text in C2SP's form; it names the checkpoint before it by hash. `leaves` are the leaf hashes
    since that one, 32 bytes each, so that a rewritten chain shows where it was changed.
    """

    chain = models.CharField(max_length=CHAIN_LENGTH)
    size = models.BigIntegerField()
    root = models.CharField(max_length=64)
    note = models.TextField()
    key_id = models.CharField(max_length=16)
    leaves = models.BinaryField()
    at = models.DateTimeField()

    objects = AppendOnlyQuerySet.as_manager()

    class Meta:
        constraints = (models.UniqueConstraint(fields=("chain", "size"), name="audit_checkpoint_once"),)

    def __str__(self) -> str:
        return f"{self.chain} {self.size}"


class AnchorPosition(models.Model):
    """Up to which checkpoint an anchor outside the database was told, and why it is behind."""

    name = models.CharField(primary_key=True, max_length=64)
    checkpoint_id = models.BigIntegerField(default=0)
    delivered_at = models.DateTimeField(null=True)
    error = models.CharField(max_length=500, blank=True, default="")

    def __str__(self) -> str:
        return self.name


class PruneRecord(AppendOnly):
    """A signed statement that the bodies of some old events of a chain were dropped, and under which rule."""

    chain = models.CharField(max_length=CHAIN_LENGTH)
    note = models.TextField()
    key_id = models.CharField(max_length=16)
    events = models.BigIntegerField()
    at = models.DateTimeField()

    objects = AppendOnlyQuerySet.as_manager()

    def __str__(self) -> str:
        return f"{self.chain} {self.events}"


class PruneRange(AppendOnly):
    """Numbers of one chain whose events a prune record names. Only a row here lets an event be deleted."""

    record = models.ForeignKey(PruneRecord, on_delete=models.PROTECT, related_name="ranges")
    chain = models.CharField(max_length=CHAIN_LENGTH)
    first = models.BigIntegerField()
    last = models.BigIntegerField()

    objects = AppendOnlyQuerySet.as_manager()

    class Meta:
        indexes = (models.Index(fields=("chain", "first", "last"), name="audit_prunerange_find"),)

    def __str__(self) -> str:
        return f"{self.chain} {self.first}-{self.last}"


class LedgerPolicy(models.Model):
    """How long a tenant's events are kept, and whether their arguments are.

    Days. `legal_hold` stops all pruning until it is lifted. `keep_arguments` adds an encrypted copy of arguments,
    kept for `arguments_days`, that only the break-glass permission opens.
    """

    tenant_id = models.UUIDField(primary_key=True)
    retention_days = models.PositiveIntegerField(default=400)
    denied_retention_days = models.PositiveIntegerField(default=800)
    legal_hold = models.BooleanField(default=False)
    hold_note = models.CharField(max_length=500, blank=True, default="")
    keep_arguments = models.BooleanField(default=False)
    arguments_days = models.PositiveIntegerField(default=14)

    def __str__(self) -> str:
        return self.tenant_id.hex


class ArgumentCopy(models.Model):
    """The arguments of one event, encrypted to the tenant's key. Erased after some days."""

    event_id = models.CharField(primary_key=True, max_length=32)
    tenant_id = models.UUIDField(db_index=True)
    key_id = models.CharField(max_length=16)
    ciphertext = models.BinaryField()
    expires_at = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return self.event_id


class Producer(models.Model):
    """A process that writes events: how many of them are sealed, its last number, and when it was last heard."""

    id = models.CharField(primary_key=True, max_length=80)
    events = models.BigIntegerField(default=0)
    last_seq = models.BigIntegerField(default=0)
    heard_at = models.DateTimeField(default=timezone.now)
    silent_since = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return self.id
