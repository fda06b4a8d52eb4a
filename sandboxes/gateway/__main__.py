"""Start the gateway: `python -m sandboxes.gateway`."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import resource
import signal
import sys

import uvloop

from corekit import logs
from corekit.logs import logger
from sandboxes.gateway import app, settings

_MOST_DESCRIPTORS = 65_536
_OWN_DESCRIPTORS = 128


def _limits() -> settings.Limits:
    """Use as many descriptors as the system allows, and take no more clients than they suffice for."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MOST_DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    usual = settings.Limits()
    # Each client may need a connection to a guest or to web too.
    fitting = max(16, (allowed - _OWN_DESCRIPTORS) // 2)
    return dataclasses.replace(usual, client_connections=min(usual.client_connections, fitting))


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
        chosen = dataclasses.replace(chosen, limits=_limits())
        uvloop.run(_run(chosen))
    except (ValueError, OSError) as error:
        sys.stderr.write(f"gateway: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
