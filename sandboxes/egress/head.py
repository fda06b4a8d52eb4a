"""The head of a request, read strictly: what could be read in two ways is refused before anybody acts.

h11 reads what is passed on; it forgives bare line feeds, folded lines and some spaces, so those are refused here first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import h11

from corekit.netrules.reasons import Reason
from sandboxes.egress.refusals import Refused

if TYPE_CHECKING:
    from sandboxes.egress.flow import Stream

Headers = list[tuple[bytes, bytes]]

_END = b"\r\n\r\n"
_BARE = re.compile(rb"(?<!\r)\n|\r(?=[^\n])")
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") (.*) HTTP/1\.([01])", re.DOTALL)
_HEADER_LINE = re.compile(_TOKEN + rb":[ \t]*[\x20-\x7e\x80-\xff\t]*")
_TARGET = re.compile(rb"[\x21-\x7e]+")
# Hop-by-hop fields that a proxy answers for itself, and what nobody but egress may say.
_OWN = frozenset((b"connection", b"proxy-connection", b"keep-alive", b"te", b"upgrade", b"proxy-authorization"))
_OWN_PREFIX = b"gatehouse-"
_FRAMING = frozenset((b"content-length", b"transfer-encoding", b"host"))


@dataclass(slots=True)
class Request:
    """One request, read by a grammar that is narrower than anybody's."""

    method: bytes
    target: bytes
    headers: Headers
    head: bytes
    http11: bool

    def value(self, name: bytes) -> bytes | None:
        """Return a header's value; of a repeated one the first."""
        for key, value in self.headers:
            if key.lower() == name:
                return value
        return None

    def tokens(self, name: bytes) -> frozenset[bytes]:
        """Return the lower-case members of a header that is a list."""
        return tokens_of(self.headers, name)

    @property
    def has_body(self) -> bool:
        """Tell whether bytes follow that belong to this request."""
        return self.value(b"transfer-encoding") is not None or self.value(b"content-length") not in (None, b"0")

    def end_to_end(self) -> Headers:
        """Return the headers that are meant for the server, as they were written; framing and host not among them."""
        dropped = hop_by_hop(self.headers) | _FRAMING
        return [
            (name, value)
            for name, value in self.headers
            if name.lower() not in dropped and not name.lower().startswith(_OWN_PREFIX)
        ]

    def parser(self) -> h11.Connection:
        """Return a parser that has read the head the same way, and goes on with the body. Raises Refused."""
        parser = h11.Connection(h11.SERVER, max_incomplete_event_size=len(self.head) + 1)
        try:
            parser.receive_data(self.head)
            event = parser.next_event()
        except h11.RemoteProtocolError:
            raise Refused(Reason.SMUGGLING) from None
        if not isinstance(event, h11.Request) or (event.method, event.target) != (self.method, self.target):
            raise Refused(Reason.SMUGGLING)
        return parser


def tokens_of(headers: Headers, name: bytes) -> frozenset[bytes]:
    """Return the lower-case members of a header that is a list."""
    values = b",".join(value for key, value in headers if key.lower() == name)
    return frozenset(token.strip().lower() for token in values.split(b",") if token.strip())


def hop_by_hop(headers: Headers) -> frozenset[bytes]:
    """Return the names of the headers that end at a proxy."""
    return tokens_of(headers, b"connection") | _OWN


async def read_head(wire: Stream, most: int) -> bytes | None:
    """Return the bytes up to the empty line, None when the client ended before it began. Raises Refused."""
    looked = 0
    while True:
        end = wire.ahead.find(_END, max(0, looked - 3))
        seen = end if end >= 0 else len(wire.ahead)
        if _BARE.search(wire.ahead, max(0, looked - 1), seen):
            raise Refused(Reason.SMUGGLING)
        if seen > most:
            raise Refused(Reason.LIMIT, status=431)
        if end >= 0:
            head = bytes(wire.ahead[: end + len(_END)])
            del wire.ahead[: end + len(_END)]
            return head
        looked = seen
        if not await wire.more():
            if wire.ahead:
                raise Refused(Reason.NOT_HTTP)
            return None


def parse(head: bytes) -> Request:
    """Return what a head says. Raises Refused."""
    first, *lines = head[: -len(_END)].split(b"\r\n")
    matched = _REQUEST_LINE.fullmatch(first)
    if matched is None:
        raise Refused(Reason.NOT_HTTP)
    method, target, minor = matched.groups()
    if not _TARGET.fullmatch(target):
        raise Refused(Reason.BAD_HOST)
    if not all(_HEADER_LINE.fullmatch(line) for line in lines):
        raise Refused(Reason.SMUGGLING)
    request = Request(method, target, [_header(line) for line in lines], head, minor == b"1")
    _check_framing(request, old=minor == b"0")
    return request


def _header(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b":")
    return name, value.strip(b" \t")


def _check_framing(request: Request, *, old: bool) -> None:
    names = [name.lower() for name, _ in request.headers]
    framing = [name for name in names if name in _FRAMING]
    coding = request.value(b"transfer-encoding") if b"transfer-encoding" in framing else None
    ambiguous = (
        len(framing) != len(set(framing))
        or b"trailer" in names
        or (coding is not None and (old or b"content-length" in framing or coding.lower() != b"chunked"))
        # A proxy that obeyed would take away what says where the request ends.
        or (b"connection" in names and bool(request.tokens(b"connection") & _FRAMING))
        or (request.method == b"CONNECT" and len(framing) > framing.count(b"host"))
        or (not old and b"host" not in framing)
    )
    if ambiguous:
        raise Refused(Reason.SMUGGLING)
