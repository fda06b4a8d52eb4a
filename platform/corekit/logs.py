"""Logs: one JSON object a line on stderr, the same in every process."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, TextIO

import structlog

from corekit.redaction import redact_event

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from structlog.typing import Processor

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
# Chatty libraries whose INFO lines repeat what our own lines say better.
_QUIET = ("httpx", "httpcore", "uvicorn.access", "aiohttp.access", "asyncio", "kombu", "amqp")

logger: structlog.stdlib.BoundLogger = structlog.get_logger()


def _service_adder(service: str) -> Processor:
    def add(logger: object, method: str, event: MutableMapping[str, object]) -> MutableMapping[str, object]:
        event.setdefault("service", service)
        return event

    return add


def configure(service: str, level: str = "INFO", stream: TextIO | None = None) -> None:
    """Send structlog's and the standard library's logs to stderr as JSON lines of this service.

    Every line has timestamp, level, event and service; request_id and whatever else is bound to the context
    follow. Raises ValueError for an unknown level. Calling it again replaces the earlier configuration.
    """
    if level.upper() not in _LEVELS:
        raise ValueError(f"the log level must be one of {', '.join(_LEVELS)}, not {level!r}")
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
        _service_adder(service),
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.format_exc_info,
        redact_event,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(default=str, ensure_ascii=False),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
