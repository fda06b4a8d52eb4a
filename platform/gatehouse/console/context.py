"""What every page of the console shows around its content."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gatehouse.console import access, navigation

if TYPE_CHECKING:
    from django.http import HttpRequest


def shell(request: HttpRequest) -> dict[str, Any]:
    """Return viewer, navigation and the tenants to switch to; nothing for pages that have no viewer."""
    viewer = getattr(request, "viewer", None)
    if viewer is None:
        return {}
    return {
        "viewer": viewer,
        "links": navigation.links(viewer, request.path),
        "operator_links": navigation.OPERATORS_ONLY if viewer.is_operator else (),
        "section": navigation.section(viewer, request.path),
        # Asked for when the layout is drawn: a part of a page needs no list of tenants.
        "places": lambda: access.places_of(request.user),  # type: ignore[arg-type]
    }
