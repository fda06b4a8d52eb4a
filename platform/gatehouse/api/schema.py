"""The schema of the REST API, and the page that shows it. Neither needs a key: they tell of code, not of tenants."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from django.http import HttpResponse
from django.views import View
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiJsonRenderer2
from drf_spectacular.views import SpectacularSwaggerSplitView

from gatehouse.api.problems import MEDIA_TYPE

if TYPE_CHECKING:
    from django.http import HttpRequest

    Endpoint = tuple[str, str, str, Any]

_PROBLEM = {
    "type": "object",
    "description": "An error, RFC 9457.",
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {
        "type": {"type": "string", "examples": ["urn:gatehouse:problem:quota_exceeded"]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "One sentence for people."},
        "code": {"type": "string", "description": "Stable; programs branch on it."},
        "field": {"type": "string", "description": "The input at fault."},
        "details": {"type": "object", "additionalProperties": True},
        "retry_after": {"type": "integer", "description": "Seconds, as in the header Retry-After."},
        "request_id": {"type": "string"},
    },
}
_WHEN = {
    "400": "A wrong value; `field` names it.",
    "401": "No key, or an unknown, expired or revoked one.",
    "403": "The key lacks a scope, or the tenant is suspended.",
    "404": "Unknown, or another tenant's.",
    "405": "Not a method of this path.",
    "409": "Not in this state, or not on this host.",
    "413": "The body is too large.",
    "415": "The body is not JSON.",
    "429": "A quota has no room, or too many calls.",
    "500": "A fault of ours; the log has the request id.",
    "503": "A node is away for the moment.",
}
_ALWAYS = ("400", "401", "403", "405", "429", "500", "503")


def only_rest(endpoints: list[Endpoint]) -> list[Endpoint]:
    """Leave out what is described elsewhere: the E2B protocol."""
    return [endpoint for endpoint in endpoints if endpoint[0].startswith("/api/v1/")]


def document_problems(result: dict[str, Any], generator: object, request: object, *, public: bool) -> dict[str, Any]:
    """Add to every operation the errors that it may answer."""
    components = result.setdefault("components", {})
    components.setdefault("schemas", {})["Problem"] = _PROBLEM
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    components["responses"] = {
        f"Problem{status}": {"description": text, "content": content} for status, text in _WHEN.items()
    }
    for path, operations in result["paths"].items():
        for method, operation in operations.items():
            # One of them is enough; the framework would ask for both headers of the key.
            operation["security"] = [{name: []} for name in ("apiKey", "bearer", "operatorSession")]
            for status in _problems_of(path, method):
                operation["responses"][status] = {"$ref": f"#/components/responses/Problem{status}"}
    return result


def _problems_of(path: str, method: str) -> list[str]:
    statuses = [*_ALWAYS]
    if "{" in path:
        statuses.append("404")
    if method != "get":
        statuses += ["409", "413", "415"]
    return sorted(statuses)


class ApiKeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """An API key, in either header."""

    target_class = "gatehouse.api.authentication.ApiKeyAuthentication"
    name = ["apiKey", "bearer"]  # noqa: RUF012

    def get_security_definition(self, auto_schema: object) -> list[dict[str, str]]:
        """Describe both headers."""
        return [{"type": "apiKey", "in": "header", "name": "X-API-KEY"}, {"type": "http", "scheme": "bearer"}]


class OperatorSessionScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """An operator's session of the console."""

    target_class = "gatehouse.api.authentication.OperatorSession"
    name = "operatorSession"

    def get_security_definition(self, auto_schema: object) -> dict[str, str]:
        """Describe the cookie."""
        return {
            "type": "apiKey",
            "in": "cookie",
            "name": "session",
            "description": "The console's cookie; changes also need its CSRF token in X-CSRFToken.",
        }


@functools.cache
def document() -> bytes:
    """Return the schema as JSON. It depends on the code alone, so that it is made once."""
    schema = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    rendered: bytes = OpenApiJsonRenderer2().render(schema, renderer_context={})
    return rendered


class Schema(View):
    """`GET /api/schema`."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """Return the schema."""
        return HttpResponse(document(), content_type="application/vnd.oai.openapi+json")


class Docs(SpectacularSwaggerSplitView):
    """`GET /api/docs`: the schema as a page. All of its files are ours, and none of its scripts is inline."""

    template_name = "gatehouse/api_docs.html"
    url_name = "api-schema"
