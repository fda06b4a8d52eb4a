"""One call at a service: the request on its way out and the answer on its way back, a piece at a time.

What the sandbox does not read is not read from the service either, and the other way round.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from corekit.checkedaddresses import in_words
from corekit.errors import GatehouseError
from tenants.broker import headers, paths, problems, usage
from tenants.broker.incoming import ClientGone
from tenants.broker.upstream import PIECE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from tenants.broker.catalogue import Service
    from tenants.broker.incoming import Incoming

    Send = Callable[[Mapping[str, Any]], Awaitable[None]]

# An answer of a known length up to this size is looked through before any of it goes on.
SMALL = PIECE
_REFUSED = frozenset({401, 403, 407})
_NOT_MODIFIED = 304
_FRAMINGS = frozenset({"", "chunked"})
_EVENT_STREAM = "text/event-stream"
_WITH_USAGE = frozenset({_EVENT_STREAM, "application/json"})
_MARKS = [(b"cache-control", b"no-store"), (b"x-accel-buffering", b"no"), (b"x-content-type-options", b"nosniff")]


class NotSent(Exception):
    """Nothing of the request reached the service. The text says why, in words for an operator."""


class BrokenOff(Exception):
    """The answer ends before its end. `code` says why."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(slots=True)
class Course:
    """How a call went so far. `started` says whether the sandbox has got the beginning of an answer."""

    started: bool = False
    status: int | None = None
    bytes_back: int = 0
    reflected: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent: everything but the body as it goes out."""

    method: str
    place: paths.Place
    fields: list[tuple[str, str]]
    length: int | None
    body: bytes | None = None

    @property
    def has_body(self) -> bool:
        """Say whether there is a body to pass on."""
        return self.length != 0


class Exchange:
    """Runs once."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        service: Service,
        secret: headers.Credential,
        request: Request,
        incoming: Incoming,
        send: Send,
    ) -> None:
        self._session = session
        self._service = service
        self._secret = secret
        self._request = request
        self._incoming = incoming
        self._send = send
        self._usage: usage.UsageReader | None = None
        self._made = False
        self.course = Course()

    def tokens(self) -> int | None:
        """Return how many tokens a model used for it, as far as the answer says."""
        return self._usage.tokens(self._incoming.count) if self._usage is not None else None

    async def run(self) -> None:
        """Make the call. Raises NotSent, GatehouseError while nothing was answered, BrokenOff later, and ClientGone."""
        try:
            await self._call()
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as problem:
            # Not as its cause: an error of aiohttp shows the request's headers.
            raise self._as_problem(problem) from None

    async def _call(self) -> None:
        request = self._request
        url = paths.url(self._service.base_url, request.place, secret=self._secret.query)
        async with self._session.request(
            request.method,
            URL(url, encoded=True),
            headers=self._fields(),
            data=self._body(),
            allow_redirects=False,
            middlewares=(self._once,),
        ) as answer:
            await self._pass_back(answer)

    async def _once(self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        """Make the call, and not again: aiohttp repeats some whose connection dies, but the service may have had it."""
        if self._made:
            raise aiohttp.ServerDisconnectedError
        self._made = True
        return await handler(request)

    def _fields(self) -> CIMultiDict[str]:
        fields = CIMultiDict(self._request.fields)
        # So that the answer can be looked through.
        fields["Accept-Encoding"] = "identity"
        if self._secret.header is not None:
            name, value = self._secret.header
            fields[name] = value
        if self._request.has_body and self._request.length is not None:
            fields["Content-Length"] = str(self._request.length)
        return fields

    def _body(self) -> AsyncIterator[bytes] | bytes | None:
        if self._request.body is not None:
            return self._request.body
        return self._incoming.pieces() if self._request.has_body else None

    def _as_problem(self, problem: BaseException) -> Exception:
        # What the sandbox did wrong with its body shows as a failure to write it.
        if (cause := _caused_by_client(problem)) is not None:
            return BrokenOff(cause.code) if self.course.started and isinstance(cause, GatehouseError) else cause
        if isinstance(problem, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError | aiohttp.InvalidURL):
            return NotSent(in_words(problem))
        error: GatehouseError = problems.UpstreamFailed()
        if isinstance(problem, TimeoutError):
            error = problems.UpstreamSlow()
        elif isinstance(problem, aiohttp.ClientResponseError):
            error = problems.UnreadableAnswer()
        return BrokenOff(error.code) if self.course.started else error

    async def _pass_back(self, answer: aiohttp.ClientResponse) -> None:
        course = self.course
        course.status = answer.status
        if answer.content_type in _WITH_USAGE:
            self._usage = usage.reader_for(self._service.kind)
        fields, course.reflected = headers.come_back(answer.raw_headers, self._secret.needles)
        _require_readable(answer)
        length = answer.content_length
        if answer.content_type != _EVENT_STREAM and length is not None and length <= SMALL:
            await self._pass_whole(answer, fields)
        else:
            await self._pass_stream(answer, fields, length)

    async def _pass_whole(self, answer: aiohttp.ClientResponse, fields: headers.Fields) -> None:
        body = await answer.read()
        if self._secret.needles.found_in(body):
            self.course.reflected = True
            raise problems.SecretReflected
        if self._usage is not None:
            self._usage.feed(body)
        # A HEAD's length is that of a body which does not come.
        await self._start(answer, fields, answer.content_length)
        await self._pass(body, more=False)

    async def _pass_stream(self, answer: aiohttp.ClientResponse, fields: headers.Fields, length: int | None) -> None:
        scanner = self._secret.needles.stream()
        await self._start(answer, fields, length)
        while piece := await answer.content.read(PIECE):
            if self._usage is not None:
                self._usage.feed(piece)
            clean = scanner.feed(piece)
            if scanner.hits:
                self.course.reflected = True
                if length is not None:
                    # The marker is of another length than was promised.
                    raise BrokenOff(problems.SecretReflected.code)
            if clean:
                await self._pass(clean, more=True)
        await self._pass(scanner.finish(), more=False)

    async def _start(self, answer: aiohttp.ClientResponse, fields: headers.Fields, length: int | None) -> None:
        fields += _MARKS
        if length is not None:
            fields.append((b"content-length", str(length).encode()))
        self.course.started = True
        await self._send({"type": "http.response.start", "status": answer.status, "headers": fields})

    async def _pass(self, piece: bytes, *, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": piece, "more_body": more})
        self.course.bytes_back += len(piece)


def _require_readable(answer: aiohttp.ClientResponse) -> None:
    """Raise the error that stands for an answer which nobody may see."""
    status = answer.status
    if status in _REFUSED:
        raise problems.UpstreamRefused(upstream_status=status)
    if 300 <= status < 400 and status != _NOT_MODIFIED:
        raise problems.RedirectBlocked
    if not 200 <= status < 600:
        raise problems.UnreadableAnswer
    if _all(answer, "Content-Encoding") not in ("", "identity") or _all(answer, "Transfer-Encoding") not in _FRAMINGS:
        raise problems.UnreadableAnswer("The service compressed its answer although it was asked not to.")


def _all(answer: aiohttp.ClientResponse, name: str) -> str:
    """Return what an answer's headers of a name say together, in lower case."""
    return ",".join(answer.headers.getall(name, ())).strip().lower()


def _caused_by_client(problem: BaseException) -> GatehouseError | ClientGone | None:
    """Return what the sandbox did wrong, if that is why the request could not be sent."""
    cause: BaseException | None = problem
    for _ in range(8):
        if isinstance(cause, GatehouseError | ClientGone):
            return cause
        if cause is None:
            return None
        cause = cause.__cause__ or cause.__context__
    return None
