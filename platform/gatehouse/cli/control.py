"""The REST API, as the commands use it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from gatehouse.cli.errors import CliError
from gatehouse.cli.transport import CALL_TIMEOUT_S, Link, read_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gatehouse.cli.transport import Place

    Json = dict[str, Any]

PAGE = 100


class Control:
    """Calls of `/api/v1`. Every method raises CliError."""

    def __init__(self, place: Place, *, timeout: float = CALL_TIMEOUT_S) -> None:
        self.place = place
        self._link = Link(place, timeout=timeout)

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Call a path below `/api/v1/`."""
        headers = {"X-API-KEY": self.place.key, "Accept": "application/json", "User-Agent": "gatehouse-cli"}
        data = None
        if body is not None:
            data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        return read_json(self._link.send(method, f"/api/v1/{path}", data, headers))

    def sandbox(self, sandbox_id: str) -> Json:
        """Return one sandbox, also an ended one."""
        found: Json = self.call("GET", path_of(sandbox_id))
        return found

    def open(self, sandbox_id: str) -> Json:
        """Return a running sandbox with the caller's access to its inside."""
        found: Json = self.call("POST", f"{path_of(sandbox_id)}/access", {})
        if found["state"] in {"paused", "pausing"}:
            raise CliError(f"The sandbox is paused: let it go on with `gatehouse resume {sandbox_id}`.")
        if not found["access"]["token"]:
            raise CliError(f"The sandbox is {found['state']}: try again in a moment.")
        return found

    def items(self, path: str, query: Mapping[str, str]) -> Iterator[Json]:
        """Yield every row of a list, page by page."""
        cursor: dict[str, str] = {}
        while True:
            page = self.call("GET", f"{path}?{urlencode({**query, 'limit': str(PAGE), **cursor})}")
            yield from page["items"]
            if page["next"] is None:
                return
            cursor = {"cursor": page["next"]}


def path_of(sandbox_id: str) -> str:
    """Return the path of a sandbox."""
    return f"sandboxes/{quote(sandbox_id, safe='')}"
