"""Fixtures of this folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from django.db import transaction

from tenants import hooks

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str | None, str | None]]:
    """Return what the upper layers hear of changed networks, as if each action were committed at once."""

    def at_once(call: Callable[[], object], using: str | None = None, robust: bool = False) -> None:  # noqa: FBT001, FBT002
        call()

    monkeypatch.setattr(transaction, "on_commit", at_once)
    heard: list[tuple[str | None, str | None]] = []
    monkeypatch.setattr(hooks, "on_network_changed", [lambda tenant, policy: heard.append((tenant, policy))])
    return heard
