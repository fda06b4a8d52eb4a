"""What the sidebar leads to. An entry shows to those whose scopes open its page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from corekit.web.pages import Viewer


@dataclass(frozen=True, slots=True)
class Entry:
    """One page of a tenant and of the operators: its path below both."""

    label: str
    icon: str
    path: str
    scope: str


@dataclass(frozen=True, slots=True)
class Link:
    """An entry as one page shows it."""

    label: str
    icon: str
    url: str
    current: bool


ENTRIES = (Entry("Audit", "list-search", "audit", "audit:read"),)
OPERATORS_ONLY = (
    Link("Back office", "database-cog", "/admin/", current=False),
    Link("REST API", "api", "/api/docs", current=False),
)


def links(viewer: Viewer, path: str) -> list[Link]:
    """Return the entries that a viewer may open."""
    return [
        Link(entry.label, entry.icon, viewer.base + entry.path, current=_is_at(viewer.base + entry.path, path))
        for entry in ENTRIES
        if viewer.actor.has(entry.scope)
    ]


def section(viewer: Viewer, path: str) -> str:
    """Return the path below a tenant that stays the same when somebody switches to another tenant."""
    for entry in ENTRIES:
        if _is_at(viewer.base + entry.path, path):
            return entry.path
    return ENTRIES[0].path


def _is_at(url: str, path: str) -> bool:
    return path == url or path.startswith(f"{url}/")
