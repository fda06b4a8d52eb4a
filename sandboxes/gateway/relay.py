"""The agent's port: who may call what, the record of it, and the relay to the guest."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from sandboxes.gateway import (
    assess,
    authentication,
    context,
    cors,
    errors,
    failures,
    http1,
    judge,
    operations,
)
from sandboxes.gateway.envelopes import BadEnvelope, Ending
from sandboxes.gateway.exchange import Body, Exchange, Outcome
from sandboxes.gateway.operations import Shape
from sandboxes.gateway.reply import ClientGone
from sandboxes.gateway.routes import TooManyStreams
from sandboxes.gateway.watch import BadParts, InputWatch, PartsWatch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import web

    from sandboxes.gateway.context import Services
    from sandboxes.gateway.http1 import AnswerHead, Fields
    from sandboxes.gateway.operations import Operation
    from sandboxes.gateway.reply import Reply
    from sandboxes.gateway.routes import Route, Stream

# Towards the agent goes what the protocol needs; credentials and what browsers tell about pages stay here.
_TO_AGENT = frozenset(
    {
        b"accept",
        b"accept-encoding",
        b"cache-control",
        b"connect-accept-encoding",
        b"connect-content-encoding",
        b"connect-protocol-version",
        b"connect-timeout-ms",
        b"content-encoding",
        b"content-type",
        b"if-match",
        b"if-modified-since",
        b"if-none-match",
        b"if-range",
        b"if-unmodified-since",
        b"keepalive-ping-interval",
        b"range",
        b"user-agent",
    }
)
_METADATA = b"x-metadata-"
# From the agent likewise: a guest can't set anything else on an origin that is not its own.
_FROM_AGENT = frozenset(
    {
        b"accept-ranges",
        b"content-encoding",
        b"content-range",
        b"content-type",
        b"date",
        b"etag",
        b"last-modified",
        b"vary",
        b"x-envd-version",
    }
)
_MOVES = frozenset({300, 301, 302, 303, 305, 306, 307, 308})
_NO_SNIFF = (b"X-Content-Type-Options", b"nosniff")
_PRIVATE = (b"Cache-Control", b"private, no-cache")
_SANDBOXED = (b"Content-Security-Policy", b"sandbox")


class AgentCall:
    """One request to the agent of one sandbox."""

    def __init__(self, services: Services, request: web.BaseRequest, route: Route, *, shared_host: bool) -> None:
        self._services = services
        self._limits = services.limits
        self._request = request
        self._route = route
        self._shared_host = shared_host
        self._path, _, self._query = request.raw_path.partition("?")
        self._file: authentication.FileQuery | None = None
        self._username: str | None = None
        self._boundary: bytes | None = None
        self._watch: Callable[[bytes], Awaitable[None]] | None = None
        self._record: assess.Record | None = None
        self._ending: Ending | None = None

    async def handle(self, *, signer: str | None = None) -> Reply:
        """Serve the request. `signer` is the key id of a signature that was checked already."""
        request = self._request
        operation = operations.find(request.method, self._path)
        if operation is None:
            return errors.internal_route(request, self._path)
        try:
            key_id = self._authenticate(operation, signer)
            with self._route.open_stream(key_id) as stream:
                return await self._serve(operation, stream)
        except TooManyStreams:
            return errors.too_many_connections(request, self._route.id, self._limits.streams_per_sandbox)
        except authentication.Denied as denial:
            if (record := self._new_record(operation, None)) is not None:
                record.refuse(str(denial), request.headers.get("X-Access-Token"))
            if not self._route.running:
                return errors.resume_refused(request, self._route.id)
            return errors.json_error(request, 401, str(denial))
        except authentication.BadQuery as error:
            return errors.json_error(request, 400, str(error))

    def _authenticate(self, operation: Operation, signer: str | None) -> str | None:
        token = self._request.headers.get("X-Access-Token")
        if operation.shape is Shape.PROBE and self._route.running:
            return None
        if operation.shape not in {Shape.DOWNLOAD, Shape.UPLOAD}:
            return authentication.by_token(self._route, token)
        self._file = authentication.read_file_query(self._query)
        if token is not None:
            return authentication.by_token(self._route, token, message=errors.TOKEN_MISMATCH)
        if signer is not None:
            return signer
        verb = "read" if operation.shape is Shape.DOWNLOAD else "write"
        return self._services.signatures.on_route(self._route, self._file, verb)

    def _new_record(self, operation: Operation, key_id: str | None) -> assess.Record | None:
        if operation.code is None:
            return None
        caller = assess.Caller(key_id, context.origin(self._request), context.trace(self._request))
        return assess.Record(self._services, self._route, caller, code=operation.code, tool=operation.tool)

    # --- the way through

    async def _serve(self, operation: Operation, stream: Stream) -> Reply:
        try:
            if not self._route.running:
                await self._services.resumer.wake(self._route, context.trace(self._request))
            if operation.rpc or operation.shape is Shape.UNARY:
                judge.check_media(self._request, operation)
            self._username = judge.username_of(self._request)
            body = Body(self._request, self._limits)
            data = await self._first_bytes(operation, body)
            await self._begin(operation, stream.key_id, data)
            outcome = await self._relay(operation, stream, body, data)
        except asyncio.CancelledError:
            # A client that leaves a stream is no fault: the command goes on without it.
            left = stream.error is None and operation.shape is Shape.SERVER_STREAM
            self._conclude("ok" if left else "error", reason=failures.cause(stream.error or ClientGone()))
            raise
        except Exception as error:  # noqa: BLE001  (each is turned into the answer it deserves)
            # A stream that was cut says why; what broke in consequence does not matter.
            reason = stream.error or error
            self._conclude("error", reason=failures.cause(reason))
            return self._failure(operation, reason)
        self._conclude_answered(operation, outcome, stream)
        return outcome.reply

    async def _first_bytes(self, operation: Operation, body: Body) -> bytes | None:
        """Return the whole body where it must be judged or is small, None where it is streamed."""
        match operation.shape:
            case Shape.UNARY | Shape.SERVER_STREAM:
                data = await body.whole(self._limits.message, self._limits.message_seconds)
                if data is None:
                    raise MessageTooLarge
                return data
            case Shape.UPLOAD if body.length is not None and body.length <= self._limits.small_body:
                return await body.whole(self._limits.small_body, self._limits.idle_seconds)
            case Shape.UPLOAD | Shape.CLIENT_STREAM:
                return None
            case _:
                return b""

    async def _begin(self, operation: Operation, key_id: str | None, data: bytes | None) -> None:
        """Put the intent of what is known by now on disk; a watch does so for what the body will tell."""
        record = self._record = self._new_record(operation, key_id)
        if record is None:
            return
        if operation.shape is Shape.CLIENT_STREAM:
            self._watch = InputWatch(record, operation, self._route.audit_key, self._username, self._limits.message)
        elif self._file is None:
            arguments = judge.message_arguments(operation, data or b"", self._username)
            details = {**operation.details, "pty": True} if "pty" in arguments else operation.details
            await record.begin(arguments, details)
        else:
            await self._begin_file(operation, record, self._file, data)

    async def _begin_file(
        self,
        operation: Operation,
        record: assess.Record,
        file: authentication.FileQuery,
        data: bytes | None,
    ) -> None:
        if operation.shape is Shape.UPLOAD:
            self._boundary = judge.part_boundary(self._request, file)
        if self._boundary is None:
            await record.begin(judge.file_arguments(file), operation.details)
            return
        self._watch = PartsWatch(record, operation, self._boundary, file.username)
        if data is not None:
            await self._watch(data)

    async def _relay(self, operation: Operation, stream: Stream, body: Body, data: bytes | None) -> Outcome:
        stream.check()
        connection = await self._route.pool.acquire()
        sent_whole = False
        try:
            exchange = Exchange(self._request, connection, self._limits, stream)
            head = self._head(operation, body, data)
            pump = exchange.send(head, body, data, self._watch)
            observe = None
            if operation.shape is Shape.SERVER_STREAM and operation.code != "file.watch":
                self._ending = Ending()
                observe = self._ending.observe
            outcome = await exchange.receive(pump, transform=self._answer_fields, observe=observe)
            sent_whole = outcome.sent_whole
            return outcome
        finally:
            self._route.pool.release(connection, sent_whole=sent_whole)

    # --- heads

    def _head(self, operation: Operation, body: Body, data: bytes | None) -> bytes:
        fields: Fields = [(b"Host", b"agent")]
        for name, value in self._request.raw_headers:
            lowered = name.lower()
            if lowered in _TO_AGENT or lowered.startswith(_METADATA):
                fields.append((name, value))
        if self._boundary is not None:
            # The agent must find the same parts as the watch did.
            fields = [field for field in fields if field[0].lower() != b"content-type"]
            fields.append((b"Content-Type", b'multipart/form-data; boundary="%b"' % self._boundary))
        if self._username is not None and self._file is None:
            fields.append((b"Authorization", judge.basic(self._username)))
        if data is not None and operation.method == "POST":
            fields.append((b"Content-Length", b"%d" % len(data)))
        elif data is None:
            fields.append(body.framing())
        target = self._path
        if self._file is not None:
            # Written anew, so that the agent reads what was judged and sees no signature.
            named = {"path": self._file.path, "username": self._file.username}
            query = urlencode({key: value for key, value in named.items() if value})
            target = f"{target}?{query}" if query else target
        return http1.render_head(http1.request_line(operation.method, target), fields)

    def _answer_fields(self, head: AnswerHead) -> Fields:
        if head.status in _MOVES:
            raise http1.BadAnswer("the agent never sends a client elsewhere")
        fields: Fields = [field for field in head.fields if field[0].lower() in _FROM_AGENT]
        fields += [*cors.OPEN_TO_ALL, _NO_SNIFF, _PRIVATE]
        if self._shared_host:
            fields.append(_SANDBOXED)
        if self._file is not None and self._request.method == "GET" and head.status < 300:
            fields.append((b"Content-Disposition", attachment(self._file.path)))
        return fields

    # --- endings

    def _conclude(self, outcome: str, **details: object) -> None:
        if self._record is not None:
            if isinstance(self._watch, InputWatch):
                details |= self._watch.facts()
            self._record.conclude(outcome, **details)

    def _conclude_answered(self, operation: Operation, outcome: Outcome, stream: Stream) -> None:
        details: dict[str, object] = {
            "http_status": outcome.status,
            "bytes_in": outcome.bytes_in,
            "bytes_out": outcome.bytes_out,
        }
        good = outcome.complete and outcome.status < 400
        if self._ending is not None:
            reported = self._ending.facts()
            details["guest_reported"] = reported
            good = good and "error_code" not in reported
        if stream.error is not None:
            details["reason"] = failures.cause(stream.error)
        elif not outcome.complete:
            details["reason"] = "guest_cut_off"
        self._conclude("ok" if good else "error", **details)

    def _failure(self, operation: Operation, error: Exception) -> Reply:
        """Answer for what went wrong before the guest's answer began."""
        request = self._request
        match error:
            case MessageTooLarge():
                return errors.rpc_error(request, 413, "resource_exhausted", "the message is too large")
            case judge.Unsupported():
                return errors.rpc_error(request, 415, error.code, str(error))
            case assess.BadArguments() | BadEnvelope() | BadParts():
                if operation.shape is Shape.SERVER_STREAM:
                    return errors.rpc_stream_error(request, "invalid_argument", str(error))
                return errors.rpc_error(request, 400, "invalid_argument", str(error))
        return failures.answer(request, self._route.id, operations.AGENT_PORT, error)


class MessageTooLarge(Exception):
    """A message is longer than the gateway reads before it judges."""


def attachment(path: str) -> bytes:
    """Return a Content-Disposition that makes a browser save the file instead of showing it."""
    name = path.rstrip("/").rpartition("/")[2] or "file"
    plain = "".join(char if char.isascii() and char.isprintable() and char not in '"\\' else "_" for char in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}".encode("ascii")
