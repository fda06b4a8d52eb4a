"""Judge hostile code in child processes, so that it can neither hang nor end the caller.

What a child can't judge, because it ran out of time or memory or died, is unassessable: never harmless.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from audit.risk import shell
from audit.risk.assessor import MAX_CODE, assess_argv, known_language
from audit.risk.child import LENGTH, MAX_FRAME
from audit.risk.findings import Assessment
from audit.risk.scoring import combine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

_ROOT = Path(__file__).resolve().parents[2]
# Isolated, so that neither the folder nor the environment of the caller decides what the child imports.
_START = "import sys; sys.path.insert(0, sys.argv[1]); from audit.risk.child import main; main(float(sys.argv[2]))"
# The child counts its own CPU time. These are for a host that is too busy to give it any.
_ANSWERS_WITHIN_S = 10.0
_FREE_WITHIN_S = 20.0
_STARTS_WITHIN_S = 30.0
_CACHED = 2048


class _Stopped(Exception):
    """A child gave no answer; the text says why, in a sentence for the reader of a score.

    `lasting` is whether the same code would end the same way again.
    """

    def __init__(self, reason: str, *, lasting: bool = False) -> None:
        super().__init__(reason)
        self.lasting = lasting


class Assessor:
    """A few child processes, started ahead and replaced when they die, and a memory of what was judged."""

    def __init__(self, size: int = 2, *, cpu_limit_s: float = 1.0) -> None:
        self._cpu_limit_s = cpu_limit_s
        self._children: queue.LifoQueue[_Child] = queue.LifoQueue()
        self._closed = False
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="assessor")
        self._cache = _Cache(_CACHED)
        for _ in range(size):
            self._children.put(_Child(cpu_limit_s))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def assess(self, code: bytes, language: str) -> Assessment:
        """Judge code without holding up the event loop."""
        known, asked = self._prepared(code, language)
        if known is not None:
            return known
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._ask, *asked)

    async def assess_argv(self, argv: Sequence[str]) -> Assessment:
        """Judge a command that is started without a shell."""
        known, asked = self._prepared_argv(argv)
        if known is not None:
            return known
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._ask, *asked)

    def assess_blocking(self, code: bytes, language: str) -> Assessment:
        """Judge code in the calling thread. Any number of threads may call."""
        known, asked = self._prepared(code, language)
        return known if known is not None else self._ask(*asked)

    def assess_argv_blocking(self, argv: Sequence[str]) -> Assessment:
        """Judge a command in the calling thread."""
        known, asked = self._prepared_argv(argv)
        return known if known is not None else self._ask(*asked)

    def close(self) -> None:
        """End the children. What is being judged is answered first."""
        self._closed = True
        self._threads.shutdown(wait=True)
        with contextlib.suppress(queue.Empty):
            while True:
                self._children.get_nowait().end()

    def _prepared(self, code: bytes, language: str) -> tuple[Assessment | None, tuple[Any, ...]]:
        name = known_language(language)
        if len(code) > MAX_CODE:
            return _unassessable(name, f"It is longer than {MAX_CODE:,} bytes."), ()
        key = hashlib.sha256(name.encode() + b"\0" + code).digest()
        return self._cache.get(key), (key, name, lambda: {"code": code.decode("latin-1"), "language": name}, _until())

    def _prepared_argv(self, argv: Sequence[str]) -> tuple[Assessment | None, tuple[Any, ...]]:
        if shell.is_plain(argv):
            return assess_argv(argv), ()
        words = list(argv)
        if sum(map(len, words)) > MAX_CODE:
            return _unassessable("argv", f"It is longer than {MAX_CODE:,} characters."), ()
        key = hashlib.sha256(b"argv\0" + json.dumps(words).encode()).digest()
        return self._cache.get(key), (key, "argv", lambda: {"argv": words}, _until())

    def _ask(self, key: bytes, language: str, request: Callable[[], dict[str, Any]], until: float) -> Assessment:
        if self._closed:
            return _unassessable(language, "The assessor is closed.")
        try:
            child = self._children.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            return _unassessable(language, "Every assessor is busy.")
        try:
            answer = Assessment.from_dict(child.exchange(request()))
        except _Stopped as stopped:
            child.end()
            child = _Child(self._cpu_limit_s)
            answer = _unassessable(language, str(stopped))
            if not stopped.lasting:
                return answer
        finally:
            self._children.put(child)
        self._cache.put(key, answer)
        return answer


class _Cache:
    """The latest answers. The oldest leaves first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._answers: OrderedDict[bytes, Assessment] = OrderedDict()

    def get(self, key: bytes) -> Assessment | None:
        with self._lock:
            answer = self._answers.get(key)
            if answer is not None:
                self._answers.move_to_end(key)
            return answer

    def put(self, key: bytes, answer: Assessment) -> None:
        with self._lock:
            self._answers[key] = answer
            if len(self._answers) > self._size:
                self._answers.popitem(last=False)


class _Child:
    """One process and the two pipes to it."""

    def __init__(self, cpu_limit_s: float) -> None:
        self._cpu_limit_s = cpu_limit_s
        self._process: subprocess.Popen[bytes] | None = None
        self._requests = self._answers = -1
        self._proven = False
        with contextlib.suppress(OSError):
            self._start()

    def exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send one request and return the answer, or raise _Stopped: the child is then of no more use."""
        until = time.monotonic() + _ANSWERS_WITHIN_S + (0 if self._proven else _STARTS_WITHIN_S)
        body = json.dumps(request).encode()
        try:
            if self._process is None:
                self._start()
            self._send(LENGTH.pack(len(body)) + body, until)
            size = LENGTH.unpack(self._receive(LENGTH.size, until))[0]
            if size > MAX_FRAME:
                raise _Stopped("The assessor's answer made no sense.")
            answer: dict[str, Any] = json.loads(self._receive(size, until))
        except ValueError as error:
            raise _Stopped("The assessor's answer made no sense.") from error
        except (OSError, EOFError) as error:
            raise self._stopped() from error
        self._proven = True
        return answer

    def end(self) -> None:
        """Kill the process and wait until it is gone."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process = None

    def _start(self) -> None:
        self._process = subprocess.Popen(
            (sys.executable, "-I", "-c", _START, str(_ROOT), str(self._cpu_limit_s)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={},
            bufsize=0,
        )
        if self._process.stdin is not None and self._process.stdout is not None:
            self._requests, self._answers = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._requests, False)

    def _stopped(self) -> _Stopped:
        if self._process is not None:
            # A child that closed its pipes ends at once; one that doesn't is killed by the caller anyway.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=1)
            if self._process.returncode == -signal.SIGPROF:
                return _Stopped(f"Reading it took more than {self._cpu_limit_s:g} s.", lasting=True)
        return _Stopped("The assessor ended while it read it.", lasting=self._proven)

    def _send(self, data: bytes, until: float) -> None:
        view = memoryview(data)
        while view:
            _wait(self._requests, select.POLLOUT, until)
            view = view[os.write(self._requests, view) :]

    def _receive(self, size: int, until: float) -> bytes:
        received = bytearray()
        while len(received) < size:
            _wait(self._answers, select.POLLIN, until)
            chunk = os.read(self._answers, size - len(received))
            if not chunk:
                raise EOFError
            received += chunk
        return bytes(received)


def _wait(descriptor: int, event: int, until: float) -> None:
    poll = select.poll()
    poll.register(descriptor, event)
    if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
        raise _Stopped("The host was too busy to read it.")


def _until() -> float:
    return time.monotonic() + _FREE_WITHIN_S


def _unassessable(language: str, reason: str) -> Assessment:
    return combine(language, [], unassessable=reason, ms=0.0)
