"""The embedded vault's master keys: where they come from, which one is in use, and how others are told apart.

They lie outside the database, the newest first: what is sealed, is sealed under the newest, and the others still open
what was sealed before. A key is known by an id that is derived from it and tells nothing of it.
"""

from __future__ import annotations

import hmac
import os
import re
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tenants.vaults.contract import VaultMisconfigured

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

logger = structlog.get_logger("tenants.vaults")

KEY_BYTES = 32
_BREAK = re.compile(r"[\s,]+")
_HOW_TO_MAKE = "a key is 64 hex characters, as `openssl rand -hex 32` makes them"


@dataclass(frozen=True, slots=True)
class MasterKey:
    """One master key and its id."""

    id: str
    key: bytes = field(repr=False)


def master_key(key: bytes) -> MasterKey:
    """Return a key with its id."""
    derive = HKDF(algorithm=SHA256(), length=8, salt=None, info=b"gatehouse vault key id v1")
    return MasterKey(derive.derive(key).hex(), key)


def parse(text: str, where: str, forbidden: Iterable[bytes] = ()) -> tuple[MasterKey, ...]:
    """Return the keys of a text, in its order. Raises VaultMisconfigured, which says where and never what.

    `forbidden` are other keys of this installation: one that guards something else as well guards neither.
    """
    words = [word for word in _BREAK.split(text) if word]
    keys = []
    for word in words:
        try:
            key = bytes.fromhex(word)
        except ValueError:
            key = b""
        if len(key) != KEY_BYTES:
            raise VaultMisconfigured(f"{where} holds something that is no key: {_HOW_TO_MAKE}.")
        if len(set(key)) < 8:
            raise VaultMisconfigured(f"{where} holds a key that anybody would try first: {_HOW_TO_MAKE}.")
        if any(hmac.compare_digest(key, other) for other in forbidden):
            raise VaultMisconfigured(
                f"{where} holds a key that is another one of this installation: give the vault a key of its own; "
                f"{_HOW_TO_MAKE}."
            )
        keys.append(master_key(key))
    if not keys:
        raise VaultMisconfigured(f"{where} holds no key: {_HOW_TO_MAKE}.")
    return tuple({key.id: key for key in keys}.values())


class MasterKeys:
    """The master keys of one source, read again when it changed or when a key is asked for that was not there."""

    def __init__(self, read: Callable[[], tuple[MasterKey, ...]], signature: Callable[[], object]) -> None:
        self._read = read
        self._signature = signature
        self._lock = threading.Lock()
        self._known: tuple[object, tuple[MasterKey, ...]] | None = None

    def all(self) -> tuple[MasterKey, ...]:
        """Return all keys, the newest first. Raises VaultMisconfigured, VaultUnavailable."""
        signature = self._signature()
        known = self._known
        if known is None or known[0] != signature:
            with self._lock:
                known = self._known = (signature, self._read())
        return known[1]

    def newest(self) -> MasterKey:
        """Return the key under which is sealed."""
        return self.all()[0]

    def named(self, key_id: str) -> MasterKey:
        """Return the key of an id. Raises VaultMisconfigured when it is not among them."""
        for again in (False, True):
            if again:
                # A source that does not tell when it changed.
                self._known = None
            for key in self.all():
                if key.id == key_id:
                    return key
        raise VaultMisconfigured(
            f"The embedded vault's master key {key_id} is not there: put it back beside the newest one."
        )


def from_text(text: str, where: str, forbidden: Iterable[bytes] = ()) -> MasterKeys:
    """Return the keys of a variable of the environment, which never changes."""
    return MasterKeys(lambda: parse(text, where, forbidden), lambda: None)


def from_file(path: Path, forbidden: Iterable[bytes] = ()) -> MasterKeys:
    """Return the keys of a file, which may be replaced while we run."""

    def signature() -> object:
        try:
            found = path.stat()
        except OSError as error:
            raise _unreadable(path, error) from error
        return found.st_ino, found.st_mtime_ns, found.st_size

    def read() -> tuple[MasterKey, ...]:
        try:
            text = path.read_text(encoding="ascii")
        except OSError as error:
            raise _unreadable(path, error) from error
        except UnicodeDecodeError as error:
            raise VaultMisconfigured(f"{path} holds something that is no key: {_HOW_TO_MAKE}.") from error
        return parse(text, str(path), forbidden)

    return MasterKeys(read, signature)


def _unreadable(path: Path, error: OSError) -> VaultMisconfigured:
    logger.error("vault_key_unreadable", path=str(path), error=error.strerror)
    mend = (
        "`manage.py bootstrap` makes one; with a database that holds secrets, bring back the one from the backup"
        if isinstance(error, FileNotFoundError)
        else f"give it to root and the group gatehouse-web with mode 0640 (`chown root:gatehouse-web {path}`)"
    )
    return VaultMisconfigured(f"The embedded vault's key {path} can't be read ({error.strerror}): {mend}.")


def write_file(path: Path, keys: Iterable[MasterKey]) -> None:
    """Replace the file of keys at once, with the owner and the mode that it had."""
    found = path.stat()
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            os.fchown(file.fileno(), found.st_uid, found.st_gid)
            os.fchmod(file.fileno(), found.st_mode & 0o777)
            file.writelines(f"{key.key.hex()}\n" for key in keys)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
