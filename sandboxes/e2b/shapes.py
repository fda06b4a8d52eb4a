"""What the E2B clients get: exactly the keys of the protocol, times in RFC 3339, sizes as integers."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.conf import settings

from corekit import clock
from sandboxes.access import traffic_token
from sandboxes.launch import on_timeout
from sandboxes.states import HALTED, SandboxState

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sandboxes.access import Access
    from sandboxes.logs import Entry
    from sandboxes.models import Sandbox

ENVD_VERSION = "0.6.13"
CLIENT_ID = "gatehouse"
_MIB = 1024 * 1024

Json = dict[str, Any]


def access(granted: Access) -> Json:
    """Return the answer of create and connect."""
    sandbox = granted.sandbox
    return _identity(sandbox) | _token(granted) | {"trafficAccessToken": _traffic(granted), "domain": _domain()}


def detail(granted: Access) -> Json:
    """Return the answer of a detail call. The token is left out for callers who may not execute."""
    sandbox = granted.sandbox
    return (
        listed(sandbox)
        | _token(granted)
        | {
            "allowInternetAccess": sandbox.allow_internet_access,
            "domain": _domain(),
            "lifecycle": {"autoResume": sandbox.auto_resume, "onTimeout": on_timeout(sandbox)},
            "network": _network(sandbox),
        }
        | ({"pauseMode": "full"} if sandbox.state in HALTED else {})
    )


def _network(sandbox: Sandbox) -> Json:
    shown: Json = {"allowPublicTraffic": sandbox.allow_public_traffic} | sandbox.network
    if sandbox.header_rules:
        shown["rules"] = sandbox.header_rules
    if sandbox.mask_request_host:
        shown["maskRequestHost"] = sandbox.mask_request_host
    if sandbox.https_ports:
        shown["httpsPorts"] = sandbox.https_ports
    return shown


def listed(sandbox: Sandbox) -> Json:
    """Return one entry of a list. All that has not ended and is not paused is `running`: there is no third word."""
    return _identity(sandbox) | {
        "startedAt": clock.to_rfc3339(sandbox.started_at),
        "endAt": clock.to_rfc3339(end_of(sandbox)),
        "cpuCount": cpu_count(sandbox.cpu_milli),
        "memoryMB": sandbox.memory_mib,
        "diskSizeMB": sandbox.disk_mib,
        "metadata": sandbox.metadata,
        "state": "paused" if sandbox.state in HALTED else "running",
    }


def metric(sandbox: Sandbox, measured: Json, earlier: Json | None = None) -> Json:
    """Return one sample. `cpuUsedPct` is the average since the earlier sample, or since the start, of all cores."""
    at = int(measured["at"])
    since, spent = (clock.to_ms(sandbox.started_at), 0) if earlier is None else (earlier["at"], earlier["cpu_usec"])
    share = (measured["cpu_usec"] - spent) / max(1, (at - since) * 1000) / (measured["cpu_milli"] / 1000)
    return {
        "timestamp": clock.to_rfc3339(at),
        "timestampUnix": at // 1000,
        "cpuCount": cpu_count(measured["cpu_milli"]),
        "cpuUsedPct": round(max(0.0, min(1.0, share)) * 100, 2),
        "memUsed": measured["memory_bytes"],
        "memTotal": measured["memory_mib"] * _MIB,
        "memCache": measured["memory_cache_bytes"],
        "diskUsed": measured["disk_used_bytes"],
        "diskTotal": measured["disk_mib"] * _MIB,
    }


def metrics(sandbox: Sandbox, samples: Sequence[Json], start_ms: int) -> list[Json]:
    """Return the samples from a time on; the one before them tells how much CPU the first of them used."""
    pairs = zip([None, *samples], samples, strict=False)
    return [metric(sandbox, sample, earlier) for earlier, sample in pairs if sample["at"] >= start_ms]


def log_entry(entry: Entry) -> Json:
    """Return one log entry."""
    return {
        "timestamp": clock.to_rfc3339(entry.at),
        "message": entry.message,
        "level": entry.level,
        "fields": entry.fields,
    }


def log_line(entry: Entry) -> Json:
    """Return one log entry as older clients read it."""
    return {"timestamp": clock.to_rfc3339(entry.at), "line": entry.message}


def cpu_count(cpu_milli: int) -> int:
    """Return the whole cores that a client sees for thousandths of a core, at least 1."""
    return max(1, -(-cpu_milli // 1000))


def end_of(sandbox: Sandbox) -> datetime:
    """Return when a sandbox ends or was paused; while it starts, when it would end if it had started by now."""
    if sandbox.state == SandboxState.PAUSED and sandbox.paused_at is not None:
        return sandbox.paused_at
    return sandbox.end_at or sandbox.started_at + timedelta(seconds=sandbox.timeout_s)


def _identity(sandbox: Sandbox) -> Json:
    return {
        "templateID": sandbox.template_id or sandbox.template_name,
        "alias": sandbox.template_name,
        "sandboxID": sandbox.pk,
        "clientID": CLIENT_ID,
        "envdVersion": ENVD_VERSION,
    }


def _token(granted: Access) -> Json:
    return {} if granted.token is None else {"envdAccessToken": granted.token}


def _traffic(granted: Access) -> str | None:
    """Return the token of the ports, for callers who may use the sandbox."""
    return None if granted.token is None else traffic_token(granted.sandbox)


def _domain() -> str | None:
    return settings.GATEHOUSE.domain or None
