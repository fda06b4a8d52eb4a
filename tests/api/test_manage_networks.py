"""Network policies over REST: made, checked as they are typed, replaced by version, and bounded by operators."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tenants.models import NetworkPolicy
from tenants.networks import actions
from tests.factories import OPERATOR

if TYPE_CHECKING:
    from tests.api.rest import Operator, Rest
    from tests.sandboxes.fixtures import Caller

pytestmark = pytest.mark.django_db

OPENAI = ["api.openai.com:443"]


def test_make_one_and_look_at_it(rest: Rest) -> None:
    made = rest.post(
        "network-policies",
        {"name": "models", "egress": ["API.openai.com:443", "@python"], "ingress": [3000], "dns": True},
        status=201,
    )

    assert (made["name"], made["version"]) == ("models", 1)
    assert made["spec"]["egress"] == ["api.openai.com:443", "@python"]
    assert made["spec"]["written"] == ["API.openai.com:443", "@python"]
    assert made["expanded"] == ["api.openai.com:443"]
    assert [(one["field"], one["code"]) for one in made["warnings"]] == [("egress[1]", "bundle_empty")]

    actions.set_bundle(actor=OPERATOR, name="python", entries=["index.example:443"])
    shown = rest.get("network-policies/models")
    assert shown["expanded"] == ["api.openai.com:443", "index.example:443"]
    assert rest.get(f"network-policies/{made['id']}") == shown
    listed = rest.get("network-policies")["items"]
    assert [one["name"] for one in listed] == ["isolated", "models", "proxied", "restricted"]
    assert [one["tenant"] is None for one in listed] == [True, False, True, True]


def test_the_presets_are_the_commissions(rest: Rest) -> None:
    found = {one["name"]: one["spec"] for one in rest.get("network-policies")["items"]}

    assert (found["isolated"]["egress"], found["isolated"]["dns"]) == ([], False)
    assert found["restricted"]["egress"] == ["api.openai.com:443", "api.anthropic.com:443", "@python"]
    assert found["proxied"]["egress"] == ["proxy.internal:8080"]
    assert found["proxied"]["http_proxy"] == found["proxied"]["https_proxy"] == "http://proxy.internal:8080"
    assert {name: spec["ingress"] for name, spec in found.items()} == {
        "isolated": [],
        "restricted": [],
        "proxied": [],
    }


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": "x", "egress": ["a.example:443", "b.example"]}, "egress[1]"),
        ({"name": "x", "egress": None}, "egress"),
        ({"name": "x", "ingress": ["3000"]}, "ingress[0]"),
        ({"name": "x", "limits": {"flows": -1}}, "limits.flows"),
        ({"name": "x", "rules": []}, "rules"),
    ],
)
def test_every_mistake_names_its_field(rest: Rest, body: dict[str, Any], field: str) -> None:
    assert rest.refused("POST", "network-policies", body) == (400, "invalid_input", field)
    assert NetworkPolicy.objects.count() == 3


def test_a_taken_name_is_a_conflict(rest: Rest) -> None:
    rest.post("network-policies", {"name": "models"}, status=201)

    for name in ("models", "restricted"):
        assert rest.refused("POST", "network-policies", {"name": name}) == (409, "conflict", "name")


def test_replace_needs_the_version_that_was_seen(rest: Rest) -> None:
    rest.post("network-policies", {"name": "models", "egress": OPENAI}, status=201)

    answer = rest.call("PUT", "network-policies/models", {"version": 1, "egress": ["api.anthropic.com:443"]})
    assert (answer.status_code, answer.json()["version"]) == (200, 2)
    assert answer.json()["spec"]["egress"] == ["api.anthropic.com:443"]

    late = rest.call("PUT", "network-policies/models", {"version": 1, "egress": []})
    assert (late.status_code, late.json()["field"], late.json()["details"]) == (409, "version", {"version": 2})
    versions = rest.get("network-policies/models/versions")["items"]
    assert [(one["version"], one["spec"]["egress"]) for one in versions] == [
        (2, ["api.anthropic.com:443"]),
        (1, OPENAI),
    ]


def test_delete_one_that_nobody_depends_on(rest: Rest, alice: Caller) -> None:
    rest.post("network-policies", {"name": "models"}, status=201)
    where = f"tenants/{alice.tenant.pk.hex}/network"
    assert rest.call("PATCH", where, {"default": "models"}).json()["default"] == "models"

    assert rest.refused("DELETE", "network-policies/models")[:2] == (409, "conflict")
    assert rest.call("PATCH", where, {"default": None}).json()["default"] is None
    assert rest.call("DELETE", "network-policies/models").status_code == 204

    assert rest.refused("GET", "network-policies/models") == (404, "not_found", None)


def test_check_says_all_that_is_wrong_and_keeps_nothing(rest: Rest) -> None:
    found = rest.post("network-policies/check", {"egress": ["a.example", "b.example:443", "@nothing"], "dns": 1})

    assert found["valid"] is False
    assert [one["field"] for one in found["problems"]] == ["dns", "egress[0]", "egress[2]"]
    assert found["spec"]["egress"] == ["b.example:443"]
    assert found["answer"] is None
    assert NetworkPolicy.objects.count() == 3


@pytest.mark.parametrize(
    ("host", "port", "allowed", "reason", "rule", "layer"),
    [
        ("api.openai.com", 443, True, "", "api.openai.com:443", "sandbox"),
        ("API.OpenAI.com.", 443, True, "", "api.openai.com:443", "sandbox"),
        ("api.openai.com", 80, False, "port", "", "sandbox"),
        ("evil.example", 443, False, "no_rule", "", "sandbox"),
        # The policy allows it, the tenant's ceiling does not.
        ("other.example", 443, False, "no_rule", "", "tenant"),
        ("8.8.8.8", 443, False, "literal_ip", "", "sandbox"),
        ("10.1.2.3", 443, False, "literal_ip", "", "tenant"),
        ("169.254.169.254", 80, False, "metadata", "", ""),
        ("0x7f.1", 443, False, "bad_host", "", ""),
        ("a b", 443, False, "bad_host", "", ""),
        ("denied.example", 443, False, "operator_deny", "denied.example:443", ""),
    ],
)
def test_try_a_host(rest: Rest, host: str, port: int, allowed: bool, reason: str, rule: str, layer: str) -> None:  # noqa: FBT001
    actions.set_platform_deny(actor=OPERATOR, entries=["denied.example:443"])
    body = {"egress": [*OPENAI, "other.example:443", "10.1.2.3:443"], "host": host, "port": port}

    answer = rest.post("network-policies/check", body)["answer"]

    assert (answer["allowed"], answer["reason"], answer["rule"], answer["layer"]) == (allowed, reason, rule, layer)
    assert bool(answer["sentence"]) is not allowed
    assert answer["protocols"] == (["tls"] if allowed else [])


def test_try_a_private_address_with_and_without_a_grant(rest: Rest, alice: Caller) -> None:
    actions.set_ceiling(actor=OPERATOR, tenant=alice.tenant, public_internet=True)
    body = {"egress": ["203.0.113.9:5432"], "host": "203.0.113.9", "port": 5432}
    assert rest.post("network-policies/check", body)["answer"]["reason"] == "literal_ip"

    actions.create_policy(actor=OPERATOR, tenant=None, name="database", body={"egress": ["203.0.113.9:5432"]})
    actions.set_ceiling(actor=OPERATOR, tenant=alice.tenant, policy="database")
    found = rest.post("network-policies/check", body)
    assert found["answer"]["reason"] == "resolved_private"
    assert [one["code"] for one in found["warnings"]] == ["not_public"]

    actions.set_private_ranges(actor=OPERATOR, tenant=alice.tenant, ranges=["203.0.113.0/24"])
    found = rest.post("network-policies/check", body)
    assert (found["answer"]["allowed"], found["warnings"]) == (True, [])


def test_check_a_policy_by_its_name(rest: Rest) -> None:
    found = rest.post("network-policies/check", {"policy": "restricted", "host": "api.anthropic.com"})
    assert (found["valid"], found["answer"]["allowed"]) == (True, True)

    assert rest.refused("POST", "network-policies/check", {"policy": "restricted", "dns": True}) == (
        400,
        "invalid_input",
        "dns",
    )
    assert rest.refused("POST", "network-policies/check", {"policy": "nothing"})[:2] == (404, "not_found")


def test_operators_make_the_platforms_policies_and_ceilings(olga: Operator, rest: Rest, alice: Caller) -> None:
    olga.post(
        "network-policies", {"name": "company", "egress": ["*.example.com:*"], "via": "proxy.example:80"}, status=201
    )
    where = f"tenants/{alice.tenant.pk.hex}/network"
    wanted = {"ceiling": "company", "public_internet": True, "private_ranges": ["10.20.0.0/16"]}

    assert olga.call("PATCH", where, wanted).json() == {"default": None, **wanted}

    assert rest.get(where)["ceiling"] == "company"
    changes: list[dict[str, Any]] = [{"ceiling": None}, {"public_internet": False}, {"private_ranges": []}]
    for change in changes:
        assert rest.refused("PATCH", where, {"default": "isolated", **change}) == (403, "forbidden", None)
    # All of it or nothing.
    assert rest.get(where) == {"default": None, **wanted}
    assert rest.refused("PUT", "network-policies/company", {"version": 1}) == (403, "forbidden", None)
    assert rest.refused("DELETE", "network-policies/company") == (403, "forbidden", None)


def test_operators_set_bundles_and_the_deny_list(olga: Operator, rest: Rest) -> None:
    set_to = olga.call(
        "PUT", "network-bundles/python", {"entries": ["index.example:443"], "private": ["203.0.113.8"]}
    ).json()
    assert (set_to["entries"], set_to["private"], set_to["source"]) == (
        ["index.example:443"],
        ["203.0.113.8/32"],
        "an operator",
    )
    assert olga.call("PUT", "network-deny-list", {"deny": ["Evil.example:*"]}).json()["deny"] == [
        "evil.example:1-65535"
    ]
    assert olga.get("network-deny-list")["deny"] == ["evil.example:1-65535"]

    bundles = rest.get("network-bundles")["items"]
    assert [(one["name"], one["entries"]) for one in bundles] == [
        ("debian", []),
        ("git", []),
        ("npm", []),
        ("python", ["index.example:443"]),
    ]
    assert olga.refused("PUT", "network-bundles/python", {"entries": ["x"]}) == (400, "invalid_input", "entries[0]")
    assert olga.refused("PUT", "network-deny-list", {"deny": ["!x.example:1"]}) == (400, "invalid_input", "deny[0]")
    assert rest.refused("GET", "network-deny-list") == (403, "forbidden", None)


def test_viewers_look_and_check_only(vera: Caller) -> None:
    from tests.api.rest import Rest as Api

    looks = Api(vera.secret)
    assert looks.get("network-policies/restricted")["name"] == "restricted"
    assert looks.post("network-policies/check", {"egress": OPENAI})["valid"] is True
    assert looks.refused("POST", "network-policies", {"name": "mine"}) == (403, "forbidden", None)
