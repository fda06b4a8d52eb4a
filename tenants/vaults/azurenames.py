"""What a secret is called in a Key Vault, which knows 127 of the characters 0-9, a-z and dash, in either case.

An entry of ours is `<tenant>--<name>--<secret id>`, ids in hex. The id alone makes it like no other one; the name is
there for people, and comes back from the entry unless it is too long for it. Tags hold all three in full.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tenants.vaults.contract import Ref

MAX_ENTRY = 127
TENANT_TAG, NAME_TAG, SECRET_TAG = "gatehouse-tenant", "gatehouse-name", "gatehouse-secret"
_HEX = 32
_ROOM = MAX_ENTRY - 2 * (_HEX + len("--"))
_ENTRY = re.compile(r"[0-9A-Za-z-]{1,127}")
_OURS = re.compile(r"([0-9a-f]{32})--(.*)--([0-9a-f]{32})", re.IGNORECASE)
# An underscore is none of the vault's characters, so x stands before it, and before itself.
_WRITTEN = {"_": "x-", "x": "xx"}
_CUT = "x0"
_NAME = re.compile(rf"((?:x[-x]|[^x])*)({_CUT})?")
_PAIR = re.compile(r"x([-x])")


class Owner(NamedTuple):
    """Whose an entry is, as its tags or its own name say it."""

    tenant: str
    name: str
    secret_id: str


def entry_of(ref: Ref) -> str:
    """Return the entry of a secret of ours, or the one that an operator made."""
    return ref.entry or f"{_plain(ref.tenant_id)}--{_written(ref.name)}--{ref.secret_id}"


def is_entry(text: str) -> bool:
    """Say whether a vault could have an entry of this name. Nothing else may be asked for."""
    return _ENTRY.fullmatch(text) is not None


def prefix_of(tenant_id: str) -> str:
    """Return what each entry of a tenant begins with."""
    return f"{_plain(tenant_id)}--"


def owner_of(entry: str) -> Owner | None:
    """Return whose an entry is by its name; None when it is none of ours. A name too long ends in an ellipsis."""
    found = _OURS.fullmatch(entry.lower())
    if found is None:
        return None
    tenant, written, secret_id = found.groups()
    parts = _NAME.fullmatch(written)
    if parts is None:
        return None
    name = _PAIR.sub(lambda pair: "_" if pair[1] == "-" else "x", parts[1])
    return Owner(tenant, f"{name}…" if parts[2] else name, secret_id)


def tags_of(ref: Ref) -> dict[str, str]:
    """Return the tags under which an entry of ours is kept."""
    return {TENANT_TAG: _plain(ref.tenant_id), NAME_TAG: ref.name, SECRET_TAG: ref.secret_id}


def tagged_owner(tags: Mapping[str, str] | None) -> Owner | None:
    """Return whose an entry is by its tags; None without them, as when somebody set a value by hand."""
    found = [(tags or {}).get(name) for name in (TENANT_TAG, NAME_TAG, SECRET_TAG)]
    return Owner(*(text for text in found if text)) if all(found) else None


def is_of(ref: Ref, owner: Owner) -> bool:
    """Say whether an entry belongs to a secret."""
    return (owner.tenant, owner.secret_id) == (_plain(ref.tenant_id), ref.secret_id)


def _plain(tenant_id: str) -> str:
    return tenant_id.replace("-", "").lower()


def _written(name: str) -> str:
    parts = [_WRITTEN.get(letter, letter) for letter in name]
    if sum(map(len, parts)) <= _ROOM:
        return "".join(parts)
    kept = ""
    for part in parts:
        if len(kept) + len(part) + len(_CUT) > _ROOM:
            break
        kept += part
    return kept + _CUT
