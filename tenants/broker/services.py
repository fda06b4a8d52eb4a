"""Every change to services: where secrets go, so each is checked hard and an event.

The ready ones are rows of the platform that an operator may point elsewhere, such as to a company's own gateway.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db import IntegrityError, transaction

from audit.recording import record
from corekit import clock, ids
from corekit.errors import Conflict, InvalidInput, NotFound
from corekit.netrules.hosts import BadHost, Name, canonical_port, canonical_text, written
from tenants import policy
from tenants.broker.catalogue import BUILT_IN, KINDS, BadSlotError, Slot, may_pass
from tenants.models import SLUG_PATTERN, Tenant
from tenants.policy import require
from tenants.tokenmodels import BrokerService

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from django.db.models import QuerySet

    from corekit.actor import Actor

READ, WRITE, OPERATE = "services:read", "services:write", "platform:write"
MAX_SERVICES, MAX_HEADERS, MAX_URL = 200, 32, 300
MOST_USD = 10_000
_PORTS = frozenset({443, 8443})
_NAME = re.compile(SLUG_PATTERN)
_HEADER = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_URL = re.compile(r"https://(?P<host>\[[0-9a-fA-F:.]+\]|[^/:?#@\\\[\]\s]+)(?::(?P<port>[0-9]+))?(?P<path>/[^?#\\\s]*)?")
_SEGMENT = re.compile(r"[A-Za-z0-9._~-]+")
# Names that mean something on one network only, or no host at all.
_INSIDE = frozenset({"internal", "local", "localhost", "arpa", "onion"})
_SHOWN = ("kind", "base_url", "slot", "headers", "private", "microusd_per_mtok")


@dataclass(frozen=True, slots=True)
class Description:
    """What a service is to be; prices are in dollars for a million tokens, 0 where nobody knows."""

    base_url: str
    kind: str = "generic"
    slot: str = "bearer"
    headers: Sequence[str] = ()
    private: bool = False
    usd_per_mtok: float = 0


def create(*, actor: Actor, name: str, wanted: Description) -> BrokerService:
    """Create a service of the actor's tenant; an operator creates one of the platform.

    Raises InvalidInput naming the field, Forbidden for `private`, Conflict for a name that is taken.
    """
    require(actor, WRITE)
    tenant = None if actor.tenant_id is None else Tenant.objects.get(pk=actor.tenant_id)
    if tenant is None:
        require(actor, OPERATE)
    if not _NAME.fullmatch(name) or ids.is_event_id(name):
        raise InvalidInput("name: A name has 1 to 63 characters of a-z, 0-9 and dashes inside.", field="name")
    values = _checked(actor, wanted)
    # A tenant's service of a platform's name would be mistaken for it.
    if name in BUILT_IN or (tenant is not None and BrokerService.objects.filter(tenant=None, name=name).exists()):
        raise Conflict(f"{name} is the name of a service of the platform.", field="name")
    if BrokerService.objects.filter(tenant=tenant).count() >= MAX_SERVICES:
        raise Conflict(f"There are {MAX_SERVICES} services already: delete one first.")
    service = BrokerService(tenant=tenant, name=name, updated_by=actor.id[:64], **values)
    try:
        with transaction.atomic():
            service.save(force_insert=True)
            _record("service.created", actor, service, **_as_details(service))
    except IntegrityError as error:
        raise Conflict(f"There is a service {name} already.", field="name") from error
    return service


def replace(*, actor: Actor, service: BrokerService, version: int, wanted: Description) -> BrokerService:
    """Make a service what is wanted, for tokens that were issued for it too.

    Raises as `create`, and Conflict unless the service still has the version that the caller has seen.
    """
    _require_for(actor, service)
    values = _checked(actor, wanted, granted=service.base_url if service.private else "")
    now = clock.now()
    with transaction.atomic():
        current = BrokerService.objects.select_for_update().filter(pk=service.pk).first()
        if current is None:
            raise NotFound("There is no such service.")
        before = {name: getattr(current, name) for name in _SHOWN}
        kept = BrokerService.objects.filter(pk=service.pk, version=version)
        if not kept.update(version=version + 1, updated_at=now, updated_by=actor.id[:64], **values):
            raise Conflict(
                f"The service has version {current.version} by now: read it again.",
                field="version",
                version=current.version,
            )
        current.refresh_from_db()
        after = {name: getattr(current, name) for name in _SHOWN}
        changed = [name for name in _SHOWN if before[name] != after[name]]
        _record(
            "service.changed",
            actor,
            current,
            before={name: before[name] for name in changed},
            after={name: after[name] for name in changed},
        )
    return current


def delete(*, actor: Actor, service: BrokerService) -> None:
    """Delete a service; tokens that were issued for it are refused. Raises Conflict for a ready one."""
    _require_for(actor, service)
    if service.tenant_id is None and service.name in BUILT_IN:
        raise Conflict(f"{service.name} is one of the platform's own services, which stay.")
    with transaction.atomic():
        deleted, _ = BrokerService.objects.filter(pk=service.pk).delete()
        if not deleted:
            raise NotFound("There is no such service.")
        _record("service.deleted", actor, service, **_as_details(service))


def services_for(actor: Actor) -> QuerySet[BrokerService]:
    """Return the platform's services and the tenant's own; for operators those of all tenants."""
    require(actor, READ)
    return BrokerService.visible_to(actor)


def service_for(actor: Actor, name: str, scope: str = READ) -> BrokerService:
    """Return a service by its name, or by its id. Raises NotFound first."""
    rows = BrokerService.visible_to(actor).select_related("tenant")
    if ids.is_event_id(name):
        found = rows.filter(pk=name).first()
    else:
        named = rows.filter(name=name[:64])
        found = named.filter(tenant=None).first()
        if found is None and actor.tenant_id is not None:
            found = named.filter(tenant=UUID(actor.tenant_id)).first()
    if found is None:
        raise NotFound("There is no such service.")
    policy.require(actor, scope)
    return found


def make_missing(**_: object) -> None:
    """Add the ready services that have no row. What an operator made of one stays."""
    known = set(BrokerService.objects.filter(tenant=None).values_list("name", flat=True))
    for name, ready in BUILT_IN.items():
        if name not in known:
            BrokerService.objects.create(name=name, kind=ready.kind, base_url=ready.base_url, slot=str(ready.slot))


def _checked(actor: Actor, wanted: Description, *, granted: str = "") -> dict[str, Any]:
    """Return a service's columns; `granted` is the one address for which an operator made it private."""
    if wanted.private and wanted.base_url != granted:
        require(actor, OPERATE)
    if wanted.kind not in KINDS:
        raise InvalidInput(f"kind: It is one of {', '.join(KINDS)}.", field="kind")
    try:
        slot = Slot.parse(wanted.slot)
    except BadSlotError:
        message = "slot: It is bearer, basic, header:NAME or query:NAME, with a name in which a secret can travel."
        raise InvalidInput(message, field="slot") from None
    return {
        "kind": wanted.kind,
        "base_url": _base_url(wanted.base_url, private=wanted.private, any_port=wanted.private or actor.has(OPERATE)),
        "slot": str(slot),
        "headers": _headers(wanted.headers, slot),
        "private": wanted.private,
        "microusd_per_mtok": round(wanted.usd_per_mtok * 1_000_000),
    }


def _base_url(text: str, *, private: bool, any_port: bool) -> str:
    """Return a base URL in its one form: https, a canonical host, and no slash at its end."""
    match = _URL.fullmatch(text) if len(text) <= MAX_URL else None
    if match is None:
        raise _bad_url("It is https://host or https://host/path, without user, query or fragment.")
    try:
        host = canonical_text(match["host"])
        port = canonical_port(match["port"]) if match["port"] else 443
    except BadHost as error:
        raise _bad_url(str(error)) from None
    if not private and (not isinstance(host, Name) or "." not in host.text or host.text.split(".")[-1] in _INSIDE):
        raise _bad_url("It names no host of the public internet; an operator may make a service private.")
    if port not in _PORTS and not any_port:
        raise _bad_url(f"Its port is one of {', '.join(map(str, sorted(_PORTS)))}.")
    segments = (match["path"] or "").rstrip("/").split("/")[1:]
    if any(segment in {".", ".."} or not _SEGMENT.fullmatch(segment) for segment in segments):
        raise _bad_url("Its path holds plain segments only.")
    return "".join(("https://", written(host), "" if port == 443 else f":{port}", *(f"/{one}" for one in segments)))


def _bad_url(message: str) -> InvalidInput:
    return InvalidInput(f"base_url: {message}", field="base_url")


def _headers(names: Sequence[str], slot: Slot) -> list[str]:
    if len(names) > MAX_HEADERS:
        raise InvalidInput(f"headers: Name {MAX_HEADERS} at most.", field="headers")
    for place, name in enumerate(names):
        if not _HEADER.fullmatch(name) or not may_pass(name) or name == slot.name:
            where = f"headers[{place}]"
            raise InvalidInput(f"{where}: No service gets a header of this name from a sandbox.", field=where)
    return sorted(set(names))


def _require_for(actor: Actor, service: BrokerService) -> None:
    if service.tenant_id is None:
        require(actor, OPERATE)
        return
    if actor.tenant_id is not None and actor.tenant_id != service.tenant_id.hex:
        raise NotFound("There is no such service.")
    require(actor, WRITE)


def _as_details(service: BrokerService) -> Mapping[str, object]:
    return {"name": service.name, **{name: getattr(service, name) for name in _SHOWN if name != "microusd_per_mtok"}}


def _record(code: str, actor: Actor, service: BrokerService, **details: object) -> None:
    record(
        code,
        actor=actor,
        object_type="service",
        object_id=service.pk,
        object_name=service.name,
        tenant_id=service.tenant_id,
        details=details,
    )
