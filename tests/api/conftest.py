"""Fixtures of this folder; the people come with API keys, and Olga, an operator, with her session."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

from sandboxes import actions
from tests.api.gateway_double import STARTED, GatewayDouble, ended, wrote
from tests.api.rest import Operator, Rest
from tests.factories import OPERATOR
from tests.sandboxes.fixtures import alice, base, bob, mallory, node, vera

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandboxes.models import Template
    from tests.sandboxes.fixtures import Caller
    from tests.sandboxes.node_double import NodeDouble

__all__ = ["alice", "base", "bob", "mallory", "node", "vera"]


@pytest.fixture
def rest(alice: Caller) -> Rest:
    """Return the REST API as Alice's key sees it."""
    return Rest(alice.secret)


@pytest.fixture
def mallorys_rest(mallory: Caller) -> Rest:
    """Return the REST API as Mallory's key sees it."""
    return Rest(mallory.secret)


@pytest.fixture
def olga(db: None) -> Operator:
    """Return the REST API as Olga, an operator with a session of the console, sees it."""
    return Operator()


@pytest.fixture
def gateway(node: NodeDouble, base: Template, settings: Any) -> Iterator[GatewayDouble]:
    """A gateway double where the settings say, and a node that offers two tiers."""
    node.tiers = ["process", "container"]
    actions.register_build(actor=OPERATOR, name="base-process", build_id="b-1", tier="process", profile="hardened")
    double = GatewayDouble([STARTED, wrote("stdout", b"45\n"), ended()]).listen()
    settings.GATEHOUSE = dataclasses.replace(settings.GATEHOUSE, port=double.port)
    yield double
    double.close()
