"""The embedded broker: whoever takes a message gets all of it, however often others look."""

from __future__ import annotations

import threading
from queue import Empty
from typing import TYPE_CHECKING, Any

from kombu.connection import Connection

from gatehouse import queues

if TYPE_CHECKING:
    from pathlib import Path

_COUNT = 1000


def test_it_takes_none_that_is_half_written(tmp_path: Path) -> None:
    settings = queues.celery_settings(None, tmp_path)
    (tmp_path / "control").mkdir()
    broker: dict[str, Any] = {
        "transport": settings["broker_transport"],
        "transport_options": settings["broker_transport_options"],
    }
    message = {"body": "x" * 20_000}
    with Connection("filesystem://", **broker) as sender, Connection("filesystem://", **broker) as taker:
        channel = taker.channel()
        thread = threading.Thread(target=lambda: [sender.default_channel._put("q", message) for _ in range(_COUNT)])
        thread.start()
        taken = 0
        while taken < _COUNT and (thread.is_alive() or any(tmp_path.glob("*.msg"))):
            try:
                assert channel._get("q") == message
                taken += 1
            except Empty:
                continue
        thread.join()
    assert taken == _COUNT
    assert [path.name for path in tmp_path.iterdir()] == ["control"]
