"""Keys and tokens of a sandbox's data plane, all derived from one seed by HMAC-SHA256.

The control plane alone holds the seed. A sandbox's access key is derived from it, its id and its
generation; a token is the access key's HMAC over the id of the API key that asked. So a token says whose it
is, dies with the sandbox's generation, and none has to be stored.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

_TOKEN = re.compile(r"gh_([0-9a-f]{16})_([0-9a-f]{64})")


def _derive(key: bytes, purpose: str) -> bytes:
    return hmac.digest(key, purpose.encode(), "sha256")


def access_key(seed: bytes, sandbox_id: str, generation: int) -> bytes:
    """Return the 32 bytes that verify every token of one generation of one sandbox."""
    return _derive(seed, f"access|{sandbox_id}|{generation}")


def audit_key(seed: bytes, tenant_id: str, key_id: str = "") -> bytes:
    """Return the 32 bytes that hash arguments in one tenant's audit rows of one epoch.

    Equal arguments have equal hashes within an epoch. Rows without a key id are older than epochs are.
    """
    return _derive(seed, f"audit|{tenant_id}|{key_id}" if key_id else f"audit|{tenant_id}")


def audit_key_id(at: datetime) -> str:
    """Return the epoch whose audit keys are in use at a time: each year has its own."""
    return f"{at.year:04d}"


def arguments_key(seed: bytes, tenant_id: str) -> bytes:
    """Return the 32 bytes of the private key that opens one tenant's copies of arguments."""
    return _derive(seed, f"arguments|{tenant_id}")


def traffic_token(seed: bytes, sandbox_id: str, generation: int) -> str:
    """Return the token, 64 hex characters, that opens the ports of a sandbox whose traffic is private."""
    return _derive(seed, f"traffic|{sandbox_id}|{generation}").hex()


def pepper(seed: bytes) -> bytes:
    """Return the 32 bytes that hash API keys before they are stored."""
    return _derive(seed, "pepper|api-keys")


def scoped_token_key(seed: bytes) -> bytes:
    """Return the 32 bytes from which the text of a scoped token comes that may be asked for a second time."""
    return _derive(seed, "scoped-tokens")


def mint(access_key: bytes, key_id: str) -> str:
    """Return the token of one API key for the sandbox whose access key this is."""
    return f"gh_{key_id}_{_derive(access_key, key_id).hex()}"


def key_id_of(token: str) -> str | None:
    """Return the id of the API key that a token claims to be of, or None when it is no token at all."""
    match = _TOKEN.fullmatch(token)
    return match.group(1) if match else None


def verify(access_key: bytes, token: str) -> str | None:
    """Return the key id of a genuine token, else None. Takes the same time for every well-formed token."""
    key_id = key_id_of(token)
    if key_id is None or not hmac.compare_digest(mint(access_key, key_id), token):
        return None
    return key_id


def file_signature(token: str, path: str, operation: str, username: str, expiration: int | None) -> str:
    """Return the signature of a file URL exactly as the E2B clients compute it.

    `operation` is `read` or `write`, `username` may be empty, `expiration` is in seconds since 1970 or None.
    """
    text = f"{path}:{operation}:{username}:{token}"
    if expiration is not None:
        text += f":{expiration}"
    digest = hashlib.sha256(text.encode()).digest()
    return "v1_" + base64.b64encode(digest).rstrip(b"=").decode("ascii")
