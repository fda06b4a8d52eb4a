"""The keys of the issuer: made, kept encrypted, published before they sign and for as long as a token may live."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from django.conf import settings
from django.db import transaction
from django.db.models import Q

from audit import recording
from corekit import atrest, clock
from tenants import policy
from tenants.identitymodels import IdentityKey

if TYPE_CHECKING:
    from datetime import datetime

    from corekit.actor import Actor

TOKEN_LIFE = timedelta(minutes=10)
PUBLISHED_FOR_S = 300
"""For how long whoever checks tokens may keep the published keys."""
ANNOUNCED = timedelta(seconds=2 * PUBLISHED_FOR_S)
"""How long a new key is published before it signs."""
_CLOCKS_DIFFER = timedelta(minutes=5)
_KEPT = timedelta(days=1)
_PURPOSE = "gatehouse identity keys v1"
_COORDINATE_BYTES = 32


def signing_key() -> IdentityKey:
    """Return the key that signs now; the first one is made when it is first asked for."""
    now = clock.now()
    found = IdentityKey.objects.filter(_published(now), signs_from__lte=now).first()
    if found is not None:
        return found
    with transaction.atomic():
        # Two that were made at the same moment are both published: either will do.
        return _new_key(now)


def published_keys() -> list[dict[str, Any]]:
    """Return the public keys that a token may be signed with, now or soon, as JWKs."""
    rows = IdentityKey.objects.filter(_published(clock.now()))
    return [{**row.public, "kid": row.pk, "use": "sig", "alg": "ES256"} for row in rows]


def private_key(row: IdentityKey) -> ec.EllipticCurvePrivateKey:
    """Return the private half of a key. Only web and an operator at the shell can."""
    return _opened(row.private)


def rotate(*, actor: Actor, withdraw: bool = False) -> IdentityKey:
    """Make a new key and return it: published now, it signs once everybody has seen it.

    The others are published until their last token has expired. With `withdraw` the new one signs at once and the
    others count no more, as if they were stolen: what they signed is refused as soon as the published keys are read
    again.
    """
    policy.require(actor, "platform:write")
    now = clock.now()
    signs_from = now if withdraw else now + ANNOUNCED
    with transaction.atomic():
        until = now if withdraw else signs_from + TOKEN_LIFE + _CLOCKS_DIFFER
        IdentityKey.objects.filter(published_until=None).update(published_until=until)
        if withdraw:
            IdentityKey.objects.filter(published_until__gt=now).update(published_until=now)
        IdentityKey.objects.filter(published_until__lt=now - _KEPT).delete()
        row = _new_key(signs_from)
        recording.record(
            "identity.rotated",
            actor=actor,
            object_type="identity_key",
            object_id=row.pk,
            tenant_id=None,
            details={"signs_from": clock.to_rfc3339(signs_from), "withdrawn": withdraw},
        )
    return row


def _published(now: datetime) -> Q:
    return Q(published_until=None) | Q(published_until__gt=now)


def _new_key(signs_from: datetime) -> IdentityKey:
    private = ec.generate_private_key(ec.SECP256R1())
    text = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    public = _jwk(private.public_key())
    return IdentityKey.objects.create(
        id=_thumbprint(public),
        public=public,
        private=atrest.encrypt(_seed(), _PURPOSE, text),
        signs_from=signs_from,
    )


def _jwk(public: ec.EllipticCurvePublicKey) -> dict[str, str]:
    numbers = public.public_numbers()
    x, y = (_base64url(number.to_bytes(_COORDINATE_BYTES, "big")) for number in (numbers.x, numbers.y))
    return {"crv": "P-256", "kty": "EC", "x": x, "y": y}


def _thumbprint(jwk: dict[str, str]) -> str:
    # RFC 7638: the members that make the key, in their order, without blanks.
    return _base64url(hashlib.sha256(json.dumps(jwk, sort_keys=True, separators=(",", ":")).encode()).digest())


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _seed() -> str:
    # The worker, which has no business here, can't read it.
    return settings.GATEHOUSE.seed().hex()


@lru_cache(maxsize=4)
def _opened(stored: str) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(atrest.decrypt(_seed(), _PURPOSE, stored).encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)  # noqa: S101  (no other kind is made)
    return key
