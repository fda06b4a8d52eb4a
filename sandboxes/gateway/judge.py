"""What a call to the agent is about: its arguments, taken from its message, query and headers."""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING

from sandboxes.gateway import assess
from sandboxes.gateway.envelopes import only_message
from sandboxes.gateway.operations import Operation, Shape

if TYPE_CHECKING:
    from aiohttp import web

    from sandboxes.gateway.authentication import FileQuery

_BOUNDARY = re.compile(r"boundary=(?:\"([A-Za-z0-9'()+_,./:=? -]{1,70})\"|([A-Za-z0-9'+_.-]{1,70}))")


class Unsupported(Exception):
    """The body's type or coding is not one that the gateway can judge. `code` is Connect's."""

    def __init__(self, message: str, *, code: str = "invalid_argument") -> None:
        super().__init__(message)
        self.code = code


def username_of(request: web.BaseRequest) -> str | None:
    """Return the user name of a Basic authorization, or None without one. Raises BadArguments for a bad name."""
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name = base64.b64decode(value.strip(), validate=True).decode().partition(":")[0]
    except (binascii.Error, ValueError) as error:
        raise assess.BadArguments("the Authorization header is not valid") from error
    if len(name) > 256 or not name.isprintable():
        raise assess.BadArguments("the user name is not valid")
    return name or None


def basic(username: str) -> bytes:
    """Return the Basic authorization that tells the agent a user name."""
    return b"Basic " + base64.b64encode(username.encode() + b":")


def check_media(request: web.BaseRequest, operation: Operation) -> None:
    """Refuse a message that is not plain JSON, for nobody could judge it. Raises Unsupported."""
    unary = operation.shape is Shape.UNARY
    wanted = "application/json" if unary else "application/connect+json"
    if media_type(request) != wanted:
        raise Unsupported(f"the content type must be {wanted}")
    codings = (
        request.headers.get("Content-Encoding", "identity"),
        request.headers.get("Connect-Content-Encoding", "identity"),
    )
    if any(coding.lower() != "identity" for coding in codings):
        raise Unsupported("compressed messages are not supported", code="unimplemented")


def media_type(request: web.BaseRequest) -> str:
    """Return the request's media type without parameters, in lower case."""
    return request.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def message_arguments(operation: Operation, data: bytes, username: str | None) -> dict[str, object]:
    """Return the arguments of one JSON message. Raises BadArguments or BadEnvelope."""
    message = assess.read_message(only_message(data) if operation.shape is Shape.SERVER_STREAM else data)
    arguments = dict(message)
    process = message.get("process")
    if operation.code == "command.start" and isinstance(process, dict):
        del arguments["process"]
        arguments.update(process)
    if username is not None:
        arguments["user"] = username
    return arguments


def file_arguments(file: FileQuery) -> dict[str, object]:
    """Return the arguments of a file operation whose path is in the query."""
    return {"path": file.path, "username": file.username}


def part_boundary(request: web.BaseRequest, file: FileQuery) -> bytes | None:
    """Return the boundary of an upload whose parts name the files, None when the query names the one file.

    Raises Unsupported when the names would stay hidden.
    """
    if file.path or media_type(request) != "multipart/form-data":
        return None
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Unsupported("a compressed multipart upload must give its path in the query")
    found = _BOUNDARY.findall(request.headers.get("Content-Type", ""))
    if len(found) != 1:
        raise Unsupported("the multipart boundary is missing or malformed")
    quoted, bare = found[0]
    return str(quoted or bare).encode("ascii")
