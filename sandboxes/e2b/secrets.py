"""The E2B calls about secrets: `Secret` of the SDKs. A value goes in and never comes out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rest_framework.response import Response

from corekit import clock
from corekit.errors import InvalidInput
from corekit.web.paging import Order, page
from sandboxes.e2b import fields
from sandboxes.e2b.views import NEXT_TOKEN, E2bView, actor_of
from tenants.secrets import actions, selectors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rest_framework.request import Request

    from tenants.secretmodels import Secret

MAX_PAGE = 100
_BY_NAME = Order(("name", "id"))


def shape(secret: Secret) -> dict[str, Any]:
    """Return a secret as the clients get it."""
    return {
        "secretID": secret.pk,
        "name": secret.name,
        "currentVersion": secret.current_version,
        "metadata": secret.metadata,
        "createdAt": clock.to_rfc3339(secret.created_at),
        "updatedAt": clock.to_rfc3339(secret.updated_at),
    }


class CreateAndList(E2bView):
    """`POST /secrets` and `GET /secrets`."""

    def post(self, request: Request) -> Response:
        """Create a secret with its first value."""
        body = fields.as_object(request.data)
        secret = actions.create_secret(
            actor=actor_of(request),
            tenant=selectors.tenant_of(actor_of(request)),
            name=_text(body, "name"),
            value=_text(body, "value"),
            metadata=fields.optional_object(body, "metadata"),
        )
        return Response(shape(secret), status=201)

    def get(self, request: Request) -> Response:
        """List the secrets by name, a page at a time."""
        found = page(
            selectors.secrets_for(actor_of(request)),
            _BY_NAME,
            limit=_limit(request.query_params.get("limit")),
            cursor=request.query_params.get("nextToken"),
        )
        return Response([*map(shape, found.rows)], headers={NEXT_TOKEN: found.next} if found.next else {})


class DetailUpdateAndDestroy(E2bView):
    """`GET`, `POST` and `DELETE /secrets/{id or name}`."""

    def get(self, request: Request, secret: str) -> Response:
        """Return one secret."""
        return Response(shape(selectors.secret_for(actor_of(request), secret)))

    def post(self, request: Request, secret: str) -> Response:
        """Give a secret a new value. Without metadata, what there is stays."""
        found = selectors.secret_for(actor_of(request), secret, selectors.WRITE)
        body = fields.as_object(request.data)
        changed = actions.add_version(
            actor=actor_of(request),
            secret=found,
            value=_text(body, "value"),
            metadata=None if body.get("metadata") is None else fields.optional_object(body, "metadata"),
        )
        return Response(shape(changed))

    def delete(self, request: Request, secret: str) -> Response:
        """Destroy a secret with all its versions."""
        found = selectors.secret_for(actor_of(request), secret, selectors.WRITE)
        actions.delete_secret(actor=actor_of(request), secret=found)
        return Response(status=204)


def _text(body: Mapping[str, object], field: str) -> str:
    value = body.get(field)
    if field not in body:
        raise InvalidInput(f"{field} is required.", field=field)
    if not isinstance(value, str):
        raise InvalidInput(f"{field} must be text.", field=field)
    return value


def _limit(text: str | None) -> int:
    if text is None or text == "":
        return MAX_PAGE
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) >= 1):
        raise InvalidInput("limit must be a whole number from 1.", field="limit")
    return min(int(text), MAX_PAGE)
