"""The embedded broker: kombu's messages as files, each of which appears whole."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path
from queue import Empty
from typing import Any

from kombu.transport import filesystem


class Channel(filesystem.Channel):
    """Renames messages within their folder: a new one when it is whole, one that is taken before it is read.

    Kombu's own takes them to the common folder for temporary files, where others may have put something.
    """

    def _put(self, queue: str, payload: Any, **_: Any) -> None:  # type: ignore[override] # as kombu's own does
        name = f"{round(time.monotonic() * 1000)}_{uuid.uuid4()}.{queue}.msg"
        # Consumers compare all that follows the first dot with their queue, and so pass this by.
        aside = Path(self.data_folder_out, f"{name}.new")
        aside.write_text(json.dumps(payload))
        aside.rename(aside.with_name(name))

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        for message in sorted(Path(self.data_folder_in).iterdir()):
            if message.name.partition(".")[2] != f"{queue}.msg":
                continue
            taken = message.with_name(f"{message.name}.taken")
            try:
                message.rename(taken)
            except FileNotFoundError:  # another consumer was faster
                continue
            text = taken.read_text()
            taken.unlink()
            return json.loads(text)
        raise Empty


class Transport(filesystem.Transport):
    """Kombu's transport with our channel."""

    Channel = Channel
