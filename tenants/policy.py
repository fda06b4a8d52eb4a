"""What may be done, and by whom: one table of scopes, one table of roles. Deny is the default."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corekit.errors import Forbidden, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable

    from corekit.actor import Actor

EVERYTHING = "*"

SCOPES: dict[str, str] = {
    "sandboxes:read": "See sandboxes, their metrics and their logs",
    "sandboxes:write": "Create sandboxes, set their end, kill them",
    "sandboxes:use": "Connect to a sandbox: run commands, use its files, terminals and ports",
    "templates:read": "See templates and their builds",
    "templates:write": "Build and publish templates",
    "keys:read": "See API keys (never their text)",
    "keys:write": "Create and revoke API keys",
    "members:read": "See members and their roles",
    "members:write": "Add and remove members, change their roles",
    "quota:read": "See quotas and what is used of them",
    "audit:read": "Read the audit",
    "risk:read": "See risk levels, thresholds and verdicts",
    "risk:write": "Set risk thresholds, mute rules, override verdicts",
    "audit:arguments": "Open encrypted copies of arguments: for emergencies, and always an event",
    "networks:read": "See network policies, bundles and the tenant's ceiling, and try hosts against them",
    "networks:write": "Create, change and delete network policies, set the tenant's default",
    "secrets:read": "See secrets, their versions and vaults (never their values)",
    "secrets:write": "Write, disable and delete secrets, whose values nobody reads back",
    "tokens:read": "See the tokens that sandboxes use in the place of secrets (never their text)",
    "tokens:write": "Issue and revoke such tokens",
    "services:read": "See the services that scoped tokens are for",
    "services:write": "Create, change and remove services: say where secrets go",
    "webhooks:read": "See webhooks and their deliveries (never their secrets)",
    "webhooks:write": "Create, change and remove webhooks",
    "tenant:read": "See the tenant's settings",
    "tenant:write": "Change the tenant's settings",
    "platform:write": "Create and suspend tenants, set quotas: for the platform's operators only",
}

_TENANT_SCOPES = frozenset(SCOPES) - {"platform:write"}
_READ_SCOPES = frozenset(scope for scope in _TENANT_SCOPES if scope.endswith(":read"))
_DEVELOPER_SCOPES = _READ_SCOPES | {"sandboxes:write", "sandboxes:use", "templates:write", "tokens:write"}

ROLE_SCOPES: dict[str, frozenset[str]] = {
    "owner": _TENANT_SCOPES,
    "admin": _TENANT_SCOPES - {"tenant:write", "audit:arguments"},
    "developer": _DEVELOPER_SCOPES,
    "viewer": _READ_SCOPES,
}

# What an agent backend needs; a key with more must be asked for by name.
DEFAULT_KEY_SCOPES = frozenset(
    {"sandboxes:read", "sandboxes:write", "sandboxes:use", "templates:read", "templates:write", "quota:read"}
    | {"secrets:read", "secrets:write", "tokens:read", "tokens:write"}
)


def require(actor: Actor, scope: str) -> None:
    """Raise Forbidden unless the actor holds the scope. Asking for an unknown scope is a mistake in our own code."""
    if scope not in SCOPES:
        raise LookupError(f"the scope {scope!r} does not exist")
    if not actor.has(scope):
        raise Forbidden(f"This needs the scope {scope}: {SCOPES[scope].lower()}.", scope=scope)


def checked_scopes(actor: Actor, scopes: Iterable[str] | None) -> list[str]:
    """Return the scopes of a new key, sorted: known ones only, and none that its maker does not hold."""
    if scopes is None:
        wanted = set(DEFAULT_KEY_SCOPES) if actor.has(EVERYTHING) else DEFAULT_KEY_SCOPES & actor.scopes
    else:
        wanted = set(scopes)
    if not wanted:
        raise InvalidInput("A key needs at least one scope.", field="scopes")
    if unknown := wanted - _TENANT_SCOPES:
        raise InvalidInput(f"There is no scope {sorted(unknown)[0]!r} for a key.", field="scopes")
    if beyond := {scope for scope in wanted if not actor.has(scope)}:
        raise Forbidden(f"You can't give away the scope {sorted(beyond)[0]}, which you do not hold.")
    return sorted(wanted)
