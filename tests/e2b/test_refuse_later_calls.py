"""Calls of the protocol that a later version brings, and paths that no version has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.sandboxes.fixtures import client

if TYPE_CHECKING:
    from tests.sandboxes.fixtures import Caller

pytestmark = pytest.mark.django_db

LATER = [
    ("POST", "/sandboxes/i1/fork"),
    ("POST", "/sandboxes/i1/snapshots"),
    ("GET", "/snapshots"),
    ("POST", "/volumes"),
    ("GET", "/volumes/v1"),
    ("PUT", "/volumecontent/v1/file"),
    ("PATCH", "/volumecontent/v1/path"),
    ("GET", "/templates"),
    ("GET", "/templates/aliases/base"),
    ("GET", "/templates/t1/files/" + "0" * 64),
    ("DELETE", "/templates/acme%2Fname%3Atag"),
    ("DELETE", "/templates/tags"),
    ("GET", "/v2/templates"),
    ("POST", "/v3/templates"),
    ("POST", "/v2/templates/t1/builds/b1"),
    ("GET", "/teams"),
    ("GET", "/api-keys"),
    ("GET", "/access-tokens"),
    ("GET", "/default-templates"),
]


@pytest.mark.parametrize(("method", "path"), LATER, ids=[f"{method} {path}" for method, path in LATER])
def test_it_answers_501_and_asks_not_to_retry(alice: Caller, method: str, path: str) -> None:
    answer = alice.call(method, path, {} if method in {"POST", "PUT", "DELETE"} else None)

    assert answer.status_code == 501
    body = answer.json()
    assert (body["code"], body["error_code"]) == (501, "not_implemented")
    assert body["message"].startswith("This version does not offer ")
    assert answer["Should-Retry"] == "false"


@pytest.mark.parametrize(("method", "path"), LATER, ids=[f"{method} {path}" for method, path in LATER])
def test_without_a_key_it_is_401(db: None, method: str, path: str) -> None:
    answer = client().generic(method, path)

    assert (answer.status_code, answer.json()["code"]) == (401, 401)


@pytest.mark.parametrize("path", ["/nowhere", "/v3/sandboxes", "/sandboxes/i1/nothing", "/sandboxes/", "/v2", "/a/b"])
def test_unknown_paths_are_404_in_json(alice: Caller, path: str) -> None:
    answer = alice.call("GET", path)

    assert (answer.status_code, answer.json()["code"]) == (404, 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/sandboxes", {"GET", "POST"}),
        ("PUT", "/v2/sandboxes", {"GET", "POST"}),
        ("POST", "/sandboxes/i1", {"GET", "DELETE"}),
        ("GET", "/sandboxes/i1/connect", {"POST"}),
        ("GET", "/sandboxes/i1/timeout", {"POST"}),
        ("POST", "/sandboxes/metrics", {"GET"}),
    ],
)
def test_a_wrong_method_is_405_in_json_and_says_which_are_right(
    alice: Caller, method: str, path: str, allowed: set[str]
) -> None:
    answer = alice.call(method, path)

    assert (answer.status_code, answer.json()["code"]) == (405, 405)
    assert {name.strip() for name in answer["Allow"].split(",")} - {"OPTIONS", "HEAD"} == allowed


def test_a_body_that_is_no_json_by_type_is_415(alice: Caller) -> None:
    answer = client().post(
        "/v2/sandboxes", "templateID=base", content_type="text/plain", headers={"X-API-KEY": alice.secret}
    )

    assert (answer.status_code, answer.json()["code"]) == (415, 415)
