"""What is no HTTP any more goes on as it is: by `Relay` between plain sockets, here where TLS ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sandboxes.egress.relay import Relay
from sandboxes.egress.wire import Gone, Wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandboxes.egress.flow import Flow, Stream


async def pass_everything(flow: Flow) -> str:
    """Pass everything on between both ends of a flow, record its passage, and return how it ended."""
    client, server = flow.client, flow.server
    assert server is not None  # noqa: S101 - opened by the caller
    flow.can_answer = False
    flow.run_on()
    if isinstance(client, Wire) and isinstance(server, Wire):
        how = await Relay(client, server, flow.count_out, flow.count_in).run()
    else:
        how = await Pump(client, server, flow.count_out, flow.count_in).run()
    flow.end_passage(how)
    return how


class Pump:
    """Between a client and a server. The end of either is the end of both: TLS has no half of a connection."""

    def __init__(
        self, client: Stream, server: Stream, count_out: Callable[[int], bool], count_in: Callable[[int], bool]
    ) -> None:
        """Take both. The counters are asked before bytes go on; False ends the flow."""
        self._outwards = (client, server, count_out)
        self._inwards = (server, client, count_in)

    async def run(self) -> str:
        """Pass everything on until one side has ended; return how it ended: done, reset or limit."""
        tasks = [asyncio.create_task(_pass(*way)) for way in (self._outwards, self._inwards)]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return next(iter(done)).result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _pass(source: Stream, sink: Stream, count: Callable[[int], bool]) -> str:
    data = source.take()
    try:
        while True:
            if data:
                if not count(len(data)):
                    return "limit"
                await sink.send(data)
            data = await source.receive()
            if not data:
                return "done"
    except Gone:
        return "reset"
