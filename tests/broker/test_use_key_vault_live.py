"""The whole way on a complete system: a secret in Azure Key Vault, a token for one call, code that never has either."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from e2b import CommandExitException, Sandbox

from corekit import clock
from corekit.needles import Needles
from tests.broker import models
from tests.broker import vendor as vendors
from tests.internet.certificates import Authority
from tests.live import ROOT, running_stack
from tests.vaults.detour import Detour, serving
from tests.vaults.keyvault import AUTHORITY, DOMAIN, IDENTITY_HEADER, AzureServer, Cloud, Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.broker.vendor import Vendor
    from tests.live import Stack

pytestmark = pytest.mark.stack

KEY = "sk-proj-in-key-vault/4711+Qx7vLr2Wn9"
VAULT = "acme-secrets"
SCOPES = (
    *("sandboxes:read", "sandboxes:write", "sandboxes:use", "secrets:read", "secrets:write"),
    *("tokens:read", "tokens:write", "audit:read"),
)
URL = "http://broker.gatehouse.internal/openai/v1"
CHAT = '{"model": "gpt-4o", "messages": [{"role": "user", "content": "Who is it?"}]}'


@pytest.fixture(scope="module")
def cloud() -> Cloud:
    """What Azure keeps."""
    return Cloud()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vendor]:
    """The vendor of models, on loopback."""
    with vendors.running(tmp_path_factory.mktemp("model")) as vendor:
        vendor.behave = models.openai
        yield vendor


@pytest.fixture(scope="module")
def acme(cloud: Cloud, model: Vendor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A Gatehouse that knows one Key Vault by its URL, and has the identity of its host."""
    authority = Authority(tmp_path_factory.mktemp("azure"))
    with contextlib.ExitStack() as running:
        secure, plain = AzureServer(cloud, authority), AzureServer(cloud, None)
        detour = Detour({AUTHORITY: secure.port, f"*{DOMAIN}": secure.port})
        for server in (secure, plain, detour):
            running.enter_context(serving(server))
        settings: Any = {
            "KEY_VAULT_URL": f"https://{VAULT}{DOMAIN}",
            "IDENTITY_ENDPOINT": f"http://127.0.0.1:{plain.port}/msi/token",
            "IDENTITY_HEADER": IDENTITY_HEADER,
            "https_proxy": detour.url,
            "REQUESTS_CA_BUNDLE": running.enter_context(readable(authority.pem)),
            "GATEHOUSE_BROKER_NETWORKS": "127.0.0.0/8",
            "GATEHOUSE_BROKER_CA_FILE": running.enter_context(readable(model.authority.pem)),
        }
        stack = running.enter_context(running_stack(**settings))
        scopes = [f"--scope={scope}" for scope in SCOPES]
        stack.key = stack.manage("apikey", "create", "--tenant", "default", "--name", "all", *scopes).stdout.strip()
        changes = f"base_url='{model.base_url}', private=True"
        stack.manage(
            "shell",
            "-c",
            "from tenants.tokenmodels import BrokerService as Service;"
            f"print(Service.objects.filter(name='openai', tenant=None).update({changes}))",
        )
        stack.rest("POST", "secrets", {"name": "openai-key", "vault": "azure", "value": KEY})
        yield stack


@contextlib.contextmanager
def readable(text: str) -> Iterator[str]:
    """Write a file that web, another user, may read."""
    with tempfile.NamedTemporaryFile("w", dir="/var/tmp", suffix=".pem") as file:
        Path(file.name).write_text(text)
        Path(file.name).chmod(0o644)
        yield file.name


@pytest.fixture
def box(acme: Stack, model: Vendor, cloud: Cloud) -> Iterator[Sandbox]:
    """A sandbox without any right to the network."""
    model.requests.clear()
    cloud.faults.clear()
    box = Sandbox.create("base", allow_internet_access=False, timeout=120, **acme.sdk)
    yield box
    box.kill()


def run(box: Sandbox, command: str, **envs: str) -> str:
    """Return what a command prints, also where it fails."""
    try:
        return box.commands.run(command, envs=envs, timeout=60).stdout
    except CommandExitException as error:
        return f"{error.stdout}\n{error.stderr}"


def ask(box: Sandbox, text: str) -> Any:
    """Ask the model with curl."""
    asked = f"-sS --max-time 20 -H 'Authorization: Bearer {text}' -H 'Content-Type: application/json'"
    return json.loads(run(box, f"curl {asked} -d '{CHAT}' {URL}/chat/completions"))


def issue(stack: Stack, box: Sandbox, **more: Any) -> dict[str, Any]:
    """Issue a token as the commission's provider does."""
    wish = {"secret": "openai-key", "allowed_apis": ["openai/chat/completions"], "expires_in": 300}
    issued: dict[str, Any] = stack.rest("POST", f"sandboxes/{box.sandbox_id}/tokens", wish | more)
    return issued


def test_a_secret_in_key_vault_is_used_by_code_that_never_sees_it(
    acme: Stack, cloud: Cloud, model: Vendor, box: Sandbox
) -> None:
    [entry] = cloud.entries(VAULT).values()
    assert entry.versions[0].value == KEY

    issued = issue(acme, box)
    assert issued["type"] == "scoped_token"
    left = datetime.fromisoformat(issued["expires_at"]) - clock.now()
    assert timedelta(seconds=240) < left <= timedelta(seconds=300)

    assert ask(box, issued["token"])["choices"][0]["message"]["content"] == "Hello, Alice!"
    assert model.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert "error" in ask(box, issued["token"]), "it is good once"
    assert len(model.requests) == 1

    inside = run(
        box, "env; cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\0' '\\n'; grep -rs sk-proj- /home /tmp"
    )
    assert not Needles([KEY.encode()]).found_in(inside.encode())


def test_nothing_of_gatehouses_own_holds_the_value_or_a_token_of_azures(
    acme: Stack, cloud: Cloud, box: Sandbox
) -> None:
    ask(box, issue(acme, box)["token"])
    needles = Needles([KEY.encode(), *(token.encode() for token in cloud.issued)])
    looked_at = dict(contents(acme.home))
    assert {"up.log", "gatehouse.sqlite3"} & {path.name for path in looked_at}
    assert [path for path, data in looked_at.items() if needles.found_in(data)] == []


def contents(home: Path) -> Iterator[tuple[Path, bytes]]:
    """Return all files of a home but for the templates; what is deleted meanwhile is left out."""
    for path in home.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file() and home / "templates" not in path.parents and path.stat().st_size < 1 << 26:
                yield path, path.read_bytes()


def test_a_rotation_counts_at_once(acme: Stack, model: Vendor, box: Sandbox) -> None:
    token = issue(acme, box, max_uses=5)["token"]
    ask(box, token)
    acme.rest("POST", "secrets/openai-key/versions", {"value": f"{KEY}-2"})
    ask(box, token)
    assert [request.headers["authorization"] for request in model.requests] == [f"Bearer {KEY}", f"Bearer {KEY}-2"]
    acme.rest("POST", "secrets/openai-key/versions", {"value": KEY})


def test_what_is_deleted_here_is_gone_there_and_its_tokens_with_it(
    acme: Stack, cloud: Cloud, model: Vendor, box: Sandbox
) -> None:
    acme.rest("POST", "secrets", {"name": "short-lived", "vault": "azure", "value": "sk-proj-short-lived"})
    assert len(cloud.entries(VAULT)) == 2
    token = issue(acme, box, secret="short-lived")["token"]
    acme.rest("DELETE", "secrets/short-lived")
    assert [entry.versions[-1].value for entry in cloud.entries(VAULT).values()] == [KEY]
    assert ask(box, token)["error"]["code"] == "token_refused"
    assert model.requests == []


def test_the_agents_provider_works_unchanged(acme: Stack, model: Vendor) -> None:
    environment = {**os.environ, "E2B_API_KEY": acme.key, "E2B_API_URL": acme.url, "E2B_SANDBOX_URL": acme.url}
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "secrets" / "summarise.py")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Hello, Alice!" in done.stdout
    assert KEY not in done.stdout + done.stderr


def test_an_outage_of_key_vault_is_not_noticed_while_the_value_is_remembered(
    acme: Stack, cloud: Cloud, model: Vendor, box: Sandbox
) -> None:
    text = issue(acme, box, max_uses=5)["token"]
    ask(box, text)
    cloud.faults = [Fault(503)] * 1000
    assert ask(box, text)["choices"][0]["message"]["content"] == "Hello, Alice!"
    status = acme.manage("vault", "status", check=False)
    assert status.returncode == 1
    assert "The vault azure has trouble of its own." in status.stdout


def test_a_vault_that_refuses_us_uses_nothing_up(acme: Stack, cloud: Cloud, model: Vendor, box: Sandbox) -> None:
    acme.rest("POST", "secrets", {"name": "never-read", "vault": "azure", "value": KEY})
    token = issue(acme, box, secret="never-read")["token"]
    cloud.denied = {"get", "list"}
    assert ask(box, token)["error"]["code"] == "vault_unavailable"
    assert model.requests == []
    cloud.denied = set()
    assert ask(box, token)["choices"][0]["message"]["content"] == "Hello, Alice!"
