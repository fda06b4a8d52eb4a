"""What a policy may say, checked when it is written, by the same code that judges flows.

Every wrong value is found and named by its field (`egress[3]`); what is right, but may not be what was meant, is a
warning.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from corekit.errors import InvalidInput
from corekit.netrules.entries import Entry, RuleError, parse_entry
from corekit.netrules.hosts import BadHost, canonical_authority, mixed_scripts, written
from tenants.networks.presets import CLOSED, PROXY, PROXY_URL

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

MODES = ("deny", "allow")
TLS = {"sni": ("require", "log"), "ech": ("deny", "allow")}
MAX_ENTRIES = 256
MAX_WILDCARDS = 64
MAX_INGRESS = 64
MAX_DESCRIPTION = 200
# Bytes out fit into a number that JSON's readers keep exact.
LIMIT_RANGES = {"flows": 4096, "new_per_s": 1000, "bytes_out": 2**53 - 1, "idle_s": 86_400}
AGENT_PORT = 49_983
DISCOVER = "`manage.py bundles discover` finds it"


@dataclass(frozen=True, slots=True)
class Problem:
    """A value that a policy can't have, and where it stands."""

    field: str
    message: str


@dataclass(frozen=True, slots=True)
class Warned:
    """Something that is allowed and may surprise: where it stands, a stable code, and a sentence."""

    field: str
    code: str
    message: str


@dataclass(slots=True)
class Checked:
    """A spec with all that is wrong with it; `entries` and `bundles` have what is right in it by its place."""

    spec: dict[str, Any]
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Warned] = field(default_factory=list)
    entries: dict[int, Entry] = field(default_factory=dict)
    bundles: dict[int, str] = field(default_factory=dict)

    def wrong(self, where: str, message: str) -> None:
        """Note a problem."""
        self.problems.append(Problem(where, message))

    def warn(self, where: str, code: str, message: str) -> None:
        """Note a warning."""
        self.warnings.append(Warned(where, code, message))

    def require(self) -> Checked:
        """Raise InvalidInput for the first problem."""
        for problem in self.problems:
            raise InvalidInput(f"{problem.field}: {problem.message}", field=problem.field)
        return self


def check_spec(
    body: Mapping[str, Any], *, bundles: Collection[str], filled: Collection[str], operator: bool
) -> Checked:
    """Return what a body says as a spec. `bundles` are the names that there may be, `filled` those with entries.

    What only an operator may say is a problem for everybody else.
    """
    checked = Checked({**CLOSED, "dns": True})
    for name, value in body.items():
        check = _CHECKS.get(name)
        if check is None:
            checked.wrong(name, "A network policy has no such field.")
        else:
            check(checked, value)
    _check_egress(checked, body.get("egress", ()), bundles=bundles, filled=filled, any_port=operator)
    if checked.spec["via"] and not operator:
        checked.wrong("via", "Only an operator sends traffic through a proxy of the company.")
    return checked


def _check_egress(
    checked: Checked, egress: object, *, bundles: Collection[str], filled: Collection[str], any_port: bool
) -> None:
    if not isinstance(egress, list | tuple):
        checked.wrong("egress", "It is a list of entries like `api.example.com:443`.")
        return
    if len(egress) > MAX_ENTRIES:
        checked.wrong("egress", f"A policy has {MAX_ENTRIES} entries at most.")
        return
    kept: dict[str, str] = {}
    for place, text in enumerate(egress):
        where = f"egress[{place}]"
        if not isinstance(text, str):
            checked.wrong(where, "An entry is a text like `api.example.com:443`.")
        elif text.startswith("@"):
            if _check_bundle(checked, where, text, bundles=bundles, filled=filled):
                checked.bundles[place] = text[1:]
                kept.setdefault(text, text)
        elif text.lower() == PROXY:
            kept.setdefault(PROXY, text)
        elif (entry := _entry(checked, where, text, any_port=any_port)) is not None:
            checked.entries[place] = entry
            kept.setdefault(entry.text, text)
    if sum("*." in canonical for canonical in kept) > MAX_WILDCARDS:
        checked.wrong("egress", f"A policy has {MAX_WILDCARDS} wildcards at most.")
    checked.spec["egress"], checked.spec["written"] = list(kept), list(kept.values())


def _check_bundle(
    checked: Checked, where: str, text: str, *, bundles: Collection[str], filled: Collection[str]
) -> bool:
    if text[1:] not in bundles:
        known = ", ".join(f"@{name}" for name in sorted(bundles))
        checked.wrong(where, f"There is no bundle {text[:40]}: the bundles are {known}.")
        return False
    if text[1:] not in filled:
        checked.warn(where, "bundle_empty", f"{text} stands for no host yet; {DISCOVER}.")
    return True


def _entry(checked: Checked, where: str, text: str, *, any_port: bool) -> Entry | None:
    try:
        entry = parse_entry(text, any_port=any_port)
    except RuleError as error:
        checked.wrong(where, str(error))
        return None
    if mixed_scripts(str(entry.host)):
        checked.warn(
            where,
            "mixed_scripts",
            f"{text[:80]} mixes scripts, so that it may look like another name; it means {entry.text}.",
        )
    return entry


def parse_entries(texts: Iterable[object], *, field: str, deny: bool = False) -> list[str]:
    """Return an operator's list in canonical form, each entry once. Raises InvalidInput that names the first wrong one.

    With `deny` they are what to deny, which may be wider than what a policy may allow.
    """
    found: dict[str, None] = {}
    for place, text in enumerate(texts):
        where = f"{field}[{place}]"
        if not isinstance(text, str):
            raise InvalidInput(f"{where}: An entry is a text like `api.example.com:443`.", field=where)
        if text.startswith("!"):
            raise InvalidInput(f"{where}: The whole list has one meaning: write it without `!`.", field=where)
        try:
            entry = parse_entry(f"!{text}" if deny else text, any_port=True)
        except RuleError as error:
            raise InvalidInput(f"{where}: {error}", field=where) from error
        found.setdefault(entry.text.removeprefix("!"))
    return list(found)


def _check_description(checked: Checked, value: object) -> None:
    if not isinstance(value, str) or len(value) > MAX_DESCRIPTION or not value.isprintable():
        checked.wrong("description", f"It is a text of at most {MAX_DESCRIPTION} printable characters.")
    else:
        checked.spec["description"] = value


def _check_mode(checked: Checked, value: object) -> None:
    if value not in MODES:
        checked.wrong("mode", "It is deny, or allow for every public host that no entry denies.")
    else:
        checked.spec["mode"] = value


def _check_ingress(checked: Checked, value: object) -> None:
    if value is None:
        checked.spec["ingress"] = None
        return
    if not isinstance(value, list | tuple) or len(value) > MAX_INGRESS:
        checked.wrong("ingress", f"It is a list of at most {MAX_INGRESS} ports; null serves every port, [] none.")
        return
    before = len(checked.problems)
    for place, port in enumerate(value):
        if not _is_whole(port) or not 1 <= port <= 65_535:
            checked.wrong(f"ingress[{place}]", "A port is a whole number from 1 to 65535.")
        elif port == AGENT_PORT:
            checked.wrong(f"ingress[{place}]", f"{AGENT_PORT} is the sandbox's own API, which has its own keys.")
    if len(checked.problems) == before:
        checked.spec["ingress"] = list(dict.fromkeys(value))


def _check_dns(checked: Checked, value: object) -> None:
    if not isinstance(value, bool):
        checked.wrong("dns", "It is true or false.")
    else:
        checked.spec["dns"] = value


def _proxy_check(name: str) -> Callable[[Checked, object], None]:
    def check(checked: Checked, value: object) -> None:
        if value not in (None, PROXY_URL):
            checked.wrong(name, f"It is {PROXY_URL}, or null: a proxy of the company is an operator's `via`.")
        else:
            checked.spec[name] = value

    return check


def _check_via(checked: Checked, value: object) -> None:
    if value is None:
        return
    try:
        host, port = canonical_authority(value.encode("utf-8", "backslashreplace") if isinstance(value, str) else b"")
    except BadHost as error:
        checked.wrong("via", f"{error} Write it like proxy.example.com:3128.")
    else:
        checked.spec["via"] = f"{written(host)}:{port}"


def _check_limits(checked: Checked, value: object) -> None:
    if not isinstance(value, dict):
        checked.wrong("limits", f"It is an object with some of {', '.join(LIMIT_RANGES)}.")
        return
    for name, limit in value.items():
        largest = LIMIT_RANGES.get(name)
        if largest is None:
            checked.wrong(f"limits.{name}", "There is no such limit.")
        elif limit is not None and (not _is_whole(limit) or not 1 <= limit <= largest):
            checked.wrong(f"limits.{name}", f"It is a whole number from 1 to {largest}, or null.")
    checked.spec["limits"] = {name: value[name] for name in LIMIT_RANGES if name in value}


def _check_tls(checked: Checked, value: object) -> None:
    if not isinstance(value, dict):
        checked.wrong("tls", f"It is an object with some of {', '.join(TLS)}.")
        return
    for name, said in value.items():
        if name not in TLS or said not in TLS[name]:
            allowed = " or ".join(TLS[name]) if name in TLS else ""
            checked.wrong(f"tls.{name}", f"It is {allowed}." if allowed else "There is no such setting.")
    checked.spec["tls"] = {**checked.spec["tls"], **{name: value[name] for name in TLS if name in value}}


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _nothing(checked: Checked, value: object) -> None:
    """Take a field that is checked with what lies outside of the body."""


_CHECKS: dict[str, Callable[[Checked, Any], None]] = {
    "description": _check_description,
    "mode": _check_mode,
    "egress": _nothing,
    "ingress": _check_ingress,
    "dns": _check_dns,
    "http_proxy": _proxy_check("http_proxy"),
    "https_proxy": _proxy_check("https_proxy"),
    "via": _check_via,
    "limits": _check_limits,
    "tls": _check_tls,
}
