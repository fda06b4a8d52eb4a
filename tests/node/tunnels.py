"""What programs in a sandbox do with its way out: fetch a page, say a word, hold a connection open."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Generic, Protocol, Self, TypeVar

from tests.node import rig

if TYPE_CHECKING:
    from tests.node.guestcalls import Result

_ECHO = """
import socket
try:
    with socket.create_connection(({host!r}, {port}), 10) as connection:
        said = connection.recv(100).decode()
        connection.sendall(b"hello")
        print(said + connection.recv(100).decode())
except OSError as error:
    print(type(error).__name__)
"""
# Sends each line that is put into /tmp/say, and adds what comes back to /tmp/heard.
_HOLD = """
import os, socket
with socket.create_connection(({host!r}, {port}), 20) as connection:
    connection.settimeout(None)
    open("/tmp/heard", "w").close()
    connection.recv(100)
    os.mkfifo("/tmp/say")
    print("open", flush=True)
    try:
        while True:
            with open("/tmp/say") as say:
                connection.sendall(say.read().encode())
            heard = connection.recv(100)
            with open("/tmp/heard", "w") as file:
                file.write(heard.decode() or "ended")
            if not heard:
                break
    except OSError as error:
        with open("/tmp/heard", "w") as file:
            file.write("ended")
"""


S = TypeVar("S", contravariant=True)


class Runs(Protocol[S]):
    """What runs a command in a sandbox."""

    async def run(self, sandbox: S, command: str, /, *, user: str = "user") -> Result:
        """Run a shell command line."""


async def fetch(node: Runs[S], sandbox: S, url: str) -> str:
    """Return the body that a request through the proxy of the environment gets, without the last newline."""
    return (await node.run(sandbox, f"curl -sS -m 20 {url} 2>&1")).stdout.rstrip("\n")


async def echo(node: Runs[S], sandbox: S, host: str, port: int) -> str:
    """Say hello to a server that speaks first and gives back what comes, without a proxy; or which error it was."""
    done = await node.run(sandbox, f"python3 - <<'PROGRAM'\n{_ECHO.format(host=host, port=port)}\nPROGRAM")
    return done.stdout.removesuffix("\n")


class Tunnel(Generic[S]):
    """A connection that a program in the sandbox holds open."""

    def __init__(self, node: Runs[S], sandbox: S, host: str, port: int) -> None:
        self._node = node
        self._sandbox = sandbox
        self._program = _HOLD.format(host=host, port=port)
        self._task: asyncio.Task[Result] | None = None

    async def __aenter__(self) -> Self:
        """Return once it is open."""
        command = f"rm -f /tmp/say; exec python3 - <<'PROGRAM'\n{self._program}\nPROGRAM"
        self._task = asyncio.create_task(self._node.run(self._sandbox, command))
        done = await self._node.run(
            self._sandbox, "for i in $(seq 200); do test -p /tmp/say && echo open && break; sleep 0.05; done"
        )
        assert done.stdout == "open\n", done
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let go of it."""
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConnectionError):
            await self._task

    async def say(self, word: str) -> str:
        """Send a word and return what came back."""
        wait = "for i in $(seq 200); do test -s /tmp/heard && break; sleep 0.02; done; cat /tmp/heard"
        done = await self._node.run(self._sandbox, f"rm -f /tmp/heard; printf {word} > /tmp/say; {wait}")
        return done.stdout

    async def ended(self) -> bool:
        """Tell whether the other end is gone: a word that is sent comes back no more."""
        async with asyncio.timeout(rig.PATIENCE_S):
            return await self.say("last") in ("ended", "")
