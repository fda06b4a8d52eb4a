"""The node's side door: which sandboxes there are, with their listeners and policies, and the way for events.

One JSON message a packet; a listener comes with its message as a descriptor. A node that connects takes the place of an
earlier one. Without a node everything stays as it is, and nothing new comes.
"""

from __future__ import annotations

import array
import asyncio
import json
import os
import socket
import struct
import time
from typing import TYPE_CHECKING, Any

from corekit.logs import logger
from corekit.netrules.entries import RuleError
from corekit.netrules.policy import Policy
from sandboxes.egress.authority import Authority

if TYPE_CHECKING:
    from sandboxes.egress.events import Outbox
    from sandboxes.egress.registry import Registry

PACKET = 1024 * 1024
# Each has at most a few hundred bytes of what sandboxes said, so that a packet of them fits any socket's buffer.
_EVENTS_AT_ONCE = 100
_LOOK_S = 0.02
_PEER = struct.Struct("3i")
_DESCRIPTOR = array.array("i").itemsize
# Spare room, so that a packet with too many descriptors is seen as one.
_ANCILLARY = socket.CMSG_SPACE(4 * _DESCRIPTOR)


class Unfit(Exception):
    """A message that can't be obeyed."""


class Control:
    """Listens for the node and obeys it."""

    def __init__(self, listener: socket.socket, registry: Registry, outbox: Outbox, *, allowed_uid: int = 0) -> None:
        self._listener = listener
        self._registry = registry
        self._outbox = outbox
        self._allowed_uid = allowed_uid
        self._started = time.time()
        self._node: _Node | None = None
        outbox.news = self._news

    def start(self) -> None:
        """Accept nodes from now on."""
        self._listener.settimeout(0)
        asyncio.get_running_loop().add_reader(self._listener.fileno(), self._accept)

    async def hand_over(self, seconds: float) -> None:
        """Return when the node has acknowledged every event, or after so long; at once where there is no node."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while self._node is not None and not self._node.gone and not self._outbox.empty and loop.time() < until:
            await asyncio.sleep(_LOOK_S)

    def close(self) -> None:
        """Accept no more."""
        asyncio.get_running_loop().remove_reader(self._listener.fileno())
        self._listener.close()
        if self._node is not None:
            self._node.close()

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        _, uid, _ = _PEER.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        if uid != self._allowed_uid:
            logger.error("egress_control_refused", uid=uid)
            sock.close()
            return
        if self._node is not None:
            self._node.close()
        sock.settimeout(0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PACKET)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, PACKET)
        self._node = _Node(sock, self._registry, self._outbox)
        self._node.start({"op": "hello", "pid": os.getpid(), "started": self._started})

    def _news(self) -> None:
        if self._node is not None:
            self._node.news.set()


class _Node:
    """One connected node."""

    def __init__(self, sock: socket.socket, registry: Registry, outbox: Outbox) -> None:
        self._sock = sock
        self._registry = registry
        self._outbox = outbox
        self._sent = 0
        self._tasks: list[asyncio.Task[None]] = []
        self.gone = False
        self._sending = asyncio.Lock()
        self.news = asyncio.Event()

    def start(self, hello: dict[str, Any]) -> None:
        self._registry.begin()
        self._tasks = [asyncio.create_task(self._report(hello)), asyncio.create_task(self._obey())]

    def close(self) -> None:
        self.gone = True
        for task in self._tasks:
            task.cancel()
        # Not before the tasks have let go of it: its number may be another socket's right afterwards.
        ended = asyncio.gather(*self._tasks, return_exceptions=True)
        ended.add_done_callback(lambda _: self._sock.close())

    async def _obey(self) -> None:
        try:
            while await self._obey_once():
                pass
            logger.warning("egress_control_ended")
        except OSError as error:
            logger.error("egress_control_lost", error=str(error))
        finally:
            self.gone = True

    async def _obey_once(self) -> bool:
        """Act on one message; False when the node has gone."""
        try:
            data, listener = await self._receive()
        except Unfit as error:
            logger.error("egress_control_unfit", error=str(error))
            return True
        if data:
            await self._act(data, listener)
        return bool(data)

    async def _receive(self) -> tuple[bytes, socket.socket | None]:
        while True:
            try:
                data, ancillary, flags, _ = self._sock.recvmsg(PACKET, _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
            except (BlockingIOError, InterruptedError):
                await _ready(self._sock, writing=False)
                continue
            descriptors = _descriptors(ancillary)
            if len(descriptors) > 1 or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                for descriptor in descriptors:
                    os.close(descriptor)
                raise Unfit("a packet is too long or has too many descriptors")
            return data, socket.socket(fileno=descriptors[0]) if descriptors else None

    async def _act(self, data: bytes, listener: socket.socket | None) -> None:
        number: object = None
        try:
            message = json.loads(data)
            number = message.get("n")
            answer = await self._done(message, listener)
        except RuleError as error:
            await self._refuse(number, f"{error.field}: {error}", listener)
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            await self._refuse(number, f"{type(error).__name__}: {error}", listener)
        else:
            if number is not None:
                await self._send({"op": "done", "n": number, **answer})

    async def _refuse(self, number: object, reason: str, listener: socket.socket | None) -> None:
        logger.error("egress_control_failed", reason=reason)
        if listener is not None:
            listener.close()
        await self._send({"op": "failed", "n": number, "reason": reason})

    async def _done(self, message: dict[str, Any], listener: socket.socket | None) -> dict[str, Any]:
        match message["op"]:
            case "put":
                policy, authority = Policy.parse(message["network"]), Authority.parse(message.get("ca"))
                about = str(message["id"]), int(message["generation"])
                await self._registry.put(*about, policy, listener, authority)
                return {"version": policy.version}
            case "drop":
                await self._registry.drop(str(message["id"]), int(message["generation"]))
            case "synced":
                await self._registry.synced()
            case "acked":
                self._outbox.acknowledge(int(message["upto"]))
                self.news.set()
            case _:
                raise ValueError(f"there is no {message['op']!r}")
        return {}

    async def _report(self, hello: dict[str, Any]) -> None:
        """Send each event once on this connection; what the node had not acknowledged before comes again."""
        try:
            await self._send(hello)
            while True:
                events = self._outbox.after(self._sent, _EVENTS_AT_ONCE)
                if events:
                    await self._send({"op": "events", "events": events})
                    self._sent = events[-1]["seq"]
                else:
                    self.news.clear()
                    await self.news.wait()
        except OSError as error:
            logger.error("egress_events_not_sent", error=str(error))

    async def _send(self, message: dict[str, Any]) -> None:
        data = json.dumps(message, separators=(",", ":")).encode()
        # Answers and events wait for the same socket, which can wake only one of them.
        async with self._sending:
            while True:
                try:
                    self._sock.send(data)
                    return
                except (BlockingIOError, InterruptedError):
                    await _ready(self._sock, writing=True)


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> array.array[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % _DESCRIPTOR])
    return found


async def _ready(sock: socket.socket, *, writing: bool) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    add, remove = (loop.add_writer, loop.remove_writer) if writing else (loop.add_reader, loop.remove_reader)

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    add(sock.fileno(), wake)
    try:
        await ready
    finally:
        remove(sock)
