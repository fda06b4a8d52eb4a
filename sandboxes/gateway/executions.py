"""The log line `tool_execution`: one for each finished act, cheap enough for thousands a second."""

from __future__ import annotations

import asyncio
import json
import logging
import sys

import structlog

from corekit import clock

_FLUSH_SECONDS = 0.05
_MAX_LINES = 256


class _Lines:
    """Collects lines and writes them together, because each write wakes whoever reads our logs."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def msg(self, line: str) -> None:
        """Take one line."""
        self._lines.append(line)
        if len(self._lines) >= _MAX_LINES:
            self.flush()
        elif len(self._lines) == 1:
            asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self.flush)

    info = msg

    def flush(self) -> None:
        """Write what was collected."""
        if self._lines:
            text = "\n".join(self._lines)
            self._lines.clear()
            sys.stderr.write(text + "\n")
            sys.stderr.flush()


_lines = _Lines()
_encoder = json.JSONEncoder()
# Every field is a number, a hash or an id, so that the usual pipeline with its redaction has nothing to do.
_logger: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
    _lines,
    processors=[lambda _, __, event: _encoder.encode(event)],
    wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    cache_logger_on_first_use=True,
)


def log(
    *,
    sandbox_id: str,
    tool_name: str,
    args_hash: str,
    result_status: str,
    duration_ms: float,
    risk_score: int,
    risk_band: str,
    key_id: str | None,
    request_id: str,
) -> None:
    """Write the line of one finished act."""
    if not logging.getLogger().isEnabledFor(logging.INFO):
        return
    _logger.info(
        "tool_execution",
        sandbox_id=sandbox_id,
        tool_name=tool_name,
        args_hash=args_hash,
        result_status=result_status,
        duration_ms=duration_ms,
        timestamp=clock.to_rfc3339(clock.epoch_ms()),
        risk_score=risk_score,
        risk_band=risk_band,
        key_id=key_id,
        request_id=request_id,
        level="info",
        service="gateway",
    )


def flush() -> None:
    """Write what is still collected; the last thing before the gateway ends."""
    _lines.flush()
