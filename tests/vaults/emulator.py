"""A Key Vault and a giver of tokens that other people wrote, built by this repository's Go and started by the tests.

What they need is fetched by their module paths, as any Go program is. Where that is refused, the tests that need them
say so and are left out, and the protocol in `keyvault` stands in alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import shutil
import signal
import ssl
import subprocess
import time
import urllib.request
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from azure.identity import ClientSecretCredential
from azure.keyvault.secrets import SecretClient

from deploy import prepare
from tenants.vaults.azure_key_vault import open_vault
from tests.internet.certificates import Authority
from tests.servers import Server, free_port
from tests.vaults.azure import Waits, go_by
from tests.vaults.detour import Detour, serving
from tests.vaults.keyvault import AUTHORITY, CLIENT, DOMAIN, TENANT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenants.vaults.azure_key_vault import AzureKeyVault

CACHE = Path(__file__).resolve().parents[2] / "var" / "cache" / "keyvault-emulator"
VAULT = "github.com/calvinchengx/azure-keyvault-emulator/cmd/azure-keyvault-emulator@v0.7.0"
TOKENS = "github.com/calvinchengx/entra-emulator/cmd/entra-emulator@v0.9.0"
# What the giver of tokens is seeded with: nobody's secret.
CLIENT_SECRET = "daemon-app-secret"
# For both together; a test may take 300.
_INSTALL_S = 240.0
_REASON = 120
_numbers = itertools.count(1)


class AbsentError(Exception):
    """Why there is no emulator here, and how there would be one."""


@dataclass
class Emulator:
    """A running pair, reached under Azure's own names."""

    home: Path
    ca_file: Path
    port: int
    detour: Detour
    waits: Waits = field(default_factory=Waits)
    vault_name: str = ""

    def open(self, **more: Any) -> AzureKeyVault:
        """Open a vault of it."""
        secret = self.home / "client-secret"
        secret.write_text(CLIENT_SECRET)
        table = {
            "url": f"https://{self.vault_name}{DOMAIN}",
            "credential": "client_secret",
            "tenant_id": TENANT,
            "client_id": CLIENT,
            "client_secret_file": str(secret),
            "ca_file": str(self.ca_file),
        }
        return open_vault("azure", table | more, self.waits.pause, self.waits.monotonic)

    def set_by_hand(self, entry: str, value: str, attributes: dict[str, int]) -> None:
        """Set an entry with attributes that our own client never sets."""
        times = {name: datetime.fromtimestamp(at, UTC) for name, at in attributes.items()}
        credential = ClientSecretCredential(
            TENANT, CLIENT, CLIENT_SECRET, disable_instance_discovery=True, connection_verify=str(self.ca_file)
        )
        url = f"https://{self.vault_name}{DOMAIN}"
        with SecretClient(url, credential, api_version="7.6", connection_verify=str(self.ca_file)) as client:
            client.set_secret(entry, value, not_before=times.get("nbf"), expires_on=times.get("exp"))

    def control(self, what: str, **body: Any) -> None:
        """Set the emulator's clock, faults or permissions."""
        call(self.port, self.ca_file, f"/_emulator/{what}", body)

    def reset(self) -> None:
        """Let nothing of a test reach the next one."""
        self.control("clock", offset=0)
        self.control("faults", throttleNextRequests=0, rejectNextRequests=0)
        self.control("permissions")
        self.control("purge-protection", enabled=False)
        self.waits, self.vault_name = Waits(), f"emulated-{next(_numbers)}"


def call(port: int, ca_file: Path, path: str, body: dict[str, Any] | None = None) -> None:
    """Make a request of an emulator's own surface."""
    data = None if body is None else json.dumps(body).encode()
    context = ssl.create_default_context(cafile=ca_file)
    # Its certificate is for Azure's name.
    context.check_hostname = False
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    opener.open(f"https://127.0.0.1:{port}{path}", data, timeout=10).close()


def programs_or_leave_out() -> dict[str, Path]:
    """Return both programs; where they can't be had, leave the test out and say why."""
    try:
        return programs()
    except AbsentError as absent:
        pytest.skip(str(absent))


def programs() -> dict[str, Path]:
    """Return both programs, built once for all runs. What is refused is tried once in a run. Raises AbsentError."""
    CACHE.mkdir(parents=True, exist_ok=True)
    found = {module: CACHE / "bin" / module.rpartition("/")[2] for module in (VAULT, TOKENS)}
    # All processes of a parallel run have the same id.
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    refused = CACHE / "refused"
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if refused.exists() and refused.read_text().partition("\n")[0] == run:
            raise AbsentError(refused.read_text().partition("\n")[2])
        deadline = time.monotonic() + _INSTALL_S
        try:
            for module, program in found.items():
                if not program.exists():
                    _install(module, program, deadline - time.monotonic())
        except AbsentError as absent:
            refused.write_text(f"{run}\n{absent}")
            raise
    return found


def _install(module: str, program: Path, seconds: float) -> None:
    environment = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOBIN": str(CACHE / "new"),
        "GOCACHE": str(CACHE / "build"),
        "GOFLAGS": "-modcacherw",
        "GOPATH": str(CACHE / "path"),
        "GOTOOLCHAIN": "local",
    }
    how = f"`make test` builds it once `go install {module}` works here (set GOPROXY to a proxy that has the module)"
    try:
        command = [str(prepare.go_program()), "install", module]
        done = subprocess.run(
            command, env=environment, cwd=CACHE, capture_output=True, text=True, timeout=seconds, check=False
        )
    except (OSError, prepare.PrepareError, subprocess.TimeoutExpired) as error:
        raise AbsentError(f"No Key Vault emulator: {_shortened(str(error))}; {how}.") from None
    if done.returncode != 0:
        raise AbsentError(f"No Key Vault emulator: {_shortened(done.stderr)}; {how}.")
    program.parent.mkdir(exist_ok=True)
    shutil.move(CACHE / "new" / program.name.partition("@")[0], program)


def _shortened(text: str) -> str:
    words = " ".join(text.split()) or "no reason given"
    return words if len(words) <= _REASON else f"…{words[-_REASON:].partition(' ')[2]}".rstrip(".")


@contextlib.contextmanager
def running(home: Path, found: dict[str, Path]) -> Iterator[Emulator]:
    """Start the pair with certificates of our own for Azure's names, so that the client checks everything."""
    authority = Authority(home)
    tokens_pem, vault_pem = _pem(authority, home, AUTHORITY), _pem(authority, home, f"*{DOMAIN}")
    (home / "vault" / "tls").mkdir(parents=True)
    for name in ("cert.pem", "key.pem"):
        shutil.copy(vault_pem, home / "vault" / "tls" / name)
    tokens, vault = free_port(), free_port()
    origin = f"https://{AUTHORITY}"
    settings = {
        "HOST": "127.0.0.1",
        "PORT": str(tokens),
        "TENANT_ID": TENANT,
        "ORIGIN_MODE": "compat",
        "PUBLIC_ORIGIN": origin,
        "DB_PATH": str(home / "tokens.sqlite"),
        "TLS_CERT": str(tokens_pem),
        "TLS_KEY": str(tokens_pem),
    }
    gives_tokens = ["env", *(f"{name}={value}" for name, value in settings.items()), str(found[TOKENS])]
    keeps_secrets = [
        str(found[VAULT]),
        f"--addr=127.0.0.1:{vault}",
        f"--data-dir={home / 'vault'}",
        f"--entra-issuer={origin}/{TENANT}/v2.0",
        f"--entra-jwks-url=https://127.0.0.1:{tokens}/{TENANT}/discovery/v2.0/keys",
        "--entra-tls-insecure",
    ]
    with contextlib.ExitStack() as stack:
        for command, port in ((gives_tokens, tokens), (keeps_secrets, vault)):
            answers = partial(call, port, authority.file, "/health")
            stack.enter_context(Server(command, home, origin, answers, signal.SIGTERM))
        detour = Detour({AUTHORITY: tokens, f"*{DOMAIN}": vault})
        stack.enter_context(serving(detour))
        yield Emulator(home, authority.file, vault, detour)


def _pem(authority: Authority, home: Path, name: str) -> Path:
    """Return a file with a name's certificate and key."""
    authority.context(name)
    made = home / f"{name.strip('*.')}.pem"
    shutil.copy(home / "leaf.pem", made)
    return made


@contextlib.contextmanager
def used(emulator: Emulator, environment: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """Lead this process to the emulator, with a vault that is empty, for one test."""
    emulator.reset()
    go_by(emulator.detour, environment)
    yield emulator
    emulator.reset()
