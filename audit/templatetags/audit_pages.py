"""How events are told on pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from django import template
from django.forms import Select

from audit.tables import result, sentence

if TYPE_CHECKING:
    from django.forms.boundfield import BoundField
    from django.utils.safestring import SafeString

    from audit.models import Chain
    from audit.selectors import LedgerState

register = template.Library()


register.simple_tag(sentence)
register.simple_tag(result)


@dataclass(frozen=True, slots=True)
class Badge:
    """One word about a state, its tone and its icon."""

    word: str
    tone: str
    icon: str


@register.simple_tag
def chain_state(chain: Chain | None, ledger: LedgerState | None) -> Badge:
    """Return how a chain, or for operators all of them, stand, as the last verification said."""
    word = ledger.word if ledger else chain.verified_as if chain else ""
    if word == "ok":
        return Badge("verified", "good", "shield-check")
    if word:
        return Badge(word.replace("_", " "), "danger", "shield-x")
    return Badge("not verified yet", "quiet", "clock")


@register.simple_tag
def filter_widget(field: BoundField) -> SafeString:
    """Return a filter's field in the look of the console."""
    widget = field.field.widget
    attributes: dict[str, str | bool] = {"class": "form-select" if isinstance(widget, Select) else "form-control"}
    if field.name == "code":
        attributes |= {"list": "codes", "placeholder": "command.*", "data-search": ""}
    return field.as_widget(attrs=attributes)
