"""Egress with shorter limits, so that no test waits long: `python -m tests.egress.quick '{"head_seconds": 1}'`."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import sys

from corekit import logs
from sandboxes.egress import process, settings


async def _run(chosen: settings.EgressSettings) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await process.run(chosen, stop)


if __name__ == "__main__":
    logs.configure("egress", "WARNING")
    limits = dataclasses.replace(settings.Limits(), **json.loads(sys.argv[1]))
    asyncio.run(_run(settings.from_environment(os.environ, limits)))
