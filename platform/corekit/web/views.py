"""The base of the REST API's views. A view validates, calls one action or selector, and serializes: nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from django.conf import settings
from django.utils.module_loading import import_string
from rest_framework import serializers
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.response import Response
from rest_framework.views import APIView

from corekit.web.fields import Query, Text, checked
from corekit.web.paging import DEFAULT_LIMIT, MAX_LIMIT, Order, page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from django.db.models import QuerySet
    from django.http import HttpRequest
    from rest_framework.authentication import BaseAuthentication
    from rest_framework.renderers import BaseRenderer
    from rest_framework.request import Request

    from corekit.actor import Actor


class JsonOnly(DefaultContentNegotiation):
    """Answer JSON whatever `Accept` says: there is nothing else to negotiate about."""

    def select_renderer(
        self, request: Request, renderers: Iterable[BaseRenderer], format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        """Return the only renderer."""
        renderer = next(iter(renderers))
        return renderer, str(renderer.media_type)


class PageQuery(Query):
    """What every list takes."""

    limit = serializers.IntegerField(
        min_value=1,
        max_value=MAX_LIMIT,
        default=DEFAULT_LIMIT,
        help_text="How many at most.",
        error_messages=dict.fromkeys(
            ("invalid", "min_value", "max_value", "max_string_length"), f"Must be a whole number from 1 to {MAX_LIMIT}."
        ),
    )
    cursor = Text(required=False, help_text="`next` of the page before.")


class ApiView(APIView):
    """Base of all views under `/api/v1`.

    Who may call and how errors look is known to the layer above, which the settings name.
    """

    content_negotiation_class = JsonOnly

    def get_authenticators(self) -> list[BaseAuthentication]:
        """Return the ways to say who calls."""
        return [import_string(path)() for path in settings.API_AUTHENTICATION]

    def get_exception_handler(self) -> Callable[..., Response]:
        """Return what turns errors into answers."""
        return cast("Callable[..., Response]", import_string(settings.API_EXCEPTION_HANDLER))

    def initialize_request(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Request:
        """Return the framework's request, with the length of a body that came in chunks."""
        if "CONTENT_LENGTH" not in request.META and "HTTP_TRANSFER_ENCODING" in request.META:
            request.META["CONTENT_LENGTH"] = str(len(request.body))
        return super().initialize_request(request, *args, **kwargs)

    @property
    def actor(self) -> Actor:
        """Return who calls. Views are reached by authenticated callers only."""
        return cast("Actor", self.request.auth)

    def body(self, serializer: type[serializers.Serializer[Any]]) -> Mapping[str, Any]:
        """Return the checked body."""
        return checked(serializer, self.request.data)

    def query(self, serializer: type[serializers.Serializer[Any]]) -> Mapping[str, Any]:
        """Return the checked parameters of the query."""
        return checked(serializer, self.request.query_params)

    def page(
        self,
        rows: QuerySet[Any],
        order: Order,
        serializer: type[serializers.BaseSerializer[Any]],
        query: Mapping[str, Any] | None = None,
    ) -> Response:
        """Return one page of a list as `items` and `next`, the cursor of the page after it."""
        query = self.query(PageQuery) if query is None else query
        found = page(rows, order, limit=query["limit"], cursor=query.get("cursor"))
        return Response({"items": serializer(found.rows, many=True).data, "next": found.next})
