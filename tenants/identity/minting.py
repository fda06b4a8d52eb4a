"""Workload identity tokens: who asks, for whom it is meant, and for how long it counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import jwt
from django.conf import settings

from corekit import clock, ids
from tenants.identity import keys

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class Workload:
    """The sandbox that a token speaks for."""

    tenant_id: str
    template_id: str
    sandbox_id: str

    @property
    def subject(self) -> str:
        """Return who it is, in ids that never get another meaning."""
        return f"tenant:{self.tenant_id}:template:{self.template_id}:sandbox:{self.sandbox_id}"


@dataclass(frozen=True, slots=True)
class Minted:
    """A token, and what the ledger says of it."""

    token: str = field(repr=False)
    id: str
    audience: str
    key_id: str
    expires_at: datetime


def mint(workload: Workload, audience: str) -> Minted:
    """Return a new token of a workload for one audience."""
    key, now = keys.signing_key(), clock.now().replace(microsecond=0)
    expires_at, token_id = now + keys.TOKEN_LIFE, ids.new_event_id()
    claims = {
        "iss": settings.GATEHOUSE.public_url,
        "sub": workload.subject,
        "aud": audience,
        "iat": now,
        "nbf": now,
        "exp": expires_at,
        "jti": token_id,
    }
    token = jwt.encode(claims, keys.private_key(key), algorithm="ES256", headers={"kid": key.pk})
    return Minted(token, token_id, audience, key.pk, expires_at)
