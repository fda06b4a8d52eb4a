"""The bootstrap tells the control plane about a build."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from audit.models import Event
from corekit.errors import Forbidden, InvalidInput
from sandboxes import actions
from sandboxes.models import Template
from tests.factories import OPERATOR

if TYPE_CHECKING:
    from tests.sandboxes.fixtures import Caller
    from tests.sandboxes.node_double import NodeDouble

pytestmark = pytest.mark.django_db


def test_it_registers(base: Template) -> None:
    assert (base.name, base.build_id, base.tenant, base.tier, base.profile) == (
        "base",
        "b-1",
        None,
        "container",
        "workstation",
    )
    assert Event.objects.get(code="template.registered").object_id == base.pk


def test_a_new_build_keeps_the_template(base: Template, node: NodeDouble, alice: Caller) -> None:
    newer = actions.register_build(actor=OPERATOR, name="base", build_id="b-2", cpu_milli=500)

    assert newer.pk == base.pk
    alice.create()
    assert node.running()[0].spec["build"] == "b-2"
    assert node.running()[0].spec["resources"]["cpu_milli"] == 500


def test_without_own_sizes_the_tenants_defaults_count(node: NodeDouble, alice: Caller) -> None:
    actions.register_build(actor=OPERATOR, name="small", build_id="b-3", pids=64)

    alice.create(templateID="small")

    assert node.running()[0].spec["resources"] == {
        "cpu_milli": 500,
        "memory_mib": 512,
        "disk_mib": 1024,
        "pids": 64,
    }


def test_a_template_beyond_the_tenants_range_is_refused_by_field(node: NodeDouble, alice: Caller) -> None:
    actions.register_build(actor=OPERATOR, name="big", build_id="b-4", memory_mib=100_000)

    answer = alice.call("POST", "/v2/sandboxes", {"templateID": "big"})

    assert (answer.status_code, answer.json()["field"]) == (400, "memory_mib")
    assert node.running() == []


def test_a_tenants_key_may_not(alice: Caller) -> None:
    with pytest.raises(Forbidden):
        actions.register_build(actor=alice.actor, name="base", build_id="b-1")
    assert Template.objects.count() == 0


@pytest.mark.parametrize("build_id", ["", "../x", "B", "a" * 65, "-a"])
def test_it_rejects_a_strange_build_id(db: None, build_id: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        actions.register_build(actor=OPERATOR, name="base", build_id=build_id)
    assert refusal.value.field == "build_id"
