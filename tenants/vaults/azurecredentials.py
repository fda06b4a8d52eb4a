"""How we prove to Azure who we are: one way for each vault, named by its operator and never guessed.

The environment's developer sign-ins (a command line's, an editor's) are not among the ways: on a server they would be
somebody else's.
"""

from __future__ import annotations

import os
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from azure.identity import (
    AzureAuthorityHosts,
    ClientSecretCredential,
    DefaultAzureCredential,
    ManagedIdentityCredential,
    WorkloadIdentityCredential,
)

from tenants.vaults.contract import VaultMisconfigured

if TYPE_CHECKING:
    from collections.abc import Callable

    from azure.core.credentials import AccessTokenInfo, SupportsTokenInfo, TokenRequestOptions

# What vaults of each of Azure's clouds are called, and who gives out tokens there.
CLOUDS = {
    ".vault.azure.net": AzureAuthorityHosts.AZURE_PUBLIC_CLOUD,
    ".vault.azure.cn": AzureAuthorityHosts.AZURE_CHINA,
    ".vault.usgovcloudapi.net": AzureAuthorityHosts.AZURE_GOVERNMENT,
}
_PRODUCTION = {"prod", "environmentcredential", "workloadidentitycredential", "managedidentitycredential"}
_NO_DEVELOPERS = {
    f"exclude_{name}_credential": True
    for name in (
        "broker",
        "cli",
        "developer_cli",
        "interactive_browser",
        "powershell",
        "shared_token_cache",
        "visual_studio_code",
    )
}


class Options:
    """A vault's table in the configuration, of which each entry is taken once and none may be left over."""

    def __init__(self, vault: str, table: dict[str, Any]) -> None:
        self.vault = vault
        self._left = dict(table)

    def text(self, name: str, default: str = "") -> str:
        """Take a text, or the default."""
        found = self._left.pop(name, default)
        if not isinstance(found, str):
            raise VaultMisconfigured(f"The vault {self.vault}: {name} must be a text.")
        return found.strip()

    def required(self, name: str, default: str = "") -> str:
        """Take a text that must be there."""
        found = self.text(name, default)
        if not found:
            raise VaultMisconfigured(f"The vault {self.vault} needs {name}.")
        return found

    def file(self, name: str, default: str = "") -> Path:
        """Take the path of a file that must be readable."""
        path = Path(self.required(name, default))
        _read(self.vault, name, path)
        return path

    def finish(self) -> None:
        """Refuse what nobody took: a mistyped name would otherwise do nothing."""
        if self._left:
            raise VaultMisconfigured(f"The vault {self.vault} knows no {', '.join(sorted(self._left))}.")


def credentials(options: Options, cloud: str, transport: dict[str, Any]) -> Callable[[], SupportsTokenInfo]:
    """Return what makes the credential that a vault's options name, each time one that has no token yet."""
    kind = options.required("credential")
    if kind not in _KINDS:
        raise VaultMisconfigured(f"The vault {options.vault}: credential must be one of {', '.join(_KINDS)}.")
    return _KINDS[kind](options, cloud, transport)


def _managed_identity(options: Options, cloud: str, transport: dict[str, Any]) -> Callable[[], SupportsTokenInfo]:
    return partial(ManagedIdentityCredential, client_id=options.text("client_id") or None, **transport)


def _workload_identity(options: Options, cloud: str, transport: dict[str, Any]) -> Callable[[], SupportsTokenInfo]:
    # What the cluster's webhook tells a pod is the default.
    return partial(
        WorkloadIdentityCredential,
        tenant_id=options.required("tenant_id", os.environ.get("AZURE_TENANT_ID", "")),
        client_id=options.required("client_id", os.environ.get("AZURE_CLIENT_ID", "")),
        token_file_path=str(options.file("token_file", os.environ.get("AZURE_FEDERATED_TOKEN_FILE", ""))),
        authority=cloud,
        disable_instance_discovery=True,
        **transport,
    )


def _client_secret(options: Options, cloud: str, transport: dict[str, Any]) -> Callable[[], SupportsTokenInfo]:
    tenant_id, client_id = options.required("tenant_id"), options.required("client_id")
    path = options.file("client_secret_file")

    def make(secret: str) -> SupportsTokenInfo:
        # The authority is one of our own list, so nobody need be asked whether it is one.
        return ClientSecretCredential(
            tenant_id, client_id, secret, authority=cloud, disable_instance_discovery=True, **transport
        )

    return partial(SecretFromFile, options.vault, path, make)


def _default(options: Options, cloud: str, transport: dict[str, Any]) -> Callable[[], SupportsTokenInfo]:
    named = os.environ.get("AZURE_TOKEN_CREDENTIALS", "").strip().lower()
    if named and named not in _PRODUCTION:
        raise VaultMisconfigured(
            f"The vault {options.vault}: AZURE_TOKEN_CREDENTIALS is {named!r}, which is for developers: set it to prod."
        )
    # Unset is as good as `prod`; set, it is held to.
    return partial(DefaultAzureCredential, authority=cloud, require_envvar=bool(named), **_NO_DEVELOPERS, **transport)


_KINDS: dict[str, Callable[[Options, str, dict[str, Any]], Callable[[], SupportsTokenInfo]]] = {
    "managed_identity": _managed_identity,
    "workload_identity": _workload_identity,
    "client_secret": _client_secret,
    "default": _default,
}


class SecretFromFile:
    """A credential whose client secret is in a file, read anew for each token, so that a rotation needs no restart."""

    def __init__(self, vault: str, path: Path, make: Callable[[str], SupportsTokenInfo]) -> None:
        self._vault, self._path, self._make = vault, path, make
        self._lock = threading.Lock()
        self._secret = self._read()
        self._made = make(self._secret)

    def get_token_info(self, *scopes: str, options: TokenRequestOptions | None = None) -> AccessTokenInfo:
        """Return a token, from the cache of the credential while the file stays as it is."""
        secret = self._read()
        with self._lock:
            if secret != self._secret:
                self._secret, self._made = secret, self._make(secret)
            made = self._made
        return made.get_token_info(*scopes, options=options)

    def close(self) -> None:
        """Close the credential's connections."""
        self._made.close()

    def __enter__(self) -> SecretFromFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self) -> str:
        return _read(self._vault, "client_secret_file", self._path)


def _read(vault: str, name: str, path: Path) -> str:
    try:
        found = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text"
        raise VaultMisconfigured(f"The vault {vault}: {name} {path} can't be read ({reason}).") from None
    if not found:
        raise VaultMisconfigured(f"The vault {vault}: {name} {path} is empty.")
    return found
