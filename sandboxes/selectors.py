"""Reads: one door for a tenant's objects, the listing, and what the workers look at."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

from django.db.models import Q

from audit.models import Verdict, VerdictAction, VerdictState
from corekit import ids
from corekit.errors import InvalidInput, NotFound
from sandboxes import statements
from sandboxes.models import Sandbox, Template, metadata_digest
from sandboxes.states import HALTED, LIVE, SandboxState
from tenants.models import Quota

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from django.db.models import QuerySet

    from corekit.actor import Actor

MAX_PAGE = 100
LONGEST_LIFETIME_S = 31 * 24 * 3600
"""No node takes more, whatever a tenant's quota says."""
DEFAULT_TAG = "default"
_TEMPLATE_REFERENCE = re.compile(r"(?:(?P<space>[a-z0-9_-]+)/)?(?P<name>[a-z0-9_-]+)(?::(?P<tag>[a-z0-9_.-]+))?")


def sandbox_for(actor: Actor, sandbox_id: str) -> Sandbox:
    """Return a live sandbox of the actor's tenant; any live one to operators.

    Raises NotFound, in the same words, when it is unknown, ended or someone else's. The old form
    `<sandbox id>-<client id>` is understood.
    """
    plain = ids.strip_client_suffix(sandbox_id)
    found = None
    if ids.is_sandbox_id(plain):
        found = _live(actor).filter(pk=plain).first()
    if found is None:
        raise no_sandbox()
    return found


def sandbox_of_any_time(actor: Actor, sandbox_id: str) -> Sandbox:
    """Return a sandbox of the actor's tenant, also one that ended. Raises NotFound as `sandbox_for`."""
    plain = ids.strip_client_suffix(sandbox_id)
    found = None
    if actor.tenant_id is not None and ids.is_sandbox_id(plain):
        found = Sandbox.visible_to(actor).filter(pk=plain).first()
    if found is None:
        raise no_sandbox()
    return found


def was_ever_own(actor: Actor, sandbox_id: str) -> bool:
    """Say whether an id is that of a sandbox of the actor's tenant, also of one that ended."""
    return Sandbox.visible_to(actor).filter(pk=sandbox_id).exists()


def sandboxes_named(actor: Actor, sandbox_ids: Sequence[str]) -> dict[str, Sandbox]:
    """Return the live ones among some sandboxes by id. Unknown ones and those of others are left out."""
    plain = [ids.strip_client_suffix(one) for one in sandbox_ids]
    return _live(actor).in_bulk([one for one in plain if ids.is_sandbox_id(one)])


def sandbox_at_node(sandbox_id: str, generation: int) -> Sandbox:
    """Return a live sandbox of any tenant, with its tenant, for the node's own processes. Raises NotFound."""
    rows = Sandbox.everywhere().filter(state__in=LIVE).select_related("tenant")
    found = rows.filter(pk=sandbox_id, generation=generation).first()
    if found is None:
        raise no_sandbox()
    return found


def live_row(sandbox_id: str) -> Sandbox:
    """Return a sandbox that was the caller's a moment ago as it is now. Raises NotFound when it ended."""
    found = Sandbox.everywhere().filter(pk=sandbox_id, state__in=LIVE).first()
    if found is None:
        raise no_sandbox()
    return found


def no_sandbox() -> NotFound:
    """Return the one answer for every sandbox that is unknown, ended or someone else's."""
    return NotFound("The sandbox was not found.")


def template_for(actor: Actor, reference: str) -> Template:
    """Return the template that `id`, `name`, `tenant/name` or any of them with `:tag` means to the actor.

    A tenant's own template goes before a public one of the same name. Raises NotFound naming the reference,
    also for another tenant's template.
    """
    match = _TEMPLATE_REFERENCE.fullmatch(reference.strip().lower())
    found = _template_named(actor, match["space"], match["name"]) if match else None
    if match is None or found is None:
        raise NotFound(f"template '{reference}' not found", field="templateID")
    if (match["tag"] or DEFAULT_TAG) != DEFAULT_TAG:
        plain = reference.rpartition(":")[0]
        raise NotFound(f"tag '{match['tag']}' does not exist for template '{plain}'", field="templateID")
    return found


def _live(actor: Actor) -> QuerySet[Sandbox]:
    return Sandbox.visible_to(actor).filter(state__in=LIVE)


def _listed(actor: Actor) -> QuerySet[Sandbox]:
    """Return the live rows in the words of the index that keeps them in a list's order."""
    if actor.tenant_id is None:
        return Sandbox.everywhere().none()
    return Sandbox.visible_to(actor).filter(ended_at=None)


def running_count(actor: Actor) -> int:
    """Return how many sandboxes of the actor's tenant run: what its quota counts."""
    counted = Quota.visible_to(actor).values_list("used_sandboxes", flat=True).first()
    return counted or 0


def _template_named(actor: Actor, space: str | None, name: str) -> Template | None:
    if space is not None:
        return Template.visible_to(actor).filter(tenant__slug=space, name=name).first()
    found = statements.templates_named(UUID(actor.tenant_id) if actor.tenant_id else None, name)
    return min(found, key=lambda one: (one.pk != name, one.tenant_id is None), default=None)


def longest_lifetime_s(tenant_id: UUID) -> int:
    """Return how long a tenant's sandboxes may live, in seconds. Raises NotFound for an unknown tenant."""
    found = statements.longest_lifetime_s(tenant_id)
    if found is None:
        raise NotFound("There is no such tenant.")
    return min(found, LONGEST_LIFETIME_S)


@dataclass(frozen=True, slots=True)
class ListQuery:
    """What to list: live sandboxes that started at or after a time, of a template, with metadata.

    `paused` None is both, those that run and those that are paused.
    """

    metadata: Mapping[str, str] = field(default_factory=dict)
    template: str | None = None
    started_after: datetime | None = None
    paused: bool | None = None
    ascending: bool = False
    limit: int = MAX_PAGE
    after: tuple[datetime, str] | None = None


def page_of_sandboxes(actor: Actor, query: ListQuery) -> tuple[Sequence[Sandbox], str | None]:
    """Return one page, newest first unless asked otherwise, and the token of the next page or None.

    Pages are cut by (start, id), so sandboxes that come and go between two calls neither repeat nor hide
    others.
    """
    rows = _listed(actor)
    for key, value in query.metadata.items():
        rows = rows.filter(metadata_terms__contains=metadata_digest(key, value))
    if query.template is not None:
        rows = rows.filter(_of_template(query.template.strip().lower()))
    if query.paused is not None:
        rows = rows.filter(state__in=HALTED) if query.paused else rows.exclude(state__in=HALTED)
    if query.started_after is not None:
        rows = rows.filter(started_at__gte=query.started_after)
    if query.after is not None:
        rows = rows.filter(_beyond(query.after, ascending=query.ascending))
    # The one is the exact reverse of the other, so that one index serves both.
    order = ("started_at", "-id") if query.ascending else ("-started_at", "id")
    found = list(rows.order_by(*order)[: query.limit + 1])
    page = found[: query.limit]
    token = encode_page_token(page[-1], ascending=query.ascending) if len(found) > query.limit else None
    return page, token


def _of_template(reference: str) -> Q:
    space, slash, name = reference.partition("/")
    if slash:
        return Q(template__tenant__slug=space, template_name=name)
    return Q(template_id=reference) | Q(template_name=reference)


def _beyond(after: tuple[datetime, str], *, ascending: bool) -> Q:
    started_at, sandbox_id = after
    if ascending:
        return Q(started_at__gte=started_at) & (Q(started_at__gt=started_at) | Q(id__lt=sandbox_id))
    # The first half alone lets the database jump into its index.
    return Q(started_at__lte=started_at) & (Q(started_at__lt=started_at) | Q(id__gt=sandbox_id))


def encode_page_token(last: Sandbox, *, ascending: bool) -> str:
    """Return the opaque token of the page after this sandbox."""
    text = f"{last.started_at.astimezone(UTC).isoformat()}__{last.pk}" + ("__asc" if ascending else "")
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def decode_page_token(token: str, *, ascending: bool) -> tuple[datetime, str]:
    """Return where a page begins. Raises InvalidInput for anything that this list did not give out."""
    try:
        padded = token.encode("ascii") + b"=" * (-len(token) % 4)
        text = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii")
        stamp, sandbox_id, *order = text.split("__")
        started_at = datetime.fromisoformat(stamp).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidInput("Invalid next token", field="nextToken") from error
    if not ids.is_sandbox_id(sandbox_id) or order != (["asc"] if ascending else []):
        raise InvalidInput("Invalid next token", field="nextToken")
    return started_at, sandbox_id


def held_for_risk(sandbox: Sandbox) -> bool:
    """Say whether a sandbox stands still for its risk: it did not go on since, and nobody overrode the verdict."""
    if sandbox.state == SandboxState.RUNNING:
        return False
    return Verdict.objects.filter(
        sandbox_id=sandbox.pk,
        generation=sandbox.generation,
        action=VerdictAction.PAUSE,
        state__in=(VerdictState.PENDING, VerdictState.DONE),
        created_at__gt=sandbox.resumed_at or sandbox.created_at,
    ).exists()
