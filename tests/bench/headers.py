"""Requests whose headers egress sets beside the same in a tunnel: `python -m tests.bench.headers`, which prints JSON.

Egress has a core of its own; client, host and what stands in for the control plane share the other one. That answers at
once: the real one looks the secret up, which is measured with the broker.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from tests.egress import nets
from tests.egress.conftest import Place
from tests.egress.inside import HOST, RULE, Alice, ControlPlane, request
from tests.egress.place import Node, Process, Socket, document
from tests.egress.servers import Names, ok
from tests.internet.certificates import Authority

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_PLAIN = "pypi.allowed.test"
_TIMES = 300
_ROUNDS = 3


async def _new_connections(alice: Alice, host: str, context: ssl.SSLContext) -> list[float]:
    """Time tunnel, TLS, request and answer, one after the other."""
    samples = []
    for _ in range(_TIMES // _ROUNDS):
        began = time.perf_counter()
        client = await alice.https(host, context=context)
        client.send(request(host=host))
        await client.answer()
        samples.append((time.perf_counter() - began) * 1e3)
        client.close()
    return samples


async def _one_connection(alice: Alice, host: str, context: ssl.SSLContext) -> list[float]:
    """Time request and answer on one connection."""
    client = await alice.https(host, context=context)
    samples = []
    for _ in range(_TIMES):
        began = time.perf_counter()
        client.send(request(host=host))
        await client.answer()
        samples.append((time.perf_counter() - began) * 1e3)
    client.close()
    return samples


async def _place(stack: AsyncExitStack, core: int) -> tuple[Alice, Authority]:
    ours, theirs = stack.enter_context(nets.internet())
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gatehouse-headers-", dir="/var/tmp")))
    directory.chmod(0o755)
    hosts, names = Authority(directory), Names()
    names.zone = {HOST: [nets.API], _PLAIN: [nets.OTHER]}
    await names.start(theirs, nets.RESOLVER)
    stack.push_async_callback(names.stop)
    process = Process(directory / "home", ours, ca_file=hosts.file)
    process.start()
    stack.callback(process.stop)
    assert process.process is not None
    os.sched_setaffinity(process.process.pid, {core})
    plane = ControlPlane(process.home / "run" / "internal.sock")
    await plane.start()
    stack.push_async_callback(plane.stop)
    node, sandbox = Node(process.control_path, acknowledges=True), Socket(directory / "egress.sock")
    stack.push_async_callback(sandbox.close)
    stack.push_async_callback(node.close)
    await node.connect()
    limits = {"flows": None, "new_per_s": None}
    await node.put(document(limits=limits), listener=sandbox.listener)
    await node.ask("synced")
    alice = Alice(Place(directory, process, node, names, sandbox, theirs, ours), plane)
    await alice.put(rules=[RULE], limits=limits)
    for address, host in ((nets.API, HOST), (nets.OTHER, _PLAIN)):
        server = await alice.place.server(address, 443, ok, hosts.context(host))
        stack.push_async_callback(server.stop)
    return alice, hosts


async def _measure(core: int) -> dict[str, dict[str, object]]:
    async with AsyncExitStack() as stack:
        alice, hosts = await _place(stack, core)
        untouched = ssl.create_default_context(cadata=hosts.pem)
        ways = {HOST: alice.context("http/1.1"), _PLAIN: untouched}
        kinds: dict[str, Callable[[Alice, str, ssl.SSLContext], Awaitable[list[float]]]] = {
            "egress header rule, new connection": _new_connections,
            "egress header rule, same connection": _one_connection,
        }
        rows: dict[str, dict[str, object]] = {}
        for name, measure in kinds.items():
            samples: dict[str, list[float]] = {HOST: [], _PLAIN: []}
            for _ in range(_ROUNDS):
                for host, context in ways.items():
                    samples[host] += await measure(alice, host, context)
            rows[name] = {"samples": samples[HOST], "floor": samples[_PLAIN], "unit": "ms"}
        return rows


def main() -> None:
    """Measure, and print the rows."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("Two cores are needed: one for egress, one for the rest.")
    os.sched_setaffinity(0, {cores[1]})
    sys.stdout.write(json.dumps(asyncio.run(_measure(cores[0]))))


if __name__ == "__main__":
    main()
