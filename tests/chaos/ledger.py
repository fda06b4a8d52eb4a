"""What the ledger of a stack holds, read past the product, and a caller whose every act can be found in it."""

from __future__ import annotations

import contextlib
import http.client
import json
import sqlite3
import struct
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg

from corekit.ids import new_request_id

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from tests.live import Stack

Row = tuple[Any, ...]


def rows(stack: Stack, sql: str) -> list[Row]:
    """Return what a query finds in the stack's database."""
    with _connection(stack) as connection:
        cursor = connection.execute(sql)
        return [tuple(row) for row in cursor.fetchall()]


@contextlib.contextmanager
def _connection(stack: Stack) -> Iterator[Any]:
    url = stack.environment.get("DATABASE_URL")
    if url:
        with psycopg.connect(url) as connection:
            yield connection
        return
    database = sqlite3.connect(f"file:{stack.home}/db/gatehouse.sqlite3?mode=ro", uri=True, timeout=30)
    try:
        yield database
    finally:
        database.close()


@dataclass
class Sandbox:
    """A sandbox and the token to its data plane."""

    id: str
    token: str


@dataclass
class Caller:
    """Does things at random, and remembers of each that was acknowledged what the ledger must hold.

    `expected` are pairs of request id and code. An act that failed may be there or not: nobody said that it happened.
    `refused` are the statuses that such acts were answered with.
    """

    stack: Stack
    dice: random.Random
    expected: set[tuple[str, str]] = field(default_factory=set)
    tried: int = 0
    refused: set[int] = field(default_factory=set)
    sandboxes: list[Sandbox] = field(default_factory=list)

    def act(self) -> None:
        """Do one thing, if what it needs is there. A Gatehouse that is being killed may refuse it."""
        acts = [self._create] if not self.sandboxes else [self._create, self._run, self._run, self._write, self._kill]
        self.tried += 1
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError, KeyError):
            self.dice.choice(acts)()

    def _create(self) -> None:
        if len(self.sandboxes) >= 5:
            return
        request_id, answer = self._call("POST", "/v2/sandboxes", {"templateID": "base", "timeout": 300}, {})
        made = json.loads(answer)
        self.sandboxes.append(Sandbox(made["sandboxID"], made["envdAccessToken"]))
        self.expected.add((request_id, "sandbox.created"))

    def _run(self) -> None:
        message = json.dumps({"process": {"cmd": "/bin/echo", "args": [str(self.tried)]}}).encode()
        body = struct.pack(">BI", 0, len(message)) + message
        headers = {"Content-Type": "application/connect+json"}
        request_id, answer = self._call("POST", "/process.Process/Start", body, headers, self._any())
        if b'"exitCode"' in answer or b'"exited"' in answer:
            self.expected.add((request_id, "command.start"))

    def _write(self) -> None:
        path = f"/files?path=/home/user/{self.tried}.txt"
        headers = {"Content-Type": "application/octet-stream"}
        request_id, _ = self._call("POST", path, b"data", headers, self._any())
        self.expected.add((request_id, "file.write"))

    def _kill(self) -> None:
        sandbox = self._any()
        # A kill that fails may have happened, too.
        self.sandboxes.remove(sandbox)
        request_id, _ = self._call("DELETE", f"/sandboxes/{sandbox.id}", None, {})
        self.expected.add((request_id, "sandbox.killed"))

    def _any(self) -> Sandbox:
        return self.dice.choice(self.sandboxes)

    def _call(
        self, method: str, path: str, body: Any, headers: dict[str, str], sandbox: Sandbox | None = None
    ) -> tuple[str, bytes]:
        """Return the request's id and the answer to it. Raises ValueError for a refusal."""
        request_id = new_request_id()
        headers = {"X-Request-Id": request_id, "X-API-KEY": self.stack.key, **headers}
        if sandbox is not None:
            headers |= {"E2b-Sandbox-Id": sandbox.id, "E2b-Sandbox-Port": "49983", "X-Access-Token": sandbox.token}
        if isinstance(body, dict):
            headers["Content-Type"], body = "application/json", json.dumps(body)
        connection = http.client.HTTPConnection("127.0.0.1", self.stack.port, timeout=30)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status >= 300:
            self.refused.add(answer.status)
            raise ValueError(f"{method} {path}: {answer.status}")
        return request_id, content


def found(stack: Stack) -> Counter[tuple[str, str]]:
    """Return how often each pair of request id and code stands in the ledger, results of acts aside."""
    asked = "SELECT request_id, code FROM audit_event WHERE phase <> 'result' AND request_id <> ''"
    return Counter((str(request_id), str(code)) for request_id, code in rows(stack, asked))


def counts(stack: Stack) -> dict[str, int]:
    """Return how many events, seals and waiting events there are, and the sum of the chains' sizes."""
    asked = {
        "events": "SELECT COUNT(*) FROM audit_event",
        "seals": "SELECT COUNT(*) FROM audit_seal",
        "waiting": "SELECT COUNT(*) FROM audit_unsealed",
        "chains": "SELECT COALESCE(SUM(size), 0) FROM audit_chain",
        "results": "SELECT COUNT(*) - COUNT(DISTINCT ref) FROM audit_event WHERE phase = 'result'",
    }
    return {name: int(rows(stack, sql)[0][0]) for name, sql in asked.items()}
