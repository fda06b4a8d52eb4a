"""What the E2B clients get: exactly the keys of the protocol, times in RFC 3339, sizes as integers."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.conf import settings

from corekit import clock

if TYPE_CHECKING:
    from datetime import datetime

    from sandboxes.access import Access
    from sandboxes.models import Sandbox

ENVD_VERSION = "0.6.13"
CLIENT_ID = "gatehouse"
_MIB = 1024 * 1024

Json = dict[str, Any]


def access(granted: Access) -> Json:
    """Return the answer of create and connect."""
    sandbox = granted.sandbox
    return _identity(sandbox) | _token(granted) | {"trafficAccessToken": None, "domain": _domain()}


def detail(granted: Access) -> Json:
    """Return the answer of a detail call. The token is left out for callers who may not execute."""
    sandbox = granted.sandbox
    return (
        listed(sandbox)
        | _token(granted)
        | {
            "allowInternetAccess": sandbox.allow_internet_access,
            "domain": _domain(),
            "lifecycle": {"autoResume": False, "onTimeout": "kill"},
        }
    )


def listed(sandbox: Sandbox) -> Json:
    """Return one entry of a list. Everything that has not ended is `running`: the protocol has no other word."""
    return _identity(sandbox) | {
        "startedAt": clock.to_rfc3339(sandbox.started_at),
        "endAt": clock.to_rfc3339(end_of(sandbox)),
        "cpuCount": cpu_count(sandbox.cpu_milli),
        "memoryMB": sandbox.memory_mib,
        "diskSizeMB": sandbox.disk_mib,
        "metadata": sandbox.metadata,
        "state": "running",
    }


def metric(sandbox: Sandbox, measured: Json) -> Json:
    """Return one sample. `cpuUsedPct` is the average since the start, of all the sandbox's cores."""
    at = int(measured["at"])
    lived_usec = max(1, (at - clock.to_ms(sandbox.started_at)) * 1000)
    share = measured["cpu_usec"] / lived_usec / (measured["cpu_milli"] / 1000)
    return {
        "timestamp": clock.to_rfc3339(at),
        "timestampUnix": at // 1000,
        "cpuCount": cpu_count(measured["cpu_milli"]),
        "cpuUsedPct": round(min(1.0, share) * 100, 2),
        "memUsed": measured["memory_bytes"],
        "memTotal": measured["memory_mib"] * _MIB,
        "memCache": measured["memory_cache_bytes"],
        "diskUsed": measured["disk_used_bytes"],
        "diskTotal": measured["disk_mib"] * _MIB,
    }


def cpu_count(cpu_milli: int) -> int:
    """Return the whole cores that a client sees for thousandths of a core, at least 1."""
    return max(1, -(-cpu_milli // 1000))


def end_of(sandbox: Sandbox) -> datetime:
    """Return when a sandbox ends; while it starts, when it would end if it had started by now."""
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


def _domain() -> str | None:
    return settings.GATEHOUSE.domain or None
