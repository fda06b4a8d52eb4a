"""Vouches for hosts towards one sandbox, by the authority that its programs trust for these hosts."""

from __future__ import annotations

import os
import ssl
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFE = timedelta(days=7)
_EARLIER = timedelta(hours=1)
# Made anew long before it ends: a connection may outlive the moment that it was made.
_RENEWED_AFTER = timedelta(days=1)
_MOST_HOSTS = 256
_LONGEST_COMMON_NAME = 64
PROTOCOL = "http/1.1"


class Authority:
    """One sandbox's. Contexts of hosts are made when they are first asked for, and kept."""

    def __init__(self, certificate: bytes, key: bytes) -> None:
        """Take both as PEM. Raises ValueError when they don't belong together."""
        self._certificate = x509.load_pem_x509_certificate(certificate)
        loaded = serialization.load_pem_private_key(key, None)
        if not isinstance(loaded, ec.EllipticCurvePrivateKey) or loaded.public_key() != self._certificate.public_key():
            raise ValueError("the authority's key is not that of its certificate")
        self._key = loaded
        self._text = certificate
        # One for all leaves: whoever has it has this process.
        self._leaf_key = ec.generate_private_key(ec.SECP256R1())
        self._contexts: dict[str, tuple[datetime, ssl.SSLContext]] = {}

    @classmethod
    def parse(cls, said: Any) -> Authority | None:
        """Return the one that the node sends. Raises ValueError, KeyError or TypeError."""
        if said is None:
            return None
        return cls(str(said["certificate"]).encode(), str(said["key"]).encode())

    def __eq__(self, other: object) -> bool:
        """Two are equal that vouch with the same certificate."""
        return isinstance(other, Authority) and self._text == other._text

    __hash__ = None  # type: ignore[assignment]

    def context(self, host: str) -> ssl.SSLContext:
        """Return what a server of this host uses."""
        now = datetime.now(UTC)
        made, context = self._contexts.get(host, (None, None))
        if made is None or context is None or now - made > _RENEWED_AFTER:
            if len(self._contexts) >= _MOST_HOSTS:
                self._contexts.pop(next(iter(self._contexts)))
            context = self._make(host, now)
            self._contexts[host] = now, context
        return context

    def _make(self, host: str, now: datetime) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols([PROTOCOL])
        key = self._leaf_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        # The ssl module takes no key but from a file: this one is memory without a name.
        handle = os.memfd_create("leaf", os.MFD_CLOEXEC)
        try:
            os.write(handle, self._leaf(host, now).public_bytes(serialization.Encoding.PEM) + key)
            context.load_cert_chain(f"/proc/self/fd/{handle}")
        finally:
            os.close(handle)
        return context

    def _leaf(self, host: str, now: datetime) -> x509.Certificate:
        common = [x509.NameAttribute(NameOID.COMMON_NAME, host)] if len(host) <= _LONGEST_COMMON_NAME else []
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name(common))
            .issuer_name(self._certificate.subject)
            .public_key(self._leaf_key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _EARLIER)
            .not_valid_after(min(now + _LIFE, self._certificate.not_valid_after_utc))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=not common)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(identifier, critical=False)
            .sign(self._key, hashes.SHA256())
        )
