"""Fixtures of this folder."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from tenants.vaults import choosing
from tests.internet.certificates import Authority
from tests.sandboxes.fixtures import node
from tests.vaults import azure as clouds
from tests.vaults import emulator
from tests.vaults.vault_double import FarVault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.vaults.azure import Azure
    from tests.vaults.emulator import Emulator


__all__ = ["node"]


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


@pytest.fixture(scope="session")
def azure_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Vouch for Azure's names, to who trusts it."""
    return Authority(tmp_path_factory.mktemp("azure"))


@pytest.fixture
def azure(tmp_path: Path, azure_authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[Azure]:
    """Run Azure's protocol, reached under Azure's own names."""
    folder = tmp_path / "azure"
    folder.mkdir()
    with clouds.azure(folder, azure_authority, monkeypatch) as running:
        yield running


@pytest.fixture(scope="session")
def running_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """Start the emulator of Key Vault that other people wrote, or leave the test out and say why."""
    programs = emulator.programs_or_leave_out()
    with emulator.running(tmp_path_factory.mktemp("emulator"), programs) as running:
        yield running


@pytest.fixture
def azure_emulator(running_emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """Return the emulator as it is after a start, with an empty vault."""
    with emulator.used(running_emulator, monkeypatch) as used:
        yield used
