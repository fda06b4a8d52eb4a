"""A request for a sandbox is checked field by field; the first wrong one is named."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sandboxes.node.errors import BadRequest
from sandboxes.node.spec import Ingress, Network, Recipe, Resources, Spec, parse_spec
from tests.node import rig

MAX_TTL_MS = 31 * 24 * 3600 * 1000
KEY = "0a" * 8


WRONG: dict[str, list[Any]] = {
    "id": ["", "A", "../x", "a/b", "a\0", "a" * 65, "a\n", 1, None, ["a"]],
    "generation": [0, -1, 1.0, "1", True, None, 2**31 + 1],
    "tenant": ["", "xyz", "abc", "AB" * 16, 5],
    "build": ["", "..", "../base", "/etc", "a b", "-a", "A", "a" * 65],
    "tier": ["", "host", "CONTAINER", None, ["container"]],
    "profile": ["", "privileged", None],
    "template_id": ["", "../x", "a" * 129, "a\nb", 7],
    "ttl_ms": [-1, MAX_TTL_MS + 1, 10**30, 1.5, "300", None, True],
    "access_key": ["", "zz", "abc", "AB", "ab" * 65],
    "audit_key": ["", None],
    "audit_key_id": ["x" * 17, "A", 5, "a b"],
    "copies_key": ["5e" * 31, "5E" * 32, "x" * 64, 5],
    "env": [
        *(None, [], {"A": 1}, {"A": None}),
        *({name: "x"} for name in ("", "A=B", "1A", "A B", "A\0", "É", "a" * 257, "LD_PRELOAD\n")),
        *({"A": value} for value in ("a\0b", "\ud800", "x\udfff")),
    ],
    "grants": [None, [], {"short": None}, {KEY.upper(): None}, {KEY: "soon"}, {KEY: True}, {KEY: -1}, {KEY: 10**400}],
    "resources": [None, [], "large"],
    "runtime": ["docker", "CRUN", None, 1, ["crun"], True],
    "on_timeout": ["", "stop", None, True, ["kill"]],
    "auto_resume": ["true", 1, 0, None, []],
    "ingress": [None, [], "open", True],
    "network": [[], "open", True, 1],
}


def refused_field(body: Any) -> str:
    """Return which field of a request is refused."""
    with pytest.raises(BadRequest) as refusal:
        parse_spec(body)
    assert (refusal.value.status, refusal.value.code) == (400, "bad_request")
    return str(refusal.value.details["field"])


def resources(**changes: Any) -> dict[str, Any]:
    """Return resources with changes."""
    return {"resources": {"cpu_milli": 1000, "memory_mib": 512, "disk_mib": 1024, "pids": 256} | changes}


def test_a_request_becomes_a_spec() -> None:
    body = rig.request("alice", env={"A": "b"}, grants={KEY: None}, ttl_ms=1)
    spec = parse_spec(body)
    assert (spec.id, spec.generation, spec.tenant, spec.ttl_ms) == ("alice", 1, rig.ACME, 1)
    assert (spec.env, spec.grants) == ({"A": "b"}, {KEY: None})
    assert spec.recipe == Recipe(rig.base_build(), "container", "workstation", Resources(2000, 256, 64, 128))


def test_a_spec_survives_the_disk() -> None:
    spec = rig.spec("alice", env={"NAME": "Ünïcode ✓\n"}, grants={KEY: 12})
    assert Spec.load(spec.dump()) == spec
    assert json.loads(spec.dump()) == rig.request("alice", env={"NAME": "Ünïcode ✓\n"}, grants={KEY: 12})


def test_other_keys_make_another_spec_of_the_same_recipe() -> None:
    spec = rig.spec("alice")
    other = spec.with_grants({KEY: 5})
    assert (other.grants, spec.grants, other.recipe) == ({KEY: 5}, {}, spec.recipe)


@pytest.mark.parametrize("body", [None, [], "text", 1, True])
def test_only_an_object_is_taken(body: Any) -> None:
    assert refused_field(body) == "body"


OPTIONAL = {
    "runtime": "",
    "on_timeout": "kill",
    "auto_resume": False,
    "ingress": Ingress(),
    "audit_key_id": "",
    "copies_key": "",
    "network": Network(),
}


@pytest.mark.parametrize("name", sorted(set(rig.request("alice")) - set(OPTIONAL)))
def test_every_field_is_needed(name: str) -> None:
    body = rig.request("alice")
    del body[name]
    assert refused_field(body) == name


@pytest.mark.parametrize("name", sorted(OPTIONAL))
def test_what_is_left_out_has_a_default(name: str) -> None:
    body = rig.request("alice")
    del body[name]
    assert getattr(parse_spec(body), name) == OPTIONAL[name]
    assert parse_spec(body) == rig.spec("alice")


def test_ingress_is_taken_over() -> None:
    body = {"public": False, "traffic_token": "ab" * 32, "mask_host": "app.example:${PORT}", "https_ports": [443, 8443]}
    assert rig.spec("alice", ingress=body).ingress == Ingress(
        public=False, traffic_token="ab" * 32, mask_host="app.example:${PORT}", https_ports=(443, 8443)
    )
    assert rig.spec("alice", ingress={}).ingress == Ingress()
    assert "ab" * 32 not in repr(rig.spec("alice", ingress=body))


@pytest.mark.parametrize(
    "mask", ["a.example", "localhost:8080", "${PORT}-a.example", "10.0.0.1:${PORT}", "[::1]:80", "a_b.example"]
)
def test_a_mask_is_a_host(mask: str) -> None:
    assert rig.spec("alice", ingress={"mask_host": mask}).ingress.mask_host == mask


INGRESS: dict[str, list[Any]] = {
    "public": [None, "false", 0, []],
    "traffic_token": [None, "xyz", "abc", "AB", 5, [], "ab" * 65],
    "mask_host": [
        *(None, 5, [], "a b", "a\r\nX: y", "a/b", "http://a", "é.example", "a:b:c", "a:123456", "user@a", "$PORT"),
        *("[::1", "a" * 254, "a\0", "a?x", "${HOST}", "${PORT"),
    ],
    "ports": [443, "443", [0], [65536], ["443"], [True], [None], [443] * 1025, {"443": 1}],
    "https_ports": [None, 443, "443", [0], [65536], ["443"], [True], [1.0], [None], [443] * 129, {"443": 1}],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in INGRESS.items() for value in values])
def test_a_wrong_rule_of_ingress_is_named(name: str, value: Any) -> None:
    assert refused_field(rig.request("alice", ingress={name: value})) == name


def test_some_ports_may_be_all_that_is_reached() -> None:
    assert rig.spec("alice", ingress={"ports": [8000, 3000]}).ingress == Ingress(ports=(8000, 3000))
    assert rig.spec("alice", ingress={"ports": []}).ingress.ports == ()
    assert rig.spec("alice", ingress={"ports": None}).ingress.ports is None


def test_ports_that_are_not_public_need_a_token() -> None:
    assert refused_field(rig.request("alice", ingress={"public": False})) == "traffic_token"


# --- the network


def test_a_way_out_comes_with_the_document_that_says_where_it_leads() -> None:
    document = rig.document("api.example:443", version=7)
    spec = rig.spec("alice", network={"mode": "open", "document": document})
    assert spec.network == Network("open", document)
    assert (spec.network.version, spec.network_mode, spec.recipe.network) == (7, "transparent", "transparent")
    assert Spec.load(spec.dump()) == spec


@pytest.mark.parametrize(
    "world", [*rig.WORLDS.values(), {"runtime": "crun"}, {"runtime": "runc"}], ids=[*rig.WORLDS, "crun", "runc"]
)
def test_programs_need_not_know_of_the_way_out(world: dict[str, str]) -> None:
    assert rig.spec("alice", **rig.open_network(), **world).recipe.network == "transparent"


def test_under_gvisor_they_must() -> None:
    assert rig.spec("alice", **rig.open_network(), runtime="runsc").recipe.network == "proxy"


@pytest.mark.parametrize("network", [None, {"mode": "none"}, {"mode": "none", "document": rig.document()}])
def test_without_one_there_is_nothing_that_leads_anywhere(network: Any) -> None:
    spec = rig.spec("alice", network=network)
    assert (spec.network, spec.network.version, spec.recipe.network) == (Network(), None, "none")


def test_a_document_may_hold_a_password_that_is_not_shown() -> None:
    proxy = {"address": "proxy.example:1080", "username": "u", "password": "tulip", "tls": None}
    spec = rig.spec("alice", **rig.open_network(egress_proxy=proxy))
    assert "tulip" not in repr(spec)
    assert b"tulip" in spec.dump()


@pytest.mark.parametrize(
    ("network", "field"),
    [
        ({}, "mode"),
        ({"mode": "transparent"}, "mode"),
        ({"mode": "open"}, "document"),
        ({"mode": "open", "document": []}, "document"),
        ({"mode": "open", "document": {}}, "document.version"),
        ({"mode": "open", "document": rig.document() | {"allow": True}}, "document.allow"),
        ({"mode": "open", "document": rig.document("api.example:443", "*:443")}, "document.layers[0].egress[1]"),
        ({"mode": "open", "document": rig.document(private=["10.0.0.0/33"])}, "document.private[0]"),
    ],
)
def test_what_egress_would_not_obey_is_named(network: Any, field: str) -> None:
    assert refused_field(rig.request("alice", network=network)) == field


@pytest.mark.parametrize("runtime", ["crun", "runc", "runsc"])
def test_a_runtime_is_a_container_s(runtime: str) -> None:
    spec = rig.spec("alice", runtime=runtime)
    assert spec.recipe.runtime == runtime
    assert spec.recipe != rig.spec("alice").recipe
    assert refused_field(rig.request("alice", tier="process", profile="hardened", runtime=runtime)) == "runtime"


def test_unknown_fields_change_nothing() -> None:
    body = rig.request("alice", privileged=True, mounts=["/etc"], runtime_args=["--no-pivot"], cgroup_parent="/")
    assert parse_spec(body) == rig.spec("alice")


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_a_wrong_value_is_named(name: str, value: Any) -> None:
    assert refused_field(rig.request("alice", **{name: value})) == name


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("cpu_milli", 10, 256_000),
        ("memory_mib", 16, 1_048_576),
        ("disk_mib", 16, 4_194_304),
        ("pids", 64, 32_768),
    ],
)
def test_resources_have_bounds_of_the_node_s_own(name: str, low: int, high: int) -> None:
    for value in (low, high):
        assert getattr(parse_spec(rig.request("alice", **resources(**{name: value}))).resources, name) == value
    wrong: list[Any] = [low - 1, high + 1, 0, -1, float(low), str(low), True, None]
    for value in wrong:
        assert refused_field(rig.request("alice", **resources(**{name: value}))) == name


@pytest.mark.parametrize("ttl_ms", [0, MAX_TTL_MS])
def test_the_shortest_and_the_longest_time_are_taken(ttl_ms: int) -> None:
    assert parse_spec(rig.request("alice", ttl_ms=ttl_ms)).ttl_ms == ttl_ms


def test_an_environment_larger_than_its_bound_is_refused() -> None:
    fits = {"A": "x" * (128 * 1024 - 3)}
    assert parse_spec(rig.request("alice", env=fits)).env == fits
    assert refused_field(rig.request("alice", env={"A": "x" * (128 * 1024 - 2)})) == "env"
    assert refused_field(rig.request("alice", env={"A": "é" * 65_536})) == "env"
