"""The pages that belong to no app: the way in, and what is shown instead of a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.conf import settings
from django.http import HttpResponseRedirect
from django.shortcuts import render

from corekit.errors import Forbidden
from corekit.web import pages
from gatehouse.console import access, navigation

if TYPE_CHECKING:
    from django.http import HttpRequest, HttpResponse


def home(request: HttpRequest) -> HttpResponse:
    """Lead somebody to the first page that is theirs."""
    user = request.user
    if not user.is_authenticated:
        return HttpResponseRedirect(settings.LOGIN_URL)
    first = navigation.ENTRIES[0].path
    if access.is_operator(user):
        return HttpResponseRedirect(f"/operator/{first}")
    for tenant in access.places_of(user)[:1]:
        return HttpResponseRedirect(f"/t/{tenant.slug}/{first}")
    return render(request, "console/no_tenant.html")


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Refuse a form that did not come from one of our own pages, or is from before its reader signed in anew."""
    return pages.refusal(request, Forbidden("This form is too old or comes from elsewhere. Load the page again."))
