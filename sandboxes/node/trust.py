"""The certificate authority of one sandbox, which vouches for the hosts of its header rules and for nothing else.

Egress ends the TLS of those hosts with it. Its key stays in memory that only root reads, and in egress; programs in the
sandbox trust its certificate by a bundle in the directory of their way out, beside all that their template trusts.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sandboxes.node.doors import TEMPLATE_BUNDLE
from sandboxes.node.store import write_private

if TYPE_CHECKING:
    from pathlib import Path

    from sandboxes.node.doors import Doors
    from sandboxes.node.images import Templates

_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Gatehouse sandbox authority")])
# Longer than any sandbox is left alone: each node that takes it back makes a new certificate for the same key.
_LIFE = timedelta(days=400)
_EARLIER = timedelta(hours=1)
# Names alone would leave addresses open to whoever had the key.
_NO_ADDRESSES = [x509.IPAddress(IPv4Network("0.0.0.0/0")), x509.IPAddress(IPv6Network("::/0"))]
_CERTIFICATES = re.compile(rb"-----BEGIN CERTIFICATE-----\n[A-Za-z0-9+/=\n]+-----END CERTIFICATE-----\n")
_MOST_BUNDLE = 4 * 1024 * 1024


@dataclass(frozen=True)
class Authority:
    """What egress needs to vouch for `hosts`."""

    hosts: tuple[str, ...]
    certificate: str
    key: str = field(repr=False)


class Trust:
    """Makes the authorities of this node's sandboxes. Its methods do what takes a few milliseconds: call them aside."""

    def __init__(self, doors: Doors, templates: Templates) -> None:
        self._doors = doors
        self._templates = templates

    def issue(self, slot: int, build: str, hosts: tuple[str, ...]) -> Authority:
        """Return an authority for the hosts, trusted in the sandbox of the slot. Its key is the same each time."""
        key = self._key(slot)
        certificate = certify(key, hosts).public_bytes(serialization.Encoding.PEM)
        known = _template_bundle(self._templates.rootfs(build))
        self._doors.replace_bundle(slot, b"".join(_CERTIFICATES.findall(known)) + certificate)
        return Authority(hosts, certificate.decode(), _pem(key).decode())

    def withdraw(self, slot: int) -> None:
        """Let the sandbox trust what its template trusts, and nothing beside it. Safe to repeat."""
        self._doors.link_bundle(slot)

    def _key(self, slot: int) -> ec.EllipticCurvePrivateKey:
        path = self._doors.key(slot)
        with contextlib.suppress(FileNotFoundError):
            known = serialization.load_pem_private_key(path.read_bytes(), None)
            if isinstance(known, ec.EllipticCurvePrivateKey):
                return known
        key = ec.generate_private_key(ec.SECP256R1())
        write_private(path, _pem(key))
        return key


def certify(key: ec.EllipticCurvePrivateKey, hosts: tuple[str, ...]) -> x509.Certificate:
    """Return the certificate of an authority that is believed for these hosts only."""
    now = datetime.now(UTC)
    names = sorted({host.removeprefix("*.") for host in hosts})
    return (
        x509.CertificateBuilder()
        .subject_name(_NAME)
        .issuer_name(_NAME)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + _LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.NameConstraints([x509.DNSName(name) for name in names], _NO_ADDRESSES), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _template_bundle(rootfs: Path) -> bytes:
    """Return the template's bundle, nothing where it has none. Whoever made the template may have made any link."""
    *directories, name = TEMPLATE_BUNDLE.strip("/").split("/")
    handles = [os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)]
    try:
        for directory in directories:
            flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            handles.append(os.open(directory, flags, dir_fd=handles[-1]))
        handles.append(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=handles[-1]))
        if not stat.S_ISREG(os.fstat(handles[-1]).st_mode):
            return b""
        with os.fdopen(os.dup(handles[-1]), "rb") as file:
            return file.read(_MOST_BUNDLE)
    except OSError:
        return b""
    finally:
        for handle in handles:
            os.close(handle)
