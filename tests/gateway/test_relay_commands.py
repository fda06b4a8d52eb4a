"""A command reaches the guest, its output comes back byte for byte, and the act is on record before it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from audit.risk.assessor import assess_argv
from audit.risk.scoring import RULESET
from corekit import fingerprint
from tests.gateway import doubles
from tests.gateway.place import ALICE, ALICE_KEY, Place, until

if TYPE_CHECKING:
    import asyncio

COMMAND = {"process": {"cmd": "/bin/bash", "args": ["-l", "-c", "echo hi"]}, "stdin": False}


async def test_it_relays_a_command(place: Place) -> None:
    async with place.start(COMMAND) as response:
        body = await response.read()

    assert response.status == 200
    assert response.headers["Content-Type"] == "application/connect+json"
    assert body == (
        doubles.envelope({"event": {"start": {"pid": 42}}})
        + doubles.envelope({"event": {"data": {"stdout": "aGkK"}}})
        + doubles.envelope({"event": {"end": {"exited": True, "status": "exit status 0"}}})
        + doubles.envelope({}, 2)
    )
    assert json.loads(place.guest.requests[0].body[5:]) == COMMAND


async def test_it_records_the_intent_before_and_the_result_after(place: Place) -> None:
    seen_at_the_guest: list[int] = []

    async def start(request: doubles.Request, reader: object, writer: asyncio.StreamWriter) -> None:
        seen_at_the_guest.append(len(place.tap.of("command.start", "intent")))
        writer.write(
            doubles.STREAM_HEAD
            + doubles.chunk(doubles.envelope({"event": {"start": {"pid": 7}}}))
            + doubles.chunk(
                doubles.envelope({"event": {"end": {"exitCode": 3, "exited": True, "status": "exit status 3"}}})
            )
            + doubles.chunk(doubles.envelope({}, 2))
            + b"0\r\n\r\n"
        )

    place.guest.on("POST", "/process.Process/Start", start)
    traceparent = f"00-{'a' * 32}-{'b' * 16}-01"
    headers = {"X_Request_Id": "request-0001", "traceparent": traceparent, "User_Agent": "sdk/1.0"}
    async with place.start(COMMAND, **headers) as response:
        await response.read()
    await until(lambda: place.tap.of("command.start", "result"))

    assert seen_at_the_guest == [1]
    intent, result = place.tap.events
    arguments = {**COMMAND["process"], "stdin": False}  # type: ignore[dict-item]
    assessment = assess_argv(["/bin/bash", "-l", "-c", "echo hi"])
    assert intent | {"id": ""} == {
        "id": "",
        "sandbox": ALICE,
        "generation": 1,
        "tenant": doubles.TENANT,
        "code": "command.start",
        "phase": "intent",
        "ref": None,
        "key_id": ALICE_KEY,
        "origin": "127.0.0.1",
        "request_id": "request-0001",
        "tool_name": "exec_code",
        "args_hash": fingerprint.arguments_hash(doubles.AUDIT_KEY, arguments),
        "args_shape": {"args": "list(3)", "cmd": "text(9)", "stdin": "boolean"},
        "args_size": len(json.dumps(arguments, separators=(",", ":"))),
        "args_key_id": "",
        "decision": "allow",
        "user_agent": "sdk/1.0",
        "trace_id": "a" * 32,
        "span_id": intent["span_id"],
        "gateway_id": intent["gateway_id"],
        "gateway_seq": 1,
        "risk_score": assessment.score,
        "risk_band": assessment.band,
        "risk_tier": assessment.tier,
        "risk_ruleset": RULESET,
        "risk_reasons": [finding["rule"] for finding in intent["risk_findings"]],
        "risk_findings": intent["risk_findings"],
        "risk_seed": {"score": 30, "reasons": ["the tool exec_code is dangerous"], "tier": "L0"},
        "outcome": None,
        "duration_ms": None,
        "details": {},
    }
    assert result["ref"] == intent["id"]
    assert result["outcome"] == "ok"
    assert result["duration_ms"] > 0
    assert result["details"]["guest_reported"] == {
        "pid": 7,
        "exit_code": 3,
        "status": "exit status 3",
        "ended": True,
    }
