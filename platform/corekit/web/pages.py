"""The base of the console's pages. A view asks a selector or calls an action, and renders: nothing else.

Who may look at a page is decided before its view runs, by the layer above, which sets `request.viewer`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from django.shortcuts import render
from django.views import View

from corekit.errors import GatehouseError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from uuid import UUID

    from django.http import HttpRequest, HttpResponse
    from django.http.response import HttpResponseBase

    from corekit.actor import Actor


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks at a page, and at whose: a tenant's (32 hex), or with None the platform's.

    `base` is where the pages of this place begin: `/t/acme/` or `/operator/`. `tenant_names` finds the slugs of
    tenants for pages that show several.
    """

    actor: Actor
    tenant_id: str | None
    slug: str | None
    name: str
    base: str
    tenant_names: Callable[[Collection[UUID]], Mapping[UUID, str]]

    @property
    def is_operator(self) -> bool:
        """Say whether an operator looks, be it at a tenant's pages."""
        return self.actor.tenant_id is None and self.actor.has("*")


def is_partial(request: HttpRequest) -> bool:
    """Say whether a page that is already open asks for a part of itself."""
    headers = request.headers
    return headers.get("HX-Request") == "true" and headers.get("HX-History-Restore-Request") != "true"


def refusal(request: HttpRequest, error: GatehouseError, *, bare: bool = False) -> HttpResponse:
    """Return the page that is shown instead of the one asked for; a bare one has nothing around its message."""
    template = "console/error_part.html" if is_partial(request) else "console/error.html"
    layout = "console/page.html" if hasattr(request, "viewer") and not bare else "console/bare.html"
    response = render(request, template, {"error": error, "layout": layout}, status=error.status)
    for name, value in error.headers().items():
        response[name] = value
    response["Cache-Control"] = "no-store"
    return response


class PageView(View):
    """Base of all pages of a tenant or of the operators."""

    @property
    def viewer(self) -> Viewer:
        """Return who looks."""
        return cast("Viewer", self.request.viewer)  # type: ignore[attr-defined]

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """Serve the page, or say why not."""
        # The tenant's slug has done its work: it is in the viewer.
        kwargs.pop("slug", None)
        try:
            return super().dispatch(request, *args, **kwargs)
        except GatehouseError as error:
            return refusal(request, error)

    def page(self, template: str, context: Mapping[str, Any], *, status: int = 200) -> HttpResponse:
        """Return a page, which no cache keeps: the next reader may be somebody else."""
        response = render(self.request, template, dict(context), status=status)
        response["Cache-Control"] = "no-store"
        response["Vary"] = "Cookie, HX-Request"
        return response
