"""What somebody asks for when a token is to be issued, checked: which secret, for which calls, within which bounds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from corekit.errors import Conflict, InvalidInput
from tenants.broker import bodyrules, calls, catalogue
from tenants.secretmodels import Secret, SecretState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from tenants.broker.calls import Allowed
    from tenants.broker.catalogue import Service

DEFAULT_S, LONGEST_S = 300, 86_400
DEFAULT_USES = 1
USUAL_TOKENS = 4096
"""So many tokens a use is expected to cost where no rule says how long an answer may be."""
_MICRO = 1_000_000


@dataclass(frozen=True, slots=True)
class Budget:
    """What all uses of a token may cost together; None is no limit."""

    bytes_out: int | None = None
    tokens: int | None = None
    microusd: int | None = None


@dataclass(frozen=True, slots=True)
class Wish:
    """A token that somebody asks for. The calls are named by `allowed_apis`, or by `service` with `allow`."""

    secret: str
    service: str = ""
    allowed_apis: Sequence[str] = ()
    allow: Sequence[Mapping[str, Any]] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    max_uses: int | None = DEFAULT_USES
    requests_per_minute: int | None = None
    budget: Budget = field(default_factory=Budget)
    starts_in_s: int = 0
    expires_in_s: int = DEFAULT_S
    purpose: str = ""


@dataclass(frozen=True, slots=True)
class Checked:
    """A wish that can be granted."""

    secret: Secret
    service: Service
    allow: Sequence[Allowed]
    params: dict[str, Any]
    tokens_per_use: int
    microusd_per_use: int


def check(tenant_id: UUID, wish: Wish) -> Checked:
    """Check a wish of a tenant. Raises InvalidInput or Conflict, naming the field."""
    secret = _secret(tenant_id, wish.secret)
    service, allow = _calls(tenant_id, wish)
    if wish.budget.microusd is not None and not service.microusd_per_mtok:
        raise InvalidInput("budget.usd: The service has no price, so nobody can count it.", field="budget.usd")
    params = bodyrules.checked(wish.params)
    counts = wish.budget.tokens is not None or wish.budget.microusd is not None
    tokens = params.get(bodyrules.LENGTH, USUAL_TOKENS) if counts else 0
    return Checked(secret, service, allow, params, tokens, -(-tokens * service.microusd_per_mtok // _MICRO))


def _secret(tenant_id: UUID, name: str) -> Secret:
    wanted = name.strip().lower()
    found = Secret.everywhere().filter(tenant_id=tenant_id, name=wanted, deleted_at=None).first()
    if found is None:
        raise InvalidInput("secret: There is no secret of this name.", field="secret")
    if found.state != SecretState.ACTIVE:
        raise Conflict("The secret is disabled.", field="secret")
    return found


def _calls(tenant_id: UUID, wish: Wish) -> tuple[Service, list[Allowed]]:
    if wish.allowed_apis:
        if wish.service or wish.allow:
            raise InvalidInput("allowed_apis: Name calls here, or a service and what to allow.", field="allowed_apis")
        return _named_apis(tenant_id, wish.allowed_apis)
    if not wish.service:
        raise InvalidInput("service: Name a service, or calls in allowed_apis.", field="service")
    service = catalogue.find(tenant_id, wish.service)
    if service is None:
        raise InvalidInput("service: There is no service of this name.", field="service")
    if wish.allow:
        return service, calls.checked(wish.allow)
    usual = [calls.of_api(api) for api in catalogue.apis_of(service).values()]
    if not usual:
        raise InvalidInput("allow: Say which calls of this service the token is good for.", field="allow")
    return service, usual


def _named_apis(tenant_id: UUID, names: Sequence[str]) -> tuple[Service, list[Allowed]]:
    for place, name in enumerate(names):
        if name not in catalogue.APIS:
            where = f"allowed_apis[{place}]"
            raise InvalidInput(f"{where}: There is no call of this name; the services list them.", field=where)
    apis = [catalogue.APIS[name] for name in dict.fromkeys(names)]
    services = {api.service for api in apis}
    if len(services) > 1:
        raise InvalidInput("allowed_apis: A token is for one service.", field="allowed_apis")
    service = catalogue.find(tenant_id, services.pop())
    if service is None:
        raise InvalidInput("allowed_apis: The service is gone.", field="allowed_apis")
    return service, [calls.of_api(api) for api in apis]
