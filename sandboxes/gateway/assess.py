"""What an act is: its arguments' keyed hash, their shape, its risk.

The arguments themselves go nowhere, unless the tenant keeps copies that are encrypted here.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from corekit import fingerprint, ids, sealedbox, tokens
from sandboxes.gateway import executions, risks
from sandboxes.gateway.tap import TapAway, TapRefused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from audit.risk.findings import Assessment
    from corekit.tracing import Trace
    from sandboxes.gateway.context import Services
    from sandboxes.gateway.routes import Route
    from sandboxes.gateway.tap import Event, Tap


MAX_COPY = 16 * 1024
"""How long arguments may be, as JSON, for a copy of them to be kept."""


class BadArguments(Exception):
    """A message is not one JSON object that every reader understands alike."""


def _unambiguous(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadArguments("the message names a field twice")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_unambiguous)


def read_message(body: bytes) -> dict[str, object]:
    """Parse a JSON message. Raises BadArguments, also for repeated names: readers differ on which counts."""
    try:
        message = _DECODER.decode((body or b"{}").decode(json.detect_encoding(body), "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise BadArguments("the message is not valid JSON") from error
    if not isinstance(message, dict):
        raise BadArguments("the message is not a JSON object")
    return message


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a request: the key that was proven, if any, the address, and the ids that the request goes by."""

    key_id: str | None
    origin: str
    trace: Trace


class Act:
    """One thing that a caller does in a sandbox: its intent, and later its result."""

    __slots__ = (
        "_args_hash",
        "_caller",
        "_common",
        "_copy",
        "_details",
        "_risk",
        "_route",
        "_started",
        "_tap",
        "_tool",
        "concluded",
        "id",
        "intended",
    )

    def __init__(
        self,
        tap: Tap,
        route: Route,
        caller: Caller,
        *,
        code: str,
        tool: str,
        arguments: Mapping[str, object],
        assessment: Assessment,
        started: float,
        details: Mapping[str, object] | None = None,
    ) -> None:
        self._tap = tap
        self._route = route
        self._caller = caller
        self._tool = tool
        self._risk = assessment
        self._details = dict(details or {})
        self._started = started
        self._args_hash, size = fingerprint.fingerprint(route.audit_key, arguments)
        self._copy = _copy(route, arguments)
        self.id = ids.new_event_id()
        self.intended = self.concluded = False
        self._common: Event = {
            **_head(route, caller, code, tool),
            "args_hash": self._args_hash,
            "args_shape": fingerprint.arguments_shape(arguments),
            "args_size": size,
            "args_key_id": route.audit_key_id,
            "decision": "allow",
            **risks.columns(assessment),
            "risk_seed": risks.by_seed(tool, code, arguments),
        }

    def _event(
        self, phase: str, outcome: str | None = None, duration_ms: float | None = None, details: object = None
    ) -> Event:
        return {
            **self._common,
            **(self._copy if phase == "intent" else {}),
            "id": self.id if phase == "intent" else ids.new_event_id(),
            "phase": phase,
            "ref": self.id if phase == "result" else None,
            "outcome": outcome,
            "duration_ms": duration_ms,
            "details": details,
        }

    async def intend(self) -> None:
        """Put the intent on the node's disk. Raises TapAway or TapRefused; then the act must not happen."""
        try:
            await self._tap.intent(self._event("intent", details=self._details))
        except TapRefused:
            raise
        except TapAway as error:
            self.intended = error.sent
            raise
        except asyncio.CancelledError:
            # The intent may be on record, so its result must say that nothing came of it.
            self.intended = True
            raise
        self.intended = True

    def conclude(self, outcome: str, **details: object) -> None:
        """Report how the act ended: ok, error or refused. Only the first call counts."""
        if self.concluded:
            return
        self.concluded = True
        duration = round((time.perf_counter() - self._started) * 1000, 3)
        if self.intended:
            event = self._event("result", outcome, duration, {**self._details, **details})
            event["status"], event["reason"] = details.get("http_status"), details.get("reason")
            self._tap.result(event)
        executions.log(
            sandbox_id=self._route.id,
            tool_name=self._tool,
            args_hash=self._args_hash,
            result_status=outcome,
            duration_ms=duration,
            risk_score=self._risk.score,
            risk_band=self._risk.band,
            key_id=self._caller.key_id,
            request_id=self._caller.trace.request_id,
        )


def _copy(route: Route, arguments: Mapping[str, object]) -> Event:
    """Return the arguments in a box that only the control plane opens, for a tenant that keeps such copies."""
    if not route.copies_key:
        return {}
    plain = fingerprint.canonical(arguments)
    if len(plain) > MAX_COPY:
        return {}
    return {"args_copy": base64.b64encode(sealedbox.seal(route.copies_key, plain)).decode("ascii")}


class Record:
    """The acts of one request: who makes them, and how they all end."""

    def __init__(self, services: Services, route: Route, caller: Caller, *, code: str, tool: str) -> None:
        self._tap = services.tap
        self._assessor = services.assessor
        self._route = route
        self._caller = caller
        self._code = code
        self._tool = tool
        self._acts: list[Act] = []

    async def begin(self, arguments: Mapping[str, object], details: Mapping[str, object]) -> None:
        """Judge one act and put its intent on disk.

        Raises TapAway, TapRefused or BadArguments; then it must not happen.
        """
        started = time.perf_counter()
        try:
            assessment = await risks.of_act(self._assessor, self._route, self._code, arguments)
            act = Act(
                self._tap,
                self._route,
                self._caller,
                code=self._code,
                tool=self._tool,
                arguments=arguments,
                assessment=assessment,
                started=started,
                details=details,
            )
        except RecursionError as error:
            raise BadArguments("the message is nested too deeply") from error
        self._acts.append(act)
        await act.intend()

    def conclude(self, outcome: str, **details: object) -> None:
        """Report how the request ended; every act of it ended the same way."""
        for act in self._acts:
            act.conclude(outcome, **details)

    def refuse(self, reason: str, token: str | None) -> None:
        """Record that a caller without a right tried it: at most one event a second for each sandbox.

        The key that the token names is a claim, not a fact, unless the token was genuine once: only then does it
        count against the sandbox, or strangers could make anybody's look risky.
        """
        route = self._route
        route.refusals += 1
        now = time.monotonic()
        if token and tokens.verify(route.access_key, token) is not None:
            route.denials.add(now)
        if now - route.refusal_reported < 1.0:
            return
        claimed = tokens.key_id_of(token) if token else None
        self._tap.result(
            {
                **_head(route, replace(self._caller, key_id=None), self._code, self._tool),
                "id": ids.new_event_id(),
                "phase": "fact",
                "ref": None,
                "args_hash": None,
                "args_shape": None,
                "risk_score": None,
                "risk_reasons": [],
                "outcome": "refused",
                "decision": "deny",
                "reason": reason[:200],
                "duration_ms": None,
                "details": {"reason": reason, "claimed_key_id": claimed, "refusals": route.refusals},
            }
        )
        route.refusal_reported = now
        route.refusals = 0


def _head(route: Route, caller: Caller, code: str, tool: str) -> Event:
    trace = caller.trace
    return {
        "sandbox": route.id,
        "generation": route.generation,
        "tenant": route.tenant,
        "code": code,
        "key_id": caller.key_id,
        "origin": caller.origin,
        "user_agent": trace.user_agent,
        "request_id": trace.request_id,
        "trace_id": trace.trace_id,
        "span_id": trace.span_id,
        "tool_name": tool,
    }
