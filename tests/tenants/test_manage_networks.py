"""Tenants write policies, operators set what is above them; each change is an event and reaches what runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from audit.models import Event
from corekit.errors import Conflict, Forbidden, InvalidInput, NotFound
from tenants.models import NetworkPolicy, NetworkPolicyVersion, Tenant, TenantNetwork
from tenants.networks import actions, compile_network
from tests.factories import OPERATOR

if TYPE_CHECKING:
    from tests.people import Person

OPENAI = {"egress": ["api.openai.com:443"]}


def created(alice: Person, name: str = "models", **body: Any) -> NetworkPolicy:
    """Return a policy that Alice has made."""
    return actions.create_policy(actor=alice.actor, tenant=alice.tenant, name=name, body=body or OPENAI).policy


def test_a_policy_is_kept_in_its_canonical_form(alice: Person) -> None:
    saved = actions.create_policy(
        actor=alice.actor,
        tenant=alice.tenant,
        name="models",
        body={
            "description": "What the agents need.",
            "egress": ["API.OpenAI.com:443", "!Files.example.com:443/tls", "bücher.example:8000-8080", "@python"],
            "ingress": [3000, 3000, 8080],
            "dns": False,
            "limits": {"flows": 10, "bytes_out": None},
            "tls": {"ech": "allow"},
        },
    )

    assert (saved.policy.name, saved.policy.version, saved.policy.tenant) == ("models", 1, alice.tenant)
    assert saved.policy.spec == {
        "description": "What the agents need.",
        "mode": "deny",
        "egress": ["api.openai.com:443", "!files.example.com:443", "xn--bcher-kva.example:8000-8080", "@python"],
        "written": ["API.OpenAI.com:443", "!Files.example.com:443/tls", "bücher.example:8000-8080", "@python"],
        "ingress": [3000, 8080],
        "dns": False,
        "http_proxy": None,
        "https_proxy": None,
        "via": None,
        "limits": {"flows": 10, "bytes_out": None},
        "tls": {"sni": "require", "ech": "allow"},
    }
    version = NetworkPolicyVersion.objects.get(policy=saved.policy)
    assert (version.version, version.spec, version.created_by) == (1, saved.policy.spec, alice.actor.id)
    event = Event.objects.get(code="network_policy.created")
    assert (event.tenant_id, event.object_name, event.actor_id) == (alice.tenant.pk, "models", alice.actor.id)
    assert event.details["egress"] == saved.policy.spec["egress"]


def test_an_empty_policy_lets_nothing_through(alice: Person) -> None:
    spec = actions.create_policy(actor=alice.actor, tenant=alice.tenant, name="nothing", body={}).policy.spec

    assert (spec["mode"], spec["egress"], spec["ingress"], spec["dns"]) == ("deny", [], [], True)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"egress": "api.example.com:443"}, "egress"),
        ({"egress": ["api.example.com:443", "api.example.com"]}, "egress[1]"),
        ({"egress": ["https://api.example.com/"]}, "egress[0]"),
        ({"egress": [443]}, "egress[0]"),
        ({"egress": ["a.example.com:443"] * 257}, "egress"),
        ({"egress": [f"*.n{number}.example.com:443" for number in range(65)]}, "egress"),
        ({"egress": ["*.com:443"]}, "egress[0]"),
        ({"egress": ["*:443"]}, "egress[0]"),
        ({"egress": ["api.*.example.com:443"]}, "egress[0]"),
        ({"egress": ["api.example.com:*"]}, "egress[0]"),
        ({"egress": ["api.example.com:0"]}, "egress[0]"),
        ({"egress": ["api.example.com:443/quic"]}, "egress[0]"),
        ({"egress": ["0x7f.1:80"]}, "egress[0]"),
        ({"egress": ["169.254.169.254:80"]}, "egress[0]"),
        ({"egress": ["metadata.google.internal:80"]}, "egress[0]"),
        ({"egress": ["127.0.0.1:80"]}, "egress[0]"),
        ({"egress": ["@pyhton"]}, "egress[0]"),
        ({"mode": "open"}, "mode"),
        ({"mode": ["deny"]}, "mode"),
        ({"ingress": 3000}, "ingress"),
        ({"ingress": [0]}, "ingress[0]"),
        ({"ingress": [3000, 49983]}, "ingress[1]"),
        ({"ingress": [True]}, "ingress[0]"),
        ({"ingress": [[3000]]}, "ingress[0]"),
        ({"ingress": list(range(1, 66))}, "ingress"),
        ({"dns": "yes"}, "dns"),
        ({"http_proxy": "http://proxy.example.com:3128"}, "http_proxy"),
        ({"https_proxy": 1}, "https_proxy"),
        ({"via": "proxy.example.com:3128"}, "via"),
        ({"via": "proxy.example.com"}, "via"),
        ({"via": 1}, "via"),
        ({"limits": []}, "limits"),
        ({"limits": {"flows": 0}}, "limits.flows"),
        ({"limits": {"flows": True}}, "limits.flows"),
        ({"limits": {"speed": 1}}, "limits.speed"),
        ({"tls": "require"}, "tls"),
        ({"tls": {"sni": "off"}}, "tls.sni"),
        ({"tls": {"sni": ["require"]}}, "tls.sni"),
        ({"tls": {"version": 3}}, "tls.version"),
        ({"description": "x" * 201}, "description"),
        ({"description": "a\nb"}, "description"),
        ({"egres": []}, "egres"),
    ],
)
def test_what_is_wrong_is_named_by_its_field(alice: Person, body: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        actions.create_policy(actor=alice.actor, tenant=alice.tenant, name="models", body=body)

    assert refused.value.field == field
    assert not NetworkPolicy.objects.filter(tenant=alice.tenant).exists()
    assert not Event.objects.filter(code="network_policy.created").exists()


@pytest.mark.parametrize("name", ["", "A", "-a", "a b", "a" * 64, "check", "0123456789abcdef" * 2, None])
def test_bad_names_are_refused(alice: Person, name: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        actions.create_policy(actor=alice.actor, tenant=alice.tenant, name=name, body=OPENAI)
    assert refused.value.field == "name"


def test_names_are_taken_once(alice: Person, mallory: Person) -> None:
    created(alice)

    for name in ("models", "restricted", "isolated"):
        with pytest.raises(Conflict) as refused:
            created(alice, name)
        assert refused.value.field == "name"
    # Another tenant's names are its own.
    assert created(mallory).tenant == mallory.tenant


def test_replacing_makes_a_version_and_keeps_the_old_one(alice: Person, told: list[Any]) -> None:
    policy = created(alice)
    before = policy.spec

    saved = actions.replace_policy(
        actor=alice.actor, policy=policy, version=1, body={"egress": ["api.anthropic.com:443"], "dns": False}
    )

    assert (saved.policy.version, saved.policy.spec["egress"]) == (2, ["api.anthropic.com:443"])
    assert [(one.version, one.spec) for one in policy.versions.all()] == [(2, saved.policy.spec), (1, before)]
    assert Event.objects.get(code="network_policy.replaced").details == {
        "name": "models",
        "version": 2,
        "added": ["api.anthropic.com:443"],
        "removed": ["api.openai.com:443"],
        "changed": ["dns", "egress"],
    }
    assert told == [(alice.tenant.pk.hex, "models")]


def test_replacing_what_somebody_else_changed_is_a_conflict(alice: Person, told: list[Any]) -> None:
    policy = created(alice)
    actions.replace_policy(actor=alice.actor, policy=policy, version=1, body={})
    told.clear()

    with pytest.raises(Conflict) as refused:
        actions.replace_policy(actor=alice.actor, policy=policy, version=1, body=OPENAI)

    assert (refused.value.field, refused.value.details) == ("version", {"version": 2})
    policy.refresh_from_db()
    assert (policy.version, policy.spec["egress"], policy.versions.count()) == (2, [], 2)
    assert told == []


def test_a_deleted_policy_gives_its_name_back(alice: Person) -> None:
    policy = created(alice)

    actions.delete_policy(actor=alice.actor, policy=policy)

    with pytest.raises(InvalidInput):
        compile_network(alice.tenant, policy="models")
    for again in (
        lambda: actions.delete_policy(actor=alice.actor, policy=policy),
        lambda: actions.replace_policy(actor=alice.actor, policy=policy, version=1, body={}),
    ):
        with pytest.raises(NotFound):
            again()
    assert created(alice).pk != policy.pk
    assert Event.objects.get(code="network_policy.deleted").details == {"name": "models", "version": 1}


def test_a_policy_that_is_a_default_or_a_ceiling_stays(alice: Person) -> None:
    policy = created(alice)
    company = actions.create_policy(actor=OPERATOR, tenant=None, name="company", body=OPENAI).policy
    actions.set_default(actor=alice.actor, tenant=alice.tenant, policy="models")
    actions.set_ceiling(actor=OPERATOR, tenant=alice.tenant, policy="company")

    for actor, one in ((alice.actor, policy), (OPERATOR, company)):
        with pytest.raises(Conflict):
            actions.delete_policy(actor=actor, policy=one)

    actions.set_default(actor=alice.actor, tenant=alice.tenant, policy=None)
    actions.delete_policy(actor=alice.actor, policy=policy)
    assert compile_network(alice.tenant).policy_name == ""


def test_the_default_is_what_sandboxes_get_without_a_word(alice: Person, told: list[Any]) -> None:
    created(alice)

    actions.set_default(actor=alice.actor, tenant=alice.tenant, policy="models")

    assert compile_network(alice.tenant).policy_name == "models"
    event = Event.objects.get(code="network.default_set")
    assert (event.tenant_id, event.details) == (alice.tenant.pk, {"before": None, "after": "models"})
    # What runs was started under a name.
    assert told == []
    with pytest.raises(InvalidInput):
        actions.set_default(actor=alice.actor, tenant=alice.tenant, policy="nothing")


def test_the_platforms_policies_are_for_operators(alice: Person, told: list[Any]) -> None:
    restricted = NetworkPolicy.objects.get(name="restricted")

    for refused in (
        lambda: actions.create_policy(actor=alice.actor, tenant=None, name="mine", body=OPENAI),
        lambda: actions.replace_policy(actor=alice.actor, policy=restricted, version=1, body={"mode": "allow"}),
        lambda: actions.delete_policy(actor=alice.actor, policy=restricted),
        lambda: actions.set_ceiling(actor=alice.actor, tenant=alice.tenant, public_internet=True),
        lambda: actions.set_private_ranges(actor=alice.actor, tenant=alice.tenant, ranges=["10.0.0.0/8"]),
        lambda: actions.set_platform_deny(actor=alice.actor, entries=[]),
        lambda: actions.set_bundle(actor=alice.actor, name="python", entries=["evil.example:443"]),
        lambda: actions.set_network(actor=alice.actor, tenant=alice.tenant, wanted={"public_internet": True}),
    ):
        with pytest.raises(Forbidden):
            refused()
    assert told == []


def test_another_tenants_policies_are_as_absent_as_none(alice: Person, mallory: Person) -> None:
    policy = created(alice)

    for refused in (
        lambda: actions.create_policy(actor=mallory.actor, tenant=alice.tenant, name="mine", body=OPENAI),
        lambda: actions.replace_policy(actor=mallory.actor, policy=policy, version=1, body={}),
        lambda: actions.delete_policy(actor=mallory.actor, policy=policy),
        lambda: actions.set_default(actor=mallory.actor, tenant=alice.tenant, policy="isolated"),
    ):
        with pytest.raises(NotFound):
            refused()


@pytest.mark.parametrize("who", ["bob", "vera"])
def test_developers_and_viewers_only_look(request: pytest.FixtureRequest, alice: Person, who: str) -> None:
    person: Person = request.getfixturevalue(who)

    with pytest.raises(Forbidden):
        actions.create_policy(actor=person.actor, tenant=alice.tenant, name="mine", body=OPENAI)
    with pytest.raises(Forbidden):
        actions.set_default(actor=person.actor, tenant=alice.tenant, policy="isolated")
    assert person.actor.has("networks:read")


def test_a_tenant_is_erased_with_its_policies(alice: Person) -> None:
    created(alice)
    actions.set_default(actor=alice.actor, tenant=alice.tenant, policy="models")

    Tenant.objects.filter(pk=alice.tenant.pk).delete()

    assert set(NetworkPolicy.objects.values_list("name", flat=True)) == {"isolated", "restricted", "proxied"}
    assert not TenantNetwork.everywhere().exists()
