"""One use of a token, from its grant to its settlement: it is given back or settled exactly once, whatever happens."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from corekit.errors import GatehouseError, TooLarge
from tenants.broker import headers, problems, redeeming
from tenants.broker.asking import Reason
from tenants.broker.bodyrules import MAX_BODY
from tenants.broker.exchange import BrokenOff, Exchange, NotSent, Request
from tenants.broker.incoming import ClientGone

if TYPE_CHECKING:
    from tenants.broker.call import Call
    from tenants.broker.exchange import Send
    from tenants.broker.paths import Place
    from tenants.broker.redeeming import Grant
    from tenants.broker.threads import Threads
    from tenants.broker.upstream import Upstreams
    from tenants.broker.watching import Watch

logger = structlog.get_logger("tenants.broker")


class Use:
    """Runs once."""

    def __init__(self, call: Call, grant: Grant, threads: Threads) -> None:
        self._call = call
        self._grant = grant
        self._threads = threads

    async def prepare(self, place: Place, upstreams: Upstreams, send: Send) -> Exchange:
        """Make everything ready for the first byte that goes out. What fails here uses nothing up."""
        call, grant = self._call, self._grant
        try:
            call.incoming.most = grant.max_body
            body = await self._whole_body() if grant.params else None
            secret = headers.credential(grant.service.slot, grant.secret.reveal())
            session = upstreams.session(grant.tenant_id, grant.service)
        except BaseException as problem:
            # Harmless for a use that is given back already.
            reason = _REASONS.get(type(problem), Reason.UPSTREAM_UNAVAILABLE)
            await self._threads.run_to_the_end(redeeming.refund, grant, reason)
            raise
        passed = headers.passed_on(call.fields, grant.service.headers)
        request = Request(call.method, place, passed, call.length if body is None else len(body), body)
        return Exchange(session, grant.service, secret, request, call.incoming, send)

    async def _whole_body(self) -> bytes:
        body = await self._call.incoming.whole(MAX_BODY)
        await self._threads.run(redeeming.check_body, self._grant, body)
        return body

    async def run(self, exchange: Exchange, watch: Watch) -> None:
        """Make the call. Raises GatehouseError while nothing was answered, BrokenOff afterwards, and ClientGone."""
        error = "interrupted"
        try:
            await self._watched(exchange, watch)
            error = ""
        except NotSent as reason:
            logger.warning("broker_service_unreachable", reason=str(reason), **self._call.names)
            refused = await self._threads.run_to_the_end(redeeming.refund, self._grant)
            raise refused from None
        except (GatehouseError, BrokenOff) as problem:
            error = problem.code
            raise
        except ClientGone:
            error = "client_gone"
            raise
        finally:
            # Harmless for a use that was given back.
            await self._threads.run_to_the_end(redeeming.settle, self._grant, self._outcome(exchange, error))

    async def _watched(self, exchange: Exchange, watch: Watch) -> None:
        """Run a call until it is over, nobody waits for it any more, or its token is ended."""
        loop = asyncio.get_running_loop()
        running = loop.create_task(exchange.run())
        leaving = loop.create_task(self._call.incoming.departure())
        try:
            with watch.over(running, self._grant.token_id):
                done, _ = await asyncio.wait(
                    (running, leaving), timeout=redeeming.LONGEST_CALL_S, return_when=asyncio.FIRST_COMPLETED
                )
                stopped = running in watch.stopped
            if running in done and not stopped:
                running.result()
            elif leaving in done:
                raise ClientGone
            else:
                raise BrokenOff(problems.Stopped.code) if exchange.course.started else problems.Stopped
        finally:
            for task in (running, leaving):
                task.cancel()
            await asyncio.gather(running, leaving, return_exceptions=True)

    def _outcome(self, exchange: Exchange, error: str) -> redeeming.Outcome:
        course = exchange.course
        return redeeming.Outcome(
            status=course.status,
            bytes_in=course.bytes_back,
            bytes_out=self._call.incoming.count,
            usage_tokens=exchange.tokens(),
            reflected=course.reflected,
            error=error,
        )


_REASONS: dict[type[BaseException], Reason] = {
    TooLarge: Reason.TOO_LARGE,
    problems.SecretUnusable: Reason.SECRET_MISSING,
}
