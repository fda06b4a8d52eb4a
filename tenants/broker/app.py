"""The secret broker: `/<service>/<path>` with a scoped token in, the service's answer out, and no secret in between.

Plain ASGI beside Django, which would read a whole request before anybody sees it. The database is asked at the
beginning of a call and at its end; no connection is held while it streams.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog

from corekit.errors import GatehouseError
from tenants.broker import noting, problems, redeeming, watching
from tenants.broker.asking import Reason
from tenants.broker.call import Call
from tenants.broker.exchange import BrokenOff
from tenants.broker.incoming import ClientGone
from tenants.broker.threads import Threads
from tenants.broker.upstream import READ_S, Upstreams
from tenants.broker.use import Use

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tenants.broker.exchange import Send
    from tenants.broker.incoming import Receive

logger = structlog.get_logger("tenants.broker")


class BrokerApp:
    """The application of the broker's listener."""

    def __init__(self, *, read_s: float = READ_S) -> None:
        self._threads = Threads()
        self._streams = watching.Streams()
        self._watch = watching.Watch(self._live_among)
        self._upstreams = Upstreams(read_s)

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one request."""
        call = Call(scope, receive, send)
        try:
            await self._serve(call, send)
        except ClientGone:
            return
        except BrokenOff as cut:
            await call.cut(at_once=cut.code == problems.Stopped.code)
        except GatehouseError as error:
            await call.refuse(error)
        except Exception:
            logger.exception("unhandled_exception", **call.names)
            await call.refuse(GatehouseError())

    async def close(self) -> None:
        """Wait until the ends of calls are written down, and close every connection."""
        await self._threads.close()
        await self._upstreams.close()

    async def _serve(self, call: Call, send: Send) -> None:
        caller = call.caller()
        with self._streams.one_more(caller.sandbox_id):
            try:
                place = call.place()
            except GatehouseError:
                await self._threads.run(noting.refuse, Reason.PATH, caller, call.asked(None))
                raise
            grant = await self._threads.run(redeeming.redeem, call.token(), caller, call.asked(place))
            use = Use(call, grant, self._threads)
            await use.run(await use.prepare(place, self._upstreams, send), self._watch)

    async def _live_among(self, token_ids: frozenset[str]) -> frozenset[str]:
        return await self._threads.run(watching.live_among, token_ids)
