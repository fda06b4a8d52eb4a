"""A command in a sandbox, run by the control plane through the gateway: judged, recorded and limited as any other."""

from __future__ import annotations

import base64
import http.client
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django.conf import settings

from corekit import connect, tracing
from corekit.errors import Unavailable
from sandboxes import access

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sandboxes.access import Access

SLACK_S = 5.0
"""How much longer than its time limit a command is waited for: the guest kills it, and says so."""
_CONNECT_S = 10.0
_MAX_ERROR = 64 * 1024


class NotRun(Unavailable):
    """The command could not be run, or nobody knows how it ended."""

    code = "not_run"
    title = "The sandbox could not run the command"


@dataclass(slots=True)
class Output:
    """What a command wrote, as far as it fits, and how it ended: without an `exit_code` if it met its limit."""

    most_bytes: int
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    truncated: bool = False
    exit_code: int | None = None
    timed_out: bool = False

    def take(self, name: str, data: bytes) -> None:
        """Keep what fits; the rest is read all the same, so that the command never waits for a reader."""
        kept = self.stderr if name == "stderr" else self.stdout
        room = self.most_bytes - len(kept)
        kept += data[:room]
        self.truncated = self.truncated or len(data) > room


def run(granted: Access, command: Sequence[str], *, timeout_s: int, most_bytes: int) -> Output:
    """Run a command to its end, or to its time limit. Raises NotRun."""
    output = Output(most_bytes)
    deadline = time.monotonic() + timeout_s + SLACK_S
    home = settings.GATEHOUSE
    connection = http.client.HTTPConnection(home.gateway_host, home.port, timeout=_CONNECT_S)
    try:
        _follow(_answer(connection, granted, command, timeout_s), connection, output, deadline)
    except connect.StreamError as error:
        if error.code != "deadline_exceeded":
            raise NotRun(f"The sandbox did not run the command: {str(error)[:200]}") from error
        output.timed_out = True
    except TimeoutError as error:
        raise NotRun("The sandbox did not answer in time.") from error
    except (OSError, http.client.HTTPException, connect.BadFrame) as error:
        raise NotRun("The connection to the sandbox broke.") from error
    finally:
        connection.close()
    return output


def _answer(
    connection: http.client.HTTPConnection, granted: Access, command: Sequence[str], timeout_s: int
) -> http.client.HTTPResponse:
    doors: Any = access.doors(granted)
    body = {"process": {"cmd": command[0], "args": list(command[1:]), "envs": {}}, "stdin": False}
    headers = {
        **doors["headers"],
        "Host": f"localhost:{settings.GATEHOUSE.port}",
        "Content-Type": "application/connect+json",
        "Connect-Protocol-Version": "1",
        "Connect-Timeout-Ms": str(timeout_s * 1000),
        **(trace.headers() if (trace := tracing.current()) is not None else {}),
    }
    connection.request("POST", "/process.Process/Start", connect.frame(body), headers)
    response = connection.getresponse()
    if response.status != http.client.OK:
        said = response.read(_MAX_ERROR).decode("utf-8", "replace")
        raise NotRun(f"The gateway refused the command ({response.status}): {said[:200]}")
    return response


def _follow(
    response: http.client.HTTPResponse, connection: http.client.HTTPConnection, output: Output, deadline: float
) -> None:
    for event in _events(response, connection, deadline):
        try:
            for name, data in event.get("data", {}).items():
                output.take(name, base64.b64decode(data))
            if "end" in event:
                output.exit_code = connect.exit_code(event["end"])
        except (AttributeError, TypeError, ValueError) as error:
            raise connect.BadFrame("an event has another form") from error
    if output.exit_code is None:
        raise NotRun("The sandbox ended before the command did.")


def _events(
    response: http.client.HTTPResponse, connection: http.client.HTTPConnection, deadline: float
) -> Iterator[dict[str, Any]]:
    def read(size: int) -> bytes:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        if connection.sock is not None:
            connection.sock.settimeout(left)
        return response.read(size)

    for message in connect.messages(read):
        event = message.get("event", {})
        yield event if isinstance(event, dict) else {}
