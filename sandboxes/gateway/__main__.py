"""Start the gateway: `python -m sandboxes.gateway`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import uvloop

from corekit import logs
from corekit.logs import logger
from sandboxes.gateway import app, settings


async def _run(chosen: settings.GatewaySettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    sock = app.bound_socket(chosen)
    async with app.create_app(chosen) as gateway:
        await gateway.listen(sock)
        logger.info("gateway_ready", address=str(sock.getsockname()), domain=chosen.domain or None)
        await stop.wait()
        logger.info("gateway_stopping")


def main() -> int:
    """Run until SIGTERM; return the exit status."""
    try:
        chosen = settings.from_environment(os.environ)
        logs.configure("gateway", chosen.log_level)
        uvloop.run(_run(chosen))
    except (ValueError, OSError) as error:
        sys.stderr.write(f"gateway: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
