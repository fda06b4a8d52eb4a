"""The node's two HTTP doors, both unix sockets: `control` for web and worker, `edge` for the gateway.

Ids, digests and numbers only; paths, mounts, arguments and uids come from the node's own store.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from corekit import __version__, tracing
from corekit.clock import epoch_ms
from sandboxes.node import linux
from sandboxes.node.cgroups import detect
from sandboxes.node.errors import BadRequest, NodeError, TooLarge, UnknownSandbox
from sandboxes.node.keeper import Keeper
from sandboxes.node.samples import measure, samples
from sandboxes.node.sockets import is_welcome
from sandboxes.node.spec import Spec, is_grant, network_document, parse_spec, served_ports, whole

logger = structlog.get_logger()

_KEEPER: web.AppKey[Keeper] = web.AppKey("keeper", Keeper)
_STARTED: web.AppKey[int] = web.AppKey("started", int)
_UIDS: web.AppKey[frozenset[int]] = web.AppKey("uids", frozenset)

_MAX_BODY_BYTES = 1024 * 1024
_MAX_TTL_MS = 31 * 24 * 3600 * 1000
_MAX_WAIT_MS = 30_000
_MAX_EVENTS = 2_000
_MAX_INT = 2**53
_DIGITS = re.compile(r"[0-9]{1,16}")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    transport = request.transport
    if transport is None or not is_welcome(transport.get_extra_info("socket"), request.app[_UIDS]):
        if transport is not None:
            transport.close()
        raise web.HTTPForbidden
    trace = tracing.begin(request.headers.get("X-Request-Id", ""), request.headers.get("traceparent", ""))
    structlog.contextvars.bind_contextvars(request_id=trace.request_id, trace_id=trace.trace_id)
    try:
        return await handler(request)
    except NodeError as error:
        return web.json_response(error.as_body(), status=error.status)
    except web.HTTPRequestEntityTooLarge:
        too_large = TooLarge(f"The body must fit in {_MAX_BODY_BYTES} bytes.", field="body")
        return web.json_response(too_large.as_body(), status=too_large.status)
    except web.HTTPException as refusal:
        body = {"error": {"code": "no_such_call", "message": f"{request.method} {request.path}: {refusal.reason}."}}
        return web.json_response(body, status=refusal.status)
    except Exception as failure:
        # The last door before aiohttp's own: nobody gets a trace, and the log gets all of it.
        logger.exception("request_failed", method=request.method, path=request.path)
        return web.json_response(NodeError(f"The node failed: {failure!r}.").as_body(), status=NodeError.status)


def _application(keeper: Keeper, uids: frozenset[int]) -> web.Application:
    app = web.Application(middlewares=[_guard], client_max_size=_MAX_BODY_BYTES)
    app[_KEEPER] = keeper
    app[_STARTED] = epoch_ms()
    app[_UIDS] = uids
    return app


def control_app(keeper: Keeper, uids: frozenset[int]) -> web.Application:
    """Return the internal API; requests of other users than `uids` are cut off."""
    app = _application(keeper, uids)
    app.add_routes(
        [
            web.get("/v1/health", _health),
            web.get("/v1/capabilities", _capabilities),
            web.get("/v1/sandboxes", _list),
            web.post("/v1/sandboxes", _start),
            web.get("/v1/sandboxes/{id}", _detail),
            web.delete("/v1/sandboxes/{id}", _stop),
            web.post("/v1/sandboxes/{id}/deadline", _deadline),
            web.post("/v1/sandboxes/{id}/pause", _pause),
            web.post("/v1/sandboxes/{id}/resume", _resume),
            web.get("/v1/sandboxes/{id}/metrics", _metrics),
            web.get("/v1/sandboxes/{id}/samples", _samples),
            web.put("/v1/sandboxes/{id}/network", _set_network),
            web.put("/v1/sandboxes/{id}/grants/{key_id}", _grant),
            web.delete("/v1/grants/{key_id}", _revoke),
            web.get("/v1/events", _events),
            web.post("/v1/events/ack", _acknowledge),
        ]
    )
    return app


def edge_app(keeper: Keeper, uids: frozenset[int]) -> web.Application:
    """Return the gateway's door: the stream of routes."""
    app = _application(keeper, uids)
    app.add_routes([web.get("/v1/routes", _routes)])
    return app


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.read())
    except (ConnectionError, HttpProcessingError, web.RequestPayloadError):
        raise BadRequest("The body did not come whole.", field="body") from None
    except (ValueError, RecursionError):
        raise BadRequest("The body must be JSON.", field="body") from None
    if not isinstance(body, dict):
        raise BadRequest("The body must be a JSON object.", field="body")
    return body


def _query(request: web.Request, name: str, default: int, high: int) -> int:
    text = request.query.get(name, str(default))
    if not _DIGITS.fullmatch(text) or int(text) > high:
        raise BadRequest(f"{name} must be a whole number up to {high}.", field=name)
    return int(text)


async def _health(request: web.Request) -> web.Response:
    keeper = request.app[_KEEPER]
    return web.json_response(
        {
            "node_id": keeper.node_id,
            "boot_id": linux.boot_id(),
            "version": __version__,
            "started_at": request.app[_STARTED],
            "sandboxes": len(keeper.sandboxes),
        }
    )


async def _capabilities(request: web.Request) -> web.Response:
    keeper = request.app[_KEEPER]
    tiers = {}
    for name, runtime in keeper.runtimes.items():
        found = runtime.probe()
        tiers[name] = {
            "available": found.available,
            "runtimes": found.runtimes,
            "reason": found.reason,
            "fix": found.fix,
        }
    return web.json_response(
        {
            "tiers": tiers,
            "cgroup_mode": detect().mode,
            "capacity": keeper.admission.capacity(),
            "egress": {"available": keeper.ways.is_served, "second_lock": keeper.ways.is_locked},
        }
    )


async def _list(request: web.Request) -> web.Response:
    keeper = request.app[_KEEPER]
    rows = [sandbox.summary() for sandbox in keeper.sandboxes.values()]
    rows += [_starting(spec) for spec, _task in keeper.starting.values()]
    rows += [_ended(event) for event in keeper.ended.values()]
    return web.json_response({"node_id": keeper.node_id, "boot_id": linux.boot_id(), "sandboxes": rows})


def _starting(spec: Spec) -> dict[str, Any]:
    return {"id": spec.id, "generation": spec.generation, "tenant": spec.tenant, "state": "starting"}


def _ended(event: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": event["sandbox"],
        "generation": event["generation"],
        "tenant": event["tenant"],
        "state": "ended",
        "reason": event["details"]["reason"],
        "ended_at": event["at"],
    }


async def _start(request: web.Request) -> web.Response:
    sandbox = await request.app[_KEEPER].start(parse_spec(await _body(request)))
    return web.json_response(sandbox.summary(), status=201)


async def _detail(request: web.Request) -> web.Response:
    keeper, sandbox_id = request.app[_KEEPER], request.match_info["id"]
    if sandbox_id in keeper.sandboxes:
        sandbox = keeper.sandboxes[sandbox_id]
        network = {"mode": sandbox.spec.network_mode, "version": keeper.ways.version(sandbox_id)}
        return web.json_response(sandbox.summary() | {"network": network, "attestation": sandbox.attestation})
    if sandbox_id in keeper.starting:
        return web.json_response(_starting(keeper.starting[sandbox_id][0]))
    if sandbox_id in keeper.ended:
        return web.json_response(_ended(keeper.ended[sandbox_id]))
    raise UnknownSandbox(f"There is no sandbox {sandbox_id} here.", id=sandbox_id)


async def _stop(request: web.Request) -> web.Response:
    generation = _query(request, "generation", 0, _MAX_INT) or None
    reason = await request.app[_KEEPER].stop(request.match_info["id"], generation)
    return web.json_response({"state": "ended", "reason": reason})


async def _deadline(request: web.Request) -> web.Response:
    body = await _body(request)
    end_at = request.app[_KEEPER].set_deadline(
        request.match_info["id"],
        whole(body, "generation", 1, _MAX_INT),
        whole(body, "ttl_ms", 0, _MAX_TTL_MS),
        extend_only=body.get("extend_only") is True,
    )
    return web.json_response({"end_at": end_at})


async def _pause(request: web.Request) -> web.Response:
    generation = whole(await _body(request), "generation", 1, _MAX_INT)
    sandbox = await request.app[_KEEPER].pause(request.match_info["id"], generation)
    return web.json_response(sandbox.summary())


async def _resume(request: web.Request) -> web.Response:
    body = await _body(request)
    generation, ttl_ms = whole(body, "generation", 1, _MAX_INT), whole(body, "ttl_ms", 0, _MAX_TTL_MS)
    sandbox = await request.app[_KEEPER].resume(request.match_info["id"], generation, ttl_ms)
    return web.json_response(sandbox.summary())


async def _set_network(request: web.Request) -> web.Response:
    body = await _body(request)
    generation, document = whole(body, "generation", 1, _MAX_INT), network_document(body)
    ports = served_ports(body, "ingress_ports")
    version = await request.app[_KEEPER].set_network(request.match_info["id"], generation, document, ports)
    return web.json_response({"version": version})


async def _grant(request: web.Request) -> web.Response:
    body, key_id = await _body(request), request.match_info["key_id"]
    if not is_grant(key_id, None):
        raise BadRequest("The key's id has the wrong form.", field="key_id")
    if not is_grant(key_id, body.get("expires_at")):
        raise BadRequest("expires_at must be a time in milliseconds or null.", field="expires_at")
    request.app[_KEEPER].grant(
        request.match_info["id"], whole(body, "generation", 1, _MAX_INT), key_id, body.get("expires_at")
    )
    return web.json_response({})


async def _revoke(request: web.Request) -> web.Response:
    return web.json_response({"sandboxes": request.app[_KEEPER].revoke_key(request.match_info["key_id"])})


async def _metrics(request: web.Request) -> web.Response:
    return web.json_response(measure(request.app[_KEEPER].require(request.match_info["id"])))


async def _samples(request: web.Request) -> web.Response:
    start_ms, end_ms = _query(request, "start_ms", 0, _MAX_INT), _query(request, "end_ms", _MAX_INT, _MAX_INT)
    sandbox = request.app[_KEEPER].require(request.match_info["id"])
    return web.json_response({"samples": samples(sandbox, start_ms, end_ms)})


async def _events(request: web.Request) -> web.Response:
    keeper = request.app[_KEEPER]
    after = _query(request, "after", 0, _MAX_INT)
    wait_ms = _query(request, "wait_ms", 0, _MAX_WAIT_MS)
    if wait_ms:
        await keeper.spool.wait_after(after, wait_ms / 1000)
    events = keeper.spool.after(after, min(_query(request, "limit", 500, _MAX_INT), _MAX_EVENTS))
    return web.json_response({"node_id": keeper.node_id, "events": events, "last": keeper.spool.last_seq})


async def _acknowledge(request: web.Request) -> web.Response:
    request.app[_KEEPER].acknowledge(whole(await _body(request), "upto", 0, _MAX_INT))
    return web.json_response({})


async def _routes(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    with contextlib.suppress(ConnectionError):  # the gateway went away; it connects again
        await response.prepare(request)
        async with contextlib.aclosing(request.app[_KEEPER].feed.listen()) as lines:
            async for line in lines:
                await response.write(line)
    return response
