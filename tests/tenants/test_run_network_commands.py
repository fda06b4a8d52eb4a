"""The operator's command `networkpolicy`."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest
from django.core.management import CommandError, call_command

from audit.models import Event
from tenants.models import NetworkPolicy, PlatformNetwork, TenantNetwork
from tenants.networks import actions, compile_network
from tests.factories import OPERATOR
from tests.sandboxes.test_replay_flows import box, happened, passed, refused

if TYPE_CHECKING:
    from sandboxes.models import Sandbox
    from tenants.models import Tenant

__all__ = ["box"]


def run(*arguments: str) -> tuple[str, str]:
    """Run the command; return what it printed and what it said beside."""
    out, err = io.StringIO(), io.StringIO()
    call_command("networkpolicy", *arguments, stdout=out, stderr=err, no_color=True)
    return out.getvalue(), err.getvalue()


def test_create_show_replace_and_delete(acme: Tenant) -> None:
    printed, said = run("create", "mine", "API.openai.com:443", "x.example:443", "--tenant", "acme")
    assert printed == "mine has version 1\n"
    assert "egress[1]: x.example:443 does not get through the tenant's ceiling" in said

    run("replace", "mine", "api.openai.com:443", "--tenant", "acme", "--fields", '{"ingress": [3000]}')

    shown = json.loads(run("show", "mine", "--tenant", "acme")[0])
    assert (shown["version"], shown["egress"], shown["ingress"]) == (2, ["api.openai.com:443"], [3000])
    assert Event.objects.filter(code="network_policy.created", actor_id__startswith="shell:").count() == 1
    rows = [line.split() for line in run("list", "--tenant", "acme")[0].splitlines()]
    assert rows[0] == ["name", "version", "tenant", "mode", "egress"]
    assert [row[0] for row in rows[1:]] == ["isolated", "proxied", "restricted", "mine"]

    assert run("delete", "mine", "--tenant", "acme")[0] == "deleted the network policy mine\n"
    assert [line.split()[0] for line in run("list")[0].splitlines()] == ["name", "isolated", "proxied", "restricted"]


def test_bound_a_tenant(acme: Tenant) -> None:
    run("create", "company", "*.example.com:*")
    assert run("ceiling", "acme", "company")[0] == "the ceiling of acme is company\n"
    assert run("ceiling", "acme", "company", "--public-internet")[0] == (
        "the ceiling of acme is the public internet under company\n"
    )
    assert run("default", "acme", "proxied")[0] == "sandboxes of acme that name no policy get proxied\n"
    assert run("private", "acme", "10.20.0.0/16")[0] == "granted to acme: 10.20.0.0/16\n"
    assert run("deny", "Tracker.example:*")[0] == "denied to everybody: tracker.example:1-65535\n"

    found = compile_network(acme)
    assert found.policy_name == "proxied"
    assert found.document["layers"][0]["mode"] == "allow"
    assert (found.document["private"], found.document["deny"]) == (["10.20.0.0/16"], ["tracker.example:1-65535"])
    assert run("private", "acme")[0] == "granted to acme: nothing\n"
    assert run("deny")[0] == "denied to everybody: nothing\n"


@pytest.mark.parametrize(
    ("target", "printed"),
    [
        ("api.openai.com:443", "allowed by api.openai.com:443 of the layer sandbox\n"),
        (
            "evil.example:443",
            "denied (no_rule) of the layer sandbox: No rule of the sandbox's policy allows this host.\n",
        ),
        ("169.254.169.254:80", "denied (metadata): The host is a cloud provider's metadata service.\n"),
    ],
)
def test_try_a_host(acme: Tenant, target: str, printed: str) -> None:
    assert run("check", "restricted", target, "--tenant", "acme")[0] == printed
    assert run("check", "restricted", target)[0] == printed


def test_replay_and_learn(acme: Tenant, box: Sandbox) -> None:
    happened(acme, passed("api.openai.com"), passed("a.example"), refused("api.anthropic.com"), refused("10.1.1.1", 80))
    actions.create_policy(actor=OPERATOR, tenant=acme, name="mine", body={"egress": ["api.anthropic.com:443"]})

    printed, said = run("replay", "acme", "mine")

    assert [line.split() for line in printed.splitlines()] == [
        ["would", "be", "stopped:"],
        ["host", "port", "times", "reason", "layer"],
        ["a.example", "443", "1", "no_rule", "sandbox"],
        ["api.openai.com", "443", "1", "no_rule", "sandbox"],
        ["would", "be", "let", "through:"],
        ["host", "port", "times", "reason", "layer"],
        ["api.anthropic.com", "443", "1", "-", "sandbox"],
    ]
    assert said == "from 4 events\n"

    printed, said = run("learn", box.pk)
    assert json.loads(printed)["egress"] == ["a.example:443", "api.anthropic.com:443", "api.openai.com:443"]
    assert said == ("only tried so far: api.anthropic.com:443\nleft out: 10.1.1.1:80 (no_rule)\nfrom 4 events\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "mine", "x"),
        ("create", "mine", "--fields", "{"),
        ("create", "mine", "--fields", "[]"),
        ("create", "mine", "--fields", '{"egress": []}'),
        ("create", "mine", "--tenant", "nobody"),
        ("create", "restricted", "--tenant", "acme"),
        ("show", "nothing"),
        ("show", "restricted", "--tenant", "acme"),
        ("replace", "isolated", "a.example:443"),
        ("delete", "restricted"),
        ("check", "nothing", "a.example:443"),
        ("check", "restricted", "a.example"),
        ("check", "restricted", "a.example:0"),
        ("default", "acme", "nothing"),
        ("ceiling", "acme", "nothing"),
        ("private", "acme", "127.0.0.1"),
        ("deny", "x"),
        ("replay", "acme", "nothing"),
        ("replay", "acme", "restricted", "--hours", "0"),
        ("replay", "nobody", "restricted"),
        ("learn", "inothing"),
    ],
    ids=" ".join,
)
def test_mistakes_are_one_sentence_and_change_nothing(acme: Tenant, arguments: tuple[str, ...]) -> None:
    with pytest.raises(CommandError) as refused_:
        run(*arguments)
    assert "\n" not in str(refused_.value)
    assert NetworkPolicy.objects.count() == 3
    assert not TenantNetwork.everywhere().exclude(default=None, ceiling=None, private_ranges=[]).exists()
    assert not PlatformNetwork.objects.exists()
