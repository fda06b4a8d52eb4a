"""The authority of a sandbox with header rules: its certificate, its key, and the bundle that programs trust."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from sandboxes.node.doors import BUNDLE, Doors
from sandboxes.node.images import Templates
from sandboxes.node.trust import Trust

if TYPE_CHECKING:
    from pathlib import Path


def certificates(text: str) -> list[x509.Certificate]:
    """Return those of a bundle that are a sandbox's authority."""
    return [
        one for one in x509.load_pem_x509_certificates(text.encode()) if "Gatehouse" in one.subject.rfc4514_string()
    ]


@pytest.fixture
def doors(tmp_path: Path) -> Doors:
    """Return directories on the disk, with one of a slot 7."""
    made = Doors(tmp_path / "doors")
    (tmp_path / "doors").mkdir()
    made.make(7)
    return made


@pytest.fixture
def trust(tmp_path: Path, doors: Doors) -> Trust:
    """Return the authorities of a node with one template, which trusts one authority."""
    place = tmp_path / "templates" / "b1" / "rootfs" / "etc" / "ssl" / "certs"
    place.mkdir(parents=True)
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-subj", "/CN=usual", "-keyout", "/dev/null", "-out", str(place / "ca-certificates.crt")]
    subprocess.run(command, check=True, capture_output=True)
    return Trust(doors, Templates(tmp_path / "templates"))


def test_the_bundle_is_the_templates_with_one_more(doors: Doors, trust: Trust) -> None:
    authority = trust.issue(7, "b1", ("api.example.com",))
    listed = x509.load_pem_x509_certificates((doors.directory(7) / BUNDLE).read_bytes())
    assert [one.subject.rfc4514_string() for one in listed] == ["CN=usual", "CN=Gatehouse sandbox authority"]
    assert listed[1].public_bytes(serialization.Encoding.PEM).decode() == authority.certificate
    assert (doors.directory(7) / BUNDLE).stat().st_mode & 0o777 == 0o644


def test_the_key_is_roots_and_beside_what_is_mounted(doors: Doors, trust: Trust) -> None:
    authority = trust.issue(7, "b1", ("api.example.com",))
    path = doors.key(7)
    assert path.read_text() == authority.key
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent == doors.directory(7).parent
    assert authority.key not in repr(authority)
    doors.remove(7)
    assert doors.names() == []


def test_other_hosts_get_another_certificate_of_the_same_key(doors: Doors, trust: Trust) -> None:
    first = trust.issue(7, "b1", ("api.example.com",))
    second = trust.issue(7, "b1", ("*.example.org", "api.example.com"))
    assert first.key == second.key
    assert first.certificate != second.certificate
    (listed,) = certificates((doors.directory(7) / BUNDLE).read_text())
    constraints = listed.extensions.get_extension_for_class(x509.NameConstraints)
    assert constraints.critical
    assert constraints.value.permitted_subtrees == [x509.DNSName("api.example.com"), x509.DNSName("example.org")]
    usage = listed.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [use._name for use in usage] == ["serverAuth"]


def test_a_slot_that_is_used_again_has_another_key(doors: Doors, trust: Trust) -> None:
    first = trust.issue(7, "b1", ("api.example.com",))
    doors.make(7)
    assert trust.issue(7, "b1", ("api.example.com",)).key != first.key


def test_without_rules_it_is_the_templates_own(doors: Doors, trust: Trust) -> None:
    bundle = doors.directory(7) / BUNDLE
    assert str(bundle.readlink()) == "/etc/ssl/certs/ca-certificates.crt"
    trust.issue(7, "b1", ("api.example.com",))
    assert not bundle.is_symlink()
    trust.withdraw(7)
    assert str(bundle.readlink()) == "/etc/ssl/certs/ca-certificates.crt"


@pytest.mark.parametrize("trick", ["file", "directory", "fifo", "text"])
def test_a_template_does_not_show_files_of_the_host(tmp_path: Path, doors: Doors, trust: Trust, trick: str) -> None:
    secret = tmp_path / "secret.pem"
    secret.write_text("-----BEGIN CERTIFICATE-----\nc2VjcmV0\n-----END CERTIFICATE-----\n")
    place = tmp_path / "templates" / "b1" / "rootfs" / "etc" / "ssl" / "certs"
    (place / "ca-certificates.crt").unlink()
    if trick == "file":
        (place / "ca-certificates.crt").symlink_to(secret)
    elif trick == "directory":
        place.rmdir()
        (tmp_path / "ca-certificates.crt").write_bytes(secret.read_bytes())
        place.symlink_to(tmp_path)
    elif trick == "fifo":
        subprocess.run(["mkfifo", str(place / "ca-certificates.crt")], check=True)
    else:
        (place / "ca-certificates.crt").write_text("root:x:0:0\n-----BEGIN PRIVATE KEY-----\nQQ==\n")
    trust.issue(7, "b1", ("api.example.com",))
    text = (doors.directory(7) / BUNDLE).read_text()
    assert text.count("BEGIN") == len(certificates(text)) == 1
