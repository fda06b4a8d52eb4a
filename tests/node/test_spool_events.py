"""Events stay in order, on disk and unforgotten until the control plane has committed them."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from sandboxes.node import segment as segment_module
from sandboxes.node import spool as spool_module
from sandboxes.node.errors import SpoolFull
from sandboxes.node.segment import lines_of
from sandboxes.node.spool import SANDBOX_BYTES, Spool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


def event(
    sandbox: str = "alpha", *, phase: str = "intent", size: int = 0, code: str = "command.start"
) -> dict[str, Any]:
    """Return an event; `size` characters make it heavy."""
    return {"sandbox": sandbox, "phase": phase, "code": code, "details": {"text": "x" * size}}


@pytest.fixture
async def spool(tmp_path: Path) -> AsyncIterator[Spool]:
    """Return an empty spool."""
    opened = Spool(tmp_path / "spool")
    opened.open()
    yield opened
    await opened.close()


async def reopened(spool: Spool) -> Spool:
    """Return a spool over the same directory, as the next node process opens it, and close the old one."""
    await spool.close()
    again = Spool(spool._root)
    again.open()
    # The fixture closes what it gave out: let it close this one.
    spool.__dict__ = again.__dict__
    return spool


def numbers(spool: Spool, after: int = 0) -> list[int]:
    """Return the sequence numbers that are waiting."""
    return [event["seq"] for event in spool.after(after, 10**6)]


def files(spool: Spool) -> list[str]:
    """Return the segments' names, oldest first."""
    return [path.name for path in spool._segments()]


async def test_events_are_numbered_in_the_order_in_which_they_came(spool: Spool) -> None:
    assert await asyncio.gather(*(spool.append(event(code=f"command.c{n}")) for n in range(5))) == [1, 2, 3, 4, 5]
    assert [kept["code"] for kept in spool.after(0, 10)] == [f"command.c{n}" for n in range(5)]
    assert spool.last_seq == 5


async def test_an_event_is_on_disk_before_its_number_is_returned(spool: Spool) -> None:
    await spool.append(event())
    assert [json.loads(line)["seq"] for line in lines_of(spool._root / "1.jsonl")] == [1]


async def test_many_events_share_one_sync(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs: list[int] = []
    monkeypatch.setattr(os, "fdatasync", syncs.append)
    await asyncio.gather(*(spool.append(event()) for _ in range(200)))
    assert len(syncs) == 1


async def test_a_reader_gets_what_comes_after_a_number_up_to_a_limit(spool: Spool) -> None:
    for _ in range(5):
        await spool.append(event())
    assert numbers(spool, after=3) == [4, 5]
    assert [kept["seq"] for kept in spool.after(1, 2)] == [2, 3]
    assert numbers(spool, after=5) == []


async def test_a_reader_may_wait_for_the_next_event(spool: Spool) -> None:
    waiting = asyncio.create_task(spool.wait_after(0, 5.0))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    await spool.append(event())
    await asyncio.wait_for(waiting, 1.0)


async def test_waiting_ends_when_nothing_comes(spool: Spool) -> None:
    await asyncio.wait_for(spool.wait_after(0, 0.02), 1.0)
    assert numbers(spool) == []


async def test_acknowledged_events_are_forgotten_and_the_rest_stays(spool: Spool) -> None:
    for _ in range(4):
        await spool.append(event())
    assert spool.acknowledge(3) == []
    assert numbers(spool) == [4]


async def test_acknowledging_returns_the_ends_among_them(spool: Spool) -> None:
    await spool.append(event("alpha", phase="fact", code="sandbox.started"))
    await spool.append(event("alpha", phase="fact", code="sandbox.ended"))
    await spool.append(event("beta", phase="fact", code="sandbox.ended"))
    assert [(kept["sandbox"], kept["seq"]) for kept in spool.acknowledge(2)] == [("alpha", 2)]


async def test_acknowledging_twice_or_too_much_does_no_harm(spool: Spool) -> None:
    await spool.append(event())
    spool.acknowledge(10**9)
    spool.acknowledge(10**9)
    assert await spool.append(event()) == 2
    assert numbers(spool) == [2]


async def test_a_restart_finds_what_was_not_acknowledged(spool: Spool) -> None:
    for _ in range(3):
        await spool.append(event())
    spool = await reopened(spool)
    assert numbers(spool) == [1, 2, 3]
    assert await spool.append(event()) == 4
    spool = await reopened(spool)
    assert numbers(spool) == [1, 2, 3, 4]


async def test_numbering_goes_on_after_everything_was_acknowledged(spool: Spool) -> None:
    for _ in range(3):
        await spool.append(event())
    spool.acknowledge(3)
    spool = await reopened(spool)
    assert (files(spool), numbers(spool), spool.last_seq) == (["1.jsonl", "4.jsonl"], [], 3)
    assert await spool.append(event()) == 4


async def test_a_torn_last_line_is_dropped_and_its_number_given_again(spool: Spool) -> None:
    await spool.append(event())
    with (spool._root / "1.jsonl").open("ab") as file:
        file.write(b'{"sandbox":"alpha","seq":2,"code":"comm')
    spool = await reopened(spool)
    assert numbers(spool) == [1]
    assert await spool.append(event()) == 2
    spool = await reopened(spool)
    assert numbers(spool) == [1, 2]


async def test_an_unreadable_line_does_not_hide_the_next(spool: Spool) -> None:
    await spool.append(event())
    with (spool._root / "1.jsonl").open("ab") as file:
        file.write(b'garbage\n[]\n{"seq":7}\n{"sandbox":"alpha","phase":"fact","code":"x.y","seq":8}\n')
    spool = await reopened(spool)
    assert numbers(spool) == [1, 8]
    assert await spool.append(event()) == 9


async def test_segments_are_dropped_when_all_in_them_is_acknowledged(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segment_module, "SEGMENT_BYTES", 100)
    for _ in range(3):
        await spool.append(event(size=200))
    assert files(spool) == ["1.jsonl", "2.jsonl", "3.jsonl"]
    spool.acknowledge(1)
    assert files(spool) == ["2.jsonl", "3.jsonl"]
    assert numbers(await reopened(spool)) == [2, 3]


async def test_events_that_come_while_a_segment_is_written_survive_a_restart(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segment_module, "SEGMENT_BYTES", 100)
    first = asyncio.create_task(spool.append(event(size=200)))
    await asyncio.sleep(0)
    late = [asyncio.create_task(spool.append(event())) for _ in range(3)]
    await asyncio.gather(first, *late)
    assert numbers(await reopened(spool)) == [1, 2, 3, 4]


async def test_acknowledging_while_the_next_event_is_written_loses_nothing(spool: Spool) -> None:
    for number in range(1, 100):
        writing = asyncio.create_task(spool.append(event()))
        await asyncio.sleep(0)
        spool.acknowledge(number - 1)
        assert await writing == number
    assert numbers(await reopened(spool))[-1] == 99


async def test_a_flood_refuses_only_the_sandbox_that_makes_it(spool: Spool) -> None:
    heavy = SANDBOX_BYTES // 8
    for _ in range(7):
        await spool.append(event("flood", size=heavy))
    with pytest.raises(SpoolFull) as refused:
        await spool.append(event("flood", size=heavy))
    assert refused.value.details == {"sandbox": "flood"}
    assert await spool.append(event("calm", size=heavy)) == 8
    assert numbers(spool) == [1, 2, 3, 4, 5, 6, 7, 8]


async def test_a_refused_burst_stays_below_the_quota(spool: Spool) -> None:
    heavy = SANDBOX_BYTES // 8
    tried = await asyncio.gather(*(spool.append(event("flood", size=heavy)) for _ in range(20)), return_exceptions=True)
    assert [outcome for outcome in tried if isinstance(outcome, int)] == [1, 2, 3, 4, 5, 6, 7]
    assert all(isinstance(outcome, SpoolFull) for outcome in tried[7:])


async def test_the_quota_is_free_again_after_an_acknowledgement(spool: Spool) -> None:
    heavy = SANDBOX_BYTES // 2 - 1000
    await spool.append(event("flood", size=heavy))
    await spool.append(event("flood", size=heavy))
    with pytest.raises(SpoolFull):
        await spool.append(event("flood", size=heavy))
    spool.acknowledge(1)
    assert await spool.append(event("flood", size=heavy)) == 3


async def test_the_quota_counts_what_an_earlier_process_left(spool: Spool) -> None:
    await spool.append(event("flood", size=SANDBOX_BYTES - 1000))
    with pytest.raises(SpoolFull):
        await (await reopened(spool)).append(event("flood", size=2000))


async def test_results_and_facts_fit_where_intents_no_longer_do(spool: Spool) -> None:
    await spool.append(event("flood", size=SANDBOX_BYTES - 1000))
    with pytest.raises(SpoolFull):
        await spool.append(event("flood", size=2000))
    assert await spool.append(event("flood", phase="result", size=2000)) == 2
    assert await spool.append(event("flood", phase="fact", size=2000), fact=True) == 3


async def test_the_whole_spool_has_a_limit_that_facts_may_pass(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "_TOTAL_BYTES", 500)
    await spool.append(event("alpha", size=300))
    with pytest.raises(SpoolFull, match="is the worker running"):
        await spool.append(event("beta", size=300))
    assert await spool.append(event("beta", size=300), fact=True) == 2


async def test_a_disk_error_fails_the_append_and_the_next_one_works(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await spool.append(event())
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", _broken_disk)
        with pytest.raises(SpoolFull, match="No space left on device"):
            await spool.append(event())
    assert await spool.append(event()) == 3
    assert numbers(spool) == [1, 3]


async def test_a_refused_event_does_not_come_back_after_a_restart(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await spool.append(event(code="command.first"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", _broken_disk)
        with pytest.raises(SpoolFull):
            await spool.append(event(code="command.refused"))
    await spool.append(event(code="command.last"))
    again = await reopened(spool)
    assert [kept["code"] for kept in again.after(0, 10)] == ["command.first", "command.last"]


async def test_a_disk_that_takes_half_a_line_and_no_new_file_harms_no_later_event(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_write, real_open = os.pwrite, os.open
    await spool.append(event())
    with monkeypatch.context() as patch:
        patch.setattr(
            os, "pwrite", lambda fd, data, at: real_write(fd, data[:10], at) if len(data) > 50 else _broken_disk()
        )
        patch.setattr(os, "ftruncate", _broken_disk)
        patch.setattr(
            os, "open", lambda path, *rest: _broken_disk() if "jsonl" in str(path) else real_open(path, *rest)
        )
        for _ in range(2):
            with pytest.raises(SpoolFull):
                await spool.append(event())
    assert await spool.append(event()) == 4
    assert numbers(await reopened(spool)) == [1, 4]


async def test_an_event_whose_caller_went_away_is_kept(spool: Spool) -> None:
    caller = asyncio.create_task(spool.append(event()))
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.wait({caller})
    assert caller.cancelled()
    assert await spool.append(event()) == 2
    assert numbers(spool) == [1, 2]


async def test_a_number_that_json_does_not_know_is_refused(spool: Spool) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        await spool.append({**event(), "duration_ms": float("nan")})
    assert numbers(spool) == []
    assert await spool.append(event()) == 1


async def test_the_spool_is_closed_to_other_users(spool: Spool) -> None:
    await spool.append(event())
    assert oct(spool._root.stat().st_mode)[-3:] == "700"
    assert oct((spool._root / "1.jsonl").stat().st_mode)[-3:] == "600"


def _broken_disk(*_arguments: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
