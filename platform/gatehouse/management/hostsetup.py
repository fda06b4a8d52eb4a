"""What one host needs before Gatehouse can run on it: users, directories, keys. Every step may be repeated."""

from __future__ import annotations

import grp
import os
import pwd
import secrets
import subprocess
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sandboxes.node.supervisor.preflight import SERVICE_USERS, SHARED_GROUP

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEY_BYTES = 32
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
WORKER_GROUP = "gatehouse-worker"
_SHARED_MEMBERS = ("gatehouse-web", "gatehouse-worker")

# Directory below the home → mode, group. All belong to root.
DIRECTORIES = {
    ".": (0o755, "root"),
    "keys": (0o711, "root"),
    "db": (0o2770, SHARED_GROUP),
    "broker": (0o2770, SHARED_GROUP),
    "broker/control": (0o2770, SHARED_GROUP),
    "run": (0o755, "root"),
    "static": (0o755, "root"),
    "run/guests": (0o750, "gatehouse-gateway"),
    "egress": (0o750, "gatehouse-egress"),
    "node": (0o700, "root"),
    "templates": (0o711, "root"),
    "anchors": (0o770, WORKER_GROUP),
}
# Key file → who may read it beside root.
KEYS = {
    "django.key": SHARED_GROUP,
    "seed.key": "gatehouse-web",
    "ledger.key": WORKER_GROUP,
    "vault.key": "gatehouse-web",
}


class HostSetupError(Exception):
    """A step that failed. Its text is one sentence that says what to do."""


def make_accounts() -> None:
    """Make the group and the users that do not exist yet: no password, no shell, no home."""
    if _absent(grp.getgrnam, SHARED_GROUP):
        _run("groupadd", "--system", SHARED_GROUP)
    for user in SERVICE_USERS:
        if _absent(pwd.getpwnam, user):
            _run(
                *("useradd", "--system", "--user-group", "--no-create-home"),
                *("--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", user),
            )
    for user in _SHARED_MEMBERS:
        if user not in grp.getgrnam(SHARED_GROUP).gr_mem:
            _run("usermod", "--append", "--groups", SHARED_GROUP, user)


def make_directories(home: Path) -> None:
    """Make the directories below the home, each with its owner, group and mode."""
    for name, (mode, group) in DIRECTORIES.items():
        path = home / name
        path.mkdir(parents=True, exist_ok=True)
        os.chown(path, 0, grp.getgrnam(group).gr_gid)
        path.chmod(mode)


def make_keys(home: Path) -> None:
    """Draw the secrets of this installation; a key that exists is never replaced."""
    for name, group in KEYS.items():
        path = home / "keys" / name
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            continue
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(KEY_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.chown(path, 0, grp.getgrnam(group).gr_gid)
        path.chmod(0o640)
    _publish_ledger_key(home / "keys")


def _publish_ledger_key(keys: Path) -> None:
    """Write the public half of the ledger's key where everybody may copy it from."""
    private = Ed25519PrivateKey.from_private_bytes(bytes.fromhex((keys / "ledger.key").read_text().strip()))
    path = keys / "ledger.pub"
    text = private.public_key().public_bytes_raw().hex() + "\n"
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
        path.chmod(0o644)


def share_database(path: Path) -> None:
    """Let web and worker write the embedded database, which root's migration may just have made."""
    gid = grp.getgrnam(SHARED_GROUP).gr_gid
    for file in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        if file.exists():
            os.chown(file, -1, gid)
            file.chmod(0o660)


def _absent(lookup: Callable[[str], object], name: str) -> bool:
    try:
        lookup(name)
    except KeyError:
        return True
    return False


def _run(*command: str) -> None:
    done = subprocess.run(command, env={"PATH": _PATH}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise HostSetupError(f"`{' '.join(command)}` failed: {done.stderr.strip() or 'no reason given'}.")
