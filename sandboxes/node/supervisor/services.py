"""The processes of one machine: command line, user, environment and what counts as ready."""

from __future__ import annotations

import http.client
import pwd
import socket
import sys
from typing import TYPE_CHECKING

from sandboxes.node.supervisor.loop import Service

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sandboxes.node.config import NodeConfig
    from sandboxes.node.supervisor.preflight import Accounts

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PROBE_TIMEOUT_S = 0.5
# Which process may see which secret; each may also come as NAME_FILE. No other variable of the shell is passed on.
_SECRETS = {
    "DATABASE_URL": ("web", "worker"),
    "REDIS_URL": ("web", "worker"),
    "GATEHOUSE_SECRET_KEY": ("web", "worker"),
    "GATEHOUSE_SEED": ("web",),
    "GATEHOUSE_VAULT_KEY": ("web",),
    "GATEHOUSE_LEDGER_KEY": ("worker",),
    "GATEHOUSE_ANCHOR_WEBHOOK": ("worker",),
}
_GENERAL = ("TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "http_proxy", "https_proxy", "no_proxy")
# How web finds a Key Vault and signs in there, by the names that Azure's hosts and clients use.
_AZURE = ("KEY_VAULT_URL", "REQUESTS_CA_BUNDLE", "AZURE_", "IDENTITY_", "IMDS_ENDPOINT", "MSI_")


def environment(service: str, user: str, root: Path, shell: Mapping[str, str]) -> dict[str, str]:
    """Return the clean environment of one service: our settings, its own secrets and nothing more."""
    secret_names = {name + suffix: owners for name, owners in _SECRETS.items() for suffix in ("", "_FILE")}
    chosen = {
        name: value
        for name, value in shell.items()
        if name in _GENERAL or (name.startswith("GATEHOUSE_") and name not in secret_names)
    }
    chosen |= {name: shell[name] for name, owners in secret_names.items() if service in owners and name in shell}
    if service == "web":
        chosen |= {name: value for name, value in shell.items() if name.startswith(_AZURE)}
    return chosen | {
        "PATH": PATH,
        "LANG": "C.UTF-8",
        "HOME": pwd.getpwnam(user).pw_dir,
        "USER": user,
        "LOGNAME": user,
        "PYTHONPATH": f"{root}:{root / 'platform'}",
        # The working directory must not become an import path: platform/ would be found in it.
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
        "DJANGO_SETTINGS_MODULE": "gatehouse.settings",
        "GATEHOUSE_SERVICE": service,
    }


def services(
    config: NodeConfig, root: Path, accounts: Accounts, listening: Mapping[str, int], shell: Mapping[str, str]
) -> list[Service]:
    """Return what `up` keeps running, in the order in which it is stopped. The node keeps the gateway itself.

    `listening` are web's options for the sockets that it is handed.
    """
    manage = (sys.executable, str(root / "manage.py"))
    # The home is passed on as decided here, so that every process means the same directory.
    shell = {**shell, "GATEHOUSE_HOME": str(config.home)}
    return [
        Service(
            name="web",
            command=(*manage, "serve", *(f"--{name}={fd}" for name, fd in listening.items())),
            environment=environment("web", "gatehouse-web", root, shell),
            directory="/",
            account=accounts.web,
            descriptors=tuple(listening.values()),
            umask=0o007,
            is_ready=lambda: answers(config.run / "web.sock", "/health"),
            patience_s=15.0,
        ),
        Service(
            name="worker",
            command=(*manage, "worker"),
            environment=environment("worker", "gatehouse-worker", root, shell),
            directory="/",
            account=accounts.worker,
            umask=0o007,
            after=("web", "node"),
            patience_s=15.0,
        ),
        Service(
            name="node",
            command=(sys.executable, "-m", "sandboxes.node"),
            environment=environment("node", "root", root, shell),
            directory="/",
            is_ready=lambda: answers(config.run / "node.sock", "/v1/health"),
            patience_s=30.0,
        ),
    ]


def answers(where: Path | tuple[str, int], path: str) -> bool:
    """Return whether a GET to a unix socket or an address is answered with 200 within half a second."""
    if isinstance(where, tuple):
        connection = http.client.HTTPConnection(*where, timeout=_PROBE_TIMEOUT_S)
    else:
        connection = _UnixConnection(where)
    try:
        connection.request("GET", path, headers={"Host": "localhost"})
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_PROBE_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket in place of an address."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_PROBE_TIMEOUT_S)
        self.sock.connect(str(self._path))
