"""Asks the control plane for the values that a request is to carry. They are known for that request, and not kept.

The control plane says what is set and swapped by its own copy of the sandbox's rules: what is asked here is where the
request goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import h11

from corekit.logs import logger
from corekit.needles import Needles
from corekit.netrules.reasons import Reason
from sandboxes.egress.refusals import Refused
from sandboxes.egress.wire import Gone, Wire

if TYPE_CHECKING:
    from pathlib import Path

    from sandboxes.egress.poller import Poller
    from sandboxes.egress.registry import Sandbox

_MOST_IDLE = 16
_MOST_ANSWER = 512 * 1024
_LONGEST_PATH = 3000
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HEADERS = (("Host", "internal"), ("Content-Type", "application/json"))
_REASONS = {
    409: (Reason.SECRET_MISSING, None),
    403: (Reason.SECRETS_UNAVAILABLE, "The control plane knows no such rule for this sandbox."),
    404: (Reason.SECRETS_UNAVAILABLE, "The control plane knows no such sandbox."),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """Where a request goes. `rule_host` is the host of the header rule that is for it."""

    host: str
    method: str
    path: str
    rule_host: str | None
    scheme: str


@dataclass(frozen=True, slots=True)
class Granted:
    """What the request gets: headers to set, placeholders with their values, and what must not come back."""

    set: tuple[tuple[bytes, bytes], ...] = field(repr=False)
    swap: tuple[tuple[bytes, bytes], ...] = field(repr=False)
    needles: Needles = field(repr=False)


class Credentials:
    """Keeps some connections to the control plane. All methods belong to one event loop."""

    def __init__(self, path: Path, poller: Poller, patience_s: float) -> None:
        self._path = path
        self._poller = poller
        self._patience_s = patience_s
        self._idle: list[Wire] = []

    async def fetch(self, sandbox: Sandbox, asked: Asked) -> Granted:
        """Return what a request gets. Raises Refused: without an answer nothing may go out."""
        if len(asked.path) > _LONGEST_PATH:
            raise Refused(Reason.CANNOT_REWRITE, status=414, detail="Its path is too long to be judged.")
        body = {"generation": sandbox.generation, **{name: getattr(asked, name) for name in asked.__slots__}}
        try:
            async with asyncio.timeout(self._patience_s):
                status, answer = await self._post(f"/internal/v1/sandboxes/{sandbox.id}/credentials", body)
            if status == 200:
                return _granted(json.loads(answer))
        except (OSError, Gone, TimeoutError, h11.ProtocolError, ValueError, KeyError, TypeError) as error:
            logger.error("egress_credentials_failed", sandbox=sandbox.id, host=asked.host, error=type(error).__name__)
            raise Refused(Reason.SECRETS_UNAVAILABLE) from None
        logger.warning("egress_credentials_refused", sandbox=sandbox.id, host=asked.host, status=status)
        reason, detail = _REASONS.get(status, (Reason.SECRETS_UNAVAILABLE, None))
        raise Refused(reason, detail=detail)

    async def _post(self, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
        data = json.dumps(body).encode()
        while self._idle:
            wire = self._idle.pop()
            if not wire.is_quiet():
                wire.close()
                continue
            # It may be closed at this very moment, as idle ones are.
            with contextlib.suppress(Gone):
                return await self._exchange(wire, path, data)
        return await self._exchange(self._connected(), path, data)

    def _connected(self) -> Wire:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            # At once, or not at all: a unix socket whose queue is full says so.
            sock.connect(str(self._path))
        except OSError:
            sock.close()
            raise
        return Wire(self._poller, sock, asyncio.get_running_loop())

    async def _exchange(self, wire: Wire, path: str, data: bytes) -> tuple[int, bytes]:
        try:
            parser = h11.Connection(h11.CLIENT)
            head = h11.Request(method="POST", target=path, headers=[*_HEADERS, ("Content-Length", str(len(data)))])
            parts = (parser.send(head), parser.send(h11.Data(data)), parser.send(h11.EndOfMessage()))
            await wire.send(b"".join(part for part in parts if part))
            status, answer = await _answer(wire, parser)
        except BaseException:
            wire.reset()
            raise
        if parser.our_state is parser.their_state is h11.DONE and len(self._idle) < _MOST_IDLE:
            self._idle.append(wire)
        else:
            wire.close()
        return status, answer

    def close(self) -> None:
        """End all connections."""
        while self._idle:
            self._idle.pop().close()


async def _answer(wire: Wire, parser: h11.Connection) -> tuple[int, bytes]:
    status, body = 0, bytearray()
    while True:
        event = parser.next_event()
        if event is h11.NEED_DATA:
            data = await wire.receive()
            if not data and not status:
                raise Gone("there is no answer")
            parser.receive_data(data)
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > _MOST_ANSWER:
                raise Gone("the answer is too long")
        elif isinstance(event, h11.EndOfMessage):
            return status, bytes(body)
        elif not isinstance(event, h11.InformationalResponse):
            raise Gone("the answer broke off")


def _granted(said: Any) -> Granted:
    """Read an answer strictly. Raises ValueError, KeyError or TypeError, which hold nothing of it."""
    headers, swaps = _pairs(said["set"]), _pairs(said["swap"])
    if not all(_NAME.fullmatch(name) for name, _ in headers):
        raise ValueError("a header has no name")
    return Granted(headers, swaps, Needles(_text(value) for value in said["needles"]))


def _pairs(said: Any) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((_text(name), _text(value)) for name, value in said)


def _text(said: Any) -> bytes:
    if not isinstance(said, str):
        raise TypeError("it is no text")
    return said.encode()
