"""The E2B calls about secrets, as they go over the wire."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tenants.secrets import actions
from tenants.vaults import reveal

if TYPE_CHECKING:
    from tests.sandboxes.fixtures import Caller

pytestmark = pytest.mark.django_db

VALUE = "sk-openai-0123456789"
OPENAI = {"name": "openai-key", "value": VALUE, "metadata": {"team": "search"}}


def ok(caller: Caller, method: str, path: str, body: object = None, status: int = 200) -> Any:
    """Return the body of a call that must answer with a status."""
    answer = caller.call(method, path, body)
    assert answer.status_code == status, answer.content
    return answer.json() if answer.content else None


def refused(caller: Caller, method: str, path: str, body: object = None) -> tuple[int, int, str]:
    """Return what a client hears of a call that is refused: status, code in the body, our own code."""
    answer = caller.call(method, path, body)
    found = answer.json()
    assert isinstance(found["message"], str)
    return answer.status_code, found["code"], found["error_code"]


def test_a_secret_has_exactly_the_protocols_keys(alice: Caller) -> None:
    made = ok(alice, "POST", "/secrets", OPENAI | {"name": " OpenAI-Key "}, 201)
    assert made == {
        "secretID": made["secretID"],
        "name": "openai-key",
        "currentVersion": 1,
        "metadata": {"team": "search"},
        "createdAt": made["createdAt"],
        "updatedAt": made["updatedAt"],
    }
    assert made["secretID"].startswith("sec_")
    assert made["createdAt"].endswith("Z")
    assert ok(alice, "GET", "/secrets/OPENAI-KEY") == ok(alice, "GET", f"/secrets/{made['secretID']}") == made


def test_a_new_value_is_a_new_version(alice: Caller) -> None:
    ok(alice, "POST", "/secrets", OPENAI, 201)
    second = ok(alice, "POST", "/secrets/openai-key", {"value": "sk-second"})
    assert (second["currentVersion"], second["metadata"]) == (2, {"team": "search"})
    third = ok(alice, "POST", "/secrets/openai-key", {"value": "sk-third", "metadata": {}})
    assert (third["currentVersion"], third["metadata"]) == (3, {})
    assert reveal(alice.tenant.pk.hex, "openai-key").value.reveal() == b"sk-third"


def test_a_destroyed_secret_is_gone(alice: Caller) -> None:
    ok(alice, "POST", "/secrets", OPENAI, 201)
    ok(alice, "DELETE", "/secrets/openai-key", status=204)
    assert refused(alice, "GET", "/secrets/openai-key") == (404, 404, "not_found")
    assert refused(alice, "DELETE", "/secrets/openai-key") == (404, 404, "not_found")
    assert refused(alice, "POST", "/secrets/openai-key", {"value": "x"}) == (404, 404, "not_found")
    assert ok(alice, "GET", "/secrets") == []


def test_the_list_comes_in_pages_by_name(alice: Caller) -> None:
    for name in ("c", "a", "e", "b", "d"):
        ok(alice, "POST", "/secrets", {"name": name, "value": VALUE}, 201)
    assert [one["name"] for one in ok(alice, "GET", "/secrets")] == ["a", "b", "c", "d", "e"]

    seen, token = [], ""
    while True:
        answer = alice.call("GET", f"/secrets?limit=2&nextToken={token}")
        assert answer.status_code == 200
        seen.append([one["name"] for one in answer.json()])
        if "X-Next-Token" not in answer:
            break
        token = answer["X-Next-Token"]
    assert seen == [["a", "b"], ["c", "d"], ["e"]]


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=-1", "nextToken=x"])
def test_a_page_that_can_not_be_is_refused(alice: Caller, query: str) -> None:
    assert refused(alice, "GET", f"/secrets?{query}") == (400, 400, "invalid_input")


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {},
        {"name": "a"},
        {"value": "a"},
        {"name": 5, "value": "a"},
        {"name": "a", "value": 5},
        {"name": "sec_a", "value": "a"},
        {"name": "a b", "value": "a"},
        {"name": "a", "value": ""},
        {"name": "a", "value": "a\r\nb"},
        {"name": "a", "value": "a", "metadata": []},
        {"name": "a", "value": "a", "metadata": {"a": 1}},
    ],
)
def test_a_mistake_is_a_400(alice: Caller, body: object) -> None:
    assert refused(alice, "POST", "/secrets", body) == (400, 400, "invalid_input")
    assert ok(alice, "GET", "/secrets") == []


def test_a_name_that_is_taken_is_a_409(alice: Caller) -> None:
    ok(alice, "POST", "/secrets", OPENAI, 201)
    assert refused(alice, "POST", "/secrets", OPENAI) == (409, 409, "conflict")


def test_the_limit_has_its_own_code(alice: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "MAX_SECRETS", 0)
    assert refused(alice, "POST", "/secrets", OPENAI) == (409, 409, "secret_limit_reached")


def test_a_developer_sees_secrets_and_writes_none(alice: Caller, bob: Caller) -> None:
    ok(alice, "POST", "/secrets", OPENAI, 201)
    assert [one["name"] for one in ok(bob, "GET", "/secrets")] == ["openai-key"]
    assert refused(bob, "POST", "/secrets", OPENAI | {"name": "other"}) == (403, 403, "forbidden")
    assert refused(bob, "POST", "/secrets/openai-key", {"value": "x"}) == (403, 403, "forbidden")
    assert refused(bob, "DELETE", "/secrets/openai-key") == (403, 403, "forbidden")


def test_another_tenants_secrets_do_not_exist(alice: Caller, mallory: Caller) -> None:
    made = ok(alice, "POST", "/secrets", OPENAI, 201)
    for name in ("openai-key", made["secretID"]):
        for method, body in (("GET", None), ("POST", {"value": "x"}), ("DELETE", None)):
            assert refused(mallory, method, f"/secrets/{name}", body) == (404, 404, "not_found")
    assert ok(mallory, "GET", "/secrets") == []
    assert reveal(alice.tenant.pk.hex, "openai-key").value.reveal() == VALUE.encode()


def test_without_a_key_there_is_nothing(alice: Caller) -> None:
    from tests.sandboxes.fixtures import client

    for method, path in (("GET", "/secrets"), ("POST", "/secrets"), ("GET", "/secrets/x"), ("DELETE", "/secrets/x")):
        assert client().generic(method, path).status_code == 401
