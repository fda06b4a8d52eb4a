"""A vault that can be told to be away: everything else is the embedded one's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenants.vaults.contract import Health, Ref, SecretMissing, Stored

if TYPE_CHECKING:
    from collections.abc import Iterator

    from corekit.errors import GatehouseError
    from tenants.vaults.contract import Meta
    from tenants.vaults.embedded import EmbeddedVault
    from tenants.vaults.secretvalue import SecretValue


class FarVault:
    """The vault `far`. While `error` is set, every call raises it; `asked` counts the reads."""

    name = "far"

    def __init__(self, inner: EmbeddedVault) -> None:
        self.inner = inner
        self.error: GatehouseError | None = None
        self.entries: dict[str, SecretValue] = {}
        self.asked = 0

    def put(self, ref: Ref, value: SecretValue) -> Stored:
        """Keep a value."""
        return self._reached().put(ref, value)

    def get(self, ref: Ref, version: str | None = None) -> SecretValue:
        """Return a value, or an entry that somebody else made."""
        self.asked += 1
        inner = self._reached()
        if not ref.entry:
            return inner.get(ref, version)
        if ref.entry not in self.entries:
            raise SecretMissing
        return self.entries[ref.entry]

    def list(self, tenant_id: str) -> Iterator[Meta]:
        """Return what there is."""
        return self._reached().list(tenant_id)

    def disable(self, ref: Ref, version: str | None = None) -> None:
        """Give out no more."""
        self._reached().disable(ref, version)

    def enable(self, ref: Ref, version: str | None = None) -> None:
        """Give out again."""
        self._reached().enable(ref, version)

    def delete(self, ref: Ref) -> None:
        """Delete."""
        self._reached().delete(ref)

    def recover(self, ref: Ref) -> None:
        """Recover."""
        self._reached().recover(ref)

    def purge(self, ref: Ref) -> None:
        """Purge."""
        self._reached().purge(ref)

    def health(self) -> Health:
        """Say whether it is away."""
        return Health(ok=self.error is None, message="The vault is away." if self.error else "It answers.")

    def _reached(self) -> EmbeddedVault:
        if self.error is not None:
            raise self.error
        return self.inner
