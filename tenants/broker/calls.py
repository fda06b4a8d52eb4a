"""The calls that a token allows: methods, paths, content types and sizes, as they are written and as they are matched.

A path is a list of segments on both sides, so that nobody can make two readers see two paths.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from corekit.errors import InvalidInput
from tenants.broker.asking import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tenants.broker.asking import Asked
    from tenants.broker.catalogue import Api

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
MAX_CALLS, MAX_PATHS, MAX_TYPES, MAX_SEGMENTS, MAX_PATH = 16, 32, 8, 32, 300
MAX_BODY = 64 * 1024 * 1024
ONE, REST = "*", "**"
# Of what is percent-encoded only blanks and letters beyond ASCII: the rest has a meaning once somebody decodes it.
_SEGMENT = re.compile(r"(?:[A-Za-z0-9._~!$&'()+,=:@-]|%20|%[89A-F][0-9A-F]){1,255}")
_TYPE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,62}/[a-z0-9][a-z0-9.+-]{0,62}")
JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Allowed:
    """One kind of call. Without content types any will do; without `max_body` a body may have the usual size."""

    methods: tuple[str, ...]
    paths: tuple[str, ...]
    content_types: tuple[str, ...] = ()
    max_body: int | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it as it is stored and shown."""
        shown: dict[str, Any] = {"methods": list(self.methods), "paths": list(self.paths)}
        if self.content_types:
            shown["content_types"] = list(self.content_types)
        if self.max_body is not None:
            shown["max_body"] = self.max_body
        return shown


@dataclass(frozen=True, slots=True)
class Match:
    """What came of looking for an allowed call: the reason why there is none, or how large its body may be."""

    reason: Reason | None
    max_body: int = MAX_BODY


def of_api(api: Api) -> Allowed:
    """Return the call that a name stands for."""
    return Allowed((api.method,), (api.path,), (JSON,) if api.json else ())


def match(allow: Iterable[Mapping[str, Any]], asked: Asked) -> Match:
    """Look for a call that allows what is asked. The reason is that of the call that came nearest."""
    nearest = Match(Reason.METHOD)
    for call in allow:
        found = _try(call, asked)
        if found.reason is None:
            return found
        if _ORDER.index(found.reason) > _ORDER.index(nearest.reason or Reason.METHOD):
            nearest = found
    return nearest


_ORDER = (Reason.METHOD, Reason.PATH, Reason.CONTENT_TYPE, Reason.TOO_LARGE)


def _try(call: Mapping[str, Any], asked: Asked) -> Match:
    if asked.method not in call["methods"]:
        return Match(Reason.METHOD)
    if not any(_fits(path, asked.segments) for path in call["paths"]):
        return Match(Reason.PATH)
    types = call.get("content_types")
    if types and asked.body_length != 0 and _media_type(asked.content_type) not in types:
        return Match(Reason.CONTENT_TYPE)
    most = call.get("max_body", MAX_BODY)
    if asked.body_length is not None and asked.body_length > most:
        return Match(Reason.TOO_LARGE)
    return Match(None, most)


def _fits(pattern: str, segments: Sequence[str]) -> bool:
    wanted = pattern.split("/")[1:]
    if wanted == [""]:
        return tuple(segments) in {(), ("",)}
    open_end = wanted[-1] == REST
    if open_end:
        wanted = wanted[:-1]
    if len(segments) < len(wanted) or (len(segments) > len(wanted) and not open_end):
        return False
    if not all(map(_is_plain, segments)):
        return False
    return all(one in {ONE, segment} for one, segment in zip(wanted, segments, strict=False))


def _is_plain(segment: str) -> bool:
    """Say whether a segment is what any reader takes it for: nothing is encoded in it, and it leads nowhere else."""
    return segment not in {".", ".."} and _SEGMENT.fullmatch(segment) is not None


def is_json(asked: Asked) -> bool:
    """Say whether a body is read as JSON by its reader too: one that says to be a form may be a form as well."""
    if not asked.content_type.strip():
        return True
    kind = _media_type(asked.content_type)
    return kind == JSON or kind.endswith("+json")


def _media_type(content_type: str) -> str:
    kind, _, parameters = content_type.partition(";")
    # A body in another character set would be read in one way here and in another way there.
    charset = parameters.replace(" ", "").lower()
    return kind.strip().lower() if charset in {"", "charset=utf-8", 'charset="utf-8"'} else ""


def checked(wanted: Sequence[Mapping[str, Any]], *, field: str = "allow") -> list[Allowed]:
    """Return calls as a token keeps them. Raises InvalidInput that names the place."""
    if not 1 <= len(wanted) <= MAX_CALLS:
        raise InvalidInput(f"{field}: Name 1 to {MAX_CALLS} calls.", field=field)
    return [_checked(call, f"{field}[{place}]") for place, call in enumerate(wanted)]


def _checked(call: Mapping[str, Any], field: str) -> Allowed:
    methods, paths, types = call["methods"], call["paths"], call.get("content_types", ())
    _require(1 <= len(methods) <= len(METHODS), f"{field}.methods", f"Name some of {', '.join(METHODS)}.")
    for place, method in enumerate(methods):
        _require(method in METHODS, f"{field}.methods[{place}]", f"A method is one of {', '.join(METHODS)}.")
    _require(1 <= len(paths) <= MAX_PATHS, f"{field}.paths", f"Name 1 to {MAX_PATHS} paths.")
    for place, path in enumerate(paths):
        _check_path(path, f"{field}.paths[{place}]")
    _require(len(types) <= MAX_TYPES, f"{field}.content_types", f"Name {MAX_TYPES} content types at most.")
    for place, kind in enumerate(types):
        where = f"{field}.content_types[{place}]"
        _require(_TYPE.fullmatch(kind) is not None, where, "A content type is like application/json, in lower case.")
    return Allowed(
        tuple(dict.fromkeys(methods)), tuple(dict.fromkeys(paths)), tuple(dict.fromkeys(types)), call.get("max_body")
    )


def _check_path(path: str, field: str) -> None:
    _require(path.startswith("/") and len(path) <= MAX_PATH, field, f"A path begins with / and has {MAX_PATH} at most.")
    segments = path.split("/")[1:]
    _require(len(segments) <= MAX_SEGMENTS, field, f"A path has {MAX_SEGMENTS} segments at most.")
    for place, segment in enumerate(segments):
        last = place == len(segments) - 1
        fine = segment == ONE or (segment == REST and last) or _is_plain(segment)
        # The root alone has an empty segment.
        _require(
            fine or (segments == [""]),
            field,
            "A path's segments hold unreserved characters, or are *, or ** at the end; none is empty, . or ...",
        )


def _require(holds: bool, field: str, message: str) -> None:  # noqa: FBT001
    if not holds:
        raise InvalidInput(f"{field}: {message}", field=field)
