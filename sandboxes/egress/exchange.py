"""One request and its answer between a client and a server, each side with a parser of its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import h11

from corekit.netrules.reasons import Reason
from sandboxes.egress.answers import AnswerWatch
from sandboxes.egress.head import hop_by_hop
from sandboxes.egress.intercept import refusal_of_host
from sandboxes.egress.passage import BrokerPassage
from sandboxes.egress.placeholders import BodyWatch
from sandboxes.egress.refusals import Refused
from sandboxes.egress.securewire import TlsBroken
from sandboxes.egress.wire import Gone

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandboxes.egress.flow import Flow
    from sandboxes.egress.head import Headers, Request
    from sandboxes.egress.rewriting import Rewritten

_MOST_ANSWER_HEAD = 64 * 1024
_SWITCHING = 101


class Exchange:
    """Runs once."""

    def __init__(
        self, flow: Flow, request: Request, parser: h11.Connection, written: h11.Request, rewritten: Rewritten
    ) -> None:
        assert flow.server is not None  # noqa: S101 - the caller has reached it
        self._flow = flow
        self._client, self._server = flow.client, flow.server
        self._inner = parser
        self._outer = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MOST_ANSWER_HEAD)
        self._request = request
        self._written = written
        guard = None if isinstance(flow.passage, BrokerPassage) else flow.sandbox.guard
        self._body = None if guard is None else BodyWatch(flow, guard.others(rewritten.own))
        self._watch = None if rewritten.needles is None else AnswerWatch(flow, rewritten.needles)
        self._server_took_enough = False
        self.switched = False
        self.client_goes_on = False
        self.server_goes_on = False

    async def run(self) -> None:
        """Pass the request on and its answer back. Raises Refused and Gone."""
        await self._send_out(self._outer.send(self._written))
        upload = asyncio.create_task(self._upload())
        upload.add_done_callback(_look_at)
        # Nobody reads from the client while the server thinks, and a flow for nobody would take the place of others.
        self._client.hangup = self._give_up
        try:
            await self._answer(upload)
            if upload.done():
                upload.result()
        finally:
            # If it was not done, the client's connection ends with this exchange.
            upload.cancel()
            self._client.hangup = None
        if not self.switched:
            self._conclude()

    def _give_up(self) -> None:
        self._flow.cut("reset")

    async def _send_out(self, data: bytes | None) -> None:
        if not data:
            return
        if not self._flow.count_out(len(data)):
            raise Refused(Reason.LIMIT)
        try:
            await self._server.send(data)
        except Gone:
            # A server may answer and close before it has read everything: its answer counts then.
            self._server_took_enough = True

    async def _upload(self) -> None:
        """Pass the request's body on."""
        # To the parser, nothing would be the end of everything.
        if self._request.has_body and self._client.ahead:
            self._inner.receive_data(self._client.take())
        while not self._server_took_enough:
            event = _next(self._inner)
            if event is h11.NEED_DATA:
                data = await self._client.receive()
                if not data:
                    raise Gone("the client broke its request off")
                self._inner.receive_data(data)
            elif isinstance(event, h11.Data):
                data = bytes(event.data)
                await self._send_body(data if self._body is None else self._body.pass_on(data))
            elif isinstance(event, h11.EndOfMessage):
                if event.headers:
                    raise Refused(Reason.SMUGGLING)
                if self._body is not None:
                    await self._send_body(self._body.finish())
                await self._send_out(self._outer.send(h11.EndOfMessage()))
                return
            else:
                raise Refused(Reason.SMUGGLING)

    async def _send_body(self, data: bytes) -> None:
        if data:
            await self._send_out(self._outer.send(h11.Data(data)))

    async def _answer(self, upload: asyncio.Task[None]) -> None:
        while True:
            event = _next_answer(self._outer)
            if event is h11.NEED_DATA:
                self._outer.receive_data(await self._receive(upload))
            elif isinstance(event, h11.InformationalResponse):
                await self._inform(event)
                if self.switched:
                    return
            elif isinstance(event, h11.Response):
                answer = _rewritten(event)
                head = self._inner.send(answer if self._watch is None else self._watch.head(answer))
                self._flow.can_answer = False
                await self._send_in(head)
            elif isinstance(event, h11.Data):
                data = bytes(event.data)
                await self._send_answer(data if self._watch is None else self._watch.body(data))
            elif isinstance(event, h11.EndOfMessage):
                if self._watch is not None:
                    await self._send_answer(self._watch.finish())
                await self._send_in(self._inner.send(h11.EndOfMessage()))
                return
            else:
                raise Refused(Reason.CONNECT_FAILED)

    async def _send_answer(self, data: bytes) -> None:
        if data:
            await self._send_in(self._inner.send(h11.Data(data)))

    async def _receive(self, upload: asyncio.Task[None]) -> bytes:
        """Return the server's next bytes; what goes wrong with the request's body meanwhile ends the exchange."""
        if upload.done():
            upload.result()
            return await self._from_server()
        reading = asyncio.create_task(self._from_server())
        try:
            await asyncio.wait((reading, upload), return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                upload.result()
            return await reading
        finally:
            reading.cancel()

    async def _from_server(self) -> bytes:
        try:
            data = await self._server.receive()
        except TlsBroken as broken:
            raise refusal_of_host(broken) from None
        except Gone:
            raise Refused(Reason.CONNECT_FAILED) from None
        self._flow.count_in(len(data))
        return data

    async def _send_in(self, data: bytes | None) -> None:
        if data:
            await self._client.send(data)

    async def _inform(self, event: h11.InformationalResponse) -> None:
        if event.status_code == _SWITCHING:
            headers = [*self._told(event), (b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
            reason = self._reason(event)
            switching = h11.InformationalResponse(status_code=_SWITCHING, headers=headers, reason=reason)
            await self._send_in(self._inner.send(switching))
            self._server.ahead[:0] = self._outer.trailing_data[0]
            self._client.ahead[:0] = self._inner.trailing_data[0]
            self.switched = True
        elif self._request.http11:
            plain = h11.InformationalResponse(
                status_code=event.status_code, headers=self._told(event), reason=self._reason(event)
            )
            await self._send_in(self._inner.send(plain))

    def _told(self, event: h11.InformationalResponse) -> Headers:
        headers = _kept(event.headers.raw_items())
        return headers if self._watch is None else self._watch.headers(headers)

    def _reason(self, event: h11.InformationalResponse) -> bytes:
        return bytes(event.reason) if self._watch is None else self._watch.reason(event.reason)

    def _conclude(self) -> None:
        """Find out which of the two connections may carry another request."""
        if self._inner.our_state is h11.DONE and self._inner.their_state is h11.DONE:
            self._client.ahead[:0] = self._inner.trailing_data[0]
            self.client_goes_on = True
        clean = not self._outer.trailing_data[0]
        self.server_goes_on = clean and self._outer.our_state is h11.DONE and self._outer.their_state is h11.DONE


def _look_at(upload: asyncio.Task[None]) -> None:
    """An answer may end the exchange before anybody asks how the upload ended."""
    if not upload.cancelled():
        upload.exception()


def _next(parser: h11.Connection) -> object:
    try:
        return parser.next_event()
    except h11.RemoteProtocolError:
        raise Refused(Reason.SMUGGLING) from None


def _next_answer(parser: h11.Connection) -> object:
    try:
        return parser.next_event()
    except h11.RemoteProtocolError:
        raise Refused(Reason.CONNECT_FAILED) from None


def _kept(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    plain = [(bytes(name), bytes(value)) for name, value in headers]
    dropped = hop_by_hop(plain)
    return [(name, value) for name, value in plain if name.lower() not in dropped]


def _rewritten(event: h11.Response) -> h11.Response:
    names = [name for name, _ in event.headers]
    if b"transfer-encoding" in names and b"content-length" in names:
        raise Refused(Reason.CONNECT_FAILED)
    headers = [
        (name, value) for name, value in _kept(event.headers.raw_items()) if name.lower() != b"transfer-encoding"
    ]
    return h11.Response(status_code=event.status_code, headers=headers, reason=event.reason)
