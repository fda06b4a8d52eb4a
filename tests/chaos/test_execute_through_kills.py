"""A web process that dies while it runs code leaves a row that is ended, and no sandbox."""

from __future__ import annotations

import http.client
import json
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tests.chaos.reality import agrees, eventually

if TYPE_CHECKING:
    from tests.live import Stack


def call(stack: Stack, method: str, path: str, body: Any = None, **headers: str) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=60)
    try:
        sent = {"X-API-KEY": stack.key, "Content-Type": "application/json", **headers}
        connection.request(method, f"/api/v1/{path}", None if body is None else json.dumps(body), sent)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def test_web_dies_while_code_runs(doomed: Stack) -> None:
    before = doomed.live_ids()
    body, key = {"code": "import time\ntime.sleep(60)", "timeout_s": 3}, {"Idempotency-Key": "job-7"}

    def ask() -> None:
        # The connection breaks with web.
        with suppress(OSError, http.client.HTTPException, ValueError):
            call(doomed, "POST", "executions", body, **key)

    asking = threading.Thread(target=ask)
    asking.start()
    assert eventually(lambda: bool(call(doomed, "GET", "executions?state=running")["items"]))
    [row] = call(doomed, "GET", "executions?state=running")["items"]
    doomed.kill("web")
    asking.join()
    doomed.wait_until_answers()

    def is_ended() -> bool:
        return bool(call(doomed, "GET", f"executions/{row['id']}")["state"] == "failed")

    assert eventually(is_ended, timeout_s=60)
    shown = call(doomed, "GET", f"executions/{row['id']}")
    assert (shown["reason"], shown["stdout"]) == ("Whoever worked on it is gone.", None)
    assert doomed.live_ids() == before
    assert eventually(lambda: agrees(doomed))
    again = call(doomed, "POST", "executions", {"code": "print(1)", "timeout_s": 3}, **key)
    assert (again["state"], again["stdout"]) == ("completed", "1\n")


def test_the_gateway_dies_while_code_runs(doomed: Stack) -> None:
    before = doomed.live_ids()
    answers: list[Any] = []

    def ask() -> None:
        with suppress(OSError, http.client.HTTPException, ValueError):
            answers.append(call(doomed, "POST", "executions", {"code": "import time\ntime.sleep(20)"}))

    asking = threading.Thread(target=ask)
    asking.start()
    assert eventually(lambda: bool(call(doomed, "GET", "executions?state=running")["items"]))
    [row] = call(doomed, "GET", "executions?state=running")["items"]
    doomed.kill("gateway")
    doomed.wait_until_answers()
    asking.join()

    assert eventually(lambda: call(doomed, "GET", f"executions/{row['id']}")["state"] == "failed")
    shown = call(doomed, "GET", f"executions/{row['id']}")
    assert shown["reason"] in {"The connection to the sandbox broke.", "The sandbox ended before the command did."}
    assert doomed.live_ids() == before
