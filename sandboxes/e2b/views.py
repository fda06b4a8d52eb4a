"""The E2B control plane. A view reads the request, calls one action or selector, and shapes the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

from rest_framework.response import Response
from rest_framework.views import APIView

from corekit.errors import NotFound, NotYetAvailable
from sandboxes import actions, logs, node_client, selectors
from sandboxes.e2b import requests, shapes
from tenants import policy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from django.http import HttpRequest
    from rest_framework.request import Request

    from corekit.actor import Actor
    from sandboxes.models import Sandbox

LONGEST_V1_PAGE = 1000
TOTAL_RUNNING = "X-Total-Running"
SAMPLE_PERIOD_MS = 6000
"""A little longer than the time between two samples of a node."""
NEXT_TOKEN = "X-Next-Token"  # noqa: S105


def actor_of(request: Request) -> Actor:
    """Return who calls. Views are reached by authenticated callers only."""
    return cast("Actor", request.auth)


class E2bView(APIView):
    """Base of all calls: reads bodies that come in chunks too."""

    def initialize_request(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Request:
        """Return the framework's request, with the length of a body that has none.

        The JavaScript client sends chunks and no Content-Length, which the framework takes for no body.
        """
        if "CONTENT_LENGTH" not in request.META and "HTTP_TRANSFER_ENCODING" in request.META:
            request.META["CONTENT_LENGTH"] = str(len(request.body))
        return super().initialize_request(request, *args, **kwargs)

    def handle_exception(self, exc: Exception) -> Response:
        """Answer an error; asking for a sandbox that never was one's own is recorded first."""
        if isinstance(exc, NotFound) and "sandbox_id" in self.kwargs:
            actions.note_denied(actor=actor_of(self.request), sandbox_id=self.kwargs["sandbox_id"])
        return super().handle_exception(exc)


class CreateAndListV1(E2bView):
    """`POST /sandboxes` and `GET /sandboxes`: what older clients call."""

    def post(self, request: Request) -> Response:
        """Create a sandbox; without a timeout it lives 15 s."""
        return create(request, default_timeout_s=requests.DEFAULT_TIMEOUT_V1_S)

    def get(self, request: Request) -> Response:
        """List the running sandboxes."""
        return list_sandboxes(request, max_page=LONGEST_V1_PAGE, only_running=True)


class CreateAndListV2(E2bView):
    """`POST /v2/sandboxes` and `GET /v2/sandboxes`."""

    def post(self, request: Request) -> Response:
        """Create a sandbox; without a timeout it lives 300 s."""
        return create(request, default_timeout_s=requests.DEFAULT_TIMEOUT_V2_S)

    def get(self, request: Request) -> Response:
        """List sandboxes, a page at a time."""
        return list_sandboxes(request, max_page=selectors.MAX_PAGE)


def create(request: Request, *, default_timeout_s: int) -> Response:
    """Answer both create calls."""
    body = requests.create_body(request.data, default_timeout_s=default_timeout_s)
    key = requests.idempotency_key(request.headers.get("Idempotency-Key"))
    granted = actions.create_sandbox(
        actor=actor_of(request),
        template=body.template,
        timeout_s=body.timeout_s,
        metadata=body.metadata,
        env=body.env,
        auto_pause=body.auto_pause,
        auto_resume=body.auto_resume,
        ingress=body.ingress,
        network=body.network,
        idempotency_key=key,
        request_digest=requests.digest([default_timeout_s, request.data]) if key else "",
    )
    return Response(shapes.access(granted), status=201)


def list_sandboxes(request: Request, *, max_page: int, only_running: bool = False) -> Response:
    """Answer both list calls."""
    actor = actor_of(request)
    policy.require(actor, actions.READ)
    query = requests.list_query(request.query_params, max_page=max_page, only_running=only_running)
    page, token = selectors.page_of_sandboxes(actor, query)
    headers = {NEXT_TOKEN: token} if token else {}
    if query.paused is not True:
        headers[TOTAL_RUNNING] = str(selectors.running_count(actor))
    return Response([shapes.listed(sandbox) for sandbox in page], headers=headers)


class DetailAndKill(E2bView):
    """`GET` and `DELETE /sandboxes/{id}`."""

    def get(self, request: Request, sandbox_id: str) -> Response:
        """Return one sandbox."""
        return Response(shapes.detail(actions.open_sandbox(actor=actor_of(request), sandbox_id=sandbox_id)))

    def delete(self, request: Request, sandbox_id: str) -> Response:
        """End one sandbox; 204 when it is gone."""
        actions.kill_sandbox(actor=actor_of(request), sandbox_id=sandbox_id)
        return Response(status=204)


class Connect(E2bView):
    """`POST /v2/sandboxes/{id}/connect`; version 1 demands the timeout."""

    default_timeout_s: ClassVar[int | None] = requests.DEFAULT_TIMEOUT_V2_S

    def post(self, request: Request, sandbox_id: str) -> Response:
        """Extend a running sandbox (200) or let a paused one go on (201), and return the caller's token."""
        timeout_s = requests.connect_body(request.data, default_timeout_s=self.default_timeout_s)
        granted = actions.connect_sandbox(actor=actor_of(request), sandbox_id=sandbox_id, timeout_s=timeout_s)
        return Response(shapes.access(granted), status=201 if granted.resumed else 200)


class Resume(E2bView):
    """`POST /sandboxes/{id}/resume`: how old clients let a paused sandbox go on."""

    def post(self, request: Request, sandbox_id: str) -> Response:
        """Let a paused sandbox go on."""
        actor = actor_of(request)
        timeout_s, pauses = requests.resume_body(request.data)
        if pauses and not selectors.sandbox_for(actor, sandbox_id).auto_pause:
            raise NotYetAvailable("What the end of its time does is said when a sandbox is made.", field="autoPause")
        granted = actions.resume_sandbox(actor=actor, sandbox_id=sandbox_id, timeout_s=timeout_s)
        return Response(shapes.access(granted), status=201)


class Pause(E2bView):
    """`POST /sandboxes/{id}/pause`."""

    def post(self, request: Request, sandbox_id: str) -> Response:
        """Freeze a running sandbox; 204 when it is paused."""
        requests.pause_body(request.data)
        actions.pause_sandbox(actor=actor_of(request), sandbox_id=sandbox_id)
        return Response(status=204)


class ConnectV1(Connect):
    """`POST /sandboxes/{id}/connect`."""

    default_timeout_s = None


class Timeout(E2bView):
    """`POST /sandboxes/{id}/timeout`."""

    def post(self, request: Request, sandbox_id: str) -> Response:
        """Set when the sandbox ends, counted from now."""
        timeout_s, extend_only = requests.timeout_body(request.data)
        if extend_only:
            actions.refresh_sandbox(actor=actor_of(request), sandbox_id=sandbox_id, duration_s=timeout_s)
        else:
            actions.set_timeout(actor=actor_of(request), sandbox_id=sandbox_id, timeout_s=timeout_s)
        return Response(status=204)


class Refreshes(E2bView):
    """`POST /sandboxes/{id}/refreshes`: the keep-alive of old clients."""

    def post(self, request: Request, sandbox_id: str) -> Response:
        """Let the sandbox go on for at least a while."""
        duration_s = requests.refresh_body(request.data)
        actions.refresh_sandbox(actor=actor_of(request), sandbox_id=sandbox_id, duration_s=duration_s)
        return Response(status=204)


class Metrics(E2bView):
    """`GET /sandboxes/{id}/metrics`."""

    def get(self, request: Request, sandbox_id: str) -> Response:
        """Return the samples of the wanted window, oldest first."""
        actor = actor_of(request)
        policy.require(actor, actions.READ)
        start_ms, end_ms = requests.metrics_window(request.query_params)
        sandbox = selectors.sandbox_for(actor, sandbox_id)
        samples = _samples(sandbox, max(0, start_ms - SAMPLE_PERIOD_MS), end_ms)
        return Response(shapes.metrics(sandbox, samples, start_ms))


class ManyMetrics(E2bView):
    """`GET /sandboxes/metrics?sandbox_ids=a,b`."""

    def get(self, request: Request) -> Response:
        """Return the current sample of each named sandbox; unknown ones are left out."""
        actor = actor_of(request)
        policy.require(actor, actions.READ)
        wanted = requests.metric_ids(request.query_params)
        found = {}
        for sandbox in selectors.sandboxes_named(actor, wanted).values():
            for measured in _measured(sandbox):
                found[sandbox.pk] = shapes.metric(sandbox, measured)
        return Response({"sandboxes": found})


def _samples(sandbox: Sandbox, start_ms: int, end_ms: int) -> Sequence[Any]:
    try:
        samples = node_client.local_node().samples(sandbox.pk, start_ms, end_ms)
    except NotFound:
        # It ended a moment ago or starts just now: there is nothing to measure.
        return []
    # Right after its start or after the node's, nothing may have been measured yet.
    return samples or [one for one in _measured(sandbox) if start_ms <= one["at"] <= end_ms]


def _measured(sandbox: Sandbox) -> list[Any]:
    try:
        return [node_client.local_node().metrics(sandbox.pk)]
    except NotFound:
        return []


class LogsV1(E2bView):
    """`GET /sandboxes/{id}/logs`."""

    def get(self, request: Request, sandbox_id: str) -> Response:
        """Return the sandbox's log, oldest entry first."""
        entries = _log(request, sandbox_id, requests.logs_query_v1(request.query_params))
        return Response({"logs": [*map(shapes.log_line, entries)], "logEntries": [*map(shapes.log_entry, entries)]})


class LogsV2(E2bView):
    """`GET /v2/sandboxes/{id}/logs`."""

    def get(self, request: Request, sandbox_id: str) -> Response:
        """Return a piece of the sandbox's log, in either direction."""
        entries = _log(request, sandbox_id, requests.logs_query_v2(request.query_params))
        return Response({"logs": [*map(shapes.log_entry, entries)]})


def _log(request: Request, sandbox_id: str, query: logs.LogQuery) -> Sequence[logs.Entry]:
    actor = actor_of(request)
    policy.require(actor, actions.READ)
    return logs.read(selectors.sandbox_of_any_time(actor, sandbox_id), query)


class Network(E2bView):
    """`PUT /sandboxes/{id}/network`."""

    def put(self, request: Request, sandbox_id: str) -> Response:
        """Replace what a running sandbox may reach; 204 once that holds."""
        actions.set_network(actor=actor_of(request), sandbox_id=sandbox_id, wish=requests.network_body(request.data))
        return Response(status=204)


class NotYet(E2bView):
    """A call of the protocol that a later version brings: 501, for authenticated callers."""

    what: ClassVar[str] = "This call"

    def _refuse(self, request: Request, **_: str) -> Response:
        raise NotYetAvailable(f"This version does not offer {self.what} yet.", feature=self.what)

    get = post = put = patch = delete = _refuse
