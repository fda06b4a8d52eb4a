"""The door of all pages of a tenant and of the operators: nothing behind it runs for who has no place there."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

from django.conf import settings
from django.http import HttpResponse, HttpResponseRedirect

from corekit.errors import GatehouseError
from corekit.web import pages
from gatehouse.console import access

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest

GUARDED = ("/t/", "/operator/")


class Viewers:
    """Say who looks at a page, before its view runs: `request.viewer`."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Pass the request on; the work is done when its view is known."""
        return self.get_response(request)

    def process_view(
        self, request: HttpRequest, view: Callable[..., object], args: list[object], kwargs: dict[str, object]
    ) -> HttpResponse | None:
        """Let members and operators pass, send the anonymous to the sign-in page, and know nothing of strangers."""
        if not request.path.startswith(GUARDED):
            return None
        if not request.user.is_authenticated:
            return _sign_in(request)
        slug = kwargs.get("slug")
        try:
            viewer = access.viewer_for(request.user, None if slug is None else str(slug), request.META)
        except GatehouseError as error:
            return pages.refusal(request, error)
        request.viewer = viewer  # type: ignore[attr-defined]
        return None


def _sign_in(request: HttpRequest) -> HttpResponse:
    if pages.is_partial(request):
        # A page that was open when the session ended: the whole of it goes to the sign-in page.
        return HttpResponse(headers={"HX-Redirect": settings.LOGIN_URL})
    return HttpResponseRedirect(f"{settings.LOGIN_URL}?{urlencode({'next': request.get_full_path()})}")
