"""Egress as a process of its own in the tests' internet, spoken to as the node and as sandboxes speak to it."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import itertools
import json
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from tests.egress import nets
from tests.live import ROOT

if TYPE_CHECKING:
    from pathlib import Path

ALICE, BOB = "ialice", "ibob"
RULES = [
    "api.allowed.test:443",
    "pypi.allowed.test:443",
    "*.wild.allowed.test:443",
    "plain.allowed.test:80",
    "db.allowed.test:5432",
]


def document(*rules: str, version: int = 1, **changes: Any) -> dict[str, Any]:
    """Return a document of one layer with these rules, else the usual ones."""
    made: dict[str, Any] = {
        "version": version,
        "layers": [{"name": "sandbox", "mode": "deny", "first": "deny", "egress": list(rules or RULES)}],
        "deny": [],
        "private": [],
        "dns": True,
        "via": None,
        "egress_proxy": None,
        "limits": {"flows": 256, "new_per_s": None, "bytes_out": None, "idle_s": 300},
        "tls": {"sni": "require", "ech": "deny"},
        "rules": [],
        "placeholders": [],
    }
    for name, value in changes.items():
        made[name] = {**made[name], **value} if isinstance(made[name], dict) else value
    return copy.deepcopy(made)


_generations = itertools.count(1)


class Process:
    """A running egress."""

    def __init__(
        self, home: Path, namespace: str, *, broker: Path | None = None, ca_file: Path | None = None, **limits: float
    ) -> None:
        self.home = home
        self._namespace = namespace
        self._files = {"GATEHOUSE_BROKER_SOCKET": broker, "GATEHOUSE_EGRESS_CA_FILE": ca_file}
        self._limits = limits
        (home / "run").mkdir(parents=True, exist_ok=True)
        self.control_path = home / "run" / "egress.sock"
        self.log: Path | None = None
        self.level = "WARNING"
        self._listener: socket.socket | None = None
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it on a control socket that is there from the beginning and stays when the process does not."""
        if self._listener is None:
            self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._listener.bind(str(self.control_path))
            self._listener.listen(4)
        environment = {
            **os.environ,
            "GATEHOUSE_HOME": str(self.home),
            "GATEHOUSE_EGRESS_RESOLVERS": nets.RESOLVER,
            "GATEHOUSE_EGRESS_CONTROL_FD": str(self._listener.fileno()),
            "PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}",
            "GATEHOUSE_LOG_LEVEL": self.level,
            **{name: str(path) for name, path in self._files.items() if path is not None},
        }
        entry = ["-m", "tests.egress.quick", json.dumps(self._limits)] if self._limits else ["-m", "sandboxes.egress"]
        with contextlib.ExitStack() as stack:
            self.process = subprocess.Popen(
                ["nsenter", f"--net=/run/netns/{self._namespace}", "--", sys.executable, *entry],
                cwd=ROOT,
                env=environment,
                pass_fds=[self._listener.fileno()],
                stdin=subprocess.DEVNULL,
                stderr=None if self.log is None else stack.enter_context(self.log.open("ab")),
            )

    def kill(self) -> None:
        """End it as the kernel's memory killer would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it in good order."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(timeout=10)
        if self._listener is not None:
            self._listener.close()


class Node:
    """The node's end of the control socket. Unless told otherwise it acknowledges events only when a test says so."""

    def __init__(self, path: Path, *, acknowledges: bool = False) -> None:
        self._path = path
        self._acknowledges = acknowledges
        # Of the sandboxes of this test, so that what another one left behind is none of its business.
        self.generation = next(_generations)
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._number = 0
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._task: asyncio.Task[None] | None = None
        self.hello: dict[str, Any] = {}
        self.events: list[dict[str, Any]] = []
        self._news = asyncio.Condition()
        self.lost = asyncio.Event()

    async def connect(self) -> None:
        """Connect and wait for the greeting."""
        loop = asyncio.get_running_loop()
        self._sock.settimeout(0)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        await loop.sock_connect(self._sock, str(self._path))
        self.hello = json.loads(await loop.sock_recv(self._sock, 1 << 20))
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await loop.sock_recv(self._sock, 1 << 20):
                message = json.loads(data)
                if message["op"] == "events" and self._acknowledges:
                    upto = message["events"][-1]["seq"]
                    self._sock.send(json.dumps({"op": "acked", "upto": upto}).encode())
                elif message["op"] == "events":
                    async with self._news:
                        self.events += message["events"]
                        self._news.notify_all()
                elif message["n"] in self._answers:
                    self._answers.pop(message["n"]).set_result(message)
        self.lost.set()

    async def ask(self, op: str, *, fd: int | None = None, **fields: Any) -> dict[str, Any]:
        """Send one message and return the answer to it."""
        self._number += 1
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[self._number] = answer
        data = json.dumps({"op": op, "n": self._number, **fields}).encode()
        socket.send_fds(self._sock, [data], [] if fd is None else [fd])
        return await asyncio.wait_for(answer, 20)

    def tell(self, data: bytes, *descriptors: int) -> None:
        """Send whatever a test wants to send; nobody waits for an answer."""
        socket.send_fds(self._sock, [data], descriptors)

    async def put(
        self,
        network: dict[str, Any],
        *,
        ident: str = ALICE,
        generation: int | None = None,
        listener: socket.socket | None = None,
        ca: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        """Have a sandbox served by this document, and vouched for hosts to it by this authority."""
        fd = None if listener is None else listener.fileno()
        number = self.generation if generation is None else generation
        about = {"id": ident, "generation": number, "tenant": "00" * 16, "network": network}
        return await self.ask("put", fd=fd, **about, **({} if ca is None else {"ca": ca}))

    async def event(self, **wanted: Any) -> dict[str, Any]:
        """Return the first event that has these fields; details are looked into as well."""

        def found() -> dict[str, Any] | None:
            for event in self.events:
                fields = {**event["details"], **event}
                ours = event["generation"] == wanted.get("generation", self.generation)
                if ours and all(fields.get(name) == value for name, value in wanted.items()):
                    return event
            return None

        async with self._news:
            try:
                async with asyncio.timeout(20):
                    while (event := found()) is None:
                        await self._news.wait()
            except TimeoutError:
                raise AssertionError(f"no event {wanted} among {self.events}") from None
            return event

    async def another(self) -> dict[str, Any]:
        """Return the next event that comes."""
        async with self._news:
            async with asyncio.timeout(20):
                await self._news.wait()
            return self.events[-1]

    async def leave(self) -> None:
        """Have every sandbox forgotten and every event acknowledged, and go away."""
        if not self.lost.is_set():
            await self.close()
            last = Node(self._path)
            await last.connect()
            await last.ask("synced")
            await last.ask("acked", upto=10**9)
            await last.close()
        await self.close()

    async def close(self) -> None:
        """Go away without a word."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._sock.close()


class Socket:
    """The socket of one sandbox, as the node makes it and as the guest sees it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(path))
        self.listener.listen(128)
        self._clients: list[Client] = []

    async def connect(self) -> Client:
        """Open a connection."""
        client = Client(*await asyncio.open_unix_connection(str(self.path)))
        self._clients.append(client)
        return client

    async def ask(self, data: bytes) -> Client:
        """Open a connection and send this first."""
        client = await self.connect()
        client.send(data)
        return client

    async def tunnel(self, authority: str, *headers: str) -> Client:
        """Open a tunnel, and return it when it stands."""
        client = await self.ask(connect_head(authority, *headers))
        assert (await client.head()).startswith(b"HTTP/1.1 200 ")
        return client

    async def close(self) -> None:
        """Close the test's own hold on it, and all connections."""
        self.listener.close()
        for client in self._clients:
            client.close()
            with contextlib.suppress(OSError):
                await client.writer.wait_closed()


def connect_head(authority: str, *headers: str) -> bytes:
    """Return a CONNECT request."""
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


class Client:
    """One connection of a program in the sandbox."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        """Send."""
        self.writer.write(data)

    async def head(self) -> bytes:
        """Return the head of an answer."""
        async with asyncio.timeout(20):
            return await self.reader.readuntil(b"\r\n\r\n")

    async def answer(self) -> tuple[int, bytes]:
        """Return status and body of an answer that says its length."""
        head = await self.head()
        size = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        async with asyncio.timeout(20):
            return int(head.split(b" ", 2)[1]), await self.reader.readexactly(size)

    async def refusal(self) -> tuple[int, str]:
        """Return status and reason of a refusal."""
        status, body = await self.answer()
        return status, json.loads(body)["reason"]

    async def exactly(self, size: int) -> bytes:
        """Return so many bytes."""
        async with asyncio.timeout(20):
            return await self.reader.readexactly(size)

    async def rest(self) -> bytes:
        """Return everything up to the end; a reset is an end too."""
        data = b""
        try:
            async with asyncio.timeout(20):
                while piece := await self.reader.read(65536):
                    data += piece
        except ConnectionError:
            return data
        return data

    def close(self) -> None:
        """Close."""
        self.writer.transport.abort()
