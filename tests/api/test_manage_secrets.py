"""Secrets over the REST API: values go in and never come out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tenants.models import ApiKey
from tenants.secretmodels import SealedValue, Secret
from tenants.vaults import reveal
from tests.api.rest import Rest, problem

if TYPE_CHECKING:
    from tests.api.rest import Operator
    from tests.sandboxes.fixtures import Caller

pytestmark = pytest.mark.django_db

VALUE = "sk-openai-0123456789"
OPENAI = {"name": "openai-key", "value": VALUE}


def value_of(alice: Caller) -> str:
    """Return the value that counts."""
    return reveal(alice.tenant.pk.hex, "openai-key").value.reveal().decode()


def test_a_secret_lives_its_life(rest: Rest, alice: Caller) -> None:
    made = rest.post("secrets", OPENAI | {"metadata": {"team": "search"}}, status=201)
    assert made == {
        "id": made["id"],
        "tenant": alice.tenant.pk.hex,
        "name": "openai-key",
        "vault": "embedded",
        "entry": "",
        "state": "active",
        "current_version": 1,
        "metadata": {"team": "search"},
        "created_at": made["created_at"],
        "created_by": alice.key.pk,
        "updated_at": made["updated_at"],
        "updated_by": alice.key.pk,
    }
    assert rest.get("secrets/openai-key") == rest.get(f"secrets/{made['id']}") == made
    assert rest.get("secrets")["items"] == [made]

    second = rest.post("secrets/openai-key/versions", {"value": "sk-second"}, status=201)
    assert (second["current_version"], second["metadata"]) == (2, {"team": "search"})
    assert [row["number"] for row in rest.get("secrets/openai-key/versions")["items"]] == [2, 1]
    assert value_of(alice) == "sk-second"

    assert rest.post("secrets/openai-key/disable")["state"] == "disabled"
    assert rest.refused("post", "secrets/openai-key/disable", {}) == (409, "conflict", None)
    assert rest.post("secrets/openai-key/enable")["state"] == "active"

    assert rest.call("delete", "secrets/openai-key").status_code == 204
    assert rest.refused("get", f"secrets/{made['id']}") == (404, "not_found", None)
    assert rest.get("secrets")["items"] == []
    assert not SealedValue.everywhere().exists()


def test_no_answer_holds_a_value(rest: Rest, alice: Caller) -> None:
    answers = [
        rest.call("post", "secrets", OPENAI),
        rest.call("post", "secrets", OPENAI),
        rest.call("post", "secrets", OPENAI | {"value": f"{VALUE}\n"}),
        rest.call("post", "secrets", OPENAI | {"value": VALUE * 4000}),
        rest.call("post", "secrets", OPENAI | {"value": [VALUE]}),
        rest.call("post", "secrets", OPENAI | {"unknown": VALUE}),
        rest.call("post", "secrets", raw=b'{"name": "x", "value": "' + VALUE.encode() + b'"'),
        rest.call("post", "secrets/openai-key/versions", {"value": VALUE}),
        rest.call("get", "secrets/openai-key"),
        rest.call("get", "secrets/openai-key/versions"),
        rest.call("get", "secrets"),
        rest.call("get", "audit-events"),
    ]
    assert [answer.status_code for answer in answers] == [201, 409, 400, 400, 400, 400, 400, 201, 200, 200, 200, 200]
    for answer in answers:
        assert VALUE not in answer.content.decode()


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"name": "a b"}, "name"),
        ({"name": None}, "name"),
        ({"name": 5}, "name"),
        ({"value": None}, "value"),
        ({"value": 5}, "value"),
        ({"value": ""}, "value"),
        ({"value": "a\nb"}, "value"),
        ({"metadata": []}, "metadata"),
        ({"metadata": {"a": 5}}, "metadata"),
        ({"vault": "nowhere"}, "vault"),
        ({"reveal": True}, "reveal"),
    ],
)
def test_a_mistake_is_named_and_nothing_is_kept(rest: Rest, wrong: dict[str, Any], field: str) -> None:
    assert rest.refused("post", "secrets", OPENAI | wrong) == (400, "invalid_input", field)
    assert not Secret.everywhere().exists()
    assert not SealedValue.everywhere().exists()


@pytest.mark.parametrize("missing", ["name", "value"])
def test_what_is_needed_is_named(rest: Rest, missing: str) -> None:
    body = {name: value for name, value in OPENAI.items() if name != missing}
    assert rest.refused("post", "secrets", body) == (400, "invalid_input", missing)


@pytest.mark.parametrize("name", ["nothing", "sec_" + "0" * 32, "a b", "%00", "ä", "x" * 300])
def test_a_secret_that_is_not_there_is_not_found(rest: Rest, name: str) -> None:
    assert rest.refused("get", f"secrets/{name}") == (404, "not_found", None)
    assert rest.refused("post", f"secrets/{name}/versions", {"value": "x"}) == (404, "not_found", None)


def test_a_key_that_may_only_read_changes_nothing(rest: Rest, alice: Caller) -> None:
    rest.post("secrets", OPENAI, status=201)
    ApiKey.everywhere().filter(pk=alice.key.pk).update(scopes=["secrets:read"])
    assert rest.get("secrets/openai-key")["name"] == "openai-key"
    for method, path, body in (
        ("post", "secrets", {"name": "other", "value": "x"}),
        ("post", "secrets/openai-key/versions", {"value": "x"}),
        ("post", "secrets/openai-key/disable", {}),
        ("post", "secrets/openai-key/enable", {}),
        ("delete", "secrets/openai-key", None),
    ):
        assert rest.refused(method, path, body) == (403, "forbidden", None)
    assert value_of(alice) == VALUE


def test_there_is_no_way_to_read_a_value(rest: Rest) -> None:
    rest.post("secrets", OPENAI, status=201)
    for path in ("secrets/openai-key/value", "secrets/openai-key/reveal", "secrets/openai-key/versions/1"):
        assert rest.call("get", path).status_code == 404
    assert rest.call("put", "secrets/openai-key", OPENAI).status_code == 405


def test_the_vaults_are_named(rest: Rest, olga: Operator) -> None:
    assert rest.get("vaults") == olga.get("vaults") == {"default": "embedded", "vaults": ["embedded"]}


def test_operators_see_all_secrets_and_make_none_for_themselves(rest: Rest, olga: Operator) -> None:
    made = rest.post("secrets", OPENAI, status=201)
    assert olga.get("secrets")["items"] == [made]
    assert olga.get(f"secrets/{made['id']}") == made
    # A name alone is many tenants'.
    assert olga.refused("get", "secrets/openai-key") == (404, "not_found", None)
    refused = olga.call("post", "secrets", OPENAI)
    assert refused.status_code == 403
    assert "manage.py secrets" in problem(refused)["detail"]
    assert olga.post(f"secrets/{made['id']}/disable")["state"] == "disabled"
