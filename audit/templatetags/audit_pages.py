"""How events are told on pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from django import template
from django.forms import Select

from audit import registry

if TYPE_CHECKING:
    from django.forms.boundfield import BoundField
    from django.utils.safestring import SafeString

    from audit.models import Chain, Event
    from audit.tables import EventTable

register = template.Library()


@register.simple_tag
def sentence(event: Event) -> str:
    """Return what happened as one sentence."""
    return registry.sentence(
        event.code, actor=event.actor_name, target=event.object_name or middle(event.object_id, 18)
    )


@register.filter
def middle(text: str, length: int) -> str:
    """Shorten a text in its middle, where ids differ least from each other."""
    if len(text) <= length:
        return text
    head = (length - 1) // 2
    return f"{text[:head]}…{text[len(text) - (length - 1 - head) :]}"


@register.simple_tag
def tenant_name(table: EventTable, event: Event) -> str:
    """Return whose event it is."""
    return table.tenants.get(event.tenant_id, "erased tenant") if event.tenant_id else "platform"


@dataclass(frozen=True, slots=True)
class Badge:
    """One word about a state, its tone and its icon."""

    word: str
    tone: str
    icon: str


@register.simple_tag
def chain_state(chain: Chain | None) -> Badge:
    """Return how a chain stands, as its last verification said."""
    if chain is None:
        return Badge("empty", "quiet", "clock")
    if not chain.verified_as:
        return Badge("not verified yet", "quiet", "clock")
    if chain.verified_as == "ok":
        return Badge("verified", "good", "shield-check")
    return Badge(chain.verified_as.replace("_", " "), "danger", "shield-x")


@register.simple_tag
def filter_widget(field: BoundField) -> SafeString:
    """Return a filter's field in the look of the console."""
    widget = field.field.widget
    attributes: dict[str, str | bool] = {"class": "form-select" if isinstance(widget, Select) else "form-control"}
    if field.name == "code":
        attributes |= {"list": "codes", "placeholder": "command.start or command.*", "data-search": ""}
    return field.as_widget(attrs=attributes)
