"""The REST API as somebody sees it, and its table of routes."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.test import Client
from django.urls import URLPattern, URLResolver

from gatehouse.api import schema, urls
from tenants.models import User

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = "/api/v1/"
METHODS = ("get", "post", "put", "patch", "delete")


class Rest:
    """The REST API with a key, or without one. Server errors come back as answers, as on the wire."""

    def __init__(self, key: str | None) -> None:
        self.headers = {"X-API-KEY": key} if key else {}
        self.client = Client(raise_request_exception=False)

    def call(self, method: str, path: str, body: object = None, *, raw: bytes | None = None, **headers: Any) -> Any:
        """Call a path below `/api/v1/` and return the answer."""
        data = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
        kind = headers.pop("content_type", "application/json")
        return self.client.generic(
            method.upper(), PREFIX + path, data, content_type=kind, headers=self.headers | headers
        )

    def get(self, path: str) -> Any:
        """Return the body of a GET that must succeed."""
        answer = self.call("GET", path)
        assert answer.status_code == 200, answer.content
        return answer.json()

    def post(self, path: str, body: object = None, *, status: int = 200) -> Any:
        """Return the body of a POST that must answer with this status."""
        answer = self.call("POST", path, {} if body is None else body)
        assert answer.status_code == status, answer.content
        return answer.json()

    def refused(self, method: str, path: str, body: object = None, **options: Any) -> tuple[int, str, str | None]:
        """Return status, code and field of a call that must be refused with a problem document."""
        answer = self.call(method, path, body, **options)
        found = problem(answer)
        return answer.status_code, found["code"], found.get("field")


class Operator(Rest):
    """The REST API with a session of the console and its CSRF token."""

    def __init__(self, *, is_staff: bool = True) -> None:
        super().__init__(None)
        self.user = User.objects.create_user("olga", password="correct horse battery", is_staff=is_staff)
        self.client = Client(raise_request_exception=False, enforce_csrf_checks=True)
        self.client.get("/accounts/login/")
        self.client.force_login(self.user)
        self.headers = {"X-CSRFToken": self.client.cookies["csrf"].value}


def problem(answer: Any) -> dict[str, Any]:
    """Return a problem document, and check what all of them have in common."""
    assert answer["Content-Type"] == "application/problem+json", (answer.status_code, answer.content)
    found: dict[str, Any] = answer.json()
    assert found["status"] == answer.status_code
    assert found["type"] == f"urn:gatehouse:problem:{found['code']}"
    assert found["title"]
    assert found["detail"]
    assert found["request_id"] == answer["X-Request-Id"]
    return found


@dataclass(frozen=True)
class Route:
    """One method of one path, with its parameters in braces."""

    method: str
    path: str
    view: Any

    def __str__(self) -> str:
        return f"{self.method.upper()} {self.path}"

    @property
    def parameters(self) -> list[str]:
        """Return the names in the path."""
        return re.findall(r"{(\w+)}", self.path)

    @property
    def is_list(self) -> bool:
        """Say whether it answers pages, as the schema says it."""
        operation = json.loads(schema.document())["paths"][PREFIX + self.path][self.method]
        return str(operation["operationId"]).startswith("list_")


def routes() -> list[Route]:
    """Return every method of every path below `/api/v1/`."""
    return [
        Route(method, path, view)
        for path, view in _views(urls.urlpatterns)
        if path.startswith("v1/")
        for method in METHODS
        if hasattr(view, method)
        for path in [path.removeprefix("v1/")]
    ]


def _views(patterns: list[Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for pattern in patterns:
        path = prefix + re.sub(r"<\w+:(\w+)>", r"{\1}", str(pattern.pattern))
        if isinstance(pattern, URLResolver):
            yield from _views(pattern.url_patterns, path)
        elif isinstance(pattern, URLPattern):
            yield path, getattr(pattern.callback, "view_class", None)
