"""What a stack says about itself, and what is really there."""

from __future__ import annotations

import http.client
import json
import re
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.live import Stack


def listed_ids(stack: Stack) -> set[str]:
    """Return the sandboxes that the API lists as running."""
    connection = http.client.HTTPConnection("127.0.0.1", stack.port, timeout=30)
    try:
        connection.request("GET", "/v2/sandboxes?state=running", headers={"X-API-KEY": stack.key})
        return {row["sandboxID"] for row in json.loads(connection.getresponse().read())}
    finally:
        connection.close()


def counted(stack: Stack) -> int:
    """Return how many sandboxes the tenant's quota counts."""
    shown = stack.manage("quota", "show", "default").stdout
    found = re.search(r"max_sandboxes\s+\d+\s+(\d+)", shown)
    assert found is not None, shown
    return int(found.group(1))


def eventually(holds: Callable[[], bool], timeout_s: float = 20.0) -> bool:
    """Return whether the condition came true in time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.1)
    return holds()


def agrees(stack: Stack) -> bool:
    """Tell whether node, rows and counters say the same."""
    live = stack.live_ids()
    return live == listed_ids(stack) and len(live) == counted(stack)
