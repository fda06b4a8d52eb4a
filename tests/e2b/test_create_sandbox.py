"""POST /v2/sandboxes and POST /sandboxes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from audit.models import Event
from corekit import clock, tokens
from sandboxes.models import Sandbox
from tenants.models import Reservation
from tenants.networks import E2BNetwork, compile_network
from tests.conftest import SEED
from tests.sandboxes.fixtures import caller, client, used

if TYPE_CHECKING:
    from sandboxes.models import Template
    from tenants.models import Tenant
    from tests.sandboxes.fixtures import Caller
    from tests.sandboxes.node_double import NodeDouble

pytestmark = pytest.mark.django_db


def assert_nothing_happened(caller: Caller, node: NodeDouble) -> None:
    """After a refusal there is no row, no reservation, no call to the node and no event of a create."""
    assert Sandbox.everywhere().count() == 0
    assert Reservation.everywhere().count() == 0
    assert used(caller.tenant) == 0
    assert node.count()["start"] == 0
    assert not Event.objects.filter(code="sandbox.created").exists()


def test_it_creates(node: NodeDouble, base: Template, alice: Caller) -> None:
    answer = alice.call("POST", "/v2/sandboxes", {"templateID": "base", "metadata": {"a": "b"}, "envVars": {"K": "V"}})

    assert answer.status_code == 201
    body = answer.json()
    sandbox_id = body["sandboxID"]
    access_key, epoch = tokens.access_key(bytes.fromhex(SEED), sandbox_id, 1), tokens.audit_key_id(clock.now())
    assert body == {
        "templateID": base.pk,
        "alias": "base",
        "sandboxID": sandbox_id,
        "clientID": "gatehouse",
        "envdVersion": "0.6.13",
        "envdAccessToken": tokens.mint(access_key, alice.key.pk),
        "trafficAccessToken": None,
        "domain": None,
    }
    assert node.guests[sandbox_id].spec == {
        "id": sandbox_id,
        "generation": 1,
        "tenant": alice.tenant.pk.hex,
        "build": "b-1",
        "tier": "container",
        "profile": "workstation",
        "resources": {"cpu_milli": 1000, "memory_mib": 512, "disk_mib": 1024, "pids": 256},
        "env": {"K": "V"},
        "template_id": base.pk,
        "ttl_ms": 300_000,
        "access_key": access_key.hex(),
        "audit_key": tokens.audit_key(bytes.fromhex(SEED), alice.tenant.pk.hex, epoch).hex(),
        "audit_key_id": epoch,
        "copies_key": "",
        "grants": {alice.key.pk: None},
        "ingress": {"public": True, "traffic_token": "", "mask_host": "", "https_ports": [], "ports": None},
        "runtime": "",
        "on_timeout": "kill",
        "auto_resume": False,
        "network": {"mode": "open", "document": compile_network(alice.tenant, e2b=E2BNetwork()).document},
    }
    row = Sandbox.everywhere().get()
    assert (row.pk, row.state, row.metadata, row.created_by) == (sandbox_id, "running", {"a": "b"}, alice.key.pk)
    assert clock.to_ms(row.started_at) == node.guests[sandbox_id].started_at
    assert row.end_at is not None
    assert clock.to_ms(row.end_at) == node.guests[sandbox_id].end_at
    assert Reservation.everywhere().get().state == "committed"
    assert used(alice.tenant) == 1
    event = Event.objects.get(code="sandbox.created")
    assert (event.actor_id, event.object_id, event.tenant_id) == (alice.key.pk, sandbox_id, alice.tenant.pk)
    assert (event.origin, event.outcome) == ("127.0.0.1", "ok")


def test_version_1_lives_15_seconds_by_default_and_is_always_secure(
    node: NodeDouble, base: Template, alice: Caller
) -> None:
    answer = alice.call("POST", "/sandboxes", {"templateID": "base", "secure": False})

    assert answer.status_code == 201
    assert answer.json()["envdAccessToken"].startswith(f"gh_{alice.key.pk}_")
    assert node.running()[0].spec["ttl_ms"] == 15_000


def test_the_lifetime_is_counted_by_the_node(node: NodeDouble, base: Template, alice: Caller) -> None:
    alice.create(timeout=7)

    assert node.running()[0].spec["ttl_ms"] == 7000


def test_environment_variables_are_nowhere_but_at_the_node(node: NodeDouble, base: Template, alice: Caller) -> None:
    alice.create(envVars={"TOKEN": "s3cr3t-value"})

    rows = [*Sandbox.everywhere().values(), *Event.objects.values(), *Reservation.everywhere().values()]
    assert "s3cr3t-value" not in json.dumps(rows, default=str)
    assert node.running()[0].spec["env"] == {"TOKEN": "s3cr3t-value"}


@pytest.mark.parametrize("reference", ["base", "BASE", " base ", "base:default"])
def test_a_template_has_many_names(node: NodeDouble, base: Template, alice: Caller, reference: str) -> None:
    assert alice.create(templateID=reference)["templateID"] == base.pk


def test_a_template_is_found_by_its_id(node: NodeDouble, base: Template, alice: Caller) -> None:
    assert alice.create(templateID=base.pk)["alias"] == "base"


@pytest.mark.parametrize(
    "harmless",
    [
        {"allow_internet_access": True},
        {"allow_internet_access": False},
        {"allow_internet_access": None},
        {"network": {}},
        {"network": None},
        {"network": {"allowPublicTraffic": True, "allowOut": [], "rules": {}, "egressProxy": None}},
        {"autoPause": False},
        {"autoPauseMemory": True},
        {"autoResume": {"enabled": False}},
        {"mcp": None},
        {"iam": {"tokens": {}}},
        {"volumeMounts": []},
        {"fieldOfTomorrow": {"a": [1]}},
        {"metadata": {}, "envVars": {}},
        {"metadata": None, "envVars": None},
    ],
    ids=str,
)
def test_it_accepts_what_asks_for_nothing(
    node: NodeDouble, base: Template, alice: Caller, harmless: dict[str, Any]
) -> None:
    alice.create(**harmless)


def test_a_key_that_may_not_use_sandboxes_gets_no_token(node: NodeDouble, base: Template, acme: Tenant) -> None:
    starter = caller(acme, "starter", ["sandboxes:read", "sandboxes:write"])

    body = starter.create()

    assert "envdAccessToken" not in body
    assert node.running()[0].grants == {}


def test_a_key_that_may_only_look_creates_nothing(node: NodeDouble, base: Template, vera: Caller) -> None:
    answer = vera.call("POST", "/v2/sandboxes", {"templateID": "base"})

    assert (answer.status_code, answer.json()["code"], answer.json()["error_code"]) == (403, 403, "forbidden")
    assert_nothing_happened(vera, node)


def test_without_a_key_nothing_is_created(node: NodeDouble, base: Template, alice: Caller) -> None:
    answer = client().post("/v2/sandboxes", {"templateID": "base"}, content_type="application/json")

    assert (answer.status_code, answer.json()["code"]) == (401, 401)
    assert_nothing_happened(alice, node)


BAD = [
    ({}, "templateID"),
    ({"templateID": None}, "templateID"),
    ({"templateID": 5}, "templateID"),
    ({"templateID": ""}, "templateID"),
    ({"templateID": "x" * 300}, "templateID"),
    ({"templateID": "a\u0000b"}, "templateID"),
    ({"templateID": "a\nb"}, "templateID"),
    ({"timeout": 0}, "timeout"),
    ({"timeout": -1}, "timeout"),
    ({"timeout": 86_401}, "timeout"),
    ({"timeout": 10**12}, "timeout"),
    ({"timeout": 10**30}, "timeout"),
    ({"timeout": "60"}, "timeout"),
    ({"timeout": "abc"}, "timeout"),
    ({"timeout": None}, "timeout"),
    ({"timeout": True}, "timeout"),
    ({"timeout": 1.5}, "timeout"),
    ({"timeout": [1]}, "timeout"),
    ({"metadata": []}, "metadata"),
    ({"metadata": "a=b"}, "metadata"),
    ({"metadata": {"a": 1}}, "metadata.a"),
    ({"metadata": {"a": None}}, "metadata.a"),
    ({"metadata": {"a": {"b": "c"}}}, "metadata.a"),
    ({"metadata": {"": "x"}}, "metadata"),
    ({"metadata": {"k" * 129: "x"}}, "metadata"),
    ({"metadata": {"k": "v" * 4097}}, "metadata.k"),
    ({"metadata": {f"k{n}": "v" for n in range(65)}}, "metadata"),
    ({"metadata": {f"k{n}": "v" * 4096 for n in range(5)}}, "metadata"),
    ({"metadata": {"k": "a\u0000b"}}, "metadata.k"),
    ({"metadata": {"k": "\ud800"}}, "metadata.k"),
    ({"envVars": ["A=B"]}, "envVars"),
    ({"envVars": {"A": 1}}, "envVars.A"),
    ({"envVars": {"A": True}}, "envVars.A"),
    ({"envVars": {"A=B": "x"}}, "envVars"),
    ({"envVars": {"": "x"}}, "envVars"),
    ({"envVars": {"1A": "x"}}, "envVars"),
    ({"envVars": {"A" * 257: "x"}}, "envVars"),
    ({"envVars": {"A": "a\u0000b"}}, "envVars.A"),
    ({"envVars": {"A": "x" * 131_073}}, "envVars"),
    ({"envVars": {f"A{n}": "x" for n in range(257)}}, "envVars"),
    ({"allow_internet_access": "no"}, "allow_internet_access"),
    ({"secure": 1}, "secure"),
    ({"autoPause": "yes"}, "autoPause"),
    ({"autoPauseMemory": False}, "autoPauseMemory"),
    ({"autoPause": True, "autoPauseMemory": False, "autoResume": {"enabled": True}}, "autoPauseMemory"),
    ({"autoResume": True}, "autoResume"),
    ({"autoResume": {"enabled": 1}}, "autoResume.enabled"),
    ({"network": {"allowPublicTraffic": "no"}}, "network.allowPublicTraffic"),
    ({"network": {"maskRequestHost": 1}}, "network.maskRequestHost"),
    ({"network": {"maskRequestHost": ""}}, "network.maskRequestHost"),
    ({"network": {"maskRequestHost": "a b"}}, "network.maskRequestHost"),
    ({"network": {"maskRequestHost": "a/b"}}, "network.maskRequestHost"),
    ({"network": {"maskRequestHost": "a\r\nX: y"}}, "network.maskRequestHost"),
    ({"network": {"maskRequestHost": "bücher.example"}}, "network.maskRequestHost"),
    ({"network": {"maskRequestHost": "a:0"}}, "network.maskRequestHost"),
    ({"network": {"maskRequestHost": "a:65536"}}, "network.maskRequestHost"),
    ({"network": {"maskRequestHost": "${HOST}"}}, "network.maskRequestHost"),
    ({"network": {"maskRequestHost": "a" * 64}}, "network.maskRequestHost"),
    ({"network": {"httpsPorts": 3000}}, "network.httpsPorts"),
    ({"network": {"httpsPorts": ["3000"]}}, "network.httpsPorts"),
    ({"network": {"httpsPorts": [True]}}, "network.httpsPorts"),
    ({"network": {"httpsPorts": [0]}}, "network.httpsPorts"),
    ({"network": {"httpsPorts": [65536]}}, "network.httpsPorts"),
    ({"network": {"httpsPorts": [49983]}}, "network.httpsPorts"),
    ({"network": {"httpsPorts": list(range(1, 102))}}, "network.httpsPorts"),
    ({"network": []}, "network"),
    ({"volumeMounts": {}}, "volumeMounts"),
    ({"mcp": "x"}, "mcp"),
]


@pytest.mark.parametrize(("change", "field"), BAD, ids=[f"{field}-{n}" for n, (_, field) in enumerate(BAD)])
def test_it_rejects_bad_input_naming_the_field(
    node: NodeDouble, base: Template, alice: Caller, change: dict[str, Any], field: str
) -> None:
    answer = alice.call("POST", "/v2/sandboxes", ({"templateID": "base"} if change else {}) | change)

    assert answer.status_code == 400
    body = answer.json()
    assert (body["code"], body["error_code"], body["field"]) == (400, "invalid_input", field)
    assert_nothing_happened(alice, node)


LATER = [
    ({"autoPause": True, "autoPauseMemory": False}, "autoPauseMemory"),
    ({"network": {"fieldOfTomorrow": True}}, "network.fieldOfTomorrow"),
    ({"mcp": {"server": {}}}, "mcp"),
    ({"volumeMounts": [{"name": "v", "path": "/mnt"}]}, "volumeMounts"),
]


@pytest.mark.parametrize(("change", "field"), LATER, ids=[field for _, field in LATER])
def test_what_a_later_version_brings_is_refused_by_name(
    node: NodeDouble, base: Template, alice: Caller, change: dict[str, Any], field: str
) -> None:
    answer = alice.call("POST", "/v2/sandboxes", {"templateID": "base"} | change)

    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (501, 501, field)
    assert answer["Should-Retry"] == "false"
    assert_nothing_happened(alice, node)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("nonsense", "template 'nonsense' not found"),
        ("evil/base", "template 'evil/base' not found"),
        ("../../etc", "template '../../etc' not found"),
        ("base'; DROP TABLE", "template 'base'; DROP TABLE' not found"),
        ("base:v2", "tag 'v2' does not exist for template 'base'"),
    ],
)
def test_an_unknown_template_is_named(
    node: NodeDouble, base: Template, alice: Caller, reference: str, message: str
) -> None:
    answer = alice.call("POST", "/v2/sandboxes", {"templateID": reference})

    assert (answer.status_code, answer.json()["code"], answer.json()["message"]) == (404, 404, message)
    assert_nothing_happened(alice, node)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 400),
        (b"null", 400),
        (b'"x"', 400),
        (b"\xff\xfe", 400),
        (b'{"templateID": NaN}', 400),
        (b'{"templateID": "base", "templateID": "base"}', 400),
        (b"[" * 100_000, 400),
        (b'{"templateID":"base","metadata":' + b'{"a":' * 500 + b"1" + b"}" * 501, 400),
        (b'{"templateID":"base","x":"' + b"x" * 5_000_000 + b'"}', 413),
    ],
    ids=["cut", "list", "null", "text", "no-utf8", "nan", "twice", "deep-list", "deep-object", "huge"],
)
def test_it_rejects_a_broken_body_in_json(
    node: NodeDouble, base: Template, alice: Caller, body: bytes, status: int
) -> None:
    answer = alice.call("POST", "/v2/sandboxes", body)

    assert (answer.status_code, answer.json()["code"]) == (status, status)
    assert answer["Content-Type"] == "application/json"
    assert_nothing_happened(alice, node)


def test_the_tenant_decides_on_the_longest_lifetime(node: NodeDouble, base: Template, alice: Caller) -> None:
    answer = alice.call("POST", "/v2/sandboxes", {"templateID": "base", "timeout": 86_401})

    assert answer.json()["message"] == "Timeout cannot be greater than 24 hours"
    alice.create(timeout=86_400)


@pytest.mark.parametrize(
    ("status", "code", "expected_status", "expected_code"),
    [
        (409, "tier_unavailable", 409, "tier_unavailable"),
        (404, "build_unknown", 500, "template_build_missing"),
        (503, "no_room", 503, "sandbox_capacity_unavailable"),
        (500, "start_failed", 500, "node_error"),
        (409, "generation_conflict", 500, "node_error"),
    ],
)
def test_a_refusal_of_the_node_leaves_nothing_reserved(
    node: NodeDouble,
    base: Template,
    alice: Caller,
    status: int,
    code: str,
    expected_status: int,
    expected_code: str,
) -> None:
    node.refuse("start", status, code, "a sentence")

    answer = alice.call("POST", "/v2/sandboxes", {"templateID": "base"})

    assert (answer.status_code, answer.json()["error_code"]) == (expected_status, expected_code)
    row = Sandbox.everywhere().get()
    assert (row.state, row.end_reason) == ("ended", "start_failed")
    assert used(alice.tenant) == 0
    assert Reservation.everywhere().count() == 0
    assert Event.objects.get(code="sandbox.create_failed").outcome == "error"


def test_with_the_node_away_the_answer_is_503_and_nothing_is_reserved(
    node: NodeDouble, base: Template, alice: Caller
) -> None:
    alice.create()
    node.die()

    answer = alice.call("POST", "/v2/sandboxes", {"templateID": "base"})

    assert (answer.status_code, answer.json()["code"], answer["Retry-After"]) == (503, 503, "1")
    assert used(alice.tenant) == 1
    assert sorted(Sandbox.everywhere().values_list("state", flat=True)) == ["ended", "running"]
