"""The rule tables for Python, read once from `audit/risk/rules/python-*.json`."""

from __future__ import annotations

import builtins
import functools
import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from audit.risk.scoring import RULES

if TYPE_CHECKING:
    from audit.risk.findings import Kind, Tier


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of a rule table."""

    id: str
    title: str
    kind: Kind
    weight: int
    tier: Tier
    message: str


@dataclass(frozen=True, slots=True)
class Role:
    """What one argument of a call means."""

    kind: str
    position: int | None
    keyword: str


def _read(name: str) -> dict[str, Any]:
    table: dict[str, Any] = json.loads((RULES / f"python-{name}.json").read_bytes())
    return table


_TABLES = [_read(name) for name in ("code", "files", "network", "native", "correlations")]
_NAMES = _read("names")
_ROWS: list[dict[str, Any]] = [row for table in _TABLES for row in table["rules"]]
FLOWS: list[dict[str, Any]] = [row for row in _ROWS if "flow" in row]
TOGETHER: list[dict[str, Any]] = [row for row in _ROWS if "all" in row]
# Findings that say again what a heavier one has said.
SAME: list[dict[str, Any]] = _TABLES[-1]["same"]
SINKS_OF: dict[str, list[str]] = {}
for _group, _ids in _TABLES[-1]["sinks"].items():
    for _id in _ids:
        SINKS_OF.setdefault(_id, []).append(_group)
# Methods that mean the same on whatever client of a service.
ALWAYS_JUDGED = frozenset(name for row in _ROWS if row["id"].startswith("py.cloud.") for name in row.get("names", ()))
RULES_BY_ID = {
    row["id"]: Rule(row["id"], row["title"], row["kind"], row["weight"], row["tier"], row["message"]) for row in _ROWS
}
_BY_NAME: dict[str, str] = {}
for _row in _ROWS:
    for _name in _row.get("names", ()):
        _BY_NAME.setdefault(_name, _row["id"])
ATTRIBUTES: dict[str, str] = {name: row["id"] for row in _ROWS for name in row.get("attributes", ())}
_SOURCES: dict[str, str] = {name: label for label, names in _NAMES["sources"].items() for name in names}
_MODULES: dict[str, frozenset[str]] = {kind: frozenset(names) for kind, names in _TABLES[3]["modules"].items()}
_SAME: dict[str, str] = _NAMES["same"]
_REACHABLE = frozenset(_NAMES["reachable_modules"])
_OWN_SUBMODULES = frozenset(_NAMES["own_submodules"])
KEEP_NOTHING = frozenset(_NAMES["keep_nothing"])
DISTINCT = frozenset(_NAMES["distinct_methods"])
LEAVES = frozenset(_NAMES["leaf_modules"])
# Modules that are handed what matters.
TRUSTED = frozenset(_NAMES["trusted_modules"])
IMPORTED_BY_TEXT = frozenset(_NAMES["imported_by_text"])
LOOPHOLES = frozenset(_NAMES["loopholes"])
STATEMENT_METHODS = frozenset(_NAMES["statement_methods"])
# What the text of a statement for a database matches, by rule.
STATEMENTS: dict[str, list[str]] = {row["id"]: row["statements"] for row in _ROWS if "statements" in row}
DOCTESTS = frozenset(_NAMES["doctests"])
FIXTURES: dict[str, str] = _NAMES["fixtures"]
_HARMLESS = frozenset(_NAMES["harmless"])
CREDENTIAL_ARGUMENTS = frozenset(_NAMES["credential_arguments"])
HEADER_SETTERS = frozenset(_NAMES["header_setters"])
CREDENTIAL_TABLES = frozenset(_NAMES["credential_tables"])
CREDENTIAL_CALLS = frozenset(_NAMES["credential_calls"])
_CREDENTIAL_HEADERS: tuple[str, ...] = tuple(_NAMES["credential_headers"])
POWERFUL = _REACHABLE - {
    "io",
    "types",
    "operator",
    "functools",
    "codecs",
    "base64",
    "select",
    "platform",
    "pathlib",
    "glob",
}
STANDARD = frozenset(sys.stdlib_module_names) | {"posix"}
BUILTINS = frozenset(dir(builtins)) | {"__builtins__", "__loader__", "__spec__", "reload", "execfile"}


def _roles() -> dict[str, tuple[Role, ...]]:
    table: dict[str, tuple[Role, ...]] = {}
    for name, text in _NAMES["roles"].items():
        roles = []
        for part in text.split():
            kind, _, where = part.partition("=")
            position, _, keyword = where.partition("|")
            roles.append(Role(kind, None if position == "base" else int(position), keyword))
        table[name] = tuple(roles)
    return table


_ROLES = _roles()


@functools.lru_cache(maxsize=8192)
def canonical(name: str) -> str:
    """Return the name under which the tables know a thing that has several names."""
    if name in _SAME:
        return _SAME[name]
    head, dot, last = name.rpartition(".")
    if head == "builtins" and last != "__dict__":
        return last
    # Modules are attributes of the modules that import them: `shutil.os` is `os`.
    plain = last.lstrip("_")
    if dot and plain in _REACHABLE and "(" not in head and last not in {"__builtins__"}:
        top = head.partition(".")[0]
        if top in STANDARD and top not in _OWN_SUBMODULES and head != plain:
            return plain
    first, dot, rest = name.partition(".")
    if dot and first in _SAME:
        return canonical(f"{_SAME[first]}.{rest}")
    return name


@functools.lru_cache(maxsize=8192)
def rule_of(name: str) -> str | None:
    """Return the id of the rule for a name: its own, or that of the module or object it belongs to."""
    if name in _BY_NAME:
        return _BY_NAME[name]
    if name in _HARMLESS:
        return None
    head = name
    while "." in head:
        head, _, last = head.rpartition(".")
        if f"{head}.*" in _BY_NAME:
            return _BY_NAME[f"{head}.*"]
        if "(" in last or head.endswith(")"):
            break
    return None


def is_listed(name: str) -> bool:
    """Return whether a rule names exactly this."""
    return name in _BY_NAME


def roles_of(name: str) -> tuple[Role, ...]:
    """Return what the arguments of a call mean."""
    return _ROLES.get(name, ())


# Those of the built-in functions that mean something by being named.
POWERFUL_BUILTINS = frozenset(
    name for name in BUILTINS if name in POWERFUL or name.startswith("__") or rule_of(name) is not None
)


@functools.lru_cache(maxsize=8192)
def source_of(name: str) -> str | None:
    """Return the label of the data that a call or a name brings in."""
    if name in _SOURCES:
        return _SOURCES[name]
    head, dot, _ = name.rpartition(".")
    return _SOURCES.get(f"{head}.*") if dot else None


@functools.lru_cache(maxsize=2048)
def import_rule(module: str) -> str | None:
    """Return the id of the rule that importing a module matches, or None for modules that only compute."""
    top = module.partition(".")[0]
    if module in _MODULES["pure"]:
        return None
    if top in _MODULES["hidden"]:
        return "py.import.native"
    if top in _MODULES["library"]:
        return "py.import.library"
    if top in _MODULES["pure"] and top not in {"urllib", "http", "concurrent", "xml", "asyncio", "importlib"}:
        return None
    if top in STANDARD:
        return "py.import.plain"
    return "py.import.library" if f"{top}.*" in _BY_NAME else "py.import.unknown"


def carries_credentials(header: object) -> bool:
    """Return whether a header of a request is one in which credentials belong."""
    return isinstance(header, str) and any(word in header.lower() for word in _CREDENTIAL_HEADERS)


def looks_secret(variable: str) -> bool:
    """Return whether an environment variable is named like a credential."""
    name = variable.lower()
    if any(word in name for word in _NAMES["harmless_words"]):
        return False
    return any(word in name for word in _NAMES["secret_words"])
