"""A complete Gatehouse whose `openai` leads to a double on loopback, and whose only tenant has the secret for it."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2b import Secret

from tests.live import running_stack

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from e2b import Sandbox

    from tests.live import Stack

KEY = "sk-proj-live/4711+Qx7vLr2Wn9"
SCOPES = (
    *("sandboxes:read", "sandboxes:write", "sandboxes:use", "secrets:read", "secrets:write"),
    *("tokens:read", "tokens:write", "audit:read"),
)


@contextlib.contextmanager
def brokered_stack(base_url: str, authority: str) -> Iterator[Stack]:
    """Run one; `authority` is the certificate, in PEM, by which the double is known."""
    with tempfile.NamedTemporaryFile("w", dir="/var/tmp", suffix=".pem") as file:
        Path(file.name).write_text(authority)
        # Web is another user.
        Path(file.name).chmod(0o644)
        settings: Any = {"GATEHOUSE_BROKER_NETWORKS": "127.0.0.0/8", "GATEHOUSE_BROKER_CA_FILE": file.name}
        with running_stack(**settings) as running:
            scopes = [f"--scope={scope}" for scope in SCOPES]
            made = running.manage("apikey", "create", "--tenant", "default", "--name", "all", *scopes)
            running.key = made.stdout.strip()
            Secret.create("openai-key", KEY, api_key=running.key, api_url=running.url)
            changes = f"base_url={base_url!r}, private=True"
            running.manage(
                "shell",
                "-c",
                "from tenants.tokenmodels import BrokerService as Service;"
                f"print(Service.objects.filter(name='openai', tenant=None).update({changes}))",
            )
            yield running


def issue(stack: Stack, box: Sandbox, *, apis: Sequence[str] = ("openai/chat/completions",), **wish: Any) -> str:
    """Issue a token for the sandbox."""
    asked = {"secret": "openai-key", "allowed_apis": list(apis), "max_uses": 5} | wish
    return str(stack.rest("POST", f"sandboxes/{box.sandbox_id}/tokens", asked)["token"])
