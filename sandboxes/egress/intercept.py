"""Ends the TLS of hosts whose requests are changed: to the sandbox it is that host, to the host it is the client."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING

from corekit.netrules.reasons import Reason
from sandboxes.egress.authority import PROTOCOL
from sandboxes.egress.refusals import Refused
from sandboxes.egress.securewire import SecureWire, TlsBroken
from sandboxes.egress.wire import Gone

if TYPE_CHECKING:
    from pathlib import Path

    from sandboxes.egress.clienthello import Hello
    from sandboxes.egress.flow import Flow
    from sandboxes.egress.target import Target
    from sandboxes.egress.wire import Wire

NOT_REWRITABLE = "It is neither HTTP nor HTTPS."
_HTTP2_CLIENT = "The client speaks HTTP/2 only."
_HTTP2_HOST = "The host speaks HTTP/2 only."
_CLIENT_CERTIFICATE = "The host asks for a certificate of the client, whose key would have to be here."
_NO_AUTHORITY = "The sandbox has no certificate authority."
_PINNED = (
    "The client does not accept the sandbox's certificate authority: it may trust only certificates that it knows."
)


class HostTrust:
    """Which certificates of hosts are believed: those that this machine believes, and the operator's own."""

    def __init__(self, extra: Path | None) -> None:
        self._extra = extra
        self._making = asyncio.Lock()
        self._context: ssl.SSLContext | None = None

    async def context(self) -> ssl.SSLContext:
        """Return what a client uses. OSError when the operator's file can't be read."""
        async with self._making:
            if self._context is None:
                # Reading all authorities takes longer than anybody else should wait.
                self._context = await asyncio.to_thread(self._make)
        return self._context

    def _make(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # An answer that was cut off is not to look like a whole one.
        context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        if self._extra is not None:
            context.load_verify_locations(self._extra)
        context.set_alpn_protocols([PROTOCOL])
        return context


async def end_client_tls(flow: Flow, hello: Hello, target: Target) -> SecureWire:
    """Return the client's connection as the host would have it. Raises Refused and Gone."""
    authority = flow.sandbox.authority
    if authority is None:
        raise Refused(Reason.CANNOT_REWRITE, detail=_NO_AUTHORITY)
    if hello.protocols and PROTOCOL.encode() not in hello.protocols:
        raise Refused(Reason.CANNOT_REWRITE, detail=_HTTP2_CLIENT)
    assert not isinstance(flow.client, SecureWire)  # noqa: S101 - ended once
    secure = SecureWire(flow.client, authority.context(target.name))
    flow.allow(flow.services.settings.limits.head_seconds)
    try:
        await secure.handshake()
    except Gone as gone:
        # One that left said the same without a word.
        said = f" It said {gone.alert.lower()}." if isinstance(gone, TlsBroken) and "ALERT" in gone.alert else ""
        raise Refused(Reason.CANNOT_REWRITE, detail=_PINNED + said) from None
    return secure


async def begin_host_tls(flow: Flow, wire: Wire, target: Target) -> SecureWire:
    """Return the connection to a host that has proved its name. Raises Refused."""
    try:
        context = await flow.services.host_trust.context()
        secure = SecureWire(wire, context, server_name=target.name)
        await secure.handshake()
    except TlsBroken as broken:
        wire.reset()
        raise refusal_of_host(broken) from None
    except (Gone, OSError, ValueError) as error:
        wire.reset()
        raise Refused(Reason.TLS_FAILED, detail=None if isinstance(error, Gone) else str(error)[:200]) from None
    except BaseException:
        wire.reset()
        raise
    return secure


def refusal_of_host(broken: TlsBroken) -> Refused:
    """Return why there is no TLS with a host."""
    if isinstance(broken.error, ssl.SSLCertVerificationError):
        message = f"Its certificate is not valid: {broken.error.verify_message}."
        return Refused(Reason.TLS_FAILED, detail=message[:200])
    if "CERTIFICATE_REQUIRED" in broken.alert:
        return Refused(Reason.CANNOT_REWRITE, detail=_CLIENT_CERTIFICATE)
    if "NO_APPLICATION_PROTOCOL" in broken.alert:
        return Refused(Reason.CANNOT_REWRITE, detail=_HTTP2_HOST)
    return Refused(Reason.TLS_FAILED, detail=f"The host says {broken.alert.lower()}."[:200] if broken.alert else None)
