"""Key Vault's protocol as its client sees it: vaults by their names, tokens by an authority, what can go wrong.

Written after the service's own description: a request without a token is answered by where to get one; tokens are
checked for signature, audience and time; deleting is soft; too many requests are told to come back. It shows how our
client behaves, and proves nothing about the service.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import re
import secrets
import threading
import time
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from socket import socket

    from tests.internet.certificates import Authority

AUTHORITY = "login.microsoftonline.com"
RESOURCE = "https://vault.azure.net"
DOMAIN = ".vault.azure.net"
TENANT = "6f89cf12-978b-4d23-ac18-9ef0c127cf87"
CLIENT = "00d88624-f0d7-46f6-a641-6232c2608928"
IDENTITY_HEADER = "identity-header-of-this-host"
PAGE = 2
RETENTION_S = 90 * 86400
MAX_VALUE = 25600


@dataclass
class Kept:
    """One version of an entry."""

    version: str
    value: str
    tags: dict[str, str]
    content_type: str
    created: int
    enabled: bool = True
    nbf: int | None = None
    exp: int | None = None


@dataclass
class Entry:
    """An entry: its name as it was first written, and all that it was set to."""

    name: str
    versions: list[Kept] = field(default_factory=list)
    deleted_at: int | None = None


@dataclass
class Fault:
    """How the next requests are answered instead."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    code: str = ""
    inner: str = ""
    text: str = "Something else."
    hold: threading.Event | None = None
    drop: bool = False
    raw: bytes | None = None


class Cloud:
    """One cloud of Azure, as far as secrets need it. All times follow `skew`, in seconds from this host's clock."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.vaults: dict[str, dict[str, Entry]] = {}
        self.client_secrets = {CLIENT: "client-secret-of-gatehouse"}
        self.assertions: set[str] = set()
        self.identities = {""}
        self.token_life_s = 3600
        self.token_times = 0
        self.issued: list[str] = []
        self.audience = RESOURCE
        self.resource = RESOURCE
        self.skew = 0.0
        self.denied: set[str] = set()
        self.purge_protection = False
        self.strict_times = False
        self.lag = 0
        self.faults: list[Fault] = []
        self.token_faults: list[Fault] = []
        self.asked: list[str] = []
        self.lengths: list[int] = []
        self._key = secrets.token_bytes(32)

    def now(self) -> int:
        """Return the cloud's own time."""
        return int(time.time() + self.skew)

    def entries(self, vault: str) -> dict[str, Entry]:
        """Return what a vault keeps, by names in small letters; what is past its time is gone."""
        kept = self.vaults.setdefault(vault, {})
        for name, entry in list(kept.items()):
            if entry.deleted_at is not None and self.now() >= entry.deleted_at + RETENTION_S:
                del kept[name]
        return kept

    def set(self, vault: str, name: str, value: str, **more: Any) -> Kept:
        """Set an entry, as somebody does by hand."""
        entry = self.entries(vault).setdefault(name.lower(), Entry(name))
        kept = Kept(secrets.token_hex(16), value, more.pop("tags", {}), "", self.now(), **more)
        entry.versions.append(kept)
        return kept

    def forget_tokens(self) -> None:
        """Let no token count that was given out."""
        self._key = secrets.token_bytes(32)

    def issue(self, audience: str | None = None) -> str:
        """Give out a token."""
        self.token_times += 1
        now = self.now()
        claims = {"aud": audience or self.audience, "nbf": now, "exp": now + self.token_life_s, "appid": CLIENT}
        text = f"{_encode(b'{}')}.{_encode(json.dumps(claims).encode())}"
        self.issued.append(f"{text}.{self._sign(text)}")
        return self.issued[-1]

    def accepts(self, authorization: str) -> bool:
        """Check a token as a vault does."""
        text, _, signature = authorization.removeprefix("Bearer ").rpartition(".")
        if not hmac.compare_digest(signature, self._sign(text)):
            return False
        claims = json.loads(base64.urlsafe_b64decode(text.split(".")[1] + "=="))
        return bool(claims["aud"] == RESOURCE and claims["nbf"] <= self.now() < claims["exp"])

    def _sign(self, text: str) -> str:
        return _encode(hmac.digest(self._key, text.encode(), hashlib.sha256))


class AzureServer(ThreadingHTTPServer):
    """All names of a cloud on one port, each with a certificate of its own; or, without TLS, a host's identity."""

    daemon_threads = True

    def __init__(self, cloud: Cloud, authority: Authority | None) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.cloud = cloud
        # Whose certificate is shown instead of the one that is asked for.
        self.shown_name = ""
        self._context = None if authority is None else self._by_name(authority)

    @property
    def port(self) -> int:
        """Where it answers."""
        return int(self.server_address[1])

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Speak TLS in the connection's own thread."""
        # A client may go away, or not like our certificate.
        with contextlib.suppress(OSError):
            if self._context is None:
                super().finish_request(request, client_address)
                return
            with self._context.wrap_socket(request, server_side=True) as secure:
                super().finish_request(secure, client_address)

    def _by_name(self, authority: Authority) -> ssl.SSLContext:
        def choose(connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext) -> None:
            connection.context = authority.context(self.shown_name or name or AUTHORITY)

        context = authority.context(AUTHORITY)
        context.sni_callback = choose
        return context

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Let a fault of this server's own fail the test that meets it."""
        self.cloud.asked.append("broke")
        super().handle_error(request, client_address)


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: AzureServer
    connection: socket

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self._answer
        raise AttributeError(name)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def date_time_string(self, timestamp: float | None = None) -> str:
        return formatdate(self.server.cloud.now(), usegmt=True)

    def _answer(self) -> None:
        cloud = self.server.cloud
        parts = urlsplit(self.path)
        host = self.headers["Host"].lower()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        is_vault = host.endswith(DOMAIN)
        with cloud.lock:
            cloud.asked.append(f"{self.command} {parts.path}")
            cloud.lengths.append(len(body))
            faults = cloud.faults if is_vault else cloud.token_faults
            fault = faults.pop(0) if faults else None
        if fault is not None:
            self._fail(fault)
            return
        with cloud.lock:
            if is_vault:
                self._vault(host.removesuffix(DOMAIN), parts.path, parse_qs(parts.query), body)
            elif host == AUTHORITY:
                self._authority(parts.path, parse_qs(body.decode()))
            else:
                self._identity(parse_qs(parts.query))

    def _fail(self, fault: Fault) -> None:
        if fault.hold is not None:
            fault.hold.wait()
        if fault.hold is not None or fault.drop:
            self.close_connection = True
            return
        if fault.raw is not None:
            self._write(200, fault.raw, {"Content-Type": "text/html"})
            return
        self._refuse(fault.status, fault.code, fault.text, fault.inner, fault.headers)

    # --- who gives out tokens

    def _authority(self, path: str, form: dict[str, list[str]]) -> None:
        base = f"https://{AUTHORITY}/{TENANT}"
        if path.endswith("/.well-known/openid-configuration"):
            self._send(
                200,
                {
                    "issuer": f"{base}/v2.0",
                    "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                    "token_endpoint": f"{base}/oauth2/v2.0/token",
                },
            )
            return
        cloud = self.server.cloud
        fields = {name: values[0] for name, values in form.items()}
        secret, assertion = fields.get("client_secret"), fields.get("client_assertion")
        known = secret is not None and secret == cloud.client_secrets.get(fields.get("client_id", ""))
        if path != f"/{TENANT}/oauth2/v2.0/token" or not (known or assertion in cloud.assertions):
            text = "AADSTS7000215: Invalid client secret provided."
            self._send(401, {"error": "invalid_client", "error_description": text})
        elif fields.get("scope") != f"{RESOURCE}/.default":
            self._send(400, {"error": "invalid_scope", "error_description": "AADSTS70011: The scope is not valid."})
        else:
            life = cloud.token_life_s
            self._send(200, {"token_type": "Bearer", "expires_in": life, "access_token": cloud.issue()})

    def _identity(self, query: dict[str, list[str]]) -> None:
        cloud = self.server.cloud
        client = query.get("client_id", [""])[0]
        machine = self.path.startswith("/metadata/identity/oauth2/token?") and self.headers.get("Metadata") == "true"
        known = machine or self.headers.get("X-IDENTITY-HEADER") == IDENTITY_HEADER
        if not known or client not in cloud.identities:
            self._send(400, {"statusCode": 400, "message": "No such identity."})
            return
        token = cloud.issue(query["resource"][0])
        expires = str(int(time.time()) + cloud.token_life_s)
        answer = {"access_token": token, "expires_on": expires, "resource": RESOURCE, "token_type": "Bearer"}
        self._send(200, answer | {"expires_in": str(cloud.token_life_s)})

    # --- the vault

    def _vault(self, vault: str, path: str, query: dict[str, list[str]], body: bytes) -> None:
        cloud = self.server.cloud
        authorization = self.headers.get("Authorization", "")
        if not authorization or not cloud.accepts(authorization):
            challenge = f'Bearer authorization="https://{AUTHORITY}/{TENANT}", resource="{cloud.resource}"'
            text = "AKV10000: Request is missing a Bearer or PoP token."
            self._refuse(401, "Unauthorized", text, "", {"WWW-Authenticate": challenge})
            return
        if query.get("api-version") != ["7.6"]:
            self._refuse(400, "BadParameter", "The specified version is not recognized.")
            return
        for method, pattern, operation, act in _ROUTES:
            found = re.fullmatch(pattern, path)
            if found is not None and method == self.command:
                if operation in cloud.denied:
                    text = f"Caller is not authorized to perform action {operation}."
                    self._refuse(403, "Forbidden", text, "ForbiddenByRbac")
                    return
                act(_Call(self, cloud, vault, query, json.loads(body or b"{}")), *found.groups())
                return
        self._refuse(404, "NotFound", "There is nothing here.")

    def _refuse(
        self, status: int, code: str, text: str, inner: str = "", headers: dict[str, str] | None = None
    ) -> None:
        error: dict[str, Any] = {"code": code, "message": text}
        if inner:
            error["innererror"] = {"code": inner}
        self._send(status, {"error": error}, headers)

    def _send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        self._write(status, data, {"Content-Type": "application/json; charset=utf-8"} | (headers or {}))

    def _write(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("x-ms-request-id", secrets.token_hex(16))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


@dataclass
class _Call:
    """One request that a vault carries out."""

    handler: _Answers
    cloud: Cloud
    vault: str
    query: dict[str, list[str]]
    body: dict[str, Any]

    def set(self, name: str) -> None:
        entry = self.cloud.entries(self.vault).get(name.lower())
        if entry is not None and entry.deleted_at is not None:
            text = f"Secret {name} is currently in a deleted but recoverable state, and its name cannot be reused."
            self.handler._refuse(409, "Conflict", text, "ObjectIsDeletedButRecoverable")
            return
        value = self.body.get("value", "")
        if not value or len(value) > MAX_VALUE or not re.fullmatch("[0-9A-Za-z-]{1,127}", name):
            self.handler._refuse(400, "BadParameter", "The request is not valid.")
            return
        attributes = self.body.get("attributes") or {}
        times = {field: attributes.get(field) for field in ("nbf", "exp")}
        kept = self.cloud.set(self.vault, name, value, tags=self.body.get("tags") or {}, **times)
        self.handler._send(200, self._bundle(self.cloud.entries(self.vault)[name.lower()], kept, value=True))

    def get(self, name: str, version: str) -> None:
        found = self._find(name, version)
        if found is None:
            return
        entry, kept = found
        if not kept.enabled:
            text = "Operation get is not allowed on a disabled secret."
            self.handler._refuse(403, "Forbidden", text, "SecretDisabled")
        elif self.cloud.strict_times and not (kept.nbf or 0) <= self.cloud.now() < (kept.exp or 1 << 40):
            self.handler._refuse(403, "Forbidden", "Operation get is not allowed on an expired secret.", "Expired")
        else:
            self.handler._send(200, self._bundle(entry, kept, value=True))

    def update(self, name: str, version: str) -> None:
        found = self._find(name, version)
        if found is None:
            return
        kept, attributes = found[1], self.body.get("attributes", {})
        kept.enabled = attributes.get("enabled", kept.enabled)
        self.handler._send(200, self._bundle(found[0], kept))

    def list_entries(self) -> None:
        entries = [entry for entry in self.cloud.entries(self.vault).values() if entry.deleted_at is None]
        self._page("/secrets", [self._item(entry, entry.versions[-1]) for entry in entries])

    def list_versions(self, name: str) -> None:
        entry = self.cloud.entries(self.vault).get(name.lower())
        kept = [] if entry is None or entry.deleted_at is not None else entry.versions
        items = [self._item(entry, each, version=f"/{each.version}") for each in kept if entry]
        self._page(f"/secrets/{name}/versions", items)

    def list_deleted(self) -> None:
        entries = [entry for entry in self.cloud.entries(self.vault).values() if entry.deleted_at is not None]
        self._page("/deletedsecrets", [self._deleted(entry) for entry in entries])

    def delete(self, name: str) -> None:
        found = self._find(name, "")
        if found is not None:
            found[0].deleted_at = self.cloud.now()
            self.handler._send(200, self._deleted(found[0]))

    def get_deleted(self, name: str) -> None:
        entry = self._find_deleted(name)
        if entry is not None:
            self.handler._send(200, self._deleted(entry))

    def recover(self, name: str) -> None:
        entry = self._find_deleted(name)
        if entry is not None:
            entry.deleted_at = None
            self.handler._send(200, self._bundle(entry, entry.versions[-1]))

    def purge(self, name: str) -> None:
        if self.cloud.purge_protection:
            text = 'Operation "purge" is not allowed because purge protection is enabled for this vault.'
            self.handler._refuse(403, "Forbidden", text)
            return
        if self._find_deleted(name) is not None:
            del self.cloud.entries(self.vault)[name.lower()]
            self.handler._send(204, None)

    def _find(self, name: str, version: str) -> tuple[Entry, Kept] | None:
        entry = self.cloud.entries(self.vault).get(name.lower())
        kept = [] if entry is None or entry.deleted_at is not None else entry.versions
        chosen = [each for each in kept if version in {"", each.version}]
        if entry is None or not chosen:
            text = f"A secret with (name/id) {name} was not found in this key vault."
            self.handler._refuse(404, "SecretNotFound", text)
            return None
        return entry, chosen[-1]

    def _find_deleted(self, name: str) -> Entry | None:
        entry = self.cloud.entries(self.vault).get(name.lower())
        if entry is None or entry.deleted_at is None or self.cloud.lag > 0:
            # A deletion shows only after a while.
            self.cloud.lag -= 1
            self.handler._refuse(404, "SecretNotFound", f"Deleted Secret not found: {name}")
            return None
        return entry

    def _page(self, path: str, items: list[dict[str, Any]]) -> None:
        start = int(self.query.get("$skiptoken", ["0"])[0])
        base = f"https://{self.vault}{DOMAIN}:443"
        more = f"{base}{path}?api-version=7.6&$skiptoken={start + PAGE}" if start + PAGE < len(items) else None
        self.handler._send(200, {"value": items[start : start + PAGE], "nextLink": more})

    def _item(self, entry: Entry, kept: Kept, version: str = "") -> dict[str, Any]:
        attributes = {"enabled": kept.enabled, "created": kept.created, "updated": kept.created}
        attributes |= {name: at for name, at in (("nbf", kept.nbf), ("exp", kept.exp)) if at is not None}
        base = f"https://{self.vault}{DOMAIN}/secrets/{entry.name}{version}"
        return {"id": base, "attributes": attributes, "tags": kept.tags}

    def _bundle(self, entry: Entry, kept: Kept, *, value: bool = False) -> dict[str, Any]:
        item = self._item(entry, kept, f"/{kept.version}")
        return item | {"value": kept.value} if value else item

    def _deleted(self, entry: Entry) -> dict[str, Any]:
        at = entry.deleted_at or 0
        return self._item(entry, entry.versions[-1]) | {
            "recoveryId": f"https://{self.vault}{DOMAIN}/deletedsecrets/{entry.name}",
            "deletedDate": at,
            "scheduledPurgeDate": at + RETENTION_S,
        }


_NAME = "([0-9A-Za-z-]+)"
_ROUTES: tuple[tuple[str, str, str, Callable[..., None]], ...] = (
    ("PUT", f"/secrets/{_NAME}", "set", _Call.set),
    ("GET", f"/secrets/{_NAME}/versions", "list", _Call.list_versions),
    ("GET", f"/secrets/{_NAME}/([0-9a-f]*)", "get", _Call.get),
    ("PATCH", f"/secrets/{_NAME}/([0-9a-f]*)", "update", _Call.update),
    ("GET", "/secrets", "list", _Call.list_entries),
    ("DELETE", f"/secrets/{_NAME}", "delete", _Call.delete),
    ("GET", f"/deletedsecrets/{_NAME}", "get", _Call.get_deleted),
    ("GET", "/deletedsecrets", "list", _Call.list_deleted),
    ("POST", f"/deletedsecrets/{_NAME}/recover", "recover", _Call.recover),
    ("DELETE", f"/deletedsecrets/{_NAME}", "purge", _Call.purge),
)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
