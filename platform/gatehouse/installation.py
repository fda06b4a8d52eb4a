"""Where this installation keeps its things and how it is reached: read once from the environment, then frozen."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from audit import databaseroles
from gatehouse import env as read

if TYPE_CHECKING:
    from collections.abc import Mapping

    from corekit.addresses import Network

KEY_BYTES = 32
ANCHORS = ("directory", "webhook")
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_ANY_ADDRESS = frozenset({"0.0.0.0", "::"})  # noqa: S104  (recognised here, never bound)


@dataclass(frozen=True)
class Installation:
    """The paths under the home and the public address. Building one touches no file."""

    home: Path
    bind: str = "127.0.0.1"
    port: int = 8000
    domain: str = ""
    public_url: str = "http://localhost:8000"
    pool_size: int = 16
    webhook_networks: tuple[Network, ...] = ()
    broker_networks: tuple[Network, ...] = ()
    broker_ca_file: Path | None = None
    anchors: tuple[str, ...] = ("directory",)
    anchor_folder: Path | None = None
    anchor_webhook: str | None = field(default=None, repr=False)
    database_roles: bool = True
    bundles_discovered: bool = True
    bundles_grant_private: bool = False
    log_level: str = "INFO"
    service: str = "manage"
    seed_text: str | None = field(default=None, repr=False)
    secret_key_text: str | None = field(default=None, repr=False)
    ledger_key_text: str | None = field(default=None, repr=False)
    vault_key_text: str | None = field(default=None, repr=False)
    vault_key_secret: str = ""
    vaults_file: Path | None = None
    key_vault_url: str = ""
    default_vault: str = "embedded"

    @property
    def gateway_host(self) -> str:
        """Where a process of this host reaches the gateway."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.bind, self.bind)  # noqa: S104

    @property
    def keys(self) -> Path:
        """The folder of the key files."""
        return self.home / "keys"

    @property
    def seed_file(self) -> Path:
        """The file with the seed: 64 hex characters, readable by root and web only."""
        return self.keys / "seed.key"

    @property
    def secret_key_file(self) -> Path:
        """The file with Django's SECRET_KEY, readable by root, web and worker."""
        return self.keys / "django.key"

    @property
    def ledger_key_file(self) -> Path:
        """The file with the key that signs the ledger: 64 hex characters, readable by root and worker only."""
        return self.keys / "ledger.key"

    @property
    def ledger_public_file(self) -> Path:
        """The file with the public half of that key, for everybody."""
        return self.keys / "ledger.pub"

    @property
    def vault_key_file(self) -> Path:
        """The file with the embedded vault's master keys, the newest first; readable by root and web only."""
        return self.keys / "vault.key"

    @property
    def anchor_directory(self) -> Path:
        """Where the anchor `directory` writes: outside the database, and better on another volume."""
        return self.anchor_folder or self.home / "anchors"

    @property
    def database_file(self) -> Path:
        """The embedded database."""
        return self.home / "db" / "gatehouse.sqlite3"

    @property
    def broker(self) -> Path:
        """The folder of the embedded task queue."""
        return self.home / "broker"

    @property
    def run(self) -> Path:
        """The folder of the sockets."""
        return self.home / "run"

    @property
    def node_socket(self) -> Path:
        """The node's internal API."""
        return self.run / "node.sock"

    @property
    def web_socket(self) -> Path:
        """Where web listens for the gateway."""
        return self.run / "web.sock"

    @property
    def internal_socket(self) -> Path:
        """Where web listens for the gateway and the node themselves."""
        return self.run / "internal.sock"

    @property
    def broker_socket(self) -> Path:
        """Where web's secret broker listens for egress."""
        return self.run / "broker.sock"

    @property
    def templates(self) -> Path:
        """The folder of the sandbox templates' builds."""
        return self.home / "templates"

    @property
    def database_role(self) -> str:
        """The role of PostgreSQL that this process takes; "" for the rights of its login."""
        return databaseroles.role_of(self.service) if self.database_roles else ""

    def seed(self) -> bytes:
        """Return the 32 bytes from which access keys, audit keys and the API keys' pepper are derived.

        Raises EnvError, in one sentence, when this process can't have it.
        """
        return _parse_key("The seed", self.seed_text or _read_key(self.seed_file))

    def ledger_key(self) -> bytes:
        """Return the 32 bytes of the key that signs the ledger. Raises EnvError when this process can't have it."""
        return _parse_key("The ledger's key", self.ledger_key_text or _read_key(self.ledger_key_file))

    def secret_key(self) -> str:
        """Return Django's SECRET_KEY.

        Without any, as in a fresh clone, a random one is made that lives as long as the process: nothing signed
        with it survives, and the check gatehouse.E004 says so.
        """
        if self.secret_key_text:
            return self.secret_key_text
        if not self.secret_key_file.exists():
            return secrets.token_hex(32)
        return _read_key(self.secret_key_file)

    def allowed_hosts(self) -> list[str]:
        """Return the host names under which web answers."""
        hosts = ["localhost", "127.0.0.1", "[::1]"]
        if self.bind not in _LOOPBACK | _ANY_ADDRESS:
            hosts.append(f"[{self.bind}]" if ":" in self.bind else self.bind)
        if self.domain:
            hosts += [self.domain, f".{self.domain}"]
        return hosts


@lru_cache(maxsize=8)
def _read_key(path: Path) -> str:
    return read.read_secret_file(path, f"The installation's {path.name}")


def _parse_key(name: str, value: str) -> bytes:
    try:
        key = bytes.fromhex(value)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise read.EnvError(f"{name} must be {KEY_BYTES} bytes written as {KEY_BYTES * 2} hex characters.")
    return key


def _anchors(env: Mapping[str, str]) -> tuple[str, ...]:
    named = tuple(dict.fromkeys(read.names(env, "GATEHOUSE_ANCHORS"))) or ("directory",)
    if unknown := set(named) - {*ANCHORS, "none"}:
        raise read.EnvError(f"GATEHOUSE_ANCHORS must name some of {', '.join(ANCHORS)}, or none, not {min(unknown)!r}.")
    # The URL is a secret that only the worker is given.
    is_worker = read.text(env, "GATEHOUSE_SERVICE") == "worker"
    if is_worker and "webhook" in named and read.secret(env, "GATEHOUSE_ANCHOR_WEBHOOK") is None:
        raise read.EnvError("GATEHOUSE_ANCHORS names webhook: set GATEHOUSE_ANCHOR_WEBHOOK to its URL.")
    return tuple(name for name in named if name != "none")


def _public_url(domain: str, port: int) -> str:
    return f"https://api.{domain}" if domain else f"http://localhost:{port}"


def installation(env: Mapping[str, str], root: Path) -> Installation:
    """Read the installation from the environment. `root` is the project's folder; the default home is `var` in it."""
    port = read.integer(env, "GATEHOUSE_PORT", 8000, minimum=1, maximum=65535)
    domain = read.text(env, "GATEHOUSE_DOMAIN").lower()
    public_url = read.text(env, "GATEHOUSE_PUBLIC_URL") or _public_url(domain, port)
    if not public_url.startswith(("http://", "https://")):
        raise read.EnvError("GATEHOUSE_PUBLIC_URL must begin with http:// or https://.")
    return Installation(
        home=Path(read.text(env, "GATEHOUSE_HOME") or root / "var").absolute(),
        bind=read.text(env, "GATEHOUSE_BIND") or "127.0.0.1",
        port=port,
        domain=domain,
        public_url=public_url.rstrip("/"),
        pool_size=read.integer(env, "GATEHOUSE_POOL_SIZE", 32, minimum=0, maximum=1000),
        webhook_networks=read.networks(env, "GATEHOUSE_WEBHOOK_NETWORKS"),
        broker_networks=read.networks(env, "GATEHOUSE_BROKER_NETWORKS"),
        broker_ca_file=Path(file).absolute() if (file := read.text(env, "GATEHOUSE_BROKER_CA_FILE")) else None,
        anchors=_anchors(env),
        anchor_folder=Path(folder).absolute() if (folder := read.text(env, "GATEHOUSE_ANCHOR_DIR")) else None,
        anchor_webhook=read.secret(env, "GATEHOUSE_ANCHOR_WEBHOOK"),
        database_roles=read.boolean(env, "GATEHOUSE_DATABASE_ROLES", default=True),
        bundles_discovered=read.boolean(env, "GATEHOUSE_BUNDLES_DISCOVER", default=True),
        bundles_grant_private=read.boolean(env, "GATEHOUSE_BUNDLES_GRANT_PRIVATE"),
        log_level=read.choice(env, "GATEHOUSE_LOG_LEVEL", "INFO", LOG_LEVELS),
        service=read.text(env, "GATEHOUSE_SERVICE") or "manage",
        seed_text=read.secret(env, "GATEHOUSE_SEED"),
        secret_key_text=read.secret(env, "GATEHOUSE_SECRET_KEY"),
        ledger_key_text=read.secret(env, "GATEHOUSE_LEDGER_KEY"),
        vault_key_text=read.secret(env, "GATEHOUSE_VAULT_KEY"),
        vault_key_secret=read.text(env, "GATEHOUSE_VAULT_KEY_SECRET"),
        vaults_file=Path(file).absolute() if (file := read.text(env, "GATEHOUSE_VAULTS_FILE")) else None,
        key_vault_url=read.text(env, "KEY_VAULT_URL"),
        default_vault=read.text(env, "GATEHOUSE_DEFAULT_VAULT") or "embedded",
    )
