"""What every vault does: keep values, each under a reference, and give them back to nobody but the broker's side.

All calls are synchronous and may wait for a network: no transaction is open while one runs. An error names the vault
and never holds a value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from corekit.errors import Conflict, GatehouseError, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from tenants.vaults.secretvalue import SecretValue


@dataclass(frozen=True, slots=True)
class Ref:
    """Which secret: whose, and under which name people know it.

    `secret_id` (32 hex) tells it from every other one there ever was: a name that was deleted and given again is
    another secret, so that nothing of the first can come back under it. `entry` names an entry that an operator made
    in the vault; such a secret is only read.
    """

    tenant_id: str
    name: str
    secret_id: str
    entry: str = ""


@dataclass(frozen=True, slots=True)
class Stored:
    """What a vault says of a value that it took: its own name for this version (64 characters at most)."""

    version: str


@dataclass(frozen=True, slots=True)
class Meta:
    """What a vault tells of a secret without its value. `version` is the newest."""

    tenant_id: str
    name: str
    secret_id: str
    version: str
    created_at: datetime
    enabled: bool
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a vault works: one sentence, and when it does not, what to do."""

    ok: bool
    message: str
    fix: str = ""


class Vault(Protocol):
    """One vault. Its methods are called from many threads at once."""

    name: str

    def put(self, ref: Ref, value: SecretValue) -> Stored:
        """Keep a value as the newest version; older ones stay readable by their version."""

    def get(self, ref: Ref, version: str | None = None) -> SecretValue:
        """Return the value of a version, without one the newest. Raises SecretMissing, SecretDisabled."""

    def list(self, tenant_id: str) -> Iterator[Meta]:
        """Return what the vault keeps for a tenant, deleted entries too where it knows of them; never a value."""

    def disable(self, ref: Ref, version: str | None = None) -> None:
        """Give out a version, or without one all, no more until it is enabled. Raises SecretMissing."""

    def enable(self, ref: Ref, version: str | None = None) -> None:
        """Give out what was disabled again. Raises SecretMissing."""

    def delete(self, ref: Ref) -> None:
        """Give out no version any more. What the vault keeps of it can be recovered until it is purged.

        Again, or for a secret that is not there, it is harmless.
        """

    def recover(self, ref: Ref) -> None:
        """Undo a deletion. Raises SecretMissing when nothing of it is left."""

    def purge(self, ref: Ref) -> None:
        """Erase what is deleted, for good. Harmless for what is not there; VaultDenied where the vault forbids it."""

    def health(self) -> Health:
        """Try whether the vault answers and would open what it keeps. Never raises."""


class VaultUnavailable(Unavailable):
    """The vault does not answer, or has too much to do; `retry_after` says when to come back."""

    code = "vault_unavailable"
    title = "The vault is not available at the moment"


class VaultDenied(GatehouseError):
    """The vault refuses us. For callers it is away: they can mend nothing, an operator can."""

    code = "vault_denied"
    status = 503
    title = "The vault refuses access"
    default_retry_after = 30


class VaultMisconfigured(GatehouseError):
    """Nobody can use the vault until an operator mends its configuration; the message says what is wrong."""

    code = "vault_misconfigured"
    status = 503
    title = "The vault is not set up"
    default_should_retry = False


class SecretMissing(NotFound):
    """There is no such secret, or no such version of it."""

    code = "secret_not_found"
    title = "There is no such secret."


class SecretDisabled(Conflict):
    """The secret is there and is given to nobody: it was disabled, or is outside the time in which it counts."""

    code = "secret_disabled"
    title = "The secret is disabled."


class SecretUnreadable(GatehouseError):
    """What the vault keeps does not open: it was changed, or belongs to another secret. An operator must look."""

    code = "secret_unreadable"
    title = "The vault keeps something that is not what was written there."
    default_should_retry = False
