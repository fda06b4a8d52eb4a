"""Django's door to the logs that every process shares."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from corekit import logs

if TYPE_CHECKING:
    from collections.abc import Mapping


def configure(options: Mapping[str, str]) -> None:
    """Configure the logs of this process; `options` is the setting LOGGING."""
    logs.configure(options["service"], options["level"])
    # The access line says what was refused; Django would say it again.
    logging.getLogger("django.request").setLevel(logging.ERROR)
