"""The secret broker beside calls without it: `python -m tests.bench.broker`, which prints JSON.

The same client on a kept-alive connection asks the same server, by TLS itself and through the broker of a complete
Gatehouse, in turn. The memory is web's, with streams whose readers have stopped.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2b import Sandbox

from tests.broker import vendor as vendors
from tests.broker.livestack import KEY, brokered_stack, issue
from tests.live import ROOT, Stack, UnixConnection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.broker.vendor import Peer, Request

    Ask = Callable[[str], http.client.HTTPResponse]

CHAT, EMBEDDINGS = "/v1/chat/completions", "/v1/embeddings"
_EVENT = b'data: {"choices": [{"index": 0, "delta": {"content": "hello"}}]}\n\n'
_BODY = b'{"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": true}'
_MIB = 1024 * 1024
_SIZE = 128 * _MIB
_SETTLE_S = 0.03
_FIRST_BYTES, _DOWNLOADS, _STREAMS = 300, 5, 40


async def _model(request: Request, peer: Peer) -> None:
    if request.target.endswith(CHAT):
        await peer.chunked(_EVENT, _EVENT)
        return
    piece = bytes(65_536)
    await peer.begin_chunks("application/octet-stream")
    for _ in range(_SIZE // len(piece)):
        await peer.chunk(piece)
    await peer.chunk(b"")


def serve(directory: Path) -> None:
    """Serve until the input ends; say at which port."""
    with vendors.running(directory) as vendor:
        vendor.behave = _model
        sys.stdout.write(f"{vendor.base_url}\n")
        sys.stdout.flush()
        sys.stdin.read()


@contextlib.contextmanager
def serving() -> Iterator[tuple[str, Path]]:
    """Run the server in a process of its own; give its URL and its authority's certificate."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "tests.bench.broker", directory]
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), Path(directory) / "ca.pem"
        finally:
            process.communicate()


def directly(url: str, authority: Path) -> Ask:
    """Return how to ask the server itself."""
    host, _, port = url.removeprefix("https://").partition(":")
    context = ssl.create_default_context(cafile=str(authority))
    connection = http.client.HTTPSConnection(host, int(port), context=context)
    return _asking(connection, "", {"Authorization": f"Bearer {KEY}"})


def through(stack: Stack, box: Sandbox) -> Ask:
    """Return how to ask through the broker, in the place of egress, on a connection of its own."""
    token = issue(stack, box, apis=("openai/chat/completions", "openai/embeddings"), max_uses=None)
    said = {"Gatehouse-Sandbox-Id": box.sandbox_id, "Gatehouse-Sandbox-Generation": "1"}
    connection = UnixConnection(stack.home / "run" / "broker.sock")
    return _asking(connection, "/openai", said | {"Authorization": f"Bearer {token}"})


def _asking(connection: http.client.HTTPConnection, prefix: str, headers: dict[str, str]) -> Ask:
    def ask(path: str) -> http.client.HTTPResponse:
        connection.request("POST", prefix + path, _BODY, headers | {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise RuntimeError(f"{path} gave {answer.status}: {answer.read()!r}")
        return answer

    return ask


def first_byte_ms(ask: Ask) -> float:
    """Time from the request to the first byte of the answer's body."""
    began = time.perf_counter()
    answer = ask(CHAT)
    answer.read(1)
    took = (time.perf_counter() - began) * 1e3
    answer.read()
    return took


def _pair(brokered: Ask, direct: Ask) -> tuple[float, float]:
    # What the ledger is told of the call before comes after its answer, and is no part of this one.
    time.sleep(_SETTLE_S)
    return first_byte_ms(brokered), first_byte_ms(direct)


def megabytes_per_s(ask: Ask) -> float:
    """Time a long answer."""
    began = time.perf_counter()
    answer = ask(EMBEDDINGS)
    buffer, count = bytearray(_MIB), 0
    while size := answer.readinto(buffer):
        count += size
    if count != _SIZE:
        raise RuntimeError(f"a download ended after {count} bytes")
    return count / 1e6 / (time.perf_counter() - began)


def stopped_stream_mb(stack: Stack, box: Sandbox) -> float:
    """Return how many MB web takes for a stream whose reader has stopped."""
    pid = stack.pid_of("web")
    asks = [through(stack, box) for _ in range(_STREAMS)]
    before = _resident_mb(pid)
    answers = [ask(EMBEDDINGS) for ask in asks]
    for answer in answers:
        answer.read(_MIB)
    time.sleep(2)
    return (_resident_mb(pid) - before) / _STREAMS


def _resident_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 1e6


def rows() -> dict[str, dict[str, Any]]:
    """Measure everything: row → samples, floor, unit."""
    with serving() as (url, authority), brokered_stack(url, authority.read_text()) as stack:
        box = Sandbox.create("base-process", timeout=600, **stack.sdk)
        direct, brokered = directly(url, authority), through(stack, box)
        for ask in (direct, brokered) * 10:
            first_byte_ms(ask)
        pairs = [_pair(brokered, direct) for _ in range(_FIRST_BYTES)]
        rates = [(megabytes_per_s(brokered), megabytes_per_s(direct)) for _ in range(_DOWNLOADS)]
        memory = stopped_stream_mb(stack, box)
    first, bare = zip(*pairs, strict=True)
    middle = statistics.median(bare)
    return {
        "broker first byte": {"samples": first, "floor": bare, "unit": "ms"},
        "broker first byte, beyond a direct call": {"samples": [one - middle for one in first], "unit": "ms"},
        "broker throughput": {"samples": [a for a, _ in rates], "floor": [b for _, b in rates], "unit": "MB/s"},
        "broker stream, its reader stopped": {"samples": [memory], "unit": "MB"},
    }


if __name__ == "__main__":
    if sys.argv[1:]:
        serve(Path(sys.argv[1]))
    else:
        sys.stdout.write(json.dumps(rows()))
