"""Start egress: `python -m sandboxes.egress`."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import sys

from corekit import logs, ownmemory
from sandboxes.egress import process, settings

_MOST_DESCRIPTORS = 262_144


def _raise_descriptors() -> None:
    """Use as many descriptors as the system allows: each flow has two."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MOST_DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def _collect_seldom() -> None:
    """Each flow leaves a few cycles; looking for them after every few flows would cost more than they weigh."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


async def _run(chosen: settings.EgressSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await process.run(chosen, stop)


def main() -> int:
    """Run until SIGTERM; return the exit status."""
    try:
        chosen = settings.from_environment(os.environ)
        logs.configure("egress", chosen.log_level)
        ownmemory.keep_private()
        _raise_descriptors()
        _collect_seldom()
        # The standard loop: one built on libuv crashes on half-closed connections.
        asyncio.run(_run(chosen))
    except (ValueError, OSError) as error:
        sys.stderr.write(f"egress: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
