"""Events that pages of the tests show, written as the product writes them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from audit import feed
from audit.models import PLATFORM_CHAIN, Chain, Event, Seal
from corekit import clock

if TYPE_CHECKING:
    from tenants.models import Tenant

SANDBOX = "i4t7w2k9q1m5x8c3v6b0"


def event(tenant: Tenant | None, code: str = "command.start", **fields: Any) -> Event:
    """Return a stored event of a tenant, or of the platform."""
    minutes = fields.pop("minutes_ago", 1)
    values: dict[str, Any] = {
        "tenant_id": tenant.pk if tenant else None,
        "code": code,
        "at": clock.now() - timedelta(minutes=minutes),
        "actor_kind": "api_key",
        "actor_id": "k3y0000000000001",
        "actor_name": "Alice's key",
        "object_type": "sandbox",
        "object_id": SANDBOX,
        "sandbox_id": SANDBOX,
        "origin": "203.0.113.7",
    }
    return Event.objects.create(**values | fields)


def risky(tenant: Tenant, **fields: Any) -> Event:
    """Return an event with a critical score and its reasons."""
    findings = [
        {
            "rule": "py.exec.dynamic",
            "title": "Runs code that it makes at run time",
            "kind": "capability",
            "weight": 60,
            "tier": "L3",
            "message": "exec() gets a text that is not in the source.",
            "span": {"line": 3, "column": 0, "end_line": 3, "end_column": 24, "offset": 30, "end_offset": 54},
            "snippet": "exec(b64decode(payload))",
            "chain": [],
        },
        {
            "rule": "py.net.connect",
            "title": "Opens a network connection",
            "kind": "indicator",
            "weight": 30,
            "tier": "L2",
            "message": "socket.create_connection() reaches out.",
            "span": None,
            "snippet": "",
            "chain": [],
        },
    ]
    values: dict[str, Any] = {
        "tool_name": "run_code",
        "risk_score": 88,
        "risk_band": "critical",
        "risk_tier": "L3",
        "risk_ruleset": "gatehouse-v1:0123456789ab",
        "risk_reasons": ["py.exec.dynamic", "py.net.connect"],
        "risk_findings": findings,
        "risk_seed": {"score": 70, "tier": "L3", "reasons": ["exec", "network"]},
    }
    return event(tenant, **values | fields)


def seal(*events: Event) -> None:
    """Give events their numbers, as the sealer does, but without meaning in the hashes."""
    for one in events:
        name = one.tenant_id.hex if one.tenant_id else PLATFORM_CHAIN
        chain, _ = Chain.objects.get_or_create(pk=name)
        chain.size += 1
        chain.head = f"{chain.size:064x}"
        chain.save()
        Seal.objects.create(chain=name, seq=chain.size, event_id=one.pk, hash=chain.head)
        feed.announce([name])
