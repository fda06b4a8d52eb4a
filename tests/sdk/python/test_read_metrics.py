"""Metrics through the SDK."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from e2b.exceptions import NotFoundException, SandboxNotFoundException

UTC = timezone.utc  # noqa: UP017 - older interpreters have no datetime.UTC


async def test_a_sample_soon_after_the_start(fresh: Any, ok: Any) -> None:
    sandbox = await fresh()
    deadline = time.monotonic() + 15
    while not (samples := await ok(sandbox.get_metrics())):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.2)
    sample = samples[0]
    assert (sample.cpu_count, sample.mem_total) == (1, 512 * 1024 * 1024)
    assert 0 < sample.mem_used < sample.mem_total
    assert 0 <= sample.disk_used < sample.disk_total
    assert sample.cpu_used_pct >= 0
    assert abs(datetime.now(UTC) - sample.timestamp.astimezone(UTC)) < timedelta(minutes=1)


async def test_nothing_before_the_start(box: Any, ok: Any) -> None:
    now = datetime.now(UTC)
    early = await ok(box.get_metrics(start=now - timedelta(hours=2), end=now - timedelta(hours=1)))
    assert early == []


async def test_unknown_sandboxes_have_none(fresh: Any, ok: Any) -> None:
    sandbox = await fresh()
    await ok(sandbox.kill())
    with pytest.raises((SandboxNotFoundException, NotFoundException)):
        await ok(sandbox.get_metrics())
