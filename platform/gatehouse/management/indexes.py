"""Which hosts this machine's package clients use: what fills the bundles `@python`, `@npm`, `@debian` and `@git`.

The clients themselves are asked, by their own commands, so that mirrors of a company are found like the public ones
and no host is written down here. An index leads to files on other hosts; it is asked once for one package, and its
links say which.
"""

from __future__ import annotations

import ast
import base64
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from html.parser import HTMLParser
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from corekit.addresses import is_never_reached, is_public
from corekit.netrules.entries import RuleError, parse_entry
from tenants.networks import actions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from corekit.actor import Actor
    from corekit.addresses import Address

_COMMAND_S = 30
_ASK_S = 10
_LONGEST_PAGE = 8 * 1024 * 1024
_PORTS = {"https": (443, "tls"), "http": (80, "http")}


@dataclass(slots=True)
class Found:
    """The hosts of one bundle, where they are known from, and what an operator should know of them."""

    name: str
    source: str
    entries: list[str] = field(default_factory=list)
    private: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Way:
    """How a client reaches its index: through which proxy, trusting which certificates."""

    proxy: str | None = None
    certificates: str | None = None


def discover(*, grant_private: bool = False) -> list[Found]:
    """Ask every client. Addresses that are not public are granted on demand only; the notes say where that is missing.

    No client and no index that fails stops the others.
    """
    asked: tuple[Callable[[], tuple[Found, set[str]]], ...] = (_python, _npm, _debian, _git)
    with ThreadPoolExecutor(len(asked)) as pool:
        found = list(pool.map(lambda ask: ask(), asked))
    for bundle, urls in found:
        for url in sorted(urls):
            _add(bundle, url)
        bundle.entries.sort()
        _judge_addresses(bundle, grant_private=grant_private)
    return [bundle for bundle, _ in found]


def fill_bundles(actor: Actor, *, grant_private: bool = False) -> list[Found]:
    """Let the bundles stand for what was found. One that nothing was found for stays as it is."""
    found = discover(grant_private=grant_private)
    for bundle in found:
        if bundle.entries:
            actions.set_bundle(
                actor=actor, name=bundle.name, entries=bundle.entries, private=bundle.private, source=bundle.source
            )
    return found


def _python() -> tuple[Found, set[str]]:
    bundle = Found("python", "pip")
    pip = (sys.executable, "-m", "pip")
    config = _pip_config(_output(bundle, *pip, "config", "list"))
    if config.get("no-index", "").lower() in {"1", "true", "yes", "on"}:
        bundle.notes.append("pip is told to use no index")
        return bundle, set()
    main = config.get("index-url") or _pip_default(_output(bundle, *pip, "install", "--help"))
    indexes = [url for url in (main, *config.get("extra-index-url", "").split()) if url]
    way = _Way(config.get("proxy"), config.get("cert"))
    urls = set(indexes)
    for index in indexes:
        urls |= _linked(bundle, f"{index.rstrip('/')}/pip/", way, _links_of_page)
    return bundle, urls


def _pip_config(listed: str) -> dict[str, str]:
    """Return pip's settings: of the environment before those of `install`, and these before the general ones."""
    found: dict[str, str] = {}
    for section in ("global.", "install.", ":env:."):
        for line in listed.splitlines():
            name, equals, value = line.partition("=")
            if equals and name.startswith(section):
                try:
                    found[name.removeprefix(section)] = str(ast.literal_eval(value))
                except (ValueError, SyntaxError):
                    continue
    return found


def _pip_default(said: str) -> str | None:
    match = re.search(r"--index-url <url>.*?\(default\s+(https?://[^\s)]+)\)", said, re.DOTALL)
    return match[1] if match else None


def _npm() -> tuple[Found, set[str]]:
    bundle = Found("npm", "npm")
    try:
        config: dict[str, Any] = json.loads(_output(bundle, "npm", "config", "list", "--json") or "{}")
    except ValueError:
        config = {}
    registries = {str(value) for name, value in config.items() if name == "registry" or name.endswith(":registry")}
    way = _Way(config.get("https-proxy") or config.get("proxy") or None, config.get("cafile") or None)
    urls = set(registries)
    for registry in sorted(registries):
        urls |= _linked(bundle, f"{registry.rstrip('/')}/npm/latest", way, _links_of_package)
    return bundle, urls


def _debian() -> tuple[Found, set[str]]:
    bundle = Found("debian", "apt")
    # Printed from the sources alone, whether or not anything was ever fetched.
    listed = _output(bundle, "apt-get", "update", "--print-uris")
    return bundle, set(re.findall(r"^'([^'\s]+)'", listed, re.MULTILINE))


def _git() -> tuple[Found, set[str]]:
    bundle = Found("git", "git")
    # Outside of any repository, so that only the machine's own settings count.
    listed = _output(bundle, "git", "-C", "/", "config", "--get-regexp", r"^url\..*\.(push)?insteadof$", may_fail=True)
    found = re.findall(r"^url\.(\S+)\.(?:push)?insteadof ", listed, re.MULTILINE | re.IGNORECASE)
    return bundle, {url for url in found if urlsplit(url).scheme in _PORTS}


def _output(bundle: Found, *command: str, may_fail: bool = False) -> str:
    """Return what a client's command prints, or "" with a note."""
    # Narrow terminals break long addresses.
    env = {**os.environ, "LC_ALL": "C", "COLUMNS": "4000"}
    try:
        done = subprocess.run(
            command, env=env, cwd="/", capture_output=True, text=True, errors="replace", timeout=_COMMAND_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        bundle.notes.append(f"{bundle.source} is not there or does not answer")
        return ""
    if done.returncode and not may_fail:
        bundle.notes.append(f"{bundle.source} did not tell its settings")
        return ""
    return done.stdout


def _linked(bundle: Found, url: str, way: _Way, links_of: Callable[[str], Iterable[str]]) -> set[str]:
    """Return where the page at a URL came from in the end and where its links lead; nothing with a note if it fails."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS:
        return set()
    try:
        final, page = _ask(url, way)
        links = {urljoin(final, link) for link in links_of(page)}
    except (OSError, ValueError, UnicodeError) as error:
        reason = getattr(error, "reason", None) or error
        bundle.notes.append(f"{parts.hostname} did not say where its files are: {reason}")
        return set()
    return {final, *(link for link in links if urlsplit(link).scheme in _PORTS)}


def _ask(url: str, way: _Way) -> tuple[str, str]:
    parts = urlsplit(url)
    address = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    request = urllib.request.Request(urlunsplit(address))  # noqa: S310 - the caller looked at the scheme
    if parts.username:
        user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        request.add_unredirected_header("Authorization", "Basic " + base64.b64encode(user.encode()).decode())
    context = ssl.create_default_context(cafile=way.certificates)
    handlers: list[urllib.request.BaseHandler] = [urllib.request.HTTPSHandler(context=context)]
    if way.proxy:
        handlers.append(urllib.request.ProxyHandler(dict.fromkeys(_PORTS, way.proxy)))
    with urllib.request.build_opener(*handlers).open(request, timeout=_ASK_S) as answer:
        return str(answer.geturl()), answer.read(_LONGEST_PAGE).decode("utf-8", "replace")


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note where a link leads."""
        if tag == "a":
            self.found += [value for name, value in attrs if name == "href" and value]


def _links_of_page(page: str) -> list[str]:
    parser = _Links()
    parser.feed(page)
    return parser.found


def _links_of_package(page: str) -> list[str]:
    package = json.loads(page)
    link = package.get("dist", {}).get("tarball") if isinstance(package, dict) else None
    return [link] if isinstance(link, str) else []


def _add(bundle: Found, url: str) -> None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return
    if parts.scheme not in _PORTS or not parts.hostname:
        return
    usual, protocol = _PORTS[parts.scheme]
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    # No greeting can be held against an address.
    named = not (":" in host or host.replace(".", "").isdigit())
    try:
        entry = parse_entry(f"{host}:{port or usual}" + f"/{protocol}" * named, any_port=True).text
    except RuleError as error:
        bundle.notes.append(str(error))
        return
    if entry not in bundle.entries:
        bundle.entries.append(entry)


def _judge_addresses(bundle: Found, *, grant_private: bool) -> None:
    if not bundle.entries:
        bundle.notes.append("no host was found: name them with `manage.py bundles set`")
    hosts = {entry.rpartition(":")[0].strip("[]") for entry in bundle.entries}
    for host in sorted(hosts):
        special = [address for address in _addresses(bundle, host) if not is_public(address)]
        never = [str(address) for address in special if is_never_reached(address)]
        if never:
            bundle.notes.append(f"{host} is at {', '.join(never)}, this host itself, which no sandbox can reach")
        elif special and grant_private:
            bundle.private += [str(address) for address in special if str(address) not in bundle.private]
        elif special:
            shown = ", ".join(str(address) for address in special)
            bundle.notes.append(
                f"{host} is at {shown}, which is not public, so that sandboxes can't reach it: "
                "`manage.py bundles discover --grant-private` lets them"
            )


def _addresses(bundle: Found, host: str) -> Sequence[Address]:
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        bundle.notes.append(f"{host} has no address here")
        return ()
    return list(dict.fromkeys(ip_address(str(one[4][0]).partition("%")[0]) for one in found))
