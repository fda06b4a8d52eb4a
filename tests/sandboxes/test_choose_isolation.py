"""A template's isolation is a minimum: a caller may ask for a better one, never for a worse one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from audit.models import Event
from corekit.errors import InvalidInput, TierUnavailable
from sandboxes import actions
from sandboxes.models import Sandbox
from tenants import actions as tenant_actions
from tests.factories import OPERATOR

if TYPE_CHECKING:
    from sandboxes.models import Template
    from tests.sandboxes.fixtures import Caller
    from tests.sandboxes.node_double import NodeDouble

pytestmark = pytest.mark.django_db(transaction=True)


def create(who: Caller, template: str = "base", **options: Any) -> Sandbox:
    return actions.create_sandbox(actor=who.actor, template=template, timeout_s=60, **options).sandbox


@pytest.fixture
def process(db: None) -> Template:
    """A template of the tier process."""
    return actions.register_build(
        actor=OPERATOR, name="base-process", build_id="b-1", tier="process", profile="hardened"
    )


@pytest.fixture
def gvisor(db: None) -> Template:
    """A template that demands gVisor."""
    return actions.register_build(actor=OPERATOR, name="base-gvisor", build_id="b-1", runtime="runsc")


def test_without_a_wish_it_is_the_templates(node: NodeDouble, process: Template, alice: Caller) -> None:
    made = create(alice, "base-process")

    assert (made.tier, made.profile, made.runtime) == ("process", "hardened", "")
    spec = node.running()[0].spec
    assert (spec["tier"], spec["profile"], spec["runtime"]) == ("process", "hardened", "")


@pytest.mark.parametrize(
    ("wish", "got"),
    [
        ({"profile": "hardened"}, ("container", "hardened", "")),
        ({"tier": "container", "profile": "workstation"}, ("container", "workstation", "")),
        ({"runtime": "runsc"}, ("container", "workstation", "runsc")),
        ({"runtime": "runc", "profile": "hardened"}, ("container", "hardened", "runc")),
        ({"tier": "microvm"}, ("microvm", "workstation", "")),
    ],
)
def test_a_better_one_is_given_and_recorded(
    node: NodeDouble, base: Template, alice: Caller, wish: dict[str, str], got: tuple[str, str, str]
) -> None:
    made = create(alice, **wish)

    assert (made.tier, made.profile, made.runtime) == got
    spec, event = node.running()[0].spec, Event.objects.get(code="sandbox.created")
    assert (spec["tier"], spec["profile"], spec["runtime"]) == got
    assert (event.details["tier"], event.details["profile"], event.details["runtime"]) == got


def test_a_template_of_a_lower_tier_may_run_higher(node: NodeDouble, process: Template, alice: Caller) -> None:
    made = create(alice, "base-process", tier="container")

    assert (made.tier, made.profile) == ("container", "hardened")


def test_a_higher_tier_leaves_the_templates_runtime(node: NodeDouble, gvisor: Template, alice: Caller) -> None:
    made = create(alice, "base-gvisor", tier="microvm")

    assert (made.tier, made.runtime) == ("microvm", "")


@pytest.mark.parametrize(
    ("template", "wish", "field"),
    [
        ("base", {"tier": "process"}, "tier"),
        ("base", {"tier": "language"}, "tier"),
        ("base-process", {"profile": "workstation"}, "profile"),
        ("base-gvisor", {"runtime": "crun"}, "runtime"),
    ],
)
def test_a_worse_one_is_refused_by_field(
    node: NodeDouble,
    base: Template,
    process: Template,
    gvisor: Template,
    alice: Caller,
    template: str,
    wish: dict[str, str],
    field: str,
) -> None:
    with pytest.raises(InvalidInput) as refusal:
        create(alice, template, **wish)

    assert (refusal.value.field, "isolates less" in refusal.value.message) == (field, True)
    assert (node.guests, Sandbox.everywhere().count()) == ({}, 0)


@pytest.mark.parametrize(
    ("template", "wish"),
    [
        ("base", {"tier": "jail"}),
        ("base", {"profile": "soft"}),
        ("base", {"runtime": "docker"}),
        ("base-process", {"runtime": "crun"}),
    ],
)
def test_what_there_is_not_is_refused_by_field(
    node: NodeDouble, base: Template, process: Template, alice: Caller, template: str, wish: dict[str, str]
) -> None:
    with pytest.raises(InvalidInput) as refusal:
        create(alice, template, **wish)

    assert refusal.value.field == next(iter(wish))


def test_what_the_host_can_not_give_is_a_conflict_and_no_downgrade(
    node: NodeDouble, base: Template, alice: Caller
) -> None:
    node.refuse("start", 409, "tier_unavailable", "no runsc here", reason="not installed", fix="apt install runsc")

    with pytest.raises(TierUnavailable) as refusal:
        create(alice, runtime="runsc")

    assert refusal.value.message == "no runsc here"
    assert refusal.value.details == {"reason": "not installed", "fix": "apt install runsc"}
    assert node.running() == []


def test_sizes_may_be_asked_for_within_the_tenants_range(node: NodeDouble, base: Template, alice: Caller) -> None:
    create(alice, cpu_milli=250, memory_mib=128, disk_mib=256)

    assert node.running()[0].spec["resources"] == {"cpu_milli": 250, "memory_mib": 128, "disk_mib": 256, "pids": 256}


@pytest.mark.parametrize("field", ["cpu_milli", "memory_mib", "disk_mib"])
def test_sizes_beyond_it_are_refused_by_field(node: NodeDouble, base: Template, alice: Caller, field: str) -> None:
    sizes: dict[str, Any] = {field: 10**6}
    with pytest.raises(InvalidInput) as refusal:
        actions.create_sandbox(actor=alice.actor, template="base", timeout_s=60, **sizes)

    assert refusal.value.field == field


def test_the_tenants_minimum_raises_a_weaker_template(node: NodeDouble, process: Template, alice: Caller) -> None:
    tenant_actions.set_limit_range(actor=OPERATOR, tenant=alice.tenant, min_tier="container")

    made = create(alice, "base-process")

    assert (made.tier, made.profile) == ("container", "hardened")
    assert node.running()[0].spec["tier"] == "container"


def test_the_tenants_minimum_leaves_a_stronger_template_alone(node: NodeDouble, base: Template, alice: Caller) -> None:
    tenant_actions.set_limit_range(actor=OPERATOR, tenant=alice.tenant, min_tier="process")

    assert create(alice).tier == "container"


def test_less_than_the_tenants_minimum_is_refused(node: NodeDouble, process: Template, alice: Caller) -> None:
    tenant_actions.set_limit_range(actor=OPERATOR, tenant=alice.tenant, min_tier="container")

    with pytest.raises(InvalidInput, match="The tenant demands at least the tier container, and process") as refused:
        create(alice, "base-process", tier="process")

    assert (refused.value.field, refused.value.details) == ("tier", {"minimum": "container"})
    assert node.running() == []
    assert Sandbox.everywhere().count() == 0
