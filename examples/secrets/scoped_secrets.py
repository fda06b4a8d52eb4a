"""Let code in a sandbox call an API with a secret that it never sees. Copy this file: it needs only Python.

    provider = ScopedSecretProvider()
    token = provider.get_token(sandbox.sandbox_id, "openai-key", allowed_apis=["openai/chat/completions"])
    sandbox.commands.run("python3 agent.py", envs=environment(token))

The secret lies in the vault that the tenant uses, such as Azure Key Vault. The token is good once, for five minutes,
for these calls, from inside this sandbox; more is said with `max_uses`, `expires_in`, `params`, `budget` and the other
fields of `POST /api/v1/sandboxes/{sandbox}/tokens`.
"""

from __future__ import annotations

import http.client
import json
import os
from typing import Any
from urllib.parse import urlsplit

# What the vendors' own clients read their key and their base URL from.
_VARIABLES = {
    "openai": ("OPENAI_API_KEY", "OPENAI_BASE_URL"),
    "anthropic": ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"),
    "github": ("GITHUB_TOKEN", "GITHUB_API_URL"),
}


class TokenError(Exception):
    """The API refused; `status` and `code` are stable, and `field` names the input at fault."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(problem.get("detail") or problem.get("title") or f"status {status}")
        self.status = status
        self.code = str(problem.get("code", ""))
        self.field = problem.get("field")


class ScopedSecretProvider:
    """Issues tokens in the place of secrets. Runs in the agent's backend, never in a sandbox."""

    def __init__(self, url: str | None = None, api_key: str | None = None) -> None:
        """Take the URL and the API key, by default those of the E2B SDK. The key needs the scope `tokens:write`."""
        self._url = urlsplit(url or os.environ["E2B_API_URL"])
        self._key = api_key or os.environ["E2B_API_KEY"]

    def get_token(
        self, sandbox_id: str, secret: str, allowed_apis: list[str] | None = None, **bounds: Any
    ) -> dict[str, Any]:
        """Return `{"type": "scoped_token", "token": …, "expires_at": …, …}`. Raises TokenError."""
        body = {"secret": secret, **bounds}
        if allowed_apis is not None:
            body["allowed_apis"] = allowed_apis
        return self._call("POST", f"sandboxes/{sandbox_id}/tokens", body)

    def revoke(self, sandbox_id: str, token: dict[str, Any]) -> None:
        """Let a token count no more, at once."""
        self._call("DELETE", f"sandboxes/{sandbox_id}/tokens/{token['id']}")

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        kind = http.client.HTTPSConnection if self._url.scheme == "https" else http.client.HTTPConnection
        connection = kind(self._url.netloc, timeout=30)
        headers = {"X-API-KEY": self._key, "Content-Type": "application/json"}
        try:
            where = f"{self._url.path.rstrip('/')}/api/v1/{path}"
            connection.request(method, where, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        found = _parsed(text)
        if answer.status >= 400:
            raise TokenError(answer.status, found)
        return found


def environment(token: dict[str, Any]) -> dict[str, str]:
    """Return the variables with which a vendor's own client uses a token, unchanged."""
    upper = token["service"].upper().replace("-", "_")
    key, url = _VARIABLES.get(token["service"], (f"{upper}_API_KEY", f"{upper}_BASE_URL"))
    return {key: token["token"], url: token["client_url"]}


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(text or b"{}")
    except ValueError:
        return {}
    return found
