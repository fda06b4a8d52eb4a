"""A backend issues a token to its sandbox over REST, sees how it was used, and takes it away again."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from audit.models import Event
from corekit import clock
from sandboxes.models import Sandbox
from tenants import actions as tenant_actions
from tenants.broker import redeeming, tokentext
from tenants.broker.redeeming import Asked, Caller, Outcome, Refused
from tenants.secretmodels import Secret
from tenants.secrets import actions as secret_actions
from tenants.tokenmodels import ScopedToken
from tests import factories
from tests.api.rest import Rest
from tests.factories import OPERATOR
from tests.sandboxes.fixtures import at_once, caller

if TYPE_CHECKING:
    from sandboxes.models import Template
    from tests.sandboxes.fixtures import Caller as Person
    from tests.sandboxes.node_double import NodeDouble

pytestmark = pytest.mark.django_db

KEY = "sk-proj-T3st-Key-of-Acme-9fQ2xWv7"
CHAT = {"secret": "openai-key", "allowed_apis": ["openai/chat/completions"]}
AGAIN: dict[str, Any] = {"Idempotency-Key": "order-7"}
COMPLETION = Asked("openai", "POST", ("v1", "chat", "completions"), "application/json", 20)


@pytest.fixture
def box(node: NodeDouble, base: Template, alice: Person) -> str:
    """Return Alice's sandbox; Acme has a key for OpenAI."""
    factories.secret(alice.tenant, "openai-key", KEY)
    return str(alice.create()["sandboxID"])


def issue(rest: Rest, box: str, **wanted: Any) -> dict[str, Any]:
    """Return the answer about a new token."""
    answer: dict[str, Any] = rest.post(f"sandboxes/{box}/tokens", CHAT | wanted, status=201)
    return answer


def use(text: str, box: str, generation: int = 1) -> str:
    """Use a token from inside a sandbox; return the secret that the broker gets, or why it gets none."""
    try:
        return redeeming.redeem(text, Caller(box, generation), COMPLETION).secret.reveal().decode()
    except Refused as refused:
        return str(refused.reason)


def test_a_token_for_one_chat_completion_within_five_minutes(rest: Rest, box: str, alice: Person) -> None:
    before = clock.now()
    answer = issue(rest, box, purpose="summarise the report")

    assert answer["type"] == "scoped_token"
    parsed = tokentext.parse(answer.pop("token"))
    assert parsed is not None
    expires = datetime.fromisoformat(answer["expires_at"])
    assert 299 <= (expires - before).total_seconds() <= 301
    assert {name: answer[name] for name in ("secret", "service", "max_uses", "uses", "purpose", "created_by")} == {
        "secret": "openai-key",
        "service": "openai",
        "max_uses": 1,
        "uses": 0,
        "purpose": "summarise the report",
        "created_by": alice.key.pk,
    }
    assert answer["allow"] == [
        {"methods": ["POST"], "paths": ["/v1/chat/completions"], "content_types": ["application/json"]}
    ]
    assert answer["budget"] == {"bytes_out": None, "tokens": None, "usd": None}
    assert answer["base_url"] == "http://broker.gatehouse.internal/openai"
    assert answer["client_url"] == "http://broker.gatehouse.internal/openai/v1"

    issued = Event.objects.get(code="token.issued")
    assert (issued.tenant_id, issued.sandbox_id, issued.generation) == (alice.tenant.pk, box, 1)
    assert (issued.actor_id, issued.object_id) == (alice.key.pk, answer["id"])
    assert issued.details["calls"] == ["POST /v1/chat/completions"]
    assert issued.details["secret_name"] == "openai-key"


def test_the_token_is_used_inside_and_no_answer_but_the_first_shows_it(rest: Rest, box: str) -> None:
    answer = issue(rest, box)
    text = answer["token"]
    assert use(text, box) == KEY

    shown = rest.get(f"sandboxes/{box}/tokens/{answer['id']}")
    listed = rest.get(f"sandboxes/{box}/tokens")
    assert shown == listed["items"][0]
    assert (shown["uses"], shown["ended_at"]) == (1, None)
    for body in (shown, listed, *rest.get("audit-events?limit=100")["items"]):
        assert text not in str(body)
        assert text.rpartition("_")[2] not in str(body)
        assert KEY not in str(body)
    assert "hash" not in shown


def test_all_bounds_are_kept_and_shown(rest: Rest, box: str) -> None:
    answer = issue(
        rest,
        box,
        params={"model": ["gpt-4o"], "max_tokens": 1000, "stream": False},
        max_uses=None,
        requests_per_minute=30,
        budget={"bytes_out": 10_000, "tokens": 5000},
        starts_in=60,
        expires_in=86_400,
    )
    token = ScopedToken.everywhere().get()
    assert answer["params"] == {"model": ["gpt-4o"], "max_tokens": 1000, "stream": False}
    assert (answer["max_uses"], answer["requests_per_minute"]) == (None, 30)
    assert answer["budget"] == {"bytes_out": 10_000, "tokens": 5000, "usd": None}
    assert answer["spent"] == {"bytes_out": 0, "tokens": 0, "usd": 0}
    assert (token.expires_at - token.not_before).total_seconds() == 86_400
    assert (token.tokens_per_use, token.max_tokens) == (1000, 5000)


def test_a_service_without_calls_means_all_that_have_a_name(rest: Rest, box: str) -> None:
    answer = rest.post(f"sandboxes/{box}/tokens", {"secret": "OpenAI-Key ", "service": "openai"}, status=201)
    assert answer["secret"] == "openai-key"
    assert {path for call in answer["allow"] for path in call["paths"]} == {
        "/v1/chat/completions",
        "/v1/responses",
        "/v1/embeddings",
        "/v1/moderations",
        "/v1/models",
    }


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"secret": "nobodys-key"}, "secret"),
        ({"secret": ""}, "secret"),
        ({"secret": "x" * 129}, "secret"),
        ({"secret": 5}, "secret"),
        ({"allowed_apis": ["openai/chat"]}, "allowed_apis[0]"),
        ({"allowed_apis": ["openai/models", "github/user"]}, "allowed_apis"),
        ({"allowed_apis": []}, "allowed_apis"),
        ({"service": "openai"}, "allowed_apis"),
        ({"allowed_apis": None}, "allowed_apis"),
        ({"max_uses": 0}, "max_uses"),
        ({"max_uses": 2**31}, "max_uses"),
        ({"max_uses": "1"}, "max_uses"),
        ({"requests_per_minute": 0}, "requests_per_minute"),
        ({"expires_in": 0}, "expires_in"),
        ({"expires_in": 86_401}, "expires_in"),
        ({"expires_in": True}, "expires_in"),
        ({"starts_in": -1}, "starts_in"),
        ({"purpose": "x" * 201}, "purpose"),
        ({"purpose": "a\x00b"}, "purpose"),
        ({"budget": {"usd": 1.0}}, "budget.usd"),
        ({"sandbox": "ibob"}, "sandbox"),
        ({"generation": 2}, "generation"),
    ],
)
def test_refuse_what_can_not_be_issued(rest: Rest, box: str, changes: dict[str, Any], field: str) -> None:
    assert rest.refused("POST", f"sandboxes/{box}/tokens", CHAT | changes) == (400, "invalid_input", field)
    assert not ScopedToken.everywhere().exists()
    assert not Event.objects.filter(code="token.issued").exists()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"service": "nowhere"}, "service"),
        ({"service": ""}, "service"),
        ({"allow": []}, "allow"),
        ({"allow": [{"methods": ["POST"]}]}, "allow"),
        ({"allow": [{"methods": ["post"], "paths": ["/x"]}]}, "allow[0].methods[0]"),
        ({"allow": [{"methods": ["CONNECT"], "paths": ["/x"]}]}, "allow[0].methods[0]"),
        ({"allow": [{"methods": ["GET"], "paths": ["x"]}]}, "allow[0].paths[0]"),
        ({"allow": [{"methods": ["GET"], "paths": ["/ok", "/a/../b"]}]}, "allow[0].paths[1]"),
        ({"allow": [{"methods": ["GET"], "paths": ["/a//b"]}]}, "allow[0].paths[0]"),
        ({"allow": [{"methods": ["GET"], "paths": ["/**/b"]}]}, "allow[0].paths[0]"),
        ({"allow": [{"methods": ["GET"], "paths": ["/a*"]}]}, "allow[0].paths[0]"),
        ({"allow": [{"methods": ["GET"], "paths": ["/a%2fb"]}]}, "allow[0].paths[0]"),
        ({"allow": [{"methods": ["GET"], "paths": ["/a?b=1"]}]}, "allow[0].paths[0]"),
        ({"allow": [{"methods": ["GET"], "paths": ["/x"], "content_types": ["JSON"]}]}, "allow[0].content_types[0]"),
        ({"params": {"model": []}}, "params"),
        ({"params": {"temperature": 1}}, "params"),
        ({"budget": {"usd": 1.0}}, "budget.usd"),
    ],
)
def test_refuse_calls_that_mean_nothing(rest: Rest, box: str, changes: dict[str, Any], field: str) -> None:
    body = {"secret": "openai-key", "service": "openai"} | changes
    status, code, named = rest.refused("POST", f"sandboxes/{box}/tokens", body)
    assert (status, code) == (400, "invalid_input")
    assert named is not None
    assert named.startswith(field)
    assert not ScopedToken.everywhere().exists()


def test_a_disabled_secret_is_a_conflict(rest: Rest, box: str) -> None:
    secret_actions.disable_secret(actor=OPERATOR, secret=Secret.everywhere().get())
    assert rest.refused("POST", f"sandboxes/{box}/tokens", CHAT) == (409, "conflict", "secret")


def test_another_tenants_secret_is_no_secret(rest: Rest, box: str, mallory: Person) -> None:
    factories.secret(mallory.tenant, "evil-key", "sk-evil-evil-evil")
    body = CHAT | {"secret": "evil-key"}
    assert rest.refused("POST", f"sandboxes/{box}/tokens", body) == (400, "invalid_input", "secret")


def test_a_key_needs_the_scope(box: str, alice: Person, vera: Person) -> None:
    path = f"sandboxes/{box}/tokens"
    looking, blind = Rest(vera.secret), Rest(caller(alice.tenant, "blind", ["sandboxes:read"]).secret)
    assert looking.get(path) == {"items": [], "next": None}
    for method, where in (("POST", path), ("DELETE", path), ("DELETE", f"{path}/0123456789abcdef")):
        assert looking.refused(method, where, CHAT if method == "POST" else None)[:2] == (403, "forbidden")
    assert blind.refused("GET", path)[:2] == (403, "forbidden")
    # What an agent backend needs is in a key that nobody gave any scopes.
    assert issue(Rest(caller(alice.tenant, "backend").secret), box)["uses"] == 0


# --- ends


def test_a_revoked_token_is_dead_at_once(rest: Rest, box: str, alice: Person) -> None:
    kept, gone = issue(rest, box, max_uses=None), issue(rest, box, max_uses=None)
    path = f"sandboxes/{box}/tokens/{gone['id']}"
    assert use(gone["token"], box) == KEY

    for _ in range(2):
        assert rest.call("DELETE", path).status_code == 204

    assert (use(gone["token"], box), use(kept["token"], box)) == ("revoked", KEY)
    shown = rest.get(path)
    assert (shown["end_reason"], shown["ended_at"] is not None) == ("revoked", True)
    revoked = Event.objects.get(code="token.revoked")
    assert (revoked.actor_id, revoked.object_id, revoked.sandbox_id) == (alice.key.pk, gone["id"], box)
    assert rest.refused("DELETE", f"sandboxes/{box}/tokens/0123456789abcdef")[:2] == (404, "not_found")
    assert rest.refused("GET", f"sandboxes/{box}/tokens/{gone['token']}")[:2] == (404, "not_found")


def test_all_tokens_of_a_sandbox_are_revoked_at_once(rest: Rest, box: str, alice: Person) -> None:
    other = str(alice.create()["sandboxID"])
    texts = [issue(rest, box, max_uses=None)["token"] for _ in range(3)]
    elsewhere = issue(rest, other)["token"]

    assert rest.call("DELETE", f"sandboxes/{box}/tokens").status_code == 204

    assert {use(text, box) for text in texts} == {"revoked"}
    assert use(elsewhere, other) == KEY
    voided = Event.objects.get(code="token.voided")
    assert (voided.details, voided.reason, voided.sandbox_id) == ({"count": 3}, "revoked", box)


def test_tokens_die_with_the_key_that_issued_them(rest: Rest, box: str, alice: Person, bob: Person) -> None:
    mine, bobs = issue(rest, box, max_uses=None)["token"], issue(Rest(bob.secret), box)["token"]
    tenant_actions.revoke_api_key(actor=OPERATOR, key=alice.key)
    assert (use(mine, box), use(bobs, box)) == ("key_revoked", KEY)
    voided = Event.objects.get(code="token.voided")
    assert (voided.object_type, voided.object_id, voided.details) == ("api_key", alice.key.pk, {"count": 1})


def test_a_token_that_crossed_with_the_revocation_of_its_key_is_refused(rest: Rest, box: str, alice: Person) -> None:
    tenant_actions.revoke_api_key(actor=OPERATOR, key=alice.key)
    text = tokentext.new_text("0123456789abcdef")
    now = clock.now()
    ScopedToken(
        id="0123456789abcdef",
        tenant=alice.tenant,
        hash=tokentext.text_hash(text),
        sandbox_id=box,
        generation=1,
        secret_name="openai-key",
        secret_id=Secret.everywhere().get().pk,
        service="openai",
        allow=[{"methods": ["POST"], "paths": ["/**"]}],
        not_before=now,
        expires_at=now.replace(year=now.year + 1),
        created_by=alice.key.pk,
    ).save(force_insert=True)
    assert use(text, box) == "key_revoked"


def test_a_sandbox_that_has_ended_gets_none(rest: Rest, box: str) -> None:
    text = issue(rest, box)["token"]
    rest.call("DELETE", f"sandboxes/{box}")
    assert use(text, box) == "sandbox_ended"
    assert rest.refused("POST", f"sandboxes/{box}/tokens", CHAT)[:2] == (404, "not_found")
    (shown,) = rest.get(f"sandboxes/{box}/tokens")["items"]
    assert shown["end_reason"] == "sandbox_ended"


def test_a_sandbox_that_is_ending_gets_none(rest: Rest, box: str, node: NodeDouble) -> None:
    node.die()
    assert rest.call("DELETE", f"sandboxes/{box}").status_code == 503
    assert Sandbox.everywhere().get(pk=box).state == "ending"
    assert rest.refused("POST", f"sandboxes/{box}/tokens", CHAT) == (409, "conflict", "sandbox_id")
    node.listen()


# --- lists and repeats


def test_the_list_pages_newest_first_and_holds_only_this_sandbox(rest: Rest, box: str, alice: Person) -> None:
    other = str(alice.create()["sandboxID"])
    issue(rest, other)
    made = [issue(rest, box)["id"] for _ in range(3)]

    first = rest.get(f"sandboxes/{box}/tokens?limit=2")
    second = rest.get(f"sandboxes/{box}/tokens?limit=2&cursor={first['next']}")

    assert [one["id"] for one in first["items"] + second["items"]] == made[::-1]
    assert second["next"] is None


def test_what_uses_cost_is_shown(rest: Rest, box: str) -> None:
    answer = issue(rest, box, budget={"tokens": 10_000, "bytes_out": 1000})
    grant = redeeming.redeem(answer["token"], Caller(box, 1), COMPLETION)
    redeeming.settle(grant, Outcome(200, bytes_in=10, bytes_out=20, usage_tokens=42))
    shown = rest.get(f"sandboxes/{box}/tokens/{answer['id']}")
    assert shown["spent"] == {"bytes_out": 20, "tokens": 42, "usd": 0}


def test_a_repeated_call_gets_the_same_token(rest: Rest, box: str) -> None:
    path = f"sandboxes/{box}/tokens"
    answers = [rest.call("POST", path, CHAT, **AGAIN) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [201] * 3
    assert answers[0].json() == answers[1].json() == answers[2].json()
    assert ScopedToken.everywhere().count() == 1
    assert Event.objects.filter(code="token.issued").count() == 1
    assert use(answers[0].json()["token"], box) == KEY


def test_one_key_is_for_one_call(rest: Rest, box: str, alice: Person, bob: Person) -> None:
    other, path = str(alice.create()["sandboxID"]), f"sandboxes/{box}/tokens"
    assert rest.call("POST", path, CHAT, **AGAIN).status_code == 201

    mismatch = (409, "idempotency_request_mismatch", "Idempotency-Key")
    assert rest.refused("POST", path, CHAT | {"max_uses": 2}, **AGAIN) == mismatch
    assert rest.refused("POST", f"sandboxes/{other}/tokens", CHAT, **AGAIN) == mismatch
    assert Rest(bob.secret).refused("POST", path, CHAT, **AGAIN) == mismatch
    assert rest.refused("POST", path, CHAT, **{"Idempotency-Key": "no spaces"})[2] == "Idempotency-Key"
    assert ScopedToken.everywhere().count() == 1


@pytest.mark.django_db(transaction=True)
def test_of_calls_with_one_key_at_the_same_moment_one_issues(rest: Rest, box: str) -> None:
    answers = at_once(
        12,
        lambda _: Rest(rest.headers["X-API-KEY"]).call("POST", f"sandboxes/{box}/tokens", CHAT, **AGAIN),
        threads=12,
    )
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["token"] for answer in answers}) == 1
    assert ScopedToken.everywhere().count() == 1


@pytest.mark.django_db(transaction=True)
def test_no_token_outlives_a_sandbox_that_ends_at_the_same_moment(rest: Rest, box: str) -> None:
    def act(number: int) -> Any:
        mine = Rest(rest.headers["X-API-KEY"])
        if number == 4:
            return mine.call("DELETE", f"sandboxes/{box}")
        return mine.call("POST", f"sandboxes/{box}/tokens", CHAT)

    answers = at_once(10, act, threads=10)

    assert {answer.status_code for answer in answers} <= {201, 204, 404, 409}
    assert not ScopedToken.everywhere().filter(ended_at=None).exists()
    for answer in answers:
        if answer.status_code == 201:
            assert use(answer.json()["token"], box) == "sandbox_ended"
