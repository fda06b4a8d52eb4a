"""How a view's method is described in the schema: once, beside the method."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar

from drf_spectacular.utils import OpenApiResponse, extend_schema, inline_serializer
from rest_framework import serializers

from corekit.web.views import PageQuery

if TYPE_CHECKING:
    from collections.abc import Callable

    Serializer = serializers.Serializer[Any]
else:
    Serializer = serializers.Serializer

Method = TypeVar("Method", bound="Callable[..., Any]")


def documented(
    operation_id: str,
    tag: str,
    summary: str,
    *,
    scope: str = "",
    body: type[Serializer] | None = None,
    query: type[Serializer] | None = None,
    answer: type[Serializer] | None = None,
    status: int = 200,
) -> Callable[[Method], Method]:
    """Describe a method: its stable id, what it needs, takes and answers. Without an answer it answers 204."""
    return extend_schema(
        operation_id=operation_id,
        tags=[tag],
        summary=summary,
        description=f"Needs the scope `{scope}`." if scope else "",
        request=body or None,
        parameters=[query] if query else None,
        responses={status: answer} if answer else {204: OpenApiResponse(description="Done.")},
    )


def documented_list(
    operation_id: str,
    tag: str,
    summary: str,
    *,
    item: type[Serializer],
    scope: str = "",
    query: type[Serializer] = PageQuery,
) -> Callable[[Method], Method]:
    """Describe a method that answers one page of a list."""
    return extend_schema(
        operation_id=operation_id,
        tags=[tag],
        summary=summary,
        description=f"Needs the scope `{scope}`." if scope else "",
        parameters=[query],
        responses={200: _page_of(item)},
    )


@functools.cache
def _page_of(item: type[Serializer]) -> Serializer:
    return inline_serializer(
        name=f"{item.__name__.removesuffix('Serializer')}Page",
        fields={
            "items": item(many=True),
            "next": serializers.CharField(allow_null=True, help_text="The cursor of the next page; null on the last."),
        },
    )
