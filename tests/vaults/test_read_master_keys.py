"""The embedded vault's master keys: where they come from, which are refused, and what an operator hears."""

from __future__ import annotations

import dataclasses
import hashlib
import stat
from typing import TYPE_CHECKING, Any

import pytest

from corekit import ids
from tenants.secretmodels import MasterKey, TenantKey
from tenants.vaults import choosing, masterkeys
from tenants.vaults.contract import Ref, VaultMisconfigured
from tenants.vaults.secretvalue import SecretValue

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tenants.models import Tenant

OLD, NEW = hashlib.sha256(b"old").hexdigest(), hashlib.sha256(b"new").hexdigest()


def set_key(settings: Any, **fields: Any) -> None:
    """Let this installation have its master key from somewhere else."""
    settings.GATEHOUSE = dataclasses.replace(settings.GATEHOUSE, **{"vault_key_text": None, **fields})


@pytest.fixture
def file(tmp_path: Path, settings: Any) -> Path:
    """Return the installation's key file, which holds one key."""
    (tmp_path / "keys").mkdir()
    path = tmp_path / "keys" / "vault.key"
    path.write_text(f"{OLD}\n")
    set_key(settings, home=tmp_path)
    return path


def ids_of(*keys: str) -> list[str]:
    """Return the ids of keys."""
    return [masterkeys.master_key(bytes.fromhex(key)).id for key in keys]


def test_the_newest_key_seals_and_the_others_open() -> None:
    keys = masterkeys.from_text(f" {NEW}\n{OLD},", "GATEHOUSE_VAULT_KEY")
    new, old = ids_of(NEW, OLD)
    assert keys.newest().id == new
    assert keys.named(old).key == bytes.fromhex(OLD)


def test_an_id_is_always_the_same_and_tells_nothing_of_the_key() -> None:
    (first,) = ids_of(OLD)
    assert first == "748bb83d7b320f4e"
    assert first not in OLD
    assert OLD not in repr(masterkeys.master_key(bytes.fromhex(OLD)))


def test_a_file_that_is_replaced_is_read_again(file: Path) -> None:
    keys = choosing.embedded().masters
    assert [key.id for key in keys.all()] == ids_of(OLD)

    masterkeys.write_file(file, [masterkeys.master_key(bytes.fromhex(key)) for key in (NEW, OLD)])

    assert [key.id for key in keys.all()] == ids_of(NEW, OLD)


def test_a_replaced_file_keeps_its_mode_and_leaves_nothing_beside_it(file: Path) -> None:
    file.chmod(0o640)
    masterkeys.write_file(file, [masterkeys.master_key(bytes.fromhex(NEW))])
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert file.read_text() == f"{NEW}\n"
    assert [path.name for path in file.parent.iterdir()] == ["vault.key"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no key"),
        ("zz" * 32, "holds something that is no key"),
        (OLD[:-2], "holds something that is no key"),
        ("00" * 32, "that anybody would try first"),
        ("0123" * 16, "that anybody would try first"),
    ],
)
def test_what_is_no_key_is_refused_and_not_repeated(text: str, said: str) -> None:
    with pytest.raises(VaultMisconfigured, match=said) as refused:
        masterkeys.parse(text, "GATEHOUSE_VAULT_KEY")
    assert str(refused.value).startswith("GATEHOUSE_VAULT_KEY ")
    assert not text or text not in str(refused.value)


@pytest.mark.parametrize("made", [str, lambda key: hashlib.sha256(key.encode()).hexdigest()])
def test_a_key_that_guards_something_else_too_is_refused(made: Callable[[str], str], settings: Any) -> None:
    settings.SECRET_KEY = hashlib.sha256(b"django").hexdigest()
    set_key(settings, vault_key_text=made(settings.SECRET_KEY))
    with pytest.raises(VaultMisconfigured, match="another one of this installation"):
        choosing.embedded().masters.all()


def test_the_seed_is_no_master_key(settings: Any) -> None:
    seed = hashlib.sha256(b"seed").hexdigest()
    set_key(settings, vault_key_text=seed, seed_text=seed)
    with pytest.raises(VaultMisconfigured, match="another one of this installation"):
        choosing.embedded().masters.all()


def test_a_missing_file_says_what_to_do(file: Path) -> None:
    file.unlink()
    with pytest.raises(VaultMisconfigured, match=r"vault\.key can't be read \(No such file.*manage\.py bootstrap"):
        choosing.embedded().masters.all()


@pytest.mark.django_db
def test_health_says_what_to_do_about_a_file_that_is_not_there(file: Path) -> None:
    file.unlink()
    health = choosing.embedded().health()
    assert not health.ok
    assert "can't be read (No such file or directory)." in health.message
    assert "bootstrap" in health.fix


@pytest.mark.django_db
def test_health_knows_its_keys_again_by_what_they_sealed(file: Path) -> None:
    vault = choosing.embedded()
    assert vault.health().ok
    assert [row.pk for row in MasterKey.objects.all()] == ids_of(OLD)
    assert vault.health().ok

    MasterKey.objects.update(sentinel=bytes(40))

    health = vault.health()
    assert (health.ok, "does not open the text that it sealed" in health.message) == (False, True)


def test_health_names_the_key_that_is_missing(file: Path, acme: Tenant) -> None:
    vault, key = choosing.embedded(), Ref(acme.pk.hex, "x", ids.new_event_id())
    vault.put(key, SecretValue(b"value"))
    file.write_text(f"{NEW}\n")

    (old,) = ids_of(OLD)
    health = vault.health()
    assert not health.ok
    assert health.message == f"The keys of 1 tenants are under the master key {old}, which is not there."
    assert health.fix == "put it back beside the newest one"
    with pytest.raises(VaultMisconfigured, match=old):
        vault.get(key)

    file.write_text(f"{NEW}\n{OLD}\n")
    assert vault.health().ok
    assert vault.get(key) == SecretValue(b"value")
    assert TenantKey.everywhere().get().master_id == old


@pytest.mark.django_db
def test_health_says_so_when_the_database_has_no_tables_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TenantKey._meta, "db_table", "nowhere")
    health = choosing.embedded().health()
    assert (health.ok, health.fix) == (False, "run `manage.py bootstrap`")
