"""System checks: what can't work, or is not safe, said at start with a stable id and the way to mend it."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, register
from django.core.checks import Warning as Caution
from django.db import DatabaseError, connections

from corekit.errors import GatehouseError
from gatehouse.env import EnvError
from tenants.broker.upstream import tls_context
from tenants.vaults import choosing

if TYPE_CHECKING:
    from pathlib import Path

Apps = Sequence[AppConfig] | None


@register(Tags.security, deploy=True)
def debug_is_off(app_configs: Apps, **_: Any) -> list[CheckMessage]:
    """E001: debug pages show settings and code to everybody."""
    if not settings.DEBUG:
        return []
    return [Error("GATEHOUSE_DEBUG is on.", hint="Unset it; it is for development only.", id="gatehouse.E001")]


def _key_file_problem(path: Path) -> CheckMessage | None:
    """Return what is wrong with a key file's owner or mode: it must be root's and closed to others."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        return Error(f"{path} can't be looked at: {error.strerror}.", id="gatehouse.E002")
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o027 or found.st_uid not in {0, os.geteuid()}:
        return Error(
            f"{path} has mode {mode:04o} and owner {found.st_uid}; others may read or change it.",
            hint=f"chmod 0640 {path} and give it to root.",
            id="gatehouse.E002",
        )
    return None


@register(Tags.security)
def key_files_are_closed(app_configs: Apps, **_: Any) -> list[CheckMessage]:
    """E002: the seed, the secret key and the vault's key are readable by their group at most."""
    place = settings.GATEHOUSE
    found = [_key_file_problem(path) for path in (place.seed_file, place.secret_key_file, place.vault_key_file)]
    return [problem for problem in found if problem is not None]


@register(Tags.security)
def seed_is_usable(app_configs: Apps, **_: Any) -> list[CheckMessage]:
    """E003: a seed that is there, and readable, must have the right form."""
    place = settings.GATEHOUSE
    if place.seed_text is None and not os.access(place.seed_file, os.R_OK):
        return []
    try:
        place.seed()
    except EnvError as error:
        return [Error(str(error), hint="manage.py bootstrap makes one.", id="gatehouse.E003")]
    return []


@register(Tags.security, deploy=True)
def keys_exist(app_configs: Apps, **_: Any) -> list[CheckMessage]:
    """E004: without its key files nothing that is signed outlives the process."""
    place = settings.GATEHOUSE
    needed = (
        (place.secret_key_text, place.secret_key_file),
        (place.seed_text, place.seed_file),
        (place.vault_key_text or place.vault_key_secret or None, place.vault_key_file),
    )
    return [
        Error(f"{path} does not exist.", hint="Run manage.py bootstrap once.", id="gatehouse.E004")
        for text, path in needed
        if text is None and not path.exists()
    ]


@register(Tags.database)
def sqlite_keeps_its_log(app_configs: Apps, databases: Sequence[str] | None = None, **_: Any) -> list[CheckMessage]:
    """E005: the embedded database must be in WAL mode and survive a power cut. Runs where databases are checked."""
    messages: list[CheckMessage] = []
    for alias in databases or ():
        connection = connections[alias]
        if connection.vendor != "sqlite":
            continue
        try:
            with connection.cursor() as cursor:
                journal = cursor.execute("PRAGMA journal_mode").fetchone()[0]
                synchronous = cursor.execute("PRAGMA synchronous").fetchone()[0]
        except DatabaseError as error:
            messages.append(Error(f"The database can't be opened: {error}.", id="gatehouse.E005"))
            continue
        if journal not in {"wal", "memory"} or synchronous < 2:
            messages.append(
                Error(
                    f"The database has journal mode {journal} and synchronous {synchronous}.",
                    hint="It must be on a local file system that allows WAL.",
                    id="gatehouse.E005",
                )
            )
    return messages


@register(Tags.security)
def code_is_not_writable(app_configs: Apps, **_: Any) -> list[CheckMessage]:
    """W006: a process that may change the code it runs gains its neighbours' rights."""
    if os.geteuid() == 0 or not os.access(settings.BASE_DIR / "platform" / "gatehouse", os.W_OK):
        return []
    return [
        Caution(
            "The code is writable by the user of this process.",
            hint="Give the checkout to root.",
            id="gatehouse.W006",
        )
    ]


@register(Tags.security)
def vaults_are_usable(app_configs: Apps, **_: Any) -> list[CheckMessage]:
    """E007: the vaults are configured so that they can work, and the embedded one's master key is one of its own.

    Neither the seed nor Django's key, nor anything made of it, may open the secrets.
    """
    place = settings.GATEHOUSE
    of_file = place.vault_key_text is None and not place.vault_key_secret
    if of_file and not os.access(place.vault_key_file, os.R_OK):
        # It does not exist yet (E004), or is not for this process.
        return []
    try:
        vault = choosing.embedded()
        if not place.vault_key_secret:
            vault.masters.all()
    except GatehouseError as error:
        return [Error(error.message, hint="`manage.py vault status` says more.", id="gatehouse.E007")]
    return []


@register(Tags.security)
def authorities_are_readable(app_configs: Apps, **_: Any) -> list[CheckMessage]:
    """E008: the certificates that the secret broker is to trust for services can be read."""
    path = settings.GATEHOUSE.broker_ca_file
    if path is None:
        return []
    try:
        tls_context(path)
    except OSError as error:
        message = f"GATEHOUSE_BROKER_CA_FILE names {path}, which holds no certificates that can be read: {error}."
        return [Error(message, hint="It must be PEM, readable by gatehouse-web.", id="gatehouse.E008")]
    return []
