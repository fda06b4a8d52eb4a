"""The REST API of sandboxes, executions, templates and nodes."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rest_framework.response import Response

from audit import selectors as audit_selectors
from audit.api.serializers import EventFilter, EventSerializer, OperationSerializer
from audit.api.views import event_order, event_query
from corekit import clock
from corekit.errors import NotFound
from corekit.web.paging import Order
from corekit.web.schema import documented, documented_list
from corekit.web.views import ApiView
from sandboxes import access, actions, catalog, executions, node_client, offboarding
from sandboxes.api import serializers as shapes
from sandboxes.api.networks import NetworkBody
from sandboxes.e2b.requests import digest, idempotency_key, metadata_filter
from sandboxes.launch import Ingress
from sandboxes.networks import Wish
from tenants import policy
from tenants import selectors as tenant_selectors
from tenants.api.views import OfTenant
from tenants.injection import Asked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rest_framework.request import Request

    from sandboxes.access import Access

NEWEST = Order(("-started_at", "id"))
LATEST = Order(("-created_at", "id"))
BY_NAME = Order(("name", "id"))
BY_ID = Order(("id",))
_WINDOW = timedelta(minutes=1)


def opened(granted: Access) -> dict[str, Any]:
    """Return a sandbox with the way to its inside."""
    return {**shapes.SandboxSerializer(granted.sandbox).data, "access": access.doors(granted)}


class Sandboxes(ApiView):
    """`/sandboxes`."""

    @documented_list(
        "list_sandboxes",
        "Sandboxes",
        "List sandboxes",
        item=shapes.SandboxSerializer,
        scope="sandboxes:read",
        query=shapes.SandboxFilter,
    )
    def get(self, request: Request) -> Response:
        """List sandboxes: operators see all, everybody else their tenant's."""
        query = self.query(shapes.SandboxFilter)
        rows = catalog.sandboxes_for(self.actor, _sandbox_query(query))
        order = NEWEST.reversed() if query["order"] == "asc" else NEWEST
        return self.page(rows, order, shapes.SandboxSerializer, query)

    @documented(
        "create_sandbox",
        "Sandboxes",
        "Create a sandbox",
        scope="sandboxes:write",
        body=shapes.NewSandboxBody,
        answer=shapes.OpenedSerializer,
        status=201,
    )
    def post(self, request: Request) -> Response:
        """Create a sandbox and return it running. With an Idempotency-Key a repeated call gets the same one."""
        key = idempotency_key(request.headers.get("Idempotency-Key"))
        wanted = self.body(shapes.NewSandboxBody)
        granted = actions.create_sandbox(
            actor=self.actor,
            idempotency_key=key,
            request_digest=digest(request.data) if key else "",
            **_create_arguments(wanted),
        )
        return Response(opened(granted), status=201)


def _sandbox_query(query: Mapping[str, Any]) -> catalog.SandboxQuery:
    return catalog.SandboxQuery(
        state=query["state"],
        template=query.get("template"),
        tier=query.get("tier"),
        metadata=metadata_filter(query.get("metadata", "")),
        started_since=query.get("started_since"),
        started_before=query.get("started_before"),
        tenant_id=query.get("tenant_id"),
    )


def _create_arguments(wanted: Mapping[str, Any]) -> dict[str, Any]:
    lifecycle, ingress = wanted.get("lifecycle", {}), wanted.get("ingress", {})
    asked = {name: wanted[name] for name in ("tier", "profile", "runtime", "metadata", "env") if name in wanted}
    return {
        **asked,
        **wanted.get("limits", {}),
        "template": wanted["template"],
        "timeout_s": wanted["timeout"],
        "auto_pause": lifecycle.get("on_timeout") == "pause",
        "auto_resume": lifecycle.get("auto_resume", False),
        "ingress": Ingress(**ingress),
        "network": Wish(policy=wanted.get("network"), injected=_injected(wanted)),
    }


def _injected(wanted: Mapping[str, Any]) -> Asked:
    return Asked(wanted.get("rules", {}), wanted.get("identities", {}), wanted.get("secrets"))


class OfSandbox(ApiView):
    """Base of all views below one sandbox: who asks for one that never was their tenant's is recorded."""

    def handle_exception(self, exc: Exception) -> Response:
        """Answer an error."""
        if isinstance(exc, NotFound):
            actions.note_denied(actor=self.actor, sandbox_id=self.kwargs["sandbox_id"])
        return super().handle_exception(exc)


class Sandbox(OfSandbox):
    """`/sandboxes/{sandbox}`."""

    @documented("get_sandbox", "Sandboxes", "Show a sandbox", scope="sandboxes:read", answer=shapes.DetailSerializer)
    def get(self, request: Request, sandbox_id: str) -> Response:
        """Return one sandbox, also after its end."""
        return Response(shapes.DetailSerializer(catalog.sandbox_for(self.actor, sandbox_id)).data)

    @documented("kill_sandbox", "Sandboxes", "Kill a sandbox", scope="sandboxes:write")
    def delete(self, request: Request, sandbox_id: str) -> Response:
        """End a sandbox in any state; answers when it is really gone."""
        actions.kill_sandbox(actor=self.actor, sandbox_id=sandbox_id)
        return Response(status=204)


class SandboxAccess(OfSandbox):
    """`/sandboxes/{sandbox}/access`."""

    @documented(
        "open_sandbox",
        "Sandboxes",
        "Get access to a sandbox",
        scope="sandboxes:use",
        body=shapes.NothingBody,
        answer=shapes.OpenedSerializer,
    )
    def post(self, request: Request, sandbox_id: str) -> Response:
        """Return the caller's token and the URLs with which commands, files and ports are reached."""
        policy.require(self.actor, "sandboxes:use")
        self.body(shapes.NothingBody)
        return Response(opened(actions.open_sandbox(actor=self.actor, sandbox_id=sandbox_id)))


class Extend(OfSandbox):
    """`/sandboxes/{sandbox}/extend`."""

    @documented(
        "extend_sandbox",
        "Sandboxes",
        "Extend a sandbox",
        scope="sandboxes:write",
        body=shapes.TimeoutBody,
        answer=shapes.SandboxSerializer,
    )
    def post(self, request: Request, sandbox_id: str) -> Response:
        """Let a running sandbox go on for at least this long; never shortens."""
        timeout = self.body(shapes.TimeoutBody)["timeout"]
        actions.refresh_sandbox(actor=self.actor, sandbox_id=sandbox_id, duration_s=timeout, field="timeout")
        return Response(shapes.SandboxSerializer(catalog.sandbox_for(self.actor, sandbox_id)).data)


class Pause(OfSandbox):
    """`/sandboxes/{sandbox}/pause`."""

    @documented(
        "pause_sandbox",
        "Sandboxes",
        "Pause a sandbox",
        scope="sandboxes:write",
        body=shapes.NothingBody,
        answer=shapes.SandboxSerializer,
    )
    def post(self, request: Request, sandbox_id: str) -> Response:
        """Freeze a sandbox with its memory: its CPU and its place are given back, memory and disk stay reserved."""
        self.body(shapes.NothingBody)
        actions.pause_sandbox(actor=self.actor, sandbox_id=sandbox_id)
        return Response(shapes.SandboxSerializer(catalog.sandbox_for(self.actor, sandbox_id)).data)


class Resume(OfSandbox):
    """`/sandboxes/{sandbox}/resume`."""

    @documented(
        "resume_sandbox",
        "Sandboxes",
        "Resume a sandbox",
        scope="sandboxes:use",
        body=shapes.WakeBody,
        answer=shapes.OpenedSerializer,
    )
    def post(self, request: Request, sandbox_id: str) -> Response:
        """Let a paused sandbox go on; 429 when the quota has no room for it."""
        timeout = self.body(shapes.WakeBody)["timeout"]
        return Response(opened(actions.resume_sandbox(actor=self.actor, sandbox_id=sandbox_id, timeout_s=timeout)))


class Network(OfSandbox):
    """`/sandboxes/{sandbox}/network`."""

    @documented(
        "set_network",
        "Sandboxes",
        "Change what a sandbox may reach",
        scope="sandboxes:write",
        body=NetworkBody,
        answer=shapes.SandboxSerializer,
    )
    def put(self, request: Request, sandbox_id: str) -> Response:
        """Put a running sandbox under another policy and rules; answers once that holds, also for what is open."""
        wanted = self.body(NetworkBody)
        wish = Wish(policy=wanted["policy"], injected=_injected(wanted))
        actions.set_network(actor=self.actor, sandbox_id=sandbox_id, wish=wish)
        return Response(shapes.SandboxSerializer(catalog.sandbox_for(self.actor, sandbox_id)).data)


class Attestation(OfSandbox):
    """`/sandboxes/{sandbox}/attestation`."""

    @documented(
        "get_attestation",
        "Sandboxes",
        "Show what a sandbox really got",
        scope="sandboxes:read",
        answer=shapes.AttestationSerializer,
    )
    def get(self, request: Request, sandbox_id: str) -> Response:
        """Return what was read from the host's side before the sandbox was handed out. Live sandboxes only."""
        sandbox = catalog.sandbox_for(self.actor, sandbox_id)
        facts = node_client.local_node().get(sandbox.pk).get("attestation") or {}
        answer = {"sandbox": sandbox.pk, "tier": sandbox.tier, "profile": sandbox.profile, "facts": facts}
        return Response(shapes.AttestationSerializer(answer).data)


class Metrics(OfSandbox):
    """`/sandboxes/{sandbox}/metrics`."""

    @documented(
        "get_metrics",
        "Sandboxes",
        "Show what a sandbox uses",
        scope="sandboxes:read",
        query=shapes.WindowQuery,
        answer=shapes.MetricsSerializer,
    )
    def get(self, request: Request, sandbox_id: str) -> Response:
        """Return the samples of a time window, of the last hour at most. Live sandboxes only."""
        sandbox = catalog.sandbox_for(self.actor, sandbox_id)
        window = self.query(shapes.WindowQuery)
        end = window.get("end") or clock.now()
        start = window.get("start") or end - _WINDOW
        samples = node_client.local_node().samples(sandbox.pk, max(0, clock.to_ms(start)), max(0, clock.to_ms(end)))
        answer = {"samples": [{**sample, "at": clock.from_ms(sample["at"])} for sample in samples]}
        return Response(shapes.MetricsSerializer(answer).data)


class Events(OfSandbox):
    """`/sandboxes/{sandbox}/events`."""

    @documented_list(
        "list_sandbox_events",
        "Sandboxes",
        "List what happened to a sandbox",
        item=EventSerializer,
        scope="sandboxes:read",
        query=EventFilter,
    )
    def get(self, request: Request, sandbox_id: str) -> Response:
        """List the sandbox's events: what was done to it and in it, never with the arguments."""
        sandbox = catalog.sandbox_for(self.actor, sandbox_id)
        query = self.query(EventFilter)
        asked = event_query(query, sandbox_id=sandbox.pk)
        rows = audit_selectors.events_of_object(self.actor, asked)
        return self.page(rows, event_order(query), EventSerializer, query)


class Executions(ApiView):
    """`/executions`."""

    @documented_list(
        "list_executions",
        "Executions",
        "List executions",
        item=shapes.ExecutionRowSerializer,
        scope="sandboxes:read",
        query=shapes.ExecutionFilter,
    )
    def get(self, request: Request) -> Response:
        """List executions, newest first: operators see all, everybody else their tenant's."""
        query = self.query(shapes.ExecutionFilter)
        rows = catalog.executions_for(self.actor, state=query.get("state"), tenant_id=query.get("tenant_id"))
        return self.page(rows, LATEST, shapes.ExecutionRowSerializer, query)

    @documented(
        "execute",
        "Executions",
        "Run code",
        scope="sandboxes:use",
        body=shapes.NewExecutionBody,
        answer=shapes.ExecutionSerializer,
        status=201,
    )
    def post(self, request: Request) -> Response:
        """Run code at the tier that it needs, in a sandbox of its own, and return what came of it once it ended.

        With an Idempotency-Key a repeated call gets the first one's result.
        """
        key = idempotency_key(request.headers.get("Idempotency-Key"))
        wish = executions.Wish(
            **self.body(shapes.NewExecutionBody),
            idempotency_key=key,
            request_digest=digest(request.data) if key is not None else "",
        )
        row = executions.execute(actor=self.actor, wish=wish)
        return Response(shapes.ExecutionSerializer(row).data, status=201)


class Execution(ApiView):
    """`/executions/{execution}`."""

    @documented(
        "get_execution", "Executions", "Show an execution", scope="sandboxes:read", answer=shapes.ExecutionSerializer
    )
    def get(self, request: Request, execution_id: str) -> Response:
        """Return one execution; what it wrote only to callers who may use sandboxes."""
        return Response(shapes.ExecutionSerializer(catalog.execution_for(self.actor, execution_id)).data)


class Offboard(OfTenant):
    """`/tenants/{tenant}/offboard`."""

    @documented(
        "offboard_tenant",
        "Tenants",
        "Erase a tenant",
        scope="platform:write",
        body=shapes.OffboardBody,
        answer=OperationSerializer,
        status=202,
    )
    def post(self, request: Request, tenant_id: str) -> Response:
        """End and erase everything of a tenant, for good. The operation says how far it is and what it was."""
        tenant = tenant_selectors.tenant_for(self.actor, tenant_id, "platform:write")
        confirm = self.body(shapes.OffboardBody)["confirm"]
        operation = offboarding.offboard_tenant(actor=self.actor, tenant=tenant, confirm=confirm)
        return Response(OperationSerializer(operation).data, status=202)


class Templates(ApiView):
    """`/templates`."""

    @documented_list(
        "list_templates", "Templates", "List templates", item=shapes.TemplateSerializer, scope="templates:read"
    )
    def get(self, request: Request) -> Response:
        """List the public templates and the tenant's own."""
        return self.page(catalog.templates_for(self.actor), BY_NAME, shapes.TemplateSerializer)


class Template(ApiView):
    """`/templates/{template}`."""

    @documented(
        "get_template", "Templates", "Show a template", scope="templates:read", answer=shapes.TemplateSerializer
    )
    def get(self, request: Request, template_id: str) -> Response:
        """Return one template."""
        return Response(shapes.TemplateSerializer(catalog.template_for(self.actor, template_id)).data)


class Nodes(ApiView):
    """`/nodes`."""

    @documented_list("list_nodes", "Nodes", "List nodes", item=shapes.NodeSerializer, scope="platform:write")
    def get(self, request: Request) -> Response:
        """List the hosts that keep sandboxes, for operators."""
        return self.page(catalog.nodes_for(self.actor), BY_ID, shapes.NodeSerializer)


class Node(ApiView):
    """`/nodes/{node}`."""

    @documented("get_node", "Nodes", "Show a node", scope="platform:write", answer=shapes.NodeSerializer)
    def get(self, request: Request, node_id: str) -> Response:
        """Return one node: what it can do, and when it was last heard."""
        return Response(shapes.NodeSerializer(catalog.node_for(self.actor, node_id)).data)
