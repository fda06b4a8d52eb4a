"""Operators say what no policy goes beyond: ceilings, private addresses, the deny list, bundles, presets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from audit.models import Event
from corekit.errors import Conflict, InvalidInput
from tenants.models import Bundle, NetworkPolicy, PlatformNetwork, Tenant, TenantNetwork
from tenants.networks import actions, compile_network
from tests.factories import OPERATOR

if TYPE_CHECKING:
    from tests.people import Person

OPENAI = {"egress": ["api.openai.com:443"]}


def test_what_does_not_get_through_the_ceiling_is_said(alice: Person) -> None:
    saved = actions.create_policy(
        actor=alice.actor,
        tenant=alice.tenant,
        name="wide",
        body={
            "mode": "allow",
            "egress": [
                "api.openai.com:443",
                "api.openai.com:8443",
                "*.openai.com:443",
                "other.example:443",
                "!other.example:80",
                "10.1.2.3:5432",
                "api.openai.com:443/tcp",
                "\u0430pi.openai.com:443",
            ],
        },
    )

    assert [(one.field, one.code) for one in saved.warnings] == [
        ("egress[7]", "mixed_scripts"),
        ("mode", "not_in_ceiling"),
        ("egress[1]", "not_in_ceiling"),
        ("egress[2]", "not_in_ceiling"),
        ("egress[3]", "not_in_ceiling"),
        ("egress[5]", "not_public"),
        ("egress[6]", "not_in_ceiling"),
        ("egress[7]", "not_in_ceiling"),
    ]


def test_a_wide_ceiling_lets_wildcards_and_networks_through(alice: Person) -> None:
    actions.create_policy(
        actor=OPERATOR,
        tenant=None,
        name="company",
        body={"egress": ["*.example.com:1-9000/tcp", "!secret.example.com:443", "8.8.0.0/16:53", "10.0.0.0/8:5432"]},
    )
    actions.set_ceiling(actor=OPERATOR, tenant=alice.tenant, policy="company")
    actions.set_private_ranges(actor=OPERATOR, tenant=alice.tenant, ranges=["10.1.0.0/16"])
    actions.set_platform_deny(actor=OPERATOR, entries=["*.bad.example.com:1-65535"])
    body = {
        "egress": [
            "api.example.com:443",
            "*.dev.example.com:8000-8080",
            "8.8.8.8:53",
            "10.1.2.3:5432",
            "example.com:443",
            "*.example.com:443",
            "10.2.0.1:5432",
            "x.bad.example.com:443",
        ]
    }

    saved = actions.create_policy(actor=alice.actor, tenant=alice.tenant, name="mine", body=body)

    assert [(one.field, one.code) for one in saved.warnings] == [
        ("egress[4]", "not_in_ceiling"),
        # A part of it is denied there, and another part by the operator.
        ("egress[5]", "operator_deny"),
        ("egress[6]", "not_public"),
        ("egress[7]", "operator_deny"),
    ]


def test_the_public_internet_speaks_the_webs_protocols_on_the_webs_ports(alice: Person) -> None:
    actions.set_ceiling(actor=OPERATOR, tenant=alice.tenant, public_internet=True)
    body = {"egress": ["a.example:443", "a.example:443/tcp", "a.example:80/ws", "a.example:22", "8.8.8.8:443"]}

    saved = actions.create_policy(actor=alice.actor, tenant=alice.tenant, name="mine", body=body)

    assert [(one.field, one.code) for one in saved.warnings] == [("egress[1]", "not_in_ceiling")]


def test_a_bundle_that_does_not_get_through_is_said(alice: Person) -> None:
    actions.set_bundle(actor=OPERATOR, name="python", entries=["index.example:443"])
    actions.set_bundle(actor=OPERATOR, name="npm", entries=["npm.example:443"])

    saved = actions.create_policy(
        actor=alice.actor, tenant=alice.tenant, name="mine", body={"egress": ["@python", "@npm"]}
    )

    assert [(one.field, one.code) for one in saved.warnings] == [("egress[1]", "not_in_ceiling")]
    assert saved.warnings[0].message.startswith("@npm: npm.example:443 does not get through")


def test_an_empty_bundle_is_said(alice: Person) -> None:
    saved = actions.create_policy(actor=alice.actor, tenant=alice.tenant, name="mine", body={"egress": ["@python"]})
    assert [(one.field, one.code) for one in saved.warnings] == [("egress[0]", "bundle_empty")]
    assert "manage.py bundles discover" in saved.warnings[0].message

    actions.set_bundle(actor=OPERATOR, name="python", entries=["index.example:443"])
    saved = actions.create_policy(actor=alice.actor, tenant=alice.tenant, name="mine2", body={"egress": ["@python"]})
    assert saved.warnings == []


def test_a_ceiling_is_a_policy_of_the_platform(alice: Person, told: list[Any]) -> None:
    actions.create_policy(actor=alice.actor, tenant=alice.tenant, name="models", body=OPENAI)
    with pytest.raises(InvalidInput) as refused:
        actions.set_ceiling(actor=OPERATOR, tenant=alice.tenant, policy="models")
    assert refused.value.field == "policy"

    actions.set_ceiling(actor=OPERATOR, tenant=alice.tenant, policy="isolated", public_internet=True)

    assert compile_network(alice.tenant, policy="models").document["layers"][1]["mode"] == "allow"
    assert Event.objects.get(code="network.ceiling_set").details == {
        "before": {"policy": None, "public_internet": False},
        "after": {"policy": "isolated", "public_internet": True},
    }
    assert told == [(alice.tenant.pk.hex, None)]


def test_some_settings_change_and_the_others_stay(alice: Person) -> None:
    actions.set_network(actor=OPERATOR, tenant=alice.tenant, wanted={"ceiling": "isolated", "public_internet": True})
    actions.set_network(
        actor=OPERATOR, tenant=alice.tenant, wanted={"public_internet": False, "private_ranges": ["10.0.0.0/8"]}
    )

    network = TenantNetwork.everywhere().select_related("ceiling").get()
    assert network.ceiling is not None
    assert (network.ceiling.name, network.public_internet, network.private_ranges) == (
        "isolated",
        False,
        ["10.0.0.0/8"],
    )


@pytest.mark.parametrize(
    ("ranges", "field"),
    [
        (["10.0.0.1/8"], "private_ranges[0]"),
        (["10.0.0.0/8", "mirror"], "private_ranges[1]"),
        ([None], "private_ranges[0]"),
        (["127.0.0.1"], "private_ranges[0]"),
        (["169.254.169.254"], "private_ranges[0]"),
        (["0.0.0.0/0"], "private_ranges[0]"),
        (["::1"], "private_ranges[0]"),
        ([f"10.{number}.0.0/16" for number in range(65)], "private_ranges"),
    ],
)
def test_bad_private_ranges_are_refused(acme: Tenant, ranges: list[Any], field: str, told: list[Any]) -> None:
    with pytest.raises(InvalidInput) as refused:
        actions.set_private_ranges(actor=OPERATOR, tenant=acme, ranges=ranges)
    assert refused.value.field == field
    assert not TenantNetwork.everywhere().exists()
    assert told == []


def test_private_ranges_are_granted_and_taken_back(acme: Tenant, told: list[Any]) -> None:
    actions.set_private_ranges(actor=OPERATOR, tenant=acme, ranges=["10.20.0.0/16", "203.0.113.9"])
    assert compile_network(acme).document["private"] == ["10.20.0.0/16", "203.0.113.9/32"]

    actions.set_private_ranges(actor=OPERATOR, tenant=acme, ranges=["203.0.113.9/32"])

    assert compile_network(acme).document["private"] == ["203.0.113.9/32"]
    assert [event.details for event in Event.objects.filter(code="network.private_set").order_by("at", "id")] == [
        {"added": ["10.20.0.0/16", "203.0.113.9/32"], "removed": []},
        {"added": [], "removed": ["10.20.0.0/16"]},
    ]
    assert told == [(acme.pk.hex, None)] * 2


def test_the_deny_list_is_in_every_document(acme: Tenant, told: list[Any]) -> None:
    actions.set_platform_deny(actor=OPERATOR, entries=["Evil.example:*", "evil.example:1-65535", "*.com:25"])

    assert compile_network(acme).document["deny"] == ["evil.example:1-65535", "*.com:25"]
    event = Event.objects.get(code="network.deny_set")
    assert (event.tenant_id, event.details["added"]) == (None, ["evil.example:1-65535", "*.com:25"])
    assert told == [(None, None)]


@pytest.mark.parametrize("entry", ["!evil.example:443", "evil.example", 1])
def test_bad_denials_are_refused(db: None, entry: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        actions.set_platform_deny(actor=OPERATOR, entries=["a.example:443", entry])
    assert refused.value.field == "deny[1]"
    assert not PlatformNetwork.objects.exists()


def test_a_bundle_reaches_every_policy_that_names_it(acme: Tenant, told: list[Any]) -> None:
    actions.set_bundle(
        actor=OPERATOR,
        name="python",
        entries=["Index.example:443", "files.example:8443/tls"],
        private=["203.0.113.8"],
        source="pip",
    )

    document = compile_network(acme, policy="restricted").document
    assert document["layers"][0]["egress"][-2:] == ["index.example:443", "files.example:8443/tls"]
    assert document["private"] == ["203.0.113.8/32"]
    event = Event.objects.get(code="network.bundle_set")
    assert (event.object_name, event.details) == (
        "@python",
        {
            "added": ["index.example:443", "files.example:8443/tls"],
            "removed": [],
            "private": ["203.0.113.8/32"],
            "source": "pip",
        },
    )
    assert told == [(None, None)]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"name": "Bad Name", "entries": []}, "name"),
        ({"name": "python", "entries": ["!a.example:443"]}, "entries[0]"),
        ({"name": "python", "entries": ["a.example:443", "b.example"]}, "entries[1]"),
        ({"name": "python", "entries": [], "private": ["169.254.169.254"]}, "private[0]"),
    ],
)
def test_bad_bundles_are_refused(db: None, options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        actions.set_bundle(actor=OPERATOR, **options)
    assert refused.value.field == field
    assert not Bundle.objects.exclude(entries=[]).exists()


def test_an_operator_changes_restricted_for_everybody(acme: Tenant, told: list[Any]) -> None:
    restricted = NetworkPolicy.objects.get(name="restricted")

    actions.replace_policy(
        actor=OPERATOR, policy=restricted, version=1, body={"egress": ["a.example:*"], "via": "Proxy.example:3128"}
    )

    document = compile_network(acme, policy="restricted").document
    assert [layer["egress"] for layer in document["layers"]] == [["a.example:1-65535"]] * 2
    assert document["via"] == "proxy.example:3128"
    assert told == [(None, None)]


def test_isolated_and_the_other_presets_stay(db: None) -> None:
    for name in ("isolated", "restricted", "proxied"):
        with pytest.raises(Conflict):
            actions.delete_policy(actor=OPERATOR, policy=NetworkPolicy.objects.get(name=name))
    with pytest.raises(Conflict):
        actions.replace_policy(
            actor=OPERATOR, policy=NetworkPolicy.objects.get(name="isolated"), version=1, body=OPENAI
        )
