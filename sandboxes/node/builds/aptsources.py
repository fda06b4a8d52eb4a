"""The host's own package sources: templates come from the mirror that the operator already trusts."""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from sandboxes.node.builds import BuildError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_SCHEMES = frozenset({"http", "https"})
# What decides whether a mirror is reached and believed; the rest of the host's settings is its own affair.
_FETCH_OPTIONS = re.compile(r"^Acquire::(http|https|ftp|Check-|Retries|ForceIPv|Queue-Mode)", re.IGNORECASE)


@dataclass(frozen=True)
class Source:
    """One entry of sources.list: `uri` may hold a password, `public()` never does."""

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str | None = None

    def public(self) -> Source:
        """Return the entry without a user or password in its address."""
        parts = urlsplit(self.uri)
        host = parts.netloc.rpartition("@")[2]
        return Source(urlunsplit(parts._replace(netloc=host)), self.suite, self.components, self.signed_by)

    def render(self) -> str:
        """Return the entry in the deb822 format."""
        lines = ["Types: deb", f"URIs: {self.uri}", f"Suites: {self.suite}"]
        if self.components:
            lines.append("Components: " + " ".join(self.components))
        if self.signed_by:
            lines.append(f"Signed-By: {self.signed_by}")
        return "\n".join(lines) + "\n"


def render(sources: Iterable[Source]) -> str:
    """Return a whole sources file in the deb822 format."""
    return "\n".join(source.render() for source in sources)


def host_sources(suite: str, etc_apt: Path = Path("/etc/apt")) -> list[Source]:
    """Return the host's entries for `suite`, its updates and its security fixes.

    Other repositories are left out. Raises BuildError when the suite itself is not among them.
    """
    wanted = {suite, f"{suite}-updates", f"{suite}-security"}
    found: list[Source] = []
    for path in _files(etc_apt):
        parse = _deb822 if path.suffix == ".sources" else _one_line
        found += [source for source in parse(path.read_text()) if source.suite in wanted]
    # An entry that offers `main` is the distribution itself; a vendor may use the suite's name too.
    found = [source for source in found if "main" in source.components]
    if not any(source.suite == suite for source in found):
        raise BuildError(
            f"This host names no package source for Debian {suite}: add one to /etc/apt/sources.list "
            "or pass a file of your own with --sources."
        )
    return list(dict.fromkeys(found))


def fetch_options() -> list[str]:
    """Return the host's apt settings about proxies, certificates and dates, one `Name "value";` each."""
    done = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False)
    return [line for line in done.stdout.splitlines() if _FETCH_OPTIONS.match(line) and '"";' not in line]


def _files(etc_apt: Path) -> Iterator[Path]:
    if (etc_apt / "sources.list").is_file():
        yield etc_apt / "sources.list"
    parts = etc_apt / "sources.list.d"
    if parts.is_dir():
        yield from sorted(path for path in parts.iterdir() if path.suffix in {".list", ".sources"})


def _one_line(text: str) -> Iterator[Source]:
    for line in text.splitlines():
        body = line.partition("#")[0].strip()
        match = re.match(r"^deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<rest>.+)$", body)
        if match is None:
            continue
        uri, suite, *components = match["rest"].split()
        options = dict(word.split("=", 1) for word in shlex.split(match["options"] or "") if "=" in word)
        if urlsplit(uri).scheme in _SCHEMES:
            yield Source(uri, suite, tuple(components), options.get("signed-by"))


def _deb822(text: str) -> Iterator[Source]:
    for stanza in re.split(r"\n\s*\n", text):
        fields = _fields(stanza)
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").strip() == "no":
            continue
        signed_by = fields.get("signed-by", "").strip()
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                if urlsplit(uri).scheme in _SCHEMES:
                    # A key given inline stays with the host; its keyring then decides.
                    key = signed_by if signed_by.startswith("/") else None
                    yield Source(uri, suite, tuple(fields.get("components", "").split()), key)


def _fields(stanza: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line.startswith("#"):
            continue
        if line[:1].isspace():
            fields[name] = fields.get(name, "") + "\n" + line.strip()
        elif ":" in line:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            fields[name] = value.strip()
    return fields
