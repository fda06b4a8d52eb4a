"""What a request gets on its way out: templates filled in, placeholders with what they stand for, for this once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from corekit.errors import Conflict
from tenants.vaults import reveal
from tenants.vaults.contract import SecretDisabled, SecretMissing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from corekit.netrules.headerrules import HeaderRule, Named, Placeholder
    from tenants.identity import Minted


class CannotInject(Conflict):
    """A secret that a request needs is not there or is disabled."""

    code = "secret_missing"
    title = "A secret that this request needs is not there."


@dataclass(frozen=True, slots=True)
class Rendered:
    """Headers to set, placeholders with their values, what must not come back, and the names of all of it."""

    headers: tuple[tuple[str, str], ...] = field(repr=False)
    swaps: tuple[tuple[str, str], ...] = field(repr=False)
    needles: tuple[str, ...] = field(repr=False)
    secrets: tuple[str, ...]
    identities: tuple[tuple[str, Minted], ...]


def names_of(rule: HeaderRule | None, placeholders: Iterable[Placeholder]) -> tuple[str, ...]:
    """Return the secrets that a request needs, sorted."""
    named = {one.name for one in _named(rule) if one.kind == "secret"}
    return tuple(sorted(named.union(one.secret for one in placeholders)))


def render(
    tenant_id: str,
    rule: HeaderRule | None,
    placeholders: Iterable[Placeholder],
    mint: Callable[[str], Minted],
) -> Rendered:
    """Return what a request gets by the rule and the placeholders of its host; `mint` makes an identity's token.

    Raises CannotInject, and what a vault raises that is away.
    """
    swapped = tuple(placeholders)
    secrets = names_of(rule, swapped)
    values = {name: _value(tenant_id, name) for name in secrets}
    identities = {one.name: mint(one.name) for one in _named(rule) if one.kind == "identity"}

    def filled_in(one: Named) -> str:
        return values[one.name] if one.kind == "secret" else identities[one.name].token

    return Rendered(
        headers=tuple((name, template.render(filled_in)) for name, template in (rule.headers if rule else ())),
        swaps=tuple((one.value, values[one.secret]) for one in swapped),
        needles=(*values.values(), *(minted.token for minted in identities.values())),
        secrets=secrets,
        identities=tuple(identities.items()),
    )


def _named(rule: HeaderRule | None) -> Iterable[Named]:
    return {part: None for _, template in (rule.headers if rule else ()) for part in template.named}


def _value(tenant_id: str, name: str) -> str:
    try:
        return reveal(tenant_id, name).value.reveal().decode()
    except (SecretMissing, SecretDisabled) as error:
        raise CannotInject(error.message, secret_name=name) from None
    except UnicodeDecodeError:
        raise CannotInject(f"The secret {name} is no text.", secret_name=name) from None
