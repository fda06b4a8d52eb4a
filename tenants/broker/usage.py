"""How many tokens a model used, read from its answer while that passes: in JSON and in event streams, of any vendor.

Vendors report `"usage": {…}` once or several times, counting up; the highest of each number holds.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tenants.broker.catalogue import Kind

_KEY = b'"usage"'
# A usage object is far shorter; what is cut off by a piece's end is waited for up to here.
_MOST_KEPT = 8192
_INPUT = (
    ("prompt_tokens",),
    ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"),
)
_OUTPUT = (("completion_tokens",), ("output_tokens",))
_MODELS = ("openai", "anthropic")
_BYTES_A_TOKEN = 4
_EVENT = b"data:"
_decoder = json.JSONDecoder()


def reader_for(kind: Kind) -> UsageReader | None:
    """Return a reader for the services that report usage."""
    return UsageReader() if kind in _MODELS else None


# No answer costs more, and what a service says beyond it would fit into no column.
_MOST_TOKENS = 1_000_000_000


class UsageReader:
    """Reads one answer, piece by piece, and keeps no more of it than the beginning of a usage object."""

    def __init__(self) -> None:
        self._kept = b""
        self._input = 0
        self._output = 0
        self._events = 0

    def feed(self, piece: bytes) -> None:
        """Read the next piece."""
        self._events += piece.count(_EVENT)
        data = self._kept + piece
        at = 0
        while (found := data.find(_KEY, at)) >= 0:
            end = self._read(data, found + len(_KEY))
            if end is None:
                break
            at = end
        rest = data[found:] if found >= 0 else data[max(at, len(data) - len(_KEY) + 1) :]
        self._kept = rest if len(rest) <= _MOST_KEPT else b""

    def _read(self, data: bytes, start: int) -> int | None:
        """Read the value of a key and return where it ends; None while more of it is to come."""
        text = data[start : start + _MOST_KEPT].decode("utf-8", "replace").lstrip()
        if not text.startswith(":"):
            return start if text else None
        value = text[1:].lstrip()
        if not value.startswith("{"):
            return start if value else None
        try:
            usage, _ = _decoder.raw_decode(value)
        except ValueError:
            return None if "}" not in value or len(value) < _MOST_KEPT // 2 else start
        self._take(usage)
        return start

    def _take(self, usage: dict[str, Any]) -> None:
        self._input = max(self._input, *(_sum(usage, names) for names in _INPUT))
        self._output = max(self._output, *(_sum(usage, names) for names in _OUTPUT))

    def tokens(self, bytes_sent: int) -> int | None:
        """Return what was reported; of a stream that reports nothing an estimate; None where there is no ground for it.

        Each event of a stream carries about one token, and a token of the question has about four bytes.
        """
        if self._input or self._output:
            return self._input + self._output
        return self._events + bytes_sent // _BYTES_A_TOKEN if self._events else None


def _sum(usage: dict[str, Any], names: tuple[str, ...]) -> int:
    values = (usage.get(name) for name in names)
    counts = (value for value in values if isinstance(value, int) and not isinstance(value, bool) and value > 0)
    return sum(min(value, _MOST_TOKENS) for value in counts)
