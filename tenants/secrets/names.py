"""What a secret may be called, say of itself, and hold."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from corekit.errors import InvalidInput
from tenants.secretmodels import NAME, normal_name
from tenants.vaults.secretvalue import SecretValue

if TYPE_CHECKING:
    from collections.abc import Mapping

ID_PREFIX = "sec_"
MAX_VALUE_BYTES = 65_536
MAX_METADATA_ENTRIES = 32
MAX_METADATA_KEY = 128
MAX_METADATA_VALUE = 1024
MAX_METADATA_TOTAL = 8192
# What would end a header, or a text in the database.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def checked_name(name: object) -> str:
    """Return a new secret's name. Raises InvalidInput."""
    found = normal_name(name) if isinstance(name, str) else ""
    if not NAME.fullmatch(found):
        raise InvalidInput("A secret's name has 1 to 128 characters of a-z, 0-9, - and _.", field="name")
    if found.startswith(ID_PREFIX):
        raise InvalidInput(f"A secret's name does not begin with {ID_PREFIX}, as ids do.", field="name")
    return found


def checked_value(value: object) -> SecretValue:
    """Return a value that can be sent in a header. Raises InvalidInput, which never repeats it."""
    if not isinstance(value, str):
        raise InvalidInput("The value must be text.", field="value")
    try:
        data = value.encode()
    except UnicodeEncodeError:
        raise InvalidInput("The value must be text in UTF-8.", field="value") from None
    if not 1 <= len(data) <= MAX_VALUE_BYTES:
        raise InvalidInput(f"The value must have 1 to {MAX_VALUE_BYTES} bytes.", field="value")
    if _CONTROL.search(value):
        raise InvalidInput("The value must be one line without control characters.", field="value")
    return SecretValue(data)


def checked_metadata(metadata: Mapping[str, object] | None) -> dict[str, str]:
    """Return what a secret's owner says of it. Raises InvalidInput."""
    found: dict[str, str] = {}
    for key, value in (metadata or {}).items():
        if not isinstance(value, str):
            raise InvalidInput("metadata must hold texts only.", field="metadata")
        if not 1 <= _bytes(key) <= MAX_METADATA_KEY or _bytes(value) > MAX_METADATA_VALUE:
            raise InvalidInput(
                f"A key of metadata has 1 to {MAX_METADATA_KEY} bytes, a value {MAX_METADATA_VALUE} at most.",
                field="metadata",
            )
        found[key] = value
    if len(found) > MAX_METADATA_ENTRIES:
        raise InvalidInput(f"metadata has {MAX_METADATA_ENTRIES} entries at most.", field="metadata")
    if sum(_bytes(key) + _bytes(value) for key, value in found.items()) > MAX_METADATA_TOTAL:
        raise InvalidInput(f"metadata has {MAX_METADATA_TOTAL} bytes at most.", field="metadata")
    return found


def _bytes(text: str) -> int:
    if "\x00" in text or any("\ud800" <= mark <= "\udfff" for mark in text):
        raise InvalidInput("metadata must be text in UTF-8 without NUL.", field="metadata")
    return len(text.encode())
