"""The sockets on which web listens. They outlive its process, so that a restart loses no connection."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from sandboxes.node.supervisor.preflight import Accounts

_BACKLOG = 2048


class Listeners:
    """Each is open to those who call there, by its owner and its group, and to nobody else."""

    def __init__(self, run: Path, accounts: Accounts) -> None:
        web, gateway, egress = accounts.web, accounts.gateway, accounts.egress
        owners = {
            "web.sock": (web.uid, gateway.gid),
            # Two different users call here. Web was given the socket itself and needs no right to its name.
            "internal.sock": (gateway.uid, egress.gid),
            "broker.sock": (web.uid, egress.gid),
        }
        self._made = {run / name: bind(run / name, *owner) for name, owner in owners.items()}

    def options(self) -> dict[str, int]:
        """Return the options of `manage.py serve` that hand them over."""
        names = ("fd", "internal-fd", "broker-fd")
        return {name: made.fileno() for name, made in zip(names, self._made.values(), strict=True)}

    def close(self) -> None:
        """Close them and remove their names."""
        for path, made in self._made.items():
            made.close()
            path.unlink(missing_ok=True)


def bind(path: Path, uid: int, gid: int) -> socket.socket:
    """Return a listening socket that only this user and this group can reach."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Closed to everybody until owner and group are set.
    previous = os.umask(0o777)
    try:
        listener.bind(str(path))
    finally:
        os.umask(previous)
    os.chown(path, uid, gid)
    path.chmod(0o660)
    listener.listen(_BACKLOG)
    return listener
