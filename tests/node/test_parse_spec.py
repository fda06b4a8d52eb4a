"""A request for a sandbox is checked field by field; the first wrong one is named."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sandboxes.node.errors import BadRequest
from sandboxes.node.spec import Ingress, Recipe, Resources, Spec, parse_spec
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
    "env": [
        *(None, [], {"A": 1}, {"A": None}),
        *({name: "x"} for name in ("", "A=B", "1A", "A B", "A\0", "É", "a" * 257, "LD_PRELOAD\n")),
        *({"A": value} for value in ("a\0b", "\ud800", "x\udfff")),
    ],
    "grants": [None, [], {"short": None}, {KEY.upper(): None}, {KEY: "soon"}, {KEY: True}],
    "resources": [None, [], "large"],
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


OPTIONAL = {"runtime": "", "on_timeout": "kill", "auto_resume": False, "ingress": Ingress()}


@pytest.mark.parametrize("name", sorted(set(rig.request("alice")) - set(OPTIONAL)))
def test_every_field_is_needed(name: str) -> None:
    body = rig.request("alice")
    del body[name]
    assert refused_field(body) == name


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
