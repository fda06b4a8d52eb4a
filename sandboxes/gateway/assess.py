"""What an act is: its arguments' keyed hash, their shape, its risk. The arguments themselves go nowhere."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING

from audit.risk import seed_v1
from corekit import fingerprint, ids, tokens
from sandboxes.gateway import executions
from sandboxes.gateway.tap import TapAway, TapRefused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandboxes.gateway.routes import Route
    from sandboxes.gateway.tap import Event, Tap


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


class Act:
    """One thing that a caller does in a sandbox: its intent, and later its result."""

    __slots__ = (
        "_arguments_hash",
        "_common",
        "_details",
        "_key_id",
        "_request_id",
        "_route",
        "_score",
        "_shape",
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
        *,
        code: str,
        tool: str,
        arguments: Mapping[str, object],
        key_id: str | None,
        origin: str | None,
        request_id: str,
        details: Mapping[str, object] | None = None,
    ) -> None:
        self._tap = tap
        self._route = route
        self._tool = tool
        self._arguments_hash = fingerprint.arguments_hash(route.audit_key, arguments)
        self._shape = fingerprint.arguments_shape(arguments)
        self._score = seed_v1.score(tool, arguments)
        self._details = dict(details or {})
        self._started = time.perf_counter()
        self._key_id = key_id
        self._request_id = request_id
        self.id = ids.new_event_id()
        self.intended = self.concluded = False
        self._common: Event = {
            "sandbox": route.id,
            "generation": route.generation,
            "tenant": route.tenant,
            "code": code,
            "key_id": key_id,
            "origin": origin,
            "request_id": request_id,
            "tool_name": tool,
        }

    def _event(self, phase: str, outcome: str | None, duration_ms: float | None, details: object) -> Event:
        return {
            **self._common,
            "id": self.id if phase == "intent" else ids.new_event_id(),
            "phase": phase,
            "ref": self.id if phase == "result" else None,
            "args_hash": self._arguments_hash,
            "args_shape": self._shape,
            "risk_score": self._score.value,
            "risk_reasons": self._score.reasons,
            "outcome": outcome,
            "duration_ms": duration_ms,
            "details": details,
        }

    async def intend(self) -> None:
        """Put the intent on the node's disk. Raises TapAway or TapRefused; then the act must not happen."""
        try:
            await self._tap.intent(self._event("intent", None, None, self._details))
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
            self._tap.result(self._event("result", outcome, duration, {**self._details, **details}))
        executions.log(
            sandbox_id=self._route.id,
            tool_name=self._tool,
            args_hash=self._arguments_hash,
            result_status=outcome,
            duration_ms=duration,
            risk_score=self._score.value,
            key_id=self._key_id,
            request_id=self._request_id,
        )


class Record:
    """The acts of one request: who makes them, and how they all end."""

    def __init__(
        self,
        tap: Tap,
        route: Route,
        *,
        code: str,
        tool: str,
        key_id: str | None,
        origin: str,
        request_id: str,
    ) -> None:
        self._tap = tap
        self._route = route
        self._code = code
        self._tool = tool
        self._key_id = key_id
        self._origin = origin
        self._request_id = request_id
        self._acts: list[Act] = []

    async def begin(self, arguments: Mapping[str, object], details: Mapping[str, object]) -> None:
        """Put one act's intent on disk. Raises TapAway, TapRefused or BadArguments; then it must not happen."""
        try:
            act = Act(
                self._tap,
                self._route,
                code=self._code,
                tool=self._tool,
                arguments=arguments,
                key_id=self._key_id,
                origin=self._origin,
                request_id=self._request_id,
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

        The key that the token names is a claim, not a fact: the token did not prove it.
        """
        route = self._route
        route.refusals += 1
        now = time.monotonic()
        if now - route.refusal_reported < 1.0:
            return
        claimed = tokens.key_id_of(token) if token else None
        self._tap.result(
            {
                "id": ids.new_event_id(),
                "sandbox": route.id,
                "generation": route.generation,
                "tenant": route.tenant,
                "code": self._code,
                "phase": "fact",
                "ref": None,
                "key_id": None,
                "origin": self._origin,
                "request_id": self._request_id,
                "tool_name": self._tool,
                "args_hash": None,
                "args_shape": None,
                "risk_score": None,
                "risk_reasons": [],
                "outcome": "refused",
                "duration_ms": None,
                "details": {"reason": reason, "claimed_key_id": claimed, "refusals": route.refusals},
            }
        )
        route.refusal_reported = now
        route.refusals = 0
