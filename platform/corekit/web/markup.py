"""The console's smallest parts as markup. Templates use them as components, tables of many rows directly."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from django.templatetags.static import static
from django.utils.html import format_html
from django.utils.safestring import SafeString

from corekit import clock

if TYPE_CHECKING:
    from datetime import datetime

_SPRITE = "vendor/tabler-icons-3.52.0/sprite.svg"
NOTHING = SafeString('<span class="gh-none">-</span>')


@functools.cache
def icon(name: str) -> SafeString:
    """Return a picture beside a word; alone it means nothing to who can't see it."""
    return format_html(
        '<svg class="gh-icon" aria-hidden="true" focusable="false"><use href="{}#{}"></use></svg>',
        static(_SPRITE),
        name,
    )


def copy_button(text: str, label: str = "Copy") -> SafeString:
    """Return a button that copies a text."""
    return format_html(
        '<button class="gh-copy" type="button" data-copy="{}" aria-label="{}" title="{}">{}</button>',
        *(text, label, label, icon("copy")),
    )


def moment(at: datetime | None) -> SafeString:
    """Return a time as its distance from now, with the time itself under the pointer."""
    if at is None:
        return SafeString('<span class="gh-none">never</span>')
    exact = clock.to_rfc3339(at)
    return format_html(
        '<relative-time class="gh-time" datetime="{}" threshold="P30D" format-style="narrow"'
        ' title="{}">{}</relative-time>',
        *(exact, exact.replace("T", " ").replace("Z", " UTC"), at.strftime("%Y-%m-%d %H:%M:%S")),
    )


@functools.lru_cache(maxsize=1024)
def band_chip(band: str, score: int | None, tier: str = "") -> SafeString:
    """Return a risk score with its band and tier."""
    if not band:
        return NOTHING
    least = format_html('<span class="gh-chip-tier">{}</span>', tier) if tier else ""
    return format_html(
        '<span class="gh-chip" data-band="{}"><span class="gh-chip-score">{}</span>{}{}</span>',
        band,
        score,
        band,
        least,
    )


@functools.lru_cache(maxsize=256)
def pill(text: str, tone: str = "quiet", picture: str = "") -> SafeString:
    """Return a word about a state, in the colour of its tone."""
    return format_html('<span class="gh-pill" data-tone="{}">{}{}</span>', tone, icon(picture) if picture else "", text)


def middle(text: str, length: int) -> str:
    """Shorten a text in its middle, where ids differ least from each other."""
    if len(text) <= length:
        return text
    head = (length - 1) // 2
    return f"{text[:head]}…{text[len(text) - (length - 1 - head) :]}"
