"""What came in by the broker's listener: one request, as far as its head says, and the broker's own answer to it."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

from corekit import tracing
from corekit.errors import GatehouseError, Unauthorized
from tenants.broker import headers, paths, problems
from tenants.broker.asking import Asked, Caller
from tenants.broker.calls import METHODS
from tenants.broker.incoming import Incoming

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tenants.broker.exchange import Send
    from tenants.broker.incoming import Receive

SANDBOX, GENERATION = b"gatehouse-sandbox-id", b"gatehouse-sandbox-generation"
"""What the egress process says of who asks; it lets no sandbox say it."""
CLOSE, ABORT = "gatehouse.close", "gatehouse.abort"
"""What the server offers for an answer that can't be ended as it should: to close the connection, or to drop it."""
_FLUSH_S = 30.0
_ID = re.compile(r"[a-z0-9]{1,64}")
_NUMBER = re.compile(r"[1-9][0-9]{0,9}")


class UnknownCaller(Unauthorized):
    """Nobody says which sandbox asks."""

    code = "unknown_caller"
    title = "The broker answers sandboxes only, through their way out"


class Call:
    """One request."""

    def __init__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self.fields = [(bytes(name).lower(), bytes(value)) for name, value in scope["headers"]]
        self.method = str(scope["method"])
        self.length = self._length()
        self.incoming = Incoming(receive, has_body=self.length != 0)
        trace = tracing.begin(self._text(b"x-request-id"), self._text(b"traceparent"), self._text(b"user-agent"))
        self.request_id = trace.request_id
        self.names = {"request_id": self.request_id, "method": self.method}

    def caller(self) -> Caller:
        """Return who asks. Raises UnknownCaller."""
        sandbox_id, generation = self._only(SANDBOX), self._only(GENERATION)
        if not _ID.fullmatch(sandbox_id) or not _NUMBER.fullmatch(generation):
            raise UnknownCaller
        self.names["sandbox_id"] = sandbox_id
        return Caller(sandbox_id=sandbox_id, generation=int(generation))

    def place(self) -> paths.Place:
        """Return where the request wants to go. Raises BadPath and BadMethod."""
        place = paths.read(bytes(self._scope["raw_path"]), bytes(self._scope["query_string"]))
        if self.method not in METHODS:
            raise problems.BadMethod
        self.names["broker_service"] = place.service
        return place

    def asked(self, place: paths.Place | None) -> Asked:
        """Return what is asked for, as far as it can be read."""
        service, segments = (place.service, place.segments) if place is not None else ("", ())
        # Of several, one reader takes the first and another one the last: together they are no type.
        types = ", ".join(value.decode("latin-1") for key, value in self.fields if key == b"content-type")
        return Asked(service, self.method[:16], segments, types, self.length)

    def token(self) -> str:
        """Return the token that the request shows; "" without one, and where it shows several."""
        tokens = headers.tokens_in(self.fields)
        return tokens[0] if len(tokens) == 1 else ""

    async def refuse(self, error: GatehouseError) -> None:
        """Give an answer of our own."""
        body = problems.as_body(error, self.request_id)
        fields = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
            (b"gatehouse-request-id", self.request_id.encode()),
            *problems.headers(error),
        ]
        if not self.incoming.all_read:
            # What is left of the body is not worth reading.
            fields.append((b"connection", b"close"))
        await self._send({"type": "http.response.start", "status": error.status, "headers": fields})
        await self._send({"type": "http.response.body", "body": body})

    async def cut(self, *, at_once: bool) -> None:
        """Close the connection in the middle of an answer, so that its reader sees that the rest is missing."""
        close, abort = self._scope.get(CLOSE), self._scope.get(ABORT)
        if close is None or abort is None:
            return
        if not at_once:
            close()
            try:
                await asyncio.wait_for(self.incoming.end(), _FLUSH_S)
            except TimeoutError:
                at_once = True
        if at_once:
            abort()
            await self.incoming.end()

    def _length(self) -> int | None:
        if any(name == b"transfer-encoding" for name, _ in self.fields):
            return None
        text = self._text(b"content-length")
        return int(text) if text.isascii() and text.isdecimal() else 0

    def _text(self, name: bytes) -> str:
        return next((value.decode("latin-1") for key, value in self.fields if key == name), "")

    def _only(self, name: bytes) -> str:
        values = [value.decode("latin-1") for key, value in self.fields if key == name]
        return values[0] if len(values) == 1 else ""
