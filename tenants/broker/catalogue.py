"""The services that the broker reaches: the ones it knows by itself, an operator's and a tenant's own.

A service says where a request goes and in which slot the secret travels. What a token may ask of it is in the token.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from django.db import connection

from corekit.headernames import PARTS, says_another_line
from tenants.models import Tenant
from tenants.tokenmodels import BrokerService

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

BROKER = "http://broker.gatehouse.internal"
"""How the broker is called from inside a sandbox."""

Kind = Literal["generic", "openai", "anthropic", "github"]
KINDS: tuple[Kind, ...] = ("generic", "openai", "anthropic", "github")

HEADER_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
USUAL_HEADERS = frozenset({"accept", "accept-language", "content-type", "content-length", "user-agent"})
"""What every service gets of a request's headers."""
NEVER_PASSED = frozenset(
    {
        *("accept-encoding", "api-key", "authorization", "connection", "cookie", "cookie2", "expect", "forwarded"),
        *("host", "http2-settings", "keep-alive", "origin", "proxy-authenticate", "proxy-authorization"),
        *("proxy-connection", "referer", "te", "trailer", "transfer-encoding", "upgrade", "via", "x-api-key"),
        *("content-encoding", "x-goog-api-key", "x-real-ip"),
        *PARTS,
    }
)
"""Headers that say how a message travels, who is behind it or who may: no service gets them from a sandbox."""
NEVER_PASSED_PREFIXES = ("gatehouse-", "proxy-", "x-forwarded-")
_HEADERS: dict[Kind, frozenset[str]] = {
    "generic": frozenset(),
    "openai": frozenset(
        {"idempotency-key", "openai-beta", "openai-organization", "openai-project", "x-client-request-id"}
    ),
    "anthropic": frozenset({"anthropic-beta", "anthropic-version", "idempotency-key"}),
    "github": frozenset({"if-none-match", "if-modified-since", "x-github-api-version"}),
}
# What a vendor's own client expects to be part of its base URL.
_CLIENT_PATH: dict[Kind, str] = {"openai": "/v1"}


class BadSlotError(ValueError):
    """A slot is none of the known forms."""


@dataclass(frozen=True, slots=True)
class Slot:
    """Where the secret travels: `bearer`, `basic` (the secret is `user:password`), `header:NAME` or `query:NAME`."""

    kind: Literal["bearer", "basic", "header", "query"]
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> Slot:
        """Return the slot of a text. Raises BadSlotError."""
        if text == "bearer":
            return cls("bearer", "authorization")
        if text == "basic":
            return cls("basic", "authorization")
        kind, _, name = text.partition(":")
        if kind == "header" and HEADER_NAME.fullmatch(name) and not is_about_the_message(name):
            return cls("header", name)
        if kind == "query" and _QUERY_NAME.fullmatch(name):
            return cls("query", name)
        raise BadSlotError(text)

    def __str__(self) -> str:
        """Return the slot as it is written."""
        return self.kind if self.kind in {"bearer", "basic"} else f"{self.kind}:{self.name}"


_QUERY_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_MESSAGE = frozenset(
    {
        *("accept", "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "cookie"),
        *("expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "via"),
    }
)


def is_about_the_message(name: str) -> bool:
    """Say whether a header is about the message itself, so that no secret can travel in it."""
    return name in _MESSAGE or name.startswith(NEVER_PASSED_PREFIXES)


def may_pass(name: str) -> bool:
    """Say whether a service may get a header of this name, in lower case, from a sandbox at all."""
    return not (name in NEVER_PASSED or name.startswith(NEVER_PASSED_PREFIXES) or says_another_line(name))


@dataclass(frozen=True, slots=True)
class Service:
    """Where requests of one name go. `private` may have an address that is not public; the operator said so.

    `microusd_per_mtok` is what a million tokens of its models cost at most, in millionths of a dollar; 0 is unknown.
    """

    name: str
    base_url: str
    kind: Kind
    slot: Slot
    headers: frozenset[str]
    private: bool = False
    microusd_per_mtok: int = 0
    id: str = ""
    version: int = 0

    @property
    def broker_url(self) -> str:
        """Return the URL under which a sandbox reaches it."""
        return f"{BROKER}/{self.name}"

    @property
    def client_url(self) -> str:
        """Return the base URL that its vendor's own client is to be given."""
        return self.broker_url + _CLIENT_PATH.get(self.kind, "")


def _built_in(name: Kind, base_url: str, slot: str) -> Service:
    return Service(name, base_url, name, Slot.parse(slot), USUAL_HEADERS | _HEADERS[name])


BUILT_IN: dict[str, Service] = {
    service.name: service
    for service in (
        _built_in("anthropic", "https://api.anthropic.com", "header:x-api-key"),
        _built_in("github", "https://api.github.com", "bearer"),
        _built_in("openai", "https://api.openai.com", "bearer"),
    )
}


@dataclass(frozen=True, slots=True)
class Api:
    """One call of a ready service under a name of its own."""

    service: str
    method: str
    path: str
    json: bool


def _api(name: str, method: str, path: str, *, json: bool) -> tuple[str, Api]:
    return name, Api(name.partition("/")[0], method, path, json)


APIS: dict[str, Api] = dict(
    (
        _api("openai/chat/completions", "POST", "/v1/chat/completions", json=True),
        _api("openai/responses", "POST", "/v1/responses", json=True),
        _api("openai/embeddings", "POST", "/v1/embeddings", json=True),
        _api("openai/moderations", "POST", "/v1/moderations", json=True),
        _api("openai/models", "GET", "/v1/models", json=False),
        _api("anthropic/messages", "POST", "/v1/messages", json=True),
        _api("anthropic/messages/count_tokens", "POST", "/v1/messages/count_tokens", json=True),
        _api("anthropic/models", "GET", "/v1/models", json=False),
        _api("github/user", "GET", "/user", json=False),
        _api("github/repository", "GET", "/repos/*/*", json=False),
        _api("github/contents", "GET", "/repos/*/*/contents/**", json=False),
        _api("github/issues", "GET", "/repos/*/*/issues", json=False),
        _api("github/issues/create", "POST", "/repos/*/*/issues", json=True),
    )
)
"""The names by which calls are allowed, as in `allowed_apis`."""


# As SQL: each call through the broker runs it.
_NAMED = (
    f"SELECT * FROM {BrokerService._meta.db_table} "  # noqa: S608  (the name of our own table)
    "WHERE name = %s AND (tenant_id IS NULL OR tenant_id = %s)"
)


def service_of(row: BrokerService) -> Service:
    """Return the service that a row describes."""
    kind: Kind = row.kind  # type: ignore[assignment]
    return Service(
        name=row.name,
        base_url=row.base_url,
        kind=kind,
        slot=Slot.parse(row.slot),
        headers=USUAL_HEADERS | _HEADERS[kind] | frozenset(row.headers),
        private=row.private,
        microusd_per_mtok=row.microusd_per_mtok,
        id=row.pk,
        version=row.version,
    )


def find(tenant_id: UUID | str, name: str) -> Service | None:
    """Return what a name stands for to a tenant: an operator's word first, then its own, then what is built in."""
    owner = Tenant._meta.pk.get_db_prep_value(tenant_id, connection)
    found = sorted(BrokerService.objects.raw(_NAMED, [name, owner]), key=lambda row: row.tenant_id is not None)
    return service_of(found[0]) if found else BUILT_IN.get(name)


def apis_of(service: Service) -> Mapping[str, Api]:
    """Return the calls that have a name at a service: those of the ready one of its kind."""
    return {name: api for name, api in APIS.items() if api.service == service.kind}
