"""Every change to tenants: one function each, with the actor by keyword and its audit row in the same transaction."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import IntegrityError, models, transaction

from audit.models import Outcome
from audit.recording import record
from corekit import clock
from corekit.errors import Conflict, Forbidden, InvalidInput, NotFound
from corekit.tiers import TIERS
from tenants import hooks
from tenants.authentication import PREFIX_LENGTH, key_hash, new_key_text
from tenants.broker import actions as token_actions
from tenants.models import SLUG_PATTERN, ApiKey, LimitRange, Membership, Quota, Role, Tenant, User
from tenants.policy import ROLE_SCOPES, checked_scopes, require
from tenants.states import TENANT_STATES, TenantState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime
    from uuid import UUID

    from corekit.actor import Actor

_SLUG = re.compile(SLUG_PATTERN)
MAX_LIMIT = 1_000_000_000
_DENIED_RISK = 60
QUOTA_FIELDS = frozenset(field.name for field in Quota._meta.fields if field.editable and field.name != "tenant")
MIN_TIER = "min_tier"
RANGE_FIELDS = frozenset(field.name for field in LimitRange._meta.fields if field.name != "tenant")
Row = TypeVar("Row", Quota, LimitRange)


def create_tenant(*, actor: Actor, name: str, slug: str) -> Tenant:
    """Create a tenant with the default quota and limit range. Raises InvalidInput, Conflict for a taken slug."""
    require(actor, "platform:write")
    name = _name(name)
    if not isinstance(slug, str) or not _SLUG.fullmatch(slug):
        raise InvalidInput("A slug has 1 to 63 characters of a-z, 0-9 and dashes inside.", field="slug")
    try:
        with transaction.atomic():
            tenant = Tenant.objects.create(name=name, slug=slug)
            Quota(tenant=tenant).save(force_insert=True)
            LimitRange(tenant=tenant).save(force_insert=True)
            _record("tenant.created", actor, tenant, "tenant", tenant.id.hex, name=name, slug=slug)
    except IntegrityError as error:
        raise Conflict(f"There is a tenant {slug} already.", field="slug") from error
    return tenant


def set_tenant_state(*, actor: Actor, tenant: Tenant, state: str) -> Tenant:
    """Suspend a tenant, or activate it again: for new calls at once, for what runs through the hooks.

    Raises Conflict when it is in that state already.
    """
    require(actor, "platform:write")
    TENANT_STATES.require(tenant.state, state)
    with transaction.atomic():
        old = TENANT_STATES.before(state)
        if not Tenant.objects.filter(id=tenant.id, state__in=old).update(state=state, state_changed_at=clock.now()):
            raise Conflict(f"The tenant is {state} already.")
        code = "tenant.suspended" if state == TenantState.SUSPENDED else "tenant.activated"
        _record(code, actor, tenant, "tenant", tenant.id.hex, name=tenant.name)
        if state == TenantState.SUSPENDED:
            token_actions.end_of_tenant(tenant.id, actor=actor)
        for hook in hooks.on_tenant_state_changed:
            _call_after_commit(hook, tenant.id.hex)
    tenant.state = state
    return tenant


def note_denied(*, actor: Actor, tenant_id: UUID) -> None:
    """Record that somebody asked for a tenant that is not theirs. Whether there is such a one makes no difference."""
    if actor.tenant_id is None or actor.tenant_id == tenant_id.hex:
        return
    record(
        "tenant.denied",
        actor=actor,
        object_type="tenant",
        object_id=tenant_id.hex,
        tenant_id=actor.tenant_id,
        outcome=Outcome.REFUSED,
        risk=(_DENIED_RISK, "It asked for a tenant that is not its own."),
    )


def add_member(*, actor: Actor, tenant: Tenant, user: User, role: str) -> Membership:
    """Make a person a member. Raises Conflict when it is one already."""
    _require_in(actor, tenant, "members:write")
    _check_role(actor, role)
    try:
        with transaction.atomic():
            membership = Membership(tenant=tenant, user=user, role=role)
            membership.save(force_insert=True)
            _record("member.added", actor, tenant, "user", str(user.pk), role=role)
    except IntegrityError as error:
        raise Conflict("This person is a member already.", field="user") from error
    return membership


def change_role(*, actor: Actor, membership: Membership, role: str) -> Membership:
    """Give a member another role. Raises Conflict when the tenant would be left without an owner."""
    tenant, before = membership.tenant, membership.role
    _require_in(actor, tenant, "members:write")
    _check_role(actor, role)
    _check_role(actor, before)
    with transaction.atomic():
        if not Membership.everywhere().filter(pk=membership.pk, role=before).update(role=role):
            raise Conflict("The member changed meanwhile.")
        _require_an_owner(tenant)
        _record("member.role_changed", actor, tenant, "user", str(membership.user_id), before=before, after=role)
    membership.role = role
    return membership


def remove_member(*, actor: Actor, membership: Membership) -> None:
    """End a membership. Raises Conflict when the tenant would be left without an owner."""
    tenant = membership.tenant
    _require_in(actor, tenant, "members:write")
    _check_role(actor, membership.role)
    with transaction.atomic():
        deleted, _ = Membership.everywhere().filter(pk=membership.pk).delete()
        if not deleted:
            raise NotFound("There is no such member.")
        if membership.role == Role.OWNER:
            _require_an_owner(tenant)
        _record("member.removed", actor, tenant, "user", str(membership.user_id), role=membership.role)


def create_api_key(
    *,
    actor: Actor,
    tenant: Tenant,
    name: str,
    scopes: Iterable[str] | None = None,
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """Create an API key; the text, returned here, is never shown again.

    Without scopes the key gets what an agent backend needs, as far as its maker holds it.
    """
    _require_in(actor, tenant, "keys:write")
    name = _name(name)
    granted = checked_scopes(actor, scopes)
    if expires_at is not None and expires_at <= clock.now():
        raise InvalidInput("The expiry must be in the future.", field="expires_at")
    plaintext = new_key_text()
    key = ApiKey(
        tenant=tenant,
        name=name,
        hash=key_hash(plaintext),
        prefix=plaintext[:PREFIX_LENGTH],
        scopes=granted,
        created_by=actor.id,
        expires_at=expires_at,
    )
    expiry = clock.to_rfc3339(expires_at) if expires_at else None
    with transaction.atomic():
        key.save(force_insert=True)
        _record("apikey.created", actor, tenant, "api_key", key.id, name=name, scopes=granted, expires_at=expiry)
    return key, plaintext


def revoke_api_key(*, actor: Actor, key: ApiKey) -> None:
    """Revoke a key for good: for new calls at once, for open streams through the hooks. Again is harmless."""
    _require_in(actor, key.tenant, "keys:write")
    now = clock.now()
    with transaction.atomic():
        live = ApiKey.everywhere().filter(pk=key.pk, revoked_at__isnull=True)
        if live.update(revoked_at=now):
            key.revoked_at = now
            _record("apikey.revoked", actor, key.tenant, "api_key", key.id, name=key.name)
            token_actions.end_of_key(key.id, key.tenant_id, actor=actor)
        # Also for one that is revoked already: the last attempt may not have reached the nodes.
        for hook in hooks.on_key_revoked:
            _call_after_commit(hook, key.id)


def _call_after_commit(hook: Callable[[str], None], object_id: str) -> None:
    transaction.on_commit(lambda: hook(object_id), robust=True)


def set_quota(*, actor: Actor, tenant: Tenant, **limits: int) -> Quota:
    """Change some of a tenant's limits. What runs already keeps running, also above a lower limit."""
    require(actor, "platform:write")
    return _set(Quota, "quota.set", actor, tenant, limits, QUOTA_FIELDS)


def set_limit_range(*, actor: Actor, tenant: Tenant, **limits: int | str) -> LimitRange:
    """Change some of the bounds and defaults for one sandbox. Running sandboxes are not touched.

    All are numbers but `min_tier`, the name of a tier, or "" for no bound.
    """
    require(actor, "platform:write")
    return _set(LimitRange, "limit_range.set", actor, tenant, limits, RANGE_FIELDS)


def _set(
    model: type[Row],
    code: str,
    actor: Actor,
    tenant: Tenant,
    limits: Mapping[str, int | str],
    settable: frozenset[str],
) -> Row:
    for name, value in limits.items():
        if name not in settable:
            raise InvalidInput(f"There is no limit {name}.", field=name)
        _check_limit(name, value)
    with transaction.atomic():
        row = model.everywhere().select_for_update().get(pk=tenant.pk)
        before = {name: getattr(row, name) for name in limits}
        for name, value in limits.items():
            setattr(row, name, value)
        _validate(row)
        # Only what was asked for is written: the counters beside it move all the time.
        model.everywhere().filter(pk=tenant.pk).update(**limits)
        _record(code, actor, tenant, "tenant", tenant.id.hex, before=before, after=dict(limits))
    return row


def _check_limit(name: str, value: object) -> None:
    if name == MIN_TIER:
        if value not in {"", *TIERS}:
            raise InvalidInput(f"{name} must be one of {', '.join(TIERS)}, or empty.", field=name)
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidInput(f"{name} must be a whole number.", field=name)
    if not 0 <= value <= MAX_LIMIT:
        raise InvalidInput(f"{name} must be from 0 to {MAX_LIMIT}.", field=name)


def _validate(row: models.Model) -> None:
    try:
        row.full_clean()
    except ValidationError as error:
        field, messages = next(iter(error.message_dict.items()))
        named = None if field == NON_FIELD_ERRORS else field
        raise InvalidInput(f"{named}: {messages[0]}" if named else messages[0], field=named) from error


def _record(code: str, actor: Actor, tenant: Tenant, object_type: str, object_id: str, **details: object) -> None:
    record(code, actor=actor, object_type=object_type, object_id=object_id, tenant_id=tenant.id, details=details)


def _require_in(actor: Actor, tenant: Tenant, scope: str) -> None:
    """Demand the scope, and that the tenant is the actor's own: another one is as absent as an unknown one."""
    if actor.tenant_id is not None and actor.tenant_id != tenant.id.hex:
        raise NotFound("There is no such tenant.")
    require(actor, scope)


def _check_role(actor: Actor, role: str) -> None:
    """Nobody gives or takes a role that can do more than they can."""
    if role not in ROLE_SCOPES:
        raise InvalidInput(f"A role is one of {', '.join(ROLE_SCOPES)}.", field="role")
    if any(not actor.has(scope) for scope in ROLE_SCOPES[role]):
        raise Forbidden(f"You can't give or take the role {role}, which can do more than you.")


def _require_an_owner(tenant: Tenant) -> None:
    """Raise Conflict, which undoes the caller's transaction, when no owner is left."""
    # Two owners that remove each other at the same moment meet at this lock.
    Tenant.objects.select_for_update().get(pk=tenant.pk)
    if not Membership.everywhere().filter(tenant=tenant, role=Role.OWNER).exists():
        raise Conflict("A tenant needs an owner.")


def _name(name: object) -> str:
    cleaned = name.strip() if isinstance(name, str) else ""
    if not 1 <= len(cleaned) <= 100 or not cleaned.isprintable():
        raise InvalidInput("A name has 1 to 100 printable characters.", field="name")
    return cleaned
