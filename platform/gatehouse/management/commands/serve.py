"""`manage.py serve`: web, that is console, REST API and E2B control plane, behind the gateway."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from gatehouse.internal import PeerCheckedProtocol

if TYPE_CHECKING:
    from argparse import ArgumentParser

# Longer than the gateway keeps an idle connection, so that it is never the server who closes first.
KEEP_ALIVE_S = 640
GRACE_S = 10


def configuration(path: str) -> uvicorn.Config:
    """Return uvicorn's settings; it is given the listening sockets and told the public one's path for its log."""
    return uvicorn.Config(
        "gatehouse.asgi:application",
        uds=path,
        loop="uvloop",
        http=PeerCheckedProtocol,
        lifespan="off",
        # Our own middleware logs, and the gateway says who the caller is.
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
    )


def _inherited(fd: int) -> socket.socket:
    try:
        return socket.socket(fileno=fd)
    except OSError as error:
        raise CommandError(f"The descriptor {fd} is no socket.") from error


def _made(path: str) -> socket.socket:
    Path(path).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    return listener


class Command(BaseCommand):
    """Runs uvicorn in this process."""

    help = "Serve the console and the APIs on unix sockets; `manage.py up` starts this as user gatehouse-web."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take the descriptor of a listening socket or the path of one to make, and the internal one's."""
        where = parser.add_mutually_exclusive_group(required=True)
        where.add_argument("--fd", type=int, help="an inherited listening unix socket")
        where.add_argument("--uds", help="the path of a unix socket to listen on")
        parser.add_argument("--internal-fd", type=int, help="the inherited listening unix socket of the internal API")

    def handle(
        self, *args: object, fd: int | None, uds: str | None, internal_fd: int | None, **options: object
    ) -> None:
        """Serve until SIGTERM; what is being answered then is answered to the end."""
        with self._internal(internal_fd) as internal, _inherited(fd) if fd is not None else _made(str(uds)) as public:
            uvicorn.Server(configuration(public.getsockname())).run(sockets=[public, internal])

    def _internal(self, fd: int | None) -> socket.socket:
        path = str(settings.GATEHOUSE.internal_socket)
        if fd is None:
            return _made(path)
        listener = _inherited(fd)
        if (found := listener.getsockname()) != path:
            listener.close()
            raise CommandError(f"The internal listener must be at {path}, not at {found}.")
        return listener
