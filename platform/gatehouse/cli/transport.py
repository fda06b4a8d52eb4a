"""HTTP to the one public URL, by the standard library: the usual clients take longer to load than a call takes."""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from gatehouse.cli.errors import CliError, from_answer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import IO

    Body = bytes | IO[bytes] | Iterable[bytes] | None

CONNECT_TIMEOUT_S = 10.0
CALL_TIMEOUT_S = 60.0
_MAX_ERROR = 64 * 1024


@dataclass(frozen=True, slots=True)
class Place:
    """Where Gatehouse is, and the key that opens it. The key is never shown."""

    url: str
    key: str

    def __repr__(self) -> str:
        return f"Place({self.url!r})"


class Link:
    """One connection, kept alive. Not for two threads at a time."""

    def __init__(self, place: Place, *, timeout: float | None = CALL_TIMEOUT_S) -> None:
        self.place = place
        self.timeout = timeout
        self._connection: http.client.HTTPConnection | None = None

    def send(
        self, method: str, path: str, body: Body = None, headers: Mapping[str, str] | None = None
    ) -> http.client.HTTPResponse:
        """Send a request and return the answer, its body unread. A connection that grew stale is opened anew, once."""
        fresh = self._connection is None
        try:
            return self._send(method, path, body, headers or {})
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError) as error:
            self.close()
            if fresh or not isinstance(body, bytes | None):
                raise CliError(f"{self.place.url} closed the connection: try again.") from error
        return self.send(method, path, body, headers)

    def _send(self, method: str, path: str, body: Body, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        if self._connection is None:
            self._connection = self._open()
        connection = self._connection
        chunked = body is not None and not isinstance(body, bytes) and "Content-Length" not in headers
        if chunked:
            headers = {**headers, "Transfer-Encoding": "chunked"}
        try:
            connection.request(method, path, body, dict(headers), encode_chunked=chunked)
            return connection.getresponse()
        except TimeoutError as error:
            self.close()
            raise CliError(f"{self.place.url} did not answer within {self.timeout:.0f} s: try again.") from error

    def _open(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.place.url)
        host = parts.hostname or ""
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            connection = http.client.HTTPSConnection(
                host, parts.port, timeout=CONNECT_TIMEOUT_S, context=ssl.create_default_context()
            )
        else:
            connection = http.client.HTTPConnection(host, parts.port, timeout=CONNECT_TIMEOUT_S)
        try:
            connection.connect()
        except ssl.SSLError as error:
            raise CliError(f"The certificate of {self.place.url} is not trusted: {error.reason or error}.") from error
        except OSError as error:
            raise CliError(
                f"Nothing answers at {self.place.url} ({error.strerror or error}): start Gatehouse, or set"
                " GATEHOUSE_URL to where it is."
            ) from error
        connection.sock.settimeout(self.timeout)
        return connection

    def close(self) -> None:
        """Close it; the next request opens another one."""
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.close()
            self._connection = None


def read_json(response: http.client.HTTPResponse) -> Any:
    """Return the JSON of an answer. Raises the CliError that an error answer stands for."""
    payload = response.read()
    try:
        body = json.loads(payload) if payload else None
    except ValueError:
        body = None
    if response.status >= 400:
        raise from_answer(response.status, body, retry_after=response.getheader("Retry-After"))
    if payload and body is None:
        raise CliError("The answer is not JSON: GATEHOUSE_URL does not lead to a Gatehouse.")
    return body


def raise_for_error(response: http.client.HTTPResponse) -> None:
    """Raise the CliError of an error answer; leave every other one unread."""
    if response.status >= 400:
        payload = response.read(_MAX_ERROR)
        try:
            body = json.loads(payload)
        except ValueError:
            body = None
        raise from_answer(response.status, body, retry_after=response.getheader("Retry-After"))
