"""Header rules and workload identities in E2B's words: `network.rules` and `iam` at create, PUT network, and info."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from audit.models import Event
from corekit.netrules.policy import Policy
from sandboxes.models import Sandbox
from tests.sandboxes.fixtures import used

if TYPE_CHECKING:
    from sandboxes.models import Template
    from tests.sandboxes.fixtures import Caller
    from tests.sandboxes.node_double import NodeDouble

pytestmark = pytest.mark.django_db(transaction=True)

HOST = "api.example.com"
KEY = "Bearer ${e2b.secrets.key}"
MALFORMED = "Network transform header contains a malformed E2B placeholder."
AWS = {"audience": "sts.amazonaws.com", "tokenType": "JWT-SVID"}


def rule(**headers: str) -> list[dict[str, Any]]:
    return [{"transform": {"headers": headers}}]


def document(node: NodeDouble, sandbox_id: str) -> dict[str, Any]:
    """Return what the node was told; it is one that egress can obey."""
    told: dict[str, Any] = node.guests[sandbox_id].spec["network"]["document"]
    Policy.parse(told)
    return told


def put(caller: Caller, sandbox_id: str, **body: object) -> Any:
    return caller.call("PUT", f"/sandboxes/{sandbox_id}/network", body)


def shown(caller: Caller, sandbox_id: str) -> dict[str, Any]:
    found: dict[str, Any] = caller.call("GET", f"/sandboxes/{sandbox_id}").json()["network"]
    return found


def refused(caller: Caller, **body: object) -> tuple[int, str, str]:
    """Return status, field and message of a create that must make nothing."""
    answer = caller.call("POST", "/v2/sandboxes", {"templateID": "base"} | body)
    assert not Sandbox.everywhere().exists()
    assert used(caller.tenant) == 0
    said = answer.json()
    return answer.status_code, said["field"], said["message"]


# --- create


def test_rules_reach_the_node_and_are_shown_again(node: NodeDouble, base: Template, alice: Caller) -> None:
    rules = {"API.Example.com": rule(Authorization=KEY), "*.example.org": rule(**{"X-Team": "red"})}

    sandbox_id = alice.create(network={"rules": rules})["sandboxID"]

    assert document(node, sandbox_id)["rules"] == [
        {"host": "*.example.org", "set": {"X-Team": "red"}, "methods": None, "paths": None},
        {"host": HOST, "set": {"Authorization": KEY}, "methods": None, "paths": None},
    ]
    assert document(node, sandbox_id)["placeholders"] == []
    assert shown(alice, sandbox_id)["rules"] == {
        HOST: rule(Authorization=KEY),
        "*.example.org": rule(**{"X-Team": "red"}),
    }
    assert Event.objects.get(code="sandbox.created").details["injects"] == ["key"]


def test_a_rule_opens_nothing(node: NodeDouble, base: Template, alice: Caller) -> None:
    plain = alice.create()["sandboxID"]
    with_rule = alice.create(network={"rules": {HOST: rule(Authorization=KEY)}})["sandboxID"]

    assert document(node, with_rule)["layers"] == document(node, plain)["layers"]


def test_a_rule_without_effect_is_kept(node: NodeDouble, base: Template, alice: Caller) -> None:
    rules: dict[str, Any] = {HOST: [{"transform": {}}], "a.example.com": [{}], "b.example.com": []}

    sandbox_id = alice.create(network={"rules": rules})["sandboxID"]

    told = document(node, sandbox_id)["rules"]
    assert [(one["host"], one["set"]) for one in told] == [("a.example.com", {}), (HOST, {})]
    assert shown(alice, sandbox_id)["rules"] == rules


def test_a_rule_may_be_for_some_requests_only(node: NodeDouble, base: Template, alice: Caller) -> None:
    match = {"methods": ["POST"], "paths": ["/v1/chat/*"]}

    sandbox_id = alice.create(network={"rules": {HOST: [rule(A="b")[0] | {"match": match}]}})["sandboxID"]

    (told,) = document(node, sandbox_id)["rules"]
    assert (told["methods"], told["paths"]) == (["POST"], ["/v1/chat/*"])


def test_identities_are_kept_for_the_rules_that_name_them(node: NodeDouble, base: Template, alice: Caller) -> None:
    rules = {HOST: rule(Authorization="Bearer ${e2b.identity.tokens.aws}")}

    sandbox_id = alice.create(network={"rules": rules}, iam={"tokens": {"aws": AWS}})["sandboxID"]

    assert Sandbox.everywhere().get(pk=sandbox_id).identities == {"aws": AWS}
    assert document(node, sandbox_id)["rules"][0]["set"] == {"Authorization": "Bearer ${e2b.identity.tokens.aws}"}


@pytest.mark.parametrize("iam", [None, {}, {"tokens": None}, {"tokens": {}}], ids=str)
def test_no_identity_is_none(node: NodeDouble, base: Template, alice: Caller, iam: Any) -> None:
    assert Sandbox.everywhere().get(pk=alice.create(iam=iam)["sandboxID"]).identities == {}


def test_an_unknown_secret_is_no_matter_at_create(node: NodeDouble, base: Template, alice: Caller) -> None:
    assert alice.create(network={"rules": {HOST: rule(A="${e2b.secrets.not-there}")}})["sandboxID"] in node.guests


# --- refusals


@pytest.mark.parametrize(
    "value",
    [
        "Bearer ${e2b.secrets.key",
        "${e2b.secrets.}",
        "${e2b.secrets.a b}",
        "${e2b.secrets.a.b}",
        "${e2b.secrets.${e2b.secrets.a}}",
        "${e2b.secrets.a} ${e2b.secrets.",
        "${e2b.identity.tokens.}",
        "${e2b.identity.aws}",
        "${e2b.other}",
        "${e2b.}",
        "${e2b.secrets." + "a" * 129 + "}",
    ],
)
def test_a_malformed_placeholder_is_refused(node: NodeDouble, base: Template, alice: Caller, value: str) -> None:
    field = f"network.rules.{HOST}.transform.headers"

    assert refused(alice, network={"rules": {HOST: rule(Authorization=value)}}) == (400, field, MALFORMED)


def test_other_text_is_literal(node: NodeDouble, base: Template, alice: Caller) -> None:
    value = "${HOME} $x {} ${e2bx.secrets.a}"

    sandbox_id = alice.create(network={"rules": {HOST: rule(A=value)}})["sandboxID"]

    assert document(node, sandbox_id)["rules"][0]["set"] == {"A": value}


BAD: list[tuple[Any, str]] = [
    ([], "network.rules"),
    ({f"{n}.example.com": [] for n in range(11)}, "network.rules"),
    ({HOST: {}}, f"network.rules.{HOST}"),
    ({HOST: [{}, {}]}, f"network.rules.{HOST}"),
    ({HOST: ["x"]}, f"network.rules.{HOST}"),
    ({HOST: [{"transforms": {}}]}, f"network.rules.{HOST}.transforms"),
    ({HOST: [{"transform": []}]}, f"network.rules.{HOST}.transform"),
    ({HOST: [{"transform": {"body": {}}}]}, f"network.rules.{HOST}.transform.body"),
    ({HOST: [{"transform": {"headers": []}}]}, f"network.rules.{HOST}.transform.headers"),
    ({HOST: rule(**{f"X-{n}": "a" for n in range(21)})}, f"network.rules.{HOST}.transform.headers"),
    ({HOST: rule(**{"X" * 65: "a"})}, f"network.rules.{HOST}.transform.headers"),
    ({HOST: rule(**{"a b": "a"})}, f"network.rules.{HOST}.transform.headers"),
    ({HOST: rule(Host="evil.test")}, f"network.rules.{HOST}.transform.headers"),
    ({HOST: rule(**{"X-A": "1", "x-a": "2"})}, f"network.rules.{HOST}.transform.headers"),
    ({HOST: rule(A="a" * 2049)}, f"network.rules.{HOST}.transform.headers.A"),
    ({HOST: rule(A="a\r\nB: c")}, f"network.rules.{HOST}.transform.headers.A"),
    ({HOST: [{"transform": {"headers": {"A": 1}}}]}, f"network.rules.{HOST}.transform.headers.A"),
    ({HOST: [{"match": {"methods": ["post"]}}]}, f"network.rules.{HOST}.match.methods[0]"),
    ({HOST: [{"match": {"paths": ["v1"]}}]}, f"network.rules.{HOST}.match.paths[0]"),
    ({HOST: [{"match": {"hosts": []}}]}, f"network.rules.{HOST}.match.hosts"),
    ({"10.0.0.1": rule(A="b")}, "network.rules.10.0.0.1"),
    ({"a*.example.com": rule(A="b")}, "network.rules.a*.example.com"),
    ({"*.com": rule(A="b"), "*": rule(A="b")}, "network.rules.*.com"),
    ({"*.co.uk": rule(A="b")}, "network.rules.*.co.uk"),
    ({"*.github.io": rule(A="b")}, "network.rules.*.github.io"),
    ({f"{'a.' * 62}example.com": rule(A="b")}, "network.rules"),
    ({HOST: rule(A="b"), HOST.upper(): rule(A="c")}, f"network.rules.{HOST.upper()}"),
    ({HOST: rule(A="b"), f"{HOST}.": rule(A="c")}, f"network.rules.{HOST}."),
    ({f"*.{HOST}": rule(A="b"), f"*.{HOST}.": rule(A="c")}, f"network.rules.*.{HOST}."),
    (
        {"bücher.example.com": rule(A="b"), "xn--bcher-kva.example.com": rule()},
        "network.rules.xn--bcher-kva.example.com",
    ),
]


@pytest.mark.parametrize(("rules", "field"), BAD, ids=lambda one: str(one)[:60])
def test_bad_rules_are_refused_by_name(node: NodeDouble, base: Template, alice: Caller, rules: Any, field: str) -> None:
    status, named, message = refused(alice, network={"rules": rules})

    assert (status, named) == (400, field)
    assert "a" * 65 not in message


def test_a_rule_names_at_most_32_secrets(node: NodeDouble, base: Template, alice: Caller) -> None:
    names = "".join(f"${{e2b.secrets.s{n}}}" for n in range(33))

    assert alice.create(network={"rules": {HOST: rule(A=names.removesuffix("${e2b.secrets.s32}"))}})
    answer = alice.call("POST", "/v2/sandboxes", {"templateID": "base", "network": {"rules": {HOST: rule(A=names)}}})
    assert (answer.status_code, answer.json()["field"]) == (400, f"network.rules.{HOST}")


BAD_IAM: list[tuple[Any, str]] = [
    ([], "iam"),
    ({"tokens": []}, "iam.tokens"),
    ({"tokens": {str(n): AWS for n in range(6)}}, "iam.tokens"),
    ({"tokens": {"": AWS}}, "iam.tokens"),
    ({"tokens": {"a{b": AWS}}, "iam.tokens"),
    ({"tokens": {"a\x7f": AWS}}, "iam.tokens"),
    ({"tokens": {"aws": "x"}}, "iam.tokens.aws"),
    ({"tokens": {"aws": {"tokenType": "JWT-SVID"}}}, "iam.tokens.aws.audience"),
    ({"tokens": {"aws": AWS | {"audience": ""}}}, "iam.tokens.aws.audience"),
    ({"tokens": {"aws": {"audience": "x"}}}, "iam.tokens.aws.tokenType"),
    ({"tokens": {"aws": AWS | {"tokenType": "X509-SVID"}}}, "iam.tokens.aws.tokenType"),
]


@pytest.mark.parametrize(("iam", "field"), BAD_IAM, ids=lambda one: str(one)[:60])
def test_bad_identities_are_refused_by_name(
    node: NodeDouble, base: Template, alice: Caller, iam: Any, field: str
) -> None:
    assert refused(alice, iam=iam)[:2] == (400, field)


def test_a_rule_that_names_an_identity_that_is_not_there_is_refused(
    node: NodeDouble, base: Template, alice: Caller
) -> None:
    rules = {HOST: rule(A="${e2b.identity.tokens.gcp}")}

    said = refused(alice, network={"rules": rules}, iam={"tokens": {"aws": AWS}})

    assert said == (400, "rules", "There is no workload identity token 'gcp'.")


# --- changes


def test_a_change_replaces_all_rules(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create(network={"rules": {HOST: rule(Authorization=KEY)}}, iam={"tokens": {"aws": AWS}})[
        "sandboxID"
    ]

    swapped = {"b.example.com": rule(A="${e2b.identity.tokens.aws}")}
    assert put(alice, sandbox_id, rules=swapped).status_code == 204
    assert [one["host"] for one in document(node, sandbox_id)["rules"]] == ["b.example.com"]
    assert shown(alice, sandbox_id)["rules"] == swapped

    assert put(alice, sandbox_id).status_code == 204
    assert document(node, sandbox_id)["rules"] == []
    assert "rules" not in shown(alice, sandbox_id)
    assert Sandbox.everywhere().get(pk=sandbox_id).identities == {"aws": AWS}


def test_a_change_that_is_refused_changes_nothing(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create(network={"rules": {HOST: rule(Authorization=KEY)}})["sandboxID"]
    before = document(node, sandbox_id)

    for body, field in (
        ({"rules": {HOST: rule(A="${e2b.identity.tokens.aws}")}}, "rules"),
        ({"rules": {HOST: rule(A="${e2b.secrets.")}}, f"rules.{HOST}.transform.headers"),
        ({"iam": {"tokens": {"aws": AWS}}}, "iam"),
    ):
        answer = put(alice, sandbox_id, **body)
        assert (answer.status_code, answer.json()["field"]) == (400, field)

    assert document(node, sandbox_id) == before
    assert Sandbox.everywhere().get(pk=sandbox_id).network_version == 1


def test_rules_live_through_a_pause(node: NodeDouble, base: Template, alice: Caller) -> None:
    sandbox_id = alice.create(network={"rules": {HOST: rule(Authorization=KEY)}})["sandboxID"]

    alice.call("POST", f"/sandboxes/{sandbox_id}/pause")
    alice.call("POST", f"/v2/sandboxes/{sandbox_id}/connect", {"timeout": 60})

    assert shown(alice, sandbox_id)["rules"] == {HOST: rule(Authorization=KEY)}
    assert document(node, sandbox_id)["rules"][0]["host"] == HOST
