"""What whoever checks a workload identity token reads: where the issuer is, and its public keys. No key is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.conf import settings
from django.http import JsonResponse
from django.views.decorators.http import require_safe

from tenants.identity import keys

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse

KEYS = "/.well-known/jwks.json"
_CACHED = {"Cache-Control": f"public, max-age={keys.PUBLISHED_FOR_S}"}
_CLAIMS = ("iss", "sub", "aud", "iat", "nbf", "exp", "jti")


@require_safe
def configuration(request: HttpRequest) -> HttpResponse:
    """Answer the discovery document."""
    issuer = settings.GATEHOUSE.public_url
    document = {
        "issuer": issuer,
        "jwks_uri": f"{issuer}{KEYS}",
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "claims_supported": list(_CLAIMS),
    }
    return JsonResponse(document, headers=_CACHED)


@require_safe
def key_set(request: HttpRequest) -> HttpResponse:
    """Answer the public keys."""
    return JsonResponse({"keys": keys.published_keys()}, headers=_CACHED)
