"""Headers that egress sets on requests of a sandbox, and placeholders that it swaps for what they stand for.

A rule is no permission: whether a host may be reached, the policy's layers say. Templates name secrets and identities;
their values are never part of a document.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from corekit.netrules.entries import RuleError, Suffix
from corekit.netrules.hosts import BadHost, Name, canonical_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from corekit.netrules.hosts import Host

MAX_RULES = 64
MAX_HEADERS = 20
MAX_HEADER_NAME = 64
MAX_HEADER_VALUE = 2048
MAX_PLACEHOLDERS = 64
MAX_HOSTS = 32
SLOTS = ("header", "basic")
"""Where a placeholder is swapped: in the value of any header, or in user or password of Basic credentials."""

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_METHOD = re.compile(r"[A-Z]{1,16}")
_VALUE = re.compile(r"[\t\x20-\x7e]*")
_SECRET = re.compile(r"[A-Za-z0-9_-]{1,128}")
_PLACEHOLDER = re.compile(r"[A-Za-z0-9_-]{16,256}")
_IDENTITY = re.compile(r"[^{}\x00-\x1f\x7f]{1,128}")
_SEGMENT = re.compile(r"(?:[A-Za-z0-9._~!$&'()+,=:@-]|%[0-9A-Fa-f]{2})*")
_OPENING = re.compile(r"\$\{(?:e2b\.secrets|secrets|e2b\.identity\.tokens|identity)\.")
# Said by egress for itself, or by the protocol: a rule that set them would change where a request ends or goes.
_NOT_SET = frozenset(
    (
        *("host", "content-length", "transfer-encoding", "connection", "proxy-connection", "keep-alive", "te"),
        *("trailer", "upgrade", "expect", "accept-encoding", "proxy-authorization", "proxy-authenticate"),
    )
)
_NOT_SET_PREFIXES = ("gatehouse-", "sec-websocket-")
# What another parser could take for a border between segments, for a step in the tree or for the path's end; what is
# decoded twice; and what is no UTF-8 in its shortest form, in which some find all of these.
_AMBIGUOUS = re.compile(rb"(?i:%(?:2[f35]|3[bf]|5c|[01][0-9a-f]|7f|c[01]|f[5-9a-f]|e0%[89]|f0%8))|[\\;#]|//")
_STEPS = re.compile(rb"(?:\.|%2[eE]){1,2}")


@dataclass(frozen=True, slots=True)
class Named:
    """What a template stands for: a secret's value or a workload identity's token."""

    kind: Literal["secret", "identity"]
    name: str


@dataclass(frozen=True, slots=True)
class Template:
    """A header's value: texts as they are, between what is named."""

    text: str
    parts: tuple[str | Named, ...]

    @classmethod
    def parse(cls, text: str) -> Template:
        """Return what a value says. Raises RuleError for one that begins to name something and doesn't end."""
        parts: list[str | Named] = []
        at = 0
        while (opening := _OPENING.search(text, at)) is not None:
            end = text.find("}", opening.end())
            kind: Literal["secret", "identity"] = "identity" if "identity" in opening[0] else "secret"
            name = text[opening.end() : end] if end >= 0 else ""
            if not (_SECRET if kind == "secret" else _IDENTITY).fullmatch(name):
                raise RuleError("It names nothing: write ${secrets.NAME} or ${identity.NAME}.")
            parts += [text[at : opening.start()], Named(kind, name.lower() if kind == "secret" else name)]
            at = end + 1
        parts.append(text[at:])
        return cls(text, tuple(part for part in parts if part != ""))

    @property
    def named(self) -> tuple[Named, ...]:
        """Return what must be known to render it: nothing for plain text."""
        return tuple(part for part in self.parts if isinstance(part, Named))

    def render(self, value: Callable[[Named], str]) -> str:
        """Return the header's value."""
        return "".join(part if isinstance(part, str) else value(part) for part in self.parts)


@dataclass(frozen=True, slots=True)
class HeaderRule:
    """What is set on requests to a host. `methods` and `paths` None is every one."""

    host: Name | Suffix
    headers: tuple[tuple[str, Template], ...]
    methods: tuple[str, ...] | None = None
    paths: tuple[str, ...] | None = None

    def fits(self, method: str, path: bytes) -> bool:
        """Tell whether the rule is for a request. A path that could be read in two ways fits no pattern."""
        if self.methods is not None and method not in self.methods:
            return False
        if self.paths is None:
            return True
        segments = _segments(path)
        return segments is not None and any(_matches(pattern.split("/")[1:], segments) for pattern in self.paths)

    def dump(self) -> dict[str, Any]:
        """Return it as it stands in the document."""
        return {
            "host": str(self.host),
            "set": {name: template.text for name, template in self.headers},
            "methods": None if self.methods is None else list(self.methods),
            "paths": None if self.paths is None else list(self.paths),
        }


@dataclass(frozen=True, slots=True)
class Placeholder:
    """A text that a sandbox holds in a secret's place, and the hosts on whose way it is swapped."""

    secret: str
    value: str = field(repr=False)
    hosts: tuple[Name | Suffix, ...]
    slots: tuple[str, ...]

    def is_for(self, host: Host) -> bool:
        """Tell whether it is swapped on the way to this host."""
        return any(_depth(one, host) is not None for one in self.hosts)

    def dump(self) -> dict[str, Any]:
        """Return it as it stands in the document."""
        hosts = [str(host) for host in self.hosts]
        return {"secret": self.secret, "value": self.value, "hosts": hosts, "slots": list(self.slots)}


def narrowest(rules: Iterable[HeaderRule], host: Host) -> HeaderRule | None:
    """Return the one rule for a host: that of its name, else that of the longest name which it is below."""
    found = [(depth, rule) for rule in rules if (depth := _depth(rule.host, host)) is not None]
    return max(found, key=lambda one: one[0])[1] if found else None


def parse_rule(said: Any, where: str) -> HeaderRule:
    """Return a rule whose fields are known to be there. Raises RuleError."""
    headers = _headers(said["set"], f"{where}.set")
    methods = _texts(said["methods"], f"{where}.methods", _METHOD, "It is a method like POST.")
    return HeaderRule(_host(said["host"], f"{where}.host"), headers, methods, _paths(said["paths"], f"{where}.paths"))


def parse_placeholder(said: Any, where: str) -> Placeholder:
    """Return a placeholder whose fields are known to be there. Raises RuleError."""
    secret = _matching(said["secret"], f"{where}.secret", _SECRET, "It is a secret's name.")
    value = _matching(said["value"], f"{where}.value", _PLACEHOLDER, "It is 16 to 256 letters, digits, - or _.")
    hosts = said["hosts"]
    if not isinstance(hosts, list) or not 0 < len(hosts) <= MAX_HOSTS:
        raise RuleError(f"It is a list of 1 to {MAX_HOSTS} hosts.", f"{where}.hosts")
    slots = said["slots"]
    if not isinstance(slots, list) or not slots or not all(slot in SLOTS for slot in slots):
        raise RuleError(f"It is a list of {' or '.join(SLOTS)}.", f"{where}.slots")
    return Placeholder(
        secret.lower(),
        value,
        tuple(_host(one, f"{where}.hosts[{n}]") for n, one in enumerate(hosts)),
        tuple(slot for slot in SLOTS if slot in slots),
    )


def require_one_each(rules: tuple[HeaderRule, ...], placeholders: tuple[Placeholder, ...]) -> None:
    """Raise RuleError where two rules or two placeholders could be meant by the same request."""
    seen: set[object] = set()
    for place, rule in enumerate(rules):
        if rule.host in seen:
            raise RuleError(
                f"There is another rule for {rule.host}: write one with all headers.", f"rules[{place}].host"
            )
        seen.add(rule.host)
    for place, one in enumerate(placeholders):
        if any(one.value in other.value for other in placeholders if other is not one):
            raise RuleError("Another placeholder has this value in it.", f"placeholders[{place}].value")


def _depth(bound: Name | Suffix, host: Host) -> int | None:
    """Return how exactly what is bound means a host; None when it doesn't."""
    if not isinstance(host, Name):
        return None
    if isinstance(bound, Name):
        return len(bound.text) + 1 if bound == host else None
    return len(bound.text) if host.text.endswith(f".{bound.text}") else None


def _host(said: object, where: str) -> Name | Suffix:
    text = said if isinstance(said, str) else ""
    below = text.startswith("*.")
    try:
        host = canonical_text(text.removeprefix("*."))
    except BadHost as error:
        raise RuleError(str(error), where) from None
    if not isinstance(host, Name) or (below and "." not in host.text):
        raise RuleError("It is a name like api.example.com, or all below one like *.example.com.", where)
    return Suffix(host.text) if below else host


def _headers(said: object, where: str) -> tuple[tuple[str, Template], ...]:
    if not isinstance(said, dict) or len(said) > MAX_HEADERS:
        raise RuleError(f"It is an object of at most {MAX_HEADERS} headers.", where)
    if len({str(name).lower() for name in said}) != len(said):
        raise RuleError("It names a header twice.", where)
    return tuple((_header_name(name, where), _template(value, f"{where}.{name}")) for name, value in said.items())


def _header_name(name: str, where: str) -> str:
    if len(name) > MAX_HEADER_NAME or not _TOKEN.fullmatch(name):
        raise RuleError(f"{name[:MAX_HEADER_NAME]!a} is no name of a header.", where)
    if name.lower() in _NOT_SET or name.lower().startswith(_NOT_SET_PREFIXES):
        raise RuleError(f"{name} is not a rule's to set.", where)
    return name


def _template(said: object, where: str) -> Template:
    if not isinstance(said, str) or len(said) > MAX_HEADER_VALUE or not _VALUE.fullmatch(said):
        raise RuleError(f"It is a text of at most {MAX_HEADER_VALUE} printable ASCII characters.", where)
    try:
        return Template.parse(said)
    except RuleError as error:
        raise error.at(where) from None


def _texts(said: object, where: str, pattern: re.Pattern[str], advice: str) -> tuple[str, ...] | None:
    if said is None:
        return None
    if not isinstance(said, list) or not 0 < len(said) <= MAX_HOSTS:
        raise RuleError(f"It is null or a list of 1 to {MAX_HOSTS}.", where)
    return tuple(_matching(one, f"{where}[{n}]", pattern, advice) for n, one in enumerate(said))


def _paths(said: object, where: str) -> tuple[str, ...] | None:
    advice = "It is a path like /v1/chat, where * stands for one segment, and ** at the end for all below."
    patterns = _texts(said, where, re.compile(r"/[^\x00-\x20\x7f-\uffff]{0,512}"), advice)
    for place, pattern in enumerate(patterns or ()):
        *inner, last = pattern.split("/")[1:]
        plain = [one for one in (*inner, *([] if last == "**" else [last])) if one != "*"]
        if not all(_SEGMENT.fullmatch(one) for one in plain) or "" in inner or _segments(pattern.encode()) is None:
            raise RuleError(advice, f"{where}[{place}]")
    return patterns


def _matching(said: object, where: str, pattern: re.Pattern[str], advice: str) -> str:
    if not isinstance(said, str) or not pattern.fullmatch(said):
        raise RuleError(advice, where)
    return said


def _segments(path: bytes) -> list[str] | None:
    """Return a path's segments; None where somebody else could read other ones."""
    path = path.partition(b"?")[0]
    segments = path.split(b"/")[1:]
    if not path.startswith(b"/") or _AMBIGUOUS.search(path) or any(_STEPS.fullmatch(one) for one in segments):
        return None
    return [one.decode("latin-1") for one in segments]


def _matches(pattern: list[str], segments: list[str]) -> bool:
    if pattern[-1] == "**":
        return len(segments) >= len(pattern) and _matches([*pattern[:-1], "*"], segments[: len(pattern)])
    return len(pattern) == len(segments) and all(
        (one == "*" and said != "") or one == said for one, said in zip(pattern, segments, strict=True)
    )
