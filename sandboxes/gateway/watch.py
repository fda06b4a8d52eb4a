"""Watchers of streamed request bodies: each act found in one is recorded before its bytes go on."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import TYPE_CHECKING

from sandboxes.gateway import assess
from sandboxes.gateway.envelopes import HEADER, BadEnvelope, first_length

if TYPE_CHECKING:
    from sandboxes.gateway.assess import Record
    from sandboxes.gateway.operations import Operation

_MAX_PART_HEAD = 16 * 1024
_MAX_PARTS = 1000
_FILENAME = re.compile(rb"""[;\s]filename="((?:[^"\\\r\n]|\\.)*)\"""", re.IGNORECASE)


class BadParts(Exception):
    """A multipart body can't be followed."""


class PartNames:
    """Finds the file name of every part in a multipart body that comes in pieces.

    Every occurrence of the boundary counts as a part's begin, which can only find too many, never too few.
    """

    def __init__(self, boundary: bytes) -> None:
        self._mark = b"--" + boundary
        self._carry = b""
        self._in_head = False
        self._parts = 0

    def feed(self, data: bytes) -> list[str]:
        """Return the names of the parts whose heads are complete with these bytes. Raises BadParts."""
        names: list[str] = []
        data = self._carry + data
        at = 0
        while True:
            if not self._in_head:
                found = data.find(self._mark, at)
                if found < 0:
                    self._carry = data[max(at, len(data) - len(self._mark) + 1) :]
                    return names
                at = found + len(self._mark)
                self._in_head = True
            if len(data) - at >= 2 and data[at : at + 2] == b"--":
                self._in_head = False
                continue
            stop, after = _end_of_head(data, at)
            if stop < 0:
                if len(data) - at > _MAX_PART_HEAD:
                    raise BadParts("a part's header is too long")
                self._carry = data[at:]
                return names
            self._in_head = False
            self._parts += 1
            if self._parts > _MAX_PARTS:
                raise BadParts(f"an upload may have at most {_MAX_PARTS} parts")
            names.append(_name(data[at:stop]))
            at = after


def _end_of_head(data: bytes, at: int) -> tuple[int, int]:
    """Return where a part's head ends and its content begins; both line endings count."""
    ends = [(found, found + len(mark)) for mark in (b"\r\n\r\n", b"\n\n") if (found := data.find(mark, at)) >= 0]
    return min(ends, default=(-1, -1))


def _name(head: bytes) -> str:
    """Return the file name, or the whole head where the name is written in an unusual way."""
    found = _FILENAME.search(head)
    raw = head.strip() if found is None else re.sub(rb"\\(.)", rb"\1", found[1])
    return raw.decode("utf-8", "replace")


class PartsWatch:
    """Records a `file.write` for each part of an upload."""

    def __init__(self, record: Record, operation: Operation, boundary: bytes, username: str) -> None:
        self._record = record
        self._details = operation.details
        self._names = PartNames(boundary)
        self._username = username

    async def __call__(self, data: bytes) -> None:
        """See the next bytes. Raises BadParts, TapAway or TapRefused; then they must not go on."""
        for name in self._names.feed(data):
            await self._record.begin({"path": name, "username": self._username}, self._details)


class InputWatch:
    """Records a `command.input` at the first message of an input stream, and hashes the rest as it passes."""

    def __init__(
        self, record: Record, operation: Operation, audit_key: bytes, username: str | None, limit: int
    ) -> None:
        self._record = record
        self._details = operation.details
        self._hash = hmac.new(audit_key, digestmod=hashlib.sha256)
        self._username = username
        self._limit = limit
        self._first: bytes | None = b""

    async def __call__(self, data: bytes) -> None:
        """See the next bytes. Raises BadEnvelope, BadArguments, TapAway or TapRefused."""
        self._hash.update(data)
        if self._first is None:
            return
        self._first += data
        length = first_length(self._first)
        if length is not None and length > self._limit:
            raise BadEnvelope("the first message is too large")
        if length is None or len(self._first) < length:
            return
        arguments = assess.read_message(self._first[HEADER:length])
        if self._username is not None:
            arguments["user"] = self._username
        self._first = None
        await self._record.begin(arguments, self._details)

    def facts(self) -> dict[str, object]:
        """Return the keyed hash of everything that passed."""
        return {"input_hash": self._hash.hexdigest()}
