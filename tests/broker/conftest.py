"""Fixtures of this folder."""

from __future__ import annotations

import pytest

from tenants.broker import noting


@pytest.fixture(autouse=True)
def _no_refusals_before() -> None:
    """Let no test count what an earlier one was refused: their sandboxes have the same names."""
    noting.forget_refusals()
