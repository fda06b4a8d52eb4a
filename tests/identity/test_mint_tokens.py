"""Workload identity tokens, as whoever gets one checks it: by another library, with the keys that web publishes."""

from __future__ import annotations

import dataclasses
import json
from datetime import timedelta
from io import StringIO
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from django.core.management import call_command
from django.test import Client
from joserfc import jwk
from joserfc import jwt as checker
from joserfc.errors import JoseError

from audit.models import Event
from corekit import clock
from corekit.actor import Actor
from corekit.errors import Forbidden
from tenants.identity import Workload, keys, mint
from tenants.identitymodels import IdentityKey
from tests.factories import OPERATOR

if TYPE_CHECKING:
    from datetime import datetime

pytestmark = pytest.mark.django_db

ISSUER = "https://api.gatehouse.test"
ALICES = Workload("0f" * 16, "base0000000000000000", "i" * 20)
AUDIENCE = "sts.amazonaws.com"


@pytest.fixture(autouse=True)
def issuer(settings: Any) -> None:
    settings.GATEHOUSE = dataclasses.replace(settings.GATEHOUSE, public_url=ISSUER)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[datetime]:
    """A clock that a test sets."""
    moment = [clock.now()]
    monkeypatch.setattr(clock, "now", lambda: moment[0])
    return moment


def published() -> Any:
    """Return the keys that web publishes, found by way of the discovery document."""
    client = Client()
    configuration = client.get("/.well-known/openid-configuration").json()
    assert configuration["issuer"] == ISSUER
    answer = client.get(configuration["jwks_uri"].removeprefix(ISSUER))
    assert answer["Cache-Control"] == "public, max-age=300"
    return jwk.KeySet.import_key_set(answer.json())


def checked(token: str, known: Any = None, audience: str = AUDIENCE) -> dict[str, Any]:
    """Return what a token says to a service that takes those of this issuer. Raises JoseError."""
    found = checker.decode(token, known or published(), algorithms=["ES256"])
    claims = checker.JWTClaimsRegistry(
        now=int(clock.now().timestamp()),
        iss={"essential": True, "value": ISSUER},
        aud={"essential": True, "value": audience},
        sub={"essential": True},
        exp={"essential": True},
    )
    claims.validate(found.claims)
    return dict(found.claims)


def test_a_token_says_who_asks_and_for_whom_it_is() -> None:
    minted = mint(ALICES, AUDIENCE)

    claims = checked(minted.token)

    assert claims["sub"] == f"tenant:{'0f' * 16}:template:base0000000000000000:sandbox:{'i' * 20}"
    assert (claims["aud"], claims["iss"], claims["jti"]) == (AUDIENCE, ISSUER, minted.id)
    assert claims["exp"] - claims["iat"] == 600
    assert claims["nbf"] == claims["iat"]
    header = jwt.get_unverified_header(minted.token)
    assert header == {"alg": "ES256", "typ": "JWT", "kid": minted.key_id}


def test_every_token_is_another_one() -> None:
    assert mint(ALICES, AUDIENCE).id != mint(ALICES, AUDIENCE).id


def test_it_is_for_one_audience_and_ten_minutes(now: list[datetime]) -> None:
    token = mint(ALICES, AUDIENCE).token

    with pytest.raises(JoseError):
        checked(token, audience="sts.googleapis.com")
    now[0] += timedelta(minutes=10, seconds=1)
    with pytest.raises(JoseError):
        checked(token)


def test_what_was_changed_is_refused() -> None:
    head, body, signature = mint(ALICES, AUDIENCE).token.split(".")
    other = mint(dataclasses.replace(ALICES, sandbox_id="j" * 20), AUDIENCE).token.split(".")[1]

    assert body != other
    with pytest.raises(JoseError):
        checked(f"{head}.{other}.{signature}")


def test_discovery_is_public_and_says_nothing_private() -> None:
    mint(ALICES, AUDIENCE)
    client = Client()

    configuration = client.get("/.well-known/openid-configuration")
    published_keys = client.get("/.well-known/jwks.json")

    assert configuration.json() == {
        "issuer": ISSUER,
        "jwks_uri": f"{ISSUER}/.well-known/jwks.json",
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "claims_supported": ["iss", "sub", "aud", "iat", "nbf", "exp", "jti"],
    }
    (key,) = published_keys.json()["keys"]
    assert set(key) == {"kty", "crv", "x", "y", "kid", "use", "alg"}
    assert client.post("/.well-known/jwks.json").status_code == 405


def test_the_private_half_is_kept_encrypted() -> None:
    mint(ALICES, AUDIENCE)

    row = IdentityKey.objects.get()

    numbers = keys.private_key(row).private_numbers()
    kept = json.dumps(list(IdentityKey.objects.values()), default=str)
    assert "PRIVATE KEY" not in kept
    assert f"{numbers.private_value:064x}" not in kept


def test_a_new_key_is_known_before_it_signs(now: list[datetime]) -> None:
    old = mint(ALICES, AUDIENCE)
    cached = published()

    new = keys.rotate(actor=OPERATOR)

    assert new.pk != old.key_id
    # Who keeps the keys for as long as it may knows each that signs.
    assert mint(ALICES, AUDIENCE).key_id == old.key_id
    assert checked(mint(ALICES, AUDIENCE).token, cached)
    now[0] += timedelta(seconds=300)
    cached = published()
    now[0] += timedelta(seconds=300)
    minted = mint(ALICES, AUDIENCE)
    assert minted.key_id == new.pk
    assert checked(minted.token, cached)


def test_an_old_key_is_known_until_its_last_token_expired(now: list[datetime]) -> None:
    mint(ALICES, AUDIENCE)
    keys.rotate(actor=OPERATOR)
    now[0] += keys.ANNOUNCED - timedelta(seconds=1)
    last = mint(ALICES, AUDIENCE)

    now[0] += timedelta(minutes=9)
    assert checked(last.token)
    now[0] += timedelta(minutes=7)
    assert last.key_id not in {key["kid"] for key in keys.published_keys()}


def test_two_rotations_in_a_row_leave_one_that_signs(now: list[datetime]) -> None:
    mint(ALICES, AUDIENCE)
    keys.rotate(actor=OPERATOR)
    newest = keys.rotate(actor=OPERATOR)

    now[0] += timedelta(hours=1)

    assert mint(ALICES, AUDIENCE).key_id == newest.pk
    assert [key["kid"] for key in keys.published_keys()] == [newest.pk]


def test_a_key_that_was_stolen_counts_no_more_at_once() -> None:
    stolen = mint(ALICES, AUDIENCE)

    new = keys.rotate(actor=OPERATOR, withdraw=True)

    assert [key["kid"] for key in keys.published_keys()] == [new.pk]
    with pytest.raises(JoseError):
        checked(stolen.token)
    assert checked(mint(ALICES, AUDIENCE).token)
    event = Event.objects.get(code="identity.rotated")
    assert (event.object_id, event.details["withdrawn"], event.tenant_id) == (new.pk, True, None)


def test_a_key_that_nobody_needs_any_more_is_erased(now: list[datetime]) -> None:
    first = mint(ALICES, AUDIENCE).key_id
    keys.rotate(actor=OPERATOR)
    now[0] += timedelta(days=3)
    keys.rotate(actor=OPERATOR)

    assert not IdentityKey.objects.filter(pk=first).exists()


def test_only_operators_rotate() -> None:
    owner = Actor(kind="user", id="u1", name="Alice", tenant_id="0f" * 16, scopes=frozenset({"secrets:write"}))

    with pytest.raises(Forbidden):
        keys.rotate(actor=owner)
    assert not IdentityKey.objects.exists()


def test_the_command_shows_and_rotates() -> None:
    mint(ALICES, AUDIENCE)
    said, listed = StringIO(), StringIO()

    call_command("identity", "rotate", stdout=said)
    call_command("identity", "list", stdout=listed)

    new = IdentityKey.objects.get(published_until=None)
    assert said.getvalue() == f"{new.pk} signs from {clock.to_rfc3339(new.signs_from)}\n"
    assert listed.getvalue().count("\n") == 3
    assert "PRIVATE" not in listed.getvalue()
