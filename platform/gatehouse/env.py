"""Typed readers of the environment. Pure functions of the mapping they get; each error is one sentence.

Every secret `NAME` may also come as `NAME_FILE`, the path of a file that holds it.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from corekit.addresses import Network

    Environment = Mapping[str, str]

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off", ""})
_POSTGRES_SCHEMES = frozenset({"postgres", "postgresql"})
_REDIS_SCHEMES = frozenset({"redis", "rediss", "unix"})
_SSL_MODES = frozenset({"disable", "allow", "prefer", "require", "verify-ca", "verify-full"})
# A request waits out a burst of others and a server's restart of a few seconds. The pool itself would try again after
# ever longer pauses; having given up after two seconds, it tries when it is next asked.
_POOL = {"min_size": 1, "max_size": 30, "max_waiting": 100, "timeout": 6, "reconnect_timeout": 2}


class EnvError(ImproperlyConfigured):
    """A variable of the environment can't be used. The message is one sentence that names it."""


def text(env: Environment, name: str, default: str = "") -> str:
    """Return a variable without surrounding blanks."""
    return env.get(name, default).strip()


def choice(env: Environment, name: str, default: str, allowed: Collection[str]) -> str:
    """Return a variable that must be one of a few words."""
    value = text(env, name, default)
    if value not in allowed:
        raise EnvError(f"{name} must be one of {', '.join(allowed)}, not {value!r}.")
    return value


def integer(env: Environment, name: str, default: int, *, minimum: int, maximum: int) -> int:
    """Return a whole number within its range."""
    value = text(env, name) or str(default)
    digits = value.isascii() and value.isdigit() and len(value) <= len(str(maximum))
    if not digits or not minimum <= int(value) <= maximum:
        raise EnvError(f"{name} must be a whole number from {minimum} to {maximum}, not {value[:40]!r}.")
    return int(value)


def boolean(env: Environment, name: str, *, default: bool = False) -> bool:
    """Return a yes or no: 1/true/yes/on or 0/false/no/off, in any case."""
    if name not in env:
        return default
    value = text(env, name).lower()
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise EnvError(f"{name} must be true or false, not {value!r}.")


def names(env: Environment, name: str) -> list[str]:
    """Return a comma-separated list without empty entries."""
    return [part.strip() for part in text(env, name).split(",") if part.strip()]


def networks(env: Environment, name: str) -> tuple[Network, ...]:
    """Return a comma-separated list of networks, such as 10.0.0.0/8."""
    try:
        return tuple(ipaddress.ip_network(part) for part in names(env, name))
    except ValueError as error:
        raise EnvError(f"{name} must be networks such as 10.20.0.0/16: {error}.") from error


def secret(env: Environment, name: str) -> str | None:
    """Return a secret from NAME, or from the file that NAME_FILE names; None when neither is set."""
    value, file_name = text(env, name), text(env, f"{name}_FILE")
    if value and file_name:
        raise EnvError(f"Set {name} or {name}_FILE, not both.")
    if not file_name:
        return value or None
    return read_secret_file(Path(file_name), f"{name}_FILE")


def read_secret_file(path: Path, name: str) -> str:
    """Return a secret file's content without surrounding blanks. `name` says in an error where the path is from."""
    try:
        value = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise EnvError(f"{name} names {path}, which can't be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise EnvError(f"{name} names {path}, which is not text.") from error
    if not value:
        raise EnvError(f"{name} names {path}, which is empty.")
    return value


def postgres(env: Environment, name: str = "DATABASE_URL", *, role: str = "") -> dict[str, object] | None:
    """Return Django's settings for the PostgreSQL server of a URL, with a connection pool; None when unset.

    With a role its rights are taken at once, whatever the login may do.
    """
    url = secret(env, name)
    if url is None:
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise EnvError(f"{name} is not a URL: {error}.") from error
    if parts.scheme not in _POSTGRES_SCHEMES:
        raise EnvError(f"{name} must begin with postgresql://, not {parts.scheme!r}.")
    database = unquote(parts.path.lstrip("/"))
    if not database:
        raise EnvError(f"{name} must name a database after the host, as in postgresql://user@host/gatehouse.")
    query = dict(parse_qsl(parts.query))
    options: dict[str, object] = {"pool": dict(_POOL), "connect_timeout": 5}
    if role:
        options["options"] = f"-c role={role}"
    if (mode := query.pop("sslmode", None)) is not None:
        if mode not in _SSL_MODES:
            raise EnvError(f"{name} has an unknown sslmode {mode!r}.")
        options["sslmode"] = mode
    # A socket directory can't stand in the host part of a URL, so libpq allows it as a parameter.
    host = query.pop("host", None) or unquote(parts.hostname or "")
    if query:
        raise EnvError(f"{name} has an unknown parameter {sorted(query)[0]!r}.")
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": database,
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": host,
        "PORT": str(port or ""),
        "CONN_MAX_AGE": 0,
        # A connection that died with its server is replaced instead of failing the next request.
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": options,
    }


def sqlite(path: Path) -> dict[str, object]:
    """Return Django's settings for the embedded database.

    Writers queue up at BEGIN (IMMEDIATE) instead of failing in the middle; a commit survives a power cut (FULL).
    """
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": path,
        # Closing the last connection would checkpoint the log at every request.
        "CONN_MAX_AGE": None,
        "OPTIONS": {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
        },
    }


def redis(env: Environment, name: str = "REDIS_URL") -> str | None:
    """Return the URL of the Redis server, checked; None when unset."""
    url = secret(env, name)
    if url is not None and urlsplit(url).scheme not in _REDIS_SCHEMES:
        raise EnvError(f"{name} must begin with redis:// or rediss://.")
    return url
