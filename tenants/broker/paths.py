"""What a request asks for, read from its raw path: so strictly that no service can read it in another way."""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from corekit.errors import InvalidInput

MAX_TARGET = 8192
MAX_SEGMENTS = 64
# RFC 3986's characters of a segment, without `;`: some servers end a segment there.
_SEGMENT = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,=:@-]|%[0-9A-Fa-f]{2})+")
_QUERY = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,=:@;/?\[\]|{}^`-]|%[0-9A-Fa-f]{2})*")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
# What may stand in a segment as it is has no other spelling, and what would end one or begin an escape has none at all.
_UNRESERVED = string.ascii_letters + string.digits + "-._~"
_NEVER_ESCAPED = frozenset(range(32)) | frozenset(f"{_UNRESERVED}/\\;%\x7f".encode())
_SERVICE = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_TOKEN = b"sbx_"


class BadPath(InvalidInput):
    """The path or the query could be read in two ways, or holds what belongs in a header."""

    code = "bad_path"
    title = "The path can't be used"
    default_should_retry = False


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request wants to go: a service, the segments of the path there, and the query as it came."""

    service: str
    segments: tuple[str, ...]
    query: str

    @property
    def path(self) -> str:
        """Return the path at the service."""
        return "/" + "/".join(self.segments)


def read(raw_path: bytes, query: bytes) -> Place:
    """Return where `/<service>/<path>` leads. Raises BadPath, which never repeats any of it."""
    if len(raw_path) + len(query) > MAX_TARGET:
        raise BadPath(f"The path and the query are longer than {MAX_TARGET} characters.")
    try:
        path, text = raw_path.decode("ascii"), query.decode("ascii")
    except UnicodeDecodeError:
        raise BadPath("The path and the query must be ASCII; escape other characters.") from None
    first, *segments = path.removeprefix("/").split("/")
    if not path.startswith("/") or not _SERVICE.fullmatch(first):
        raise BadPath("The path must begin with the name of a service.")
    if len(segments) > MAX_SEGMENTS:
        raise BadPath(f"The path has more than {MAX_SEGMENTS} segments.")
    # The root alone is one empty segment.
    is_root = segments in ([], [""])
    return Place(first, ("",) if is_root else tuple(map(_segment, segments)), _query(text))


def _segment(text: str) -> str:
    if not text or text in (".", ".."):
        raise BadPath("The path has an empty segment, or one of only dots.")
    if not _SEGMENT.fullmatch(text):
        raise BadPath("The path holds a character that must not stand there.")
    if any(int(code, 16) in _NEVER_ESCAPED for code in _ESCAPE.findall(text)):
        raise BadPath("The path escapes a character that must not be escaped.")
    _require_utf8(text)
    return _ESCAPE.sub(lambda escape: escape[0].upper(), text)


def _query(text: str) -> str:
    if not _QUERY.fullmatch(text):
        raise BadPath("The query holds a character that must be escaped.")
    if _TOKEN in unquote_to_bytes(text):
        raise BadPath("A token belongs in a header, never in a URL.")
    return text


def _require_utf8(text: str) -> None:
    try:
        unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise BadPath("The path's escapes are not UTF-8.") from None


def url(base_url: str, place: Place, *, secret: tuple[str, str] | None = None) -> str:
    """Return the URL at a service. A secret that travels in the query takes the place of what the client put there."""
    parts = [part for part in place.query.split("&") if part]
    if secret is not None:
        name, value = secret
        parts = [part for part in parts if unquote_to_bytes(part.partition("=")[0].replace("+", " ")) != name.encode()]
        parts.append(f"{name}={value}")
    target = base_url.rstrip("/") + place.path
    return f"{target}?{'&'.join(parts)}" if parts else target
