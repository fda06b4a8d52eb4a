"""Code in a sandbox uses a token: the broker gets the secret for just what the token is good for, and says so."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from corekit import clock
from tenants import actions as tenant_actions
from tenants import quota
from tenants.broker import actions, redeeming, services, tokentext
from tenants.broker.redeeming import Caller, Outcome, Reason, Refused
from tenants.secretmodels import Secret
from tenants.secrets import actions as secret_actions
from tenants.tokenmodels import ScopedToken, TokenEnd
from tests import factories
from tests.broker.tokenplace import ALICE, BOB, KEY, MALLORY, Budget, Place, events, place, under_way

if TYPE_CHECKING:
    from datetime import datetime

    from audit.models import Event
    from tenants.tokenmodels import BrokerService
    from tests.people import Person

pytestmark = pytest.mark.django_db
__all__ = ["place"]

TWICE: dict[str, Any] = {"max_uses": 2}


def at(monkeypatch: pytest.MonkeyPatch, moment: datetime) -> None:
    """Let it be another time."""
    monkeypatch.setattr(clock, "now", lambda: moment)


def whole_row(event: Event) -> dict[str, Any]:
    """Return all that an event holds."""
    return {field.name: getattr(event, field.name) for field in event._meta.fields}


def own_service(place: Place, name: str) -> BrokerService:
    """Return a new service of Acme."""
    wanted = services.Description(base_url="https://llm.vendor.com", usd_per_mtok=10)
    return services.create(actor=place.actor, name=name, wanted=wanted)


def test_it_gives_the_secret_to_the_broker_once(place: Place) -> None:
    text = place.issue()

    grant = place.redeem(text)

    assert (grant.secret.reveal(), grant.service.base_url) == (KEY.encode(), "https://api.openai.com")
    assert (grant.tenant_id, grant.params, grant.max_body) == (place.tenant.pk, {}, 64 * 1024 * 1024)
    assert (place.token().uses, under_way()) == (1, 1)
    assert KEY not in repr(grant)


def test_each_use_is_an_event_once_it_is_over(place: Place) -> None:
    grant = place.redeem(place.issue())
    assert events("token.redeemed") == []

    redeeming.settle(grant, Outcome(200, bytes_in=900, bytes_out=200, usage_tokens=42))
    redeeming.settle(grant, Outcome(200, bytes_in=900, bytes_out=200, usage_tokens=42))

    (used,) = events("token.redeemed")
    assert (used.tenant_id, used.sandbox_id, used.generation) == (place.tenant.pk, "ialice", 1)
    assert (used.object_type, used.object_id, used.token_id) == ("scoped_token", grant.token_id, grant.token_id)
    assert (used.actor_id, used.on_behalf_of, used.outcome, used.status) == ("broker", "ialice", "ok", 200)
    assert used.details.pop("duration_ms") >= 0  # type: ignore[operator]
    assert used.details == {
        "service": "openai",
        "method": "POST",
        "path": "/v1/chat/completions",
        "secret_name": "openai-key",
        "bytes_in": 900,
        "bytes_out": 200,
        "usage": 42,
        "microusd": 0,
    }
    assert (used.risk_score, under_way()) == (None, 0)


def test_a_one_time_token_is_good_once_and_a_second_use_is_a_finding(place: Place) -> None:
    text = place.issue()
    place.redeem(text)

    assert place.refused(text) == Reason.USED_UP

    (again,) = events("token.reused")
    assert (again.reason, again.outcome, again.decision, again.risk_score) == ("used_up", "refused", "deny", 65)
    assert (again.risk_band, again.risk_reasons) == ("high", ["token.reused"])
    assert (again.sandbox_id, again.object_id) == ("ialice", place.token().pk)
    assert again.details == {
        "service": "openai",
        "method": "POST",
        "path": "/v1/chat/completions",
        "issued_for": "ialice",
    }
    assert (place.token().uses, events("token.refused")) == (1, [])


def test_a_token_for_several_uses_is_used_up_without_a_finding_of_reuse(place: Place) -> None:
    text = place.issue(**TWICE)
    place.redeem(text)
    place.redeem(text)

    assert place.refused(text) == Reason.USED_UP
    (refused,) = events("token.refused")
    assert (refused.reason, refused.risk_score) == ("used_up", None)


def test_a_token_without_a_limit_is_good_again_and_again(place: Place) -> None:
    text = place.issue(max_uses=None)
    for _ in range(5):
        place.redeem(text)
    assert place.token().uses == 5


# --- where and when


@pytest.mark.parametrize(
    ("caller", "reason", "score"),
    [
        (BOB, Reason.OTHER_SANDBOX, 80),
        (Caller("ialice", 2), Reason.OTHER_GENERATION, 45),
        (Caller(run="run-1"), Reason.OTHER_SANDBOX, 80),
        (Caller("ialice", 1, "run-1"), Reason.OTHER_SANDBOX, 80),
        (Caller(), Reason.OTHER_SANDBOX, 80),
    ],
)
def test_it_is_good_only_where_it_was_issued_for(place: Place, caller: Caller, reason: Reason, score: int) -> None:
    text = place.issue()

    assert place.refused(text, caller) == reason

    (refused,) = events("token.refused")
    assert (refused.reason, refused.risk_score) == (reason, score)
    assert (refused.tenant_id, refused.sandbox_id) == (place.tenant.pk, caller.sandbox_id)
    assert refused.details["issued_for"] == "ialice"
    assert (place.token().uses, under_way()) == (0, 0)
    place.redeem(text)


def test_each_tenant_hears_its_own_half_of_a_token_that_was_carried_away(place: Place, mallory: Person) -> None:
    quota.reserve(tenant_id=mallory.tenant.pk, sandbox_id="imallory", amounts=quota.Amounts())

    assert place.refused(place.issue(), MALLORY) == Reason.OTHER_SANDBOX

    theirs, ours = sorted(events("token.refused"), key=lambda event: event.tenant_id == place.tenant.pk)
    assert (theirs.tenant_id, theirs.sandbox_id, theirs.object_id) == (mallory.tenant.pk, "imallory", "imallory")
    assert (ours.tenant_id, ours.sandbox_id, ours.object_id) == (place.tenant.pk, "", place.token().pk)
    assert "ialice" not in str(theirs.details) + theirs.token_id + theirs.on_behalf_of
    assert "imallory" not in str(ours.details) + ours.on_behalf_of
    assert (theirs.risk_score, ours.risk_score) == (80, 80)


def test_a_token_of_a_run_is_good_for_that_run(place: Place) -> None:
    run = Caller(run="run-1")
    text = place.issue(caller=run)

    assert place.refused(text, Caller(run="run-2")) == Reason.OTHER_SANDBOX
    assert place.refused(text, ALICE) == Reason.OTHER_SANDBOX
    assert place.redeem(text, run).secret.reveal() == KEY.encode()


def test_it_is_good_up_to_the_microsecond_before_its_end(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    text = place.issue(max_uses=None, expires_in_s=300)
    end = place.token().expires_at

    at(monkeypatch, end - timedelta(microseconds=1))
    place.redeem(text)
    for late in (timedelta(), timedelta(microseconds=1), timedelta(days=1)):
        at(monkeypatch, end + late)
        assert place.refused(text) == Reason.EXPIRED
    assert [event.reason for event in events("token.refused")] == ["expired"] * 3


def test_it_is_good_from_its_beginning_on(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    text = place.issue(max_uses=None, starts_in_s=60, expires_in_s=10)
    start = place.token().not_before

    assert place.refused(text) == Reason.NOT_YET
    at(monkeypatch, start - timedelta(microseconds=1))
    assert place.refused(text) == Reason.NOT_YET
    at(monkeypatch, start)
    place.redeem(text)
    at(monkeypatch, start + timedelta(seconds=10))
    assert place.refused(text) == Reason.EXPIRED


# --- what for


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"service": "anthropic"}, Reason.SERVICE),
        ({"service": "OpenAI"}, Reason.SERVICE),
        ({"method": "GET"}, Reason.METHOD),
        ({"method": "post"}, Reason.METHOD),
        ({"segments": ("v1", "models")}, Reason.PATH),
        ({"segments": ("v1", "chat", "completions", "")}, Reason.PATH),
        ({"segments": ("", "v1", "chat", "completions")}, Reason.PATH),
        ({"segments": ("v1", "chat", "completions", "..")}, Reason.PATH),
        ({"segments": ("v1", "x", "..", "chat", "completions")}, Reason.PATH),
        ({"segments": ("v1", "chat%2fcompletions")}, Reason.PATH),
        ({"segments": ("v1", "chat", "completion%73")}, Reason.PATH),
        ({"segments": ("v1", "chat", "completions%00")}, Reason.PATH),
        ({"segments": ("v1", "chat", "completions;x=1")}, Reason.PATH),
        ({"segments": ("v1", "CHAT", "completions")}, Reason.PATH),
        ({"segments": ()}, Reason.PATH),
        ({"content_type": "text/plain"}, Reason.CONTENT_TYPE),
        ({"content_type": ""}, Reason.CONTENT_TYPE),
        ({"content_type": "application/json; charset=utf-16"}, Reason.CONTENT_TYPE),
        ({"content_type": "application/json, text/plain"}, Reason.CONTENT_TYPE),
        ({"body_length": 64 * 1024 * 1024 + 1}, Reason.TOO_LARGE),
    ],
)
def test_it_is_good_only_for_what_it_was_issued_for(place: Place, asked: dict[str, Any], reason: Reason) -> None:
    text = place.issue()

    assert place.refused(text, **asked) == reason

    (refused,) = events("token.refused")
    assert (refused.reason, refused.risk_score, refused.risk_reasons) == (reason, 40, ["token.beyond"])
    assert refused.details["service"] == asked.get("service", "openai")
    assert (place.token().uses, under_way()) == (0, 0)
    place.redeem(text, content_type='application/json; charset="UTF-8"')


ALLOW = [
    {"methods": ["GET"], "paths": ["/repos/*/*/contents/**"]},
    {"methods": ["PUT", "POST"], "paths": ["/repos/acme/*/issues"], "max_body": 100},
    {"methods": ["GET"], "paths": ["/"]},
]


@pytest.mark.parametrize(
    ("method", "path", "reason"),
    [
        ("GET", "/repos/acme/site/contents", None),
        ("GET", "/repos/acme/site/contents/a/b/c.md", None),
        ("GET", "/repos/acme/site/contents/caf%C3%A9%20menu.md", None),
        ("GET", "/", None),
        ("PUT", "/repos/acme/site/issues", None),
        ("GET", "/repos/acme/site", Reason.PATH),
        ("GET", "/repos/acme/site/contents/..", Reason.PATH),
        ("GET", "/repos/acme/site/contents/%2e%2e/x", Reason.PATH),
        ("GET", "/repos/acme/site/contents//x", Reason.PATH),
        ("GET", "/repos/acme/si%2fte/contents/x", Reason.PATH),
        ("GET", "/repos/acme/site/contents/a\\b", Reason.PATH),
        ("GET", "/repos/acme/site/contents/é", Reason.PATH),
        ("POST", "/repos/evil/site/issues", Reason.PATH),
        ("POST", "/repos/acme/site/issues/1", Reason.PATH),
        ("DELETE", "/repos/acme/site/issues", Reason.METHOD),
    ],
)
def test_a_star_is_one_segment_and_two_at_the_end_are_the_rest(
    place: Place, method: str, path: str, reason: Reason | None
) -> None:
    text = place.issue(service="github", allow=ALLOW)
    asked: dict[str, Any] = {
        "service": "github",
        "method": method,
        "segments": tuple(path.split("/")[1:]),
        "body_length": 0,
    }

    if reason is None:
        assert place.redeem(text, **asked).asked.path == path
    else:
        assert place.refused(text, **asked) == reason


def test_a_call_may_bound_its_bodies(place: Place) -> None:
    text = place.issue(service="github", allow=ALLOW, max_uses=None)
    asked: dict[str, Any] = {"service": "github", "segments": ("repos", "acme", "site", "issues")}

    assert place.redeem(text, **asked, body_length=100).max_body == 100
    assert place.redeem(text, **asked, body_length=None).max_body == 100
    assert place.refused(text, **asked, body_length=101) == Reason.TOO_LARGE


def test_a_service_that_was_deleted_is_refused(place: Place) -> None:
    row = own_service(place, "llm")
    text = place.issue(service="llm", allow=[{"methods": ["POST"], "paths": ["/**"]}], max_uses=None)
    place.redeem(text, service="llm")

    row.delete()

    assert place.refused(text, service="llm") == Reason.SERVICE


# --- texts


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
    text = place.issue()
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


# --- rates and budgets


def test_a_rate_lets_a_minutes_worth_through_at_once_and_then_one_by_one(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = place.issue(max_uses=None, requests_per_minute=3)
    start = clock.now()
    at(monkeypatch, start)
    for _ in range(3):
        place.redeem(text)
    with pytest.raises(Refused) as refused:
        place.redeem(text)
    assert (refused.value.status, refused.value.reason, refused.value.retry_after) == (429, Reason.RATE, 20)

    at(monkeypatch, start + timedelta(seconds=20, milliseconds=1))
    place.redeem(text)
    assert place.refused(text) == Reason.RATE
    assert {event.risk_score for event in events("token.refused")} == {None}


def test_a_budget_of_bytes_is_never_overspent_where_lengths_are_known(place: Place) -> None:
    text = place.issue(max_uses=None, budget=Budget(bytes_out=500))

    first = place.redeem(text, body_length=200)
    place.redeem(text, body_length=300)
    assert place.refused(text, body_length=1) == Reason.BUDGET
    redeeming.settle(first, Outcome(200, bytes_out=150))
    place.redeem(text, body_length=50)

    assert place.refused(text, body_length=1) == Reason.BUDGET
    token = place.token()
    assert (token.spent_bytes_out, token.reserved_bytes_out) == (150, 350)


def test_a_body_of_unknown_length_is_bounded_where_bytes_are_counted(place: Place) -> None:
    text = place.issue(max_uses=None, budget=Budget(bytes_out=500))
    grant = place.redeem(text, body_length=None)
    assert grant.max_body == 1024 * 1024
    assert place.refused(text, body_length=None) == Reason.BUDGET
    redeeming.settle(grant, Outcome(200, bytes_out=10))
    assert (place.token().spent_bytes_out, place.token().reserved_bytes_out) == (10, 0)


def test_a_budget_of_tokens_reserves_what_an_answer_may_cost_and_settles_what_it_did(place: Place) -> None:
    text = place.issue(max_uses=None, params={"max_tokens": 100}, budget=Budget(tokens=250))
    grants = [place.redeem(text) for _ in range(3)]
    assert place.refused(text) == Reason.BUDGET

    for grant, usage in zip(grants, (10, 20, 30), strict=True):
        redeeming.settle(grant, Outcome(200, usage_tokens=usage))

    token = place.token()
    assert (token.spent_tokens, token.reserved_tokens) == (60, 0)
    place.redeem(text)


@pytest.mark.parametrize(
    ("outcome", "spent"),
    [
        (Outcome(200, usage_tokens=7), 7),
        (Outcome(200), 100),
        (Outcome(None, error="cut_off"), 100),
        (Outcome(500), 0),
        (Outcome(429), 0),
    ],
)
def test_an_answer_that_says_nothing_costs_what_was_expected(place: Place, outcome: Outcome, spent: int) -> None:
    text = place.issue(params={"max_tokens": 100}, budget=Budget(tokens=250))
    redeeming.settle(place.redeem(text), outcome)
    assert (place.token().spent_tokens, place.token().reserved_tokens) == (spent, 0)


def test_a_budget_in_dollars_goes_by_the_price_of_the_service(place: Place) -> None:
    own_service(place, "llm")
    text = place.issue(
        service="llm",
        allow=[{"methods": ["POST"], "paths": ["/**"]}],
        max_uses=None,
        params={"max_tokens": 1000},
        budget=Budget(microusd=15_000),
    )
    grants = [place.redeem(text, service="llm") for _ in range(2)]
    assert place.refused(text, service="llm") == Reason.BUDGET
    redeeming.settle(grants[0], Outcome(200, usage_tokens=301))
    redeeming.settle(grants[1], Outcome(200, usd=0.004))
    assert (place.token().spent_microusd, place.token().reserved_microusd) == (3010 + 4000, 0)


# --- crashes


def test_a_use_whose_process_died_is_settled_by_what_it_reserved(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.redeem(place.issue(params={"max_tokens": 100}, budget=Budget(tokens=250)))
    assert redeeming.settle_lost() == 0

    at(monkeypatch, clock.now() + timedelta(seconds=redeeming.LONGEST_CALL_S + 1))
    assert (redeeming.settle_lost(), redeeming.settle_lost()) == (1, 0)

    (used,) = events("token.redeemed")
    assert (used.outcome, used.reason, used.details["usage"], used.sandbox_id) == (
        "error",
        "interrupted",
        100,
        "ialice",
    )
    assert (place.token().spent_tokens, place.token().reserved_tokens, under_way()) == (100, 0, 0)


def test_rows_of_tokens_are_kept_for_a_month(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.issue()
    end = place.token().expires_at
    at(monkeypatch, end + timedelta(days=30))
    assert actions.forget_old() == 0
    at(monkeypatch, end + timedelta(days=30, seconds=1))
    assert actions.forget_old() == 1
    assert not ScopedToken.everywhere().exists()
