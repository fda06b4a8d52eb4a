"""Azure for tests: a Key Vault's client of ours, the real SDK, and what it reaches instead of the service."""

from __future__ import annotations

import contextlib
import itertools
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tenants.vaults.azure_key_vault import open_vault
from tests.vaults.detour import Detour, serving
from tests.vaults.keyvault import AUTHORITY, CLIENT, DOMAIN, TENANT, AzureServer, Cloud

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

    from tenants.vaults.azure_key_vault import AzureKeyVault
    from tests.internet.certificates import Authority

CLIENT_SECRET = "client-secret-of-gatehouse"
# The client remembers where each vault sends it for tokens, for as long as the process lives.
_numbers = itertools.count(1)


@dataclass
class Waits:
    """A clock that stands still but for the pauses that somebody takes."""

    at: float = 1000.0
    pace: float = 1.0
    taken: list[float] = field(default_factory=list)

    def pause(self, seconds: float) -> None:
        """Take a pause in no time."""
        self.taken.append(seconds)
        self.at += seconds * self.pace

    def monotonic(self) -> float:
        """Return the time."""
        return self.at


@dataclass
class Azure:
    """A cloud that answers under Azure's own names, to whoever goes by the proxy of this process."""

    cloud: Cloud
    folder: Path
    ca_file: Path
    identity_port: int
    secure: AzureServer
    waits: Waits = field(default_factory=Waits)
    vault_name: str = field(default_factory=lambda: f"keys-{next(_numbers)}")

    def options(self, **more: Any) -> dict[str, Any]:
        """Return a vault's table as an operator writes it."""
        file = self.folder / "client-secret"
        if not file.exists():
            file.write_text(f"{CLIENT_SECRET}\n")
        return {
            "url": f"https://{self.vault_name}{DOMAIN}/",
            "credential": "client_secret",
            "tenant_id": TENANT,
            "client_id": CLIENT,
            "client_secret_file": str(file),
            "ca_file": str(self.ca_file),
        } | more

    def open(self, name: str = "azure", **more: Any) -> AzureKeyVault:
        """Open a vault, without an option that is None."""
        table = {option: value for option, value in self.options(**more).items() if value is not None}
        return open_vault(name, table, self.waits.pause, self.waits.monotonic)

    @contextlib.contextmanager
    def elsewhere(self, name: str) -> Iterator[None]:
        """Show a certificate for another name than is asked for."""
        self.secure.shown_name = name
        yield
        self.secure.shown_name = ""

    def asked(self, method: str) -> list[str]:
        """Return what vaults were asked with a method, in order."""
        paths = [line.partition(" ") for line in self.cloud.asked]
        return [path for verb, _, path in paths if verb == method and "secrets" in path]


@contextlib.contextmanager
def azure(folder: Path, authority: Authority, environment: pytest.MonkeyPatch) -> Iterator[Azure]:
    """Run a cloud, and lead this process there."""
    cloud = Cloud()
    with contextlib.ExitStack() as running:
        secure, plain = AzureServer(cloud, authority), AzureServer(cloud, None)
        detour = Detour({AUTHORITY: secure.port, f"*{DOMAIN}": secure.port})
        for server in (secure, plain, detour):
            running.enter_context(serving(server))
        go_by(detour, environment)
        yield Azure(cloud, folder, authority.file, plain.port, secure)
    assert "broke" not in cloud.asked


def go_by(detour: Detour, environment: pytest.MonkeyPatch) -> None:
    """Lead this process's requests by a proxy, and let nothing else in the environment speak of Azure."""
    for name in ("no_proxy", "NO_PROXY", "https_proxy"):
        environment.delenv(name, raising=False)
    for name in [name for name in os.environ if name.startswith(("AZURE_", "IDENTITY_", "IMDS_", "MSI_"))]:
        environment.delenv(name)
    environment.setenv("HTTPS_PROXY", detour.url)
