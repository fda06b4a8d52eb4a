"""A template trusts the certificate authorities that its host's operator added, and takes in nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandboxes.node.builds import BuildError
from sandboxes.node.builds.authorities import PLACE, with_authorities
from sandboxes.node.builds.recipe import BASE
from sandboxes.node.builds.store import TemplateStore

CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIBszCC\n-----END CERTIFICATE-----\n"


def test_a_host_without_any_changes_nothing(tmp_path: Path) -> None:
    assert with_authorities(BASE, (tmp_path, tmp_path / "missing")) == BASE


def test_each_certificate_is_a_file_of_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme/root.crt").write_text(CERTIFICATE)
    (tmp_path / "proxy.crt").write_text(CERTIFICATE)
    recipe = with_authorities(BASE, (tmp_path,))
    assert recipe.files[len(BASE.files) :] == (
        (f"{PLACE}/acme-root.crt", 0o644, CERTIFICATE),
        (f"{PLACE}/proxy.crt", 0o644, CERTIFICATE),
    )
    # A host that trusts somebody else is another build.
    assert recipe.digest() != BASE.digest()


def test_a_private_key_beside_it_stays_with_the_host(tmp_path: Path) -> None:
    key = "-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----\n"
    (tmp_path / "both.crt").write_text(key + CERTIFICATE + "# note\n" + CERTIFICATE)
    assert with_authorities(BASE, (tmp_path,)).files[-1][2] == CERTIFICATE * 2


def test_what_is_no_certificate_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.crt").write_text("password: hunter2")
    with pytest.raises(BuildError, match=r"notes\.crt holds no certificate"):
        with_authorities(BASE, (tmp_path,))


def test_the_real_template_has_those_of_this_host() -> None:
    home = Path(__file__).resolve().parents[2] / "var"
    manifest = TemplateStore(home).current("base")
    assert manifest is not None, "run `make template` first"
    root = home / "templates" / manifest.build_id / "rootfs"
    added = with_authorities(BASE).files[len(BASE.files) :]
    bundle = (root / "etc/ssl/certs/ca-certificates.crt").read_text()
    assert [name for name, _, text in added if text.strip() not in bundle] == []
