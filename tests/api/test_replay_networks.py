"""The policy time machine over REST."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from audit.models import Event
from corekit.ids import new_event_id
from tests.sandboxes.test_replay_flows import happened, passed, refused

if TYPE_CHECKING:
    from tests.api.rest import Operator, Rest
    from tests.sandboxes.fixtures import Caller

pytestmark = pytest.mark.django_db


def test_replay_the_fields_of_a_policy(rest: Rest, alice: Caller) -> None:
    happened(alice.tenant, passed("api.openai.com"), passed("api.anthropic.com"), refused("a.example", count=3))

    found = rest.post("network-replay", {"egress": ["api.openai.com:443"]})

    assert found == {
        "events": 3,
        "cut": False,
        "broken": [
            {
                "host": "api.anthropic.com",
                "port": 443,
                "count": 1,
                "reason": "no_rule",
                "rule": "",
                "layer": "sandbox",
            }
        ],
        "opened": [],
        "still_allowed": 1,
        "still_denied": 3,
    }


def test_replay_a_policy_by_name_and_window(rest: Rest, alice: Caller) -> None:
    happened(alice.tenant, passed("api.openai.com"), minutes_ago=90)

    assert rest.post("network-replay", {"policy": "isolated", "hours": 1})["events"] == 0
    assert [one["host"] for one in rest.post("network-replay", {"policy": "isolated", "hours": 2})["broken"]] == [
        "api.openai.com"
    ]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"hours": 0}, "hours"),
        ({"hours": 169}, "hours"),
        ({"hours": "24"}, "hours"),
        ({"egress": ["a.example"]}, "egress[0]"),
        ({"policy": "restricted", "dns": True}, "dns"),
        ({"policy": "nothing"}, "network"),
        ({"window": 1}, "window"),
    ],
)
def test_mistakes_are_named(rest: Rest, body: dict[str, Any], field: str) -> None:
    assert rest.refused("POST", "network-replay", body) == (400, "invalid_input", field)


def test_operators_name_a_tenant_who_sees_that_they_looked(olga: Operator, rest: Rest, alice: Caller) -> None:
    happened(alice.tenant, passed("api.openai.com"))

    assert olga.refused("POST", "network-replay", {}) == (400, "invalid_input", "tenant_id")
    assert olga.post("network-replay", {"tenant_id": alice.tenant.pk.hex})["events"] == 1

    assert Event.objects.get(code="audit.read").tenant_id == alice.tenant.pk


def test_another_tenants_traffic_is_not_found(mallorys_rest: Rest, alice: Caller) -> None:
    for tenant_id in (alice.tenant.pk.hex, new_event_id(), "x"):
        assert mallorys_rest.refused("POST", "network-replay", {"tenant_id": tenant_id})[:2] == (404, "not_found")


def test_draft_the_least_policy_and_create_it(rest: Rest, alice: Caller, node: object, base: object) -> None:
    sandbox = str(alice.create()["sandboxID"])
    happened(alice.tenant, passed("api.openai.com"), refused("10.1.2.3", 80, "literal_ip"), sandbox=sandbox)

    draft = rest.get(f"sandboxes/{sandbox}/network/draft")

    assert draft["body"] == {"mode": "deny", "egress": ["api.openai.com:443"], "ingress": [], "dns": False}
    assert [(one["host"], one["reason"]) for one in draft["left_out"]] == [("10.1.2.3", "literal_ip")]
    made = rest.post("network-policies", {"name": "learnt", **draft["body"]}, status=201)
    assert made["warnings"] == []
    assert rest.refused("GET", f"sandboxes/{sandbox}/network/draft?hours=0") == (400, "invalid_input", "hours")
