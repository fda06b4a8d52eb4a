"""The sockets that web listens at beside its public one: who may call there, told by the kernel and by nothing else."""

from __future__ import annotations

import functools
import os
import pwd
import socket
import struct
from typing import TYPE_CHECKING, Any, cast

import structlog
from django.conf import settings
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tenants.broker.call import ABORT, CLOSE

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

logger = structlog.get_logger("gatehouse.listeners")

GATEWAY_USER, EGRESS_USER = "gatehouse-gateway", "gatehouse-egress"
_PEER = struct.Struct("3i")
_CALLER = "gatehouse.caller_uid"


def internal() -> str:
    """Return the path of the internal API's socket."""
    return str(settings.GATEHOUSE.internal_socket)


def broker() -> str:
    """Return the path of the secret broker's socket."""
    return str(settings.GATEHOUSE.broker_socket)


def guarded() -> Mapping[str, tuple[str, ...]]:
    """Return by path the users who may call at the listeners that are not public, beside root and our own."""
    return {internal(): (GATEWAY_USER, EGRESS_USER), broker(): (EGRESS_USER,)}


def path_of(scope: Mapping[str, Any]) -> str:
    """Return the path of the listener that a request came in by."""
    path, _ = scope.get("server") or ("", None)
    return str(path)


def is_from(scope: Mapping[str, Any], user: str) -> bool:
    """Say whether a request of a guarded listener comes from this user, from root, or from our own."""
    return scope.get(_CALLER) in welcome_uids((user,))


@functools.cache
def welcome_uids(users: tuple[str, ...]) -> frozenset[int]:
    """Return who may call: root, these users, and our own where processes share one."""
    uids = {0, os.geteuid()}
    for user in users:
        try:
            uids.add(pwd.getpwnam(user).pw_uid)
        except KeyError:
            logger.info("caller_user_missing", user=user)
    return frozenset(uids)


def peer_uid(transport: asyncio.BaseTransport) -> int | None:
    """Return the uid of the process at the other end of a unix socket, as the kernel knows it."""
    connection = transport.get_extra_info("socket")
    try:
        data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    except (OSError, AttributeError):
        return None
    return int(_PEER.unpack(data)[1])


class PeerCheckedProtocol(HttpToolsProtocol):
    """Uvicorn's HTTP, which closes a connection to a guarded listener unless its caller's uid is welcome there."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Look at who connects before anything is read."""
        super().connection_made(transport)
        path = path_of({"server": self.server})
        users = guarded().get(path)
        if users is not None and peer_uid(transport) not in welcome_uids(users):
            logger.warning("caller_refused", listener=path.rpartition("/")[2], uid=peer_uid(transport))
            transport.abort()

    def on_message_begin(self) -> None:
        """Tell the application who calls, and let it break off an answer that it can't end as it should."""
        super().on_message_begin()
        extra = {_CALLER: peer_uid(self.transport), CLOSE: self.transport.close, ABORT: self.transport.abort}
        cast("dict[str, object]", self.scope).update(extra)
