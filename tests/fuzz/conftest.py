"""What garbage is thrown at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fuzz.target import Target, surrounded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def target(tmp_path: Path) -> AsyncIterator[Target]:
    """Return a gateway process between Alice's sandbox and Mallory's."""
    async with surrounded(tmp_path) as found:
        yield found
