"""What is put into a sandbox's requests on their way out: header rules, workload identities, placeholders of secrets.

All of it names secrets and never holds one: their values are looked up for each request (`broker.rendering`).
"""

from __future__ import annotations

import re
import secrets
import string
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from corekit.errors import InvalidInput
from corekit.netrules.entries import RuleError, Suffix, require_narrow
from corekit.netrules.headerrules import (
    HeaderRule,
    Placeholder,
    Template,
    narrowest,
    parse_placeholder,
    parse_rule,
)
from corekit.netrules.hosts import canonical_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from corekit.netrules.hosts import Name

MAX_DOMAINS = 10
MAX_DOMAIN = 128
MAX_SECRETS = 32
MAX_IDENTITIES = 5
MAX_IDENTITY = 128
MAX_AUDIENCE = 512
MAX_BINDINGS = 32
TOKEN_TYPE = "JWT-SVID"  # noqa: S105
MALFORMED = "Network transform header contains a malformed E2B placeholder."
_PLACEHOLDER_CHARACTERS = 40
_ALPHABET = string.ascii_letters + string.digits
_E2B = re.compile(r"\$\{e2b\.(?!secrets\.|identity\.tokens\.)")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_NO_NAME = re.compile(r"[{}\x00-\x1f\x7f-\x9f]")
_SLOTS = ("header", "basic")
# Where a part of a rule stands in what users write.
_WORDS = {".set": ".transform.headers", ".methods": ".match.methods", ".paths": ".match.paths", ".host": ""}
_IN_WORDS = re.compile(r"^\.(?:set|methods|paths|host)")
# Some clients look at a key before they send it.
_PREFIXES: Mapping[str, str] = {
    "OPENAI_API_KEY": "sk-",
    "ANTHROPIC_API_KEY": "sk-ant-api03-",
    "GITHUB_TOKEN": "ghp_",
    "GH_TOKEN": "ghp_",
    "HF_TOKEN": "hf_",
    "HUGGING_FACE_HUB_TOKEN": "hf_",
    "SLACK_BOT_TOKEN": "xoxb-",
    "STRIPE_API_KEY": "sk_live_",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody asks to be put in, checked: rules as they may be shown again, identities, bindings by variable.

    `bindings` None says nothing of them: what there is stays.
    """

    rules: Mapping[str, Any] = field(default_factory=dict)
    identities: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    bindings: Mapping[str, Mapping[str, Any]] | None = None


def document_fields(rules: Mapping[str, Any], placeholders: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the fields `rules` and `placeholders` of the document that egress obeys."""
    return {
        "rules": [rule.dump() for rule in parsed_rules(rules)],
        "placeholders": [one.dump() for one in parsed_placeholders(placeholders)],
    }


def binds(document: Mapping[str, Any], host: str) -> bool:
    """Say whether requests to a host are changed on their way, by the fields of a document."""
    name = canonical_text(host)
    rule = narrowest((parse_rule(one, "rules") for one in document["rules"]), name)
    placeholders = (parse_placeholder(one, "placeholders") for one in document["placeholders"])
    return (rule is not None and bool(rule.headers)) or any(one.is_for(name) for one in placeholders)


def parsed_rules(rules: Mapping[str, Any]) -> tuple[HeaderRule, ...]:
    """Return rules that were checked before, one for each host, in an order that no database changes."""
    return tuple(_rule(host, said[0], "rules") for host, said in sorted(rules.items()) if said)


def parsed_placeholders(placeholders: Iterable[Mapping[str, Any]]) -> tuple[Placeholder, ...]:
    """Return placeholders as they are stored."""
    return tuple(
        parse_placeholder({name: one[name] for name in ("secret", "value", "hosts", "slots")}, "placeholders")
        for one in placeholders
    )


def environment(placeholders: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the variables that hold placeholders in the sandbox."""
    return {str(one["variable"]): str(one["value"]) for one in placeholders}


def secret_names(rules: Mapping[str, Any], placeholders: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return which secrets all of it names, sorted."""
    named = {part.name for rule in parsed_rules(rules) for part in _named(rule) if part.kind == "secret"}
    return sorted(named.union(str(one["secret"]) for one in placeholders))


def make_placeholders(bindings: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return new placeholders, random for each sandbox and variable."""
    return [
        {"variable": variable, "value": _random_value(variable), "slots": list(_SLOTS), **binding}
        for variable, binding in bindings.items()
    ]


def require_free(asked: Asked, env: Mapping[str, str]) -> None:
    """Raise InvalidInput for a variable that is given twice: as itself and as a placeholder."""
    for variable in asked.bindings or {}:
        if variable in env:
            where = f"secrets.{variable}"
            raise InvalidInput(f"{where} is in the environment already.", field=where)


def rebind(
    placeholders: Sequence[Mapping[str, Any]], bindings: Mapping[str, Mapping[str, Any]] | None
) -> list[dict[str, Any]]:
    """Return what a running sandbox's placeholders stand for from now on. Their values stay: they are inside.

    Raises InvalidInput for a variable that the sandbox did not start with.
    """
    if bindings is None:
        return [dict(one) for one in placeholders]
    by_variable = {one["variable"]: one for one in placeholders}
    for variable in bindings:
        if variable not in by_variable:
            where = f"secrets.{variable}"
            raise InvalidInput(f"{where} is new: a variable is given when the sandbox is made.", field=where)
    return [{**by_variable[variable], **binding} for variable, binding in bindings.items()]


def require_identities(rules: Mapping[str, Any], identities: Mapping[str, Any]) -> None:
    """Raise InvalidInput for a rule that names a workload identity which the sandbox has not."""
    for rule in parsed_rules(rules):
        for part in _named(rule):
            if part.kind == "identity" and part.name not in identities:
                raise InvalidInput(f"There is no workload identity token {part.name!r}.", field="rules")


def _named(rule: HeaderRule) -> Iterable[Any]:
    return (part for _, template in rule.headers for part in template.named)


def _random_value(variable: str) -> str:
    random = "".join(secrets.choice(_ALPHABET) for _ in range(_PLACEHOLDER_CHARACTERS))
    return f"{_PREFIXES.get(variable.upper(), '')}sbxph_{random}"


# --- rules


def check_rules(said: object, label: str) -> dict[str, Any]:
    """Return header rules as they are kept and shown. Raises InvalidInput, which never repeats a value."""
    if said is None:
        return {}
    domains = _object(said, label)
    if len(domains) > MAX_DOMAINS:
        raise InvalidInput(f"{label} must not have more than {MAX_DOMAINS} domains.", field=label, maximum=MAX_DOMAINS)
    kept: dict[str, Any] = {}
    hosts: set[object] = set()
    for domain, listed in domains.items():
        where = f"{label}.{domain[:MAX_DOMAIN]}"
        name = domain.strip().lower()
        if len(name) > MAX_DOMAIN:
            raise InvalidInput(f"A domain of {label} is longer than {MAX_DOMAIN} characters.", field=label)
        if name in kept:
            raise InvalidInput(f"{label} names {name} twice.", field=where)
        if not isinstance(listed, list) or len(listed) > 1:
            raise InvalidInput(f"{where} must be a list of at most one rule.", field=where)
        kept[name] = [_checked_rule(name, one, where) for one in listed]
        for one in kept[name]:
            # A name has several spellings: with a dot at its end, or as name servers are asked for it.
            host = _rule(name, one, where).host
            if host in hosts:
                raise InvalidInput(f"{label} names {host} twice.", field=where)
            hosts.add(host)
    return kept


def _checked_rule(host: str, said: object, where: str) -> dict[str, Any]:
    rule = _object(said, where, ("transform", "match"))
    shown: dict[str, Any] = {}
    if rule.get("transform") is not None:
        transform = _object(rule["transform"], f"{where}.transform", ("headers",))
        shown["transform"] = {}
        if transform.get("headers") is not None:
            headers = _object(transform["headers"], f"{where}.transform.headers")
            _check_templates(headers, f"{where}.transform.headers")
            shown["transform"]["headers"] = dict(headers)
    if rule.get("match") is not None:
        match = _object(rule["match"], f"{where}.match", ("methods", "paths"))
        shown["match"] = {name: value for name, value in match.items() if value is not None}
    try:
        parsed = _rule(host, shown, where)
        _require_narrow(parsed.host, where)
    except RuleError as error:
        at = where + _IN_WORDS.sub(lambda part: _WORDS[part[0]], error.field.removeprefix(where), count=1)
        raise InvalidInput(f"{at}: {error}", field=at) from None
    if len({part.name for part in _named(parsed) if part.kind == "secret"}) > MAX_SECRETS:
        raise InvalidInput(f"{where} names more than {MAX_SECRETS} secrets.", field=where, maximum=MAX_SECRETS)
    return shown


def _require_narrow(host: Name | Suffix, where: str) -> None:
    if isinstance(host, Suffix):
        try:
            require_narrow(host)
        except RuleError as error:
            raise RuleError(str(error), where) from None


def _rule(host: str, shown: Mapping[str, Any], where: str) -> HeaderRule:
    match = shown.get("match", {})
    said = {
        "host": host,
        "set": dict(sorted(shown.get("transform", {}).get("headers", {}).items())),
        "methods": match.get("methods"),
        "paths": match.get("paths"),
    }
    return parse_rule(said, where)


def _check_templates(headers: Mapping[str, Any], where: str) -> None:
    for value in headers.values():
        if not isinstance(value, str) or "${e2b." not in value:
            continue
        try:
            Template.parse(value)
        except RuleError:
            raise InvalidInput(MALFORMED, field=where) from None
        if _E2B.search(value):
            raise InvalidInput(MALFORMED, field=where)


def _object(said: object, where: str, known: Sequence[str] | None = None) -> Mapping[str, Any]:
    if not isinstance(said, dict):
        raise InvalidInput(f"{where} must be an object.", field=where)
    for name in said if known is not None else ():
        if known is not None and name not in known:
            raise InvalidInput(f"{where}.{name[:64]} is not known.", field=f"{where}.{name[:64]}")
    return said


# --- identities and bindings


def check_identities(said: object, label: str) -> dict[str, dict[str, str]]:
    """Return workload identity tokens, by name, as they are kept. Raises InvalidInput."""
    if said is None:
        return {}
    asked = _object(said, label)
    if len(asked) > MAX_IDENTITIES:
        raise InvalidInput(f"{label} must not have more than {MAX_IDENTITIES} entries.", field=label)
    return {name: _identity(name, one, label) for name, one in asked.items()}


def _identity(name: str, said: object, label: str) -> dict[str, str]:
    if not 1 <= len(name) <= MAX_IDENTITY or _NO_NAME.search(name):
        raise InvalidInput(
            f"A name in {label} has 1 to {MAX_IDENTITY} characters, without {{, }} and control characters.", field=label
        )
    where = f"{label}.{name}"
    token = _object(said, where, ("audience", "tokenType"))
    audience = token.get("audience")
    if not isinstance(audience, str) or not 1 <= len(audience) <= MAX_AUDIENCE:
        raise InvalidInput(
            f"{where}.audience must be a text of 1 to {MAX_AUDIENCE} characters.", field=f"{where}.audience"
        )
    if token.get("tokenType") != TOKEN_TYPE:
        raise InvalidInput(f"{where}.tokenType must be {TOKEN_TYPE}.", field=f"{where}.tokenType")
    return {"audience": audience, "tokenType": TOKEN_TYPE}


def check_bindings(said: object, label: str) -> dict[str, dict[str, Any]]:
    """Return by variable which secret its placeholder stands for, and for which hosts. Raises InvalidInput."""
    asked = _object(said, label)
    if len(asked) > MAX_BINDINGS:
        raise InvalidInput(f"{label} must not have more than {MAX_BINDINGS} entries.", field=label)
    return {variable: _binding(variable, one, label) for variable, one in asked.items()}


def _binding(variable: str, said: object, label: str) -> dict[str, Any]:
    if not _VARIABLE.fullmatch(variable):
        raise InvalidInput(
            f"A name in {label} must be 1 to 128 of A-Z, a-z, 0-9 and _, and not begin with a digit.", field=label
        )
    where = f"{label}.{variable}"
    binding = _object(said, where, ("secret", "hosts"))
    example = {"secret": binding.get("secret"), "hosts": binding.get("hosts"), "value": "x" * 16, "slots": list(_SLOTS)}
    try:
        parsed = parse_placeholder(example, where)
        for number, host in enumerate(parsed.hosts):
            _require_narrow(host, f"{where}.hosts[{number}]")
    except RuleError as error:
        raise InvalidInput(f"{error.field}: {error}", field=error.field) from None
    return {"secret": parsed.secret, "hosts": [str(host) for host in parsed.hosts]}
