"""Roles are a table of scopes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from corekit.errors import Forbidden
from tenants.models import Role
from tenants.policy import DEFAULT_KEY_SCOPES, ROLE_SCOPES, SCOPES, require

if TYPE_CHECKING:
    from tests.people import Person


def test_every_role_has_known_scopes() -> None:
    assert set(ROLE_SCOPES) == set(Role.values)
    for scopes in [*ROLE_SCOPES.values(), DEFAULT_KEY_SCOPES]:
        assert scopes <= set(SCOPES)


def test_each_role_holds_what_the_one_below_holds() -> None:
    assert ROLE_SCOPES["viewer"] < ROLE_SCOPES["developer"] < ROLE_SCOPES["admin"] < ROLE_SCOPES["owner"]


def test_no_role_is_an_operator() -> None:
    assert all("platform:write" not in scopes for scopes in ROLE_SCOPES.values())


def test_bob_creates_sandboxes_and_vera_only_looks(bob: Person, vera: Person) -> None:
    require(bob.actor, "sandboxes:write")
    require(vera.actor, "sandboxes:read")
    for scope in ("sandboxes:write", "sandboxes:use", "templates:write", "keys:write"):
        with pytest.raises(Forbidden) as refused:
            require(vera.actor, scope)
        assert refused.value.details == {"scope": scope}


def test_an_unknown_scope_is_our_mistake(alice: Person) -> None:
    with pytest.raises(LookupError):
        require(alice.actor, "sandboxes:fly")
