"""Fixtures of this folder."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from tenants.vaults import choosing
from tests.vaults.vault_double import FarVault

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def configure(tmp_path: Path, settings: Any) -> Callable[..., None]:
    """Return how an operator configures vaults: the text of the file, and other settings."""

    def write(text: str = "", **fields: Any) -> None:
        # As after a restart: what a running system has read it does not read again.
        path = tmp_path / f"vaults-{len(list(tmp_path.iterdir()))}.toml"
        path.write_text(text)
        settings.GATEHOUSE = dataclasses.replace(settings.GATEHOUSE, vaults_file=path, **fields)

    return write


@pytest.fixture
def far(configure: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> FarVault:
    """Return a second vault, which an operator configured and which may be away."""
    vault = FarVault(choosing.embedded())
    opened = type("module", (), {"open_vault": staticmethod(lambda name, options: vault)})
    monkeypatch.setattr(choosing, "KINDS", {"far": "far"})
    monkeypatch.setattr(choosing, "import_module", {"far": opened}.__getitem__)
    configure('[far]\nkind = "far"\n')
    return vault
