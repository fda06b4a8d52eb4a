"""Changing the embedded vault's master key while everything runs.

A new key is put in front of the others before anything is sealed under it, and an old one goes only when nothing is
under it any more: at every moment whoever reads finds the key that a row names.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

from django.conf import settings

from audit.recording import record
from corekit.errors import Conflict, NotFound
from tenants.policy import require
from tenants.vaults import choosing, envelope, masterkeys, tenantkeys
from tenants.vaults.contract import VaultMisconfigured
from tenants.vaults.embedded import NAME as EMBEDDED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from corekit.actor import Actor

OPERATE = "platform:write"


def rotate(*, actor: Actor) -> tuple[str, int]:
    """Put a new master key into use and seal every tenant's key under it; return its id and how many those are.

    The old one stays readable: for a tenant whose key somebody makes at this very moment, and for backups. Raises
    VaultMisconfigured for keys that are not in a file of ours.
    """
    require(actor, OPERATE)
    with _key_file() as path:
        before = choosing.embedded().masters.all()
        newest = masterkeys.master_key(envelope.new_key())
        # Who reads the new one in a row can already read it here; and should we end between the two, nothing is lost.
        tenantkeys.note_sentinel(newest)
        masterkeys.write_file(path, [newest, *before])
    _record(actor, "vault.rotated", newest.id, before=before[0].id, after=newest.id)
    return newest.id, rewrap(actor=actor)


def rewrap(*, actor: Actor) -> int:
    """Seal every tenant's key that is not under the newest master key under it; return how many there were."""
    require(actor, OPERATE)
    masters = choosing.embedded().masters
    done = sum(tenantkeys.rewrap(masters))
    if done:
        newest = masters.newest().id
        _record(actor, "vault.rewrapped", newest, after=newest, tenants=done)
    return done


def retire(*, actor: Actor, master_id: str) -> None:
    """Take an old master key away, for good: what only it opens, in backups too, nobody reads any more.

    Raises Conflict while it is the newest or a tenant's key is under it, NotFound when there is no such key.
    """
    require(actor, OPERATE)
    with _key_file() as path:
        keys = choosing.embedded().masters.all()
        kept = [key for key in keys if key.id != master_id]
        if len(kept) == len(keys):
            raise NotFound(f"There is no master key {master_id}.")
        if keys[0].id == master_id:
            raise Conflict(f"{master_id} is the newest master key: `manage.py vault rotate` makes another one.")
        if tenantkeys.count_by_master().get(master_id):
            raise _in_use(master_id)
        masterkeys.write_file(path, kept)
        if tenantkeys.count_by_master().get(master_id):
            # Made by somebody who had read the keys a moment before.
            masterkeys.write_file(path, keys)
            raise _in_use(master_id)
    _record(actor, "vault.retired", master_id)


def _in_use(master_id: str) -> Conflict:
    return Conflict(f"Tenants' keys are under {master_id}: `manage.py vault rewrap` seals them under the newest one.")


@contextlib.contextmanager
def _key_file() -> Iterator[Path]:
    """Hold the file of keys, so that two who change it do it one after the other."""
    place = settings.GATEHOUSE
    if place.vault_key_text or place.vault_key_secret:
        where = "GATEHOUSE_VAULT_KEY" if place.vault_key_text else f"the secret {place.vault_key_secret}"
        raise VaultMisconfigured(
            f"The master keys are in {where}, which is yours to change: put a new one (`openssl rand -hex 32`) in "
            "front of the others there, restart web, and run `manage.py vault rewrap`."
        )
    path: Path = place.vault_key_file
    handle = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield path
    finally:
        os.close(handle)


def _record(actor: Actor, code: str, master_id: str, **details: object) -> None:
    record(
        code,
        actor=actor,
        object_type="vault",
        object_id=EMBEDDED,
        object_name=master_id,
        tenant_id=None,
        details=details,
    )
