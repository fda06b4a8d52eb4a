"""From policies, ceilings and E2B's lists to the document that a sandbox's egress process obeys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from corekit import clock
from corekit.errors import InvalidInput
from corekit.netrules.policy import Policy
from tenants.models import Bundle, NetworkPolicy, PlatformNetwork, TenantNetwork
from tenants.networks import E2BNetwork, compile_network
from tenants.networks.presets import CLOSED

if TYPE_CHECKING:
    from tenants.models import Tenant

MODELS = ["api.openai.com:443", "api.anthropic.com:443"]
CEILING = {"name": "tenant", "mode": "deny", "first": "deny", "egress": MODELS}


def policy(name: str, tenant: Tenant | None = None, **spec: Any) -> NetworkPolicy:
    """Return a new policy's row."""
    return NetworkPolicy.objects.create(name=name, tenant=tenant, spec={**CLOSED, **spec})


def set_network(tenant: Tenant, **values: Any) -> None:
    """Write a tenant's network settings."""
    TenantNetwork(tenant=tenant, **values).save(force_insert=True)


def test_a_new_tenant_gets_its_ceiling(acme: Tenant) -> None:
    found = compile_network(acme)

    assert (found.mode, found.policy_name, found.ingress_ports) == ("open", "", None)
    assert found.document["layers"] == [{"name": "sandbox", "mode": "allow", "first": "allow", "egress": []}, CEILING]


def test_restricted_is_what_its_name_says(acme: Tenant) -> None:
    found = compile_network(acme, policy="restricted")

    assert (found.mode, found.policy_name, found.policy_version) == ("open", "restricted", 1)
    assert found.ingress_ports == ()
    assert found.environment == {}
    assert found.document == {
        "version": 1,
        "layers": [{"name": "sandbox", "mode": "deny", "first": "deny", "egress": MODELS}, CEILING],
        "deny": [],
        "private": [],
        "dns": True,
        "via": None,
        "egress_proxy": None,
        "limits": {"flows": 256, "new_per_s": 50, "bytes_out": None, "idle_s": 300},
        "tls": {"sni": "require", "ech": "deny"},
        "rules": [],
        "placeholders": [],
    }


def test_isolated_has_no_network_for_life(acme: Tenant) -> None:
    found = compile_network(acme, policy="isolated")

    assert (found.mode, found.policy_name, found.ingress_ports) == ("none", "isolated", ())
    assert (found.document["layers"][0]["egress"], found.document["dns"]) == ([], False)


def test_proxied_is_the_ceiling_through_the_explicit_proxy(acme: Tenant) -> None:
    found = compile_network(acme, policy="proxied")

    assert found.mode == "open"
    assert found.document["layers"] == [CEILING]
    # Without names that resolve, only the proxy leads anywhere.
    assert found.document["dns"] is False
    proxy = "http://proxy.internal:8080"
    assert found.environment == {
        "http_proxy": proxy,
        "HTTP_PROXY": proxy,
        "https_proxy": proxy,
        "HTTPS_PROXY": proxy,
    }


def test_the_alias_of_the_proxy_beside_hosts_is_no_host(acme: Tenant) -> None:
    policy("mixed", acme, egress=["proxy.internal:8080", "api.example.com:443"], dns=True)

    found = compile_network(acme, policy="mixed")

    assert found.document["layers"][0]["egress"] == ["api.example.com:443"]
    assert found.document["dns"] is True


def test_bundles_expand_in_every_layer(acme: Tenant) -> None:
    Bundle.objects.filter(name="python").update(
        entries=["index.example:443", "files.example:443"], private=["10.1.2.3/32"]
    )

    found = compile_network(acme, policy="restricted", version=5)

    whole = [*MODELS, "index.example:443", "files.example:443"]
    assert [layer["egress"] for layer in found.document["layers"]] == [whole, whole]
    assert found.document["private"] == ["10.1.2.3/32"]
    assert found.document["version"] == 5


def test_a_bundle_that_no_layer_names_grants_nothing(acme: Tenant) -> None:
    Bundle.objects.filter(name="npm").update(entries=["npm.example:443"], private=["10.1.2.3/32"])

    assert compile_network(acme).document["private"] == []


def test_the_own_policy_wins_over_the_platforms_of_the_same_name(acme: Tenant, evil_corp: Tenant) -> None:
    policy("shared", None, egress=["platform.example:443"])
    policy("shared", acme, egress=["acme.example:443"])

    assert compile_network(acme, policy="shared").document["layers"][0]["egress"] == ["acme.example:443"]
    assert compile_network(evil_corp, policy="shared").document["layers"][0]["egress"] == ["platform.example:443"]


def test_a_policy_that_the_tenant_has_not_is_refused(acme: Tenant, evil_corp: Tenant) -> None:
    policy("theirs", evil_corp)

    for name in ("theirs", "nothing", ""):
        with pytest.raises(InvalidInput) as refused:
            compile_network(acme, policy=name)
        assert refused.value.field == "network"


def test_a_deleted_policy_counts_for_what_runs_only(acme: Tenant) -> None:
    gone = policy("gone", acme, egress=["old.example:443"])
    NetworkPolicy.objects.filter(pk=gone.pk).update(deleted_at=clock.now())

    with pytest.raises(InvalidInput):
        compile_network(acme, policy="gone")
    found = compile_network(acme, policy="gone", running=True)
    assert found.document["layers"][0]["egress"] == ["old.example:443"]

    policy("gone", acme, egress=["new.example:443"])
    found = compile_network(acme, policy="gone", running=True)
    assert found.document["layers"][0]["egress"] == ["new.example:443"]


def test_the_operators_words_are_in_every_document(acme: Tenant) -> None:
    PlatformNetwork.objects.create(deny=["evil.example:1-65535"])
    ceiling = policy("company", None, egress=["!a.example:443"], dns=True, via="proxy.example:3128")
    set_network(acme, ceiling=ceiling, public_internet=True, private_ranges=["10.20.0.0/16"])
    policy("mine", acme, egress=["api.example.com:443"], dns=True, ingress=[3000], limits={"flows": 10})

    found = compile_network(acme, policy="mine")

    assert found.document["layers"][1] == {
        "name": "tenant",
        "mode": "allow",
        "first": "deny",
        "egress": ["!a.example:443"],
    }
    assert found.document["deny"] == ["evil.example:1-65535"]
    assert found.document["private"] == ["10.20.0.0/16"]
    assert found.document["via"] == "proxy.example:3128"
    assert found.ingress_ports == (3000,)
    assert Policy.parse(found.document).dump() == found.document


@pytest.mark.parametrize(
    ("ceiling", "asked", "limit"),
    [
        ({}, {}, 256),
        ({}, {"flows": 10}, 10),
        ({}, {"flows": 1000}, 256),
        ({"flows": 1000}, {}, 1000),
        ({"flows": 1000}, {"flows": None}, 1000),
        ({"flows": None}, {}, None),
        ({"flows": None}, {"flows": 5}, 5),
    ],
)
def test_the_smaller_limit_holds(
    acme: Tenant, ceiling: dict[str, int | None], asked: dict[str, int | None], limit: int | None
) -> None:
    set_network(acme, ceiling=policy("company", None, limits=ceiling))
    policy("mine", acme, limits=asked)

    assert compile_network(acme, policy="mine").document["limits"]["flows"] == limit


def test_the_stricter_reading_of_tls_holds(acme: Tenant) -> None:
    lenient = {"sni": "log", "ech": "allow"}
    policy("mine", acme, tls=lenient)
    assert compile_network(acme, policy="mine").document["tls"] == {"sni": "require", "ech": "deny"}

    set_network(acme, ceiling=policy("company", None, tls=lenient))
    assert compile_network(acme, policy="mine").document["tls"] == lenient


def test_a_missing_ceiling_allows_nothing(acme: Tenant) -> None:
    NetworkPolicy.objects.all().delete()
    policy("mine", acme, egress=["api.example.com:443"])

    assert compile_network(acme, policy="mine").document["layers"][1]["egress"] == []


@pytest.mark.parametrize(
    ("asked", "mode", "egress"),
    [
        (E2BNetwork(), "allow", []),
        (E2BNetwork(allow_internet_access=True), "allow", []),
        (E2BNetwork(allow_internet_access=False), "deny", []),
        (E2BNetwork(deny_out=["0.0.0.0/0"]), "deny", []),
        (E2BNetwork(deny_out=["8.8.8.8", "1.1.1.0/24"]), "allow", ["!8.8.8.8:1-65535", "!1.1.1.0/24:1-65535"]),
        # An allow list denies the rest.
        (E2BNetwork(allow_out=["1.1.1.1"]), "deny", ["1.1.1.1:1-65535"]),
        (
            E2BNetwork(allow_out=["a.example.com", "*.b.example.com"], deny_out=["0.0.0.0/0"]),
            "deny",
            ["a.example.com:443", "a.example.com:80", "*.b.example.com:443", "*.b.example.com:80"],
        ),
        (E2BNetwork(allow_out=["*"], deny_out=["0.0.0.0/0"]), "allow", ["!0.0.0.0/0:1-65535"]),
        (E2BNetwork(allow_out=["2606:4700::1111"]), "deny", ["[2606:4700::1111]:1-65535"]),
    ],
)
def test_e2b_lists_are_a_layer_under_the_ceiling(acme: Tenant, asked: E2BNetwork, mode: str, egress: list[str]) -> None:
    found = compile_network(acme, e2b=asked)

    assert found.document["layers"] == [{"name": "sandbox", "mode": mode, "first": "allow", "egress": egress}, CEILING]
    assert (found.mode, found.policy_name, found.ingress_ports) == ("open", "", None)
    # As the egress process reads it, rule by rule.
    assert Policy.parse(found.document).dump() == found.document


def test_e2b_lists_and_a_policy_hold_together(acme: Tenant) -> None:
    proxy = {"address": "proxy.example:1080"}
    found = compile_network(acme, policy="restricted", e2b=E2BNetwork(allow_internet_access=False, egress_proxy=proxy))

    assert [(layer["name"], layer["mode"], layer["egress"]) for layer in found.document["layers"]] == [
        ("sandbox", "deny", []),
        ("sandbox", "deny", MODELS),
        ("tenant", "deny", MODELS),
    ]
    assert found.document["egress_proxy"] == proxy
