"""The gateway learns which sandboxes it can reach, and who may: a snapshot, then every change, in order."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from sandboxes.node import routefeed
from sandboxes.node.routefeed import RouteFeed
from tests.node import rig

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from tests.node.rig import Rig

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY, OTHER = "0a" * 8, "0b" * 8
SYNCED = {"op": "synced"}


class Listener:
    """One listener, as the gateway is."""

    def __init__(self, lines: AsyncGenerator[bytes]) -> None:
        self._lines = lines

    async def next(self) -> dict[str, Any]:
        """Return the next line."""
        async with asyncio.timeout(rig.PATIENCE_S):
            return dict(json.loads(await anext(self._lines)))

    async def snapshot(self) -> list[dict[str, Any]]:
        """Return all lines before `synced`."""
        found = []
        while (line := await self.next()) != SYNCED:
            found.append(line)
        return found


@contextlib.asynccontextmanager
async def listening(feed: RouteFeed) -> AsyncIterator[Listener]:
    """Listen to a feed."""
    async with contextlib.aclosing(feed.listen()) as lines:
        yield Listener(lines)


@contextlib.asynccontextmanager
async def gateway(node: Rig) -> AsyncIterator[tuple[Listener, bytes]]:
    """Listen through the node's door; also return the head of its answer."""
    reader, writer = await asyncio.open_unix_connection(str(node.home / "run" / "edge.sock"))
    try:
        writer.write(b"GET /v1/routes HTTP/1.1\r\nHost: node\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        yield Listener(_unchunked(reader)), head
    finally:
        writer.close()


async def _unchunked(reader: asyncio.StreamReader) -> AsyncGenerator[bytes]:
    while size := int(await reader.readline(), 16):
        data = await reader.readexactly(size)
        await reader.readexactly(2)
        for line in data.splitlines():
            yield line


async def test_a_listener_gets_a_snapshot_and_then_every_change(clean_node: Rig) -> None:
    sandbox = await clean_node.start("alice", grants={KEY: None})
    async with gateway(clean_node) as (listener, head):
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"Content-Type: application/x-ndjson\r\n" in head
        route = {
            "op": "put",
            "id": "alice",
            "generation": 1,
            "tenant": rig.ACME,
            "socket": sandbox.runtime.socket_path(sandbox.state),
            "access_key": "a1" * 32,
            "audit_key": "a2" * 32,
            "audit_key_id": "",
            "copies_key": "",
            "tier": "container",
            "grants": {KEY: None},
            "state": "running",
            "auto_resume": False,
            "ingress": {"public": True, "traffic_token": "", "mask_host": "", "https_ports": [], "ports": None},
            "network": False,
        }
        assert await listener.snapshot() == [route]

        await clean_node.start("bob")
        assert (await listener.next())["id"] == "bob"
        clean_node.keeper.grant("alice", 1, OTHER, 1_900_000_000_000)
        assert await listener.next() == route | {"grants": {KEY: None, OTHER: 1_900_000_000_000}}
        assert clean_node.keeper.revoke_key(KEY) == 1
        assert await listener.next() == route | {"grants": {OTHER: 1_900_000_000_000}}
        await clean_node.keeper.stop("bob", 1)
        assert await listener.next() == {"op": "drop", "id": "bob", "generation": 1}


async def test_a_route_leads_to_the_guest(clean_node: Rig) -> None:
    await clean_node.start("carol")
    async with listening(clean_node.keeper.feed) as listener:
        (route,) = await listener.snapshot()
    reader, writer = await asyncio.open_unix_connection(route["socket"])
    writer.write(b"GET /health HTTP/1.1\r\nHost: guest\r\nConnection: close\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 204")
    writer.close()


async def test_a_route_is_gone_before_the_sandbox_is(clean_node: Rig) -> None:
    await clean_node.start("dave")
    async with listening(clean_node.keeper.feed) as listener:
        await listener.snapshot()
        stopping = asyncio.create_task(clean_node.keeper.stop("dave", 1))
        assert await listener.next() == {"op": "drop", "id": "dave", "generation": 1}
        assert not stopping.done()
        await stopping


async def test_a_pause_is_told_once_nothing_runs_and_its_end_once_all_runs(clean_node: Rig) -> None:
    rules = {
        "public": False,
        "traffic_token": "ab" * 32,
        "mask_host": "a.example",
        "https_ports": [8443],
        "ports": [8000],
    }
    sandbox = await clean_node.start("paula", auto_resume=True, ingress=rules)
    group = sandbox.runtime.cgroup(sandbox.state)
    async with listening(clean_node.keeper.feed) as listener:
        (route,) = await listener.snapshot()
        assert (route["state"], route["auto_resume"], route["ingress"]) == ("running", True, rules)
        await clean_node.keeper.pause("paula", 1)
        assert await listener.next() == route | {"state": "paused"}
        assert group.is_frozen()
        clean_node.keeper.grant("paula", 1, KEY, None)
        assert await listener.next() == route | {"state": "paused", "grants": {KEY: None}}
        async with listening(clean_node.keeper.feed) as late:
            assert await late.snapshot() == [route | {"state": "paused", "grants": {KEY: None}}]
        await clean_node.keeper.resume("paula", 1, 60_000)
        assert await listener.next() == route | {"grants": {KEY: None}}
        assert not group.is_frozen()


async def test_a_revoked_key_is_told_at_once_for_every_sandbox(clean_node: Rig) -> None:
    for name in ("erin", "frank"):
        await clean_node.start(name, grants={KEY: None, OTHER: None})
    await clean_node.start("grace", grants={OTHER: None})
    async with listening(clean_node.keeper.feed) as listener:
        await listener.snapshot()
        assert clean_node.keeper.revoke_key(KEY) == 2
        lines = [await asyncio.wait_for(listener.next(), 1.0) for _ in range(2)]
        assert {line["id"]: line["grants"] for line in lines} == {"erin": {OTHER: None}, "frank": {OTHER: None}}
        clean_node.keeper.feed.drop("nothing")
        clean_node.keeper.feed.drop("grace")
        assert (await listener.next())["op"] == "drop"


async def test_sandboxes_of_an_earlier_node_are_in_the_snapshot(node_home: Any) -> None:
    async with rig.running_node(node_home) as first:
        await first.start("kept", grants={KEY: None})
        await first.hand_over()
    async with rig.running_node(node_home) as second, listening(second.keeper.feed) as listener:
        assert [(line["id"], line["grants"]) for line in await listener.snapshot()] == [("kept", {KEY: None})]


async def test_a_quiet_feed_says_that_it_is_alive(clean_node: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routefeed, "_PING_S", 0.02)
    async with listening(clean_node.keeper.feed) as listener:
        assert await listener.next() == SYNCED
        assert await listener.next() == {"op": "ping"}
        await clean_node.start("heidi")
        while (line := await listener.next()) == {"op": "ping"}:
            pass
        assert line["id"] == "heidi"


async def test_a_change_during_the_snapshot_comes_after_it(clean_node: Rig) -> None:
    await clean_node.start("ivan")
    async with listening(clean_node.keeper.feed) as listener:
        assert (await listener.next())["id"] == "ivan"
        clean_node.keeper.grant("ivan", 1, KEY, None)
        assert await listener.next() == SYNCED
        assert (await listener.next())["grants"] == {KEY: None}


async def test_a_listener_that_does_not_read_is_cut_off_and_the_others_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(routefeed, "_MAX_UNREAD", 10)
    feed = RouteFeed()
    async with listening(feed) as slow, listening(feed) as quick:
        await slow.snapshot()
        await quick.snapshot()
        for number in range(30):
            feed.put(rig.spec(f"s{number}"), "/socket")
            assert (await quick.next())["id"] == f"s{number}"
        assert [(await slow.next())["id"] for _ in range(10)] == [f"s{number}" for number in range(10)]
        with pytest.raises(StopAsyncIteration):
            await slow.next()
        assert len(feed._listeners) == 1
    async with listening(feed) as again:
        assert len(await again.snapshot()) == 30


async def test_a_listener_that_went_away_is_forgotten(clean_node: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routefeed, "_PING_S", 0.02)
    feed = clean_node.keeper.feed
    async with gateway(clean_node) as (listener, _head):
        await listener.snapshot()
        assert len(feed._listeners) == 1
    await rig.eventually(lambda: len(feed._listeners) == 0)


async def test_closing_hangs_up(clean_node: Rig) -> None:
    async with listening(clean_node.keeper.feed) as listener:
        await listener.snapshot()
        clean_node.keeper.feed.close()
        with pytest.raises(StopAsyncIteration):
            await listener.next()
