"""Acme's sandbox `ialice` with its key for OpenAI, and what code in it asks the broker with a token for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from audit.models import Event
from tenants import quota, turns
from tenants.broker import actions, redeeming, services, wishes
from tenants.broker.actions import Bound
from tenants.broker.redeeming import Asked, Caller, Refused
from tenants.broker.wishes import Budget, Wish
from tenants.tokenmodels import ScopedToken, TokenUse
from tests import factories

if TYPE_CHECKING:
    from tenants.broker.redeeming import Grant, Reason
    from tenants.models import Tenant
    from tenants.tokenmodels import BrokerService
    from tests.people import Person

KEY = "sk-proj-T3st-Key-of-Acme-9fQ2xWv7"
ALICE, BOB, MALLORY = Caller("ialice", 1), Caller("ibob", 1), Caller("imallory", 1)
CHAT = Asked("openai", "POST", ("v1", "chat", "completions"), "application/json", 200)


@dataclass
class Place:
    """What is issued to Alice's sandbox, and what is asked from it."""

    tenant: Tenant
    actor: Any

    def issue(self, *, caller: Caller = ALICE, **wanted: Any) -> str:
        """Return the text of a new token; without calls it is good for chat completions."""
        if not {"service", "allowed_apis"} & set(wanted):
            wanted["allowed_apis"] = ["openai/chat/completions"]
        wish = Wish(secret="openai-key", **wanted)
        with turns.write():
            return actions.issue(
                actor=self.actor,
                bound=Bound(self.tenant.pk, caller.sandbox_id, caller.generation, caller.run),
                wish=wish,
                checked=wishes.check(self.tenant.pk, wish),
            ).text

    def redeem(self, text: str, caller: Caller = ALICE, **asked: Any) -> Grant:
        """Use a token for a chat completion, or what else is asked."""
        return redeeming.redeem(text, caller, replace(CHAT, **asked))

    def refused(self, text: str, caller: Caller = ALICE, **asked: Any) -> Reason:
        """Return why a use that must be refused was; the caller hears nothing of it."""
        with pytest.raises(Refused) as refused:
            self.redeem(text, caller, **asked)
        if refused.value.status not in {429, 503}:
            body = {"code": 401, "message": "This token is not valid for this request.", "error_code": "token_refused"}
            assert (refused.value.as_body(), refused.value.headers()) == (body, {"Should-Retry": "false"})
        return refused.value.reason

    def service(self, name: str) -> BrokerService:
        """Return a new service of Acme, a million tokens of which cost ten dollars."""
        wanted = services.Description(base_url="https://llm.vendor.com", usd_per_mtok=10)
        return services.create(actor=self.actor, name=name, wanted=wanted)

    def token(self) -> ScopedToken:
        """Return the only token."""
        return ScopedToken.everywhere().get()


def events(code: str) -> list[Event]:
    """Return the events of a code, oldest first."""
    return list(Event.objects.filter(code=code).order_by("pk"))


def under_way() -> int:
    """Return how many uses are not settled."""
    return TokenUse.objects.count()


def made(alice: Person) -> Place:
    """Return Acme's key for OpenAI with two live sandboxes."""
    factories.secret(alice.tenant, "openai-key", KEY)
    for caller in (ALICE, BOB):
        quota.reserve(tenant_id=alice.tenant.pk, sandbox_id=caller.sandbox_id, amounts=quota.Amounts())
    return Place(alice.tenant, alice.actor)


@pytest.fixture
def place(alice: Person) -> Place:
    """Return Acme's key for OpenAI with two live sandboxes."""
    return made(alice)


__all__ = ["ALICE", "BOB", "CHAT", "KEY", "MALLORY", "Budget", "Place", "events", "place", "under_way"]
