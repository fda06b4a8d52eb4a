"""What the hosts and ports tell that a program speaks to."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from audit.risk.places import bare_host, host_classes, url_host
from audit.risk.python.calls import positional
from audit.risk.python.values import COUNTED, HOLE, Value

if TYPE_CHECKING:
    import ast
    from collections.abc import Sequence

    from audit.risk.python.sinks import Sinks

_MAX_KNOWN = 8
# Where a library connects to that is told to by a URL alone.
_SERVICE = re.compile(
    r"(?:postgres|mysql|mariadb|mongodb|redis|rediss|amqps?|mssql|oracle|snowflake|clickhouse|trino|cockroachdb|s3a?|gs"
    r"|abfss?|s?ftp|ssh|kafka|nats|mqtts?|ldaps?|smtps?)\w*(?:\+\w+)?://[^/]"
)
_COUNTED_HOST = re.compile(rf"[a-z]+://\d[\d.]*{HOLE}")


def url(sinks: Sinks, node: ast.AST, value: Value) -> None:
    """Judge a URL, or each of several."""
    for part in (value, *value.items_values()):
        for text in part.texts():
            if text.startswith("file:"):
                sinks.path(node, Value(consts=(text,)), writing=False)
            elif "docker.sock" in text:
                sinks.report.add("py.fs.socket", node, text)
            host_text(sinks, node, url_host(text))

    texts = value.texts()
    hosts = set(map(url_host, texts)) if len(texts) > _MAX_KNOWN else set()
    if (len(hosts) > _MAX_KNOWN or any(map(_COUNTED_HOST.match, texts))) and "py.net.address" in sinks.report.rules:
        sinks.report.add("py.net.scan", node)


def fetch(sinks: Sinks, node: ast.AST, value: Value) -> None:
    """Judge what is read: a file, or what a URL names."""
    for text in value.texts():
        if url_host(text):
            sinks.report.add("py.net.client", node, text)
            url(sinks, node, Value(consts=(text,)))
    sinks.path(node, value, writing=False)


def host(sinks: Sinks, node: ast.AST, value: Value) -> None:
    """Judge the name or number of a host, with or without a port."""
    for text in value.texts():
        host_text(sinks, node, bare_host(text))


def login(sinks: Sinks, node: ast.AST, value: Value) -> None:
    """Judge where somebody logs in: hosts that are counted through are tried, not known."""
    host(sinks, node, value)
    texts = value.texts()
    counted = len(texts) > _MAX_KNOWN or any(HOLE in text for text in texts)
    if counted and sinks.ev.repeats(node):
        sinks.report.add("py.net.scan", node)


def endpoint(sinks: Sinks, node: ast.Call, _: Value) -> None:
    """Judge a host and a port that are arguments of their own."""
    scans(sinks, node, positional(sinks.ev, node)[:2])


def scans(sinks: Sinks, node: ast.AST, parts: Sequence[Value]) -> None:
    """Judge whether hosts or ports are gone through one after the other."""
    if any(map(_is_counted, parts)) and sinks.ev.repeats(node):
        sinks.report.add("py.net.scan", node)


def service(sinks: Sinks, node: ast.AST, text: str) -> None:
    """Judge a text that a library is given: a URL says that it connects, and where to."""
    host = url_host(text)
    host_text(sinks, node, host)
    if host and _SERVICE.match(text) and "loopback" not in host_classes(host):
        sinks.report.add("py.net.client", node, text)


def host_text(sinks: Sinks, node: ast.AST, host: str | None) -> None:
    """Judge the name or number of a host."""
    if not host or HOLE in host:
        return
    classes = host_classes(host)
    if "metadata" in classes:
        sinks.report.add("py.net.metadata", node, host)
    if "drop" in classes:
        sinks.report.add("py.net.drop", node, host)
    if not classes.isdisjoint({"address", "private"}):
        sinks.report.add("py.net.address", node, host)


def address(sinks: Sinks, node: ast.AST, value: Value) -> None:
    """Judge a pair of host and port, or the path of a local socket."""
    parts = value.items_values()
    if parts:
        sinks.report.add("py.net.socket", node, "connect")
        host(sinks, node, parts[0])
        scans(sinks, node, parts[:2])
        if id(node) in sinks.ev.outline.looped and any(part.open or len(part.consts) != 1 for part in parts[:2]):
            sinks.report.add("py.net.scan", node)
    elif any("/" in text for text in value.texts()):
        sinks.path(node, value, writing=False)


def bind(sinks: Sinks, node: ast.AST, value: Value) -> None:
    """Judge the address that a program listens on."""
    parts = value.items_values()[:1] or [value]
    if any(text in {"", "0.0.0.0", "::"} for part in parts for text in part.texts()):  # noqa: S104 - looked for
        sinks.report.add("py.net.everywhere", node)


def _is_counted(part: Value) -> bool:
    """Return whether a host or a port is one of many that are gone through."""
    texts = part.texts()
    return (
        f"{COUNTED}[]" in part.names
        or len(part.consts) > _MAX_KNOWN
        or any(HOLE in text and text[:1].isdigit() for text in texts)
    )
