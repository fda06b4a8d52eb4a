"""One event told in full: its facts, the reasons of its score, and its place in the chain."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.core.serializers.json import DjangoJSONEncoder
from django.utils.safestring import SafeString
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name

from audit import sources
from audit.models import Band
from corekit import clock

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pygments.lexer import Lexer

    from audit.models import Event

# What the rule's id begins with says what its snippet is written in.
_LANGUAGES = {"py": "python", "sh": "bash", "js": "javascript", "ts": "typescript"}
_BANDS = ((75, Band.CRITICAL), (50, Band.HIGH), (25, Band.MEDIUM))
_FORMAT: HtmlFormatter[str] = HtmlFormatter(nowrap=True)


@dataclass(frozen=True, slots=True)
class Fact:
    """One line about an event. `filter` is the query that finds others like it, `copy` says that it is an id."""

    label: str
    value: str
    filter: str = ""
    copy: bool = False


@dataclass(frozen=True, slots=True)
class Reason:
    """One finding as the panel shows it. `span` is its place in the code, `number` what it is called there."""

    number: int
    rule: str
    title: str
    message: str
    weight: int
    band: str
    tier: str
    kind: str
    where: str
    line: str
    span: Mapping[str, Any]
    snippet: str
    steps: tuple[str, ...]


def facts(event: Event) -> list[Fact]:
    """Return what is known of an event, without what is empty."""
    return [fact for fact in _facts(event) if fact.value]


def _facts(event: Event) -> Iterator[Fact]:
    yield Fact("Time", clock.to_rfc3339(event.at), copy=True)
    yield Fact("Received", clock.to_rfc3339(event.received_at))
    yield Fact("Who", f"{event.actor_name} ({event.actor_kind})", "actor_id=" + event.actor_id)
    yield Fact("Actor's id", event.actor_id, copy=True)
    yield Fact("Signed in by", event.actor_auth)
    yield Fact("On behalf of", event.on_behalf_of)
    yield Fact("Token", event.token_id, "token_id=" + event.token_id, copy=True)
    yield Fact("From", event.origin or "")
    yield Fact("Client", event.user_agent)
    yield Fact("What", f"{event.object_type} {event.object_name or event.object_id}", "object_id=" + event.object_id)
    yield Fact("Host", event.host, "host=" + event.host)
    yield Fact("Tool", event.tool_name)
    yield Fact("Isolation", event.tier)
    yield Fact("Policy", event.policy_version)
    yield Fact("Decision", event.decision)
    yield Fact("Status", "" if event.status is None else str(event.status))
    yield Fact("Reason", event.reason)
    yield Fact("Took", "" if event.duration_ms is None else f"{event.duration_ms:.1f} ms")
    yield Fact("Request", event.request_id, copy=True)
    yield Fact("Trace", event.trace_id, copy=True)
    yield Fact("Run", event.run_id, copy=True)
    yield Fact("Node", event.node_id)
    yield Fact("Written by", event.producer)
    yield Fact("Arguments", event.args_hash, copy=True)
    yield Fact("Event", event.pk, copy=True)


def reasons(event: Event) -> list[Reason]:
    """Return an event's findings, the heaviest first. Events of older forms have none."""
    found = [one for one in event.risk_findings if isinstance(one, dict)]
    found.sort(key=lambda one: (-int(one.get("weight") or 0), str(one.get("rule", ""))))
    return [_reason(number, one) for number, one in enumerate(found, 1)]


def source(arguments: Mapping[str, Any], found: Iterable[Reason]) -> sources.Source:
    """Return what ran, with the places of these findings marked."""
    code = sources.code_of(arguments)
    places = [sources.place_of(reason.number, reason.band, reason.span, code) for reason in found]
    return sources.source_of(code, [place for place in places if place is not None])


def _reason(number: int, finding: Mapping[str, Any]) -> Reason:
    rule, weight = str(finding.get("rule", "")), int(finding.get("weight") or 0)
    span = finding.get("span") or {}
    chain = [step for step in finding.get("chain") or () if isinstance(step, dict)]
    return Reason(
        number=number,
        rule=rule,
        title=str(finding.get("title") or rule),
        message=str(finding.get("message") or ""),
        weight=weight,
        band=next((band for least, band in _BANDS if weight >= least), Band.LOW),
        tier=str(finding.get("tier") or ""),
        kind=str(finding.get("kind") or ""),
        where=_where(span),
        line=str(span.get("line") or ""),
        span=span,
        snippet=_coloured(str(finding.get("snippet") or ""), _LANGUAGES.get(rule.split(".")[0].split("-")[0], "text")),
        steps=tuple(_where(step) for step in chain),
    )


def _where(span: Mapping[str, Any]) -> str:
    # Columns count from 0 in the findings, and from 1 for people.
    return f"line {span['line']}, column {int(span.get('column') or 0) + 1}" if span.get("line") else ""


def _coloured(snippet: str, language: str) -> SafeString:
    # Escapes what it does not mark.
    return SafeString(highlight(snippet, _lexer(language), _FORMAT).rstrip("\n")) if snippet else SafeString("")


@functools.cache
def _lexer(language: str) -> Lexer:
    return get_lexer_by_name(language, stripnl=False)


def as_json(event: Event) -> str:
    """Return every field of an event, for people who want to see all of it."""
    values = {field.attname: getattr(event, field.attname) for field in event._meta.concrete_fields}
    kept = {name: value for name, value in values.items() if value not in (None, "", [], {})}
    return json.dumps(kept, cls=DjangoJSONEncoder, indent=2, sort_keys=True, ensure_ascii=False)
