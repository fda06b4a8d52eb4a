"""The master key is changed while everything runs: nobody who reads a secret meanwhile notices."""

from __future__ import annotations

import dataclasses
import io
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, connections

from audit.models import Event
from corekit.errors import Conflict, Forbidden, NotFound
from tenants.secretmodels import TenantKey
from tenants.secrets import actions
from tenants.vaults import choosing, masterkeys, reveal, revealing, rotating, tenantkeys
from tenants.vaults.contract import VaultMisconfigured, VaultUnavailable
from tests import factories
from tests.factories import OPERATOR
from tests.vaults.test_read_master_keys import NEW, OLD

if TYPE_CHECKING:
    from pathlib import Path

    from tenants.models import Tenant
    from tests.people import Person
    from tests.vaults.vault_double import FarVault

pytestmark = pytest.mark.django_db

TENANTS = 30


@pytest.fixture
def file(tmp_path: Path, settings: Any) -> Path:
    """Return the installation's key file, which holds one key."""
    (tmp_path / "keys").mkdir()
    path = tmp_path / "keys" / "vault.key"
    path.write_text(f"{OLD}\n")
    path.chmod(0o640)
    settings.GATEHOUSE = dataclasses.replace(settings.GATEHOUSE, home=tmp_path, vault_key_text=None)
    return path


def run(*arguments: str) -> str:
    """Run a command and return what it prints."""
    printed = io.StringIO()
    call_command(*arguments, stdout=printed)
    return printed.getvalue()


def id_of(key: str) -> str:
    """Return the id of a key."""
    return masterkeys.master_key(bytes.fromhex(key)).id


def read_anew(tenant: Tenant) -> str:
    """Return the value of a tenant's secret as the vault gives it, whatever is remembered."""
    revealing.forget_values()
    return reveal(tenant.pk.hex, "key").value.reveal().decode()


def test_a_new_key_is_put_in_front_and_everything_is_sealed_under_it(file: Path, acme: Tenant) -> None:
    factories.secret(acme, "key", "sk-acme")

    newest, count = rotating.rotate(actor=OPERATOR)

    assert [key.id for key in choosing.embedded().masters.all()] == [newest, id_of(OLD)]
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert (count, TenantKey.everywhere().get().master_id) == (1, newest)
    assert read_anew(acme) == "sk-acme"
    assert choosing.embedded().health().ok
    told = [(event.code, event.object_name, event.details) for event in Event.objects.filter(code__startswith="vault.")]
    assert sorted(told, key=str) == [
        ("vault.rewrapped", newest, {"after": newest, "tenants": 1}),
        ("vault.rotated", newest, {"before": id_of(OLD), "after": newest}),
    ]


def test_an_old_key_goes_when_nothing_is_under_it_and_then_opens_nothing(file: Path, acme: Tenant) -> None:
    factories.secret(acme, "key", "sk-acme")
    with pytest.raises(Conflict, match="is the newest master key"):
        rotating.retire(actor=OPERATOR, master_id=id_of(OLD))
    file.write_text(f"{NEW}\n{OLD}\n")
    with pytest.raises(Conflict, match="rewrap"):
        rotating.retire(actor=OPERATOR, master_id=id_of(OLD))

    assert rotating.rewrap(actor=OPERATOR) == 1
    assert rotating.rewrap(actor=OPERATOR) == 0
    rotating.retire(actor=OPERATOR, master_id=id_of(OLD))

    assert file.read_text() == f"{NEW}\n"
    assert read_anew(acme) == "sk-acme"
    with pytest.raises(NotFound):
        rotating.retire(actor=OPERATOR, master_id=id_of(OLD))


def test_sealing_again_goes_on_where_it_was_stopped(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tenants = [factories.tenant(f"T{number}") for number in range(7)]
    for tenant in tenants:
        factories.secret(tenant, "key", f"sk-{tenant.slug}")
    monkeypatch.setattr(tenantkeys, "BATCH", 2)
    file.write_text(f"{NEW}\n{OLD}\n")

    steps = tenantkeys.rewrap(choosing.embedded().masters)
    assert next(steps) == 2
    del steps
    assert tenantkeys.count_by_master() == {id_of(NEW): 2, id_of(OLD): 5}
    assert [read_anew(tenant) for tenant in tenants] == [f"sk-{tenant.slug}" for tenant in tenants]

    assert rotating.rewrap(actor=OPERATOR) == 5
    assert [read_anew(tenant) for tenant in tenants] == [f"sk-{tenant.slug}" for tenant in tenants]


@pytest.mark.django_db(transaction=True)
def test_under_load_no_reader_and_no_writer_fails_while_keys_are_changed_twice(file: Path) -> None:
    tenants = [factories.tenant(f"T{number}") for number in range(TENANTS)]
    for tenant in tenants:
        factories.secret(tenant, "key", f"sk-{tenant.slug}")
    over, reads = threading.Event(), [0] * 6

    def read(worker: int) -> None:
        try:
            while not over.is_set() or reads[worker] < TENANTS:
                tenant = tenants[(reads[worker] * 7 + worker) % TENANTS]
                assert read_anew(tenant) == f"sk-{tenant.slug}"
                reads[worker] += 1
        finally:
            connections.close_all()

    def write() -> int:
        done = 0
        try:
            while not over.is_set():
                # Each of these tenants gets its first key at some moment of the change.
                tenant = factories.tenant(f"N{done}")
                factories.secret(tenant, "key", "new")
                assert read_anew(tenant) == "new"
                done += 1
        finally:
            connections.close_all()
        return done

    with ThreadPoolExecutor(7) as pool:
        readers = [pool.submit(read, worker) for worker in range(6)]
        writer = pool.submit(write)
        for _ in range(2):
            rotating.rotate(actor=OPERATOR)
        over.set()
        for one in readers:
            one.result(120)
        made = writer.result(120)

    # Whoever came in between two of these moments is sealed under an older key, which is still there.
    rotating.rewrap(actor=OPERATOR)
    keys = [key.id for key in choosing.embedded().masters.all()]
    assert tenantkeys.count_by_master() == {keys[0]: TENANTS + made}
    for old in keys[1:]:
        rotating.retire(actor=OPERATOR, master_id=old)
    assert [read_anew(tenant) for tenant in tenants] == [f"sk-{tenant.slug}" for tenant in tenants]
    assert min(reads) >= TENANTS


@pytest.mark.django_db(transaction=True)
def test_two_who_change_the_key_at_the_same_moment_do_it_one_after_the_other(file: Path, acme: Tenant) -> None:
    factories.secret(acme, "key", "sk-acme")

    def change(_: int) -> str:
        try:
            return rotating.rotate(actor=OPERATOR)[0]
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        made = {*pool.map(change, range(4))}

    keys = [key.id for key in choosing.embedded().masters.all()]
    assert (set(keys), len(keys)) == ({*made, id_of(OLD)}, 5)
    assert read_anew(acme) == "sk-acme"


def test_who_has_the_keys_elsewhere_is_told_what_to_do(acme: Tenant) -> None:
    with pytest.raises(VaultMisconfigured, match=r"in GATEHOUSE_VAULT_KEY, .*in front of the others"):
        rotating.rotate(actor=OPERATOR)


def test_nobody_but_an_operator_changes_keys(file: Path, alice: Person) -> None:
    for act in (rotating.rotate, rotating.rewrap):
        with pytest.raises(Forbidden):
            act(actor=alice.actor)
    with pytest.raises(Forbidden):
        rotating.retire(actor=alice.actor, master_id=id_of(OLD))
    assert file.read_text() == f"{OLD}\n"


# The commands.


def test_the_command_shows_rotates_and_retires(file: Path, acme: Tenant) -> None:
    factories.secret(acme, "key", "sk-acme")
    status = run("vault", "status")
    assert status.splitlines()[:2] == [
        "vault         secrets  how it is",
        f"embedded  ok  1        The newest master key is {id_of(OLD)}; tenants with a key: 1.",
    ]
    assert f"{id_of(OLD)} (newest)  1" in status
    assert "sk-acme" not in status
    assert OLD not in status

    said = run("vault", "rotate")
    newest = choosing.embedded().masters.newest().id
    assert said == f"the newest master key is {newest}; 1 tenants' keys are under it now\n"
    assert run("vault", "rewrap").startswith("0 tenants' keys were under older master keys")
    assert run("vault", "retire", id_of(OLD)) == f"the master key {id_of(OLD)} is gone\n"
    with pytest.raises(CommandError, match="is the newest master key"):
        run("vault", "retire", newest)


def test_the_status_names_what_is_wrong_and_what_to_do(file: Path, acme: Tenant) -> None:
    factories.secret(acme, "key", "sk-acme")
    file.write_text(f"{NEW}\n")
    printed = io.StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("vault", "status", stdout=printed)
    assert ended.value.code == 1
    assert "Mend: put it back beside the newest one." in printed.getvalue()
    assert f"{id_of(OLD)} (not there)" in printed.getvalue()


def test_the_command_sweeps_what_a_vault_could_not_erase(alice: Person, far: FarVault) -> None:
    secret = actions.create_secret(actor=alice.actor, tenant=alice.tenant, name="key", value="x", vault="far")
    far.error = VaultUnavailable()
    actions.delete_secret(actor=alice.actor, secret=secret)
    assert run("vault", "sweep") == "1 deleted secrets are still in vaults that are away\n"
    far.error = None
    assert "1 deleted secrets are still in their vaults" in run("vault", "status")
    assert run("vault", "sweep") == "0 deleted secrets are still in vaults that are away\n"
    assert "deleted secrets" not in run("vault", "status")


def test_rows_are_sealed_again_in_short_transactions_of_their_own(file: Path, acme: Tenant) -> None:
    factories.secret(acme, "key", "sk-acme")
    file.write_text(f"{NEW}\n{OLD}\n")
    depth: list[int] = []
    for _ in tenantkeys.rewrap(choosing.embedded().masters):
        depth.append(len(connection.savepoint_ids))
    assert depth == [len(connection.savepoint_ids)]
