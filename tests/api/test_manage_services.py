"""Operators and tenants say over REST what tokens are for: each address, header and slot is checked first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from audit.models import Event
from tenants.broker import catalogue
from tenants.broker.catalogue import Slot
from tenants.tokenmodels import BrokerService
from tests import factories
from tests.api.rest import Rest
from tests.sandboxes.fixtures import caller

if TYPE_CHECKING:
    from sandboxes.models import Template
    from tests.api.rest import Operator
    from tests.sandboxes.fixtures import Caller
    from tests.sandboxes.node_double import NodeDouble

pytestmark = pytest.mark.django_db

LLM = {"name": "llm", "base_url": "https://llm.vendor.com/v2", "kind": "openai", "slot": "header:x-llm-key"}


def create(rest: Rest, **changes: Any) -> dict[str, Any]:
    """Return a new service."""
    made: dict[str, Any] = rest.post("services", LLM | changes, status=201)
    return made


def test_the_ready_ones_are_there(rest: Rest) -> None:
    shown = {one["name"]: one for one in rest.get("services")["items"]}
    assert set(shown) == {"anthropic", "github", "openai"}
    openai = shown["openai"]
    assert (openai["base_url"], openai["slot"], openai["tenant"]) == ("https://api.openai.com", "bearer", None)
    assert openai["url"] == "http://broker.gatehouse.internal/openai"
    assert openai["client_url"] == "http://broker.gatehouse.internal/openai/v1"
    assert "openai/chat/completions" in openai["apis"]
    assert shown["anthropic"]["slot"] == "header:x-api-key"


def test_a_tenant_has_services_of_its_own(rest: Rest, mallorys_rest: Rest, alice: Caller) -> None:
    made = create(rest, headers=["x-org", "x-beta"], usd_per_million_tokens=2.5)

    assert (made["version"], made["tenant"], made["private"]) == (1, alice.tenant.pk.hex, False)
    assert (made["headers"], made["usd_per_million_tokens"]) == (["x-beta", "x-org"], 2.5)
    assert rest.get("services/llm") == rest.get(f"services/{made['id']}") == made
    assert [one["name"] for one in rest.get("services")["items"]] == ["anthropic", "github", "llm", "openai"]
    assert mallorys_rest.refused("GET", "services/llm")[:2] == (404, "not_found")
    created = Event.objects.get(code="service.created")
    assert (created.tenant_id, created.actor_id, created.object_name) == (alice.tenant.pk, alice.key.pk, "llm")
    assert created.details["base_url"] == "https://llm.vendor.com/v2"
    found = catalogue.find(alice.tenant.pk, "llm")
    assert found is not None
    assert (found.slot, found.kind) == (Slot("header", "x-llm-key"), "openai")
    assert {"x-org", "openai-beta", "content-type"} <= found.headers


@pytest.mark.parametrize(
    "base_url",
    [
        "http://llm.vendor.com",
        "llm.vendor.com",
        "https://",
        "https://user:pass@llm.vendor.com",
        "https://llm.vendor.com?x=1",
        "https://llm.vendor.com/#x",
        "https://llm.vendor.com/a/../b",
        "https://llm.vendor.com/a//b",
        "https://llm.vendor.com/%2e%2e",
        "https://llm.vendor.com/a b",
        "https://llm.vendor.com\\@evil.example",
        "https://llm.vendor.com:0",
        "https://llm.vendor.com:443x",
        "https://llm.vendor.com:22",
        "https://llm.vendor.com:6443",
        "https://127.0.0.1",
        "https://2130706433",
        "https://0x7f.1",
        "https://[::1]",
        "https://10.0.0.7",
        "https://203.0.113.7",
        "https://localhost",
        "https://metadata.google.internal",
        "https://broker.gatehouse.internal/openai",
        "https://printer.local",
        "https://intranet",
        "https://llm_.vendor..com",
        "https://" + "a" * 64 + ".com",
        "https://llm.vendor.com\x00.evil.example",
        "https://llm.vendor.com\n/v1",
        "HTTPS://llm.vendor.com",
        "https://llm.vendor.com/" + "a" * 300,
        "",
        7,
    ],
)
def test_refuse_an_address_that_is_none_of_the_public_internet(rest: Rest, base_url: object) -> None:
    assert rest.refused("POST", "services", LLM | {"base_url": base_url}) == (400, "invalid_input", "base_url")
    assert not BrokerService.objects.filter(name="llm").exists()


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("https://LLM.Vendor.com", "https://llm.vendor.com"),
        ("https://llm.vendor.com.:443/", "https://llm.vendor.com"),
        ("https://llm.vendor.com:8443/v1/", "https://llm.vendor.com:8443/v1"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
    ],
)
def test_an_address_is_kept_in_its_one_form(rest: Rest, said: str, kept: str) -> None:
    assert create(rest, base_url=said)["base_url"] == kept


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"slot": "cookie:session"}, "slot"),
        ({"slot": "header:"}, "slot"),
        ({"slot": "header:X-Key"}, "slot"),
        ({"slot": "header:host"}, "slot"),
        ({"slot": "header:content-length"}, "slot"),
        ({"slot": "header:transfer-encoding"}, "slot"),
        ({"slot": "header:cookie"}, "slot"),
        ({"slot": "header:x-forwarded-for"}, "slot"),
        ({"slot": "header:gatehouse-sandbox-id"}, "slot"),
        ({"slot": "header:a\r\nb"}, "slot"),
        ({"slot": "query:a&b"}, "slot"),
        ({"slot": "query:"}, "slot"),
        ({"slot": "Bearer"}, "slot"),
        ({"headers": ["Host"]}, "headers[0]"),
        ({"headers": ["host"]}, "headers[0]"),
        ({"headers": ["x-ok", "authorization"]}, "headers[1]"),
        ({"headers": ["cookie"]}, "headers[0]"),
        ({"headers": ["x-forwarded-host"]}, "headers[0]"),
        ({"headers": ["gatehouse-sandbox-id"]}, "headers[0]"),
        ({"headers": ["accept-encoding"]}, "headers[0]"),
        ({"headers": ["x-llm-key"]}, "headers[0]"),
        ({"headers": ["a b"]}, "headers[0]"),
        ({"headers": ["x"] * 33}, "headers"),
        ({"kind": "smtp"}, "kind"),
        ({"usd_per_million_tokens": -1}, "usd_per_million_tokens"),
        ({"name": "LLM"}, "name"),
        ({"name": "a/b"}, "name"),
        ({"name": ".."}, "name"),
        ({"name": ""}, "name"),
        ({"name": "0" * 32}, "name"),
        ({"timeout": 5}, "timeout"),
    ],
)
def test_refuse_what_no_service_is(rest: Rest, changes: dict[str, Any], field: str) -> None:
    status, code, named = rest.refused("POST", "services", LLM | changes)
    assert (status, code) == (400, "invalid_input")
    assert named is not None
    assert named.startswith(field)
    assert not Event.objects.filter(code="service.created").exists()


def test_only_an_operator_makes_a_service_private(rest: Rest, olga: Operator, alice: Caller) -> None:
    inside = {"base_url": "https://10.20.0.7:9443/llm", "private": True}
    assert rest.refused("POST", "services", LLM | inside)[:2] == (403, "forbidden")

    made = create(rest)
    granted = olga.call("PUT", f"services/{made['id']}", LLM_AGAIN | inside | {"version": 1})
    assert (granted.status_code, granted.json()["private"]) == (200, True)
    assert granted.json()["base_url"] == "https://10.20.0.7:9443/llm"
    changed = Event.objects.get(code="service.changed")
    assert changed.tenant_id == alice.tenant.pk
    assert changed.details == {
        "before": {"base_url": "https://llm.vendor.com/v2", "private": False},
        "after": {"base_url": "https://10.20.0.7:9443/llm", "private": True},
    }


LLM_AGAIN = {name: value for name, value in LLM.items() if name != "name"}


def test_what_an_operator_made_private_its_tenant_can_not_point_elsewhere(rest: Rest, olga: Operator) -> None:
    made = create(rest)
    inside = LLM_AGAIN | {"base_url": "https://10.20.0.7:8443", "private": True}
    assert olga.call("PUT", f"services/{made['id']}", inside | {"version": 1}).status_code == 200

    moved = inside | {"base_url": "https://10.20.0.8:8443", "version": 2}
    assert rest.refused("PUT", "services/llm", moved)[:2] == (403, "forbidden")
    assert rest.call("PUT", "services/llm", inside | {"version": 2, "headers": ["x-org"]}).status_code == 200
    public = LLM_AGAIN | {"version": 3}
    assert rest.call("PUT", "services/llm", public).json()["private"] is False


def test_a_name_of_the_platform_is_taken(rest: Rest, olga: Operator) -> None:
    for name in ("openai", "anthropic", "github"):
        assert rest.refused("POST", "services", LLM | {"name": name}) == (409, "conflict", "name")
    create(rest)
    assert rest.refused("POST", "services", LLM) == (409, "conflict", "name")
    assert olga.post("services", LLM | {"name": "company"}, status=201)["tenant"] is None
    assert rest.refused("POST", "services", LLM | {"name": "company"}) == (409, "conflict", "name")


def test_an_operator_points_a_ready_one_to_the_companys_gateway(rest: Rest, olga: Operator, alice: Caller) -> None:
    ready = rest.get("services/openai")
    body = {"version": 1, "base_url": "https://llm.acme.example/openai", "kind": "openai"}
    assert rest.refused("PUT", "services/openai", body)[:2] == (403, "forbidden")

    assert olga.call("PUT", "services/openai", body).json()["version"] == 2

    found = catalogue.find(alice.tenant.pk, "openai")
    assert found is not None
    assert found.base_url == "https://llm.acme.example/openai"
    assert rest.refused("DELETE", "services/openai")[:2] == (403, "forbidden")
    assert olga.refused("DELETE", f"services/{ready['id']}")[:2] == (409, "conflict")


def test_who_saw_an_older_version_changes_nothing(rest: Rest) -> None:
    create(rest)
    assert rest.call("PUT", "services/llm", LLM_AGAIN | {"version": 1}).json()["version"] == 2
    assert rest.refused("PUT", "services/llm", LLM_AGAIN | {"version": 1}) == (409, "conflict", "version")
    assert rest.refused("PUT", "services/llm", LLM_AGAIN) == (400, "invalid_input", "version")


def test_a_deleted_one_is_gone(rest: Rest) -> None:
    create(rest)
    assert rest.call("DELETE", "services/llm").status_code == 204
    assert rest.refused("DELETE", "services/llm")[:2] == (404, "not_found")
    assert Event.objects.filter(code="service.deleted").count() == 1


def test_a_developer_looks_and_does_not_say_where_secrets_go(rest: Rest, bob: Caller, vera: Caller) -> None:
    create(rest)
    for looking in (Rest(bob.secret), Rest(vera.secret)):
        assert looking.get("services/llm")["name"] == "llm"
        assert looking.refused("POST", "services", LLM | {"name": "mine"})[:2] == (403, "forbidden")
        assert looking.refused("PUT", "services/llm", LLM_AGAIN | {"version": 1})[:2] == (403, "forbidden")
        assert looking.refused("DELETE", "services/llm")[:2] == (403, "forbidden")
    blind = Rest(caller(bob.tenant, "blind", ["sandboxes:read"]).secret)
    assert blind.refused("GET", "services")[:2] == (403, "forbidden")


def test_a_token_names_the_service_and_its_calls(rest: Rest, node: NodeDouble, base: Template, alice: Caller) -> None:
    factories.secret(alice.tenant, "llm-key", "llm-secret-value")
    create(rest, usd_per_million_tokens=10)
    box = alice.create()["sandboxID"]
    body: dict[str, Any] = {
        "secret": "llm-key",
        "service": "llm",
        "params": {"max_tokens": 1000},
        "budget": {"usd": 0.5},
    }
    made = rest.post(f"sandboxes/{box}/tokens", body, status=201)
    assert made["client_url"] == "http://broker.gatehouse.internal/llm/v1"
    assert {"methods": ["GET"], "paths": ["/v1/models"]} in made["allow"]
    assert made["budget"]["usd"] == 0.5
    create(rest, name="plain", kind="generic")
    plain = body | {"service": "plain"}
    assert rest.refused("POST", f"sandboxes/{box}/tokens", plain) == (400, "invalid_input", "allow")
    plain["allow"] = [{"methods": ["GET"], "paths": ["/**"]}]
    assert rest.refused("POST", f"sandboxes/{box}/tokens", plain) == (400, "invalid_input", "budget.usd")
