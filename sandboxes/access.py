"""Who may open a sandbox's data plane: tokens per sandbox and API key, and the grants that make them count."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.conf import settings

from corekit import clock, tokens
from tenants.models import ApiKey

if TYPE_CHECKING:
    from corekit.actor import Actor
    from sandboxes.models import Sandbox
    from sandboxes.node_client import NodeClient

EXECUTE = "sandboxes:use"


@dataclass(frozen=True, slots=True)
class Access:
    """A sandbox, the token with which its caller opens it, and whether it was paused until then.

    The token is None when the caller may not execute.
    """

    sandbox: Sandbox
    token: str | None
    resumed: bool = False

    def __repr__(self) -> str:
        return f"Access({self.sandbox.pk!r})"


def may_execute(actor: Actor) -> bool:
    """Say whether the actor is an API key that may run code and touch files."""
    return actor.kind == "api_key" and actor.has(EXECUTE)


def access_key(sandbox_id: str, generation: int) -> bytes:
    """Return the key that verifies every token of one generation of a sandbox. Only web has the seed."""
    return tokens.access_key(settings.GATEHOUSE.seed(), sandbox_id, generation)


def traffic_token(sandbox: Sandbox) -> str | None:
    """Return the token that opens the sandbox's ports, or None while they are open to everybody."""
    if sandbox.allow_public_traffic:
        return None
    return tokens.traffic_token(settings.GATEHOUSE.seed(), sandbox.pk, sandbox.generation)


AGENT_PORT = 49983


def doors(granted: Access) -> dict[str, object]:
    """Return how the caller reaches the inside: the token, where to, and the headers to send.

    The one public URL always works; under a domain each port also has a host name of its own.
    """
    sandbox, home = granted.sandbox, settings.GATEHOUSE
    headers = {"E2b-Sandbox-Id": sandbox.pk, "E2b-Sandbox-Port": str(AGENT_PORT)}
    if granted.token is not None:
        headers["X-Access-Token"] = granted.token
    return {
        "token": granted.token,
        "url": home.public_url,
        "headers": headers,
        "port_url": f"https://{{port}}-{sandbox.pk}.{home.domain}" if home.domain else None,
        "traffic_token": None if granted.token is None else traffic_token(sandbox),
    }


def token_for(actor: Actor, sandbox: Sandbox) -> str | None:
    """Return the actor's token, or None when it may not execute. It counts once its grant is at the node."""
    if not may_execute(actor):
        return None
    return tokens.mint(access_key(sandbox.pk, sandbox.generation), actor.id)


def grants_for(actor: Actor) -> dict[str, int | None]:
    """Return the grant that a new sandbox starts with: the creator's key until it expires."""
    if not may_execute(actor):
        return {}
    return {actor.id: key_expiry(actor.id)}


def grant(client: NodeClient, sandbox: Sandbox, actor: Actor) -> None:
    """Let the actor's token open the sandbox, unless it was the creator's from the start."""
    if may_execute(actor) and sandbox.created_by != actor.id:
        _grant_once(client, sandbox.pk, sandbox.generation, actor.id)


@functools.lru_cache(maxsize=8192)
def _grant_once(client: NodeClient, sandbox_id: str, generation: int, key_id: str) -> None:
    """Put a grant at the node, which keeps it as long as the sandbox lives: those who poll need it once."""
    client.grant(sandbox_id, generation, key_id, key_expiry(key_id))


@functools.lru_cache(maxsize=4096)
def key_expiry(key_id: str) -> int | None:
    """Return when a key expires, in milliseconds, or None for never. It never changes, so it is read once."""
    expires_at = ApiKey.everywhere().values_list("expires_at", flat=True).get(pk=key_id)
    return None if expires_at is None else clock.to_ms(expires_at)
