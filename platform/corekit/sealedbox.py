"""A box that everybody can close and only one can open: X25519, HKDF-SHA256 and AES-256-GCM.

Who closes it makes a key pair for this one box, so that the same key and nonce never meet twice.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32
_NONCE = bytes(12)


class BoxError(Exception):
    """The box is not one that this key opens."""


def public_key(private_key: bytes) -> bytes:
    """Return the 32 bytes with which boxes for this private key are closed."""
    return X25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()


def seal(public_key: bytes, data: bytes) -> bytes:
    """Close data in a box; 48 bytes longer than the data."""
    own = X25519PrivateKey.generate()
    shared = own.exchange(X25519PublicKey.from_public_bytes(public_key))
    sender = own.public_key().public_bytes_raw()
    return sender + _cipher(shared, sender, public_key).encrypt(_NONCE, data, None)


def unseal(private_key: bytes, box: bytes) -> bytes:
    """Return what is in a box. Raises BoxError."""
    sender, sealed = box[:KEY_BYTES], box[KEY_BYTES:]
    own = X25519PrivateKey.from_private_bytes(private_key)
    try:
        shared = own.exchange(X25519PublicKey.from_public_bytes(sender))
        return _cipher(shared, sender, own.public_key().public_bytes_raw()).decrypt(_NONCE, sealed, None)
    except (ValueError, InvalidTag) as error:
        raise BoxError("this key does not open the box") from error


def _cipher(shared: bytes, sender: bytes, receiver: bytes) -> AESGCM:
    info = b"gatehouse sealed box v1" + sender + receiver
    return AESGCM(HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(shared))
