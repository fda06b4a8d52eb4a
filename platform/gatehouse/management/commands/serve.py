"""`manage.py serve`: web, that is console, REST API and E2B control plane, behind the gateway."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
import uvicorn
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from corekit import ownmemory
from corekit.errors import GatehouseError
from gatehouse.listeners import PeerCheckedProtocol
from tenants.vaults import choosing

if TYPE_CHECKING:
    from argparse import ArgumentParser

logger = structlog.get_logger("gatehouse.web")

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
        lifespan="on",
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


def _guarded(fd: int | None, path: Path) -> socket.socket:
    """Return a listener that is known by its path, so that no other may stand for it."""
    if fd is None:
        return _made(str(path))
    listener = _inherited(fd)
    if (found := listener.getsockname()) != str(path):
        listener.close()
        raise CommandError(f"The listener must be at {path}, not at {found}.")
    return listener


def _test_vaults() -> None:
    """Refuse to serve with vaults or a master key that can't be meant so; say at once what the embedded one can't open.

    The second is no reason to stop: everything but those secrets works without it. Raises CommandError.
    """
    try:
        vault = choosing.embedded()
        if not settings.GATEHOUSE.vault_key_secret:
            vault.masters.all()
    except GatehouseError as error:
        raise CommandError(error.message) from error
    if not (health := vault.health()).ok:
        logger.error("vault_self_test_failed", problem=health.message, fix=health.fix)
    connections.close_all()


class Command(BaseCommand):
    """Runs uvicorn in this process."""

    help = "Serve the console and the APIs on unix sockets; `manage.py up` starts this as user gatehouse-web."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take the descriptor of a listening socket or the path of one to make, and those of the guarded ones."""
        where = parser.add_mutually_exclusive_group(required=True)
        where.add_argument("--fd", type=int, help="an inherited listening unix socket")
        where.add_argument("--uds", help="the path of a unix socket to listen on")
        parser.add_argument("--internal-fd", type=int, help="the inherited listening unix socket of the internal API")
        parser.add_argument("--broker-fd", type=int, help="the inherited listening unix socket of the secret broker")

    def handle(
        self,
        *args: object,
        fd: int | None,
        uds: str | None,
        internal_fd: int | None,
        broker_fd: int | None,
        **options: object,
    ) -> None:
        """Serve until SIGTERM; what is being answered then is answered to the end."""
        if settings.GATEHOUSE.service == "web":
            ownmemory.keep_private()
            _test_vaults()
        with ExitStack() as open_ones:
            internal = open_ones.enter_context(_guarded(internal_fd, settings.GATEHOUSE.internal_socket))
            broker = open_ones.enter_context(_guarded(broker_fd, settings.GATEHOUSE.broker_socket))
            public = open_ones.enter_context(_inherited(fd) if fd is not None else _made(str(uds)))
            uvicorn.Server(configuration(public.getsockname())).run(sockets=[public, internal, broker])
