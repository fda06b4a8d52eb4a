"""Header rules, placeholders and workload identities of a sandbox, over REST."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from audit.models import Event
from corekit.netrules.policy import Policy
from sandboxes.models import Sandbox

if TYPE_CHECKING:
    from tests.api.rest import Rest
    from tests.sandboxes.node_double import NodeDouble

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("node", "base")]

HOST = "api.openai.com"
RULES = {
    HOST: [
        {
            "transform": {"headers": {"Authorization": "Bearer ${secrets.openai-key}"}},
            "match": {"methods": ["POST"], "paths": ["/v1/chat/completions"]},
        }
    ]
}
SECRETS = {"OPENAI_API_KEY": {"secret": "OpenAI-Key", "hosts": [HOST]}, "OTHER": {"secret": "b", "hosts": ["*.b.test"]}}


def document(node: NodeDouble, sandbox_id: str) -> dict[str, Any]:
    """Return what the node was told; it is one that egress can obey."""
    told: dict[str, Any] = node.guests[sandbox_id].spec["network"]["document"]
    Policy.parse(told)
    return told


def test_rules_are_kept_shown_and_told(rest: Rest, node: NodeDouble) -> None:
    identities = {"aws": {"audience": "sts.amazonaws.com"}}

    made = rest.post("sandboxes", {"rules": RULES, "identities": identities}, status=201)

    assert (made["network"]["rules"], made["network"]["identities"]) == (RULES, identities)
    assert document(node, made["id"])["rules"] == [
        {
            "host": HOST,
            "set": {"Authorization": "Bearer ${secrets.openai-key}"},
            "methods": ["POST"],
            "paths": ["/v1/chat/completions"],
        }
    ]


def test_a_placeholder_is_random_and_of_the_vendors_shape(rest: Rest, node: NodeDouble) -> None:
    first, second = (rest.post("sandboxes", {"secrets": SECRETS, "env": {"A": "b"}}, status=201) for _ in range(2))

    env = node.guests[first["id"]].spec["env"]
    assert re.fullmatch(r"sk-sbxph_[A-Za-z0-9]{40}", env["OPENAI_API_KEY"])
    assert re.fullmatch(r"sbxph_[A-Za-z0-9]{40}", env["OTHER"])
    assert env["A"] == "b"
    assert env["OPENAI_API_KEY"] != node.guests[second["id"]].spec["env"]["OPENAI_API_KEY"]
    assert document(node, first["id"])["placeholders"] == [
        {"secret": "openai-key", "value": env["OPENAI_API_KEY"], "hosts": [HOST], "slots": ["header", "basic"]},
        {"secret": "b", "value": env["OTHER"], "hosts": ["*.b.test"], "slots": ["header", "basic"]},
    ]
    assert first["network"]["secrets"] == {
        "OPENAI_API_KEY": {"secret": "openai-key", "hosts": [HOST]},
        "OTHER": {"secret": "b", "hosts": ["*.b.test"]},
    }
    assert "sbxph_" not in json.dumps([first, *Event.objects.values()], default=str)
    assert Event.objects.filter(code="sandbox.created").first().details["injects"] == ["b", "openai-key"]  # type: ignore[union-attr]


BAD: list[tuple[dict[str, Any], str]] = [
    ({"rules": {HOST: [{"transform": {"headers": {"A": "${secrets.}"}}}]}}, "rules"),
    ({"rules": {HOST: [{"transform": {"headers": {"A": "${identity.aws}"}}}]}}, "rules"),
    ({"rules": []}, "rules"),
    ({"identities": {"aws": {"audience": ""}}}, "identities"),
    ({"identities": {"aws": "x"}}, "identities"),
    ({"identities": []}, "identities"),
    ({"secrets": []}, "secrets"),
    ({"secrets": {"1A": SECRETS["OTHER"]}}, "secrets"),
    ({"secrets": {"A": "x"}}, "secrets.A"),
    ({"secrets": {"A": {"secret": "a"}}}, "secrets.A.hosts"),
    ({"secrets": {"A": {"hosts": [HOST]}}}, "secrets.A.secret"),
    ({"secrets": {"A": {"secret": "a b", "hosts": [HOST]}}}, "secrets.A.secret"),
    ({"secrets": {"A": {"secret": "a", "hosts": []}}}, "secrets.A.hosts"),
    ({"secrets": {"A": {"secret": "a", "hosts": ["10.0.0.1"]}}}, "secrets.A.hosts[0]"),
    ({"secrets": {"A": {"secret": "a", "hosts": ["*"]}}}, "secrets.A.hosts[0]"),
    ({"secrets": {"A": {"secret": "a", "hosts": [HOST, "*.github.io"]}}}, "secrets.A.hosts[1]"),
    ({"secrets": {"A": {"secret": "a", "hosts": [HOST], "slots": ["body"]}}}, "secrets.A.slots"),
    ({"secrets": {f"A{n}": SECRETS["OTHER"] for n in range(33)}}, "secrets"),
    ({"secrets": {"A": SECRETS["OTHER"]}, "env": {"A": "b"}}, "secrets.A"),
]


@pytest.mark.parametrize(("body", "field"), BAD, ids=lambda one: str(one)[:60])
def test_what_is_wrong_is_refused_by_name(rest: Rest, node: NodeDouble, body: dict[str, Any], field: str) -> None:
    status, code, named = rest.refused("post", "sandboxes", body)

    assert (status, code) == (400, "invalid_input")
    assert str(named).startswith(field)
    assert not Sandbox.everywhere().exists()
    assert not node.guests


def test_a_change_replaces_rules_and_leaves_placeholders(rest: Rest, node: NodeDouble) -> None:
    made = rest.post("sandboxes", {"rules": RULES, "secrets": SECRETS}, status=201)["id"]
    before = document(node, made)["placeholders"]

    changed = rest.call("PUT", f"sandboxes/{made}/network", {"policy": "restricted"}).json()

    assert (changed["network"]["rules"], changed["network"]["policy"]) == ({}, "restricted")
    assert (document(node, made)["rules"], document(node, made)["placeholders"]) == ([], before)


def test_a_change_says_what_placeholders_stand_for(rest: Rest, node: NodeDouble) -> None:
    made = rest.post("sandboxes", {"secrets": SECRETS}, status=201)["id"]
    value = node.guests[made].spec["env"]["OPENAI_API_KEY"]
    secrets = {"OPENAI_API_KEY": {"secret": "next-key", "hosts": [HOST, "eu.api.openai.com"]}}

    changed = rest.call("PUT", f"sandboxes/{made}/network", {"policy": "restricted", "secrets": secrets}).json()

    assert changed["network"]["secrets"] == secrets
    (told,) = document(node, made)["placeholders"]
    assert (told["secret"], told["value"]) == ("next-key", value)
    assert told["hosts"] == [HOST, "eu.api.openai.com"]


def test_a_variable_comes_only_with_the_sandbox(rest: Rest, node: NodeDouble) -> None:
    made = rest.post("sandboxes", {"secrets": SECRETS}, status=201)["id"]
    before = document(node, made)

    body = {"policy": "restricted", "secrets": {"NEW": {"secret": "a", "hosts": [HOST]}}}

    assert rest.refused("put", f"sandboxes/{made}/network", body) == (400, "invalid_input", "secrets.NEW")
    assert document(node, made) == before
