"""Every change to secrets: one function each, with the actor by keyword and its audit row in the same transaction.

A vault may be far away, so it is asked outside of transactions: first the vault has the value and then the row says
so; first the row says that it is gone and then the vault erases it. What a crash leaves in between is a value that
nothing names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
from django.db import IntegrityError, transaction
from django.db.models import F

from audit.recording import record
from corekit import clock
from corekit.errors import Conflict, GatehouseError, InvalidInput, NotFound
from tenants.models import Tenant
from tenants.policy import require
from tenants.secretmodels import Secret, SecretState, SecretVersion, new_secret_id
from tenants.secrets.names import checked_metadata, checked_name, checked_value
from tenants.secrets.selectors import WRITE
from tenants.states import TenantState
from tenants.vaults import choosing
from tenants.vaults.contract import VaultDenied
from tenants.vaults.embedded import NAME as EMBEDDED
from tenants.vaults.revealing import forget_values, ref_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from corekit.actor import Actor

logger = structlog.get_logger("tenants.secrets")

OPERATE = "platform:write"
MAX_SECRETS = 1000
MAX_VERSIONS = 100_000
MAX_ENTRY = 127
_GONE = "There is no such secret."


class SecretLimitReachedError(Conflict):
    """The tenant has as many secrets as it may have."""

    code = "secret_limit_reached"
    title = f"There are {MAX_SECRETS} secrets already: delete one first."


def create_secret(
    *,
    actor: Actor,
    tenant: Tenant,
    name: str,
    value: str,
    metadata: Mapping[str, object] | None = None,
    vault: str | None = None,
) -> Secret:
    """Create a secret with its first value. Raises InvalidInput naming the field, Conflict for a name that is taken."""
    _require_in(actor, tenant)
    secret = _new(actor, tenant, name, metadata, choosing.vault_for(tenant.slug, vault).name)
    checked = checked_value(value)
    _require_free(secret)
    stored = choosing.vault_named(secret.vault).put(ref_of(secret), checked)
    try:
        _keep_new(actor, secret, stored.version)
    except GatehouseError:
        # Nothing names this value: the vault need not keep it.
        _erase(secret)
        raise
    return secret


def link_secret(
    *,
    actor: Actor,
    tenant: Tenant,
    name: str,
    vault: str,
    entry: str,
    metadata: Mapping[str, object] | None = None,
) -> Secret:
    """Make a secret of an entry that an operator made in a vault, which keeps the value and changes it.

    Only operators may: the name of an entry is all that keeps one tenant's from another's there. Raises SecretMissing
    when the vault has no such entry.
    """
    require(actor, OPERATE)
    if vault == EMBEDDED:
        raise InvalidInput("The embedded vault has no entries of its own.", field="vault")
    if not 1 <= len(entry) <= MAX_ENTRY or not entry.isprintable():
        raise InvalidInput(f"An entry's name has 1 to {MAX_ENTRY} characters.", field="entry")
    secret = _new(actor, tenant, name, metadata, choosing.vault_for(tenant.slug, vault).name)
    secret.entry = entry
    _require_free(secret)
    choosing.vault_named(secret.vault).get(ref_of(secret))
    _keep_new(actor, secret, "")
    return secret


def add_version(*, actor: Actor, secret: Secret, value: str, metadata: Mapping[str, object] | None = None) -> Secret:
    """Give a secret a new value, which counts at once. Metadata that is given replaces what there was."""
    _require_in(actor, secret.tenant)
    if secret.entry:
        raise Conflict("The value of this secret is changed in its vault.")
    checked = checked_value(value)
    described = None if metadata is None else checked_metadata(metadata)
    stored = choosing.vault_named(secret.vault).put(ref_of(secret), checked)
    with transaction.atomic():
        # Of two at the same moment the second one waits here, and counts.
        row = Secret.everywhere().select_for_update().filter(pk=secret.pk, deleted_at=None).first()
        if row is None:
            raise NotFound(_GONE)
        if row.current_version >= MAX_VERSIONS:
            raise Conflict("This secret had all the versions that it can have: make a new one.")
        row.current_version += 1
        row.revision += 1
        row.metadata = row.metadata if described is None else described
        row.updated_at, row.updated_by = clock.now(), actor.id[:64]
        row.save(update_fields=("current_version", "revision", "metadata", "updated_at", "updated_by"))
        _keep_version(row, stored.version, actor)
        _record("secret.updated", actor, row, version=row.current_version)
    forget_values(row.pk)
    return row


def disable_secret(*, actor: Actor, secret: Secret) -> Secret:
    """Give a secret's value to nobody until it is enabled again. Raises Conflict when it is disabled already."""
    return _set_state(actor, secret, SecretState.DISABLED, "secret.disabled")


def enable_secret(*, actor: Actor, secret: Secret) -> Secret:
    """Let a disabled secret be used again. Raises Conflict when it is not disabled."""
    return _set_state(actor, secret, SecretState.ACTIVE, "secret.enabled")


def delete_secret(*, actor: Actor, secret: Secret) -> None:
    """Delete a secret with all its values, for good. Its name is free again.

    From the moment that this returns nobody gets a value. A vault that is away erases its own later
    (`erase_deleted`).
    """
    _require_in(actor, secret.tenant)
    now = clock.now()
    with transaction.atomic():
        rows = Secret.everywhere().filter(pk=secret.pk, deleted_at=None)
        if not rows.update(
            state=SecretState.DELETED,
            deleted_at=now,
            updated_at=now,
            updated_by=actor.id[:64],
            revision=F("revision") + 1,
            metadata={},
        ):
            raise NotFound(_GONE)
        _record("secret.deleted", actor, secret, vault=secret.vault)
    forget_values(secret.pk)
    if not _erase(secret):
        logger.warning("vault_keeps_deleted", vault=secret.vault, secret_id=secret.pk)


def erase_deleted(secrets: Iterable[Secret]) -> int:
    """Let the vaults erase what is deleted; return how many are left because their vault is away."""
    return sum(not _erase(secret) for secret in secrets)


def _new(actor: Actor, tenant: Tenant, name: str, metadata: Mapping[str, object] | None, vault: str) -> Secret:
    return Secret(
        id=new_secret_id(),
        tenant=tenant,
        name=checked_name(name),
        vault=vault,
        metadata=checked_metadata(metadata),
        created_by=actor.id[:64],
        updated_by=actor.id[:64],
    )


def _require_free(secret: Secret) -> None:
    rows = Secret.everywhere().filter(tenant=secret.tenant, deleted_at=None)
    if rows.filter(name=secret.name).exists():
        raise _taken(secret)
    if rows.count() >= MAX_SECRETS:
        raise SecretLimitReachedError


def _keep_new(actor: Actor, secret: Secret, vault_version: str) -> None:
    details = {"entry": secret.entry} if secret.entry else {}
    try:
        with transaction.atomic():
            # A tenant that is being erased gets nothing that its erasure would not see.
            if not Tenant.objects.select_for_update().filter(pk=secret.tenant_id, state=TenantState.ACTIVE).exists():
                raise NotFound("There is no such tenant.")
            secret.save(force_insert=True)
            _keep_version(secret, vault_version, actor)
            _record("secret.created", actor, secret, vault=secret.vault, version=1, **details)
    except IntegrityError as error:
        raise _taken(secret) from error


def _keep_version(secret: Secret, vault_version: str, actor: Actor) -> None:
    SecretVersion(
        secret=secret,
        number=secret.current_version,
        vault_version=vault_version,
        created_at=secret.updated_at,
        created_by=actor.id[:64],
    ).save(force_insert=True)


def _taken(secret: Secret) -> Conflict:
    return Conflict(f"There is a secret {secret.name} already.", field="name")


def _set_state(actor: Actor, secret: Secret, state: SecretState, code: str) -> Secret:
    _require_in(actor, secret.tenant)
    with transaction.atomic():
        row = Secret.everywhere().select_for_update().filter(pk=secret.pk, deleted_at=None).first()
        if row is None:
            raise NotFound(_GONE)
        if row.state == state:
            raise Conflict(f"The secret is {state} already.")
        row.state = state
        row.revision += 1
        row.updated_at, row.updated_by = clock.now(), actor.id[:64]
        row.save(update_fields=("state", "revision", "updated_at", "updated_by"))
        _record(code, actor, row)
    forget_values(row.pk)
    return row


def _erase(secret: Secret) -> bool:
    """Let the vault erase a secret that our rows name no more; say whether it has."""
    try:
        if not secret.entry:
            vault = choosing.vault_named(secret.vault)
            vault.delete(ref_of(secret))
            _purge(secret)
    except GatehouseError as error:
        logger.warning("vault_erases_later", vault=secret.vault, secret_id=secret.pk, error=error.message)
        return False
    Secret.everywhere().filter(pk=secret.pk).update(purged_at=clock.now())
    return True


def _purge(secret: Secret) -> None:
    try:
        choosing.vault_named(secret.vault).purge(ref_of(secret))
    except VaultDenied:
        # A vault that is protected against this keeps what is deleted for its own time, and gives it to nobody.
        logger.info("vault_purges_by_itself", vault=secret.vault, secret_id=secret.pk)


def _record(code: str, actor: Actor, secret: Secret, **details: object) -> None:
    record(
        code,
        actor=actor,
        object_type="secret",
        object_id=secret.pk,
        object_name=secret.name,
        tenant_id=secret.tenant_id,
        details={"name": secret.name} | details,
    )


def _require_in(actor: Actor, tenant: Tenant) -> None:
    """Demand the scope, and that the tenant is the actor's own: another one's secret is as absent as no secret."""
    if actor.tenant_id is not None and actor.tenant_id != tenant.pk.hex:
        raise NotFound(_GONE)
    require(actor, WRITE)
