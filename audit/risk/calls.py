"""Judge calls that run no code of their own: files, input, ports. A look into tables, fit for every call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from audit.risk.findings import Finding
from audit.risk.places import path_classes
from audit.risk.scoring import combine

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from audit.risk.findings import Assessment

_RULES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "rules" / "calls.json").read_bytes())["rules"]
_BY_CODE = {code: rule for rule in _RULES for code in rule.get("codes", ())}
_BY_PLACE = [rule for rule in _RULES if "places" in rule]
_WRITING = frozenset({"file.write", "file.mkdir", "file.move", "file.remove"})
_PATHS = ("path", "source", "destination", "paths", "sources", "source_paths", "sourcePaths")
_MAX_PATHS = 100
_MAX_PATH = 4096


def assess_call(code: str, arguments: Mapping[str, object]) -> Assessment:
    """Judge one call by its event code and its arguments."""
    findings = [_finding(_BY_CODE[code])] if code in _BY_CODE else []
    writing = code in _WRITING
    for path in _paths(arguments):
        classes = path_classes(path, writing=writing)
        findings += [
            _finding(rule) for rule in _BY_PLACE if _counts(rule, writing) & bool(classes & set(rule["places"]))
        ]
    return combine("call", findings)


def _counts(rule: Mapping[str, Any], writing: bool) -> bool:  # noqa: FBT001
    return rule.get("when") in {None, "writing" if writing else "reading"}


def _paths(arguments: Mapping[str, object]) -> Iterator[str]:
    for name in _PATHS:
        value = arguments.get(name)
        several = value if isinstance(value, list) else [value]
        yield from (one[:_MAX_PATH] for one in several[:_MAX_PATHS] if isinstance(one, str) and one)


def _finding(rule: Mapping[str, Any]) -> Finding:
    return Finding(
        rule=rule["id"],
        title=rule["title"],
        kind=rule["kind"],
        weight=rule["weight"],
        tier=rule["tier"],
        message=rule["message"],
    )
