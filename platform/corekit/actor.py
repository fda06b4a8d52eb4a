"""Who acts: one small value that every action takes and every audit row copies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ActorKind = Literal["api_key", "user", "system", "node"]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts, for which tenant, with which scopes, and from where.

    `id` is a key id, a user's id, a node's id or a process name; `name` is copied into the audit, so that
    rows stay readable when the key or the user is gone. `tenant_id` (32 hex) is None for operators and the
    system itself. `auth` says how the actor proved who it is, `token_id` by which credential, and `on_behalf_of` for
    whom else it acts.
    """

    kind: ActorKind
    id: str
    name: str
    tenant_id: str | None
    scopes: frozenset[str]
    origin: str | None = None
    request_id: str | None = None
    auth: str = ""
    token_id: str = ""
    on_behalf_of: str = ""

    def has(self, scope: str) -> bool:
        """Say whether the actor holds the scope. `*` is every scope."""
        return scope in self.scopes or "*" in self.scopes


SYSTEM = Actor(kind="system", id="system", name="Gatehouse", tenant_id=None, scopes=frozenset({"*"}))
