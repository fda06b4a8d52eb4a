"""Azure Key Vault as a vault: each secret an entry of its own, each value a version of it.

Deleting is soft there: an entry can be recovered until it is purged or its time is up, and its name is taken until
then. Not before and expiry are held to here, because the vault only notes them.
"""

from __future__ import annotations

import logging
import re
import time
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit

from azure.keyvault.secrets import SecretClient

from corekit.errors import Conflict, GatehouseError, InvalidInput
from tenants.vaults import azurenames
from tenants.vaults.azurecalls import CONNECT_S, READ_S, Calls
from tenants.vaults.azurecredentials import CLOUDS, Options, credentials
from tenants.vaults.contract import (
    Health,
    Meta,
    SecretDisabled,
    SecretMissing,
    SecretUnreadable,
    Stored,
    VaultDenied,
    VaultMisconfigured,
)
from tenants.vaults.secretvalue import SecretValue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from azure.core.credentials import TokenCredential
    from azure.keyvault.secrets import DeletedSecret, SecretProperties

    from tenants.vaults.contract import Ref

Item = TypeVar("Item")

API_VERSION = "7.6"
MAX_VALUE_BYTES = 25 * 1024
# An entry that nobody makes: asking for it shows that the vault lets us read.
_PROBE = "gatehouse--health"
_HOST = re.compile(r"[a-z0-9](?:-?[a-z0-9]){2,23}")


def open_vault(
    name: str,
    table: dict[str, Any],
    pause: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
) -> AzureKeyVault:
    """Return the vault of a configured table. It connects when it is first used."""
    options = Options(name, table)
    url, cloud = _checked(name, options.required("url"))
    # Its own lines about requests are for who looks for a fault, and hold neither bodies nor tokens.
    transport: dict[str, Any] = {
        "connection_timeout": CONNECT_S,
        "read_timeout": READ_S,
        "retry_total": 0,
        "permit_redirects": False,
        "http_logging_level": logging.DEBUG,
        "logging_enable": False,
    }
    if "ca_file" in table:
        transport["connection_verify"] = str(options.file("ca_file"))
    make_credential = credentials(options, cloud, transport)
    options.finish()

    def sign_in() -> Callable[[], SecretClient]:
        # The client takes a credential in either of its two forms.
        identity = cast("TokenCredential", make_credential())
        return lambda: SecretClient(url, identity, api_version=API_VERSION, **transport)

    try:
        return AzureKeyVault(Calls(name, sign_in, pause, monotonic))
    except ValueError:
        problem = f"The vault {name}: tenant_id and client_id are not what Azure calls so."
    raise VaultMisconfigured(problem)


class AzureKeyVault:
    """One Key Vault. Two vaults never share a credential or a connection."""

    def __init__(self, calls: Calls) -> None:
        self.name = calls.vault
        self._calls = calls

    def put(self, ref: Ref, value: SecretValue) -> Stored:
        """Keep a value as the newest version. Raises SecretDeleted while a deleted entry has the name."""
        entry = _own_entry(ref)
        text = _text_for(self.name, value)
        stored = self._calls.run(
            lambda client, options: client.set_secret(
                entry, text, tags=azurenames.tags_of(ref), content_type="text/plain", **options
            ),
            repeatable=False,
        )
        return Stored(stored.properties.version or "")

    def get(self, ref: Ref, version: str | None = None) -> SecretValue:
        """Return a value, unless its time has not come or is over."""
        entry = _entry(ref)
        try:
            found = self._calls.run(lambda client, options: client.get_secret(entry, version, **options))
        except VaultDenied:
            if self._is_withheld(entry, version):
                raise SecretDisabled from None
            raise
        self._require_owner(ref, found.properties)
        self._require_time(found.properties)
        if found.value is None:
            raise SecretUnreadable
        return SecretValue(found.value.encode())

    def list(self, tenant_id: str) -> Iterator[Meta]:
        """Return what the vault keeps for a tenant, deleted entries too. It reads the list of the whole vault."""
        for properties in self._listed(lambda client, options: client.list_properties_of_secrets(**options)):
            meta = self._meta(tenant_id, properties)
            if meta is not None:
                yield meta
        for gone in self._listed(lambda client, options: client.list_deleted_secrets(**options)):
            meta = self._meta_of_deleted(tenant_id, gone)
            if meta is not None:
                yield meta

    def disable(self, ref: Ref, version: str | None = None) -> None:
        """Give out a version, or all, no more."""
        self._enable(ref, version, enabled=False)

    def enable(self, ref: Ref, version: str | None = None) -> None:
        """Give out what was disabled again."""
        self._enable(ref, version, enabled=True)

    def delete(self, ref: Ref) -> None:
        """Give out no version any more; returns when the vault has done it, or after some seconds."""
        entry = _own_entry(ref)
        try:
            self._calls.run(lambda client, options: client.begin_delete_secret(entry, **options))
        except SecretMissing:
            return
        self._calls.wait_for(lambda client, options: client.get_deleted_secret(entry, **options))

    def recover(self, ref: Ref) -> None:
        """Undo a deletion; returns when the entry is back, or after some seconds."""
        entry = _own_entry(ref)
        self._calls.run(lambda client, options: client.begin_recover_deleted_secret(entry, **options))
        self._calls.wait_for(lambda client, options: client.get_secret(entry, **options))

    def purge(self, ref: Ref) -> None:
        """Erase what is deleted, for good."""
        entry = _own_entry(ref)
        try:
            self._calls.run(lambda client, options: client.purge_deleted_secret(entry, **options))
        except SecretMissing:
            return

    def health(self) -> Health:
        """Ask for an entry that is not there, which only who may read is told."""
        try:
            self._calls.run(lambda client, options: client.get_secret(_PROBE, **options))
        except SecretMissing:
            return self._answering()
        except GatehouseError as error:
            problem, _, fix = error.message.partition(": ")
            return Health(ok=False, message=f"{problem.rstrip('.')}.", fix=fix.rstrip("."))
        return self._answering()

    def _answering(self) -> Health:
        skew = self._calls.describe_skew()
        if skew:
            return Health(ok=False, message=f"The vault {self.name} answers, but {skew}.", fix="set the clock")
        return Health(ok=True, message=f"The vault {self.name} answers and lets us read.")

    def _enable(self, ref: Ref, version: str | None, *, enabled: bool) -> None:
        entry = _own_entry(ref)
        versions = [version] if version is not None else [found.version for found in self._versions(entry)]
        if not versions:
            raise SecretMissing
        for each in versions:
            self._set_enabled(entry, each, enabled=enabled)

    def _set_enabled(self, entry: str, version: str | None, *, enabled: bool) -> None:
        self._calls.run(
            lambda client, options: client.update_secret_properties(entry, version, enabled=enabled, **options)
        )

    def _versions(self, entry: str) -> Sequence[SecretProperties]:
        try:
            return self._listed(lambda client, options: client.list_properties_of_secret_versions(entry, **options))
        except SecretMissing:
            return ()

    def _newest(self, entry: str) -> SecretProperties | None:
        return max(self._versions(entry), key=_age, default=None)

    def _is_withheld(self, entry: str, version: str | None) -> bool:
        """Say whether a refusal was about the version, whatever words it came in, and not about us."""
        try:
            versions = self._versions(entry)
        except GatehouseError:
            return False
        asked = [found for found in versions if found.version == version]
        about = asked[0] if version is not None and asked else max(versions, key=_age, default=None)
        return about is not None and (about.enabled is False or not self._is_time_for(about))

    def _listed(self, call: Callable[[SecretClient, dict[str, Any]], Iterable[Item]]) -> Sequence[Item]:
        return self._calls.run(lambda client, options: tuple(call(client, options)))

    def _require_owner(self, ref: Ref, properties: SecretProperties) -> None:
        owner = azurenames.tagged_owner(properties.tags)
        if owner is None:
            return
        if ref.entry:
            # What an operator lets somebody read is the operator's; this is another secret's, of whatever tenant.
            raise SecretMissing
        if not azurenames.is_of(ref, owner):
            raise SecretUnreadable

    def _require_time(self, properties: SecretProperties) -> None:
        if not self._is_time_for(properties):
            raise SecretDisabled("The secret is outside of the time in which it counts.")

    def _is_time_for(self, properties: SecretProperties) -> bool:
        now = self._calls.now()
        begins, ends = properties.not_before, properties.expires_on
        return (begins is None or begins <= now) and (ends is None or now < ends)

    def _meta(self, tenant_id: str, properties: SecretProperties) -> Meta | None:
        owner = _owner_in(tenant_id, properties)
        newest = self._newest(properties.name or "") if owner else None
        if owner is None or newest is None or newest.created_on is None:
            return None
        enabled = bool(newest.enabled)
        return Meta(tenant_id, owner.name, owner.secret_id, newest.version or "", newest.created_on, enabled)

    def _meta_of_deleted(self, tenant_id: str, gone: DeletedSecret) -> Meta | None:
        properties = gone.properties
        owner = _owner_in(tenant_id, properties)
        if owner is None or properties.created_on is None:
            return None
        enabled = bool(properties.enabled)
        # Of a deleted entry the vault tells no version.
        return Meta(tenant_id, owner.name, owner.secret_id, "", properties.created_on, enabled, deleted=True)


def _checked(vault: str, url: str) -> tuple[str, str]:
    """Return a vault's URL and who gives out its cloud's tokens: a token goes to nobody else than Azure."""
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    plain = parts.scheme == "https" and parts.netloc.lower() == host and parts.path in {"", "/"}
    for suffix, cloud in CLOUDS.items():
        if host.endswith(suffix) and _HOST.fullmatch(host.removesuffix(suffix)):
            if plain and not parts.query and not parts.fragment:
                return f"https://{host}", cloud
            break
    raise VaultMisconfigured(
        f"The vault {vault}: url must be https://NAME followed by {', '.join(CLOUDS)} and nothing else."
    )


def _entry(ref: Ref) -> str:
    entry = azurenames.entry_of(ref)
    if not azurenames.is_entry(entry):
        raise SecretMissing
    return entry


def _own_entry(ref: Ref) -> str:
    if ref.entry:
        raise Conflict("This secret is one that an operator keeps in the vault: change it there.")
    return _entry(ref)


def _text_for(vault: str, value: SecretValue) -> str:
    data = value.reveal()
    if len(data) > MAX_VALUE_BYTES:
        raise InvalidInput(f"The vault {vault} takes values of {MAX_VALUE_BYTES} bytes at most.", field="value")
    try:
        return data.decode()
    except UnicodeDecodeError:
        pass
    raise InvalidInput(f"The vault {vault} takes text only, in UTF-8.", field="value")


def _age(properties: SecretProperties) -> float:
    return properties.created_on.timestamp() if properties.created_on else 0.0


def _owner_in(tenant_id: str, properties: SecretProperties) -> azurenames.Owner | None:
    """Return whose an entry is when it is a tenant's."""
    name = (properties.name or "").lower()
    owner = azurenames.tagged_owner(properties.tags) or azurenames.owner_of(name)
    return owner if owner is not None and name.startswith(azurenames.prefix_of(tenant_id)) else None
