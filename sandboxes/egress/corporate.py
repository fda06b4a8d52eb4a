"""The operator's own proxy: CONNECT to it, with credentials that never come near a sandbox."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from corekit.logs import logger
from sandboxes.egress.wire import Gone

if TYPE_CHECKING:
    from pathlib import Path

    from sandboxes.egress.target import Target
    from sandboxes.egress.wire import Wire

_MOST_HEAD = 16 * 1024
_ACCEPTED = re.compile(rb"HTTP/1\.[01] 2[0-9][0-9](?: [^\r\n]*)?\r\n")


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the proxy wants to see; empty when it asks for nothing."""

    username: str | None = None
    password: str = field(default="", repr=False)

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return the header for the proxy, if any."""
        if self.username is None:
            return []
        return [(b"Proxy-Authorization", b"Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()))]


def read_credentials(path: Path, proxy: str) -> Credentials:
    """Return the credentials for `host:port`; none where the file names none. A file that is broken counts as none."""
    try:
        known = json.loads(path.read_bytes())
        found = known.get(proxy)
        return Credentials() if found is None else Credentials(str(found["username"]), str(found["password"]))
    except FileNotFoundError:
        return Credentials()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logger.error("egress_via_unreadable", path=str(path), error=type(error).__name__)
        return Credentials()


async def connect(wire: Wire, credentials: Credentials, target: Target) -> Wire:
    """Ask for a tunnel to the target. Raises Gone when there is none."""
    entry = target.entry.encode()
    headers = b"".join(name + b": " + value + b"\r\n" for name, value in [(b"Host", entry), *credentials.headers()])
    await wire.send(b"CONNECT " + entry + b" HTTP/1.1\r\n" + headers + b"\r\n")
    while (end := wire.ahead.find(b"\r\n\r\n")) < 0:
        if len(wire.ahead) > _MOST_HEAD or not await wire.more():
            raise Gone("the proxy does not answer")
    answer = bytes(wire.ahead[: end + 4])
    if not _ACCEPTED.match(answer):
        logger.warning("egress_via_refused", answer=answer.split(b"\r\n", 1)[0].decode("latin-1")[:80])
        raise Gone("the proxy refuses")
    del wire.ahead[: end + 4]
    return wire
