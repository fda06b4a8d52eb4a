"""Somebody inside a sandbox: shell lines and Python programs, as root or as the user, and what the kernel answered."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.node import guestcalls

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sandboxes.node.sandbox import Sandbox

# What every program may use: the C library, and answers as names of errors instead of exceptions.
_PRELUDE = r"""
import ctypes, errno, json, os, signal, socket, sys, time
libc = ctypes.CDLL(None, use_errno=True)

def outcome(result):
    return "done" if result >= 0 else errno.errorcode[ctypes.get_errno()]

def call(number, *arguments):
    "Make a system call by its number; texts and buffers are passed as pointers."
    words = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return outcome(libc.syscall(ctypes.c_long(number), *words))

def attempt(act):
    "Return 'done' or the name of the error that the act ended with."
    try:
        act()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"

def apart(act):
    "Return what the act returns in a process of its own, or the name of the signal that ended that process."
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write, str(act()).encode())
        except BaseException as error:
            os.write(write, repr(error).encode())
        os._exit(0)
    os.close(write)
    status = os.waitpid(pid, 0)[1]
    said = os.read(read, 65536).decode()
    os.close(read)
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else said

def answer(value):
    print(json.dumps(value), flush=True)

"""


@dataclass(frozen=True)
class Inside:
    """One user of one sandbox."""

    sandbox: Sandbox
    user: str = "root"

    @property
    def socket_path(self) -> str:
        """Where the guest agent listens, seen from the host."""
        return self.sandbox.runtime.socket_path(self.sandbox.state)

    @property
    def pid(self) -> int:
        """The first process of the sandbox, as the host numbers it."""
        return int(self.sandbox.state["pid"])

    async def shell(self, command: str) -> guestcalls.Result:
        """Run a shell command line and return how it ended."""
        return await guestcalls.run(self.socket_path, command, user=self.user)

    async def text(self, command: str) -> str:
        """Return what a command line prints; it must succeed."""
        done = await self.shell(command)
        assert (done.exit_code, done.error) == (0, None), done
        return done.stdout

    async def python(self, program: str) -> Any:
        """Return what a Python program passes to `answer`."""
        done = await self.shell(f"exec python3 -I -S -c {shlex.quote(_PRELUDE + program)}")
        assert (done.exit_code, done.error) == (0, None), done
        return json.loads(done.stdout)

    @contextlib.asynccontextmanager
    async def holding(self, program: str) -> AsyncIterator[None]:
        """Keep all that a Python program made, and the program itself, as long as the block runs."""
        flag = f"/tmp/holding-{secrets.token_hex(4)}"
        wait = f"\nopen('{flag}', 'w').close()\nwhile os.path.exists('{flag}'): time.sleep(0.02)\nanswer(None)\n"
        task = asyncio.create_task(self.python(program + wait))
        try:
            await self.text(f"timeout 10 sh -c 'until [ -e {flag} ]; do sleep 0.02; done'")
            yield
        finally:
            await self.text(f"rm -f {flag}")
            await task

    async def still_works(self) -> bool:
        """Tell whether the guest agent still runs commands."""
        return await self.text("echo here") == "here\n"
