"""A node that starts nothing: it speaks the internal API over a unix socket, remembers, and can misbehave."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import socketserver
import threading
import time
import uuid
from collections import Counter, deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from django.db import connections

if TYPE_CHECKING:
    from pathlib import Path

Json = dict[str, Any]
Answer = tuple[int, Json]

FAULTS = {
    "refuse": "answers 500 start_failed and does nothing",
    "quarantine": "starts, finds that the sandbox is not what it should be, ends it and answers 500 start_failed",
    "hang_up": "closes the connection and does nothing",
    "act_then_hang_up": "does it and closes the connection without an answer",
    "act_then_500": "does it and answers 500",
    "act_then_stall": "does it and answers after the client gave up",
    "act_then_die": "does it, closes everything and listens no more",
    "not_json": "does it and answers something that is not JSON",
}


def now_ms() -> int:
    """Return the time in milliseconds."""
    return time.time_ns() // 1_000_000


@dataclass
class Guest:
    """One sandbox of the double."""

    id: str
    generation: int
    tenant: str
    spec: Json
    started_at: int
    end_at: int
    state: str = "running"
    reason: str | None = None
    ended_at: int | None = None
    paused_at: int | None = None
    samples: list[Json] = field(default_factory=list)
    grants: dict[str, int | None] = field(default_factory=dict)

    def row(self) -> Json:
        """Return what the list says about it."""
        row: Json = {
            "id": self.id,
            "generation": self.generation,
            "state": self.state,
            "tenant": self.tenant,
            "started_at": self.started_at,
            "end_at": self.end_at,
        }
        if self.state == "paused":
            row |= {"paused_at": self.paused_at}
        if self.state == "ended":
            row |= {"reason": self.reason, "ended_at": self.ended_at}
        return row


class NodeDouble:
    """The double. `calls` lists every call as (method, path, body); `fail(call, fault)` breaks the next one."""

    def __init__(self, socket_path: Path) -> None:
        self.socket_path = socket_path
        self.node_id = "node-double"
        self.boot_id = uuid.uuid4().hex
        self.guests: dict[str, Guest] = {}
        self.events: list[Json] = []
        self.acked = 0
        self.seq = 0
        self.calls: list[tuple[str, str, Json]] = []
        self.faults: dict[str, deque[str]] = {}
        self.refusals: dict[str, Answer] = {}
        self.tiers = ["container"]
        self.before_start: Any = None
        self.stall_s = 1.0
        self.lock = threading.RLock()
        self._server: _Server | None = None

    # --- the test's levers

    def fail(self, call: str, *faults: str) -> None:
        """Let the next calls of this name (start stop list deadline grant …) misbehave so; "" lets one pass."""
        assert set(faults) <= {*FAULTS, ""}, faults
        self.faults.setdefault(call, deque()).extend(faults)

    def refuse(self, call: str, status: int, code: str, message: str = "no", /, **details: object) -> None:
        """Let every call of this name be refused with this error."""
        self.refusals[call] = (status, {"error": {"code": code, "message": message, "details": details}})

    def lose(self, sandbox_id: str) -> None:
        """Forget a sandbox without a trace."""
        with self.lock:
            del self.guests[sandbox_id]

    def end(self, sandbox_id: str, reason: str) -> None:
        """End a sandbox as the node does on its own, with its event."""
        with self.lock:
            guest = self.guests[sandbox_id]
            guest.state, guest.reason, guest.ended_at = "ended", reason, now_ms()
            self.emit("sandbox.ended", guest, details={"reason": reason})

    def expire(self, sandbox_id: str) -> None:
        """Let the time of a sandbox be over, as its spec says what happens then."""
        with self.lock:
            guest = self.guests[sandbox_id]
            guest.end_at = min(guest.end_at, now_ms())
            if guest.spec["on_timeout"] == "pause":
                self._freeze(guest, "expired")
            else:
                self.end(sandbox_id, "expired")

    def _freeze(self, guest: Guest, reason: str) -> None:
        guest.state, guest.paused_at = "paused", now_ms()
        self.emit("sandbox.paused", guest, at=guest.paused_at, details={"reason": reason})

    def reboot(self) -> None:
        """Restart the host: a new boot, and everything that ran is lost."""
        with self.lock:
            self.boot_id = uuid.uuid4().hex
            for guest in [one for one in self.guests.values() if one.state != "ended"]:
                self.end(guest.id, "host_rebooted")

    def emit(self, code: str, guest: Guest | None, /, **more: object) -> Json:
        """Append an event to the spool and return it."""
        with self.lock:
            self.seq += 1
            event: Json = {
                "seq": self.seq,
                "id": uuid.uuid4().hex,
                "at": now_ms(),
                "node_id": self.node_id,
                "sandbox": guest.id if guest else None,
                "generation": guest.generation if guest else None,
                "tenant": guest.tenant if guest else None,
                "code": code,
                "phase": "fact",
                "ref": None,
                "key_id": None,
                "origin": None,
                "request_id": None,
                "tool_name": None,
                "args_hash": None,
                "args_shape": None,
                "risk_score": None,
                "risk_reasons": [],
                "outcome": "ok",
                "duration_ms": None,
                "details": {},
            } | more
            self.events.append(event)
            return event

    def running(self) -> list[Guest]:
        """Return what runs."""
        with self.lock:
            return [guest for guest in self.guests.values() if guest.state == "running"]

    def count(self) -> Counter[str]:
        """Return how often each call came, by its name."""
        with self.lock:
            return Counter(_name(method, path) for method, path, _ in self.calls)

    # --- its life

    def listen(self) -> NodeDouble:
        """Start, or start again after `die`: sandboxes and events are still there."""
        self.socket_path.unlink(missing_ok=True)
        self._server = _Server(str(self.socket_path), self)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def die(self) -> None:
        """Stop listening and cut every connection, as kill -9 does. Sandboxes stay."""
        server, self._server = self._server, None
        if server is None:
            return
        server.dead = True
        self.socket_path.unlink(missing_ok=True)
        server.cut()
        # From a thread of its own, because a handler that calls this would wait for itself.
        threading.Thread(target=server.close, daemon=True).start()

    # --- the API

    def answer(self, method: str, path: str, body: Json) -> tuple[str, Answer | None]:
        """Return the fault to apply afterwards ("" for none) and the answer."""
        name = _name(method, urlsplit(path).path)
        with self.lock:
            self.calls.append((method, urlsplit(path).path, body))
            queue = self.faults.get(name)
            fault = queue.popleft() if queue else ""
        if name in self.refusals:
            return "", self.refusals[name]
        if fault == "refuse":
            return "", (500, {"error": {"code": "start_failed", "message": "the guest did not answer"}})
        if fault == "hang_up":
            return fault, None
        handler = getattr(self, f"_on_{name}")
        answer: Answer = handler(urlsplit(path), body)
        if fault == "quarantine":
            self.emit("sandbox.quarantined", self.guests[body["id"]], details={"mismatches": ["seccomp mode: …"]})
            self.end(body["id"], "quarantined")
            return "", (500, {"error": {"code": "start_failed", "message": "seccomp mode: …"}})
        if fault == "act_then_500":
            return "", (500, {"error": {"code": "internal", "message": "broken after the act"}})
        return fault, answer

    def _on_health(self, _url: Any, _body: Json) -> Answer:
        return 200, {
            "node_id": self.node_id,
            "boot_id": self.boot_id,
            "version": "0.0.0",
            "started_at": now_ms(),
            "sandboxes": len(self.running()),
        }

    def _on_capabilities(self, _url: Any, _body: Json) -> Answer:
        tier = {"available": True, "runtimes": {"crun": "1.8.1"}, "reason": None, "fix": None}
        return 200, {"tiers": dict.fromkeys(self.tiers, tier), "cgroup_mode": "v2", "capacity": {"sandboxes": 1000}}

    def _on_start(self, _url: Any, body: Json) -> Answer:
        if self.before_start is not None:
            try:
                self.before_start(body)
            finally:
                # What the test looked up in this thread must not stay open in it.
                connections.close_all()
        with self.lock:
            known = self.guests.get(body["id"])
            if known is None:
                started = now_ms()
                known = Guest(
                    id=body["id"],
                    generation=body["generation"],
                    tenant=body["tenant"],
                    spec=body,
                    started_at=started,
                    end_at=started + body["ttl_ms"],
                    grants=dict(body["grants"]),
                )
                self.guests[known.id] = known
                self.emit("sandbox.started", known)
            return 201, known.row()

    def _on_list(self, _url: Any, _body: Json) -> Answer:
        with self.lock:
            rows = [guest.row() for guest in self.guests.values()]
        return 200, {"node_id": self.node_id, "boot_id": self.boot_id, "sandboxes": rows}

    def _on_get(self, url: Any, _body: Json) -> Answer:
        guest = self.guests.get(url.path.split("/")[3])
        return (200, guest.row()) if guest else _unknown()

    def _on_stop(self, url: Any, _body: Json) -> Answer:
        with self.lock:
            guest = self.guests.get(url.path.split("/")[3])
            if guest is None:
                return _unknown()
            assert parse_qs(url.query)["generation"] == [str(guest.generation)]
            if guest.state != "ended":
                self.end(guest.id, "killed")
            return 200, {"state": "ended", "reason": guest.reason}

    def _on_deadline(self, url: Any, body: Json) -> Answer:
        with self.lock:
            guest = self.guests.get(url.path.split("/")[3])
            if guest is None or guest.state == "ended":
                return _unknown()
            if guest.state == "paused":
                return _paused()
            wanted = now_ms() + body["ttl_ms"]
            guest.end_at = max(guest.end_at, wanted) if body["extend_only"] else wanted
            return 200, {"end_at": guest.end_at}

    def _on_pause(self, url: Any, body: Json) -> Answer:
        with self.lock:
            guest = self.guests.get(url.path.split("/")[3])
            if guest is None or guest.state == "ended":
                return _unknown()
            assert body == {"generation": guest.generation}
            if guest.state == "running":
                self._freeze(guest, "requested")
            return 200, guest.row()

    def _on_resume(self, url: Any, body: Json) -> Answer:
        with self.lock:
            guest = self.guests.get(url.path.split("/")[3])
            if guest is None or guest.state == "ended":
                return _unknown()
            assert body["generation"] == guest.generation
            wanted = now_ms() + body["ttl_ms"]
            if guest.state == "paused":
                guest.state, guest.paused_at, guest.end_at = "running", None, wanted
                self.emit("sandbox.resumed", guest)
            guest.end_at = max(guest.end_at, wanted)
            return 200, guest.row()

    def _on_samples(self, url: Any, _body: Json) -> Answer:
        guest = self.guests.get(url.path.split("/")[3])
        if guest is None or guest.state == "ended":
            return _unknown()
        query = parse_qs(url.query)
        start, end = int(query["start_ms"][0]), int(query["end_ms"][0])
        return 200, {"samples": [sample for sample in guest.samples if start <= sample["at"] <= end]}

    def _on_grant(self, url: Any, body: Json) -> Answer:
        with self.lock:
            guest = self.guests.get(url.path.split("/")[3])
            if guest is None or guest.state == "ended":
                return _unknown()
            guest.grants[url.path.split("/")[5]] = body["expires_at"]
            return 200, {}

    def _on_network(self, url: Any, body: Json) -> Answer:
        with self.lock:
            guest = self.guests.get(url.path.split("/")[3])
            if guest is None or guest.state == "ended":
                return _unknown()
            assert body["generation"] == guest.generation
            network = guest.spec["network"]
            if network is None:
                return 409, {"error": {"code": "network_fixed", "message": "it has no network", "details": {}}}
            network["document"] = body["document"]
            guest.spec["ingress"]["ports"] = body["ingress_ports"]
            return 200, {"version": body["document"]["version"]}

    def _on_revoke(self, url: Any, _body: Json) -> Answer:
        key_id = url.path.split("/")[3]
        with self.lock:
            holders = [guest for guest in self.guests.values() if key_id in guest.grants]
            for guest in holders:
                del guest.grants[key_id]
        return 200, {"sandboxes": len(holders)}

    def _on_metrics(self, url: Any, _body: Json) -> Answer:
        guest = self.guests.get(url.path.split("/")[3])
        if guest is None or guest.state == "ended":
            return _unknown()
        return 200, {
            "at": now_ms(),
            "cpu_usec": 1_500_000,
            "memory_bytes": 3_145_728,
            "memory_cache_bytes": 1_048_576,
            "pids": 3,
            "cpu_milli": 1000,
            "memory_mib": 512,
            "disk_mib": 1024,
            "disk_used_bytes": 4096,
            "oom_kills": 0,
            "pids_refused": 0,
        }

    def _on_events(self, url: Any, _body: Json) -> Answer:
        query = parse_qs(url.query)
        after, limit = int(query["after"][0]), int(query["limit"][0])
        with self.lock:
            found = [event for event in self.events if event["seq"] > max(after, self.acked)][:limit]
            return 200, {"node_id": self.node_id, "events": found, "last": self.seq}

    def _on_ack(self, _url: Any, body: Json) -> Answer:
        with self.lock:
            self.acked = max(self.acked, body["upto"])
            gone = {
                str(event["sandbox"])
                for event in self.events
                if event["code"] == "sandbox.ended" and event["seq"] <= self.acked
            }
            for sandbox_id in gone & set(self.guests):
                if self.guests[sandbox_id].state == "ended":
                    del self.guests[sandbox_id]
        return 200, {}


_ROUTES = (
    ("GET", r"/v1/health", "health"),
    ("GET", r"/v1/capabilities", "capabilities"),
    ("POST", r"/v1/sandboxes", "start"),
    ("GET", r"/v1/sandboxes", "list"),
    ("GET", r"/v1/sandboxes/[^/]+", "get"),
    ("DELETE", r"/v1/sandboxes/[^/]+", "stop"),
    ("POST", r"/v1/sandboxes/[^/]+/pause", "pause"),
    ("POST", r"/v1/sandboxes/[^/]+/resume", "resume"),
    ("GET", r"/v1/sandboxes/[^/]+/samples", "samples"),
    ("POST", r"/v1/sandboxes/[^/]+/deadline", "deadline"),
    ("PUT", r"/v1/sandboxes/[^/]+/network", "network"),
    ("PUT", r"/v1/sandboxes/[^/]+/grants/[^/]+", "grant"),
    ("DELETE", r"/v1/grants/[^/]+", "revoke"),
    ("GET", r"/v1/sandboxes/[^/]+/metrics", "metrics"),
    ("GET", r"/v1/events", "events"),
    ("POST", r"/v1/events/ack", "ack"),
)


def _name(method: str, path: str) -> str:
    for route_method, pattern, name in _ROUTES:
        if method == route_method and re.fullmatch(pattern, path):
            return name
    raise AssertionError(f"the internal API has no {method} {path}")


def _unknown() -> Answer:
    return 404, {"error": {"code": "not_found", "message": "unknown sandbox", "details": {}}}


def _paused() -> Answer:
    return 409, {"error": {"code": "paused", "message": "the sandbox is paused", "details": {}}}


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, path: str, double: NodeDouble) -> None:
        self.double = double
        self.connections: set[socket.socket] = set()
        self.dead = False
        super().__init__(path, _Handler)

    def cut(self) -> None:
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.shutdown()
        self.server_close()

    def verify_request(self, _request: Any, _client_address: Any) -> bool:
        return not self.dead

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A cut connection is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65536
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, *_args: object) -> None:
        """Stay quiet."""

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        double = self.server.double
        if self.server.dead:
            self.close_connection = True
            return
        fault, answer = double.answer(self.command, self.path, body)
        if fault in {"hang_up", "act_then_hang_up"} or answer is None:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
            return
        if fault == "act_then_die":
            double.die()
            return
        if fault == "act_then_stall":
            time.sleep(double.stall_s)
        status, payload = answer
        data = b"<html>" if fault == "not_json" else json.dumps(payload).encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815
