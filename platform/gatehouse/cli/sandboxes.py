"""The commands that make, show, follow and end sandboxes."""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from gatehouse.cli.control import path_of
from gatehouse.cli.errors import FAILED, CliError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator, Sequence

    from gatehouse.cli.control import Control

    Json = dict[str, Any]

_POLL_S = 1.0
# Events of a node arrive up to a few seconds after they happened.
_OVERLAP = timedelta(seconds=30)


def create(control: Control, options: Namespace) -> int:
    """Create a sandbox and print its id."""
    body: Json = {"template": options.template, "timeout": options.timeout}
    for name in ("tier", "profile", "runtime", "network"):
        if getattr(options, name) is not None:
            body[name] = getattr(options, name)
    limits = {"cpu_milli": options.cpu, "memory_mib": options.memory, "disk_mib": options.disk}
    if asked := {name: value for name, value in limits.items() if value is not None}:
        body["limits"] = asked
    body["lifecycle"] = {"on_timeout": options.on_timeout, "auto_resume": options.auto_resume}
    body["ingress"] = {"public": not options.private}
    body |= {"metadata": options.metadata, "env": options.env}
    made = control.call("POST", "sandboxes", body)
    _print(json.dumps(made, indent=2) if options.json else made["id"])
    return 0


def ls(control: Control, options: Namespace) -> int:
    """List sandboxes."""
    query = {"state": "any" if options.all else options.state}
    if options.metadata:
        query["metadata"] = "&".join(f"{quote(key)}={quote(value)}" for key, value in options.metadata.items())
    rows = list(control.items("sandboxes", query))
    if options.json:
        _print(json.dumps(rows, indent=2))
        return 0
    cells = [
        (one["id"], one["template"], one["state"], one["tier"], _short(one["started_at"]), _short(_end(one)))
        for one in rows
    ]
    _print(_table(("ID", "TEMPLATE", "STATE", "TIER", "STARTED", "ENDS"), cells))
    return 0


def info(control: Control, options: Namespace) -> int:
    """Show one sandbox."""
    _print(json.dumps(control.sandbox(options.sandbox), indent=2))
    return 0


def kill(control: Control, options: Namespace) -> int:
    """End sandboxes; the others are ended all the same when one can't be."""
    failed = False
    for sandbox_id in options.sandboxes:
        try:
            control.call("DELETE", path_of(sandbox_id))
        except CliError as error:
            failed = True
            sys.stderr.write(f"gatehouse: {sandbox_id}: {error.message}\n")
        else:
            _print(sandbox_id)
    return FAILED if failed else 0


def pause(control: Control, options: Namespace) -> int:
    """Freeze a sandbox with its memory."""
    control.call("POST", f"{path_of(options.sandbox)}/pause", {})
    return 0


def resume(control: Control, options: Namespace) -> int:
    """Let a paused sandbox go on."""
    control.call("POST", f"{path_of(options.sandbox)}/resume", {"timeout": options.timeout})
    return 0


def extend(control: Control, options: Namespace) -> int:
    """Let a sandbox go on for at least this long."""
    control.call("POST", f"{path_of(options.sandbox)}/extend", {"timeout": options.timeout})
    return 0


def logs(control: Control, options: Namespace) -> int:
    """Print what happened to a sandbox; with -f until it ends."""
    seen: set[str] = set()
    query = {"order": "asc"}
    while True:
        ended = control.sandbox(options.sandbox)["state"] == "ended"
        last = None
        for event in control.items(f"{path_of(options.sandbox)}/events", query):
            last = event["at"]
            if event["id"] not in seen:
                seen.add(event["id"])
                _print(json.dumps(event) if options.json else _line(event))
        if not options.follow or ended:
            return 0
        if last is not None:
            query["since"] = (datetime.fromisoformat(last) - _OVERLAP).isoformat()
        time.sleep(_POLL_S)


def _line(event: Json) -> str:
    details = " ".join(f"{name}={value}" for name, value in _flat(event["details"]) if value not in (None, ""))
    phase = f" ({event['phase']})" if event["phase"] == "intent" else ""
    outcome = f" {event['outcome']}" if event["outcome"] in {"error", "refused"} else ""
    return f"{event['at']} {event['code']}{phase}{outcome} {event['message']} {details}".rstrip()


def _flat(details: Json) -> Iterator[tuple[str, object]]:
    for name, value in sorted(details.items()):
        if isinstance(value, dict):
            yield from _flat(value)
        else:
            yield name, value


def _end(sandbox: Json) -> str | None:
    found: str | None = sandbox["ended_at"] or (None if sandbox["paused_at"] else sandbox["end_at"])
    return found


def _short(at: str | None) -> str:
    return "-" if at is None else datetime.fromisoformat(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
