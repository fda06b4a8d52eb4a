"""Which vaults there are: the embedded one, and those that the operator configured.

`GATEHOUSE_VAULTS_FILE` names a TOML file with a table for each, of which `kind` says what it is and `tenants`, where
it is given, whose secrets may lie there. `KEY_VAULT_URL` alone is a Key Vault of the name `azure`.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from corekit.errors import InvalidInput
from tenants.vaults import masterkeys
from tenants.vaults.contract import Ref, VaultMisconfigured
from tenants.vaults.embedded import NAME as EMBEDDED
from tenants.vaults.embedded import EmbeddedVault

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tenants.vaults.contract import Vault

AZURE = "azure"
# Kind → the module whose `open_vault(name, options)` makes one. It raises VaultMisconfigured, and connects to nothing.
KINDS = {"azure_key_vault": "tenants.vaults.azure_key_vault"}
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class Configured:
    """A vault, and the slugs of the tenants whose secrets may lie in it; None is everybody."""

    vault: Vault
    tenants: frozenset[str] | None = None

    def serves(self, slug: str) -> bool:
        """Say whether a tenant's secrets may lie here."""
        return self.tenants is None or slug in self.tenants


def configured() -> Mapping[str, Configured]:
    """Return all vaults by their names. Raises VaultMisconfigured for a configuration that can't be used."""
    return _of_installation(settings.GATEHOUSE)


def vault_named(name: str) -> Vault:
    """Return a vault. Raises VaultMisconfigured when the configuration does not name it any more."""
    found = configured().get(name)
    if found is None:
        raise VaultMisconfigured(f"The vault {name} is not configured: name it in GATEHOUSE_VAULTS_FILE again.")
    return found.vault


def vault_for(slug: str, name: str | None) -> Vault:
    """Return the vault of a name, or the default one, for a new secret of a tenant. Raises InvalidInput."""
    found = configured().get(name or settings.GATEHOUSE.default_vault)
    if found is None or not found.serves(slug):
        raise InvalidInput("There is no such vault.", field="vault")
    return found.vault


def embedded() -> EmbeddedVault:
    """Return the embedded vault."""
    vault = configured()[EMBEDDED].vault
    assert isinstance(vault, EmbeddedVault)  # noqa: S101  (`_of_installation` makes it)
    return vault


@lru_cache(maxsize=4)
def _of_installation(place: Any) -> Mapping[str, Configured]:
    others = {name: _opened(name, options) for name, options in _options(place)}
    if place.default_vault not in {EMBEDDED, *others}:
        raise VaultMisconfigured(f"GATEHOUSE_DEFAULT_VAULT names {place.default_vault}, which is not configured.")
    return {EMBEDDED: Configured(EmbeddedVault(_masters(place, others))), **others}


def _options(place: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    named = _read(place.vaults_file) if place.vaults_file else {}
    if place.key_vault_url:
        if AZURE in named:
            raise VaultMisconfigured(f"{place.vaults_file} and KEY_VAULT_URL both say what {AZURE} is: leave one out.")
        named = {AZURE: {"kind": "azure_key_vault", "url": place.key_vault_url, "credential": "default"}, **named}
    for name, options in named.items():
        if not isinstance(options, dict) or not _NAME.fullmatch(name) or name == EMBEDDED:
            raise VaultMisconfigured(f"{place.vaults_file}: {name[:63]!r} can't be the name of a vault.")
        yield name, options


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise VaultMisconfigured(f"GATEHOUSE_VAULTS_FILE {path} can't be read: {error.strerror}.") from error
    except ValueError as error:
        raise VaultMisconfigured(f"GATEHOUSE_VAULTS_FILE {path} is no TOML: {error}.") from error


def _opened(name: str, options: dict[str, Any]) -> Configured:
    options = dict(options)
    kind, tenants = options.pop("kind", None), options.pop("tenants", None)
    if kind not in KINDS:
        raise VaultMisconfigured(f"The vault {name} has the kind {kind!r}: there is {', '.join(KINDS)}.")
    if tenants is not None and not (isinstance(tenants, list) and all(isinstance(slug, str) for slug in tenants)):
        raise VaultMisconfigured(f"The vault {name}: tenants must be a list of slugs.")
    vault: Vault = import_module(KINDS[kind]).open_vault(name, options)
    return Configured(vault, None if tenants is None else frozenset(tenants))


def _masters(place: Any, others: Mapping[str, Configured]) -> masterkeys.MasterKeys:
    forbidden = _other_keys(place)
    if place.vault_key_text:
        return masterkeys.from_text(place.vault_key_text, "GATEHOUSE_VAULT_KEY", forbidden)
    if not place.vault_key_secret:
        return masterkeys.from_file(place.vault_key_file, forbidden)
    vault_name, _, entry = place.vault_key_secret.rpartition("/")
    source = others.get(vault_name or AZURE)
    if source is None:
        raise VaultMisconfigured(f"GATEHOUSE_VAULT_KEY_SECRET: the vault {vault_name or AZURE} is not configured.")
    ref = Ref(tenant_id="", name=entry, secret_id="", entry=entry)

    def read() -> tuple[masterkeys.MasterKey, ...]:
        text = source.vault.get(ref).reveal().decode("ascii", "replace")
        return masterkeys.parse(text, f"The secret {entry} of the vault {source.vault.name}", forbidden)

    return masterkeys.MasterKeys(read, lambda: None)


def _other_keys(place: Any) -> list[bytes]:
    """Return what guards something else here, and what is made of it without a second secret."""
    found = [hashlib.sha256(settings.SECRET_KEY.encode()).digest()]
    try:
        found += [bytes.fromhex(settings.SECRET_KEY), place.seed()]
    except (ValueError, ImproperlyConfigured):
        # Another form than ours, or not for this process to read.
        return found
    return found
