"""Tokens are derived, so they can be checked without being stored."""

from __future__ import annotations

import hashlib
import hmac

from e2b.sandbox.signature import get_signature

from corekit import tokens

SEED = bytes(range(32))
KEY_ID = "0123456789abcdef"


def test_access_key_depends_on_sandbox_and_generation() -> None:
    key = tokens.access_key(SEED, "i1", 1)
    assert key == hmac.new(SEED, b"access|i1|1", hashlib.sha256).digest()
    assert key != tokens.access_key(SEED, "i1", 2)
    assert key != tokens.access_key(SEED, "i11", 1)
    assert key != tokens.access_key(bytes(32), "i1", 1)


def test_token_names_its_key_and_verifies() -> None:
    key = tokens.access_key(SEED, "i1", 1)
    token = tokens.mint(key, KEY_ID)
    assert token == f"gh_{KEY_ID}_{hmac.new(key, KEY_ID.encode(), hashlib.sha256).hexdigest()}"
    assert tokens.key_id_of(token) == KEY_ID
    assert tokens.verify(key, token) == KEY_ID


def test_forged_tokens_do_not_verify() -> None:
    key = tokens.access_key(SEED, "i1", 1)
    token = tokens.mint(key, KEY_ID)
    other = "f" * 16
    for forged in (
        "",
        "gh_",
        token[:-1],
        token + "0",
        token.upper(),
        token.replace(KEY_ID, other),
        tokens.mint(tokens.access_key(SEED, "i2", 1), KEY_ID),
        f"{token}\n",
        "gh_é_" + "0" * 64,
    ):
        assert tokens.verify(key, forged) is None


def test_audit_keys_and_pepper_are_apart() -> None:
    derived = {tokens.audit_key(SEED, "a"), tokens.audit_key(SEED, "b"), tokens.pepper(SEED)}
    assert len(derived) == 3
    assert tokens.audit_key(SEED, "a") == hmac.new(SEED, b"audit|a", hashlib.sha256).digest()


def test_file_signature_is_the_clients() -> None:
    theirs = get_signature("/home/user/a b.txt", "read", "user", "gh_token", expiration_in_seconds=60)
    assert theirs["signature"] == tokens.file_signature(
        "gh_token", "/home/user/a b.txt", "read", "user", theirs["expiration"]
    )
    theirs = get_signature("a.txt", "write", None, "gh_token")
    assert theirs["signature"] == tokens.file_signature("gh_token", "a.txt", "write", "", None)
