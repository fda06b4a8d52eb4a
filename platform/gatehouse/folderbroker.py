"""The embedded broker: kombu's messages as files, each of which appears whole."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path
from typing import Any

from kombu.transport import filesystem


class Channel(filesystem.Channel):
    """Writes a message aside and renames it, so that no consumer takes one that is still empty."""

    def _put(self, queue: str, payload: Any, **_: Any) -> None:  # type: ignore[override] # as kombu's own does
        name = f"{round(time.monotonic() * 1000)}_{uuid.uuid4()}.{queue}.msg"
        # Consumers compare all that follows the first dot with their queue, and so pass this by.
        aside = Path(self.data_folder_out, f"{name}.new")
        aside.write_text(json.dumps(payload))
        aside.rename(aside.with_name(name))


class Transport(filesystem.Transport):
    """Kombu's transport with our channel."""

    Channel = Channel
