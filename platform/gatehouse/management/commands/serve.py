"""`manage.py serve`: web, that is console, REST API and E2B control plane, behind the gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING

import uvicorn
from django.core.management.base import BaseCommand

if TYPE_CHECKING:
    from argparse import ArgumentParser

# Longer than the gateway keeps an idle connection, so that it is never the server who closes first.
KEEP_ALIVE_S = 640
GRACE_S = 10


def configuration(*, fd: int | None, uds: str | None) -> uvicorn.Config:
    """Return uvicorn's settings for a listening descriptor, or for a socket that it makes itself."""
    return uvicorn.Config(
        "gatehouse.asgi:application",
        fd=fd,
        uds=uds,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        # Our own middleware logs, and the gateway says who the caller is.
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
    )


class Command(BaseCommand):
    """Runs uvicorn in this process, with Django's checks before it."""

    help = "Serve the console and the APIs on a unix socket; `manage.py up` starts this as user gatehouse-web."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take the descriptor of a listening socket or the path of one to make."""
        where = parser.add_mutually_exclusive_group(required=True)
        where.add_argument("--fd", type=int, help="an inherited listening unix socket")
        where.add_argument("--uds", help="the path of a unix socket to listen on")

    def handle(self, *args: object, fd: int | None, uds: str | None, **options: object) -> None:
        """Serve until SIGTERM; what is being answered then is answered to the end."""
        uvicorn.Server(configuration(fd=fd, uds=uds)).run()
