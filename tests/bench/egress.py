"""Egress beside Debian's squid: `python -m tests.bench.egress`, which prints JSON.

Both run on one core, the same one in turn; the load and the server that it leads to share the other. Squid allows one
host by name and logs each request; egress does what it does for every flow. Beside that: what a sandbox notices of a
neighbour that opens ten thousand connections and says nothing on them.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import tempfile
import threading
import time
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.egress import nets, squid
from tests.egress.place import BOB, Node, Process, Socket, document
from tests.egress.servers import Names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Connect = Callable[[], tuple[socket.socket, str | tuple[str, int]]]

_SHORT, _LONG = 5001, 5002
_NAME = "origin.allowed.test"
_AT_ONCE = 50
_TUNNELS = 3000
_DOWNLOADS = 2
_MIB = 1024 * 1024
_SIZE = 256 * _MIB
_ROUNDS = 5
_ALONE = 500
_FLOOD = 10_000
_FLOOD_PAUSE_S = 0.002
_REPLY = b"x" * 100
_SQUID = f"""
http_port 127.0.0.1:{squid.PORT}
acl allowed dstdomain {_NAME}
acl CONNECT method CONNECT
http_access allow CONNECT allowed
http_access deny all
"""


@contextmanager
def origin(namespace: str) -> Iterator[None]:
    """Serve short answers at one port and long ones at another, from threads of this process."""
    listeners = []
    for port, answer in ((_SHORT, _answer_short), (_LONG, _answer_long)):
        listener = nets.socket_in(namespace)
        listener.bind((nets.API, port))
        listener.listen(1024)
        listeners.append(listener)
        threading.Thread(target=_accept, args=(listener, answer), daemon=True).start()
    try:
        yield
    finally:
        for listener in listeners:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()


def _accept(listener: socket.socket, answer: Callable[[socket.socket], None]) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        answer(client)


def _answer_short(client: socket.socket) -> None:
    with client:
        client.sendall(_REPLY)


def _answer_long(client: socket.socket) -> None:
    threading.Thread(target=_send_long, args=(client,), daemon=True).start()


def _send_long(client: socket.socket) -> None:
    # Both ends leave the copying to the kernel, or the load would be what is measured.
    piece = os.memfd_create("piece")
    os.truncate(piece, _MIB)
    left = _SIZE
    with client:
        while left:
            left -= os.sendfile(client.fileno(), piece, 0, min(left, _MIB))
    os.close(piece)


def _throw_away(sock: socket.socket) -> int:
    """Read to the end and return how much it was."""
    count = 0
    out, into = os.pipe()
    with Path(os.devnull).open("wb") as nowhere:
        while size := os.splice(sock.fileno(), into, _MIB):
            count += size
            while size:
                size -= os.splice(out, nowhere.fileno(), size)
    os.close(out)
    os.close(into)
    return count


async def tunnels_per_s(connect: Connect) -> float:
    """Open tunnels, some at once, and read a short answer through each."""
    left = _TUNNELS

    async def worker() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await _one_tunnel(connect)

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(_AT_ONCE)))
    return _TUNNELS / (time.perf_counter() - began)


async def _one_tunnel(connect: Connect) -> None:
    loop = asyncio.get_running_loop()
    sock, address = connect()
    with sock:
        sock.settimeout(0)
        await loop.sock_connect(sock, address)
        await loop.sock_sendall(sock, _request(_SHORT))
        data = b""
        while piece := await loop.sock_recv(sock, 4096):
            data += piece
    if not data.startswith(b"HTTP/1.1 200 ") or not data.endswith(_REPLY):
        raise RuntimeError(f"a tunnel gave {data!r}")


def _request(port: int) -> bytes:
    return f"CONNECT {_NAME}:{port} HTTP/1.1\r\nHost: {_NAME}:{port}\r\n\r\n".encode()


def megabytes_per_s(connect: Connect) -> float:
    """Download through two tunnels at once."""
    counts = [0] * _DOWNLOADS

    def download(place: int) -> None:
        sock, address = connect()
        with sock:
            sock.connect(address)
            sock.sendall(_request(_LONG))
            counts[place] = _throw_away(sock)

    threads = [threading.Thread(target=download, args=(place,)) for place in range(_DOWNLOADS)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if min(counts) < _SIZE:
        raise RuntimeError(f"downloads ended after {counts} bytes")
    return sum(counts) / 1e6 / (time.perf_counter() - began)


async def tunnel_ms(connect: Connect) -> list[float]:
    """Time tunnels, one after the other."""
    samples = []
    for _ in range(_ALONE):
        began = time.perf_counter()
        await _one_tunnel(connect)
        samples.append((time.perf_counter() - began) * 1e3)
    return samples


@contextmanager
def flood(path: Path) -> Iterator[None]:
    """Open connections that ask for nothing, as fast as they are taken, while the block runs."""
    over = threading.Event()

    def run() -> None:
        held: list[socket.socket] = []
        while len(held) < _FLOOD and not over.is_set():
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            try:
                sock.connect(str(path))
                held.append(sock)
            except BlockingIOError:
                sock.close()
                over.wait(_FLOOD_PAUSE_S)
        over.wait()
        for sock in held:
            sock.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


async def _measure(core: int) -> dict[str, dict[str, object]]:
    figures: dict[str, list[float]] = {"ours tunnels": [], "ours bytes": [], "squid tunnels": [], "squid bytes": []}
    async with AsyncExitStack() as stack:
        ours, theirs = stack.enter_context(nets.internet())
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gatehouse-egress-", dir="/var/tmp")))
        directory.chmod(0o755)
        names = Names()
        names.zone[_NAME] = [nets.API]
        await names.start(theirs, nets.RESOLVER)
        stack.push_async_callback(names.stop)
        stack.enter_context(origin(theirs))
        sandbox, flooder = await _start_egress(stack, directory, ours, core)
        (directory / "squid").mkdir()
        stack.enter_context(squid.running(directory / "squid", ours, _SQUID, "taskset", "-c", str(core)))

        def to_ours() -> tuple[socket.socket, str]:
            return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), str(sandbox.path)

        def to_squid() -> tuple[socket.socket, tuple[str, int]]:
            return inside.make(), ("127.0.0.1", squid.PORT)

        inside = stack.enter_context(nets.Maker(ours))
        for _ in range(_ROUNDS):
            for name, connect in (("ours", to_ours), ("squid", to_squid)):
                figures[f"{name} tunnels"].append(await tunnels_per_s(connect))
                figures[f"{name} bytes"].append(await asyncio.to_thread(megabytes_per_s, connect))
        alone = await tunnel_ms(to_ours)
        with flood(flooder.path):
            flooded = await tunnel_ms(to_ours)
    return {
        "egress tunnel": {"samples": alone, "floor": None, "unit": "ms"},
        "egress tunnel, a neighbour opens 10,000 connections": {"samples": flooded, "floor": alone, "unit": "ms"},
        "egress tunnels": {"samples": figures["ours tunnels"], "floor": figures["squid tunnels"], "unit": "1/s"},
        "egress throughput": {"samples": figures["ours bytes"], "floor": figures["squid bytes"], "unit": "MB/s"},
    }


async def _start_egress(stack: AsyncExitStack, directory: Path, namespace: str, core: int) -> tuple[Socket, Socket]:
    """Return the socket of a sandbox without limits, and that of a neighbour with the usual ones."""
    process = Process(directory / "home", namespace)
    process.start()
    stack.callback(process.stop)
    assert process.process is not None
    os.sched_setaffinity(process.process.pid, {core})
    node = Node(process.control_path, acknowledges=True)
    sandbox, neighbour = Socket(directory / "egress.sock"), Socket(directory / "neighbour.sock")
    stack.push_async_callback(sandbox.close)
    stack.push_async_callback(neighbour.close)
    stack.push_async_callback(node.close)
    await node.connect()
    limits = {"flows": None, "new_per_s": None}
    await node.put(document(f"{_NAME}:1024-65535/tcp", limits=limits), listener=sandbox.listener)
    await node.put(document(limits={"new_per_s": 50}), ident=BOB, listener=neighbour.listener)
    await node.ask("synced")
    return sandbox, neighbour


def main() -> None:
    """Measure, and print the rows."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("Two cores are needed: one for the proxy, one for the load.")
    os.sched_setaffinity(0, {cores[1]})
    sys.stdout.write(json.dumps(asyncio.run(_measure(cores[0]))))


if __name__ == "__main__":
    main()
