"""What was never a token, or is none any more, opens nothing, and the ledger says why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tenants import actions as tenant_actions
from tenants.broker import actions, redeeming, tokentext
from tenants.broker.redeeming import Outcome, Reason, Refused
from tenants.secretmodels import Secret
from tenants.secrets import actions as secret_actions
from tenants.tokenmodels import ScopedToken, TokenEnd
from tests import factories
from tests.broker.tokenplace import ALICE, BOB, KEY, Place, events, place, under_way

if TYPE_CHECKING:
    from audit.models import Event

pytestmark = pytest.mark.django_db
__all__ = ["place"]

TWICE: dict[str, Any] = {"max_uses": 2}


def whole_row(event: Event) -> dict[str, Any]:
    """Return all that an event holds."""
    return {field.name: getattr(event, field.name) for field in event._meta.fields}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sbx_",
        "sk-proj-something",
        "e2b_" + "0a" * 20,
        "sbx_l0123456789abcdef_" + "A" * 49,
        "sbx_x0123456789abcdef_" + "A" * 49,
        "sbx_l0123456789ABCDEF_" + "A" * 49,
        " {}",
        "{} ",
        "{}\n",
        "{}\x00",
        "{}{}",
        "Bearer {}",
        "SBX_" + "x" * 71,
        "sbx_l０１２３４５６７89abcdef_" + "A" * 49,  # noqa: RUF001  (full-width digits)
        "\ud800" * 75,
        "sbx_" + "9" * 1_000_000,
        "' OR 1=1 --",
    ],
)
def test_what_has_not_the_form_of_a_token_is_refused_before_any_row_is_read(place: Place, text: str) -> None:
    whole = place.issue()

    assert place.refused(text.replace("{}", whole)) == Reason.MALFORMED

    (refused,) = events("token.refused")
    assert (refused.object_type, refused.object_id, refused.token_id) == ("sandbox", "ialice", "")
    assert refused.tenant_id == place.tenant.pk
    assert whole not in str(whole_row(refused))
    place.redeem(whole)


def test_each_changed_character_is_refused(place: Place) -> None:
    text = place.issue(max_uses=None)
    for position in range(4, len(text)):
        changed = "b" if text[position] != "b" else "c"
        assert place.refused(text[:position] + changed + text[position + 1 :]) == Reason.MALFORMED
    assert place.token().uses == 0


@pytest.mark.parametrize("known_id", [True, False])
def test_a_well_formed_token_that_nobody_issued_is_unknown(place: Place, known_id: bool) -> None:  # noqa: FBT001
    place.issue()
    forged = tokentext.new_text(place.token().pk if known_id else "0123456789abcdef")

    assert place.refused(forged) == Reason.UNKNOWN

    (refused,) = events("token.refused")
    assert (refused.risk_score, refused.risk_reasons, refused.object_id) == (40, ["token.forged"], "ialice")


def test_a_token_is_stored_as_a_hash_only_and_the_ledger_never_holds_it(place: Place) -> None:
    text = place.issue()
    place.redeem(text)
    place.refused(text)

    stored = ScopedToken.everywhere().values().get()
    assert stored["hash"] == tokentext.text_hash(text)
    secret_half = text.rpartition("_")[2]
    assert secret_half not in str(stored)
    for code in ("token.issued", "token.reused"):
        assert secret_half not in str([whole_row(event) for event in events(code)])


# --- ends


@pytest.mark.parametrize(
    ("end", "reason", "score"),
    [
        ("revoke", Reason.REVOKED, 50),
        ("sandbox", Reason.SANDBOX_ENDED, 50),
        ("restart", Reason.OTHER_GENERATION, 45),
        ("risk", Reason.VOIDED, 50),
        ("tenant", Reason.TENANT_SUSPENDED, 50),
    ],
)
def test_a_token_that_has_ended_is_refused(place: Place, end: str, reason: Reason, score: int) -> None:
    text = place.issue(max_uses=None)
    place.redeem(text)
    ends: dict[str, Any] = {
        "revoke": lambda: actions.revoke(actor=place.actor, token=place.token()),
        "sandbox": lambda: actions.end_of_sandbox("ialice"),
        "restart": lambda: actions.end_of_sandbox("ialice", reason=TokenEnd.RESTARTED),
        "risk": lambda: actions.end_of_sandbox("ialice", reason=TokenEnd.RISK),
        "tenant": lambda: tenant_actions.set_tenant_state(
            actor=factories.OPERATOR, tenant=place.tenant, state="suspended"
        ),
    }

    ends[end]()

    assert place.refused(text) == reason
    (refused,) = events("token.refused")
    assert (refused.reason, refused.risk_score) == (reason, score)


def test_a_tenant_that_is_active_again_has_new_tokens_only(place: Place) -> None:
    text = place.issue(max_uses=None)
    for state in ("suspended", "active"):
        tenant_actions.set_tenant_state(actor=factories.OPERATOR, tenant=place.tenant, state=state)

    assert place.refused(text) == Reason.TENANT_SUSPENDED
    place.redeem(place.issue())


def test_a_use_that_is_undone_does_not_bring_back_a_token_that_ended_meanwhile(place: Place) -> None:
    text = place.issue()
    grant = place.redeem(text)
    actions.end_of_sandbox("ialice", reason=TokenEnd.RISK)

    redeeming.refund(grant)

    assert place.refused(text) == Reason.VOIDED


# --- the vault and the service


def test_a_use_of_which_nothing_went_out_is_undone(place: Place) -> None:
    text = place.issue()

    heard = redeeming.refund(place.redeem(text))

    assert (heard.status, heard.code, heard.reason) == (503, "upstream_unavailable", Reason.UPSTREAM_UNAVAILABLE)
    assert (place.token().uses, under_way()) == (0, 0)
    (refused,) = events("token.refused")
    assert (refused.reason, refused.risk_score) == ("upstream_unavailable", None)
    place.redeem(text)


def test_a_vault_that_is_away_is_named_and_nothing_is_used(place: Place) -> None:
    text = place.issue()
    secrets = Secret.everywhere()
    secrets.update(vault="closed")
    with pytest.raises(Refused) as heard:
        place.redeem(text)

    assert (heard.value.status, heard.value.code) == (503, "vault_unavailable")
    assert (place.token().uses, under_way()) == (0, 0)
    assert events("token.refused")[0].reason == "vault_unavailable"
    secrets.update(vault="embedded")
    place.redeem(text)


def test_what_is_settled_is_not_undone_and_the_other_way_round(place: Place) -> None:
    text = place.issue(**TWICE)
    grant = place.redeem(text)
    redeeming.settle(grant, Outcome(200))
    redeeming.refund(grant)
    assert (place.token().uses, len(events("token.redeemed")), events("token.refused")) == (1, 1, [])

    grant = place.redeem(text)
    redeeming.refund(grant)
    redeeming.settle(grant, Outcome(200))
    assert (place.token().uses, len(events("token.redeemed")), len(events("token.refused"))) == (1, 1, 1)


def test_a_secret_that_is_disabled_or_gone_uses_nothing_up(place: Place) -> None:
    text = place.issue()
    secret = Secret.everywhere().get()

    secret_actions.disable_secret(actor=place.actor, secret=secret)
    assert place.refused(text) == Reason.SECRET_MISSING
    secret_actions.enable_secret(actor=place.actor, secret=secret)
    secret_actions.delete_secret(actor=place.actor, secret=secret)
    assert place.refused(text) == Reason.SECRET_MISSING
    assert (place.token().uses, under_way()) == (0, 0)


def test_another_secret_under_the_same_name_is_not_what_the_token_is_for(place: Place) -> None:
    text = place.issue()
    secret_actions.delete_secret(actor=place.actor, secret=Secret.everywhere().get())
    factories.secret(place.tenant, "openai-key", "another-value-altogether")

    assert place.refused(text) == Reason.SECRET_MISSING


def test_a_new_version_of_the_secret_counts_at_once(place: Place) -> None:
    text = place.issue(max_uses=None)
    assert place.redeem(text).secret.reveal() == KEY.encode()

    secret_actions.add_version(actor=place.actor, secret=Secret.everywhere().get(), value="sk-proj-the-next-one")

    assert place.redeem(text).secret.reveal() == b"sk-proj-the-next-one"


def test_an_answer_that_held_the_secret_scores_ninety(place: Place) -> None:
    redeeming.settle(place.redeem(place.issue()), Outcome(200, reflected=True))

    (reflected,) = events("secret.reflected")
    assert (reflected.risk_score, reflected.risk_band, reflected.risk_reasons) == (90, "critical", ["secret.reflected"])
    assert (reflected.sandbox_id, reflected.generation, reflected.tenant_id) == ("ialice", 1, place.tenant.pk)
    assert reflected.details["secret_name"] == "openai-key"


def test_the_tenth_refusal_within_ten_minutes_is_probing(place: Place) -> None:
    text = place.issue()
    for number in range(11):
        place.refused(text, segments=("v1", f"try{number}"))

    scores = [(event.risk_score, event.risk_reasons) for event in events("token.refused")]
    usual = (40, ["token.beyond"])
    assert scores == [usual] * 9 + [(85, ["token.probing", "token.beyond"]), usual]


def test_refusals_hear_the_same_words_whatever_the_reason(place: Place) -> None:
    text = place.issue(max_uses=None, requests_per_minute=1)
    place.redeem(text)
    said = set()
    for shown, caller, asked in (
        ("nonsense", ALICE, {}),
        (text, BOB, {}),
        (text, ALICE, {"method": "GET"}),
        (text, ALICE, {"service": "github"}),
    ):
        with pytest.raises(Refused) as refused:
            place.redeem(shown, caller, **asked)
        said.add((refused.value.status, str(refused.value.as_body()), str(refused.value.headers())))
    assert len(said) == 1
