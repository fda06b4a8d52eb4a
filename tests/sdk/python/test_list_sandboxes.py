"""GET /v2/sandboxes through the SDK: filters, order, pages."""

from __future__ import annotations

import secrets
from typing import Any

import pytest
from e2b import SandboxQuery, SandboxState
from e2b.exceptions import SandboxException


async def everything(ok: Any, face: Any, **options: Any) -> list[Any]:
    """Return all rows of all pages."""
    paginator, rows = face.list(**options), []
    while paginator.has_next:
        rows += await ok(paginator.next_items())
    return rows


async def test_listed_while_it_runs(fresh: Any, ok: Any, face: Any, api: dict[str, Any], template: str) -> None:
    mark = secrets.token_hex(8)
    sandbox = await fresh(metadata={"mark": mark})
    query = SandboxQuery(metadata={"mark": mark})
    (row,) = await everything(ok, face, query=query, **api)
    info = await ok(sandbox.get_info())
    assert (row.sandbox_id, row.state, row.name) == (sandbox.sandbox_id, SandboxState.RUNNING, template)
    assert (row.started_at, row.end_at, row.metadata) == (info.started_at, info.end_at, {"mark": mark})
    assert (row.cpu_count, row.memory_mb) == (info.cpu_count, info.memory_mb)
    await ok(sandbox.kill())
    assert await everything(ok, face, query=query, **api) == []


async def test_every_pair_of_metadata_must_match(fresh: Any, ok: Any, face: Any, api: dict[str, Any]) -> None:
    mark = secrets.token_hex(8)
    await fresh(metadata={"mark": mark, "colour": "blue"})
    for query, found in (
        ({"mark": mark, "colour": "blue"}, 1),
        ({"mark": mark, "colour": "red"}, 0),
        ({"mark": mark, "shape": "blue"}, 0),
        ({"mark": mark[:-1]}, 0),
    ):
        assert len(await everything(ok, face, query=SandboxQuery(metadata=query), **api)) == found, query


@pytest.mark.parametrize("value", ["a b", "c&d=e", "100%", "%20", "a+b", "ünïcödé ☃", "'\";,"])
async def test_metadata_of_every_shape_is_found(
    fresh: Any, ok: Any, face: Any, api: dict[str, Any], value: str
) -> None:
    key = f"{secrets.token_hex(4)} {value}"
    sandbox = await fresh(metadata={key: value})
    rows = await everything(ok, face, query=SandboxQuery(metadata={key: value}), **api)
    assert [row.sandbox_id for row in rows] == [sandbox.sandbox_id]


async def test_pages_from_the_newest_on(fresh: Any, ok: Any, face: Any, api: dict[str, Any]) -> None:
    mark = secrets.token_hex(8)
    made = [(await fresh(metadata={"mark": mark})).sandbox_id for _ in range(3)]
    paginator = face.list(query=SandboxQuery(metadata={"mark": mark}), limit=1, **api)
    seen = []
    for number in range(3):
        assert paginator.has_next is True
        seen += [row.sandbox_id for row in await ok(paginator.next_items())]
        assert len(seen) == number + 1
    assert paginator.has_next is False
    assert seen == made[::-1]


async def test_pages_in_the_other_order(fresh: Any, ok: Any, face: Any, api: dict[str, Any]) -> None:
    mark = secrets.token_hex(8)
    made = [(await fresh(metadata={"mark": mark})).sandbox_id for _ in range(3)]
    rows = await everything(ok, face, query=SandboxQuery(metadata={"mark": mark}), limit=2, order="asc", **api)
    assert [row.sandbox_id for row in rows] == made


async def test_by_state(fresh: Any, ok: Any, face: Any, api: dict[str, Any]) -> None:
    mark = secrets.token_hex(8)
    running, paused = [await fresh(metadata={"mark": mark}) for _ in range(2)]
    await ok(paused.pause())
    for state, expected in (
        ([SandboxState.RUNNING], [running]),
        ([SandboxState.PAUSED], [paused]),
        ([SandboxState.RUNNING, SandboxState.PAUSED], [paused, running]),
        (None, [paused, running]),
    ):
        query = SandboxQuery(metadata={"mark": mark}, state=state)
        rows = await everything(ok, face, query=query, limit=1, **api)
        assert [row.sandbox_id for row in rows] == [sandbox.sandbox_id for sandbox in expected], state


async def test_by_template(fresh: Any, ok: Any, face: Any, api: dict[str, Any], template: str) -> None:
    mark = secrets.token_hex(8)
    await fresh(metadata={"mark": mark})
    for name, found in ((template, 1), ("base-hardened", 0), ("no-such-template", 0)):
        query = SandboxQuery(metadata={"mark": mark}, template=name)
        assert len(await everything(ok, face, query=query, **api)) == found, name


async def test_by_start(fresh: Any, ok: Any, face: Any, api: dict[str, Any]) -> None:
    mark = secrets.token_hex(8)
    made = [await fresh(metadata={"mark": mark}) for _ in range(2)]
    second = (await ok(made[1].get_info())).started_at
    query = SandboxQuery(metadata={"mark": mark}, started_after=second)
    rows = await everything(ok, face, query=query, **api)
    assert [row.sandbox_id for row in rows] == [made[1].sandbox_id]


async def test_impossible_pages_are_refused(ok: Any, face: Any, api: dict[str, Any]) -> None:
    with pytest.raises(SandboxException, match="400"):
        await everything(ok, face, next_token="no-such-token", **api)
