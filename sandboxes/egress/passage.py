"""One decided way through egress: what it was judged by, what went through it, and how it is recorded."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from corekit.netrules.decide import Verdict, judge, led_astray, reachable
from corekit.netrules.reasons import Reason
from sandboxes.egress.events import Fact
from sandboxes.egress.refusals import Refused, refusal_of

if TYPE_CHECKING:
    from corekit.addresses import Address
    from corekit.netrules.hosts import Name
    from corekit.netrules.policy import Policy
    from sandboxes.egress.registry import Sandbox
    from sandboxes.egress.services import Services
    from sandboxes.egress.target import Target

# What `closed` events say of an end that a limit or a policy brought.
_REASONS = {"policy_closed": Reason.POLICY_CLOSED, "limit": Reason.LIMIT, "idle": Reason.LIMIT}


def require(services: Services, sandbox: Sandbox) -> None:
    """Take one of the sandbox's flows. Raises Refused when there is none left, or when it could not be recorded."""
    if not services.outbox.has_room(sandbox.id):
        raise Refused(Reason.EVENTS_FULL)
    if not sandbox.admit():
        raise Refused(Reason.LIMIT)


class Passage:
    """From the decision to the end of the connection to one server."""

    def __init__(self, services: Services, sandbox: Sandbox, target: Target, via: str) -> None:
        """Judge the target. Raises Refused; on success one of the sandbox's flows is taken until `end`."""
        require(services, sandbox)
        self._services = services
        self._sandbox = sandbox
        self._began = asyncio.get_running_loop().time()
        self._told = False
        self.target = target
        self.via = via
        self.protocol: str | None = None
        self.address: Address | None = None
        self.direct = True
        self.sni: str | None = None
        self.ech = False
        self.method: str | None = None
        # Whether requests to it are changed, for which its TLS ends here.
        self.bound = sandbox.policy.binds(target.host)
        self.secrets_sent = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self._version = sandbox.policy.version
        self._open = True
        self._judge_or_release()

    def _judge_or_release(self) -> None:
        self.verdict = judge(self._sandbox.policy, self.target.host, self.target.port)
        if not self.verdict.allowed:
            self._release()
            raise refusal_of(self.verdict)

    def _release(self) -> None:
        if self._open:
            self._open = False
            self._sandbox.active -= 1

    def may_stay(self) -> bool:
        """Judge again by the policy that holds now."""
        policy = self._sandbox.policy
        verdict = judge(policy, self.target.host, self.target.port)
        if not verdict.allowed or (self.protocol is not None and not speaks(verdict, self.protocol)):
            return False
        # Requests in the clear are changed one by one, by the policy that holds then.
        if self.protocol != "http" and policy.binds(self.target.host) != self.bound:
            return False
        if self.ech and policy.tls.ech == "deny":
            return False
        if self.address is not None and self.direct and not self._may_connect(policy, self.address):
            return False
        self.verdict = verdict
        return True

    def _may_connect(self, policy: Policy, address: Address) -> bool:
        astray = led_astray(policy, self.target.host, self.target.port, address)
        return astray is None and reachable(policy, address, self._services.own.now()) is None

    def count_out(self, size: int) -> bool:
        """Count bytes to the server; False when the budget is used up."""
        if not self._sandbox.spend(size):
            return False
        self.bytes_out += size
        return True

    def count_in(self, size: int) -> bool:
        """Count bytes to the sandbox."""
        self.bytes_in += size
        return True

    def check_age(self, now: float) -> None:
        """Record a flow that lives long before its end."""
        if self._open and not self._told and now - self._began > self._services.settings.limits.opened_seconds:
            self._told = True
            self._services.outbox.record(self._fact("egress.opened", None, now))

    def end(self, how: str) -> None:
        """Record the flow, once."""
        if not self._open:
            return
        self._release()
        now = asyncio.get_running_loop().time()
        fact = self._fact("egress.closed", _REASONS.get(how), now)
        fact.details["closed"] = how
        self._services.outbox.record(fact)

    def give_back(self) -> None:
        """What was judged well could not be passed on after all, and is recorded as refused."""
        self._release()

    def _fact(self, code: str, reason: Reason | None, now: float) -> Fact:
        return Fact(
            sandbox=self._sandbox.id,
            generation=self._sandbox.generation,
            code=code,
            decision="allow",
            reason=reason,
            duration_ms=(now - self._began) * 1e3,
            details=self.details(),
        )

    def details(self) -> dict[str, Any]:
        """Return what events say of it."""
        return {
            "host": self.target.name,
            "port": self.target.port,
            "protocol": self.protocol,
            "address": None if self.address is None else str(self.address),
            "sni": self.sni,
            "rule": self.verdict.rule,
            "layer": self.verdict.layer,
            "policy_version": self._version,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "via": self.via,
            "method": self.method,
            **({"secrets_sent": self.secrets_sent} if self.secrets_sent else {}),
        }


class BrokerPassage(Passage):
    """To the broker, which every policy lets through: it judges for itself, by who asks."""

    def _judge_or_release(self) -> None:
        self.verdict = Verdict(allowed=True, protocols=frozenset({"http"}))

    def may_stay(self) -> bool:
        """No policy closes it."""
        return True


def speaks(verdict: Verdict, protocol: str) -> bool:
    """Tell whether a verdict lets a protocol pass."""
    return protocol in verdict.protocols or "tcp" in verdict.protocols


def forbidden(sandbox: Sandbox, name: Name, port: int) -> Refused | None:
    """Return why a name may not be asked for even at an address that is allowed; None when nothing says so."""
    verdict = judge(sandbox.policy, name, port)
    if verdict.allowed or (verdict.rule is None and verdict.reason is not Reason.METADATA):
        return None
    return refusal_of(verdict)
