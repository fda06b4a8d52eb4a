"""The control plane's end of the node's internal API: HTTP and JSON over a unix socket.

One client per process keeps its connections alive. The standard library's client is used because it costs a
tenth of a millisecond where the usual ones cost one. Every call ends: no answer in time is an error. Calls
are repeated once when a kept-alive connection turns out to be closed; the node takes each of them twice
without harm.
"""

from __future__ import annotations

import functools
import http.client
import json
import os
import select
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import structlog

from corekit import tracing
from corekit.errors import GatehouseError, TierUnavailable
from sandboxes.errors import (
    BuildMissing,
    EgressUnavailable,
    NetworkFixed,
    NodeRefused,
    NodeSilent,
    NodeUnavailable,
    NoRoom,
    StateDiffers,
    UnknownAtNode,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

logger = structlog.get_logger("sandboxes.node_client")

CONNECT_TIMEOUT_S = 2.0
CALL_TIMEOUT_S = 10.0
START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 20.0
_IDLE_CONNECTIONS = 16
_MAX_ANSWER = 64 * 1024 * 1024

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class StartSpec:
    """What the node needs to start a sandbox. It travels once and is not kept here; never log it."""

    id: str
    generation: int
    tenant: str
    build: str
    tier: str
    profile: str
    resources: Mapping[str, int]
    env: Mapping[str, str]
    template_id: str
    ttl_ms: int
    access_key: str
    audit_key: str
    grants: Mapping[str, int | None]
    ingress: Mapping[str, object]
    runtime: str = ""
    on_timeout: str = "kill"
    auto_resume: bool = False
    audit_key_id: str = ""
    copies_key: str = ""
    network: Mapping[str, object] | None = None

    def __repr__(self) -> str:
        return f"StartSpec({self.id!r}, generation={self.generation})"

    def as_body(self) -> Json:
        """Return the request's body."""
        return {name: getattr(self, name) for name in self.__slots__}


class _UnixConnection(http.client.HTTPConnection):
    """An HTTP connection over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("node", timeout=CONNECT_TIMEOUT_S)
        self.path = path

    def connect(self) -> None:
        """Open the socket; OSError when nobody listens."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(CONNECT_TIMEOUT_S)
        try:
            sock.connect(self.path)
        except OSError:
            sock.close()
            raise
        self.sock = sock

    def was_closed(self) -> bool:
        """Say whether an idle connection is of no use: nobody sends on it unless to close it."""
        poller = select.poll()
        poller.register(self.sock, select.POLLIN)
        return bool(poller.poll(0))

    def set_timeout(self, seconds: float) -> None:
        """Bound every read and write that follows."""
        self.sock.settimeout(seconds)


class _Pool:
    """Idle connections, newest first, shared by the threads of one process."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._idle: list[_UnixConnection] = []
        self._pid = os.getpid()

    def take(self) -> _UnixConnection | None:
        """Return an idle connection that the node has not closed, or None when there is none."""
        while (connection := self._pop()) is not None:
            if not connection.was_closed():
                return connection
            connection.close()
        return None

    def _pop(self) -> _UnixConnection | None:
        with self._lock:
            if self._pid != os.getpid():
                # A forked process must not speak on its parent's connections.
                self._idle, self._pid = [], os.getpid()
            return self._idle.pop() if self._idle else None

    def open(self) -> _UnixConnection:
        """Return a new connection. Raises NodeUnavailable when the node does not listen."""
        connection = _UnixConnection(self._path)
        try:
            connection.connect()
        except OSError as error:
            raise NodeUnavailable(retry_after=1) from error
        return connection

    def give(self, connection: _UnixConnection) -> None:
        """Keep a connection that can serve another call."""
        with self._lock:
            if len(self._idle) < _IDLE_CONNECTIONS and connection.sock is not None:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Close every idle connection."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()


class NodeClient:
    """The node's calls, one method each. Every method raises a `corekit.errors.GatehouseError`.

    `NodeUnavailable`: the node did not take the call, so nothing happened. `NodeSilent`: the node took the
    call and its answer never came, so the outcome is unknown. `UnknownAtNode`: it does not know the sandbox.
    """

    def __init__(self, socket_path: Path | str) -> None:
        self._pool = _Pool(str(socket_path))

    def close(self) -> None:
        """Close the idle connections."""
        self._pool.close()

    def health(self) -> Json:
        """Return node_id, boot_id, version, started_at (ms) and the number of sandboxes."""
        return self._call("GET", "/v1/health")

    def capabilities(self) -> Json:
        """Return the tiers that the host can give, why not the others, and its capacity."""
        return self._call("GET", "/v1/capabilities")

    def start(self, spec: StartSpec) -> Json:
        """Start a sandbox and return started_at and end_at (ms) once its guest agent answers.

        Safe to repeat for the same id and generation. Raises TierUnavailable, BuildMissing, NoRoom or
        NodeRefused when nothing of it is left on the node.
        """
        return self._call("POST", "/v1/sandboxes", spec.as_body(), timeout=START_TIMEOUT_S)

    def list(self) -> Json:
        """Return node_id, boot_id and every sandbox that the node keeps or has not been acked to have ended."""
        return self._call("GET", "/v1/sandboxes")

    def get(self, sandbox_id: str) -> Json:
        """Return one sandbox as the node knows it."""
        return self._call("GET", _path(sandbox_id))

    def stop(self, sandbox_id: str, generation: int) -> Json:
        """End a sandbox; returns when it is really gone."""
        query = urlencode({"generation": generation})
        return self._call("DELETE", f"{_path(sandbox_id)}?{query}", timeout=STOP_TIMEOUT_S)

    def pause(self, sandbox_id: str, generation: int) -> Json:
        """Freeze a sandbox and return it with paused_at (ms). Again is harmless."""
        return self._call("POST", f"{_path(sandbox_id)}/pause", {"generation": generation})

    def resume(self, sandbox_id: str, generation: int, ttl_ms: int) -> Json:
        """Let a sandbox go on and return it with its new end_at (ms); one that runs is only extended."""
        return self._call("POST", f"{_path(sandbox_id)}/resume", {"generation": generation, "ttl_ms": ttl_ms})

    def set_deadline(self, sandbox_id: str, generation: int, ttl_ms: int, *, extend_only: bool) -> Json:
        """Let a sandbox end `ttl_ms` from now and return its end_at (ms). `extend_only` never shortens."""
        body = {"generation": generation, "ttl_ms": ttl_ms, "extend_only": extend_only}
        return self._call("POST", f"{_path(sandbox_id)}/deadline", body)

    def set_network(
        self, sandbox_id: str, generation: int, document: Json, ingress_ports: Sequence[int] | None
    ) -> Json:
        """Let a sandbox reach what a document says, and nothing else; returns the version once egress obeys it.

        Raises NetworkFixed for a sandbox without a network, EgressUnavailable when nobody can obey at the moment.
        """
        ports = None if ingress_ports is None else list(ingress_ports)
        body = {"generation": generation, "document": document, "ingress_ports": ports}
        return self._call("PUT", f"{_path(sandbox_id)}/network", body)

    def grant(self, sandbox_id: str, generation: int, key_id: str, expires_at: int | None) -> None:
        """Let the tokens of one API key open one sandbox, until `expires_at` (ms) or for good."""
        body = {"generation": generation, "expires_at": expires_at}
        self._call("PUT", f"{_path(sandbox_id)}/grants/{quote(key_id, safe='')}", body)

    def revoke_key(self, key_id: str) -> int:
        """Refuse the tokens of one API key on every sandbox from now on; returns how many had it."""
        return int(self._call("DELETE", f"/v1/grants/{quote(key_id, safe='')}").get("sandboxes", 0))

    def metrics(self, sandbox_id: str) -> Json:
        """Return what the sandbox uses at the moment, read from its control group."""
        return self._call("GET", f"{_path(sandbox_id)}/metrics")

    def samples(self, sandbox_id: str, start_ms: int, end_ms: int) -> Sequence[Json]:
        """Return what the sandbox used in a time window, a sample each 5 s, oldest first."""
        query = urlencode({"start_ms": start_ms, "end_ms": end_ms})
        found: Sequence[Json] = self._call("GET", f"{_path(sandbox_id)}/samples?{query}")["samples"]
        return found

    def events(self, *, after: int, limit: int = 500, wait_ms: int = 0) -> Json:
        """Return the spool's events after a sequence number, oldest first, and the last number there is."""
        query = urlencode({"after": after, "limit": limit, "wait_ms": wait_ms})
        return self._call("GET", f"/v1/events?{query}", timeout=CALL_TIMEOUT_S + wait_ms / 1000)

    def ack_events(self, upto: int) -> None:
        """Let the node forget the events up to and including a sequence number."""
        self._call("POST", "/v1/events/ack", {"upto": upto})

    def _call(self, method: str, path: str, body: Json | None = None, *, timeout: float = CALL_TIMEOUT_S) -> Json:
        status, payload = self._exchange(method, path, body, timeout)
        answer = _parse(payload)
        if status >= 400:
            raise _error(status, answer)
        return answer

    def _exchange(self, method: str, path: str, body: Json | None, timeout: float) -> tuple[int, bytes]:
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        kept = self._pool.take()
        if kept is None:
            return self._send(self._pool.open(), method, path, data, timeout, reused=False)
        try:
            return self._send(kept, method, path, data, timeout, reused=True)
        except _Stale:
            pass
        try:
            fresh = self._pool.open()
        except NodeUnavailable as error:
            # It may have died after it acted on the first attempt.
            raise NodeSilent(retry_after=1) from error
        return self._send(fresh, method, path, data, timeout, reused=False)

    def _send(
        self, connection: _UnixConnection, method: str, path: str, data: bytes | None, timeout: float, *, reused: bool
    ) -> tuple[int, bytes]:
        trace = tracing.current()
        headers = {} if trace is None else trace.headers()
        if data is not None:
            headers["Content-Type"] = "application/json"
        try:
            connection.set_timeout(timeout)
            connection.request(method, path, data, headers)
            response = connection.getresponse()
            payload = response.read(_MAX_ANSWER)
        except TimeoutError as error:
            connection.close()
            raise NodeSilent(retry_after=1) from error
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            if reused:
                raise _Stale from error
            raise NodeSilent(retry_after=1) from error
        except BaseException:
            connection.close()
            raise
        if response.will_close or not response.isclosed():
            connection.close()
        else:
            self._pool.give(connection)
        return response.status, payload


class _Stale(Exception):
    """A kept-alive connection was closed by the node before it answered."""


def _path(sandbox_id: str) -> str:
    return f"/v1/sandboxes/{quote(sandbox_id, safe='')}"


def _parse(payload: bytes) -> Json:
    try:
        answer = json.loads(payload or b"{}")
    except ValueError as error:
        raise NodeSilent("The node's answer was not JSON.", retry_after=1) from error
    if not isinstance(answer, dict):
        raise NodeSilent("The node's answer was not a JSON object.", retry_after=1)
    return answer


def _error(status: int, answer: Json) -> GatehouseError:
    error = answer.get("error")
    error = error if isinstance(error, dict) else {}
    code = str(error.get("code", ""))
    message = str(error.get("message") or "")
    if code == "tier_unavailable":
        return TierUnavailable(message or None, **_details(error))
    if code == "build_unknown":
        return BuildMissing()
    if code == "no_room":
        return NoRoom(retry_after=5, **_details(error))
    if code == "egress_unavailable":
        return EgressUnavailable()
    if code == "network_fixed":
        return NetworkFixed()
    if status == 404:
        return UnknownAtNode()
    if status == 409 and code != "generation_conflict":
        return StateDiffers()
    # The node's own words name paths and may quote the guest: they are the operator's, not a tenant's.
    logger.error("node_refused", status=status, code=code, message=message[:500])
    return NodeRefused(node_code=code or str(status))


def _details(error: Json) -> Json:
    details = error.get("details")
    if not isinstance(details, dict):
        return {}
    reserved = {"message", "field", "retry_after", "should_retry"}
    return {str(key): value for key, value in details.items() if key not in reserved}


@functools.cache
def for_socket(path: Path) -> NodeClient:
    """Return this process's client for one node socket."""
    return NodeClient(path)


def local_node() -> NodeClient:
    """Return the client of the node on this host, as the settings name its socket."""
    from django.conf import settings

    return for_socket(settings.GATEHOUSE.node_socket)
