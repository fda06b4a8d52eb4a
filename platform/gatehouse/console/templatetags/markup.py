"""The console's smallest parts, for components and templates."""

from __future__ import annotations

from django import template

from corekit.web import markup

register = template.Library()
register.simple_tag(markup.icon)
register.simple_tag(markup.copy_button)
register.simple_tag(markup.moment)
register.simple_tag(markup.band_chip)
register.filter(markup.middle)
